"""Problems of a skill with solutions that the original writes: what a lighter model practises to get the skill back.

A problem is a question of which the original's own answer is right; or a variant of one, with other numbers, to which
no answer is known: it counts where the original is sure of every token of its answer. Nothing is made up beyond that.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch

from whet.engines import Engine
from whet.events import OnEvent, Stage, ignore
from whet.measure.items import Item, by_skill, is_right
from whet.measure.skills import CHOICE_TOKENS, LONGEST_ANSWER, choice_rows, score
from whet.text import batch_indices

SURE = 0.9  # the chance that the original gives every token of an answer that nothing else vouches for
_TRIES = 20  # of a variant, for each that is wanted
_AT_ONCE = 512  # problems that are answered between two signs of life
_WHOLE = re.compile(r"\d+")


@dataclass(frozen=True)
class Problem:
    """A question and the original's answer as tokens, the answer from `start` on. failed: the lighter model answers
    otherwise."""

    item: Item
    tokens: tuple[int, ...]
    start: int
    failed: bool = False


def in_halves(items: Sequence[Item], seed: int) -> tuple[list[Item], list[Item]]:
    """Questions to practise on and to gate with, half of the groups of each skill each; the same prompt is on one side.
    A skill of one question gates."""
    learnt, gate = list[Item](), list[Item]()
    for skill, places in by_skill(items).items():
        names = {place: items[place].group or f"\0{items[place].prompt}" for place in places}
        groups = list(dict.fromkeys(names.values()))
        random.Random(f"{seed} {skill}").shuffle(groups)
        taken = set(groups[: len(groups) // 2])
        for place in places:
            (learnt if names[place] in taken else gate).append(items[place])
    return learnt, gate


def variants(items: Sequence[Item], count: int, seed: int, avoid: Sequence[Item]) -> list[Item]:
    """At most `count` questions like those of `items` whose answer is a number, with other numbers of as many digits;
    their answers are not known. None has the numbers of a question in `avoid`, in whatever words, or comes twice."""
    draws = random.Random(f"{seed} variants")
    sources = [item for item in items if item.check == "number" and not item.choices and _WHOLE.search(item.prompt)]
    taken = {_numbers(item.prompt) for item in avoid}
    seen, found = {item.prompt for item in items}, list[Item]()
    for _ in range(_TRIES * count if sources else 0):
        if len(found) == count:
            break
        source = draws.choice(sources)
        prompt = _WHOLE.sub(lambda match: _other(match[0], draws), source.prompt)
        if prompt not in seen and _numbers(prompt) not in taken:
            seen.add(prompt)
            found.append(Item(source.skill, prompt, check="number"))
    return found


def _other(digits: str, draws: random.Random) -> str:
    """A number of as many digits; 0 stays, and so do leading zeros' places."""
    if int(digits) == 0:
        return digits
    return str(draws.randint(10 ** (len(digits) - 1), 10 ** len(digits) - 1))


def _numbers(text: str) -> tuple[str, ...]:
    """The numbers of a text, in order of size, as the same sum may be asked the other way round."""
    return tuple(sorted(_WHOLE.findall(text)))


def solved(
    original: Engine,
    items: Sequence[Item],
    *,
    chat: bool = False,
    on_event: OnEvent = ignore,
    stage: str = "solve",
) -> list[Problem]:
    """The problems among `items`: those that the original answers right, or surely where no answer is known. Answers
    that are cut off before the line ends are none. In the order of the items."""
    free = [item for item in items if not item.choices]
    chosen = [item for item in items if item.choices]
    found: dict[int, Problem] = {}
    places = {id(item): place for place, item in enumerate(items)}
    parts = [free[first : first + _AT_ONCE] for first in range(0, len(free), _AT_ONCE)]
    progress = Stage(on_event, stage, len(parts) + bool(chosen))
    for part in parts:
        for item, problem in zip(part, _answered(original, part, chat), strict=True):
            if problem is not None:
                found[places[id(item)]] = problem
        progress.step()
    if chosen:
        for item, outcome in zip(chosen, score(original, chosen, chat=chat), strict=True):
            if outcome.right:
                rows, start = choice_rows(original, item, chat)
                found[places[id(item)]] = Problem(item, tuple(rows[item.label]), start)
        progress.step()
    return [found[place] for place in sorted(found)]


