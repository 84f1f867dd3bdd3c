"""Skills: items scored for both models, and what changed between them.

An average hides a ruined skill, and an unchanged accuracy hides answers that changed both ways: so figures are by skill
and flips are counted ("Accuracy is Not All You Need", NeurIPS 2024, arXiv 2407.09141).

Items about one thing, such as a passage, a dialogue or a pair of numbers, are right or wrong together: where they name
it as their `group`, error bars count groups and not items (Miller 2024, arXiv 2411.00640).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from whet.engines import Engine
from whet.errors import UsageError
from whet.events import OnEvent, Stage, ignore
from whet.measure.items import LONGEST_ANSWER, Item, by_skill, is_right
from whet.measure.statistics import clustered_mcnemar, holm, independent_items, paired_difference, wilson
from whet.messages import Message
from whet.text import batch_indices

PROMPTS_AT_ONCE = 64
CHOICE_TOKENS = 4096  # tokens in a batch of choices


@dataclass(frozen=True)
class Outcome:
    """What a model did with an item: its answer, whether it is right, and for choices whether length-normalized too."""

    answer: str
    right: bool
    right_normalized: bool | None = None


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
    """Outcomes of items with choices."""
    outcomes = []
    for item, sums in zip(items, choice_likelihoods(engine, items, chat), strict=True):
        best = max(range(len(sums)), key=lambda i: sums[i])
        per_byte = [total / len(choice.encode()) for total, choice in zip(sums, item.choices, strict=True)]
        best_per_byte = max(range(len(sums)), key=lambda i: per_byte[i])
        outcomes.append(Outcome(item.choices[best], best == item.label, best_per_byte == item.label))
    return outcomes


def choice_likelihoods(engine: Engine, items: Sequence[Item], chat: bool = False) -> list[list[float]]:
    """Of each item the log-likelihood of each of its choices, as `score` compares them; all are batched by length.

    Raises UsageError for a prompt that does not fit the model's context.
    """
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
    found, first = [], 0
    for item in items:
        found.append(totals[first : first + len(item.choices)])
        first += len(item.choices)
    return found


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
    items: Sequence[Item],
    original: Sequence[Outcome],
    lighter: Sequence[Outcome],
    examples: int = 3,
    confidence: float = 0.95,
) -> list[dict[str, Any]]:
    """One entry a skill, in the order in which skills first come, from the outcomes of both models on `items`.

    items and how many groups they are; accuracy of both with Wilson intervals; chance; retention = (lighter - chance) /
    (original - chance) with the score interval of the paired difference, the original's accuracy taken as given (None,
    with the reason, where the original is not above chance by its own interval); flips both ways, up to `examples` of
    each with the prompt and both answers; the exact McNemar p and Holm's over the skills. Intervals and p go by groups
    where items have them (`independent_items`, `clustered_mcnemar`); `confidence` is that of retention's interval,
    others have 95 %.
    """
    table: list[dict[str, Any]] = []
    for skill, mine in by_skill(items).items():
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
            "retention": _retention(accuracies[0], accuracies[1], chance, flips, groups, confidence),
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
    original: Mapping[str, Any],
    lighter: Mapping[str, Any],
    chance: float,
    flips: Sequence[int],
    groups: Sequence[int],
    confidence: float,
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
    weight = independent_items(flips, groups, confidence) / len(flips)
    low, high = paired_difference(flips.count(-1) * weight, flips.count(1) * weight, len(flips) * weight, confidence)
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
