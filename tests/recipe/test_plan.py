"""A plan replayed: any mix of schemes and kept parts loads as it was solved, in the bytes that were told."""

from __future__ import annotations

import hashlib
import json
import random

import pytest
import torch
from compressed_tensors.quantization import QuantizationConfig
from transformers import AutoModelForCausalLM

import models
from covering import matrix
from whet.anatomy import anatomy
from whet.budget import check_plan, plan_hash, read_plan, tables, write_plan
from whet.checkpoint import Checkpoint, load_model, size_on_disk
from whet.checkpoint.modeling_whet import parts_of
from whet.errors import UsageError
from whet.recipe.compress import compress
from whet.recipe.resume import resume
from wording import each

GENERATOR = torch.Generator().manual_seed(0)
WINDOWS = torch.randint(0, 264, (4, 20), generator=GENERATOR)
TOKENS = torch.randint(0, 264, (2, 24), generator=GENERATOR)
DOWN = "model.layers.0.mlp.down_proj"

# What a role gets in the first block and in the second, tables by role; tied; target; container; dequantize.
CASES = {
    "symmetric, mixed, some kept": (
        {
            "q": "int4s-g32",
            "k": "int8s",
            "v": "keep",
            "o": "int3s-g16",
            "gate": "int2s-g32",
            "up": "keep",
            "down": "keep",
        },
        {
            "q": "int5s-g32",
            "k": "int5s-g32",
            "v": "int6s",
            "o": "keep",
            "gate": "int4s-g32",
            "up": "int7s",
            "down": "int8s",
        },
        {},
        "transformers",
        ("compressed-tensors", False),
    ),
    "one symmetric scheme, some kept": (
        {"q": "int4s-g32", "o": "int4s-g32", "up": "int4s-g32"},
        {"down": "int4s-g32"},
        {},
        "transformers",
        ("compressed-tensors", False),
    ),
    "a whole block kept": (
        {},
        {"q": "int4s-g32", "down": "int8s"},
        {},
        "transformers",
        ("compressed-tensors", False),
    ),
    "one asymmetric scheme, some kept": (
        {"q": "int4-g32", "o": "int4-g32", "up": "int4-g32"},
        {"down": "int4-g32"},
        {},
        "transformers",
        ("compressed-tensors", True),
    ),
    "one scheme, with the embedding": (
        {"q": "int3-g32", "down": "int3-g32"},
        {"up": "int3-g32"},
        {"embedding": "int3-g32"},
        "transformers",
        ("compressed-tensors", True),
    ),
    "one scheme, with the head": (
        {"q": "int4s-g32"},
        {"up": "int4s-g32"},
        {"head": "int4s-g32"},
        "transformers",
        ("compressed-tensors", True),
    ),
    "the embedding alone": ({}, {}, {"embedding": "int8s"}, "transformers", ("compressed-tensors", True)),
    "floats beside integers": (
        {"q": "FP8", "k": "fp8-tensor", "v": "keep", "o": "int4s-g32", "down": "FP8"},
        {"gate": "fp8-tensor", "up": "fp8-tensor", "q": "int8s"},
        {},
        "transformers",
        ("compressed-tensors", False),
    ),
    "floats and tables that compressed-tensors lacks": (
        {"q": "nf4-g32", "k": "NVFP4", "v": "fp8e5m2", "o": "int4-g32", "up": "fp8-block"},
        {"down": "nf4-g40"},
        {"embedding": "MXFP4"},
        "whet",
        ("whet", False),
    ),
    "integer zeros, mixed": (
        {"q": "int4-g32", "k": "int3s-g32", "v": "keep", "down": "int8s"},
        {"gate": "int2-g16", "up": "int4z-g32"},
        {"embedding": "int6-g32"},
        "transformers",
        ("whet", False),
    ),
    "whet takes any mix": (
        {"q": "int4-g40", "k": "int3s-g7", "v": "keep", "o": "int5z-g64", "down": "int2s-g33"},
        {"gate": "int2-g16"},
        {"embedding": "int6z-g48", "head": "keep"},
        "whet",
        ("whet", False),
    ),
}


def plan(original, first, second, among=None, target="transformers", **more):
    """A plan with schemes by role for two blocks and the tables; what is not named is kept."""
    checkpoint = Checkpoint(original)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    schemes = {
        linear.address: named.get(linear.role, "keep")
        for block, named in zip((*parts.blocks, tables(parts)), (first, second, among or {}), strict=True)
        for linear in block
    }
    return {"format": "whet.plan", "version": 1, "target": target, "schemes": schemes, **more}


