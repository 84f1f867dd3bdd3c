"""Compress: what stock transformers loads is what was solved, nothing of the original is lost, every byte was told."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import models
from covering import matrix, some
from whet.anatomy import FAMILIES
from whet.checkpoint import Checkpoint, load_model, size_on_disk
from whet.checkpoint.modeling_whet import parts_of
from whet.errors import UsageError
from whet.recipe.compress import compress

GENERATOR = torch.Generator().manual_seed(0)
WINDOWS = torch.randint(0, 264, (4, 20), generator=GENERATOR)
TOKENS = torch.randint(0, 264, (2, 24), generator=GENERATOR)

# scheme, embed, tied, container, whether transformers computes the weights at load
CASES = {
    "symmetric": ({"scheme": "int4s-g32"}, False, "compressed-tensors", False),
    "asymmetric, tied table too": ({"scheme": "int4-g32", "embed": "int4-g32"}, True, "compressed-tensors", True),
    "asymmetric, tables too": ({"scheme": "int3-g32", "embed": "int3-g32"}, False, "compressed-tensors", True),
    "mixed with tied table": ({"scheme": "int4s-g32", "embed": "int8s"}, True, "whet", False),
    "real zero": ({"scheme": "int3z-g32", "embed": "int5z-g16"}, False, "whet", False),
}


# the same of small floats, by the type of the model
SMALL_FLOATS = {
    "FP8": ({"scheme": "FP8"}, torch.bfloat16, "compressed-tensors", False),
    "FP8, float32": ({"scheme": "fp8"}, torch.float32, "compressed-tensors", False),
    "FP8, float16, tables too": ({"scheme": "FP8", "embed": "FP8"}, torch.float16, "compressed-tensors", True),
    "one scale": ({"scheme": "fp8-tensor"}, torch.bfloat16, "compressed-tensors", False),
    "blocks": ({"scheme": "fp8-block"}, torch.bfloat16, "compressed-tensors", False),
    "NVFP4": ({"scheme": "NVFP4"}, torch.bfloat16, "compressed-tensors", True),
    "NVFP4, float16": ({"scheme": "nvfp4"}, torch.float16, "compressed-tensors", True),
    "NVFP4, tables too": ({"scheme": "NVFP4", "embed": "NVFP4"}, torch.bfloat16, "compressed-tensors", True),
    "MXFP4": ({"scheme": "MXFP4"}, torch.bfloat16, "compressed-tensors", True),
    "MXFP4, float32": ({"scheme": "mxfp4"}, torch.float32, "compressed-tensors", True),
    "mixed with a table": ({"scheme": "MXFP4", "embed": "FP8"}, torch.bfloat16, "whet", False),
    "any scale": ({"scheme": "fp4-g32"}, torch.bfloat16, "whet", False),
    "powers of two": ({"scheme": "fp4m1"}, torch.float16, "whet", False),
    "ratios of powers of two, tables too": ({"scheme": "fp4m2-g32", "embed": "fp4m2"}, torch.bfloat16, "whet", False),
    "E5M2": ({"scheme": "fp8e5m2"}, torch.bfloat16, "whet", False),
    "NF4": ({"scheme": "nf4"}, torch.bfloat16, "whet", False),
    "NF4, float32, tables too": ({"scheme": "nf4-g32", "embed": "nf4"}, torch.float32, "whet", False),
}


def stock(folder, container, **more):
    trust = {"trust_remote_code": True} if container == "whet" else {}
    return AutoModelForCausalLM.from_pretrained(folder, **trust, **more).eval()


@torch.no_grad()
def examine(original, before, out, result, planned, case):
    """Everything that must hold of a finished folder, whatever it was made of."""
    _, _, container, dequantize = case
    assert models.contents(original) == before
    assert result["container"] == container and result["dequantize"] == dequantize
    assert result["loads_in"] == ("transformers" if container == "compressed-tensors" else "modelling file")
    assert json.loads(json.dumps(result, allow_nan=False)) == result

    # loads as it was solved
    mine = load_model(out)
    theirs = stock(out, container)
    dtype = Checkpoint(original).dtype
    assert mine.dtype == theirs.dtype == dtype
    logits = theirs(TOKENS).logits
    # the same operations on the same weights: no difference in bfloat16 and float16 either
    assert torch.equal(logits, mine(TOKENS).logits) and torch.isfinite(logits).all()
    assert not torch.equal(logits, load_model(original)(TOKENS).logits)
    if dtype == torch.float32:
        settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 1}
        cached = theirs.generate(TOKENS[:, :6], use_cache=True, **settings)
        assert torch.equal(cached, theirs.generate(TOKENS[:, :6], use_cache=False, **settings))

    # every tensor of the original is there, as it was or as codes
    whet = json.loads((out / "whet.json").read_text(encoding="utf-8"))
    source, written = Checkpoint(original), Checkpoint(out)
    left = set(written.tensors)
    for name in source.tensors:
        address = name.removesuffix(".weight")
        if address in whet["linears"]:
            parts = {f"{address}.{part}" for part in parts_of(whet["linears"][address])}
            assert parts and parts <= left
            left -= parts
        elif name != whet["dropped"]:
            assert torch.equal(written.read(name), source.read(name))
            left.remove(name)
    assert left == set()

    # predicted bytes are written bytes
    sizes = size_on_disk(out)
    assert planned["bytes"]["after"] == {
        **{part: sizes[part] for part in ("linears", "embedding", "head", "other")},
        "total": written.nbytes,
    }
    assert result["sizes"]["lighter"] == sizes and sizes["total"] <= planned["disk"]

    # files: hashes, copies, nothing left of the run
    files = models.contents(out)
    assert set(whet["files"]) == set(files) - {"whet.json"}
    for name, about in whet["files"].items():
        assert about == {"bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "LICENSE"):
        assert files[name] == before[name]
    assert ("modeling_whet.py" in files) == (container == "whet")
    assert not any(name.startswith(".") for name in files)

    # the card
    front = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert (
        front["license"] == "mit" and front["language"] == ["ko", "en"] and front["pipeline_tag"] == "text-generation"
    )
    assert front["tags"] == ["tiny", "whet", "quantized"] and front["base_model"] == original.name
    assert ("trust_remote_code=True" in files["README.md"].decode()) == (container == "whet")


def run(original, out, case, **more):
    choices, _, _, _ = case
    before = models.contents(original)
    settings = {**choices, "text": WINDOWS, **more}
    planned = compress(original, out, dry_run=True, **settings)
    assert not out.exists() and planned["dry_run"] is True
    examine(original, before, out, compress(original, out, **settings), planned, case)


@matrix({"family": models.FAMILIES, "name": CASES}, strength=1)
def test_every_family_with_every_container(tmp_path, family, name):
    case = CASES[name]
    original = models.make(tmp_path / "model", family, tied=case[1], shards=family in ("llama", "qwen3"))
    # GPTQ where inputs differ between families, rounding to nearest where only containers do
    if name == "symmetric":
        run(original, tmp_path / "out", case)
    else:
        run(original, tmp_path / "out", case, solver="nearest", text=None)


@matrix({"dtype": [torch.bfloat16, torch.float16], "name": CASES}, strength=1)
def test_half_precision_models(tmp_path, dtype, name):
    case = CASES[name]
    original = models.make(tmp_path / "model", tied=case[1], dtype=dtype)
    run(original, tmp_path / "out", case, solver="nearest", text=None)


@pytest.mark.parametrize("name", ["asymmetric, tied table too", "asymmetric, tables too", "real zero"])
def test_gptq_on_embedding_and_head(tmp_path, name):
    case = CASES[name]
    original = models.make(tmp_path / "model", tied=case[1], dtype=torch.bfloat16)
    run(original, tmp_path / "out", case)


@pytest.mark.parametrize("name", some(SMALL_FLOATS, 2))
def test_small_floats_load_as_they_were_solved(tmp_path, name):
    _, dtype, _, dequantize = case = SMALL_FLOATS[name]
    wide = {"intermediate_size": 128, "hidden_size": 128 if name == "blocks" else 64}
    original = models.make(tmp_path / "model", dtype=dtype, tied=dequantize and "tables" in name, **wide)
    settings = {} if "tables" in name or name == "blocks" else {"solver": "nearest", "text": None}
    run(original, tmp_path / "out", case, **settings)


@matrix(
    {
        "family": ["phi3", "gpt2", "mixtral", "opt"],
        "scheme": ["fp8-tensor", "fp8-block", "NVFP4", "MXFP4", "nf4-g32", "fp4m2-g32"],
    },
    strength=1,
)
@torch.no_grad()
def test_families_that_store_their_linears_otherwise_hold_small_floats(tmp_path, family, scheme):
    """Fused, transposed or stacked tensors, with blocks that end inside of them."""
    original = models.make(tmp_path / "model", family, dtype=torch.bfloat16)
    target = "whet" if scheme == "fp8-block" else "transformers"
    result = compress(original, tmp_path / "out", scheme=scheme, solver="nearest", target=target)
    mine, theirs = load_model(tmp_path / "out"), stock(tmp_path / "out", result["container"])
    assert torch.equal(theirs(TOKENS).logits, mine(TOKENS).logits)


@pytest.mark.parametrize("scheme", some(["FP8", "fp8-tensor", "nf4-g32", "NVFP4", "MXFP4", "fp4m2-g32"], 3))
@torch.no_grad()
def test_trained_small_floats_load_as_they_were_solved(tmp_path, scheme):
    """In a family that stores several linears as one tensor, of which some have a number in common."""
    original = models.make(tmp_path / "model", "phi3", dtype=torch.bfloat16)
    result = compress(original, tmp_path / "out", scheme=scheme, solver="tuned", text=WINDOWS)
    mine, theirs = load_model(tmp_path / "out"), stock(tmp_path / "out", result["container"])
    assert torch.equal(theirs(TOKENS).logits, mine(TOKENS).logits)


@pytest.mark.parametrize(
    "scheme", ["int4s-g32", "int4-g32", "int3z-g32", "FP8", "NVFP4", "MXFP4", "nf4-g32", "fp4m2-g32"]
)
@torch.no_grad()
def test_a_bfloat16_folder_computes_the_same_in_float32(tmp_path, scheme):
    original = models.make(tmp_path / "model", dtype=torch.bfloat16)
    result = compress(original, tmp_path / "out", scheme=scheme, solver="nearest")
    theirs = stock(tmp_path / "out", result["container"], dtype=torch.float32)
    mine = load_model(tmp_path / "out", torch.float32)
    assert torch.equal(theirs(TOKENS).logits, mine(TOKENS).logits)


def test_without_trust_a_folder_with_a_modelling_file_fails_loudly(tmp_path):
    original = models.make(tmp_path / "model")
    compress(original, tmp_path / "out", scheme="int4z-g32", solver="nearest")
    with pytest.raises((OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=False)


def test_a_run_on_text_verifies_on_text_that_solved_nothing(tmp_path):
    original = models.make(tmp_path / "model")
    (tmp_path / "t.txt").write_text("\n\n\n".join(models.documents(60)), encoding="utf-8")
    events = []
    result = compress(
        original,
        tmp_path / "out",
        scheme="int4s-g32",
        text=tmp_path / "t.txt",
        samples=6,
        window=24,
        on_event=events.append,
    )
    assert 0 < result["kl"] < math.log(264) and 0 <= result["top1"] <= 1 and len(result["drift"]) == 2
    assert result["text"]["windows"] == 6 and result["text"]["shares"] == [0.8, 0.1, 0.1]
    done = [e["done"] for e in events if e["event"] == "progress" and e["stage"] == "compress"]
    assert done == [1, 2, 3, 4] and events[0]["event"] == "plan"
    whet = json.loads((tmp_path / "out" / "whet.json").read_text())
    assert whet["verify"] == {"kl": result["kl"], "top1": result["top1"]}
    assert whet["lineage"][0]["text"] == result["text"]


def test_kl_is_that_of_the_finished_folder(tmp_path):
    original = models.make(tmp_path / "model", tied=True)
    result = compress(
        original, tmp_path / "out", scheme="int3-g32", embed="int3-g32", text=models.documents(), samples=4, window=24
    )
    # the same windows once more, through whole models
    from whet.checkpoint import load_tokenizer
    from whet.text import split, windows
    from whet.text.calibration import verify_count

    held = split(models.documents(), 0).verify
    verify = windows(held, load_tokenizer(original), verify_count(4), 24, 0, "x")
    first, second = load_model(original), load_model(tmp_path / "out")
    with torch.no_grad():
        logs = [torch.log_softmax(m(torch.stack(verify)).logits[:, :-1].double(), -1) for m in (first, second)]
    kl = (logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean().item()
    assert result["kl"] == pytest.approx(kl, rel=1e-3)


@pytest.mark.parametrize(
    "better",
    [
        ("gptaq", "gptq", "nearest"),
        # that trained ones keep more than gptq is also what the next test but one asks
        pytest.param(("tuned", "block", "gptq"), marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_gptq_keeps_more_than_nearest_and_trained_blocks_more_than_gptq(tmp_path, better):
    """Together, on two models: by how much differs from one to the next."""
    kl = dict.fromkeys(better, 0.0)
    for seed in (0, 1):
        original, text = models.make(tmp_path / f"model {seed}", seed=seed), models.documents(160, seed=seed)
        for solver in kl:
            settings = {"scheme": "int3-g32", "solver": solver, "text": text, "samples": 40, "window": 48}
            kl[solver] += compress(original, tmp_path / f"{solver} {seed}", **settings)["kl"]
    first, second, third = kl.values()
    assert first < second < third


def test_an_effort_is_a_solver_and_a_dry_run_tells_what_each_takes(tmp_path):
    original = models.make(tmp_path / "model")
    text = {"text": models.documents(80), "samples": 24, "window": 48}
    told = compress(original, tmp_path / "out", scheme="int3-g32", solver="best", dry_run=True, **text)
    assert told["solver"] == "tuned" and list(told["efforts"]) == ["fast", "good", "best"]
    assert told["efforts"]["fast"] < told["efforts"]["good"] < told["efforts"]["best"] == told["seconds"]
    plain, other = (
        compress(original, tmp_path / "out", scheme="int3-g32", solver=solver, dry_run=True, **text)
        for solver in ("good", "gptaq")
    )
    assert plain["memory"] < other["memory"]
    assert plain["solver"] == "gptq" and plain["memory"] < told["memory"]
    assert compress(original, tmp_path / "out", scheme="int8s", solver="fast")["solver"] == "nearest"
    with pytest.raises(UsageError, match=r"Did you mean best\?.*best for tuned"):
        compress(original, tmp_path / "other", scheme="int8s", solver="bets", **text)


def test_where_gradients_cannot_be_followed_blocks_are_trained_all_the_same_and_it_is_said(tmp_path):
    """Of 384 tokens little can be learnt that helps elsewhere, so it is three models that keep more together."""
    trained, plain = [], []
    for seed in range(3):
        original = models.make(tmp_path / f"model {seed}", "mixtral", seed=seed)
        settings = {"scheme": "int3-g32", "text": models.documents(80, seed=seed), "samples": 8, "window": 48}
        trained.append(compress(original, tmp_path / f"out {seed}", solver="tuned", **settings))
        plain.append(compress(original, tmp_path / f"plain {seed}", solver="gptq", **settings))
        assert any("every error of their output weighed alike" in note for note in trained[-1]["notes"])
        assert not any("weighed alike" in note for note in plain[-1]["notes"])
    assert sum(result["kl"] for result in trained) < sum(result["kl"] for result in plain)
    # and where training harms on the verifying text, a block stays as it was
    assert any("stay as GPTQ left them" in note for result in trained for note in result["notes"])


def test_the_same_call_gives_the_same_bytes(tmp_path):
    original = models.make(tmp_path / "model", tied=True)
    settings = {"scheme": "int4-g32", "embed": "int4-g32", "text": models.documents(), "samples": 4, "window": 24}
    compress(original, tmp_path / "one", **settings)
    compress(original, tmp_path / "two", **settings)
    assert models.contents(tmp_path / "one") == models.contents(tmp_path / "two")


# -- folders as people have them --------------------------------------------------------------------------------------


def add_tensors(folder, **tensors):
    file = folder / "model.safetensors"
    save_file({**load_file(file), **tensors}, file, metadata={"format": "pt"})


@torch.no_grad()
def loads_the_same(out, container="compressed-tensors"):
    assert torch.equal(stock(out, container)(TOKENS).logits, load_model(out)(TOKENS).logits)


def test_a_stored_copy_of_a_tied_head_is_left_out_and_said(tmp_path):
    original = models.make(tmp_path / "model", tied=True)
    add_tensors(original, **{"lm_head.weight": load_file(original / "model.safetensors")["model.embed_tokens.weight"]})
    result = compress(original, tmp_path / "out", scheme="int8s", solver="nearest")
    assert any("lm_head.weight left out" in note for note in result["notes"])
    assert "lm_head.weight" not in Checkpoint(tmp_path / "out").tensors
    loads_the_same(tmp_path / "out")


def test_a_head_that_the_config_ties_but_that_differs_is_kept(tmp_path):
    """transformers does not tie tensors that differ, whatever the config says; nor may the lighter folder."""
    original = models.make(tmp_path / "model", tied=True)
    other = torch.randn(264, 64, generator=torch.Generator().manual_seed(1)) * 0.1
    add_tensors(original, **{"lm_head.weight": other})
    theirs = load_model(original)
    assert not torch.equal(theirs.lm_head.weight, theirs.model.embed_tokens.weight)
    for embed in (None, "int8s"):
        out = tmp_path / f"out {embed}"
        result = compress(original, out, scheme="int8s", embed=embed, text=WINDOWS)
        assert any("differs from the embedding" in note for note in result["notes"])
        loads_the_same(out)
        with torch.no_grad():
            mine, full = load_model(out)(TOKENS).logits, theirs(TOKENS).logits
        assert (mine - full).norm() < 0.05 * full.norm()


def test_a_head_that_differs_is_kept_where_the_family_ties_by_default(tmp_path):
    """Of a config that says nothing, transformers goes by the architecture's own default, and then by the values."""
    tying = [name for name, row in FAMILIES.items() if row.ties and row.task("") == "causal"]
    assert {"gemma2", "gemma3_text", "gpt2"} <= {*tying}
    for family in tying:
        original, out = models.make(tmp_path / family, family, tied=True), tmp_path / f"{family} out"
        stored = load_file(original / "model.safetensors")
        embedding = f"{FAMILIES[family].embedding}.weight"
        head = stored[embedding] + 0.05 * torch.randn(stored[embedding].shape)
        add_tensors(original, **{"lm_head.weight": head})
        config = json.loads((original / "config.json").read_text())
        config.pop("tie_word_embeddings", None)
        (original / "config.json").write_text(json.dumps(config))
        result = compress(original, out, scheme="int8s", solver="nearest")
        assert any("differs from the embedding" in note for note in result["notes"]), family
        kept = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
        assert torch.equal(kept.lm_head.weight.float(), head), family


