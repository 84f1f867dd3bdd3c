"""`whet dynamic` and what `whet generate` makes of its folders on a terminal: figures, what to type next, refusals."""

import json

import pytest

import models

FEW = ("--steps", "3", "--batch", "128", "--window", "32", "--device", "cpu")


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(models.documents(60, 60, seed=3)), encoding="utf-8")
    return file


def test_a_folder_is_made_and_used(command, tmp_path, text, monkeypatch):
    base, out = models.make(tmp_path / "m"), tmp_path / "out"
    asked = ("dynamic", base, out, "--active", "50%", "--text", text, *FEW)
    planned = command(*asked, "--dry-run")
    assert planned.code == 0 and "Nothing was written" in planned.out and not out.exists(), planned.err
    done = command(*asked)
    said = " ".join(done.out.split())
    assert done.code == 0 and "50 % of the channels" in said and f"whet generate {out} PROMPT --active 50%" in said
    used = command("generate", out, "ab cd", "--active", "50%", "--max-new-tokens", "4", "--json")
    assert used.code == 0, used.err
    found = json.loads(used.out)["dynamic"]
    assert found["channels"] == found["of"] // 2 and found["bytes"] < found["stored"]
    monkeypatch.setenv("WHET_LANG", "ko")
    used = command("generate", out, "ab cd", "--active", "50%", "--task", "the", "--max-new-tokens", "4")
    assert used.code == 0 and "블록의 채널" in used.out + used.err, used.err


def test_wrong_input_is_one_paragraph_and_leaves_nothing(command, tmp_path, text):
    base, out = models.make(tmp_path / "m"), tmp_path / "out"
    for arguments, said in [
        ((), "Say what is decided"),
        (("--active", "half"), "half is no share"),
        (("--active", "50%", "--agreement", "98%"), "give one"),
        (("--agreement", "98%", "--exits", "9"), "from 1 to"),
        (("--active", "50%", "--for", "llama.cpp"), "llama.cpp runs the whole model"),
        (("--activ", "50%"), "--active"),
        (("--active", "50%", "--text", tmp_path / "none.txt"), "none.txt"),
    ]:
        done = command("dynamic", base, out, "--text", text, *FEW, *arguments)
        assert done.code == 2 and said in done.err and "Traceback" not in done.err, (arguments, done.err)
        assert not out.exists()
    done = command("generate", base, "ab", "--early-exit")
    assert done.code == 2 and "--agreement 98%" in done.err
    done = command("generate", base, "ab", "--task", "ab")
    assert done.code == 2 and "Give active too" in done.err
