"""`prune`: one step `prune` by itself, without a recipe around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whet.errors import verb
from whet.events import OnEvent, ignore
from whet.steps import prune as step
from whet.steps.options import PruneVerb, takes


@verb
@takes(PruneVerb)
def prune(
    model: str | Path, out: str | Path, *, dry_run: bool = False, on_event: OnEvent = ignore, **options: Any
) -> dict[str, Any]:
    """Write a smaller copy of `model` into the folder `out`: a model of the same family, in the same types.

    remove: the share of the parameters of the blocks that goes; embedding and head stay. units: what may go, `layers`
    (whole blocks), `channels` (of feed-forwards), `heads` (key and value heads with their queries) and `experts`. Where
    several shapes come to the share, they are tried, and the one that differs least from the original on the verifying
    text is taken. importance: by what units are chosen; `obs` (channels and heads, what taking one costs once others
    have made up for it), `wanda`, `leverage`, `activation`, `magnitude` (which needs no text), `divergence` (blocks,
    the KL without each), `perplexity`, `influence`, `reap` (experts), `frequency`. repair: weights that stay are fitted
    to what the original computes. Or tokens go: vocab (a text whose tokens stay, a path or documents, those that occur
    min_count times) and keep_languages (`ko,en`: tokens of their scripts stay too). text, eval_text, samples, window: as for `compress`. dry_run: check and estimate,
    write nothing.

    Returns a JSON-able dict: `out`, the choices, `removed` (the share that went), `amounts` (how many of each unit
    stay), `kept` (which), `trials`, `sizes`, `kl` on verifying text (nats per token), `check`, `seconds`, `notes`; or of
    tokens what `whet.steps.vocabulary.cut_vocabulary` does. Raises UsageError for what cannot be taken and MachineError for lack of disk or memory, before the long part. A run
    that was stopped goes on with `resume(out)`, or by the same call again.
    """
    asked = PruneVerb.of("prune", **options)
    return step.prune(model, out, asked, seed=asked.seed, device=asked.device, dry_run=dry_run, on_event=on_event)
