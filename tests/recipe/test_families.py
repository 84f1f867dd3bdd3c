"""The matrix every family passes: what is written loads as it was solved, nothing is lost, nothing depends on luck.

Families are tiny and random, made from their configs. A row that is added to `whet.anatomy` has to be added to `CASES`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import transformers
from compressed_tensors.quantization import QuantizationConfig

import models
from covering import some
from families_table import support
from whet.anatomy import AUTO, FAMILIES, anatomy
from whet.anatomy.folds import fold_groups
from whet.apply.job import scale_dtype
from whet.budget import tensor_bytes
from whet.checkpoint import Checkpoint, load_model, size_on_disk
from whet.engines.torch import cached_outputs, open_model, outputs
from whet.errors import UsageError
from whet.events import ignore
from whet.grids import parse_scheme
from whet.measure.compare import compare
from whet.messages import to_json
from whet.quantize import TRANSFORMS, spinquant
from whet.recipe.compress import compress
from whet.recipe.inspect import inspect
from whet.recipe.plan import plan
from whet.recipe.resume import resume
from whet.steps.decide import decide
from whet.steps.options import Quantize
from whet.targets import TARGETS, storage, tied
from whet.transforms import rotations
from whet.transforms.make import check_transform, transformed
from whet.walk import Walk

GENERATOR = torch.Generator().manual_seed(0)
WINDOWS = torch.randint(2, 264, (4, 20), generator=GENERATOR)
TOKENS = torch.randint(2, 264, (2, 24), generator=GENERATOR)
DOCUMENTS = models.documents(40, 20)


@dataclass(frozen=True)
class Case:
    """A tiny model of `family` for `task`, with what its config has beside the usual."""

    family: str
    task: str = "causal"
    tied: bool = False
    dtype: torch.dtype = torch.float32
    more: dict[str, Any] = field(default_factory=dict)


CASES = {
    "llama": Case("llama"),
    "mistral": Case("mistral"),
    "qwen2": Case("qwen2", tied=True),
    "qwen3": Case("qwen3"),
    "gemma2": Case("gemma2", tied=True),
    "gemma3": Case("gemma3_text", tied=True, dtype=torch.bfloat16),
    "olmo2": Case("olmo2"),
    "smollm3": Case("smollm3", tied=True),
    "phi3": Case("phi3"),
    "olmo3": Case("olmo3"),
    "exaone4": Case("exaone4"),
    "granite": Case("granite"),
    "hyperclovax": Case("hyperclovax"),
    "glm4": Case("glm4"),
    "cohere2": Case("cohere2", tied=True),
    "seed_oss": Case("seed_oss"),
    "ernie4_5": Case("ernie4_5", tied=True),
    "hunyuan": Case("hunyuan_v1_dense", dtype=torch.bfloat16),
    "ministral3": Case("ministral3"),
    "stablelm": Case("stablelm"),
    "stablelm in parallel": Case("stablelm", more={"use_parallel_residual": True, "qk_layernorm": True}),
    "starcoder2": Case("starcoder2", tied=True),
    "falcon": Case("falcon", tied=True, more={"bias": True}),
    "falcon with two norms": Case("falcon", tied=True, more={"new_decoder_architecture": True, "num_kv_heads": 2}),
    "mixtral": Case("mixtral", dtype=torch.bfloat16),
    "mixtral in float32": Case("mixtral"),
    "qwen2_moe": Case("qwen2_moe", dtype=torch.float16),
    "qwen3_moe": Case("qwen3_moe", tied=True, dtype=torch.bfloat16),
    "gpt2": Case("gpt2", tied=True),
    "gpt_neox": Case("gpt_neox"),
    "opt": Case("opt", tied=True),
    "bert": Case("bert", "masked", tied=True),
    "bert classifier": Case("bert", "classification", tied=True),
    "distilbert": Case("distilbert", "masked", tied=True),
    "distilbert classifier": Case("distilbert", "classification", tied=True),
    "t5": Case("t5", "seq2seq", tied=True),
    "t5 gated": Case("t5", "seq2seq", more={"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
}
# Put together of what others have too: `make test` streams their blocks, `make test-all` does everything.
ALIKE = (
    *("olmo3", "exaone4", "hyperclovax", "glm4", "seed_oss", "ernie4_5", "hunyuan", "ministral3", "stablelm"),
    *("stablelm in parallel", "starcoder2", "falcon", "falcon with two norms"),
)


def test_every_family_is_in_the_matrix():
    assert {case.family for case in CASES.values()} == set(FAMILIES)


def build(folder, case: Case, **more: Any):
    settings = {"tied": case.tied, "dtype": case.dtype, "architecture": AUTO[case.task], **case.more, **more}
    tied = settings.pop("tie_word_embeddings", settings.pop("tied"))
    return models.make(folder, case.family, tied=tied, **settings)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.long) if name in ALIKE else name for name in CASES]
)
def made(request, tmp_path_factory):
    """A case, its original in many shards, and its lighter folder."""
    case = CASES[request.param]
    root = tmp_path_factory.mktemp("family")
    original = build(root / "original", case, shards=True)
    result = compress(original, root / "lighter", scheme="int4s-g32", text=DOCUMENTS, samples=8, window=20)
    return case, original, root / "lighter", result


def stock(case: Case, folder, **more: Any):
    return getattr(transformers, AUTO[case.task]).from_pretrained(folder, **more).eval()


def difference(model, walk: Walk, tokens: torch.Tensor) -> float:
    """Between the whole forward and the model's own end on top of the streamed blocks."""
    (final,) = walk.final()
    if walk.skeleton.anatomy.task == "causal":
        mine = walk.skeleton.cap(model.get_output_embeddings()(final))
    else:
        mine = walk.skeleton.outputs(tokens, final)
    return (mine - outputs(model, tokens)).abs().max().item()


