"""The laws of the whole command line on a tiny model: folder in, folder out, JSON alone on stdout, and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import models
from whet import starter
from wording import each

SMALL = ("--samples", 8, "--window", 64, "--scheme", "int8s-g32")

# Runs the command line and presses Ctrl-C when the first part is done, as in a terminal: what a shell starts in the
# background is told to ignore it.
INTERRUPTED = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from whet.cli import main
from whet.cli.console import Console

shown = Console._progress

def press(console, event):
    shown(console, event)
    if event["stage"] == "compress":
        os.kill(os.getpid(), signal.SIGINT)

Console._progress = press
main()
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.make(tmp_path_factory.mktemp("model") / "original")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "text.jsonl"
    file.write_text("".join(json.dumps({"text": d}, ensure_ascii=False) + "\n" for d in models.documents(60)))
    return file


@pytest.fixture
def skills(tmp_path: Path) -> Path:
    file = tmp_path / "skills.jsonl"
    items = [{"skill": "echo", "prompt": f"ab {i}", "choices": [" cd", " e."], "label": i % 2} for i in range(8)]
    file.write_text("".join(json.dumps(item) + "\n" for item in items))
    return file


@pytest.fixture(scope="module")
def lighter(original: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import whet

    out = tmp_path_factory.mktemp("lighter") / "lighter"
    whet.compress(original, out, scheme="int8s-g32", text=str(text), samples=8, window=64)
    return out


def test_compress_tells_sizes_loading_and_what_to_do_next(
    command: Callable, original: Path, text: Path, tmp_path: Path
) -> None:
    ended = command("compress", original, tmp_path / "out", "--text", text, *SMALL)
    assert ended.code == 0, ended.err
    assert "linears" in ended.out and "transformers" in ended.out and "whet compare" in ended.out
    assert "compressing" in ended.err


def test_dry_run_writes_nothing(command: Callable, original: Path, text: Path, tmp_path: Path) -> None:
    ended = command("compress", original, tmp_path / "out", "--text", text, *SMALL, "--dry-run", "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert told["bytes"]["after"]["total"] < told["bytes"]["before"]["total"]
    assert {"memory", "disk", "seconds"} <= set(told) and not (tmp_path / "out").exists()
    assert "memory" in command("compress", original, tmp_path / "out", "--text", text, *SMALL, "--dry-run").out


@each(
    "option, wrong, right",
    [
        ("--scheme", "W4A61", "W4A16"),
        ("--embed", "int4g32", "int4-g32"),
        ("--solver", "gtpq", "gptq"),
        ("--for", "transformer", "transformers"),
        ("--text", "text.jsonnl", "text.jsonl"),
        ("--device", "gpu", "cuda"),
    ],
)
def test_a_mistyped_value_of_compress_is_answered_with_the_right_one(
    command: Callable, original: Path, text: Path, tmp_path: Path, option: str, wrong: str, right: str
) -> None:
    wrong = str(text.parent / wrong) if option == "--text" else wrong
    ended = command("compress", original, tmp_path / "out", "--text", text, *SMALL, option, wrong)
    assert ended.code == 2 and ended.out == "" and len(ended.err.splitlines()) == 1
    assert wrong in ended.err and right in ended.err and not (tmp_path / "out").exists()


def test_a_mistyped_limit_is_answered_with_the_right_one(command: Callable, original: Path, text: Path) -> None:
    ended = command("compare", original, original, "--text", text, "--limit", "max_lk=0.1")
    assert ended.code == 2 and "Did you mean max_kl?" in ended.err and len(ended.err.splitlines()) == 1


@each(
    "arguments",
    [
        ("compress", "nowhere", "out", "--text", "text.txt"),
        ("compare", "nowhere", "nowhere", "--text", "text.txt"),
        ("generate", "nowhere", "Once"),
        ("resume", "nowhere"),
    ],
)
def test_a_wrong_path_is_named(
    command: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = command(*arguments)
    assert ended.code == 2 and ended.out == "" and len(ended.err.splitlines()) == 1
    assert "nowhere" in ended.err and not list(tmp_path.iterdir())


def test_verdicts_are_exit_codes(command: Callable, original: Path, lighter: Path, text: Path, skills: Path) -> None:
    small = ("--text", text, "--skills", skills, "--windows", 16, "--window", 64, "--no-speed", "--json")
    same = command("compare", original, original, *small)
    assert same.code == 0, same.err
    assert json.loads(same.out)["verdict"] == "pass"
    broken = command("compare", original, lighter, *small, "--limit", "min_shrink=1000")
    assert broken.code == 5 and json.loads(broken.out)["verdict"] == "fail"
    kl = json.loads(broken.out)["divergence"]["kl"]
    unsure = [f"max_kl={kl['mean']!r}", "min_top1=off", "max_ppl_ratio=off", "min_retention=off"]
    open_end = command("compare", original, lighter, *small, *(x for limit in unsure for x in ("--limit", limit)))
    assert open_end.code == 4 and json.loads(open_end.out)["verdict"] == "inconclusive"


@pytest.mark.usefixtures("no_process")
def test_compare_prints_tables_in_both_languages(
    command: Callable, monkeypatch: pytest.MonkeyPatch, original: Path, lighter: Path, text: Path, skills: Path
) -> None:
    small = ("--text", text, "--skills", skills, "--windows", 16, "--window", 64)
    english = command("compare", original, lighter, *small)
    assert "Skill by skill" in english.out and "echo" in english.out and "peak memory" in english.out
    monkeypatch.setenv("WHET_LANG", "ko")
    korean = command("compare", original, lighter, *small, "--no-speed")
    assert "능력별" in korean.out and "판정" in korean.out and "최대 메모리" not in korean.out
    assert korean.code == english.code


def test_dry_run_of_compare_opens_no_model(command: Callable, original: Path, lighter: Path, text: Path) -> None:
    ended = command("compare", original, lighter, "--text", text, "--window", 64, "--dry-run", "--json")
    assert ended.code == 0 and {"memory", "disk", "seconds"} <= set(json.loads(ended.out)), ended.err
    assert "memory" in command("compare", original, lighter, "--text", text, "--window", 64, "--dry-run").out


def test_generate_goes_on_with_either(command: Callable, original: Path, lighter: Path) -> None:
    for folder in (original, lighter):
        ended = command("generate", folder, "ab", "--max-new-tokens", 5, "--json")
        assert ended.code == 0 and set(json.loads(ended.out)) >= {"prompt", "text"}, ended.err


def test_interrupted_it_says_how_to_go_on_and_resume_ends_with_the_same_bytes(
    command: Callable, original: Path, lighter: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    environment = {**os.environ, "WHET_LANG": "en"}
    arguments = ["compress", original, out, "--text", text, *SMALL]
    stopped = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    assert stopped.returncode == 130 and stopped.stdout == ""
    assert stopped.stderr.splitlines()[-1] == f"Stopped. Go on with: whet resume {out}"
    resumed = command("resume", out, "--json")
    assert resumed.code == 0, resumed.err
    assert json.loads(resumed.out)["out"] == str(out)
    weights = [name for name in models.contents(lighter) if name.endswith(".safetensors")]
    assert weights and all(models.contents(out)[name] == models.contents(lighter)[name] for name in weights)


def test_the_embedded_model_brings_its_own_text(command: Callable, tmp_path: Path) -> None:
    ended = command("compress", "starter", tmp_path / "out", "--dry-run", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["text"]["windows"] == 128


def test_the_embedded_model_is_known_by_its_tokenizer(tmp_path: Path, original: Path) -> None:
    from whet.cli.starter import is_starter

    (tmp_path / "tokenizer.json").write_bytes((starter.path() / "tokenizer.json").read_bytes())
    assert is_starter(tmp_path) and not is_starter(original) and not is_starter(tmp_path / "nowhere")


def test_inspect_shows_the_parts_and_writes_scores_and_page(
    command: Callable, original: Path, text: Path, skills: Path, tmp_path: Path
) -> None:
    wanted = ("--out", tmp_path / "scores.json", "--report", tmp_path / "page.html")
    ended = command("inspect", original, "--text", text, "--skills", skills, "--samples", 8, "--window", 64, *wanted)
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["format"] == "whet.scores"
    # every row of every table, by its first columns
    lines = ended.out.splitlines()
    rows = [line.split() for line in lines]
    shown = [[role["role"], f"{role['parameters']:,}"] for role in found["roles"]]
    shown += [[str(block["index"]), f"{block['influence']:.3f}"] for block in found["blocks"]]
    worth = [block["skills"]["echo"] for block in found["blocks"]]
    shown += [["echo", *(word for one in worth for word in (f"{100 * one / sum(worth):.0f}", "%"))]]
    assert len(shown) > 4 + 4 and found["points"]
    assert [row for row in shown if row not in [whole[: len(row)] for whole in rows]] == []
    for point in found["points"]:
        assert any(line.strip().startswith(point["plan"]) and f"{point['bits']:.2f}" in line for line in lines)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and "Which block carries what" in page and "echo" in page


def test_plan_writes_what_compress_replays(command: Callable, original: Path, text: Path, tmp_path: Path) -> None:
    sizes = ("--samples", 8, "--window", 64)
    ended = command("plan", original, tmp_path / "plan.json", "--bits", 7, "--for", "whet", "--text", text, *sizes)
    assert ended.code == 0, ended.err
    assert "this plan" in ended.out and "--plan" in ended.out
    made = command(
        "compress", original, tmp_path / "out", "--plan", tmp_path / "plan.json", "--text", text, *sizes, "--json"
    )
    assert made.code == 0, made.err
    assert json.loads(made.out)["plan"]["predicted"]["bits"] <= 7


@each("budget", [(), ("--bits", 4, "--quality", 0.9), ("--fit", "many")])
def test_plan_wants_one_budget(
    command: Callable, original: Path, text: Path, tmp_path: Path, budget: tuple[object, ...]
) -> None:
    ended = command("plan", original, tmp_path / "plan.json", "--text", text, "--samples", 8, "--window", 64, *budget)
    assert ended.code == 2 and not (tmp_path / "plan.json").exists()


def test_compress_to_a_budget_and_a_page_of_it(
    command: Callable, original: Path, text: Path, skills: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    budget = ("--fit", "45%", "--for", "whet", "--skills", skills, "--samples", 8, "--window", 64)
    ended = command("compress", original, out, "--text", text, *budget)
    assert ended.code == 0, ended.err
    assert "round 1" in ended.err and (out / "report.html").is_file()
    page = tmp_path / "page.html"
    shown = command("compare", original, out, "--text", text, "--window", 64, "--no-speed", "--report", page)
    assert shown.code in (0, 4, 5), shown.err
    assert str(page) in shown.out.replace("\n", "") and "int" in page.read_text(encoding="utf-8")
