"""`whet heal` on a terminal: figures, exit codes, and what is wrong in a sentence."""

from __future__ import annotations

import json

import pytest

import models
import whet
from whet.cli.heal import EXIT_CODES
from whet.messages import Message


@pytest.fixture
def folder(tmp_path):
    return models.make(tmp_path / "lighter")


@pytest.fixture
def questions(tmp_path):
    file = tmp_path / "questions.jsonl"
    items = [{"skill": "sums", "prompt": f"{i} + 1 =", "answer": str(i + 1), "check": "number"} for i in range(40)]
    file.write_text("".join(json.dumps(item) + "\n" for item in items))
    return file


@pytest.mark.parametrize("outcome", EXIT_CODES)
def test_the_outcome_is_told_and_is_the_exit_code(command, folder, questions, tmp_path, monkeypatch, outcome):
    figures = {"before": {"value": 0.9, "interval": [0.85, 0.95]}, "after": {"value": 0.99, "interval": [0.97, 1.01]}}
    entry = {"skill": "sums", "practised": True, **figures, "change": {"value": 0.09, "interval": [0.04, 0.14]}}
    told = {"outcome": outcome, "reason": Message("no skill is hurt"), "skills": [entry], "notes": []}
    result = {"out": str(tmp_path / "out"), **told, "problems": {"sums": {"problems": 50, "failed": 7}}}
    monkeypatch.setattr(whet, "heal", lambda *_, **__: result, raising=False)
    ended = command("heal", folder, tmp_path / "out", "--original", folder, "--skills", questions)
    said = " ".join(ended.out.split())
    assert ended.code == EXIT_CODES[outcome] and "no skill is hurt" in said, ended.err
    # a narrow terminal breaks a cell of the table
    assert "99.0 % (97.0 –" in said and "101.0)" in said and "50 problems" in said and "sums (practised)" in said


def test_what_is_wrong_is_told_before_anything_is_read(command, folder, questions, tmp_path):
    out = tmp_path / "out"
    for given, words in [
        ((), "No original was given"),
        (("--original", folder), "No questions were given"),
        (("--original", tmp_path / "lightr"), "Did you mean lighter?"),
        (("--original", folder, "--skills", questions, "--skill", "sum"), "Did you mean sums"),
        (("--original", folder, "--skills", tmp_path / "question.jsonl"), "question.jsonl"),
        (("--original", folder, "--skills", questions, "--how", "scale"), "Did you mean scales"),
        (("--original", folder, "--skills", questions, "--how", "scales"), "has no scales to train"),
        (("--orignal", folder), "--original"),
    ]:
        ended = command("heal", folder, out, *given)
        assert ended.code == 2 and words in " ".join(ended.err.split()), (given, ended.err)
        assert not out.exists()
