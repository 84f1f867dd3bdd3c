"""The table of families in the documents, made from the tables the code itself goes by."""

from __future__ import annotations

from whet.anatomy import FAMILIES, Family

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
    ]
    rows = [head, ["---"] * len(head)]
    rows += [_row(name, family) for name, family in FAMILIES.items()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _row(name: str, family: Family) -> list[str]:
    tasks = dict.fromkeys(_TASKS[family.task(architecture)] for architecture in family.architectures)
    linears = list(dict.fromkeys(linear.role for linear in family.every))
    sparse = any(linear.held for linear in family.every)
    transposed = any(linear.transposed for linear in family.every)
    if family.packed or transposed:
        stock = "no: the modelling file"
    elif sparse:
        stock = "one symmetric scheme for all; weights in 16 bits"
    else:
        stock = "yes"
    planned = "no: experts" if sparse else "yes" if "continues text" in tasks else "no: no next token"
    kept = ", ".join(f"`{module}`" for module in family.kept) or "–"
    return [family.title, f"`{name}`", ", ".join(tasks), ", ".join(linears), kept, stock, planned]