class Untouched:
    def visit(self, step):
        return {}


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_streamed_blocks_are_the_whole_forward(name, tmp_path):
    case = CASES[name]
    original = build(tmp_path / "m", case, shards=True)
    checkpoint = Checkpoint(original)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    table = checkpoint.read(parts.embedding.parameter)
    walk = Walk(checkpoint, parts, [TOKENS], [TOKENS], table, table, "cpu")
    walk.go(Untouched())
    assert set(walk.drift) == {0.0}
    assert difference(stock(case, original, dtype=torch.float32), walk, TOKENS) < 2e-5


@torch.no_grad()
def test_what_loads_is_what_was_solved(made):
    case, original, lighter, result = made
    mine = load_model(lighter)
    theirs = stock(
        case, lighter, **({} if result["container"] == "compressed-tensors" else {"trust_remote_code": True})
    )
    assert mine.dtype == theirs.dtype == case.dtype
    logits = outputs(theirs, TOKENS)
    assert torch.equal(logits, outputs(mine, TOKENS)) and torch.isfinite(logits).all()
    assert not torch.equal(logits, outputs(load_model(original), TOKENS))
    assert 0 <= result["kl"] < 0.5
    # the documents say which families stock transformers loads
    family = FAMILIES[case.family]
    plain = not family.packed and not any(name.transposed for name in family.every)
    plain &= case.dtype != torch.float32 or not any(name.held for name in family.every)
    assert result["container"] == ("compressed-tensors" if plain else "whet")


# What each family leaves alone, whatever the transform: every other input of every linear takes factors.
ALONE = {
    "olmo2": {"attention input", "ffn input"},
    "olmo3": {"attention input", "ffn input"},
    "exaone4": {"attention input", "ffn input"},
    "starcoder2": {"ffn middle"},
    "gpt2": {"ffn middle"},
    "falcon": {"attention output", "ffn middle"},
    "falcon with two norms": {"attention output", "ffn middle"},
    "gpt_neox": {"attention output", "ffn middle"},
    "bert": {"attention input", "ffn input", "ffn middle"},
    "bert classifier": {"attention input", "ffn input", "ffn middle"},
    "distilbert": {"attention input", "ffn input", "ffn middle"},
    "distilbert classifier": {"attention input", "ffn input", "ffn middle"},
    "t5": {"encoder output"},
    "t5 gated": {"encoder output"},
}

# Norms that read the residual stream.
_STREAM_NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight", "model.norm.weight")


