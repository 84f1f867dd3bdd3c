"""`prune`: one step `prune` by itself, without a recipe around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whet.errors import verb
from whet.events import OnEvent, ignore
from whet.steps import prune as step
from whet.steps.verbs import PruneVerb, takes


@verb
@takes(PruneVerb)
def prune(
    model: str | Path, out: str | Path, *, dry_run: bool = False, on_event: OnEvent = ignore, **options: Any
) -> dict[str, Any]:
    """Write a smaller copy of `model` into the folder `out`: a model of the same family, in the same types.

    What goes is said in one of two ways. remove: the share of the parameters of the blocks; embedding and head stay.
    vocab and keep_languages: tokens; those stay that occur min_count times in the text vocab (a path or documents), and
    those of the scripts of languages such as `ko,en`.

    units, with remove: what may go, `layers` (whole blocks), `channels` (of feed-forwards), `heads` (key and value
    heads with their queries) and `experts`. Where several shapes come to the share they are tried, and the one that
    differs least from the original on the verifying text is taken. importance: by what units are chosen: `obs`
    (channels and heads: what taking one costs once others have made up for it), `wanda`, `leverage`, `activation`,
    `magnitude` (which needs no text), `divergence` (blocks: the KL without each), `perplexity`, `influence`, `reap`
    (experts), `frequency`. merge: experts that go are merged into those that stay. repair: weights that stay are fitted
    to what the original computes. text, eval_text, samples, window: as for `compress`. dry_run: check and estimate,
    write nothing.

    Returns a JSON-able dict: `out`, the choices, `removed` (the share that went), `amounts` (how many of each unit
    stay), `kept` (which), `trials`, `importance` (by unit, by what it was chosen), `merged` (experts, by block and the
    one they went into), `sizes`, `kl` on verifying text (nats per token), `check`, `seconds`, `notes`; where tokens go,
    what `whet.steps.vocabulary.cut_vocabulary` returns. Raises UsageError for what cannot be taken and MachineError for
    lack of disk or memory, before the long part. A run that was stopped goes on with `resume(out)`, or by the same call
    again.
    """
    asked = PruneVerb.of("prune", **options)
    return step.prune(model, out, asked, seed=asked.seed, device=asked.device, dry_run=dry_run, on_event=on_event)
