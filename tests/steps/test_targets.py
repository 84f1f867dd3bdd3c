"""Stored targets: the teacher runs once, later runs need neither it nor the text; those of others are refused."""

from __future__ import annotations

import shutil

import pytest
import torch

import models
from killing import hashes
from whet import distill, prune
from whet.checkpoint import Checkpoint
from whet.errors import UsageError
from whet.steps.target_store import TargetStore

DOCUMENTS = models.documents(120, 30)
TEXT = {"text": DOCUMENTS, "window": 24, "samples": 60}
HOW = {"steps": 20, "batch": 96, "rate": 1e-3}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """An original, what pruning left of it, and what was drawn from the original."""
    folder = tmp_path_factory.mktemp("pair")
    original = models.make(folder / "original", "llama", blocks=3)
    prune(original, folder / "student", remove=0.3, units="channels", repair=False, importance="magnitude")
    distill(folder / "student", folder / "first", teacher=original, targets=folder / "targets", draws=64, **TEXT, **HOW)
    return folder


def test_it_comes_nearer_and_later_runs_need_neither_teacher_nor_text(tmp_path, pair):
    first = Checkpoint(pair / "first").whet
    trained = first["lineage"][-1]["training"]["held_out"]
    assert trained["helped"] and first["verify"]["kl"] < 0.95 * trained["start"]
    again = distill(pair / "student", tmp_path / "again", targets=pair / "targets", **HOW)
    mine, other = (Checkpoint(folder) for folder in (tmp_path / "again", pair / "first"))
    assert all(torch.equal(mine.read(name), other.read(name)) for name in mine.tensors)
    told = again["distillation"]
    assert told["teacher"] == "original" and told["draws"] == 64 and len(told["targets_sha256"]) == 64
    assert mine.whet["lineage"][-1]["distillation"]["sha256"] == first["lineage"][0]["model_sha256"]
    assert "targets" not in (tmp_path / "again" / "recipe.yaml").read_text()  # a place on this machine


def test_what_is_measured_is_what_the_teacher_itself_measures(tmp_path, pair):
    dense = distill(pair / "student", tmp_path / "dense", teacher=pair / "original", **TEXT, **HOW)
    stored = Checkpoint(pair / "first").whet["lineage"][-1]["training"]["held_out"]
    assert stored["start"] == pytest.approx(dense["training"]["held_out"]["start"], rel=0.1)
    assert stored["best"] == pytest.approx(dense["kl"], rel=0.15)


def test_stopped_while_it_draws_or_trains_it_ends_the_same(tmp_path, pair, monkeypatch):
    monkeypatch.setattr("whet.steps.draw_targets._PART", 200)
    asked = {"teacher": pair / "original", "targets": tmp_path / "targets", "draws": 64, **TEXT, **HOW}
    for stage, done in (("draw", 30), ("train", 7)):

        def stop(event, stage=stage, done=done):
            if event["event"] == "progress" and event["stage"] == stage and event["done"] >= done:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            distill(pair / "student", tmp_path / "out", on_event=stop, **asked)
        assert TargetStore(tmp_path / "targets").complete == (stage == "train")
    distill(pair / "student", tmp_path / "out", **asked)
    mine, other = (Checkpoint(folder) for folder in (tmp_path / "out", pair / "first"))
    assert all(torch.equal(mine.read(name), other.read(name)) for name in mine.tensors)
    assert (tmp_path / "targets" / "part-00003.safetensors").exists()


def test_what_the_teacher_writes_in_place_of_the_text_is_written_once(tmp_path, pair):
    asked = {"teacher": pair / "original", "targets": tmp_path / "targets", "rewrite": True, **TEXT, **HOW}
    stages = []

    def listen(event):
        if event["event"] == "progress":
            stages.append(event["stage"])

    made = [
        distill(pair / "student", tmp_path / name, on_event=listen, **asked | {"steps": 2}) for name in ("one", "two")
    ]
    assert made[0]["text"]["written"]["tokens"] >= 900 and made[0]["text"] == made[1]["text"]
    written = {tuple(row.tolist()) for row in TargetStore(tmp_path / "targets").windows()[0]}
    read = {tuple(row.tolist()) for row in TargetStore(pair / "targets").windows()[0]}
    assert not written & read and hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert stages.count("draw") and "write" not in stages[stages.index("finish") + 2 :]
    for options in ({"text": None}, {"synthetic": 96}):
        with pytest.raises(UsageError, match="in place of the text: give text with it"):
            distill(pair / "student", tmp_path / "out", **asked | options)


def test_what_was_drawn_of_another_teacher_text_or_tokenizer_is_refused_and_stays(tmp_path, pair):
    models.make(tmp_path / "other", "llama", blocks=3, seed=5)
    models.make(tmp_path / "words", "llama", blocks=3, seed=5)
    models.tokenizer(extra=3).save_pretrained(tmp_path / "words")
    (tmp_path / "file").write_text("x")
    shutil.copytree(pair / "targets", tmp_path / "broken")
    (tmp_path / "broken" / "part-00000.safetensors").unlink()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("x")
    before, student, original = hashes(pair / "targets"), pair / "student", pair / "original"
    for folder, options, words in [
        (student, {"teacher": tmp_path / "other"}, "drawn from the teacher original, and .*other is another"),
        (student, {"teacher": original, **TEXT, "text": DOCUMENTS[:50]}, "another text"),
        (student, {"teacher": original, **TEXT, "seed": 3}, "seed count too"),
        (tmp_path / "words", {}, "another tokenizer"),
        (student, {"draws": 7}, "drawn with draws 64, and 7"),
        (student, {"temperature": 2.0}, "drawn with temperature 1, and 2"),
        (student, {"loss": "js"}, "loss js needs the whole prediction"),
        (student, {"hidden": 1.0}, "hidden needs the teacher in memory"),
        (student, {"targets": tmp_path / "file"}, "is a file"),
        (student, {"targets": tmp_path / "full"}, "notes.txt and no targets"),
        (student, {"targets": tmp_path / "none"}, "No teacher was given"),
        (student, {"targets": tmp_path / "broken"}, "part-00000.safetensors .* is missing"),
        (student, {"targets": None, "draws": 3, "teacher": original}, "give targets with it"),
    ]:
        with pytest.raises(UsageError, match=words):
            distill(folder, tmp_path / "out", **{"targets": pair / "targets", **HOW, **options})
        assert not (tmp_path / "out").exists() and not (tmp_path / "none").exists()
    assert hashes(pair / "targets") == before