@torch.no_grad()
@pytest.mark.covered("made", "transform", strength=1)
@pytest.mark.parametrize("transform", ["awq", "rotate", "quarot", "spinquant"])
def test_what_is_folded_in_changes_no_logits(made, transform, tmp_path, monkeypatch):
    monkeypatch.setattr(rotations, "spinquant", functools.partial(spinquant, steps=12))
    case, original, _, _ = made
    name = next(name for name, one in CASES.items() if one is case)
    settings = {"text": DOCUMENTS, "eval_text": None, "field": "text", "chat": False, "samples": 8, "window": 20}
    if case.dtype != torch.float32 and TRANSFORMS[transform].stream:
        # in 16 bits embedding, head and routers are turned and rounded: what a fold gives exactly is seen in float32
        original = build(tmp_path / "original", dataclasses.replace(case, dtype=torch.float32))
    job = decide(original, Quantize.of("compress", scheme="int3s-g32", transform=transform, **settings), device="cpu")
    if TRANSFORMS[transform].stream and not FAMILIES[case.family].writes:
        still = re.escape(FAMILIES[case.family].still)
        with pytest.raises(UsageError, match=rf"family {FAMILIES[case.family].title} does not allow: {still}. Take "):
            check_transform(job)
        return
    refused = {"gpt_neox": "rows of v alternate", "falcon": "rows of v alternate", "qwen2_moe": "16 bits do not hold"}
    if transform == "rotate" and case.family in refused:
        with pytest.raises(UsageError, match=rf"folds into nothing of original.*{refused[case.family]}"):
            check_transform(job)
        return
    job = check_transform(job)
    result = transformed(job, tmp_path, ignore)
    theirs, mine = (stock(case, f, dtype=torch.float32) for f in (original, tmp_path / "transformed"))
    before, after = outputs(theirs, TOKENS), outputs(mine, TOKENS)
    assert (before - after).abs().max() < 2e-5 * before.abs().max().clamp_min(1)
    done = [told["transform"] for told in result.transforms.values()]
    assert set(done) <= {"none", transform} and set(done) != {"none"}
    alone = {note.partition("no transform of the ")[2].partition(" (")[0] for note in job.notes} - {""}
    assert alone == (ALONE.get(name, set()) if transform == "awq" else set())
    changed = [n for n, p in mine.named_parameters() if not torch.equal(p, theirs.get_parameter(n))]
    if TRANSFORMS[transform].stream:
        turned = {linear.held.parameter for linear in job.anatomy.linears()}
        assert {*turned, "model.embed_tokens.weight", "lm_head.weight"} <= set(changed)
        assert all((p == 1).all() for n, p in mine.named_parameters() if n.endswith(_STREAM_NORMS))
    else:
        assert changed and not any("embed" in n and "layer_norm" not in n.lower() for n in changed)


@pytest.mark.covered("made", every=5)
def test_training_reaches_every_linear_of_a_block(made, tmp_path):
    _, original, lighter, _ = made
    result = compress(
        original, tmp_path / "out", scheme="int4s-g32", solver="tuned", text=DOCUMENTS, samples=8, window=20
    )
    assert 0 <= result["kl"] < 0.5
    checkpoint = Checkpoint(original)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    before, after = load_model(lighter, dtype=torch.float32), load_model(tmp_path / "out", dtype=torch.float32)
    for linear in parts.blocks[0]:
        w, trained = (linear.held.of(model.get_parameter(linear.held.parameter)) for model in (before, after))
        assert not torch.equal(w, trained), linear.address
        assert torch.nn.functional.mse_loss(w, trained) < 0.02 * w.square().mean()


@pytest.mark.covered("made", every=4, start=1)
def test_inputs_that_have_drifted_are_made_up_for(made, tmp_path):
    """The first block's have not, if the embedding is the original's, so it is as gptq leaves it; the last one's have.
    Experts' are not followed."""
    _, original, lighter, plain = made
    text = {"scheme": "int4s-g32", "text": DOCUMENTS, "samples": 8, "window": 20}
    result = compress(original, tmp_path / "out", solver="gptaq", **text)
    assert 0 <= result["kl"] < 0.5 and plain["kl"] >= 0
    checkpoint = Checkpoint(original)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    before, after = load_model(lighter, dtype=torch.float32), load_model(tmp_path / "out", dtype=torch.float32)

    def same(linear) -> bool:
        one, two = (linear.held.of(model.get_parameter(linear.held.parameter)) for model in (before, after))
        return torch.equal(one, two)

    assert all(same(linear) for linear in parts.blocks[0])
    assert not any(same(linear) for linear in parts.blocks[-1] if linear.held.expert is None)
    sparse = any(linear.held.expert is not None for linear in parts.linears())
    assert any(note.startswith("experts are rounded as by gptq") for note in result["notes"]) == sparse


