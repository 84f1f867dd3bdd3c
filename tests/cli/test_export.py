"""`whet export` and what else the command line does with .gguf files."""

from __future__ import annotations

import json

import pytest

import models
import whet
from whet.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("cli") / "tiny")


def run(*arguments):
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return left.value.code


def test_export_says_what_it_wrote_and_how_to_run_it(folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("llama_cpp")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WHET_LANG", "en")
    assert run("export", folder, "--to", "gguf", "--type", "f16") == 0
    shown = capsys.readouterr().out
    assert "16 × F16" in shown and "llama.cpp loads it" in shown and "whet generate tiny-f16.gguf" in shown
    assert run("generate", "tiny-f16.gguf", "ab cd", "--max-new-tokens", "4") == 0
    assert capsys.readouterr().out.strip() == "ab cd" + whet.generate(folder, "ab cd", max_new_tokens=4)
    assert run("export", folder, "--type", "f16") == 2
    assert "is there already" in capsys.readouterr().err


def test_export_answers_in_json_and_korean(folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("llama_cpp")
    monkeypatch.setenv("WHET_LANG", "ko")
    assert run("export", folder, "--out", tmp_path / "a.gguf") == 0
    assert "llama.cpp가 불러옵니다" in capsys.readouterr().out
    assert run("export", folder, "--out", tmp_path / "b.gguf", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == "whet.export" and told["bytes"]["planned"] == told["bytes"]["tensors"]


def test_compress_writes_the_file_and_says_so(folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("llama_cpp")
    monkeypatch.setenv("WHET_LANG", "en")
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(models.documents(40)), encoding="utf-8")
    options = ("--for", "llama.cpp", "--scheme", "Q5_0", "--text", text, "--samples", "4", "--window", "32")
    assert run("compress", folder, tmp_path / "out", *options) == 0
    shown = capsys.readouterr().out.replace("\n", "")  # a terminal's lines break paths
    assert "14 × Q5_0" in shown and "llama.cpp loads it" in shown and "/out --text" in shown
    assert (tmp_path / "out" / "model.gguf").is_file()


def test_a_damaged_file_is_one_sentence(tmp_path, capsys):
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + b"\xff" * 40)
    assert run("generate", tmp_path / "x.gguf", "a") == 2
    error = capsys.readouterr().err
    assert "is not a whole .gguf file" in error and error.count("\n") == 1
