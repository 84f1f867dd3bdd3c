"""The stages of a step in their order, each with about how long it takes: what `whet.events.Way` makes one way of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whet.apply.job import Job
from whet.budget.mix import Budget
from whet.checkpoint import Checkpoint
from whet.events import Part
from whet.measure.items import Item
from whet.measure.sides import item_tokens, seconds_a_token
from whet.steps.estimate import scoring_seconds, seconds_by_stage
from whet.steps.rounds import ALONE, QUALITY_ROUNDS, TRIED
from whet.steps.score import scored_tokens

# Seconds a byte that reading takes, with its hash and the proof that it is finite.
_READING = 1e-9
# Seconds that opening and hashing what was written takes, at least.
_FINISHING = 0.3
# Tokens of questions that are answered one after another, over tokens that are read.
_ANSWERING = 4.0


def course(job: Job) -> list[Part]:
    """The stages of a run by a scheme or a plan."""
    times = seconds_by_stage(job)
    return [reading(job.checkpoint), *_before(times), *_rounding(job, times)]


def transform_course(job: Job) -> list[Part]:
    """The stages of a step that folds a transform in and rounds nothing."""
    return [reading(job.checkpoint), *_before(seconds_by_stage(job)), _end()]


def round_course(job: Job) -> list[Part]:
    """The stages of one round of a budget's run, which begins with text and transform made."""
    return _rounding(job, seconds_by_stage(job))


def budget_course(job: Job, budget: Budget, items: Sequence[Item]) -> list[Part]:
    """The stages of a run to a budget. How many rounds it takes is not known beforehand."""
    times = seconds_by_stage(job)
    one = sum(part.seconds for part in _rounding(job, times))
    asking = [Part("skills", _asking(job, items))] * bool(items)
    if budget.kind == "quality":
        made = Part("round", one + ALONE * times["compress"])
        rounds = [made, *asking, *asking, *[made, *asking] * (QUALITY_ROUNDS // 2 - 1)]
    else:
        rounds = [Part("round", (TRIED + ALONE) * one), Part("round", one), *asking, *asking]
    return [reading(job.checkpoint), *_before(times), scoring(job, items), *rounds, _end()]


def estimated_course(job: Job, stages: Mapping[str, float]) -> list[Part]:
    """The stages of a run whose seconds are estimated one by one, after the original is read."""
    return [reading(job.checkpoint), *(Part(name, seconds) for name, seconds in stages.items())]


def reading(checkpoint: Checkpoint) -> Part:
    """Reading the original whole."""
    return Part("read", _READING * checkpoint.nbytes)


def scoring(job: Job, items: Sequence[Item] = ()) -> Part:
    """Scoring every part, on text and on questions."""
    walks, tokens = scored_tokens(job.tokens)
    return Part("score", scoring_seconds(job, walks * tokens + item_tokens(items)))


def _asking(job: Job, items: Sequence[Item]) -> float:
    """Seconds in which a model answers questions."""
    return _ANSWERING * item_tokens(items) * seconds_a_token(job.original.path)


def _before(times: Mapping[str, float]) -> list[Part]:
    """Text that the model writes, and what is folded in."""
    names = [name for name in ("write", "propose", "follow", "learn", "transform", "score") if name in times]
    judging = [Part("judge", times["judge"] / 2)] * 2 if "judge" in times else []
    return [*(Part(name, times[name]) for name in names), *judging]


def _rounding(job: Job, times: Mapping[str, float]) -> list[Part]:
    """What comes after that: rounding, verifying, writing down."""
    names = [name for name in ("curvature", "compress", "tune", "verify") if name in times]
    alone = [Part("marginal", job.marginal * times["compress"])] if job.marginal else []
    return [*(Part(name, times[name]) for name in names), *alone, _end()]


def _end() -> Part:
    """Proof, card and manifest."""
    return Part("finish", _FINISHING)
