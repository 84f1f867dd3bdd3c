"""`whet tune`, `whet merge` and `whet export` of an adapter on a terminal: figures, what to type next, refusals."""

import json

import pytest

import models
import whet


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(models.documents(60, 60, seed=3)), encoding="utf-8")
    return file


FEW = ("--steps", "4", "--batch", "256", "--window", "64", "--learning-rate", "0.003", "--device", "cpu")


def test_an_adapter_is_trained_merged_and_exported(command, tmp_path, text, monkeypatch):
    base, adapter = models.make(tmp_path / "m"), tmp_path / "adapter"
    asked = ("tune", base, adapter, "--lora", "4", "--text", text, *FEW)
    planned = command(*asked, "--dry-run")
    assert planned.code == 0 and "Nothing was written" in planned.out and not adapter.exists(), planned.err
    done = command(*asked)
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "lora 4 for 4 steps: held-out loss a token" in said and f"whet merge {base} {adapter} merged" in said
    done = command("merge", base, adapter, tmp_path / "merged", "--json")
    assert done.code == 0 and json.loads(done.out)["how"] == "weights", done.err
    done = command("export", adapter, "--out", tmp_path / "adapter.gguf")
    assert done.code == 0 and "llama-cli -m MODEL.gguf --lora" in " ".join(done.out.split()), done.err
    assert command("verify", adapter).code == 0
    assert "finished" in command("status", adapter).out
    monkeypatch.setenv("WHET_LANG", "ko")
    whet.compress(base, tmp_path / "coded", scheme="int4z-g32", solver="nearest", device="cpu")
    done = command("merge", tmp_path / "coded", adapter, tmp_path / "beside")
    assert done.code == 0 and "어댑터를 코드 옆에 두었습니다" in done.out and "코드 옆에 폴더의 일부로" in done.err


def test_wrong_input_is_one_paragraph_and_leaves_nothing(command, tmp_path, text):
    base, out = models.make(tmp_path / "m"), tmp_path / "out"
    for arguments, said in [
        (("--lora", "0"), "greater than or equal to 1"),
        (("--adapter", "dorra"), "Did you mean dora"),
        (("--targets", "gatee"), "Did you mean gate"),
        (("--rank", "4000"), "rank 4000 is more than"),
        (("--teacher", tmp_path / "nowhere"), "nowhere"),
        (("--stepz", "3"), "--steps"),
        (("--text", tmp_path / "none.txt"), "none.txt"),
    ]:
        done = command("tune", base, out, "--text", text, *FEW, *arguments)
        assert done.code == 2 and said in done.err and "Traceback" not in done.err, (arguments, done.err)
        assert not out.exists()
    done = command("merge", base, tmp_path / "none", out)
    assert done.code == 2 and "holds no adapter" in done.err


def test_interrupted_it_says_how_to_go_on(command, tmp_path, text, monkeypatch):
    import whet.train.loop as loop

    base, out = models.make(tmp_path / "m"), tmp_path / "out"
    step = loop._Run._step

    def stopped(run, given):
        if run.done == 2:
            raise KeyboardInterrupt
        return step(run, given)

    monkeypatch.setattr(loop._Run, "_step", stopped)
    done = command("tune", base, out, "--lora", "4", "--text", text, *FEW)
    assert done.code in (1, 130) and f"whet resume {out}" in done.err
    monkeypatch.setattr(loop._Run, "_step", step)
    done = command("resume", out)
    assert done.code == 0 and "held-out" in done.out, done.err
