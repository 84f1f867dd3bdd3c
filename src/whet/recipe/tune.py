"""`tune`: one step `tune` by itself, without a recipe around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whet.errors import verb
from whet.events import OnEvent, ignore
from whet.steps import tune as step
from whet.steps.verbs import TuneVerb, takes


@verb
@takes(TuneVerb)
def tune(
    model: str | Path, out: str | Path, *, dry_run: bool = False, on_event: OnEvent = ignore, **options: Any
) -> dict[str, Any]:
    """Train an adapter of `model`, an original or a folder that whet quantized, on text, into the folder `out`.

    `out` is an adapter that PEFT loads, or with merge (and of full always) a whole model. text: a path or hub name,
    documents, or windows, int64 `[n, L]`; of conversations the replies alone are learnt. Held-out text tells which
    iterate is kept; where nothing was gained by more than its standard error, the start. dry_run: check and estimate,
    write nothing.

    Returns a JSON-able dict: `out`, `adapter`, `rank`, `alpha`, `modules`, `steps`, `learning_rate`, `trained`
    (parameters), `held_out` (`start`, `best`, `error` of what was gained, `step`, `helped`), `check`, `notes`,
    `seconds`; `bytes` of an adapter, `sizes` and `difference` of a model. Raises UsageError for options, targets and
    text that cannot be, MachineError for lack of disk or memory, before anything is written. A run that was stopped
    goes on with `resume(out)`, or by the same call again, to the same weights.
    """
    asked = TuneVerb.of("tune", **options)
    return step.tune(model, out, asked, seed=asked.seed, device=asked.device, dry_run=dry_run, on_event=on_event)
