"""A quantized student: trained through its grid, stored as it was trained to the bit, masked where it was masked."""

from __future__ import annotations

import random

import pytest
import torch

import models
from covering import some
from killing import Ticks, counted, hashes, killed
from whet import compress, distill, resume, run
from whet.checkpoint import Checkpoint, load_model
from whet.errors import UsageError
from whet.steps.coded import table_of

DOCUMENTS = models.documents(120, 30)
TEXT = {"text": DOCUMENTS, "window": 24, "samples": 60}
HOW = {**TEXT, "steps": 20, "batch": 96, "rate": 0.03}
# grids of every kind, and families whose parameters hold several linears, the other way round, or stacks of experts
CASES = [
    ("llama", "int2s-g16"), ("phi3", "int2z-g32"), ("qwen3", "int3s"), ("mixtral", "int2-g32"), ("llama", "seq2-g32"),
    ("gpt2", "int2s-g32"), ("llama", "NVFP4"), ("llama", "MXFP4"),
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An original and what rounding left of it."""
    found = {}

    def get(family="llama", scheme="int2s-g16", **more):
        key = (family, scheme, *sorted(more.items()))
        if key not in found:
            folder = tmp_path_factory.mktemp(family)
            original = models.make(folder / "original", family, dtype=torch.bfloat16, tied=family == "qwen3")
            table = {"embed": scheme} if family == "qwen3" else {}
            compress(original, folder / "student", scheme=scheme, **{"solver": "nearest", **table, **more})
            found[key] = original, folder / "student"
        return found[key]

    return get


def parts(folder, part):
    checkpoint = Checkpoint(folder)
    return {address: checkpoint.read(f"{address}.{part}") for address in table_of(checkpoint)}


@pytest.mark.parametrize("family,scheme", some(CASES, 3))
def test_it_comes_nearer_and_what_was_trained_is_what_is_loaded(tmp_path, made, family, scheme):
    original, student = made(family, scheme)
    result = distill(student, tmp_path / "out", teacher=original, **HOW)
    before, after = Checkpoint(student), Checkpoint(tmp_path / "out")
    # the same grid, the same bytes: nothing but values differs
    assert {n: (t.shape, t.dtype) for n, t in after.tensors.items()} == {
        n: (t.shape, t.dtype) for n, t in before.tensors.items()
    }
    assert result["check"]["before against after"] == 0.0  # logits of the student and of the folder, to the bit
    held_out = result["training"]["held_out"]
    assert held_out["helped"] and held_out["best"] < 0.97 * held_out["start"]
    assert result["kl"] == pytest.approx(held_out["best"], rel=0.1)
    assert after.config == before.config and after.whet["container"] == before.whet["container"]
    assert [one["step"] for one in after.whet["lineage"]] == ["quantize", "distill"]
    assert "Trained after rounding" in (tmp_path / "out" / "README.md").read_text()
    assert any("trained in float32" in str(note) for note in result["notes"])


def test_masks_stay_and_scales_alone_leave_the_codes(tmp_path, made):
    original, student = made(scheme="int3s-g16", sparsity="2:4", importance="magnitude")
    weights = load_model(student, torch.float32).state_dict()
    distill(student, tmp_path / "out", teacher=original, **HOW)
    for name, after in load_model(tmp_path / "out", torch.float32).state_dict().items():
        if name.endswith("_proj.weight"):
            assert (weights[name] == 0).float().mean() >= 0.5 and not after[weights[name] == 0].any()
    assert Checkpoint(tmp_path / "out").whet["masks"] == Checkpoint(student).whet["masks"]
    result = distill(student, tmp_path / "scales", teacher=original, learn="scales", **HOW)
    codes, scales = parts(tmp_path / "scales", "weight_packed"), parts(tmp_path / "scales", "weight_scale")
    assert all(torch.equal(codes[a], one) for a, one in parts(student, "weight_packed").items())
    assert not all(torch.equal(scales[a], one) for a, one in parts(student, "weight_scale").items())
    norms = "model.norm.weight"
    assert torch.equal(Checkpoint(student).read(norms), Checkpoint(tmp_path / "scales").read(norms))
    assert result["distillation"]["rounded"] == "scales"


def test_a_recipe_rounds_and_trains_what_it_rounded(tmp_path, made):
    original, _ = made()
    steps = [
        {"quantize": {"scheme": "int2s-g16", "solver": "nearest", "window": 24}},
        {"distill": {"steps": 6, "batch": 96, "window": 24, "scales": "lsq"}},
    ]
    result = run({"version": 1, "model": str(original), "out": str(tmp_path / "out"), "steps": steps}, text=DOCUMENTS)
    assert result["kept"] == ["1 quantize", "2 distill"]
    lineage = Checkpoint(tmp_path / "out").whet["lineage"]
    assert lineage[1]["distillation"]["sha256"] == lineage[0]["model_sha256"] and not Checkpoint(tmp_path / "out").dense


def test_what_cannot_be_is_told_before_anything_is_done(tmp_path, made):
    original, student = made()
    for folder, how, said in (
        (student, {"learn": "scale"}, "learn 'scale' is not known. Did you mean scales"),
        (student, {"scales": "lqs"}, "scales 'lqs' is not known. Did you mean lsq"),
        (original, {"learn": "scales"}, "learn is of a quantized student"),
    ):
        with pytest.raises(UsageError, match=said):
            distill(folder, tmp_path / "out", teacher=original, **how, **HOW)
    needs = distill(student, tmp_path / "out", teacher=original, dry_run=True, **HOW)
    assert needs["memory"] > 0 and any("latent weights" in str(note) for note in needs["notes"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", some(range(4), 2))
def test_killed_and_resumed_the_bytes_are_the_same(tmp_path, made, part):
    original, student = made()

    def work(out):
        distill(student, out, teacher=original, **{**HOW, "steps": 6})

    moments = counted(lambda: work(tmp_path / "undisturbed"))
    at = int(moments * (part + random.Random(part).random()) / 4) + 1
    out = tmp_path / "out"
    killed(lambda: work(out), lambda: Ticks(at))
    resume(out) if (out / ".whet" / "request.json").exists() else work(out)
    assert hashes(out) == hashes(tmp_path / "undisturbed")
