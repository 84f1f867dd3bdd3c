"""`whet prune` on a terminal: what went, what stays, and for tokens how much longer texts become."""

from __future__ import annotations

import json

import pytest

import models
from whet import cli


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["prune", *map(str, arguments)])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_it_tells_what_went_and_what_stays(capsys, tmp_path, monkeypatch):
    model = models.make(tmp_path / "m", "llama", blocks=3)
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(models.documents(40, 20)))
    asked = (model, tmp_path / "out", "--remove", "20%", "--units", "channels", "--text", text, "--window", "20")
    code, out, err = run(capsys, *asked, "--dry-run")
    assert code == 0 and not (tmp_path / "out").exists() and "Nothing was written" in out, err
    code, out, err = run(capsys, *asked)
    assert code == 0, err
    assert "19.9 % of the blocks' parameters went. What stays: 3 blocks, 64 channels a block." in " ".join(out.split())
    code, out, _ = run(capsys, model, tmp_path / "j", *asked[2:], "--json")
    assert code == 0 and json.loads(out)["amounts"]["channels"] == 64
    monkeypatch.setenv("WHET_LANG", "ko")
    code, out, _ = run(capsys, model, tmp_path / "ko", *asked[2:])
    assert code == 0 and "블록마다 채널 64개" in out


def test_of_tokens_it_tells_what_texts_become(capsys, tmp_path):
    code, out, err = run(capsys, "starter", tmp_path / "out", "--keep-languages", "ko", "--dry-run")
    assert code == 0, err
    assert "of 4096 tokens stay" in out and "How many tokens texts become" in out
    code, _, err = run(capsys, "starter", tmp_path / "out")
    assert code == 2 and "Say what goes" in err