def test_tensors_no_table_names_are_copied_and_listed(tmp_path):
    original = models.make(tmp_path / "model")
    extra = {"vision.weight": torch.randn(3, 3), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.randn(8)}
    add_tensors(original, **extra)
    for scheme, container in (("int8s", "compressed-tensors"), ("int4z-g32", "whet")):
        out = tmp_path / scheme
        result = compress(original, out, scheme=scheme, text=WINDOWS)
        assert "copied unchanged" in result["notes"][0] and all(name in result["notes"][0] for name in extra)
        assert all(torch.equal(Checkpoint(out).read(name), value) for name, value in extra.items())
        assert set(json.loads((out / "whet.json").read_text())["copied"]) == set(extra)
        loads_the_same(out, container)


@pytest.mark.parametrize("legacy", [None, "bfloat16"])
def test_a_config_without_a_type_takes_that_of_the_weights(tmp_path, legacy):
    original = models.make(tmp_path / "model", dtype=torch.bfloat16)
    models.edit_config(original, remove=("dtype",), **({"torch_dtype": legacy} if legacy else {}))
    compress(original, tmp_path / "out", scheme="int8s", solver="nearest")
    assert load_model(tmp_path / "out").dtype == torch.bfloat16
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    loads_the_same(tmp_path / "out")


