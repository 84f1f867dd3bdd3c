"""The steps of a recipe, in an order that makes sense: refused before anything is done where they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whet.errors import UsageError
from whet.recipe.schema import Recipe, step_options
from whet.recipe.trial import Planned
from whet.steps.crafts import CRAFTS
from whet.steps.options import Compare, Options


def planned(recipe: Recipe, original: Path, source: str) -> tuple[list[Planned], Compare | None]:
    """The steps to try, and the options of the report. Raises UsageError naming the step, why, and what to do."""
    state, exported = "dense", ""
    steps: list[Planned] = []
    report: Compare | None = None
    for index, step in enumerate(recipe.steps):
        where = f"{source}, steps[{index}].{step.craft}"
        if report is not None:
            raise UsageError(
                f"{where} comes after compare, which opens the report's text and is the last step. Move it up."
            )
        if step.craft == "compare":
            if step.gate or step.on_fail != "stop":
                raise UsageError(f"{where} has a gate. What it must show is said by its limits.")
            report = step.options
            continue
        craft = CRAFTS[step.craft]
        if state not in craft.reads:
            raise UsageError(
                f"{where} would work on what an earlier step has rounded already, which loses twice. Leave one of the "
                "two, or train in between."
            )
        if craft.gives is not None and exported:
            raise UsageError(
                f"{where} changes the model after {exported} wrote its file. Export after the last change."
            )
        exported = exported if craft.gives is not None else where
        state = craft.gives or state
        steps.append(_planned(index + 1, step, original, where))
    if not any(CRAFTS[step.craft].gives for step in steps):
        raise UsageError(f"{source} has no step that changes the model. Add one, such as quantize.")
    return steps, report


def _planned(number: int, step: Any, original: Path, where: str) -> Planned:
    """One step: its options, what to do where its gate fails, and other options to try. Each is checked."""
    craft = CRAFTS[step.craft]
    if step.on_fail != "stop" and not step.gate:
        raise UsageError(f"{where}: on_fail says what to do where the gate fails, and there is no gate. Give one.")
    options = step_options(step, {}, where)
    tries: list[Options] = []
    if not isinstance(step.on_fail, str):
        for index, other in enumerate(step.on_fail.tries):
            tries.append(step_options(step, other, f"{where}, on_fail.try[{index}]"))
    for one in (options, *tries):
        try:
            craft.check(one)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
    on_fail = step.on_fail if isinstance(step.on_fail, str) else "stop"
    if on_fail == "halve" and craft.halved(options, original) is None:
        raise UsageError(
            f"{where}: on_fail halve goes half the way back to the original, and these options have no half. Give a "
            "budget (fit, bits, quality), or other options: {try: [...]}."
        )
    return Planned(number, step.craft, options, step.gate, on_fail, tuple(tries))