@torch.no_grad()
def test_a_cache_changes_nothing(made):
    case, _, lighter, _ = made
    if case.task not in ("causal", "seq2seq"):
        with pytest.raises(UsageError, match="does not continue"):
            open_model(lighter).continue_ids([[5, 6, 7]], 2)
        return
    model = load_model(lighter, dtype=torch.float32)
    gap = cached_outputs(model, TOKENS)[:, -1] - outputs(model, TOKENS)[:, -1]
    assert gap.abs().max() < 1e-4
    engine = open_model(lighter, dtype="float32")
    prompts = [row[:8].tolist() for row in TOKENS]
    answers = engine.continue_ids(prompts, 6)
    for prompt, answer in zip(prompts, answers, strict=True):
        for i, token in enumerate(answer):
            given = torch.tensor([prompt + answer[:i]])
            if case.task == "seq2seq":
                written = torch.tensor([[model.config.decoder_start_token_id, *answer[:i]]])
                logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=written, use_cache=False).logits
            else:
                logits = outputs(model, given)
            assert token == int(logits[0, -1].argmax())


def test_every_tensor_is_accounted_for(made):
    _, original, lighter, result = made
    source, written = Checkpoint(original), Checkpoint(lighter)
    parts = anatomy(source.config, source.shapes)
    stored = [n for names in parts.block_tensors for n in names] + parts.other_tensors
    assert sorted(stored) == sorted(source.tensors) and parts.unnamed == []
    # every row of every linear's tensor is in one linear
    sizes: dict[str, int] = {}
    for linear in parts.linears():
        sizes[linear.parameter] = sizes.get(linear.parameter, 0) + linear.shape[0] * linear.shape[1]
        assert tuple(linear.view(source.read(linear.parameter)).shape) == linear.shape
    assert all(sizes[name] == source.read(name).numel() for name in sizes)
    # matrices of the blocks that are no linears are named as kept
    left = [n for names in parts.block_tensors for n in names if len(source.shapes[n]) > 1 and n not in sizes]
    assert all(parts.name(n).removesuffix(".weight").endswith(parts.family.kept) for n in left)
    # what was not solved is as it was
    kept = [n for n in source.tensors if n not in sizes and n != parts.dropped]
    assert all(torch.equal(source.read(n), written.read(n)) for n in kept)
    assert set(result["linears"]) == {linear.address for linear in parts.linears()}
    # and the bytes are those that were told beforehand
    grids = {linear.address: parse_scheme("int4s-g32", grid_type(source)) for linear in parts.linears()}
    told = tensor_bytes(parts, source.tensors, grids)
    assert told["total"] == written.nbytes
    assert told["linears"] == size_on_disk(lighter)["linears"]


def grid_type(checkpoint: Checkpoint) -> torch.dtype:
    return torch.bfloat16 if checkpoint.dtype == torch.bfloat16 else torch.float16


class Stop(Exception):
    pass


@pytest.mark.covered("made", every=3)
def test_a_stopped_run_goes_on_to_the_same_bytes(made, tmp_path):
    _, original, lighter, _ = made

    def stop(event):
        if event.get("unit") == "block 0":
            raise Stop

    with pytest.raises(Stop):
        compress(original, tmp_path / "o", scheme="int4s-g32", text=DOCUMENTS, samples=8, window=20, on_event=stop)
    resume(tmp_path / "o")
    assert models.contents(tmp_path / "o") == models.contents(lighter)