def test_paths_with_korean_letters_spaces_and_dots(tmp_path):
    original = models.make(tmp_path / "나의 모델 v1.0 (시험)")
    for scheme, container in (("int4s-g32", "compressed-tensors"), ("int4z-g32", "whet")):
        out = tmp_path / "가벼운 것들" / f"결과 {scheme}.v2"
        compress(original, out, scheme=scheme, solver="nearest")
        loads_the_same(out, container)
        assert yaml.safe_load((out / "README.md").read_text(encoding="utf-8").split("---")[1])["base_model"] == (
            original.name
        )


def test_rounding_needs_no_tokenizer(tmp_path):
    original = models.make(tmp_path / "model", with_tokenizer=False)
    compress(original, tmp_path / "out", scheme="int4s-g32", solver="nearest")
    loads_the_same(tmp_path / "out")


def test_a_snapshot_of_the_hubs_cache_keeps_the_models_name(tmp_path):
    original = models.make(tmp_path / "models--org--tiny-model" / "snapshots" / "0123abc")
    compress(original, tmp_path / "out", scheme="int8s", solver="nearest")
    assert json.loads((tmp_path / "out" / "whet.json").read_text())["base_model"]["name"] == "org/tiny-model"


def test_windows_longer_than_the_model_allows_are_shortened_and_said(tmp_path):
    original = models.make(tmp_path / "model", max_position_embeddings=24)
    result = compress(original, tmp_path / "out", scheme="int8s", text=models.documents(), samples=2, window=64)
    assert result["text"]["window"] == 24 and any("windows of 24 tokens instead of 64" in n for n in result["notes"])