@torch.no_grad()
def examine(original, out, value, case, result):
    """The folder loads as its readers load it, holds every tensor once, and has the bytes that were told."""
    container, dequantize = case[4]
    assert (result["container"], result["dequantize"]) == (container, dequantize)
    trust = {"trust_remote_code": True} if container == "whet" else {}
    theirs, mine = AutoModelForCausalLM.from_pretrained(out, **trust).eval(), load_model(out)
    logits = theirs(TOKENS).logits
    assert torch.equal(logits, mine(TOKENS).logits) and torch.isfinite(logits).all()
    assert not torch.equal(logits, load_model(original)(TOKENS).logits)

    source, written = Checkpoint(original), Checkpoint(out)
    kept = {address for address, scheme in value["schemes"].items() if scheme == "keep"}
    chosen = set(value["schemes"]) - kept
    whet = json.loads((out / "whet.json").read_text(encoding="utf-8"))
    assert set(whet["linears"]) == set(result["linears"]) == chosen
    expected = {name for name in source.tensors if name.removesuffix(".weight") not in chosen}
    assert all(torch.equal(written.read(name), source.read(name)) for name in expected)
    others = {name.rpartition(".") for name in set(written.tensors) - expected}
    stored = {(a, part) for a in chosen for part in parts_of(whet["linears"][a]) or {"weight"}}
    assert {(address, part) for address, _, part in others} == stored
    # kept weights are what the readers compute with, too
    assert all(torch.equal(mine.get_parameter(f"{a}.weight"), source.read(f"{a}.weight")) for a in kept)

    parts = anatomy(source.config, source.shapes)
    told = check_plan(value, parts, source.tensors, scale_dtype=scales(source.dtype)).bytes
    sizes = size_on_disk(out)
    assert told == {
        **{part: sizes[part] for part in ("linears", "embedding", "head", "other")},
        "total": written.nbytes,
    }

    assert read_plan(out / "plan.json")["schemes"] == value["schemes"]
    assert whet["lineage"][0]["plan"] == plan_hash(read_plan(out / "plan.json"))
    assert whet["files"]["plan.json"]["sha256"] == hashlib.sha256((out / "plan.json").read_bytes()).hexdigest()
    card = (out / "README.md").read_text(encoding="utf-8")
    among = sum(address.startswith("model.layers") for address in kept)
    assert f"{among} linears of the blocks" in card and "plan.json" in card


def scales(dtype):
    return torch.bfloat16 if dtype == torch.bfloat16 else torch.float16


def run(original, out, name, **more):
    case = CASES[name]
    value = plan(original, *case[:4])
    planned = compress(original, out, plan=value, dry_run=True, **more)
    assert not out.exists() and planned["dry_run"] is True
    result = compress(original, out, plan=value, **more)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert planned["bytes"]["after"]["total"] == Checkpoint(out).nbytes
    examine(original, out, value, case, result)
    return result


@matrix({"tied": [False, True], "name": CASES}, strength=1)
def test_every_mix_loads_as_it_was_solved(tmp_path, name, tied):
    if tied and "head" in CASES[name][2]:
        tied = False
    original = models.make(tmp_path / "model", "qwen3" if tied else "llama", tied=tied, dtype=torch.bfloat16)
    result = run(original, tmp_path / "out", name, text=WINDOWS)
    assert result["solver"] == "gptq"


@matrix({"family": ["mistral", "qwen2"], "name": CASES}, strength=1)
def test_without_text_too(tmp_path, family, name):
    original = models.make(tmp_path / "model", family, shards=True)
    run(original, tmp_path / "out", name, solver="nearest")