def _answered(engine: Engine, items: Sequence[Item], chat: bool) -> list[Problem | None]:
    """What the engine makes of questions with free answers."""
    prompts = [engine.encode(item.prompt, chat=chat) for item in items]
    fitting = [i for i, prompt in enumerate(prompts) if engine.context is None or len(prompt) < engine.context]
    found: list[Problem | None] = [None] * len(items)
    if not fitting:
        return found
    longest = max(len(prompts[i]) for i in fitting)
    room = LONGEST_ANSWER if engine.context is None else min(LONGEST_ANSWER, engine.context - longest)
    answers = engine.continue_ids([prompts[i] for i in fitting], room, stop_at_newline=True)
    unknown = [(i, [*prompts[i], *new]) for i, new in zip(fitting, answers, strict=True) if items[i].answer is None]
    least = least_chances(engine, [row for _, row in unknown], [len(prompts[i]) for i, _ in unknown])
    sure = {i for (i, _), chance in zip(unknown, least, strict=True) if chance >= SURE}
    for i, new in zip(fitting, answers, strict=True):
        text, known = engine.decode(new), items[i].answer
        said, ended = text.split("\n")[0].strip(), len(new) < room or "\n" in text
        right = i in sure if known is None else is_right(said, known, items[i].check)
        if right and ended and said:
            found[i] = Problem(items[i], (*prompts[i], *new), len(prompts[i]))
    return found


def least_chances(engine: Engine, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> list[float]:
    """Of each row of tokens the least chance that the engine gives one of its tokens from `start` on, after those
    before it; 0 where there is none."""
    found = [0.0] * len(rows)
    for group in batch_indices([len(row) for row in rows], CHOICE_TOKENS):
        batch = torch.tensor([list(rows[i]) for i in group])
        shares, position = [], 0
        for logits in engine.logit_chunks(batch, CHOICE_TOKENS):
            width = min(logits.shape[1], batch.shape[1] - 1 - position)
            following = batch[:, position + 1 : position + 1 + width, None].to(logits.device)
            shares.append(torch.log_softmax(logits[:, :width].float(), -1).gather(-1, following)[..., 0].cpu())
            position += width
        every = torch.cat(shares, 1)
        for row, i in enumerate(group):
            answer = every[row, starts[i] - 1 :]
            found[i] = float(answer.min().exp()) if answer.numel() else 0.0
    return found


def with_failures(
    lighter: Engine, problems: Sequence[Problem], *, chat: bool = False, on_event: OnEvent = ignore, stage: str = "fail"
) -> list[Problem]:
    """`problems` with those marked that the lighter model would answer otherwise than the original: a token of the
    answer is not its first choice, or the right one is not the likeliest choice."""
    free = [place for place, one in enumerate(problems) if not one.item.choices]
    chosen = [place for place, one in enumerate(problems) if one.item.choices]
    parts = [free[first : first + _AT_ONCE] for first in range(0, len(free), _AT_ONCE)]
    progress, failed = Stage(on_event, stage, len(parts) + bool(chosen)), set[int]()
    for part in parts:
        failed |= {part[i] for i in _otherwise(lighter, [problems[place] for place in part])}
        progress.step()
    if chosen:
        outcomes = score(lighter, [problems[place].item for place in chosen], chat=chat)
        failed |= {place for place, outcome in zip(chosen, outcomes, strict=True) if not outcome.right}
        progress.step()
    return [replace(one, failed=place in failed) for place, one in enumerate(problems)]


def _otherwise(engine: Engine, problems: Sequence[Problem]) -> Collection[int]:
    """The places of problems of which some token of the answer is not what the engine finds likeliest."""
    failed = set[int]()
    for group in batch_indices([len(one.tokens) for one in problems], CHOICE_TOKENS):
        batch = torch.tensor([problems[i].tokens for i in group])
        picks = [logits.argmax(-1).cpu() for logits in engine.logit_chunks(batch, CHOICE_TOKENS)]
        same = torch.cat(picks, 1)[:, :-1] == batch[:, 1:]
        failed |= {i for row, i in enumerate(group) if not bool(same[row, problems[i].start - 1 :].all())}
    return failed
