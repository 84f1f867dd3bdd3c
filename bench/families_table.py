"""The tables of families and targets in the documents, made from the tables the code itself goes by."""

from __future__ import annotations

from collections.abc import Iterable

from whet.anatomy import FAMILIES, Family
from whet.grids import parse_scheme
from whet.targets import TARGETS, Target

_TASKS = {
    "causal": "continues text",
    "masked": "fills in",
    "classification": "judges",
    "seq2seq": "rewrites (encoder and decoder)",
}


def families_table() -> str:
    """One Markdown row a family: what it is for, what its parts are, what stock transformers loads, what is planned."""
    head = [
        "family",
        "`model_type`",
        "for",
        "linears of a block",
        "kept as they are",
        "stock transformers loads",
        "budgets",
        "no transform of",
        "`quarot`, `spinquant`",
    ]
    return _markdown(head, (_row(name, family) for name, family in FAMILIES.items()))


def support_table() -> str:
    """One Markdown row a family, one column a target: how far a lighter model of it is checked there (`support`)."""
    head = ["family", *(f"`{name}`" for name in TARGETS)]
    rows = (
        [family.title, *(support(target, name) for target in TARGETS.values())] for name, family in FAMILIES.items()
    )
    return _markdown(head, rows)


def support(target: Target, name: str) -> str:
    """How far lighter models of the family `name` are checked for `target`: its own word, or `unsupported`."""
    family = FAMILIES[name]
    if target.families is not None and name not in target.families:
        return "unsupported"
    if not target.modelling_file and _beyond_stock(family):
        return "unsupported"
    return target.checked


def targets_table() -> str:
    """One Markdown row a target: what it stores of a weight, what must be alike, and how far that is checked."""
    head = [
        "`--for`",
        "bits",
        "groups",
        "zeros",
        "floats, tables, two levels",
        "embedding and head",
        "one scheme in a block for",
        "`--repair`",
        "how far checked",
    ]
    return _markdown(head, (_holds(target) for target in TARGETS.values()))


def _markdown(head: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)) + "\n"


def _row(name: str, family: Family) -> list[str]:
    tasks = dict.fromkeys(_TASKS[family.task(architecture)] for architecture in family.architectures)
    linears = list(dict.fromkeys(linear.role for linear in family.every))
    sparse = any(linear.held for linear in family.every)
    if _beyond_stock(family):
        stock = "no: the modelling file"
    elif sparse:
        stock = "one symmetric scheme for all; weights in 16 bits"
    else:
        stock = "yes"
    planned = "yes" if "continues text" in tasks else "no: no next token"
    turns = f"no: {family.still}" if family.still else "yes"
    kept = ", ".join(f"`{module}`" for module in family.kept) or "–"
    beside = [kept, stock, planned, _unfolded(family), turns]
    return [family.title, f"`{name}`", ", ".join(tasks), ", ".join(linears), *beside]


def _unfolded(family: Family) -> str:
    """The inputs of linears that factors fold into nothing of."""
    gated = any(linear.role.endswith("gate") for linear in family.every)
    found = [
        ", ".join(fold.reads) + ("" if fold.why else " (unless ReLU)")
        for fold in family.folds
        if fold.why or (fold.act and not gated)
    ]
    return ", ".join(found) or "–"


def _beyond_stock(family: Family) -> bool:
    """Whether stock containers hold no linear of it."""
    return bool(family.packed) or any(linear.transposed for linear in family.every)


def _holds(target: Target) -> list[str]:
    alike = [", ".join(roles) for roles in target.ties] + ["rows of one tensor"] * target.whole
    zeros = {"none": True, "integer": target.integer_zero, "real": target.real_zero}
    return [
        f"`{target.name}`",
        _bits(target),
        _groups(target),
        ", ".join(zero for zero, held in zeros.items() if held),
        _formats(target),
        "yes" if target.embedding else "no",
        "; ".join(alike) or "–",
        "yes" if target.adapters else "no",
        target.checked,
    ]


def _bits(target: Target) -> str:
    if target.schemes:
        named: dict[int, list[str]] = {}
        for scheme in target.schemes:
            named.setdefault(parse_scheme(scheme).bits, []).append(f"`{scheme}`")
        return ", ".join(f"{bits} ({', '.join(schemes)})" for bits, schemes in sorted(named.items()))
    low, high = target.bits[0], target.bits[-1]
    return f"{low}–{high}" if target.bits == tuple(range(low, high + 1)) else ", ".join(map(str, target.bits))


def _formats(target: Target) -> str:
    if target.schemes:
        return "as named"
    return "all" if target.formats is None else ", ".join(f"`{name}`" for name in target.formats) or "none"


def _groups(target: Target) -> str:
    sizes = [str(size) for size in target.groups or () if size]
    which = ", ".join(sizes) or ("any that divides the row" if target.divides else "any")
    row = " or a whole row" if target.groups is None or 0 in target.groups else ""
    return which + row + ("" if target.divides else "; the last one may be shorter")
