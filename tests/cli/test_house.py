"""The laws of the house: what the documents and the project file say is what the code has."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main

from whet import cli
from whet.measure.aspects import KNOWN
from whet.measure.figures import LIMITS
from whet.targets import TARGETS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
JUDGING = (ROOT / "docs" / "judging.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


TESTED = (
    "test",
    "lint",
    "parquet",
    "curate",
    "llamacpp",
    "onnx",
    "openvino",
    "serve",
)  # that continuous integration installs


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def options() -> set[str]:
    group = typer.main.get_command(cli.app)
    inner = [p for command in group.commands.values() for p in command.params]  # type: ignore[attr-defined]
    return {o for p in (*group.params, *inner) for o in (*p.opts, *p.secondary_opts) if o.startswith("--")}


def test_the_section_of_every_verb_documents_its_options_and_no_others() -> None:
    """Of a switch that is on by default what a person types is `--no-speed`."""
    group = typer.main.get_command(cli.app)
    parts = re.split(r"^## `whet (\w[\w-]*)[^\n]*\n", COMMANDS, flags=re.MULTILINE)
    documented = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert set(documented) == set(group.commands)  # type: ignore[attr-defined]
    for verb, command in group.commands.items():  # type: ignore[attr-defined]
        rows = [row.split("|")[1] for row in documented[verb].splitlines() if row.startswith("| `--")]
        named = {option for row in rows for option in re.findall(r"`(--[a-z][a-z0-9-]*)", row)}
        offered = [p.secondary_opts[0] if p.secondary_opts else p.opts[0] for p in command.params]
        known = {option for option in offered if option.startswith("--")} - {"--json", "--debug"}
        assert named == known, verb


@pytest.mark.parametrize("readme", ["README.md", "README.ko.md"])
def test_the_readmes_name_only_options_and_files_that_exist(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    assert set(re.findall(r"(?<=\s)--[a-z][a-z0-9-]*", text)) <= options()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in target or (ROOT / target).is_file(), target


def test_limits_are_documented_with_their_defaults() -> None:
    told = re.findall(r"^\| `((?:max|min)_[a-z_0-9]+)` \|([^|]*)\|", COMMANDS, re.MULTILINE)
    wanted = {name: "" if limit.default is None else f"{limit.default:g}" for name, limit in LIMITS.items()}
    told += re.findall(r"^\| `([a-z]+\.[a-z_0-9]+)` \|([^|]*)\|", JUDGING, re.MULTILINE)
    assert {name: default.strip() for name, default in told} == wanted and len(told) == len(wanted)


def test_aspects_are_documented() -> None:
    told = re.findall(r"^\| `([a-z]+)` \| (yes|) ?\|", JUDGING, re.MULTILINE)
    assert told == [(name, "yes" if aspect.standard else "") for name, aspect in KNOWN.items()]


def test_targets_are_documented_and_in_the_help_of_every_command_that_takes_one() -> None:
    (row,) = [line for line in COMMANDS.splitlines() if line.startswith("| `--for`") and "it:" in line]
    listed = row.partition("it:")[2].partition(";")[0]
    assert re.findall(r"`([^`]+)`", listed) == list(TARGETS)
    for verb in ("inspect", "plan", "compress"):
        command = typer.main.get_command(cli.app).commands[verb]  # type: ignore[attr-defined]
        (told,) = [option.help for option in command.params if "--for" in option.opts]
        assert re.split(r", | or ", told.rstrip(".").partition(": ")[2]) == list(TARGETS), verb


def test_every_dependency_has_a_tested_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonical(line.split("==")[0]) for line in lines if line and not line.startswith("#")}
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line) for line in lines if line[:1] not in "#")
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(name for extra in TESTED for name in extras[extra])]
    assert {canonical(re.match(r"[A-Za-z0-9_.-]+", name)[0]) for name in wanted} <= pinned  # type: ignore[index]


def test_extras_that_messages_name_exist() -> None:
    named = {
        extra
        for path in (ROOT / "src").rglob("*.py")
        for extra in re.findall(r"whet\[([a-z-]+)\]", path.read_text(encoding="utf-8"))
    }
    assert named and named <= set(PROJECT["optional-dependencies"])


def test_every_make_target_is_in_its_help() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    assert {"demo", "test", "test-all", "lint", "bench", "starter"} <= targets
    assert targets == set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    (shown,) = re.findall(r"'/\^(\S+):\.\*## /", makefile)  # what `make help` looks for
    assert all(re.fullmatch(shown, target) for target in targets)


# Modules whose package has another name, and what comes with transformers as a part of it.
PACKAGES = {"yaml": "pyyaml", "pynvml": "nvidia-ml-py"}
WITH_TRANSFORMERS = {"huggingface-hub", "tqdm"}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("src", ["parquet", "hub", "tasks", "curate", "serve", "energy", "onnx", "openvino", "train"]),
        ("tests", ["test"]),
    ],
)
def test_every_package_that_is_imported_is_asked_for(folder: str, extras: list[str]) -> None:
    wanted = [*PROJECT["dependencies"], *(name for extra in extras for name in PROJECT["optional-dependencies"][extra])]
    named = {canonical(re.match(r"[A-Za-z0-9_.-]+", name)[0]) for name in wanted} | WITH_TRANSFORMERS  # type: ignore[index]
    files = list((ROOT / folder).rglob("*.py"))
    own = {"whet"}  # and, for tests, what lies beside them or in bench/
    if folder == "tests":
        own |= {path.stem for path in (*(ROOT / "tests").iterdir(), *(ROOT / "bench").rglob("*.py"))}
    imported: set[str] = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                imported.add(node.module.partition(".")[0])
    others = imported - own - set(sys.stdlib_module_names)
    assert {canonical(PACKAGES.get(name, name)) for name in others} <= named
