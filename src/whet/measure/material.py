"""The text that two models are compared on: what was given, or, of a text that made the lighter one, the part that
nothing was solved on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from whet.errors import UsageError
from whet.measure.sides import lineage_of
from whet.messages import Message
from whet.text import Amount, Found, fingerprint, read_text, split


@dataclass(frozen=True)
class Material:
    """Documents to compare on; `source` names them in errors. described: as the result of `compare` has the text."""

    documents: list[str]
    source: str
    described: dict[str, Any]
    notes: list[Message]


def read_material(
    text: str | Path | Sequence[str],
    lighter: str | Path,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    field: str = "text",
    chat: bool = False,
    skip_bad: bool = False,
    amount: Amount | None = None,
    use_report_split: bool | None = None,
    seed: int = 0,
    classes: str = "",
) -> Material:
    """The documents to compare on: all that were given, or their report part when the rest made the lighter model.

    amount: how much of a file is read, where the lighter model was not made from it: then as much as was read to make
    it, so that its parts are found again. The rest: as for `whet.compare`.
    """
    made_with = [step["text"] for step in lineage_of(lighter) if step.get("text")]
    notes: list[Message] = []
    read: dict[str, int] | None = None
    if isinstance(text, str | Path):
        how = {"field": field, "chat": chat, "tokenizer": tokenizer, "skip_bad": skip_bad, "classes": classes}
        found, mark = _found(text, how, amount or Amount(), made_with)
        documents, source, read = found.documents, str(text), found.read
        notes += found.notes
    elif classes:
        raise UsageError("Documents of a list have no field {field}. Give a path, or leave it out.", field=classes)
    else:
        documents, source, mark = list(text), Message("the text"), fingerprint(text)
    solved = [about for about in made_with if about.get("fingerprint") == mark]
    whole = [about for about in solved if about.get("split") == "eval given"]  # nothing of it was kept out
    part, used, how_split = "all", documents, None
    if use_report_split or (use_report_split is None and solved and not whole):
        parts = split(documents, int(solved[-1].get("seed", seed)) if solved else seed)
        part, used, how_split = "report", parts.report, parts.how
    if solved and part == "report" and not whole:
        notes.append(
            Message(
                "This text also made the lighter model: only its report part, which was not calibrated on, is used."
            )
        )
    elif solved:
        notes.append(Message("The lighter model was calibrated on the text used here: the figures flatter it."))
    if any(about.get("eval_fingerprint") == mark for about in made_with):
        notes.append(Message("This text verified the lighter model while it was made; it was not calibrated on."))
    corpora = [(step.get("corpus") or {}).get("fingerprint") for step in lineage_of(lighter)]
    if mark in corpora:
        notes.append(
            Message(
                "The text used here chose the tokens of the lighter model: of other text, more of them are missing."
            )
        )
    described = {
        "source": str(source),
        "fingerprint": mark,
        "part": part,
        "split_by": how_split,
        "documents": len(documents),
        "documents_used": len(used),
        **({"read": read} if read else {}),
    }
    name = source if part == "all" else Message("{source} (its report part)", source=source)
    return Material(used, name, described, notes)


def _found(
    text: str | Path, how: Mapping[str, Any], amount: Amount, made_with: Sequence[Mapping[str, Any]]
) -> tuple[Found, str]:
    """What is read of a text, with its fingerprint. Of a large one that made the lighter model, the same as then."""
    then = {one for about in made_with if (one := Amount.read(about.get("read"))) is not None} - {amount}
    amounts = [amount, *sorted(then, key=lambda one: (one.most, one.piece))]
    marks = {about.get(name) for about in made_with for name in ("fingerprint", "eval_fingerprint")}
    usual = None
    for one in amounts:
        found = read_text(text, **how, amount=one)
        mark = fingerprint(found.documents)
        if found.read is None or mark in marks:
            return found, mark
        usual = usual or (found, mark)
    assert usual is not None
    return usual
