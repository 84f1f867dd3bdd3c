"""`merge`: an adapter that becomes a part of the model it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whet.errors import verb
from whet.events import OnEvent, ignore
from whet.steps import merge as step
from whet.steps.verbs import MergeVerb, takes


@verb
@takes(MergeVerb)
def merge(
    base: str | Path,
    adapter: str | Path,
    out: str | Path,
    *,
    dry_run: bool = False,
    on_event: OnEvent = ignore,
    **options: Any,
) -> dict[str, Any]:
    """Write `base` with the adapter in the folder `adapter`, whet's or PEFT's, as a part of it into the folder `out`.

    Into weights it is added in float32 and rounded to their type. Into a quantized base it goes exactly where its zeros
    are real numbers and the adapter adds the same to all weights of a group (kind qalora): codes stay as they are, and
    undo takes it out again. Otherwise it is kept beside the codes in the folder, and a note says so.

    Returns a JSON-able dict: `out`, `how` (weights, exact, beside, round, dense), `sizes`, `check` (with `logits`, the
    largest difference from base and adapter), `notes`, `seconds`; of weights `difference` (what rounding took of what
    was added); of round `kl`. Raises UsageError for adapters that are not for this model or cannot go as was asked for.
    """
    asked = MergeVerb.of("merge", **options)
    how = {"seed": asked.seed, "device": asked.device}
    return step.merge(base, adapter, out, asked, **how, dry_run=dry_run, on_event=on_event)  # type: ignore[arg-type]