def test_fewer_tokens_than_channels_are_said_where_they_are_solved_on(tmp_path):
    original, text = models.make(tmp_path / "model"), models.documents()
    for solver, samples, said in (("gptq", 2, True), ("nearest", 2, False), ("gptq", 16, False)):
        out = tmp_path / f"{solver}-{samples}"
        result = compress(original, out, scheme="int4s-g32", solver=solver, text=text, samples=samples, window=32)
        widest = max(entry["shape"][1] for entry in result["linears"].values())
        assert (result["text"]["tokens"] < widest) == (samples == 2)
        told = [note for note in result["notes"] if "fewer than the" in note]
        assert told == [note for note in told if f"the {widest} channels" in note] and bool(told) == said


def test_weights_too_small_for_float16_scales_keep_their_values(tmp_path):
    original = models.make(tmp_path / "model")
    name = "model.layers.0.mlp.down_proj"
    add_tensors(original, **{f"{name}.weight": load_file(original / "model.safetensors")[f"{name}.weight"] * 1e-7})
    result = compress(original, tmp_path / "out", scheme="int4s-g32", solver="nearest")
    assert result["linears"][name]["error"] < 0.02 and "float32" in result["linears"][name]["notes"][0]["message"]
    loads_the_same(tmp_path / "out")


