"""Transforms on the way through compress: exact in every stored type, said everywhere, gone when the run is over.

That no family's logits change is in `test_families.py`, that killed runs end in the same bytes in `test_resume.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil

import gguf
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import models
from covering import matrix
from whet.apply.job import Job
from whet.checkpoint import Checkpoint, load_model, size_on_disk
from whet.engines.torch import outputs
from whet.errors import GateError, UsageError
from whet.events import ignore
from whet.messages import Message, in_language
from whet.quantize import spinquant
from whet.recipe.compress import compress
from whet.recipe.resume import resume
from whet.steps.decide import decide
from whet.steps.options import Quantize
from whet.transforms import make, rotations
from whet.transforms.judge import judging_bytes
from whet.transforms.make import check_transform, transformed, transformed_bytes

WINDOWS = torch.randint(2, 264, (6, 24), generator=torch.Generator().manual_seed(0))
OTHERS = torch.randint(2, 264, (4, 24), generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(2, 264, (2, 24), generator=torch.Generator().manual_seed(2))


def decided(folder, transform: str, **more) -> Job:
    settings = {"text": WINDOWS, "eval_text": OTHERS, "field": "text", "chat": False, "samples": 6, "window": 24}
    scheme = None if "plan" in more else "int3s-g32"
    return decide(folder, Quantize.of("compress", scheme=scheme, transform=transform, **settings, **more), device="cpu")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("m") / "model", "qwen2", shards=True)


@torch.no_grad()
@matrix(
    {"family": ["llama", "gemma2", "qwen2", "gpt2", "mixtral"], "dtype": [torch.bfloat16, torch.float16]}, strength=1
)
def test_folds_are_exact_whatever_the_type(family, dtype, tmp_path):
    """Norms, biases and routers stay in 16 bits, and all the same nothing is lost."""
    original = models.make(tmp_path / "m", family, dtype=dtype)
    made = transformed(decided(original, "awq"), tmp_path, ignore)
    source = Checkpoint(original)
    assert any(told["transform"] == "awq" for told in made.transforms.values())
    matrices = {linear.parameter for linear in made.anatomy.linears()}
    for name, info in made.checkpoint.tensors.items():
        changed = name in matrices and not torch.equal(made.checkpoint.read(name).to(dtype), source.read(name))
        assert info.dtype == (torch.float32 if changed else dtype), name
    before, after = (load_model(f, dtype=torch.float32) for f in (original, tmp_path / "transformed"))
    first, second = outputs(before, TOKENS), outputs(after, TOKENS)
    assert (first - second).abs().max() < 2e-5 * first.abs().max().clamp_min(1)


@torch.no_grad()
def test_powers_of_two_change_not_one_bit(tmp_path):
    """A LayerNorm's weights and biases in bfloat16 have to hold one factor: it is a power of two, and all is equal."""
    original = models.make(tmp_path / "m", "gpt2", dtype=torch.bfloat16)
    decision = decided(original, "smooth")
    kept = {a: g for a, g in decision.grids.items() if a.endswith("c_attn.q")}  # what is kept has 16 bits too
    decision = dataclasses.replace(decision, grids=kept)
    made = transformed(decision, tmp_path, ignore)
    norm = next(name for name, told in made.transforms.items() if told["transform"] == "smooth")
    assert all(name.endswith("ln_1") for name in made.transforms)
    before, after = load_file(original / "model.safetensors"), made.checkpoint
    name = f"{norm}.weight"
    ratio = (before[name] / after.read(name)).double().log2()
    assert torch.equal(ratio, ratio.round()) and (ratio != 0).any()
    assert torch.equal(
        *(outputs(load_model(folder, dtype=torch.float32), TOKENS) for folder in (original, tmp_path / "transformed"))
    )