def test_a_model_is_its_own_equal(made):
    _, original, lighter, _ = made
    settings = {"text": DOCUMENTS, "windows": 4, "window": 20, "speed": False}
    same = compare(lighter, lighter, **settings)
    assert same["divergence"]["kl"]["mean"] == 0 and same["divergence"]["top1"]["mean"] == 1
    other = compare(original, lighter, **settings)
    assert other["divergence"]["kl"]["mean"] > 0


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gemma2", "phi3", "mixtral", "gpt2", "gpt_neox", "opt", "bert", "t5"])
def test_embedding_and_real_zeros_in_the_modelling_file(name, tmp_path):
    case = CASES[name]
    original = build(tmp_path / "m", case)
    result = compress(original, tmp_path / "o", scheme="int3z-g32", embed="int8s", solver="nearest")
    assert result["container"] == "whet"
    theirs = stock(case, tmp_path / "o", trust_remote_code=True)
    logits = outputs(theirs, TOKENS)
    assert torch.equal(logits, outputs(load_model(tmp_path / "o"), TOKENS)) and torch.isfinite(logits).all()


@torch.no_grad()
@pytest.mark.parametrize("name", ["phi3", "gpt2", "mixtral", "qwen2_moe"])
def test_parts_of_one_tensor_may_have_several_schemes(name, tmp_path):
    """q and v apart, one expert kept, another at 8 bits: nothing that is kept changes by a bit."""
    case = CASES[name]
    original = build(tmp_path / "m", case)
    source = Checkpoint(original)
    parts = anatomy(source.config, source.shapes)
    schemes = {linear.address: "int4s-g32" for linear in parts.linears()}
    chosen = [linear for linear in parts.blocks[1] if linear.held.rows or linear.held.expert is not None]
    kept, finer = chosen[0], chosen[1]
    schemes |= {kept.address: "keep", finer.address: "int8s", parts.embedding.address: "keep"}
    if parts.head is not None:
        schemes[parts.head.address] = "keep"
    plan = {"format": "whet.plan", "version": 1, "target": "transformers", "solver": "nearest", "schemes": schemes}
    result = compress(original, tmp_path / "o", plan=plan)
    assert result["container"] == "whet"
    mine = load_model(tmp_path / "o")
    assert torch.equal(outputs(mine, TOKENS), outputs(stock(case, tmp_path / "o", trust_remote_code=True), TOKENS))
    values = dict(mine.named_parameters())
    before = dict(load_model(original).named_parameters())
    for linear, same in ((kept, True), (finer, False)):
        held = linear.held
        assert torch.equal(held.of(values[held.parameter]), held.of(before[held.parameter])) == same
    shapes = {linear.address: linear.shape for linear in parts.linears()}
    grids = {a: parse_scheme(s) for a, s in schemes.items() if s != "keep"}
    with pytest.raises(UsageError, match="vllm"):
        storage(TARGETS["vllm"], grids, shapes, frozenset(), parts=parts)


def test_vllm_takes_what_the_table_of_targets_says(made):
    """Its parser, that of compressed-tensors, reads the config; of experts only where weights have 16 bits."""
    case, original, lighter, result = made
    parts = anatomy(Checkpoint(original).config, Checkpoint(original).shapes)
    target, grid = TARGETS["vllm"], parse_scheme("int4s-g32", scale_dtype(case.dtype))
    grids = {linear.address: grid for linear in parts.linears()}
    shapes = {linear.address: linear.shape for linear in parts.linears()}
    settings = (target, grids, shapes, frozenset(), tied(target, parts), parts, case.dtype)
    experts = any(linear.held.expert is not None for linear in parts.linears())
    if support(target, case.family) == "unsupported" or (experts and case.dtype == torch.float32):
        with pytest.raises(UsageError, match="vllm cannot hold this"):
            storage(*settings)
        return
    assert storage(*settings).container == result["container"] == "compressed-tensors"
    config = json.loads((lighter / "config.json").read_text())["quantization_config"]
    config.pop("quant_method")
    assert QuantizationConfig.model_validate(config).config_groups


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.family in ("bert", "t5")])
def test_what_cannot_be_scored_is_refused_with_the_reason(name, tmp_path):
    original = build(tmp_path / "m", CASES[name])
    with pytest.raises(UsageError, match=r"cannot be scored.*--scheme W4A16"):
        compress(original, tmp_path / "o", bits=12, text=DOCUMENTS, samples=4, window=20)
    assert not (tmp_path / "o").exists() or not any((tmp_path / "o").glob("*.safetensors"))


