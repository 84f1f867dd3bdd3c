"""`distill`: one step `distill` by itself, without a recipe around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whet.errors import verb
from whet.events import OnEvent, ignore
from whet.steps import distill as step
from whet.steps.verbs import DistillVerb, takes


@verb
@takes(DistillVerb)
def distill(
    model: str | Path, out: str | Path, *, dry_run: bool = False, on_event: OnEvent = ignore, **options: Any
) -> dict[str, Any]:
    """Train a copy of the dense folder `model` to predict what `teacher` predicts, and write it to the folder `out`.

    The student keeps its shape, names and types: a pruned folder, or any with the teacher's tokenizer. text: as for
    `compress`; without it the teacher writes some. One of steps, minutes and tokens says how long. It ends with the
    weights that lose least on held-out text, or as it was where nothing better than chance was found.

    loss: how predictions are compared (`whet.distillation.DIVERGENCES`), with its parameter mix. hidden, relations:
    weights of losses on hidden states and on the last block's attention beside that. at_once: tokens that go through
    the models together, of the batch's. dry_run: check and estimate, write nothing.

    Returns a JSON-able dict: `out`, the choices, `distillation`, `training` (`steps`, `rewinds`, `held_out` with the KL
    at the `start` and at `best`), `sizes`, `kl`, `kl_error` and `top1` of what was written, `check`, `seconds`,
    `notes`. Raises UsageError for what cannot be taught and MachineError for lack of disk or memory, before the long
    part. A run that was stopped goes on with `resume(out)`, or by the same call again, to the same weights.
    """
    asked = DistillVerb.of("distill", **options)
    return step.distill(model, out, asked, seed=asked.seed, device=asked.device, dry_run=dry_run, on_event=on_event)
