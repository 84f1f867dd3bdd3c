"""`dynamic`: one step `dynamic` by itself, without a recipe around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whet.errors import verb
from whet.events import OnEvent, ignore
from whet.steps import dynamic as step
from whet.steps.verbs import DynamicVerb, takes


@verb
@takes(DynamicVerb)
def dynamic(
    model: str | Path, out: str | Path, *, dry_run: bool = False, on_event: OnEvent = ignore, **options: Any
) -> dict[str, Any]:
    """Make of `model` a folder `out` that decides at run time how much of the model is used, trained on text.

    With active a prompt chooses channels of the feed-forward, which are sliced once for it; with agreement tokens leave
    after some of the blocks where what they would predict is sure, and the threshold is calibrated so that at least so
    many are the whole model's. `whet.generate(out, prompt, active="50%")` and `early_exit=True` use it; whatever else
    loads the folder runs the whole model. dry_run: check and estimate, write nothing.

    Returns a JSON-able dict: `out`, `kind`, the choices, `held_out` (of the training), `sizes` of `bytes` on disk,
    `stored` and `bytes` (of what lies beside the model), `check`, `notes`, `seconds`; of channels `active_sizes`, by
    share what is in use and lost; of exits `threshold`, `calibrated` and `report`. Raises UsageError for options,
    models and text that cannot be, MachineError for lack of disk or memory, before anything is written; GateError
    where no threshold keeps the agreement. A run that was stopped goes on with `resume(out)`, or by the same call
    again.
    """
    asked = DynamicVerb.of("dynamic", **options)
    return step.dynamic(model, out, asked, seed=asked.seed, device=asked.device, dry_run=dry_run, on_event=on_event)
