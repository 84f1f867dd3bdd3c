"""What the errors in the source say, found by reading it: each message with X1, X2, … for what it names.

Messages are put together from f-strings, choices (`a if b else c`, `a or b`), variables, `did_you_mean`, lists that are
joined, functions that return reasons, and functions that return the error itself (`def bad(why) -> UsageError`).
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import whet

SOURCE = Path(whet.__file__).parent
NAMED = "\0"  # stands for what a message names until all of it is there
MOST = 300  # ways to put one message together
HANGUL = re.compile("[가-힣]")

Function = ast.FunctionDef
Known = Mapping[str, list[str]]


def fields(pattern: str) -> set[str]:
    """What the fields in braces of a sentence are called."""
    return set(re.findall(r"\{(\w+)\}", pattern))


def trees() -> dict[Path, ast.Module]:
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(SOURCE.rglob("*.py"))}


TREES = trees()
FUNCTIONS = [(n.name, n, f) for f, tree in TREES.items() for n in ast.walk(tree) if isinstance(n, Function)]


def errors() -> set[str]:
    """The names of WhetError and all that are made from it."""
    found = {"WhetError"}
    classes = [node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while more := {c.name for c in classes if found & {ast.unparse(base) for base in c.bases}} - found:
        found |= more
    return found


ERRORS = errors()


def called(node: ast.AST) -> str:
    """The name of the function that a call calls, without what it is an attribute of."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


class Reader:
    """Messages of one file."""

    def __init__(self, file: Path) -> None:
        self.file, self.tree = file, TREES[file]
        self.over: dict[ast.AST, ast.AST] = {
            inner: outer for outer in ast.walk(self.tree) for inner in ast.iter_child_nodes(outer)
        }
        self.makers = {
            n.name: n
            for n in ast.walk(self.tree)
            if isinstance(n, Function) and n.returns is not None and ast.unparse(n.returns) in ERRORS
        }

    def around(self, node: ast.AST) -> Iterator[Function]:
        """The functions that `node` is in, the innermost first."""
        while node in self.over:
            node = self.over[node]
            if isinstance(node, Function):
                yield node

    def messages(self) -> Iterator[tuple[int, str]]:
        """The line and the text of everything raised on purpose."""
        for node in ast.walk(self.tree):
            makers = [self.makers[f.name] for f in self.around(node) if f.name in self.makers]
            if called(node) in ERRORS and node.args and not makers and called(node.args[0]) != "say":
                yield from ((node.lineno, text) for text in self.texts(node.args[0], {}))
            elif called(node) in self.makers:
                maker = self.makers[called(node)]
                names = [a.arg for a in maker.args.args if a.arg != "self"]
                given = {n: self.texts(a, {}) for n, a in zip(names, node.args, strict=False)}
                for inner in ast.walk(maker):
                    if called(inner) in ERRORS:
                        yield from ((node.lineno, text) for text in self.texts(inner.args[0], given))

    def texts(self, node: ast.AST, known: Known, inside: tuple[ast.AST, ...] = ()) -> list[str]:
        """Everything that `node` may say. known: what parameters say."""
        if node in inside or len(inside) > 40:
            return [NAMED]
        inside = (*inside, node)
        found: list[str] = []
        if isinstance(node, ast.Constant):
            return [] if node.value is None else [node.value if isinstance(node.value, str) else NAMED]
        if isinstance(node, ast.JoinedStr):
            parts = [self.texts(part, known, inside) or [NAMED] for part in node.values]
            return ["".join(some) for some in itertools.islice(itertools.product(*parts), MOST)]
        if isinstance(node, ast.FormattedValue):
            shown = self.texts(node.value, known, inside)
            return [repr(text) if node.conversion == 114 and NAMED not in text else text for text in shown]
        if isinstance(node, ast.IfExp):
            found = self.texts(node.body, known, inside) + self.texts(node.orelse, known, inside)
        elif isinstance(node, ast.BoolOp):
            found = [text for value in node.values for text in self.texts(value, known, inside)]
        elif isinstance(node, ast.NamedExpr):
            found = self.texts(node.value, known, inside)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            both = (self.texts(side, known, inside) for side in (node.left, node.right))
            found = ["".join(some) for some in itertools.islice(itertools.product(*both), MOST)]
            found = [NAMED if text == 2 * NAMED else text for text in found]  # a sum of numbers
        elif isinstance(node, ast.Name):
            found = known[node.id] if node.id in known else self.variable(node, known, inside)
        elif isinstance(node, ast.Call):
            found = self.call(node, known, inside)
        return list(dict.fromkeys(found)) or [NAMED]

    def call(self, node: ast.Call, known: Known, inside: tuple[ast.AST, ...]) -> list[str]:
        if called(node) == "did_you_mean":
            return ["", f" Did you mean {NAMED}?"]
        if called(node) == "join":
            items = [text for item in self.items(node.args[0]) for text in self.texts(item, known, inside)]
            return [text for text in items if " " in text] + [NAMED]
        if isinstance(node.func, ast.Name):
            for name, function, file in FUNCTIONS:
                if name == node.func.id and function.returns and ast.unparse(function.returns) in ("str", "str | None"):
                    there = self if file == self.file else reader(file)
                    ends = [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and n.value is not None]
                    said = [text for end in ends for text in there.texts(end, {}, inside)]
                    if any(text.count(" ") > 2 for text in said):
                        return [text for text in said if text]  # nothing is raised for no reason
        return [NAMED]

    def variable(self, node: ast.Name, known: Known, inside: tuple[ast.AST, ...]) -> list[str]:
        """What was put into a variable: by the loop it is in, in the functions it is in, above the place, or else in
        the file; what a parameter is given where the file calls the function."""
        loop: ast.AST = node
        while loop in self.over:
            loop = self.over[loop]
            if isinstance(loop, ast.For) and (values := list(bound(loop, node.id))):
                return [text for value in values for text in self.texts(value, known, inside)]
        for where in (*self.around(node), self.tree):
            if isinstance(where, Function) and node.id in (names := [a.arg for a in where.args.args]):
                place = names.index(node.id) - (names[0] == "self")
                given = [call.args[place : place + 1] for call in ast.walk(self.tree) if called(call) == where.name]
                return [text for value in given for text in self.texts(value[0] if value else node, known, inside)]
            values = [
                (place.lineno, value)
                for place in (ast.walk(where) if isinstance(where, Function) else self.tree.body)
                for value in bound(place, node.id)
                if isinstance(where, ast.Module) or place.lineno <= node.lineno
            ]
            if values:
                return [text for _, value in values for text in self.texts(value, known, inside)]
        return [NAMED]

    def items(self, node: ast.AST) -> list[ast.AST]:
        """The expressions in a list."""
        if isinstance(node, ast.List | ast.Tuple):
            return list(node.elts)
        if isinstance(node, ast.ListComp | ast.GeneratorExp):
            return [node.elt]
        if isinstance(node, ast.BinOp):
            return self.items(node.left) + (self.items(node.right) if isinstance(node.op, ast.Add) else [])
        if isinstance(node, ast.Name):
            around = [place for function in self.around(node) for place in ast.walk(function)]
            return [item for place in around for value in bound(place, node.id) for item in self.items(value)]
        return []


