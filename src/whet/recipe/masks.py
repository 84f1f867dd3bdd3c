"""`masks`: one step `masks` by itself, without a recipe around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whet.errors import verb
from whet.events import OnEvent, ignore
from whet.steps import masks as step
from whet.steps.verbs import MasksVerb, takes


@verb
@takes(MasksVerb)
def masks(
    model: str | Path, out: str | Path, *, dry_run: bool = False, on_event: OnEvent = ignore, **options: Any
) -> dict[str, Any]:
    """Write a copy of `model` into the folder `out` in which some weights of the blocks' linears are exactly 0.

    Names, types and config.json stay, so what loads the original loads it. Nothing gets smaller by it: `compress` makes
    it so, and keeps the zeros. (Masks and codes from one solve, `compress` with `sparsity`, lose less than both apart.)

    How much is said by remove, a share of every linear's weights, or pattern, n:m. importance: `sparsegpt` (what taking
    a weight costs once others have made up for it), `wanda` (while others stay) or `magnitude`, which needs no text.
    within: whether a share is of every `row` or of the `matrix`. update: weights that stay make up for those that are
    taken, which are then chosen in stages. allocation: `uniform`, or `owl`, which takes less of blocks with more
    outliers. text, eval_text, samples, window: as for `compress`. dry_run: check and
    estimate, write nothing.

    Returns a JSON-able dict: `out`, the choices, `sizes`, `kl` on verifying text (nats per token), `linears` with the
    share of each one's output that is lost, `seconds`, `notes`. Raises UsageError for wrong input and MachineError for
    lack of disk or memory, before the long part. A run that was stopped goes on with `resume(out)`, or by the same call
    again.
    """
    asked = MasksVerb.of("masks", **options)
    return step.masks(model, out, asked, seed=asked.seed, device=asked.device, dry_run=dry_run, on_event=on_event)
