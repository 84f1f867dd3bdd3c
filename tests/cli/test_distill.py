"""`whet distill` on a terminal: what it lost before and now, and what is wrong in a sentence."""

from __future__ import annotations

import json

import models
from whet import prune


def test_it_tells_what_was_lost_before_and_now(command, tmp_path, monkeypatch):
    original = models.make(tmp_path / "original", "llama", blocks=3)
    prune(original, tmp_path / "student", remove=0.3, units="channels", repair=False, importance="magnitude")
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(models.documents(60, 30)))
    how = ("--text", text, "--window", "24", "--batch", "96", "--rate", "0.001", "--steps", "20")
    asked = ("distill", tmp_path / "student", tmp_path / "out", "--teacher", original, *how)
    ended = command(*asked, "--dry-run")
    assert ended.code == 0 and "Nothing was written" in ended.out and not (tmp_path / "out").exists(), ended.err
    ended = command(*asked)
    said = " ".join(ended.out.split())
    assert ended.code == 0 and "Trained for 20 steps. KL to the teacher on held-out text:" in said, ended.err
    ended = command("distill", tmp_path / "student", tmp_path / "json", *asked[3:], "--json")
    assert ended.code == 0 and json.loads(ended.out)["training"]["steps"] == 20


def test_what_is_wrong_is_told_before_anything_is_read(command, tmp_path):
    student = models.make(tmp_path / "student", "llama")
    for given, words in [
        ((student, tmp_path / "out"), "No teacher was given"),
        ((student, tmp_path / "out", "--teacher", tmp_path / "studnt"), "Did you mean student?"),
        ((student, tmp_path / "out", "--teacher", student), "both the student and the teacher"),
        ((student, tmp_path / "out", "--teachr", student), "--teacher"),
        ((tmp_path / "nothing", tmp_path / "out", "--teacher", student), "does not exist"),
        ((student, student, "--teacher", student), "student"),
    ]:
        ended = command("distill", *given)
        assert ended.code == 2 and words in " ".join(ended.err.split()), (given, ended.err)
        assert not (tmp_path / "out").exists()
