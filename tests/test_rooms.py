"""The rooms of the house: who may import whom, who knows architectures, who prints, who moves tensors to a device; and
how long files and functions may be."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from whet.anatomy import FAMILIES

SRC = Path(__file__).parents[1] / "src" / "whet"
# Lowest first: a room imports only what stands before it.
# fmt: off
ROOMS = [
    "korean", "messages", "foreign", "errors", "events", "strict", "paths", "child", "peers", "anatomy", "checkpoint",
    "text", "grids", "targets", "walk", "train", "engines", "measure", "curation", "quantize", "pruning",
    "distillation", "adapt", "budget", "scores", "formats", "timing", "report", "apply", "transforms", "steps",
    "starter", "recipe", "serving", "cli",
]
# fmt: on
PRINTS = {"cli", "starter"}  # `python -m whet.starter.make` is a command line of its own
LINES = {"a file": 400, "a function": 80}
# fmt: off
MOVES = {
    "grids", "checkpoint", "walk", "train", "engines", "adapt", "apply", "transforms", "scores", "steps", "measure",
}
# fmt: on


@functools.cache
def modules() -> list[tuple[str, Path, ast.Module]]:
    """Each file of the house by its room, parsed once for all tests."""
    return [
        (file.relative_to(SRC).parts[0].removesuffix(".py"), file, ast.parse(file.read_text(encoding="utf-8")))
        for file in sorted(SRC.rglob("*.py"))
    ]


def imported(tree: ast.Module) -> Iterator[str]:
    """The rooms that a module imports, wherever in it."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"whet.{alias.name}" for alias in node.names] if node.module == "whet" else [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "whet" and rest:
                yield rest.partition(".")[0]


def test_a_room_imports_only_what_is_below_it():
    place = {room: number for number, room in enumerate(ROOMS)}
    wrong = [
        f"{file.relative_to(SRC)} imports {other}"
        for room, file, tree in modules()
        if room in place
        for other in imported(tree)
        if other in place and place[other] > place[room]
    ]
    assert not wrong


def test_every_room_has_its_place():
    rooms = {room for room, _, _ in modules()} - {"__init__", "__main__"}
    assert rooms == set(ROOMS)


def test_only_anatomy_formats_and_targets_know_architectures():
    """Code that asks for a family by its name is a rule for one architecture in the wrong place. Formats and targets
    have tables of their own of what a runtime calls them and loads."""
    names = re.compile(rf"({'|'.join(re.escape(name) for name in FAMILIES)})(For\w+)?", re.IGNORECASE)
    wrong = []
    for room, file, tree in modules():
        # ggml calls kinds of tokenizers after the architectures they came with
        if room in ("anatomy", "formats", "targets", "starter") or file.name == "llamacpp.py":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and names.fullmatch(node.value):
                wrong.append(f"{file.relative_to(SRC)}:{node.lineno}: {node.value}")
    assert not wrong


def test_only_the_command_line_prints_and_exits():
    wrong = []
    for room, file, tree in modules():
        for node in ast.walk(tree):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if room not in PRINTS and called in ("print", "sys.exit", "exit", "os._exit"):
                wrong.append(f"{file.relative_to(SRC)}:{node.lineno}")
    assert not wrong


def test_tensors_are_moved_to_a_device_only_where_they_flow():
    """Solvers, plans, formats, reports and verbs compute where their arguments are. (A grid's own constants follow the
    weights.)"""
    wrong = []
    for room, file, tree in modules():
        for node in ast.walk(tree):
            if room in MOVES or not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            to_device = node.func.attr == "to" and any("device" in ast.unparse(argument) for argument in node.args)
            if node.func.attr == "cuda" or to_device:
                wrong.append(f"{file.relative_to(SRC)}:{node.lineno}")
    assert not wrong


def test_files_and_functions_can_be_read_at_one_sitting():
    wrong = []
    for _, file, tree in modules():
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > LINES["a file"]:
            wrong.append(f"{file.relative_to(SRC)}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LINES["a function"]:
                    wrong.append(f"{file.relative_to(SRC)}:{node.lineno}: {node.name}, {lines} lines")
    assert not wrong