@pytest.mark.parametrize("name", some(["gemma2", "phi3", "gpt2"], 2))
def test_a_budget_is_kept_to_the_byte(name, tmp_path):
    original = build(tmp_path / "m", CASES[name])
    result = compress(original, tmp_path / "o", bits=6.5, text=DOCUMENTS, samples=8, window=20)
    assert result["plan"]["predicted"]["bytes"] == Checkpoint(tmp_path / "o").nbytes


@pytest.mark.parametrize(
    "name, target, bits",
    [("mixtral in float32", "transformers", 4), ("qwen3_moe", "transformers", 4), ("mixtral", "vllm", 9)],
)
def test_budgets_of_experts(name, target, bits, tmp_path):
    """Experts of a block and role share a scheme, bytes are exact, and what is to load the folder computes as whet."""
    case = CASES[name]
    original = build(tmp_path / "m", case)
    result = compress(original, tmp_path / "o", bits=bits, text=DOCUMENTS, samples=8, window=64, target=target)
    plan = result["plan"]
    assert plan["predicted"]["bytes"] == Checkpoint(tmp_path / "o").nbytes
    assert plan["predicted"]["kl"] > 0 and plan["predicted"]["bits"] <= bits and result["kl"] < 0.5
    shared: dict[tuple[int, str], set[str]] = {}
    checkpoint = Checkpoint(original)
    for index, linears in enumerate(anatomy(checkpoint.config, checkpoint.shapes).blocks):
        for linear in linears:
            if linear.held.expert is not None:
                shared.setdefault((index, linear.role), set()).add(plan["schemes"][linear.address])
    assert len(shared) == 6 and all(len(schemes) == 1 for schemes in shared.values())
    mixed = target == "transformers"
    assert (len(set(plan["schemes"].values()) - {"keep"}) > 1) == mixed
    assert result["container"] == ("whet" if mixed else "compressed-tensors")
    assert any("(trust_remote_code=True)" in note for note in result["notes"]) == mixed
    tokens = torch.arange(40)[None]
    theirs = stock(case, tmp_path / "o", trust_remote_code=mixed)(tokens).logits.float()
    ours = load_model(tmp_path / "o", dtype=case.dtype)(tokens).logits.float()
    assert torch.allclose(ours, theirs, atol=0.02 * ours.abs().max().item())


def test_experts_that_no_token_reaches_have_the_least_price(tmp_path):
    """Two that no token is sent to have the least price of their block, and the notes say so. What vLLM cannot hold is
    refused before anything is scored."""
    original = build(tmp_path / "m", CASES["mixtral in float32"])
    starve(original, "model.layers.1", (0, 1))
    asked = {"text": DOCUMENTS, "samples": 8, "window": 20}
    found = inspect(original, **asked)
    parts = [part for part in found["parts"] if part.get("expert") is not None and part["block"] == 1]
    unused, used = ([part for part in parts if (part["expert"] in (0, 1)) == starved] for starved in (True, False))
    assert len(unused) == 6 and all(part["sent"] == 0 for part in unused) and all(part["sent"] > 0 for part in used)
    for part in unused:
        alike = [other for other in used if other["role"] == part["role"]]
        assert 0 < part["sensitivity"] == min(other["sensitivity"] for other in alike)
        for name, price in part["schemes"].items():
            assert 0 < price["kl"] == min(other["schemes"][name]["kl"] for other in alike)
    assert {role["role"] for role in found["roles"]} >= {"expert gate", "expert up", "expert down"}
    planned = plan(original, bits=4, **asked)
    unsent = {(part["block"], part["expert"]) for part in found["parts"] if part.get("sent") == 0}
    assert {(1, 0), (1, 1)} <= unsent
    note = f"{len(unsent)} experts were sent none of the tokens"
    assert any(told["message"].startswith(note) for told in planned["notes"])
    for target, bits, why in (("vllm", 9, "not the model's float32"), ("transformers", 1, "cannot be met")):
        with pytest.raises(UsageError, match=why):
            compress(original, tmp_path / "o", bits=bits, target=target, **asked)