@torch.no_grad()
def test_heads_that_share_keys_share_factors_and_rotations(tmp_path):
    """Four query heads, two of keys and values, of 16 channels each."""
    original = models.make(tmp_path / "m", "llama")
    source, name = Checkpoint(original), "model.layers.0.self_attn.{}_proj.weight"
    before, given = source.read(name.format("o")).view(64, 2, 2, 16), source.read(name.format("v")).view(2, 16, 64)
    for kind in ("awq", "rotate"):
        folder = tmp_path / kind
        folder.mkdir()
        made = transformed(decided(original, kind), folder, ignore).checkpoint
        o, v = made.read(name.format("o")).view(64, 2, 2, 16), made.read(name.format("v")).view(2, 16, 64)
        assert not torch.equal(o, before) and not torch.equal(v, given)
        if kind == "awq":
            ratio = o / before
            assert torch.allclose(ratio, ratio[:1, :, :1].expand_as(ratio), rtol=1e-4)
        else:
            path = "ohrj,hji->ohri"
            assert torch.allclose(torch.einsum(path, o, v), torch.einsum(path, before, given), atol=1e-5)


def test_what_was_done_is_said_everywhere_and_the_rest_is_gone(original, tmp_path):
    events = []
    settings = {"scheme": "int3s-g32", "transform": "awq", "text": WINDOWS, "eval_text": OTHERS}
    result = compress(original, tmp_path / "o", **settings, on_event=events.append)
    assert any(e["event"] == "progress" and e["stage"] == "transform" for e in events)
    manifest = json.loads((tmp_path / "o" / "whet.json").read_text())
    assert manifest["transforms"] == result["transforms"] and result["transform"] == "awq"
    assert set(result["transforms"]) == {
        f"model.layers.{i}.{x}"
        for i in (0, 1)
        for x in ("input_layernorm", "post_attention_layernorm", "self_attn.v_proj", "mlp.up_proj")
    }
    assert all(told["loss"] <= 1 for told in result["transforms"].values())
    assert manifest["base_model"]["name"] == "model" and manifest["lineage"][0]["transform"] == "awq"
    (note,) = [n for n in map(Message.read, manifest["notes"]) if n.startswith("transform awq: of 8 groups")]
    card = (tmp_path / "o" / "README.md").read_text()
    assert note in card and "with `gptq` after `awq` was folded in" in card
    assert "transform: awq" in (tmp_path / "o" / "recipe.yaml").read_text()
    assert not (tmp_path / "o" / ".whet").exists()
    assert (tmp_path / "o" / "LICENSE").read_bytes() == (original / "LICENSE").read_bytes()
    assert result["sizes"]["original"] == size_on_disk(original)
    # a folder is as large as without, and the original's tensors are read nowhere any more
    plain = compress(original, tmp_path / "p", **{**settings, "transform": None})
    assert plain["sizes"]["lighter"]["linears"] == result["sizes"]["lighter"]["linears"]
    assert Checkpoint(tmp_path / "o").nbytes == Checkpoint(tmp_path / "p").nbytes


def test_a_dry_run_counts_the_transformed_original(tmp_path):
    original = models.make(tmp_path / "m", dtype=torch.bfloat16)
    settings = {"scheme": "int3s-g32", "text": WINDOWS, "eval_text": OTHERS, "dry_run": True}
    without, with_it = (compress(original, tmp_path / "o", transform=t, **settings) for t in (None, "auto"))
    judging = judging_bytes(decided(original, "auto"), without["bytes"]["after"]["total"])
    assert with_it["disk"] - without["disk"] == transformed_bytes(decided(original, "auto")) + judging
    assert judging > 2 * without["bytes"]["after"]["total"]  # the model rounded twice, beside what is proposed
    assert with_it["seconds"] > 2 * without["seconds"] and with_it["memory"] >= without["memory"]
    assert transformed_bytes(decided(original, "auto")) > Checkpoint(original).nbytes  # in float32
    assert not (tmp_path / "o").exists()


def test_auto_keeps_only_what_helps_on_the_verifying_text(original, tmp_path):
    result = compress(original, tmp_path / "o", scheme="int3s-g32", transform="auto", text=WINDOWS, eval_text=OTHERS)
    told = result["transforms"].values()
    assert {one["transform"] for one in told} <= {"none", "awq", "smooth", "rotate"}
    assert all((one["loss"] < 1) == (one["transform"] != "none") for one in told)
    with pytest.raises(UsageError, match=r"auto keeps what helps on text that is not calibrated on.*--eval FILE"):
        compress(original, tmp_path / "p", scheme="int3s-g32", transform="auto", text=WINDOWS)


