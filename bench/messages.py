"""The catalogues of messages (`src/whet/locale/*.po`), brought up to date with the source: `make messages`.

A new template gets an empty entry, or the translation of one that is gone and resembles it, marked `fuzzy` until
somebody has read it; entries of templates that are gone are dropped. A catalogue is ordinary gettext, which any editor
of .po files opens; whet reads it as it is.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import whet
from whet.cli import app
from whet.cli.help import texts
from whet.foreign import SENTENCES
from whet.messages import read_po

SOURCE = Path(whet.__file__).parent
LOCALE = SOURCE / "locale"
_HEADER = """\
# Messages of whet. `make messages` adds what the source has and this has not.
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Language: {language}\\n"
"""


@dataclass(frozen=True)
class Call:
    """A message that the source makes: its template, None where that is no literal, and the names of its values, None
    where they are not spelled out."""

    where: str
    template: str | None
    names: frozenset[str] | None


def main() -> None:
    for file in sorted(LOCALE.glob("*.po")):
        entries = read_po(file.read_text(encoding="utf-8"))
        known = {template: (translation, "fuzzy" in flags) for template, translation, flags in entries if template}
        found = updated(known, templates())
        file.write_text(written(found, file.stem), encoding="utf-8")
        missing = [template for template, (translation, fuzzy) in found.items() if fuzzy or not translation]
        print(f"{file}: {len(found)} entries, {len(missing)} to translate", *missing, sep="\n  ")


def templates() -> set[str]:
    """Every template that has words to translate, and every help string of the command line."""
    found = {call.template for call in calls() if call.template is not None} | {*SENTENCES} | texts(app)
    literals = {template: "".join(literal for literal, *_ in Formatter().parse(template)) for template in found}
    return {template for template, literal in literals.items() if re.search(r"[^\W\d_]", literal)}


def fields(template: str) -> set[tuple[str, ...]]:
    """Name, format and conversion of what a template names."""
    return {(name, spec or "", how or "") for _, name, spec, how in Formatter().parse(template) if name is not None}


def calls(source: Path = SOURCE) -> Iterator[Call]:
    """Calls of everything that takes a `template`: messages, errors, and the functions that make them."""
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(source.rglob("*.py"))}
    makers = _makers(list(trees.values()))
    for file, tree in trees.items():
        for node in ast.walk(tree):
            place = makers.get(_called(node))
            if not isinstance(node, ast.Call) or place is None or len(node.args) <= place:
                continue
            given = node.args[place]
            if isinstance(given, ast.Name) and given.id == "template":  # a maker hands on what it was given
                continue
            literal = given.value if isinstance(given, ast.Constant) and isinstance(given.value, str) else None
            names = [keyword.arg for keyword in node.keywords]
            known = None if None in names else frozenset(name for name in names if name is not None)
            yield Call(f"{file.relative_to(source)}:{node.lineno}", literal, known)


def _makers(trees: list[ast.Module]) -> dict[str, int]:
    """By name, which argument is the template of functions and classes that take one by position."""
    found: dict[str, int] = {}
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    inside = {id(function): one.name for one in classes for function in one.body}
    for node in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        names = [argument.arg for argument in node.args.posonlyargs if argument.arg not in ("self", "cls")]
        if "template" in names:
            name = inside[id(node)] if node.name in ("__init__", "__new__") else node.name
            found[name] = names.index("template")
    while more := {one.name: 0 for one in classes if {*map(ast.unparse, one.bases)} & {*found}}.items() - found.items():
        found |= dict(more)
    return found


def _called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def updated(known: dict[str, tuple[str, bool]], wanted: set[str]) -> dict[str, tuple[str, bool]]:
    """Translation and whether it is a guess, by template, of those `wanted`."""
    gone = [template for template in known if template not in wanted]
    found = {}
    for template in sorted(wanted):
        near = difflib.get_close_matches(template, gone, n=1, cutoff=0.6) if template not in known else []
        found[template] = (known[near[0]][0], True) if near else known.get(template, ("", False))
    return found


def written(entries: dict[str, tuple[str, bool]], language: str) -> str:
    """A catalogue as text."""
    blocks = [_HEADER.format(language=language)]
    for template, (translation, fuzzy) in entries.items():
        flags = ["fuzzy"] * fuzzy + ["python-brace-format"] * bool(fields(template))
        lines = [f"#, {', '.join(flags)}"] if flags else []
        blocks.append("\n".join([*lines, _entry("msgid", template), _entry("msgstr", translation)]) + "\n")
    return "\n".join(blocks)


def _entry(key: str, text: str) -> str:
    wrapped = textwrap.wrap(
        text, 100, expand_tabs=False, replace_whitespace=False, drop_whitespace=False, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    pieces = [json.dumps(piece, ensure_ascii=False) for piece in wrapped or [""]]
    return f"{key} {pieces[0]}" if len(pieces) == 1 else "\n".join([f'{key} ""', *pieces])


if __name__ == "__main__":
    sys.exit(main())