def test_starved_experts_are_named_and_rounded_with_the_mean(tmp_path):
    """Two experts that no token is sent to."""
    original = build(tmp_path / "m", CASES["mixtral in float32"])
    starve(original, "model.layers.1", (0, 1))
    result = compress(original, tmp_path / "o", scheme="int4s-g32", text=WINDOWS)
    (note,) = [n for n in result["notes"] if "experts" in n and n.startswith("block 1")]
    assert note.startswith("block 1: experts 0 (0.00%), 1 (0.00%) saw fewer than 0.5% of the tokens")
    named = {a for a, line in result["linears"].items() if "starved" in line and ".1.block" in a}
    assert named == {f"model.layers.1.block_sparse_moe.experts.{e}.{w}" for e in (0, 1) for w in ("w1", "w2", "w3")}
    assert note in (tmp_path / "o" / "README.md").read_text()
    assert to_json(note) in json.loads((tmp_path / "o" / "whet.json").read_text())["notes"]
    assert all(line["error"] < 0.05 for line in result["linears"].values())


def starve(folder, block: str, experts: tuple[int, ...]) -> None:
    """No token is sent to `experts`: the router reads one channel, which is alike in every token, and ranks by it."""
    from safetensors.torch import load_file, save_file

    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    tensors["model.embed_tokens.weight"][:, 0] = 40.0
    tensors[f"{block}.post_attention_layernorm.weight"][0] = 1.0
    router = tensors[f"{block}.block_sparse_moe.gate.weight"]
    router.zero_()
    for expert in range(len(router)):
        router[expert, 0] = -1.0 if expert in experts else 1.0
    router[:, 1:] = 0.01 * torch.randn(router[:, 1:].shape, generator=torch.Generator().manual_seed(0))
    save_file(tensors, file, metadata={"format": "pt"})


