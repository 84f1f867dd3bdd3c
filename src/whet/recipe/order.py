"""The steps of a recipe, in an order that makes sense: refused before anything is done where they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whet.errors import UsageError
from whet.messages import Message
from whet.recipe.schedule import USUAL_TOKENS, Schedule, parse_schedule
from whet.recipe.schema import Recipe, step_options
from whet.recipe.trial import Planned
from whet.steps.crafts import CRAFTS
from whet.steps.distill import check as check_distill
from whet.steps.options import Compare, Distill, Options
from whet.strict import checked


def planned(recipe: Recipe, original: Path, source: str) -> tuple[list[Planned], Compare | None]:
    """The steps to try, and the options of the report. Raises UsageError naming the step, why, and what to do."""
    state: str = "dense"
    exported: str = ""
    before: Options | None = None
    steps: list[Planned] = []
    report: Compare | None = None
    for index, step in enumerate(recipe.steps):
        where = Message("{source}, steps[{index}].{craft}", source=source, index=index, craft=step.craft)
        if report is not None:
            raise UsageError(
                "{where} comes after compare, which opens the report's text and is the last step. Move it up.",
                where=where,
            )
        if step.craft == "compare":
            if step.gate or step.on_fail != "stop":
                raise UsageError("{where} has a gate. What it must show is said by its limits.", where=where)
            report = step.options
            continue
        craft = CRAFTS[step.craft]
        if state not in craft.reads:
            raise UsageError(
                "{where} would work on what an earlier step has rounded already, which loses twice. Leave one of the "
                "two, or train in between.",
                where=where,
            )
        if craft.gives is not None and exported:
            raise UsageError(
                "{where} changes the model after {exported} wrote its file. Export after the last change.",
                where=where,
                exported=exported,
            )
        exported = exported if craft.gives is not None else where
        state = state if craft.keeps else craft.gives or state
        steps.append(_planned(index + 1, step, original, where))
        try:
            craft.after(steps[-1].options, before, original)
        except UsageError as error:
            raise UsageError("{where}: {error}", where=where, error=error.message) from error
        before = steps[-1].options if craft.gives is not None else before
    if not any(CRAFTS[step.craft].gives for step in steps):
        raise UsageError("{source} has no step that changes the model. Add one, such as quantize.", source=source)
    return steps, report


def _planned(number: int, step: Any, original: Path, where: str) -> Planned:
    """One step: its options, what to do where its gate fails, and other options to try. Each is checked."""
    craft = CRAFTS[step.craft]
    if step.on_fail != "stop" and not step.gate:
        raise UsageError(
            "{where}: on_fail says what to do where the gate fails, and there is no gate. Give one.", where=where
        )
    schedule = None
    options = step_options(step, {}, where)
    if step.schedule is not None:
        options, schedule = _scheduled(step, options, where)
    tries: list[Options] = []
    if not isinstance(step.on_fail, str):
        for index, other in enumerate(step.on_fail.tries):
            tries.append(step_options(step, other, Message("{where}, on_fail.try[{index}]", where=where, index=index)))
    for one in (options, *tries):
        try:
            craft.check(one)
        except UsageError as error:
            raise UsageError("{where}: {error}", where=where, error=error.message) from error
    on_fail = step.on_fail if isinstance(step.on_fail, str) else "stop"
    if on_fail == "halve" and craft.halved(options, original) is None:
        raise UsageError(
            "{where}: on_fail halve goes half the way back to the original, and these options have no half. Give a "
            "budget (fit, bits, quality), or other options: {{try: [...]}}.",
            where=where,
        )
    return Planned(number, step.craft, options, step.gate, on_fail, tuple(tries), schedule)


def _scheduled(step: Any, options: Options, where: str) -> tuple[Options, Schedule]:
    """The options of a step with a schedule, and that. Raises UsageError for a step that has none, or no gate."""
    said = step.schedule
    if step.craft != "prune":
        raise UsageError("{where} has a schedule, and prune alone is done in smaller steps. Leave it out.", where=where)
    if not step.gate or not isinstance(step.on_fail, str) or step.on_fail == "halve":
        raise UsageError(
            "{where} has a schedule: each of its steps needs a gate to stand, and is halved where that fails. Give a "
            "gate, and leave on_fail out or say skip.",
            where=where,
        )
    whole = getattr(options, "remove", None)
    if (whole is None) == (said.remove is None):
        raise UsageError(
            "{where} and its schedule need one remove between them, the share that goes in all: 45%.", where=where
        )
    training = dict(said.train)
    if not {"steps", "minutes", "tokens"} & set(training):
        training["tokens"] = USUAL_TOKENS
    taught = checked(Distill, training, Message("{where}, schedule.train", where=where))
    try:
        check_distill(taught)
        found = parse_schedule(whole or said.remove, said.step, said.shape, taught)
    except UsageError as error:
        raise UsageError("{where}, schedule: {error}", where=where, error=error.message) from error
    return options.model_copy(update={"remove": found.share}), found
