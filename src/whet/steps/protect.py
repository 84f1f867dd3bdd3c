"""Skills and languages that a step is to keep: their text counts as much as all other text together.

What is chosen, fitted and tried then looks at them as often as at everything else: half of the tokens that are
calibrated on, and half of those that decide, are questions of the skills with their answers, or text in the languages.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.checkpoint import Checkpoint, load_tokenizer
from whet.errors import UsageError, did_you_mean
from whet.measure.items import Item, by_skill, read_skills
from whet.messages import Message
from whet.steps.material import Material
from whet.steps.score import language
from whet.text import encode

LANGUAGES = {"korean": "ko", "english": "en"}
_VERIFY = 5  # of so many groups of questions one is kept from solving


def protected(
    material: Material,
    names: Sequence[str],
    skills: str | Path | Sequence[Mapping[str, Any]] | None,
    checkpoint: Checkpoint,
    seed: int,
) -> Material:
    """`material` with as many tokens more of what `names` say, each the same share of them: skills among the questions
    `skills` (.jsonl, or records; `arithmetic` is `arithmetic_en` and `arithmetic_ko`), or languages of `LANGUAGES`
    among those and the text.

    Raises UsageError for a name that is neither, for a language that nothing is in, and where there is no text.
    """
    if not material.solve or not material.verify:
        raise UsageError(
            "protect weighs skills and languages against other text, and there is none to calibrate on and decide by. "
            "Give more with --text."
        )
    items = [] if skills is None else read_skills(skills)
    _check(names, items)
    tokenizer = load_tokenizer(checkpoint.path)
    chance = random.Random(f"protect {seed}")
    told: dict[str, int] = {}
    found: list[list[Tensor]] = []
    for place, (windows, mine) in enumerate(
        zip((material.solve, material.verify), _halves(items, chance), strict=True)
    ):
        size, tokens = max(map(len, windows)), sum(map(len, windows)) // len(names)
        more: list[Tensor] = []
        for name in names:
            rows = _rows(name, windows, mine, tokenizer)
            if not rows:
                raise UsageError(
                    "protect {name}: nothing of it is in the text and the questions. Give questions with --skills "
                    "FILE, or more text.",
                    name=name,
                )
            taken = _filled(rows, size, tokens, chance)
            more += taken
            if not place:
                told[name] = sum(map(len, taken))
        found.append(_mixed(windows, more))
    about = {**(material.about or {}), "protected": told}
    return dataclasses.replace(material, solve=found[0], verify=found[1], about=about)


def _check(names: Sequence[str], items: Sequence[Item]) -> None:
    known = [*dict.fromkeys(name for item in items for name in reversed(_names(item))), *LANGUAGES]
    for name in names:
        if name not in known:
            raise UsageError(
                "protect {name!r} is no skill of the questions and no language.{near} Skills (of --skills FILE) and "
                "languages: {known}.",
                name=name,
                near=did_you_mean(name, known),
                known=", ".join(known),
            )
    if not names:
        raise UsageError("protect is empty. Give one or more of {known}.", known=", ".join(known))


def _halves(items: Sequence[Item], chance: random.Random) -> tuple[list[Item], list[Item]]:
    """Questions to solve on and questions to decide by, of every skill; those of one group are on one side."""
    sides: tuple[list[Item], list[Item]] = ([], [])
    for places in by_skill(items).values():
        groups = list(dict.fromkeys(items[place].group or items[place].prompt for place in places))
        chance.shuffle(groups)
        apart = set(groups[::_VERIFY])
        for place in places:
            sides[(items[place].group or items[place].prompt) in apart].append(items[place])
    return sides


def _rows(name: str, windows: Sequence[Tensor], items: Sequence[Item], tokenizer: Any) -> list[list[int]]:
    """Rows of tokens that are of a skill, or in a language."""
    if name not in LANGUAGES:
        return encode([_asked(item) for item in items if name in _names(item)], tokenizer)
    code = LANGUAGES[name]
    rows = [window.tolist() for window in windows if language(tokenizer.decode(window)) == code]
    return rows + encode([text for text in map(_asked, items) if language(text) == code], tokenizer)


def _names(item: Item) -> tuple[str, str]:
    """What the skill of an item may be called: `arithmetic_ko`, or `arithmetic` for it and all that begin so."""
    return item.skill, item.skill.partition("_")[0]


def _asked(item: Item) -> str:
    """A question and its right answer."""
    return f"{item.prompt} {item.answer}" if item.answer is not None else item.prompt + item.choices[item.label]


def _filled(rows: list[list[int]], size: int, tokens: int, chance: random.Random) -> list[Tensor]:
    """About `tokens` in windows of `size`, filled with rows one behind the other; rows come again where they are
    few."""
    found: list[Tensor] = []
    held: list[int] = []
    while not found or len(found) * size < tokens:
        order = rows.copy()
        chance.shuffle(order)
        for row in order:
            held += row
            if len(held) >= size:
                found.append(torch.tensor(held[:size]))
                held = []
            if found and len(found) * size >= tokens:
                break
    return found


def _mixed(windows: Sequence[Tensor], more: Sequence[Tensor]) -> list[Tensor]:
    """Both in turns, so that the first of them are of both."""
    every = [(number / len(some), window) for some in (windows, more) for number, window in enumerate(some)]
    return [window for _, window in sorted(every, key=lambda one: one[0])]


def about_protected(material: Material) -> list[Message]:
    """A note on what is protected."""
    told = (material.about or {}).get("protected", {})
    return [
        Message("protected: {name}, on {tokens} tokens that count beside the text", name=name, tokens=tokens)
        for name, tokens in told.items()
    ]