def test_a_budget_scores_plans_and_measures_the_transformed_original(original, tmp_path):
    settings = {"bits": 9, "transform": "awq", "text": models.documents(40, 30), "samples": 8, "window": 32}

    def stop(event):
        if event["event"] == "progress" and event["stage"] == "transform" and event["done"] == 1:
            raise KeyboardInterrupt

    once = compress(original, tmp_path / "o", **settings)
    with pytest.raises(KeyboardInterrupt):
        compress(original, tmp_path / "p", **settings, on_event=stop)
    again = resume(tmp_path / "p")
    assert once["plan"]["schemes"] == again["plan"]["schemes"] and once["kl"] == again["kl"]
    assert once["sizes"]["original"] == size_on_disk(original)
    manifest = json.loads((tmp_path / "o" / "whet.json").read_text())
    assert (
        set(manifest["transforms"])
        and manifest["transforms"] == json.loads((tmp_path / "p" / "whet.json").read_text())["transforms"]
    )
    assert once["plan"]["predicted"]["bytes"] == Checkpoint(tmp_path / "o").nbytes
    # its plan replays, on the same model
    compress(original, tmp_path / "q", plan=tmp_path / "o" / "plan.json", transform="awq", text=WINDOWS)


def test_a_plan_that_keeps_parts_leaves_them_exact(tmp_path):
    """What is kept stays in bfloat16: its group takes powers of two, and a group that keeps all takes nothing."""
    original = models.make(tmp_path / "m", dtype=torch.bfloat16)
    parts = decided(original, "awq").anatomy
    schemes = {linear.address: "int3s-g32" for linear in parts.linears()}
    schemes |= {parts.embedding.address: "keep", parts.head.address: "keep"}
    schemes |= {f"model.layers.0.self_attn.{x}_proj": "keep" for x in "qo"}
    plan = {"format": "whet.plan", "version": 1, "target": "transformers", "solver": "gptq", "schemes": schemes}
    result = compress(original, tmp_path / "o", plan=plan, transform="smooth", text=WINDOWS)
    assert "model.layers.0.self_attn.v_proj" not in result["transforms"]
    before, after = Checkpoint(original), Checkpoint(tmp_path / "o")
    name = "model.layers.0.self_attn.q_proj.weight"
    ratio = (after.read(name).double() / before.read(name).double()).log2()
    assert torch.equal(ratio, ratio.round()) and (ratio != 0).any() and after.tensors[name].dtype == torch.bfloat16
    assert torch.equal(before.read(name.replace("q_", "o_")), after.read(name.replace("q_", "o_")))


# -- the residual stream turned ---------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Rotations that are learned in a moment."""
    monkeypatch.setattr(rotations, "spinquant", functools.partial(spinquant, steps=12))


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("m") / "model", tied=True, dtype=torch.bfloat16)


@torch.no_grad()
@pytest.mark.parametrize("embed", [None, "int8s-g32"])
@pytest.mark.parametrize("kind", ["quarot", "spinquant"])
def test_a_tied_head_is_stored_apart_and_counted(kind, embed, tied, tmp_path, quick):
    settings = {"scheme": "int3s-g32", "embed": embed, "text": WINDOWS, "eval_text": OTHERS}
    plain, dry = (compress(tied, tmp_path / "p", transform=t, dry_run=True, **settings) for t in (None, kind))
    assert not (tmp_path / "p").exists()
    result = compress(tied, tmp_path / "o", transform=kind, **settings)
    assert dry["bytes"]["before"] == plain["bytes"]["before"]
    assert dry["bytes"]["after"]["total"] == Checkpoint(tmp_path / "o").nbytes
    grew = dry["bytes"]["after"]["total"] - plain["bytes"]["after"]["total"]
    assert grew == dry["bytes"]["after"]["head"] > 0 == plain["bytes"]["after"]["head"]
    (note,) = [note for note in result["notes"] if note.startswith("the head is stored apart")]
    assert f"takes {grew:,} bytes more" in note and in_language(note, "ko").startswith("config.json은")
    # the original is what it was, and the folder says what it is
    manifest = json.loads((tmp_path / "o" / "whet.json").read_text())
    assert manifest["base_model"]["sha256"] == Checkpoint(tied).examine()
    assert result["sizes"]["original"] == size_on_disk(tied)
    assert Checkpoint(tied).config["tie_word_embeddings"] is True
    assert Checkpoint(tmp_path / "o").config["tie_word_embeddings"] is False
    trust = {} if result["container"] == "compressed-tensors" else {"trust_remote_code": True}
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "o", **trust).eval()
    assert torch.equal(outputs(stock, TOKENS), outputs(load_model(tmp_path / "o"), TOKENS))
    assert not torch.equal(stock.lm_head.weight, stock.model.embed_tokens.weight)


