"""Items of skills: prompts with checkable answers, read strictly, and when an answer is right.

An item is one JSON object: `{"skill", "prompt", "answer", "check"}` is answered by greedy generation up to the end of
the line; `{"skill", "prompt", "choices", "label"}` by which choice the model finds likeliest.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from whet.errors import MachineError, UsageError, did_you_mean
from whet.messages import Message
from whet.strict import parse_json

LONGEST_ANSWER = 48  # tokens; also Korean in a vocabulary that spells it in bytes gets out a short sentence
CHECKS = ("exact", "contains", "number")
KEYS = ("skill", "prompt", "answer", "check", "choices", "label", "group", "language", "edge", "count")
_ABOUT = ("language", "edge", "count")
# a sign counts unless it stands between two operands (5-3); commas count only between thousands
NUMBER = re.compile(r"(?:(?<![\w)])[-−])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")


@dataclass(frozen=True)
class Item:
    """One question. Either `answer` and `check` are set, or `choices` and `label` (the position of the right one).

    Items of one `group` depend on each other; None: this one on no other. language: of the question, as a report names
    it; edge: an edge case; count: how often its answer was seen; of all three nothing, unless the file says.
    """

    skill: str
    prompt: str
    answer: str | None = None
    check: str = "exact"
    choices: tuple[str, ...] = ()
    label: int = -1
    group: str | None = None
    language: str | None = None
    edge: bool = False
    count: int | None = None

    @property
    def chance(self) -> float:
        """The accuracy of guessing: 1 / choices, 0 for a free answer."""
        return 1 / len(self.choices) if self.choices else 0.0

    def record(self) -> dict[str, Any]:
        """As the JSON object that `parse_item` reads."""
        base: dict[str, Any] = {"skill": self.skill, "prompt": self.prompt}
        if self.group is not None:
            base["group"] = self.group
        base |= {key: value for key in _ABOUT if (value := getattr(self, key)) not in (None, False)}
        if self.choices:
            return base | {"choices": list(self.choices), "label": self.label}
        return base | {"answer": self.answer, "check": self.check}


def read_skills(source: str | Path | Sequence[Mapping[str, Any]]) -> list[Item]:
    """Items of a .jsonl file (one object a line, UTF-8, empty lines skipped), or of a list of such objects.

    Raises UsageError, with the line or the position, for: no file, no items, JSON that does not parse, an unknown or a
    missing key (did-you-mean), a value of the wrong kind, a number check whose answer has no number, an empty or a
    repeated choice, a label that is no position in choices, a skill whose items are all of one group.
    """
    if not isinstance(source, str | Path):
        items = [parse_item(record, Message("skill item {number}", number=i)) for i, record in enumerate(source)]
        where: str = Message("The list of skill items")
    else:
        path = Path(source)
        where = str(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise UsageError(
                "{path}: not UTF-8 at byte {at}. Convert it to UTF-8.", path=path, at=error.start
            ) from error
        except FileNotFoundError as error:
            siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UsageError(
                "{path}: no such file of skills.{near}", path=path, near=did_you_mean(path.name, siblings)
            ) from error
        except OSError as error:
            raise MachineError(
                "{path}: cannot be read ({error}). Check that it is a file of yours.", path=path, error=error.strerror
            ) from error
        items = []
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                record = parse_json(line)
            except json.JSONDecodeError as error:
                raise UsageError(
                    "{path}, line {line}: not JSON ({error} at column {column}). Each line holds one object, such as "
                    '{{"skill": "sums", "prompt": "2 + 2 =", "answer": "4", "check": "number"}}.',
                    path=path,
                    line=number,
                    error=error.msg,
                    column=error.colno,
                ) from error
            items.append(parse_item(record, Message("{path}, line {line}", path=path, line=number)))
    if not items:
        raise UsageError("{where} is empty. Give at least one item, or leave skills out.", where=where)
    for skill, places in by_skill(items).items():
        groups = [items[place].group for place in places]
        if len(groups) > 1 and len(set(groups)) == 1 and groups[0] is not None:
            raise UsageError(
                "{where}: all {count} items of skill {skill} are of group {group}, and nothing tells how groups "
                "differ. Name in group what each item is about, or leave it out.",
                where=where,
                count=len(groups),
                skill=skill,
                group=groups[0],
            )
    return items


def by_skill(items: Sequence[Item]) -> dict[str, list[int]]:
    """Of each skill, in the order in which skills first come, the places of its items. There may be many skills."""
    found: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        found.setdefault(item.skill, []).append(place)
    return found


def parse_item(record: Any, where: str) -> Item:
    """One item from its JSON object; UsageError, with `where`, when it is not one."""
    if not isinstance(record, Mapping):
        raise UsageError("{where}: an item is a JSON object, found {kind}.", where=where, kind=type(record).__name__)
    for key in record:
        if key not in KEYS:
            raise UsageError(
                "{where}: unknown key {key}.{near} The keys are: {known}.",
                where=where,
                key=key,
                near=did_you_mean(str(key), KEYS),
                known=", ".join(KEYS),
            )
    for key in ("skill", "prompt"):
        if not isinstance(record.get(key), str):
            raise UsageError(
                "{where}: {key} must be there and be text, found {value!r}.",
                where=where,
                key=key,
                value=record.get(key),
            )
    if not record["skill"].strip():
        raise UsageError("{where}: skill is blank. Name the skill, as the report will.", where=where)
    if "answer" in record and "choices" in record:
        raise UsageError(
            "{where}: an item has either answer (with check) or choices (with label), found both.", where=where
        )
    if "answer" not in record and "choices" not in record:
        raise UsageError(
            "{where}: an item has either answer (with check) or choices (with label), found neither.", where=where
        )
    group = record.get("group")
    if group is not None:
        if isinstance(group, bool) or not isinstance(group, str | int) or not str(group).strip():
            raise UsageError(
                "{where}: group must be text that is not blank or a whole number, found {group!r}.",
                where=where,
                group=group,
            )
        group = str(group)
    return replace(_asked_item(record, where, group), **_about(record, where))


def _about(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What an item tells of itself beside question and answer."""
    language, edge, count = (record.get(key) for key in _ABOUT)
    if language is not None and (not isinstance(language, str) or not language.strip()):
        raise UsageError("{where}: language must be text such as ko, found {value!r}.", where=where, value=language)
    if not isinstance(edge, bool | None):
        raise UsageError("{where}: edge must be true or false, found {value!r}.", where=where, value=edge)
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 0):
        raise UsageError(
            "{where}: count must be how often the answer was seen, a whole number, found {value!r}.",
            where=where,
            value=count,
        )
    return {"language": language, "edge": bool(edge), "count": count}


