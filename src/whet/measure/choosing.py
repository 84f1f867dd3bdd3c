"""Several models of one size on the same questions and the same text: which is best, and how sure that is.

Models may differ in everything, the tokenizer too. Questions are paired by item: what is uncertain is the difference of
two models, not the accuracy of either. Text is told in bits a byte, which does not depend on how it is cut into tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, median
from typing import Any

import numpy as np
import torch

from whet.engines import Engine
from whet.errors import UsageError
from whet.events import OnEvent, Stage, ignore
from whet.measure.items import Item, by_skill
from whet.measure.skills import score
from whet.measure.speed import DECODE_TOKENS
from whet.measure.statistics import Floats, clustered_mean, clustered_ratio, holm

ROUNDS = 5
_SURE = 0.05  # Holm's p under which one model is called better than another


@dataclass
class Answers:
    """What one model said. right: 0 or 1 by item [n]. nats, read: by document [d], -log p of it and the bytes that
    these are of. decode: seconds a token, a value for each round."""

    right: Floats
    nats: Floats
    read: Floats
    decode: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Compared:
    """One model less another, `better` above 0. p: two-sided, that there is no difference."""

    better: float
    standard_error: float
    p: float


def answers(
    engine: Engine, items: Sequence[Item], documents: Sequence[str], chat: bool = False, on_event: OnEvent = ignore
) -> Answers:
    """Put all questions to a model, and let it read the documents. Raises UsageError for a document that it cannot
    read whole."""
    outcomes = score(engine, items, chat=chat, on_event=on_event) if items else []
    nats, read = [], []
    stage = Stage(on_event, "read", len(documents))
    for document in documents:
        told = _nats(engine, document)
        nats.append(told[0])
        read.append(told[1])
        stage.step()
    right = np.array([float(outcome.right) for outcome in outcomes])
    return Answers(right, np.array(nats), np.array(read, dtype=np.float64))


def _nats(engine: Engine, document: str) -> tuple[float, int]:
    """-log p of a document in nats, and the bytes that it is of: all but those of the first token, which nothing was
    said of, unless that stands for none."""
    ids = engine.encode(document)
    if engine.context is not None and len(ids) > engine.context:
        raise UsageError(
            "A document has {tokens} tokens for {model}, more than its context of {context}.",
            tokens=len(ids),
            model=engine.folder,
            context=engine.context,
        )
    whole = len(document.encode())
    first = len(engine.decode(ids[:1]).encode())
    batch, total, position = torch.tensor([ids]), 0.0, 0
    for logits in engine.logit_chunks(batch, 2048):
        n = min(logits.shape[1], len(ids) - 1 - position)
        if n <= 0:
            break
        told = torch.log_softmax(logits[0, :n].float(), -1).cpu()
        total -= float(told.gather(-1, batch[0, position + 1 : position + 1 + n, None]).double().sum())
        position += n
    return total, max(1, whole - first)


def take_turns(engines: Sequence[Engine], prompts: Sequence[Sequence[int]], on_event: OnEvent = ignore) -> list[float]:
    """Seconds a decoded token of each model, the median over rounds in which all take turns."""
    found: list[list[float]] = [[] for _ in engines]
    stage = Stage(on_event, "speed", ROUNDS + 1)
    for number in range(ROUNDS + 1):
        for which, (engine, prompt) in enumerate(zip(engines, prompts, strict=True)):
            took = engine.time(prompt, DECODE_TOKENS).decode_seconds / DECODE_TOKENS
            if number:  # the first warms up
                found[which].append(took)
        stage.step()
    return [median(each) for each in found]


def quality(one: Answers, items: Sequence[Item]) -> float:
    """The mean over skills of the share of right answers, or without questions the bits a byte, negative."""
    if not items:
        return -bits_a_byte(one)
    return float(np.mean([one.right[places].mean() for places in by_skill(items).values()]))


def bits_a_byte(one: Answers) -> float:
    """Of all documents together."""
    return float(one.nats.sum() / math.log(2) / one.read.sum())


def difference(one: Answers, other: Answers, items: Sequence[Item]) -> Compared:
    """The quality of one model less that of another, paired.

    With questions: the mean over skills of the mean differences, each with an error clustered by group of questions.
    Without: bits a byte the other needs more, clustered by document.
    """
    if items:
        skills = []
        for places in by_skill(items).values():
            clusters = [str(p) if items[p].group is None else f"={items[p].group}" for p in places]
            skills.append(clustered_mean(one.right[places] - other.right[places], clusters))
        better = float(np.mean([skill.value for skill in skills]))
        errors = [skill.standard_error or 0.0 for skill in skills]
        error = math.sqrt(sum(each**2 for each in errors)) / len(errors)
    else:
        # documents are read whole by both, so each is of the same bytes but for a first token
        gap = (other.nats / other.read - one.nats / one.read) / math.log(2)
        told = clustered_ratio(gap * one.read, one.read, range(len(gap)))
        better, error = told.value, told.standard_error or 0.0
    if error == 0:
        return Compared(better, error, 1.0 if better == 0 else 0.0)
    return Compared(better, error, 2 * NormalDist().cdf(-abs(better) / error))


@dataclass(frozen=True)
class Choice:
    """best: the place of the model with the highest quality. against: by place what it is over each other one, with
    Holm's p. tied: places, the best among them, that it cannot be told from."""

    best: int
    against: Mapping[int, Compared]
    tied: Sequence[int]

    @property
    def sure(self) -> bool:
        """Whether it is better than every other."""
        return len(self.tied) == 1


def choose_among(models: Sequence[Answers], items: Sequence[Item]) -> Choice:
    """Which is best, and of which others that is sure: paired differences, Holm's correction over all of them."""
    best = max(range(len(models)), key=lambda place: quality(models[place], items))
    others = [place for place in range(len(models)) if place != best]
    told = [difference(models[best], models[place], items) for place in others]
    corrected = holm([each.p for each in told])
    against = {
        place: Compared(each.better, each.standard_error, p)
        for place, each, p in zip(others, told, corrected, strict=True)
    }
    return Choice(best, against, [best, *(place for place in others if against[place].p >= _SURE)])


def record(one: Answers, items: Sequence[Item]) -> dict[str, Any]:
    """Figures of one model as the result has them."""
    skills = {skill: float(one.right[places].mean()) for skill, places in by_skill(items).items()} if items else {}
    told = {"quality": quality(one, items) if items else None, "skills": skills}
    return {**told, "bits_a_byte": bits_a_byte(one) if len(one.read) else None}