def bound(place: ast.AST, name: str) -> Iterator[ast.AST]:
    """The expressions that `place` puts into the variable `name`, for a loop all that it goes over."""
    if isinstance(place, ast.Assign):
        yield from (place.value for target in place.targets if ast.unparse(target) == name)
        for target in place.targets:
            if isinstance(target, ast.Tuple) and isinstance(place.value, ast.Tuple):
                pairs = zip(target.elts, place.value.elts, strict=False)
                yield from (value for inner, value in pairs if ast.unparse(inner) == name)
    elif isinstance(place, ast.AnnAssign | ast.NamedExpr) and ast.unparse(place.target) == name:
        if place.value is not None:
            yield place.value
    elif isinstance(place, ast.For) and isinstance(place.iter, ast.Tuple):
        for item in place.iter.elts:
            if ast.unparse(place.target) == name:
                yield item
            elif isinstance(place.target, ast.Tuple) and isinstance(item, ast.Tuple):
                pairs = zip(place.target.elts, item.elts, strict=False)
                yield from (value for inner, value in pairs if ast.unparse(inner) == name)


@cache
def reader(file: Path) -> Reader:
    return Reader(file)


def numbered(text: str) -> str:
    """`text` with X1, X2, … for what it names."""
    first, *rest = text.split(NAMED)
    return first + "".join(f"X{number}{part}" for number, part in enumerate(rest, 1))


@cache
def refusals() -> set[tuple[str, str]]:
    """Where and what, of every error in the source."""
    found = set()
    for file in TREES:
        found |= {(f"{file.relative_to(SOURCE)}:{line}", numbered(text)) for line, text in reader(file).messages()}
    return found