def _asked_item(record: Mapping[str, Any], where: str, group: str | None) -> Item:
    """Question and answer."""
    if "choices" in record:
        return _choice_item(record, where, group)
    if "label" in record:
        raise UsageError(
            "{where}: label goes with choices, and this item has an answer. Drop label, or give choices.", where=where
        )
    answer, check = record["answer"], record.get("check", "exact")
    if check not in CHECKS:
        raise UsageError(
            "{where}: check {check!r} is not known.{near} The checks are: {known}.",
            where=where,
            check=check,
            near=did_you_mean(str(check), CHECKS),
            known=", ".join(CHECKS),
        )
    if isinstance(answer, int | float) and not isinstance(answer, bool) and check == "number":
        answer = str(answer)
    if not isinstance(answer, str) or not answer.strip():
        raise UsageError(
            "{where}: answer must be text that is not blank, found {answer!r}.", where=where, answer=answer
        )
    if check == "number" and last_number(answer) is None:
        raise UsageError(
            "{where}: the check is number, but the answer {answer!r} has none. Use exact or contains.",
            where=where,
            answer=answer,
        )
    if not record["prompt"]:
        raise UsageError(
            "{where}: the prompt is empty, so there is nothing to answer. Give a prompt, or choices.", where=where
        )
    return Item(record["skill"], record["prompt"], answer=answer, check=check, group=group)


def _choice_item(record: Mapping[str, Any], where: str, group: str | None) -> Item:
    choices, label = record["choices"], record.get("label")
    if record.get("check", "exact") != "exact":
        raise UsageError(
            "{where}: check {check!r} goes with answer, and this item has choices. Drop check.",
            where=where,
            check=record["check"],
        )
    if not isinstance(choices, list | tuple) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise UsageError(
            "{where}: choices must be two texts or more, none empty, found {choices!r}.", where=where, choices=choices
        )
    if len(set(choices)) < len(choices):
        raise UsageError("{where}: a choice comes twice in {choices!r}.", where=where, choices=choices)
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(choices):
        raise UsageError(
            "{where}: label must be the position of the right choice, 0 to {last}, found {label!r}.",
            where=where,
            last=len(choices) - 1,
            label=label,
        )
    return Item(record["skill"], record["prompt"], choices=tuple(choices), label=label, group=group)


def is_right(answer: str, expected: str, check: str) -> bool:
    """exact: equal but for white space around. contains: `expected` occurs. number: the last numbers are equal.

    Korean written in whole syllables and in single letters (NFC, NFD: a file from macOS) counts as the same.
    """
    answer, expected = unicodedata.normalize("NFC", answer), unicodedata.normalize("NFC", expected)
    if check == "exact":
        return answer.strip() == expected.strip()
    if check == "contains":
        return expected.strip() in answer
    return last_number(answer) is not None and last_number(answer) == last_number(expected)


def last_number(text: str) -> float | None:
    """The last number in `text`, with thousands commas and a decimal point understood; None if there is none."""
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "").replace("−", "-")) if found else None
