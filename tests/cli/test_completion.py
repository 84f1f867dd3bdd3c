"""Shell completion: verbs, options and the values of those with few, told at once and by what is really there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from whet.cli.completion import PRESETS, RUNS
from whet.grids import find_mix, parse_scheme
from whet.quantize import SOLVERS, TRANSFORMS
from whet.recipe.schema import PRESETS as KNOWN_PRESETS
from whet.recipe.schema import RUNS as KNOWN_RUNS
from whet.steps import options
from whet.targets import TARGETS


def completed(typed: str, shell: str, folder: Path) -> str:
    """What whet answers a shell that completes the last word of `typed`."""
    words = typed.split(" ")
    asked = {
        "_WHET_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": typed,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    light = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); "
    done = subprocess.run(
        [sys.executable, "-c", light + "from whet.cli import main; main()"],
        env=os.environ | asked,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr.strip()) == (0, "False")
    return done.stdout


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("whet comp", ["compress", "compare"]),
        ("whet compress --sol", ["--solver"]),
        ("whet compress a b --for ", [*options.RUNTIMES.split(", "), "auto"]),
        ("whet plan a b --solver g", ["good", "gptq", "gptaq"]),
        ("whet compress a b --transform sm", ["smooth"]),
        ("whet compress a b --embed Q4", ["Q4_K_M"]),
        ("whet masks a b --within r", ["row"]),
        ("whet generate st", ["starter"]),
        (
            "whet run ",
            ["w8", "w4", "balanced", "smallest", "safe", "fastest", "on-device", "distil", "made/", "mine.yaml"],
        ),
        ("whet compress a b --recipe s", ["smallest"]),
        ("whet run made/", ["made/other.yaml"]),
        ("whet compare a b --limit max_k", ["max_kl="]),
        ("whet schema ", ["plan", "recipe"]),
    ],
)
def test_what_bash_is_offered(tmp_path: Path, typed: str, found: list[str]) -> None:
    (tmp_path / "made").mkdir()
    for name in ("mine.yaml", "made/other.yaml", "notes.txt"):
        (tmp_path / name).touch()
    assert completed(typed, "bash", tmp_path).split() == found


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_what_other_shells_are_offered(tmp_path: Path, shell: str) -> None:
    assert "llama.cpp" in completed("whet compress a b --for ", shell, tmp_path)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed(tmp_path: Path, shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "whet"],
        env=os.environ | {"_WHET_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and f"complete_{shell}" in done.stdout


def test_names_that_are_completed_are_those_of_the_tables() -> None:
    assert options.RUNTIMES.split(", ") == list(TARGETS)
    assert options.TRANSFORMS.split(", ") == list(TRANSFORMS)
    assert set(options.SOLVERS.split(", ")) == set(SOLVERS)
    assert PRESETS.split(", ") == list(KNOWN_PRESETS) and RUNS.split(", ") == list(KNOWN_RUNS)
    for scheme in options.SCHEMES.split(", "):
        assert find_mix(scheme) or parse_scheme(scheme)