def test_a_ragged_group_is_kept_where_the_target_is_whet(tmp_path):
    original = models.make(tmp_path / "model")
    with pytest.raises(UsageError, match="divide the row"):
        compress(original, tmp_path / "out", scheme="int4-g40", solver="nearest")
    compress(original, tmp_path / "out", scheme="int4-g40", target="whet", solver="nearest")
    loads_the_same(tmp_path / "out", "whet")


@pytest.mark.parametrize("target", ["transformers", "vllm"])
@pytest.mark.parametrize("width", [96, 88])
def test_the_default_scheme_takes_groups_that_divide_and_says_so_once(tmp_path, target, width):
    """128 divides neither 64 nor 96 nor 88: groups of 64 at the one, of 32 or 8 or none at the other."""
    original = models.make(tmp_path / "model", intermediate_size=width)
    narrow = {96: "int4s-g32", 88: "int4s-g8" if target == "transformers" else "int4s"}[width]
    result = compress(original, tmp_path / "out", target=target, solver="nearest")
    (note,) = [note for note in result["notes"] if "instead of" in note]
    assert "int4s-g64 (model.layers.0.self_attn.q_proj" in note and f"{narrow} (model.layers.0.mlp.down_proj" in note
    entries = Checkpoint(tmp_path / "out").whet["linears"]
    assert {entry["group"] for name, entry in entries.items() if name.endswith("down_proj")} == {
        int(narrow.partition("-g")[2] or 0)
    }
    assert {entry["group"] for name, entry in entries.items() if name.endswith(("q_proj", "up_proj"))} == {64}
    loads_the_same(tmp_path / "out")
    with pytest.raises(UsageError, match="does not divide 64"):
        compress(original, tmp_path / "other", scheme="int4s-g128", target=target, solver="nearest")


