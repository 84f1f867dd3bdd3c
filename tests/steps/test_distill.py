"""The step `distill`: the student comes nearer to its teacher, keeps its shape, and a stopped run ends the same."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch

import models
from covering import some
from killing import Ticks, counted, hashes, killed
from whet import compress, distill, masks, prune, resume, run
from whet.checkpoint import Checkpoint, load_model, load_tokenizer
from whet.errors import UsageError

DOCUMENTS = models.documents(120, 30)
TEXT = {"text": DOCUMENTS, "window": 24, "samples": 60}
HOW = {**TEXT, "steps": 30, "batch": 96, "rate": 1e-3}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """An original of a family, and what pruning left of it."""
    made = {}

    def get(family="llama", **more):
        key = (family, *sorted(more.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp(family)
            original = models.make(folder / "original", family, blocks=3, **more)
            prune(original, folder / "student", remove=0.3, units="channels", repair=False, importance="magnitude")
            made[key] = original, folder / "student"
        return made[key]

    return get


def kl(original, other):
    """Of all predictions on text that was not trained on."""
    ids = torch.tensor([load_tokenizer(original)(text)["input_ids"][:24] for text in models.documents(20, 30, seed=9)])
    with torch.no_grad():
        p, q = (load_model(folder, torch.float32)(ids).logits.log_softmax(-1) for folder in (original, other))
    return (p.exp() * (p - q)).sum(-1).mean().item()


# families whose tensors files hold otherwise than models do, or whose logits are bent, and those that tie their tables
FAMILIES = ["llama", "phi3", "gemma2", "granite", "mixtral", "falcon", "qwen3"]


@pytest.mark.parametrize("family", some(FAMILIES, 4))
def test_it_comes_nearer_and_keeps_names_shapes_and_types(tmp_path, pair, family):
    if family in ("falcon", "mixtral"):  # no row of channels; experts are stored otherwise than they are held
        original = models.make(tmp_path / "original", family, seed=1, dtype=torch.bfloat16)
        student = models.make(tmp_path / "student", family, seed=2, dtype=torch.bfloat16, shards=True)
    else:
        original, student = pair(family, tied=family == "qwen3", dtype=torch.bfloat16)
    result = distill(student, tmp_path / "out", teacher=original, **HOW)
    before, after = Checkpoint(student), Checkpoint(tmp_path / "out")
    assert {n: (t.shape, t.dtype) for n, t in after.tensors.items()} == {
        n: (t.shape, t.dtype) for n, t in before.tensors.items()
    }
    held_out = result["training"]["held_out"]
    assert held_out["helped"] and result["kl"] < 0.9 * held_out["start"]
    assert kl(original, tmp_path / "out") < 0.95 * kl(original, student)
    assert result["check"]["before against after"] < 1e-4
    manifest = after.whet
    assert manifest["lineage"][-1]["distillation"]["teacher"] == "original" and after.config == before.config
    assert [one["step"] for one in manifest["lineage"]][-1] == "distill"
    assert "distilled by whet" in (tmp_path / "out" / "README.md").read_text()


def test_a_recipe_prunes_and_learns_from_the_original_it_began_with(tmp_path, pair):
    original, _ = pair()
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(DOCUMENTS))
    steps = [
        {"prune": {"remove": 0.3, "units": "channels", "window": 24}},
        {"distill": {"steps": 20, "batch": 96, "rate": 2e-3, "window": 24, "loss": "js", "mix": 0.3}},
        {"quantize": {"scheme": "W8A16", "window": 24}},
    ]
    recipe = {"version": 1, "model": str(original), "out": str(tmp_path / "out"), "steps": steps}
    made = run(recipe, text=str(text))
    assert made["verdict"] == "pass" and made["kept"] == ["1 prune", "2 distill", "3 quantize"]
    lineage = Checkpoint(tmp_path / "out").whet["lineage"]
    assert [one["step"] for one in lineage] == ["prune", "distill", "quantize"]
    assert lineage[1]["distillation"]["sha256"] == lineage[0]["model_sha256"]


def test_without_text_the_teacher_writes_it(tmp_path, pair):
    original, student = pair()
    result = distill(student, tmp_path / "out", teacher=original, window=16, samples=12, steps=3, batch=64)
    assert result["text"]["source"] == "written by the model itself"
    made = distill(student, tmp_path / "more", teacher=original, synthetic=96, **{**HOW, "steps": 3})
    assert made["text"]["written"]["tokens"] >= 96


def test_minutes_become_steps_that_are_written_down(tmp_path, pair):
    original, student = pair()
    made = distill(student, tmp_path / "out", teacher=original, minutes=0.02, **TEXT, batch=96)
    recipe = (tmp_path / "out" / "recipe.yaml").read_text()
    assert f"steps: {made['training']['steps']}\n" in recipe and "minutes" not in recipe and "teacher" not in recipe


def test_where_nothing_better_than_chance_was_found_the_weights_stay(tmp_path, pair):
    original, student = pair()
    made = distill(student, tmp_path / "out", teacher=original, **{**HOW, "steps": 2, "rate": 1.0})
    assert any("did not help" in str(note) for note in made["notes"])
    stored = Checkpoint(student)
    assert all(torch.equal(stored.read(n), Checkpoint(tmp_path / "out").read(n)) for n in stored.tensors)


def test_tokens_at_once_change_nothing_but_memory(tmp_path, pair):
    original, student = pair()
    found = [
        distill(student, tmp_path / str(at), teacher=original, at_once=at, **{**HOW, "steps": 6}) for at in (96, 24)
    ]
    assert found[0]["kl"] == pytest.approx(found[1]["kl"], rel=1e-3)


# -- stopped and gone on with ---------------------------------------------------------------------------------------


def work(pair, out):
    original, student = pair
    distill(student, out, teacher=original, **{**HOW, "steps": 12})


@pytest.fixture(scope="module")
def undisturbed(pair, tmp_path_factory):
    given, out = pair(), tmp_path_factory.mktemp("undisturbed") / "out"  # made here, so that its moments do not count
    moments = counted(lambda: work(given, out))
    return hashes(out), moments


@pytest.mark.parametrize("part", some(range(8), 3))
def test_killed_and_resumed_the_bytes_are_the_same(tmp_path, pair, undisturbed, part):
    expected, count = undisturbed
    at = int(count * (part + random.Random(part).random()) / 8) + 1
    out = tmp_path / "out"
    killed(lambda: work(pair(), out), lambda: Ticks(at))
    if (out / ".whet" / "request.json").exists():
        resume(out)
    elif not (out / "whet.json").exists():
        work(pair(), out)
    assert hashes(out) == expected


def test_stopped_while_it_trains_it_goes_on_by_the_same_call(tmp_path, pair, undisturbed):
    def stop(event):
        if event["event"] == "progress" and event["stage"] == "train" and event["done"] == 7:
            raise KeyboardInterrupt

    original, student = pair()
    how = {**HOW, "steps": 12}
    with pytest.raises(KeyboardInterrupt):
        distill(student, tmp_path / "out", teacher=original, on_event=stop, **how)
    lines = (tmp_path / "out" / ".whet" / "training" / "metrics.jsonl").read_text().splitlines()
    assert max(json.loads(line)["step"] for line in lines) == 7
    with pytest.raises(UsageError, match="cannot go on"):
        distill(student, tmp_path / "out", teacher=original, **{**how, "rate": 2e-3})
    distill(student, tmp_path / "out", teacher=original, **how)
    assert hashes(tmp_path / "out") == undisturbed[0]


# -- refused before anything is done --------------------------------------------------------------------------------

REFUSED = [
    ({"teacher": None}, ["No teacher was given", "--teacher"]),
    ({"loss": "revers"}, ["revers", "Did you mean reverse?"]),
    ({"schedule": "cosin"}, ["cosin", "Did you mean cosine?"]),
    ({"mix": 0.5}, ["forward has no parameter", "js, skewed"]),
    ({"minutes": 1.0}, ["steps and minutes were given"]),
    ({"at_once": 4096}, ["at-once is 4096", "a step has 96"]),
    ({"temperature": 0.0}, ["temperature"]),
    ({"los": "js"}, ["los", "Did you mean loss?"]),
]


def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path, pair):
    original, student = pair()
    for options, words in REFUSED:
        with pytest.raises(UsageError) as refusal:
            distill(student, tmp_path / "out", **{"teacher": original, **HOW, **options})
        assert all(word in str(refusal.value) for word in words), (options, str(refusal.value))
        assert not (tmp_path / "out").exists()


def test_students_that_cannot_learn_are_refused_with_what_to_do(tmp_path, pair):
    original, student = pair()
    compress(student, tmp_path / "rounded", scheme="W8A16", solver="nearest")
    (tmp_path / "rounded" / "whet.json").unlink()
    compress(student, tmp_path / "inputs", scheme="W8A8", solver="nearest")
    masks(student, tmp_path / "masked", pattern="2:4", importance="magnitude")
    models.make(tmp_path / "other", "llama")
    models.tokenizer(extra=3).save_pretrained(tmp_path / "other")
    bert = models.make(tmp_path / "bert", "bert", architecture="AutoModelForMaskedLM")
    for folder, words in [
        (tmp_path / "rounded", "quantized by another tool"),
        (tmp_path / "inputs", "rounds the inputs of its linears too"),
        (tmp_path / "masked", "Train first"),
        (tmp_path / "other", "different tokenizers"),
        (bert, "predicts no next token"),
        (original, "both the student and the teacher"),
    ]:
        with pytest.raises(UsageError, match=words):
            distill(folder, tmp_path / "out", teacher=original, **HOW)
        assert not (tmp_path / "out").exists()


def test_another_teacher_than_the_original_is_told(tmp_path, pair):
    original, student = pair()
    shutil.copytree(original, tmp_path / "other")
    models.make(tmp_path / "other", "llama", blocks=3, seed=5)
    made = distill(student, tmp_path / "out", teacher=tmp_path / "other", **{**HOW, "steps": 2})
    assert any("is not the original" in str(note) for note in made["notes"])


def test_a_dry_run_says_what_it_takes(tmp_path, pair):
    original, student = pair()
    needs = distill(student, tmp_path / "out", teacher=original, dry_run=True, **HOW)
    assert not (tmp_path / "out").exists() and needs["seconds"] > 0 and needs["memory"] > 0