@torch.no_grad()
def test_what_stays_in_16_bits_is_turned_and_rounded_once(tied, tmp_path):
    made = transformed(decided(tied, "quarot"), tmp_path, ignore)
    names = ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight")
    types = {name: made.checkpoint.tensors[name].dtype for name in names}
    assert set(types.values()) == {torch.bfloat16}
    assert made.checkpoint.tensors["model.layers.0.mlp.down_proj.weight"].dtype == torch.float32
    table = Checkpoint(tied).read(names[0]).double()
    turned = made.checkpoint.read(names[0]).double()
    # lengths and angles stay but for the last bits of bfloat16
    assert (turned @ turned.t() - table @ table.t()).abs().max() < 2**-8 * (table @ table.t()).abs().max()
    assert (made.checkpoint.read(names[2]) == 1).all()
    assert made.notes[-1].endswith("nats per token") and "before any rounding, KL to the original is" in made.notes[-1]


@torch.no_grad()
def test_too_much_lost_in_16_bits_stops_with_what_to_do(tied, tmp_path, monkeypatch):
    monkeypatch.setattr(make, "_DEFECT", 1e-12)
    with pytest.raises(GateError, match=r"embedding and head stay in 16 bits. Round them too \(--embed"):
        compress(tied, tmp_path / "o", scheme="int3s-g32", transform="quarot", text=WINDOWS, eval_text=OTHERS)


@pytest.mark.parametrize("kind", ["quarot", "spinquant"])
def test_a_budget_counts_the_head_and_is_kept_to_the_byte(kind, tied, tmp_path, quick):
    settings = {"text": models.documents(40, 30), "samples": 8, "window": 32}
    result = compress(tied, tmp_path / "o", bits=9, transform=kind, **settings)
    assert "lm_head" in result["plan"]["schemes"]
    assert result["plan"]["predicted"]["bytes"] == Checkpoint(tmp_path / "o").nbytes
    # bits are of the original's parameters, among which the head is not
    assert 8 * Checkpoint(tmp_path / "o").nbytes <= 9 * Checkpoint(tied).nbytes / 2
    assert any("counts in the budget" in note for note in result["notes"])
    # its plan replays with the transform, and is refused by name without
    compress(tied, tmp_path / "q", plan=tmp_path / "o" / "plan.json", transform=kind, text=WINDOWS)
    with pytest.raises(UsageError, match=r"lm_head is tied to model.embed_tokens"):
        compress(tied, tmp_path / "r", plan=tmp_path / "o" / "plan.json", text=WINDOWS)


def test_a_plan_of_a_tied_head_is_refused_by_name(tied, tmp_path):
    parts = decided(tied, "awq").anatomy
    schemes = {linear.address: "int3s-g32" for linear in (*parts.linears(), parts.embedding)}
    plan = {"format": "whet.plan", "version": 1, "target": "transformers", "solver": "gptq", "schemes": schemes}
    with pytest.raises(UsageError, match=r"no scheme for lm_head. Give each one, or keep"):
        compress(tied, tmp_path / "o", plan=plan, transform="quarot", text=WINDOWS)
    schemes |= dict.fromkeys(schemes, "keep") | {"lm_head": "int8s-g32"}
    with pytest.raises(UsageError, match="quarot has nothing to help: no linear of the blocks is rounded"):
        compress(tied, tmp_path / "o", plan=plan, transform="quarot", text=WINDOWS)


def test_llama_cpp_reads_the_head_that_was_parted(tied, tmp_path, quick):
    settings = {"scheme": "Q8_0", "target": "llama.cpp", "folder": True, "text": WINDOWS, "eval_text": OTHERS}
    result = compress(tied, tmp_path / "o", transform="spinquant", **settings)
    assert "output.weight" in {tensor.name for tensor in gguf.GGUFReader(tmp_path / "o" / "model.gguf").tensors}
    assert result["check"]["gguf"]["architecture"] == "llama" and result["kl"] < 0.01


