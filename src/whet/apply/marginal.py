"""What each lighter part loses by itself, measured: the next plan is made from it.

Predictions leave out what gradients cannot tell: that large errors are no longer small changes, and that positions
depend on each other. On the embedded model at 3.5 bits, parts on 2 bits lost up to 1.6 times what was predicted, first
attention projections 0.4 to 0.8 times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Linear
from whet.apply.job import BATCH_TOKENS, Job
from whet.apply.shards import Shards
from whet.budget import tables
from whet.events import Stage
from whet.measure.divergence import score_tokens
from whet.text import batches
from whet.walk import ORIGINAL, Swaps

# Blocks that are run on a token while solving: two streams, the second moments' pass, and as much again for the solver.
SOLVING = 6
_SLOWER = 2.3  # times that float32 takes as long as the type a run computes in, measured for bfloat16 on x86-64
ROOM = 2**31  # bytes of hidden states that are followed
_FEWEST = 1024  # tokens below which a measured loss says less than a predicted one


def marginal_losses(job: Job, shards: Shards, table: Tensor | None) -> dict[str, Any]:
    """KL(original ‖ one part lighter) in nats a token, as `{"tokens": n, "parts": [...]}`.

    Each of `parts` has its `addresses` and its `kl`. Part by part, or where that would take longer than the job allows
    (`job.marginal`), or 2 GiB of hidden states, block by block; {} where even so fewer than 1024 tokens could be
    followed.
    Windows are the verifying ones and then those that were solved on: a few tokens make most of a part's loss, so
    how many are seen matters more than that the solver saw some. table: the lighter embedding.
    """
    anatomy, device = job.anatomy, job.device
    for swaps in (_parts(job), _blocks(job)):
        windows = affordable(job, swaps, job.marginal)
        if windows:
            break
    else:
        return {}
    taken = batches(windows, BATCH_TOKENS)
    # in float32 whatever the run computes in: bfloat16 products alone move each stream of the embedded model by 3e-5
    # nats, as much as many a part loses
    walk = Swaps(job.checkpoint, anatomy, taken, swaps, device)
    units = [f"block {index}" for index in range(len(anatomy.blocks))]
    chosen = [job.chosen(linears) for linears in anatomy.blocks]
    own = anatomy.embedding.address
    stage = Stage(shards.on_event, "marginal", len(units) + len(taken))
    walk.go(
        lambda index: dict.fromkeys(swaps, shards.weights(units[index], chosen[index])),
        table if own in swaps else None,
        stage.step,
    )

    first = job.checkpoint.read((anatomy.head or anatomy.embedding).parameter).to(device).float()
    lighter = {own: table} if anatomy.tied and table is not None else {}
    if anatomy.head is not None and anatomy.head.address in swaps:
        lighter[anatomy.head.address] = shards.weights("rest", [anatomy.head])[anatomy.head.address]
    total = dict.fromkeys(swaps, 0.0)
    count = 0
    for number, batch in enumerate(taken):
        for row in range(len(batch)):  # rows of vocabulary width exist for one window at a time
            before = walk.skeleton.next_logits(walk.final(ORIGINAL, number, row), first)
            for name in swaps:
                stream = ORIGINAL if anatomy.head is not None and name == anatomy.head.address else name
                after = walk.skeleton.next_logits(walk.final(stream, number, row), lighter.get(name, first))
                total[name] += score_tokens(before, after, batch[row, 1:][None])[0].double().sum().item()
        count += batch.shape[0] * (batch.shape[1] - 1)
        stage.step()
    parts = [{"addresses": [x.address for x in mine], "kl": total[name] / count} for name, mine in swaps.items()]
    return {"tokens": count, "parts": parts}


def _parts(job: Job) -> dict[str, list[Linear]]:
    """Every lighter part by itself."""
    return {x.address: [x] for x in job.chosen([*tables(job.anatomy), *job.anatomy.linears()])}


def _blocks(job: Job) -> dict[str, list[Linear]]:
    """The lighter linears of each block together; embedding and head by themselves."""
    found = {x.address: [x] for x in job.chosen(tables(job.anatomy))}
    for index, linears in enumerate(job.anatomy.blocks):
        if mine := job.chosen(linears):
            found[f"block {index}"] = mine
    return found


def affordable(job: Job, swaps: Mapping[str, Sequence[Linear]], times: float) -> Sequence[Tensor]:
    """As many windows as there is time and room to follow all swaps on, verifying ones first; none if few.

    times: how long that may take, as a multiple of what solving does.
    """
    anatomy = job.anatomy
    place = {x.address: index for index, linears in enumerate(anatomy.blocks) for x in linears}
    blocks = len(anatomy.blocks)
    followed = sum(blocks - place.get(mine[0].address, 0) for mine in swaps.values())
    slower = 1.0 if job.compute == torch.float32 else _SLOWER
    time = times * SOLVING * blocks * job.tokens / (slower * max(1, followed))
    left = min(time, ROOM / (4 * anatomy.embedding.shape[1] * (len(swaps) + 1)))
    taken: list[Tensor] = []
    for window in (*job.verify, *job.solve):
        left -= len(window)
        if left < 0:
            break
        taken.append(window)
    return taken if sum(map(len, taken)) >= _FEWEST else []