FP4 = {"q": "NVFP4", "k": "NVFP4", "v": "MXFP4", "o": "FP8", "gate": "int4s-g32"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_fp4_mixed_is_stock_where_the_model_is_bfloat16(tmp_path, dtype):
    original = models.make(tmp_path / "model", dtype=dtype)
    container = "compressed-tensors" if dtype == torch.bfloat16 else "whet"
    value = plan(original, FP4, {"down": "MXFP4", "up": "keep"})
    result = compress(original, tmp_path / "out", plan=value, text=WINDOWS)
    examine(original, tmp_path / "out", value, (None, None, None, None, (container, False)), result)


def test_vllm_reads_one_divisor_for_what_it_fuses(tmp_path):
    """It takes the largest of those of q, k and v, and of gate and up, which is right where they are equal."""
    original = models.make(tmp_path / "model", dtype=torch.bfloat16)
    result = compress(original, tmp_path / "out", scheme="NVFP4", target="vllm", text=WINDOWS)
    assert result["container"] == "compressed-tensors"
    written = Checkpoint(tmp_path / "out")
    for block in ("model.layers.0", "model.layers.1"):
        for fused in (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj")):
            assert len({written.read(f"{block}.{name}.weight_global_scale").item() for name in fused}) == 1


def test_linears_that_share_an_input_are_solved_as_if_alone(tmp_path):
    """Which schemes stand beside it changes nothing for a linear: it sees the same second moment."""
    original = models.make(tmp_path / "model")
    alone = {"q": "int3s-g32", "k": "int3s-g32"}
    mixed = {**alone, "v": "int4s-g32", "o": "int8s"}
    codes = []
    for i, first in enumerate((alone, mixed)):
        compress(original, tmp_path / str(i), plan=plan(original, first, {}), text=WINDOWS)
        written = Checkpoint(tmp_path / str(i))
        codes.append({n: written.read(n) for n in written.tensors if ".0.self_attn.k_proj" in n})
    assert codes[0] and all(torch.equal(codes[0][name], codes[1][name]) for name in codes[0])


def test_a_plan_of_one_scheme_gives_the_bytes_of_the_scheme(tmp_path):
    original = models.make(tmp_path / "model")
    roles = dict.fromkeys(("q", "k", "v", "o", "gate", "up", "down"), "int4s-g32")
    compress(original, tmp_path / "plan", plan=plan(original, roles, roles), text=WINDOWS)
    compress(original, tmp_path / "scheme", scheme="int4s-g32", text=WINDOWS)
    first, second = models.contents(tmp_path / "plan"), models.contents(tmp_path / "scheme")
    weights = [name for name in first if name.endswith(".safetensors")] + ["config.json"]
    assert len(weights) == 5 and all(first[name] == second[name] for name in weights)


def test_vllm_reads_the_config_of_a_mix_with_kept_linears(tmp_path):
    original = models.make(tmp_path / "model")
    first = {**dict.fromkeys("qkv", "int4s-g32"), "down": "int8s"}
    result = compress(original, tmp_path / "out", plan=plan(original, first, {}, target="vllm"), solver="nearest")
    assert result["container"] == "compressed-tensors" and result["dequantize"] is False
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    kept = {f"model.layers.0.{x}" for x in ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj")} | {"lm_head"}
    assert kept <= set(config["ignore"]) and not any("k_proj" in a for a in config["ignore"] if ".0." in a)
    config.pop("quant_method")
    parsed = QuantizationConfig.model_validate(config)
    targets = [target for group in parsed.config_groups.values() for target in group.targets]
    assert len(targets) == len(set(targets)) == 4 and not set(targets) & set(config["ignore"])


def test_kl_is_told_and_small_where_little_was_done(tmp_path):
    original = models.make(tmp_path / "model")
    kl = {}
    for name, first in {"little": {"v": "int8s"}, "much": dict.fromkeys(("v", "down", "up"), "int2s")}.items():
        value = plan(original, first, {})
        result = compress(original, tmp_path / name, plan=value, text=models.documents(60), samples=6, window=24)
        kl[name] = result["kl"]
    assert 0 <= kl["little"] < 1e-3 < kl["much"]


# -- what goes with a plan and what does not --------------------------------------------------------------------------


def test_a_plan_from_a_file_with_its_predictions(tmp_path):
    original = models.make(tmp_path / "model")
    value = plan(original, {"q": "int8s"}, {}, solver="nearest")
    size = compress(original, tmp_path / "out", plan=value, dry_run=True)["bytes"]["after"]["total"]
    value["predicted"] = {"bytes": size, "bits": 9.0, "kl": 0.01, "by_part": {}}
    value["budget"] = {"kind": "bits", "asked": "--bits 9", "bytes": size, "value": 9.0}
    write_plan(tmp_path / "p.json", value)
    result = compress(original, tmp_path / "out", plan=tmp_path / "p.json")
    assert result["solver"] == "nearest" and result["scheme"] is None and result["notes"] == []
    assert result["plan"]["predicted"]["kl"] == 0.01 and result["plan"]["budget"]["asked"] == "--bits 9"
    assert (tmp_path / "out" / "plan.json").read_bytes() == (tmp_path / "p.json").read_bytes()

    edited = json.loads((tmp_path / "p.json").read_text())
    edited["schemes"][DOWN] = "int8s"
    (tmp_path / "p.json").write_text(json.dumps(edited))
    result = compress(original, tmp_path / "edited", plan=tmp_path / "p.json")
    assert result["plan"]["predicted"] is None and "were edited" in result["notes"][0]
    assert "were edited" in (tmp_path / "edited" / "README.md").read_text()


REFUSED = {
    "scheme too": ({"scheme": "int8s"}, ["scheme and plan", "Give one"]),
    "embed too": ({"embed": "int8s"}, ["embed goes with scheme", "plan decides"]),
    "budgets too": ({"fit": "25%", "bits": 3.5}, ["plan and fit and bits", "Give one"]),
    "skills": ({"skills": "s.jsonl"}, ["skills", "give a budget", "fit, bits, quality, latency or speedup"]),
    "another target": ({"target": "whet"}, ["plan is for transformers", "whet is asked for", "Leave out --for"]),
    "no solver": ({"solver": "gptk"}, ["gptq"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_contradicts_a_plan_is_refused(tmp_path, name):
    more, what = REFUSED[name]
    original = models.make(tmp_path / "model")
    with pytest.raises(UsageError) as raised:
        compress(original, tmp_path / "out", plan=plan(original, {"q": "int8s"}, {}), **more)
    assert all(part in str(raised.value) for part in what) and "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@each(
    "more,what",
    [
        ({"scheme": "int8s", "quality": 0.9}, "scheme and quality were given"),
        ({"bits": 0}, "bits 0 is no budget"),
        ({"quality": 98}, "quality 98 is no share"),
        ({"quality": 0.98, "embed": "int8s"}, "quality decides on embedding"),
    ],
)
def test_ways_to_ask_exclude_each_other(tmp_path, more, what):
    with pytest.raises(UsageError, match=what):
        compress(tmp_path / "model", tmp_path / "out", **more)


def test_a_plan_of_another_model_writes_nothing(tmp_path):
    original = models.make(tmp_path / "model")
    value = plan(original, {"q": "int8s"}, {}, model={"name": "other", "sha256": "0" * 64})
    with pytest.raises(UsageError, match=r"made for other with SHA-256 000000000000"):
        compress(original, tmp_path / "out", plan=value, text=WINDOWS)
    assert not (tmp_path / "out").exists()
    value["model"]["sha256"] = Checkpoint(original).examine()
    compress(original, tmp_path / "out", plan=value, text=WINDOWS)


# -- stopped and gone on with -----------------------------------------------------------------------------------------


def stop_after(units):
    def on_event(event):
        if event["event"] == "progress" and event["stage"] == "compress" and event["done"] == units:
            raise KeyboardInterrupt

    return on_event


@pytest.mark.parametrize("name", ["symmetric, mixed, some kept", "a whole block kept", "integer zeros, mixed"])
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(tmp_path, name):
    original = models.make(tmp_path / "model", dtype=torch.bfloat16)
    value = plan(original, *CASES[name][:4])
    compress(original, tmp_path / "whole", plan=value, text=WINDOWS)
    for units in (1, 2, 3, 4):
        out = tmp_path / str(units)
        with pytest.raises(KeyboardInterrupt):
            compress(original, out, plan=value, text=WINDOWS, on_event=stop_after(units))
        resume(out) if random.Random(units).random() < 0.5 else compress(original, out, plan=value, text=WINDOWS)
        assert models.contents(out) == models.contents(tmp_path / "whole")


def test_another_plan_does_not_go_on(tmp_path):
    original = models.make(tmp_path / "model")
    with pytest.raises(KeyboardInterrupt):
        compress(
            original, tmp_path / "out", plan=plan(original, {"q": "int8s"}, {}), text=WINDOWS, on_event=stop_after(2)
        )
    for other in ({"plan": plan(original, {"q": "int7s"}, {})}, {"scheme": "int8s"}):
        with pytest.raises(UsageError, match=r"cannot go on: .*its plan is another"):
            compress(original, tmp_path / "out", text=WINDOWS, **other)
    file = tmp_path / "out" / ".whet" / "plan.json"
    file.write_text(file.read_text().replace("int8s", "int6s"))
    with pytest.raises(UsageError, match="its plan is another"):
        resume(tmp_path / "out")