@torch.no_grad()
def test_a_stored_copy_of_a_tied_head_becomes_the_head(tied, tmp_path):
    """Files that hold a tied head once more, and those that do not, end in the same model."""
    shutil.copytree(tied, tmp_path / "copied")
    (file,) = (tmp_path / "copied").glob("*.safetensors")
    tensors = load_file(file)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, file, {"format": "pt"})
    logits = []
    for folder in (tied, tmp_path / "copied"):
        out = tmp_path / f"o-{folder.name}"
        result = compress(folder, out, scheme="int3s-g32", transform="quarot", text=WINDOWS, eval_text=OTHERS)
        assert any(note.startswith("the head is stored apart") for note in result["notes"])
        assert not any("left out" in note for note in result["notes"])
        logits.append(outputs(load_model(out), TOKENS))
    assert torch.equal(*logits)


def test_tensors_without_a_name_may_read_the_stream(tmp_path):
    original = models.make(tmp_path / "m")
    (file,) = original.glob("*.safetensors")
    save_file(load_file(file) | {"value_head.weight": torch.ones(1, 64)}, file, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"no table names value_head.weight, which may read it"):
        compress(original, tmp_path / "o", scheme="int3s-g32", transform="quarot", text=WINDOWS)


# -- refused, by name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "settings", "what"),
    [
        (
            "llama",
            {"transform": "awk"},
            r"'awk' is not known. Did you mean awq\? Transforms: smooth, awq, rotate, quarot, spinquant, auto",
        ),
        ("zaya", {"transform": "awq"}, r"no table of the family zaya.*where --transform awq folds in"),
        ("arcee", {"transform": "awq"}, r"folds into nothing of m.*whet has no table of what gives it"),
        (
            "llama",
            {"transform": "awq", "scheme": "fp8-tensor"},
            r"folds into nothing of m.*rows share scales in fp8-tensor",
        ),
        ("qwen2", {"transform": "rotate", "dtype": torch.bfloat16}, r"rotate folds into nothing.*16 bits do not hold"),
        (
            "gemma2",
            {"transform": "quarot"},
            r"quarot turns the residual stream, which the family Gemma 2 does not allow: norms weigh.*Take another",
        ),
        ("opt", {"transform": "spinquant"}, r"the family OPT does not allow: its LayerNorms take the mean"),
        ("gpt_neox", {"transform": "rotate"}, r"rotate folds into nothing of m. Leave it out.*alternate"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(family, settings, what, tmp_path):
    original = models.make(tmp_path / "m", family, dtype=settings.pop("dtype", torch.float32))
    with pytest.raises(UsageError, match=what):
        compress(original, tmp_path / "o", **{"scheme": "int3s-g32", "text": WINDOWS, **settings})
    assert not (tmp_path / "o").exists()


def test_without_text_only_a_rotation_is_folded_in(tmp_path):
    original = models.make(tmp_path / "m", "bert", architecture="AutoModelForMaskedLM")
    with pytest.raises(UsageError, match=r"Give --text FILE .* --solver nearest without --transform awq"):
        compress(original, tmp_path / "o", scheme="int4s-g32", solver="nearest", transform="awq")
    result = compress(original, tmp_path / "o", scheme="int4s-g32", solver="nearest", transform="rotate")
    assert {told["transform"] for told in result["transforms"].values()} == {"rotate"}


def test_an_activation_that_lets_factors_through_does(tmp_path):
    """OPT's is ReLU; with another the factors of the last linears are left out, by name."""
    original = models.make(tmp_path / "m", "opt", tied=True)
    assert not check_transform(decided(original, "awq")).notes
    models.edit_config(original, activation_function="gelu", do_layer_norm_before=False)
    job = check_transform(decided(original, "awq"))
    assert [note.partition("): ")[2] for note in job.notes] == [
        "the norm comes after, so what is read is the residual stream (do_layer_norm_before is false)",
        "the norm comes after, so what is read is the residual stream (do_layer_norm_before is false)",
        "gelu stands in between",
    ]
