"""Families without a row: what is found by running a model is what it computes, and what cannot be is said."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

import models
import tiny_families
import whet
from whet.checkpoint import Checkpoint, load_model
from whet.errors import UsageError
from whet.steps.original import open_original
from whet.targets import find_target
from whet.walk import Untouched, Walk
from whet.walk.look import look

TEXT = models.documents(60)
TOKENS = torch.randint(3, 260, (2, 16), generator=torch.Generator().manual_seed(0))
# One of each way that a family may differ: blocks that give tuples, parallel branches and fused rows, ALiBi, a factor
# on logits, norms without weights, blocks of two kinds, a stack without attention, partial rotary, biases, Korean ones.
FOUND = {
    "falcon": {"tied": True},
    "mpt": {"tied": True},
    "cohere": {"tied": True, "pad_token_id": 263},  # else the row of the first token is 0, and so is what its norm gets
    "granite": {"logits_scaling": 4.0},
    "olmo": {},
    "lfm2": {},
    "mamba": {},
    "stablelm": {},
    "starcoder2": {"tied": True},
    "exaone4": {},
}
QUICK = ("falcon", "granite", "lfm2", "stablelm")
families = pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in FOUND]
)


@pytest.fixture(autouse=True)
def without_rows():
    with models.without_rows(FOUND):
        yield


def make(folder, family, **more):
    """A random model whose blocks do something."""
    settings = FOUND.get(family, {}) | more
    torch.manual_seed(0)
    config = models.config(family, settings.pop("tied", False), **settings)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config.to_dict()), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2) if parameter.dim() > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    models.tokenizer().save_pretrained(folder)
    return folder


def opened(folder):
    return open_original(folder, find_target("whet"))


@families
@torch.no_grad()
def test_blocks_one_at_a_time_give_the_logits_of_the_whole_model(tmp_path, family):
    """Through the walk that solvers take, on other tokens and more of them than it was found with."""
    folder = make(tmp_path / "m", family)
    about = opened(folder)
    parts, checkpoint = about.parts, about.checkpoint
    assert parts.family.found and about.unfound is None
    table = checkpoint.read(parts.embedding.parameter)
    walk = Walk(checkpoint, parts, [TOKENS], [], table, table, "cpu")
    walk.go(Untouched())
    head = checkpoint.read((parts.head or parts.embedding).parameter).float()
    (final,) = walk.final()
    theirs = load_model(folder, torch.float32)(TOKENS).logits[:, :-1]
    mine = torch.cat([walk.skeleton.next_logits(states, head) for states in final])
    assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


@families
def test_solvers_and_budgets_work_on_what_was_found(tmp_path, family):
    folder = make(tmp_path / "m", family)
    asked = {"target": "whet", "text": TEXT, "samples": 24, "window": 32}
    solved = whet.compress(folder, tmp_path / "gptq", scheme="int3s-g32", **asked)
    plain = whet.compress(folder, tmp_path / "nearest", scheme="int3s-g32", solver="nearest", **asked)
    assert solved["solver"] == "gptq" and 0 < solved["kl"] < 0.6 * plain["kl"]
    held = {"text": models.documents(20, seed=7), "window": 32, "speed": False}
    kept = [whet.compare(folder, tmp_path / name, **held)["divergence"]["kl"]["mean"] for name in ("gptq", "nearest")]
    assert kept[0] < kept[1]
    planned = whet.compress(folder, tmp_path / "plan", bits=9.0, **asked)
    assert 0 <= planned["kl"] < solved["kl"] and planned["plan"]["predicted"]["bits"] <= 9.0
    with pytest.raises(UsageError, match=r"folds into nothing"):
        whet.compress(folder, tmp_path / "no", scheme="int3s-g32", transform="awq", **asked)


def test_linears_that_are_given_the_same_tensor_share_their_input(tmp_path):
    parts = opened(make(tmp_path / "m", "stablelm")).parts
    reads = {linear.role: linear.reads for linear in parts.blocks[0]}
    assert len({reads[f"self_attn.{name}_proj"] for name in "qkv"}) == 1
    assert reads["mlp.gate_proj"] == reads["mlp.up_proj"] != reads["self_attn.q_proj"]
    assert len(set(reads.values())) == 4
    assert parts.family.norm == "model.norm" and parts.head is not None


@pytest.mark.parametrize(
    "family, more, why",
    [
        ("gemma3n_text", {}, "its hidden states are not one a token"),
        ("kimi_linear", {}, "transformers computes model.layers.0.self_attn.conv1d.weight from"),
    ],
)
def test_what_is_not_found_is_rounded_to_nearest_and_says_why(tmp_path, family, more, why):
    folder = tiny_families.make(tmp_path / "m", family, **more)
    checkpoint = Checkpoint(folder)
    about = opened(folder)
    assert not about.parts.family.found and why in str(about.unfound)
    assert why in str(look(checkpoint, about.parts))
    made = whet.compress(folder, tmp_path / "out", scheme="int8s", text=TEXT)
    assert made["solver"] == "nearest" and why in made["notes"][0]


# A bias on logits, one norm before and after the blocks, several values from each block, a buffer that the model fills
# in its blocks, an entry for a bound on logits with another name, another family's architecture, a state that is handed
# on, linears with names of their own in files, an infinite number in the config beside stacked experts.
ODD = (
    "phi",
    "nanochat",
    "bamba",
    "falcon_h1",
    "recurrent_gemma",
    "internlm3",
    "rwkv",
    "gptj",
    "qwen3_next",
    "axk2",
    "granitemoehybrid",
)
ODD_QUICK = ("phi", "nanochat", "falcon_h1")


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in ODD_QUICK else pytest.mark.long) for name in ODD]
)
def test_odd_ones_are_found_too(tmp_path, family):
    folder = tiny_families.make(tmp_path / "m", family)
    about = opened(folder)
    assert about.unfound is None and about.parts.family.found
    made = whet.compress(folder, tmp_path / "out", scheme="int4s-g16", text=TEXT, samples=8, window=32)
    assert made["solver"] == "gptq"
    own = load_model(tmp_path / "out", torch.float32)
    remote = made["container"] != "compressed-tensors"
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=remote, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(stock.eval()(TOKENS).logits, own(TOKENS).logits)
    table = about.checkpoint.read(about.parts.embedding.parameter)
    walk = Walk(about.checkpoint, about.parts, [TOKENS], [], table, table, "cpu")
    walk.go(Untouched())
    head = about.checkpoint.read((about.parts.head or about.parts.embedding).parameter).float()
    (final,) = walk.final()
    with torch.no_grad():
        theirs = load_model(folder, torch.float32)(TOKENS).logits[:, :-1]
        mine = torch.cat([walk.skeleton.next_logits(states, head) for states in final])
    assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_a_bias_on_logits_counts_in_plans(tmp_path):
    folder = tiny_families.make(tmp_path / "m", "phi")
    planned = whet.compress(folder, tmp_path / "out", bits=8.0, target="whet", text=TEXT, samples=16, window=32)
    assert 0 <= planned["kl"] < 0.2
    assert opened(folder).parts.family.bias == "lm_head.bias"
    made = whet.compress(folder, tmp_path / "a", scheme="int8s", embed="int8s", text=TEXT, samples=8, window=32)
    held = whet.compare(folder, tmp_path / "a", text=TEXT, window=32, speed=False)["divergence"]["kl"]["mean"]
    assert made["kl"] < 0.01 and held < 0.01


@pytest.mark.parametrize("family", ["cohere", "olmo"])
def test_a_head_of_its_own_is_kept_where_the_family_ties(tmp_path, family):
    """As transformers keeps it, whatever the config says or leaves out."""
    folder = make(tmp_path / "m", family, tied=True)
    state = load_file(folder / "model.safetensors")
    torch.manual_seed(1)
    table = state["model.embed_tokens.weight"]
    save_file({**state, "lm_head.weight": table + 0.1 * torch.randn_like(table)}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    made = whet.compress(folder, tmp_path / "out", scheme="int8s", text=TEXT, samples=4, window=32)
    assert "lm_head.weight" in Checkpoint(tmp_path / "out").shapes
    held = whet.compare(folder, tmp_path / "out", text=TEXT, window=32, speed=False)["divergence"]["kl"]["mean"]
    assert made["kl"] < 0.01 and held < 0.01


def test_blocks_that_say_a_token_more_are_copied(tmp_path):
    """DeepSeek V3 and GLM-4.5 have one in their files after the last, which transformers does not build."""
    folder = tiny_families.make(tmp_path / "m", "deepseek_v3")
    stored = load_file(folder / "model.safetensors")
    ahead = {n.replace("layers.1.", "layers.3."): v + 0 for n, v in stored.items() if n.startswith("model.layers.1.")}
    ahead["model.layers.3.eh_proj.weight"] = torch.ones(64, 128)
    save_file(stored | ahead, folder / "model.safetensors", {"format": "pt"})
    models.edit_config(folder, num_nextn_predict_layers=1)
    about = opened(folder)
    assert about.unfound is None and len(about.parts.blocks) == 3 and set(ahead) == set(about.parts.unnamed)
    asked = {"scheme": "int4s-g32", "solver": "gptq", "text": TEXT, "samples": 8, "window": 32}
    made = whet.compress(folder, tmp_path / "out", **asked)
    assert any("copied unchanged" in note and "model.layers.3." in note for note in map(str, made["notes"]))
    written = Checkpoint(tmp_path / "out")
    assert all(torch.equal(written.read(name), value) for name, value in ahead.items())
    assert load_model(tmp_path / "out")(TOKENS).logits.isfinite().all()
