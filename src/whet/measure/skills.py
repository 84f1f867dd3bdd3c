"""Skills: prompts with checkable answers, scored for both models on the same items.

An item is one JSON object: `{"skill", "prompt", "answer", "check"}` is answered by greedy generation up to the end of
the line; `{"skill", "prompt", "choices", "label"}` by which choice the model finds likeliest. An average hides a ruined
skill, and an unchanged accuracy hides answers that changed both ways: so figures are by skill and flips are counted
("Accuracy is Not All You Need", NeurIPS 2024, arXiv 2407.09141).

Items about one thing, such as a passage, a dialogue or a pair of numbers, are right or wrong together: where they name
it as their `group`, error bars count groups and not items (Miller 2024, arXiv 2411.00640).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from whet.engines import Engine
from whet.errors import MachineError, UsageError, did_you_mean
from whet.events import OnEvent, Stage, ignore
from whet.measure.statistics import clustered_mcnemar, holm, independent_items, paired_difference, wilson
from whet.messages import Message
from whet.text import batch_indices

CHECKS = ("exact", "contains", "number")
KEYS = ("skill", "prompt", "answer", "check", "choices", "label", "group")
# a sign counts unless it stands between two operands (5-3); commas count only between thousands
NUMBER = re.compile(r"(?:(?<![\w)])[-−])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
LONGEST_ANSWER = 48  # tokens; also Korean in a vocabulary that spells it in bytes gets out a short sentence
PROMPTS_AT_ONCE = 64
CHOICE_TOKENS = 4096  # tokens in a batch of choices


@dataclass(frozen=True)
class Item:
    """One question. Either `answer` and `check` are set, or `choices` and `label` (the position of the right one).

    Items of one `group` depend on each other; None: this one on no other.
    """

    skill: str
    prompt: str
    answer: str | None = None
    check: str = "exact"
    choices: tuple[str, ...] = ()
    label: int = -1
    group: str | None = None

    @property
    def chance(self) -> float:
        """The accuracy of guessing: 1 / choices, 0 for a free answer."""
        return 1 / len(self.choices) if self.choices else 0.0

    def record(self) -> dict[str, Any]:
        """As the JSON object that `parse_item` reads."""
        base: dict[str, Any] = {"skill": self.skill, "prompt": self.prompt}
        if self.group is not None:
            base["group"] = self.group
        if self.choices:
            return base | {"choices": list(self.choices), "label": self.label}
        return base | {"answer": self.answer, "check": self.check}


@dataclass(frozen=True)
class Outcome:
    """What a model did with an item: its answer, whether it is right, and for choices whether length-normalized too."""

    answer: str
    right: bool
    right_normalized: bool | None = None


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
                record = json.loads(line)
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
    for skill in dict.fromkeys(item.skill for item in items):
        groups = [item.group for item in items if item.skill == skill]
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


def score(
    engine: Engine, items: Sequence[Item], *, chat: bool = False, on_event: OnEvent = ignore, stage: str = "skills"
) -> list[Outcome]:
    """Put every item to the model; outcomes in the order of the items.

    Prompts of one length in tokens are answered together, so nothing is padded and an answer does not depend on what
    it is batched with. A choice is scored by the sum of the log-likelihoods of its tokens after the prompt; all choices
    of an item are scored from the first token in which any of them differs from the prompt, so that a token that
    merges the end of the prompt with the start of a choice is judged for all alike. Normalized: per UTF-8 byte.
    With `chat` the prompt is a user's turn in the model's chat template.

    Raises UsageError for a prompt that does not fit the model's context.
    """
    outcomes: list[Outcome | None] = [None] * len(items)
    free = [i for i, item in enumerate(items) if not item.choices]
    chosen = [i for i, item in enumerate(items) if item.choices]
    prompts = [engine.encode(items[i].prompt, chat=chat) for i in free]
    for i, prompt in zip(free, prompts, strict=True):
        _must_fit(engine, items[i], len(prompt) + 1)
    groups = [
        group[first : first + PROMPTS_AT_ONCE]
        for group in batch_indices([len(prompt) for prompt in prompts], 1 << 62)
        for first in range(0, len(group), PROMPTS_AT_ONCE)
    ]
    progress = Stage(on_event, stage, len(groups) + (1 if chosen else 0))
    for group in groups:
        length = len(prompts[group[0]])
        room = LONGEST_ANSWER if engine.context is None else min(LONGEST_ANSWER, engine.context - length)
        answers = engine.continue_ids([prompts[i] for i in group], room, stop_at_newline=True)
        for i, ids in zip(group, answers, strict=True):
            item = items[free[i]]
            text = engine.decode(ids).split("\n")[0].strip()
            outcomes[free[i]] = Outcome(text, is_right(text, item.answer or "", item.check))
        progress.step()
    if chosen:
        for i, outcome in zip(chosen, _choose(engine, [items[i] for i in chosen], chat), strict=True):
            outcomes[i] = outcome
        progress.step()
    return [outcome for outcome in outcomes if outcome is not None]


def _choose(engine: Engine, items: Sequence[Item], chat: bool) -> list[Outcome]:
    """Outcomes of items with choices, all choices of all items batched by length."""
    rows: list[list[int]] = []
    starts: list[int] = []
    for item in items:
        mine, start = choice_rows(engine, item, chat)
        _must_fit(engine, item, max(map(len, mine)))
        rows += mine
        starts += [start] * len(mine)
    totals = [0.0] * len(rows)
    for group in batch_indices([len(row) for row in rows], CHOICE_TOKENS):
        batch = torch.tensor([rows[i] for i in group])
        position = 0
        for logits in engine.logit_chunks(batch, CHOICE_TOKENS):
            n = min(logits.shape[1], batch.shape[1] - 1 - position)
            if n <= 0:
                break
            tokens = batch[:, position + 1 : position + 1 + n, None].to(logits.device)
            shares = torch.log_softmax(logits[:, :n].float(), dim=-1).gather(-1, tokens)[..., 0].double().cpu()
            for row, i in enumerate(group):
                # position + k holds the share of token position + k + 1; tokens from starts[i] on count
                totals[i] += float(shares[row, max(0, starts[i] - 1 - position) :].sum())
            position += n
    outcomes = []
    first = 0
    for item in items:
        sums = totals[first : first + len(item.choices)]
        first += len(item.choices)
        best = max(range(len(sums)), key=lambda i: sums[i])
        per_byte = [total / len(choice.encode()) for total, choice in zip(sums, item.choices, strict=True)]
        best_per_byte = max(range(len(sums)), key=lambda i: per_byte[i])
        outcomes.append(Outcome(item.choices[best], best == item.label, best_per_byte == item.label))
    return outcomes


def choice_rows(engine: Engine, item: Item, chat: bool = False) -> tuple[list[list[int]], int]:
    """Token ids of prompt + choice for every choice, and the position of the first token that is scored.

    That is the first in which any of them departs from the prompt's own tokens, and at least 1, as the first token of
    all has nothing before it to be predicted from.
    """
    prompt = engine.encode(item.prompt, chat=chat) if item.prompt else []
    if chat and item.prompt:
        opening = len(engine.encode(""))  # a bos belongs before the prompt only
        rows = [prompt + engine.encode(choice)[opening:] for choice in item.choices]
    else:
        rows = [engine.encode(item.prompt + choice) for choice in item.choices]
    start = len(prompt)
    for row in rows:
        shared = 0
        while shared < min(start, len(row)) and row[shared] == prompt[shared]:
            shared += 1
        start = min(start, shared)
    return rows, max(1, start)


def compare_skills(
    items: Sequence[Item], original: Sequence[Outcome], lighter: Sequence[Outcome], examples: int = 3
) -> list[dict[str, Any]]:
    """One entry a skill, in the order in which skills first come, from the outcomes of both models on `items`.

    items and how many groups they are; accuracy of both with Wilson intervals; chance; retention = (lighter - chance) /
    (original - chance) with the score interval of the paired difference, the original's accuracy taken as given (None,
    with the reason, where the original is not above chance by its own interval); flips both ways, up to `examples` of
    each with the prompt and both answers; the exact McNemar p and Holm's over the skills. Confidence 95 %; intervals
    and p go by groups where items have them (`independent_items`, `clustered_mcnemar`).
    """
    table: list[dict[str, Any]] = []
    for skill in dict.fromkeys(item.skill for item in items):
        mine = [i for i, item in enumerate(items) if item.skill == skill]
        names: list[Any] = [(i,) if items[i].group is None else items[i].group for i in mine]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        groups = [numbers[name] for name in names]
        flips = [lighter[i].right - original[i].right for i in mine]
        changes = [0] * len(numbers)
        for flip, group in zip(flips, groups, strict=True):
            changes[group] += flip
        lost, gained = ([i for i, flip in zip(mine, flips, strict=True) if flip == kind] for kind in (-1, 1))
        chance = sum(items[i].chance for i in mine) / len(mine)
        accuracies = [_accuracy([o[i] for i in mine], groups) for o in (original, lighter)]
        entry = {
            "skill": skill,
            "items": len(mine),
            "groups": len(numbers),
            "chance": chance,
            "original": accuracies[0],
            "lighter": accuracies[1],
            "retention": _retention(accuracies[0], accuracies[1], chance, flips, groups),
            "flips": {
                "lost": len(lost),
                "gained": len(gained),
                "share": (len(lost) + len(gained)) / len(mine),
                "lost_examples": [_example(items[i], original[i], lighter[i]) for i in lost[:examples]],
                "gained_examples": [_example(items[i], original[i], lighter[i]) for i in gained[:examples]],
            },
            "mcnemar_p": clustered_mcnemar(changes),
        }
        table.append(entry)
    for entry, p in zip(table, holm([entry["mcnemar_p"] for entry in table]), strict=True):
        entry["holm_p"] = p
    return table


def _accuracy(outcomes: Sequence[Outcome], groups: Sequence[int]) -> dict[str, Any]:
    rights = [outcome.right for outcome in outcomes]
    normalized = [outcome.right_normalized for outcome in outcomes if outcome.right_normalized is not None]
    weight = independent_items(rights, groups) / len(rights)
    return {
        "right": sum(rights),
        "accuracy": sum(rights) / len(rights),
        "interval": list(wilson(sum(rights) * weight, len(rights) * weight)),
        "accuracy_normalized": sum(normalized) / len(normalized) if normalized else None,
    }


def _retention(
    original: Mapping[str, Any], lighter: Mapping[str, Any], chance: float, flips: Sequence[int], groups: Sequence[int]
) -> dict[str, Any]:
    """flips: of each item -1 where it was lost, 1 where it was gained, else 0. groups: a number of each item's."""
    if original["interval"][0] <= chance:
        reason = Message(
            "the original's accuracy {accuracy:.3f} is not above chance {chance:.3f}",
            accuracy=original["accuracy"],
            chance=chance,
        )
        return {"value": None, "interval": None, "reason": reason}
    above = original["accuracy"] - chance
    weight = independent_items(flips, groups) / len(flips)
    low, high = paired_difference(flips.count(-1) * weight, flips.count(1) * weight, len(flips) * weight)
    return {
        "value": (lighter["accuracy"] - chance) / above,
        "interval": [1 + low / above, 1 + high / above],
        "reason": None,
    }


def _example(item: Item, original: Outcome, lighter: Outcome) -> dict[str, str]:
    expected = item.choices[item.label] if item.choices else item.answer or ""
    return {"prompt": item.prompt, "expected": expected, "original": original.answer, "lighter": lighter.answer}


def _must_fit(engine: Engine, item: Item, tokens: int) -> None:
    if engine.context is not None and tokens > engine.context:
        raise UsageError(
            "A prompt of skill {skill} takes {tokens} tokens, more than the context of {context} of {folder}: "
            "{prompt!r}... Shorten it, or leave it out.",
            skill=item.skill,
            tokens=tokens,
            context=engine.context,
            folder=engine.folder,
            prompt=item.prompt[:60],
        )
