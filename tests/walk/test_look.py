"""Families without a row: what is found by running a model is what it computes, and what cannot be is said."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import models
import whet
from whet.anatomy import FAMILIES
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
def without_rows(monkeypatch):
    """Families that have a row by now are found as if they had none: their blocks differ as those of others do."""
    for name in FOUND:
        monkeypatch.delitem(FAMILIES, name, raising=False)


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
        ("olmoe", {}, "it has experts"),
        ("nanochat", {}, "run one at a time give something else"),
    ],
)
def test_what_is_not_found_is_rounded_to_nearest_and_says_why(tmp_path, family, more, why):
    folder = make(tmp_path / "m", family, **more)
    checkpoint = Checkpoint(folder)
    about = opened(folder)
    assert not about.parts.family.found and why in str(about.unfound)
    assert why in str(look(checkpoint, about.parts))
    made = whet.compress(folder, tmp_path / "out", scheme="int8s", text=TEXT)
    assert made["solver"] == "nearest" and why in made["notes"][0]


def test_a_bias_on_logits_is_nothing_that_a_table_gives(tmp_path):
    """Phi's head has one: its logits would be judged without it."""
    about = opened(make(tmp_path / "m", "phi"))
    assert not about.parts.family.found and "its logits are no multiple" in str(about.unfound)