def test_what_has_to_be_of_one_scheme_takes_one_group_that_divides_all_rows(tmp_path):
    """Stacked experts, and weights beside an adapter, load in stock transformers of one scheme only."""
    original = models.make(tmp_path / "model")
    result = compress(original, tmp_path / "out", solver="nearest", repair=4, text=WINDOWS)
    assert result["container"] == "compressed-tensors" and any("int4s-g32 (" in note for note in result["notes"])
    sparse = models.make(tmp_path / "sparse", "mixtral", dtype=torch.float16)
    result = compress(sparse, tmp_path / "experts", solver="nearest", target="vllm")
    assert result["container"] == "compressed-tensors"
    assert {entry["group"] for entry in Checkpoint(tmp_path / "experts").whet["linears"].values()} == {32}


def test_a_model_without_text_writes_its_own(tmp_path):
    original = models.make(tmp_path / "model")
    events = []
    result = compress(original, tmp_path / "out", scheme="int8s", samples=2, window=16, on_event=events.append)
    assert result["text"]["source"] == "written by the model itself"
    loads_the_same(tmp_path / "out")


def test_one_text_may_be_what_solves_and_what_verifies(tmp_path):
    windows = torch.randint(0, 264, (4, 16), generator=torch.Generator().manual_seed(0))
    original = models.make(tmp_path / "model")
    assert "kl" in compress(original, tmp_path / "out", scheme="int8-g32", text=windows, eval_text=windows)
