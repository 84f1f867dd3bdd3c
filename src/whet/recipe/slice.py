"""`slice`: one step `slice` by itself, without a recipe around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whet.errors import verb
from whet.events import OnEvent, ignore
from whet.steps import slice as step
from whet.steps.verbs import SliceVerb, takes


@verb
@takes(SliceVerb)
def slice(
    model: str | Path, out: str | Path, *, dry_run: bool = False, on_event: OnEvent = ignore, **options: Any
) -> dict[str, Any]:
    """Cut a smaller model from the elastic folder `model` (`prune` with elastic makes one) into the folder `out`.

    It takes seconds and no text, and no weight moves: the first channels and heads of every block stay, of the blocks
    that the folder names for the size. size: one of those in the folder, or 100% for all of it. dry_run: check and
    estimate, write nothing.

    Returns a JSON-able dict: `out`, the choices, `removed` (the share that went), `amounts` (how many of each unit
    stay), `kept` (which), `sizes`, `kl` and `top1` as they were measured when the folder was made, `check`, `seconds`,
    `notes`. Raises UsageError for a folder that is not elastic or has no such size, and MachineError for lack of disk
    or memory, before anything is written. A run that was stopped goes on with `resume(out)`, or by the same call again.
    """
    asked = SliceVerb.of("slice", **options)
    return step.slice(model, out, asked, device=asked.device, dry_run=dry_run, on_event=on_event)