@torch.no_grad()
def test_second_moments_of_experts_are_those_of_brute_force(tmp_path, monkeypatch):
    original = build(tmp_path / "m", CASES["mixtral in float32"])
    checkpoint = Checkpoint(original)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    table = checkpoint.read(parts.embedding.parameter)
    found: dict[str, torch.Tensor] = {}

    class Gather:
        def visit(self, step):
            moments = step.second_moments()
            found.update({x.address: moments.mean(x.reads) for x in step.linears})
            return {}

    Walk(checkpoint, parts, [WINDOWS], [], table, table, "cpu").go(Gather())
    model = stock(CASES["mixtral in float32"], original, experts_implementation="eager")
    seen: dict[int, list[torch.Tensor]] = {}
    plain = torch.nn.functional.linear

    def listen(x, weight, bias=None):
        seen.setdefault(weight.data_ptr(), []).append(x.reshape(-1, x.shape[-1]))
        return plain(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", listen)
    model(WINDOWS)
    whole = dict(model.named_parameters())
    experts = [x for x in parts.linears() if x.held.expert is not None and x.role != "expert up"]
    assert len(experts) == 2 * 4 * 2
    for linear in experts:
        x = torch.cat(seen[whole[linear.held.parameter][linear.held.expert].data_ptr()])
        assert torch.allclose(found[linear.address], x.t() @ x / len(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_unknown_family_is_rounded_without_a_look_at_text_and_says_so(tmp_path):
    """One whose parts are not found either; those that are, are tests/walk/test_look.py's."""
    original = models.make(tmp_path / "m", "zaya")
    result = compress(original, tmp_path / "o", scheme="int4s-g32", text=DOCUMENTS)
    note = result["notes"][0]
    assert note.startswith("whet has no table of the family zaya, and did not find its parts by running it (self")
    assert "only the linears of its 2 blocks (model.layers)" in note
    assert "have no use here" in note and result["solver"] == "nearest" and result["text"] is None
    assert result["container"] == "whet"
    theirs = stock(Case("zaya"), tmp_path / "o", trust_remote_code=True)
    assert torch.equal(outputs(theirs, TOKENS), outputs(load_model(tmp_path / "o"), TOKENS))
    assert not torch.equal(outputs(theirs, TOKENS), outputs(load_model(original), TOKENS))
    with pytest.raises(UsageError, match="does not know who reads its embedding"):
        compress(original, tmp_path / "p", scheme="int4s-g32", embed="int4s-g32")
    with pytest.raises(UsageError, match="no table"):
        compress(original, tmp_path / "p", bits=12, text=DOCUMENTS)


OLD = {
    "gpt2": lambda name: name.removeprefix("transformer."),
    "bert": lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    ),
    "opt": lambda name: name.removeprefix("model."),
}


@torch.no_grad()
@pytest.mark.parametrize("name", OLD)
def test_names_of_the_first_checkpoints(name, tmp_path):
    """GPT-2 without a prefix, BERT's gamma and beta: the same model under other names."""
    from safetensors.torch import load_file, save_file

    case = CASES[name]
    original = build(tmp_path / "m", case)
    shutil.copytree(original, tmp_path / "old")
    (file,) = (tmp_path / "old").glob("*.safetensors")
    save_file({OLD[name](n): t for n, t in load_file(file).items()}, file, metadata={"format": "pt"})
    logits = []
    for folder in (original, tmp_path / "old"):
        compress(folder, tmp_path / f"o-{folder.name}", scheme="int4s-g32", text=WINDOWS)
        logits.append(outputs(load_model(tmp_path / f"o-{folder.name}"), TOKENS))
    assert torch.equal(*logits)


@torch.no_grad()
def test_experts_stored_in_stacks(tmp_path):
    """A checkpoint that stores what transformers holds: the same codes as from one that stores every expert."""
    from safetensors.torch import load_file, save_file

    original = build(tmp_path / "m", CASES["mixtral in float32"])
    shutil.copytree(original, tmp_path / "stacked")
    (file,) = (tmp_path / "stacked").glob("*.safetensors")
    tensors = load_file(file)
    whole = dict(load_model(original).named_parameters())
    rest = {n.replace("block_sparse_moe", "mlp"): t for n, t in tensors.items() if ".experts." not in n}
    rest |= {n: p.data.contiguous() for n, p in whole.items() if ".experts." in n}
    save_file(rest, file, metadata={"format": "pt"})
    logits = []
    for folder in (original, tmp_path / "stacked"):
        result = compress(folder, tmp_path / f"o-{folder.name}", scheme="int4s-g32", text=WINDOWS)
        assert result["container"] == "whet"
        logits.append(outputs(load_model(tmp_path / f"o-{folder.name}"), TOKENS))
    assert torch.equal(*logits)
    planned = compress(tmp_path / "stacked", tmp_path / "o", bits=4, text=DOCUMENTS, samples=8, window=64)["plan"]
    assert planned["predicted"]["bytes"] == Checkpoint(tmp_path / "o").nbytes


def test_wrong_numbers_of_experts_or_rows_are_refused(tmp_path):
    original = build(tmp_path / "m", CASES["mixtral in float32"])
    models.edit_config(original, num_local_experts=5)
    with pytest.raises(UsageError, match=r"experts stored as .* do not make up"):
        compress(original, tmp_path / "o", solver="nearest")
    original = build(tmp_path / "p", CASES["phi3"])
    models.edit_config(original, num_key_value_heads=3)
    with pytest.raises(UsageError, match=r"rows of .*qkv_proj"):
        compress(original, tmp_path / "o", solver="nearest")


def test_an_embedding_narrower_than_the_blocks_is_refused(tmp_path):
    original = build(tmp_path / "m", Case("opt", tied=True, more={"word_embed_proj_dim": 32}))
    with pytest.raises(UsageError, match="embedding is 32 wide and its blocks are 64"):
        compress(original, tmp_path / "o", solver="nearest")


def test_an_activation_that_the_config_leaves_out_is_the_familys_own(tmp_path):
    """The first Falcons' configs do not name theirs, which is no ReLU."""
    original = build(tmp_path / "m", CASES["falcon"])
    models.edit_config(original, remove=("activation",))
    checkpoint = Checkpoint(original)
    groups, left = fold_groups(anatomy(checkpoint.config, checkpoint.shapes), 0)
    assert {one.reads: str(one.why) for one in left}["ffn middle"] == "gelu stands in between"
    # one norm gives what attention and the parallel feed-forward read
    assert [[linear.role for linear in group.readers] for group in groups] == [["qkv", "up"]]
