"""`heal`: one step `heal` by itself, without a recipe around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whet.errors import verb
from whet.events import OnEvent, ignore
from whet.steps import heal as step
from whet.steps.verbs import HealVerb, takes


@verb
@takes(HealVerb)
def heal(
    folder: str | Path, out: str | Path, *, dry_run: bool = False, on_event: OnEvent = ignore, **options: Any
) -> dict[str, Any]:
    """Give back to the lighter `folder` skills that it has lost, into the folder `out`, and nothing of the others away.

    The original solves problems like those that were lost, those that `folder` fails count more, and `folder` practises
    them beside questions of its other skills and ordinary text. Then it answers the questions that gate once more.
    Where a skill fell, or nothing was gained by more than chance may give, all is left as it was: `out` is not made.
    The comparison in `folder` (compare.json), where there is one, names the skills that are hurt; its questions are not
    read.

    Returns a JSON-able dict: `outcome` (`healed`: every practised skill has `to` of the original's score; `better`;
    `rolled back`; `unhurt`), `reason`, `skills` (a list: skill, practised, questions, `before` and `after` with their
    intervals, `change`, fell, gained), `problems`, `how`, `sizes`, `notes`, `seconds`. Raises UsageError for wrong
    input and MachineError for lack of disk or memory, before the long part. A run that was stopped goes on with
    `resume(out)`, or by the same call again, to the same weights.
    """
    asked = HealVerb.of("heal", **options)
    return step.heal(folder, out, asked, seed=asked.seed, device=asked.device, dry_run=dry_run, on_event=on_event)
