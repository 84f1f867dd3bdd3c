"""An adapter that becomes a part of what it is for: of weights, of the zeros of codes, or of another adapter.

QA-LoRA (Xu et al. 2023, arXiv 2309.14717): where every row of A has one number for all columns of a group, scale · B A
is constant within each group, and so is what it adds to a weight `step · code + offset`. The offset takes it up: codes
and steps stay as they are, and it can be taken out again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from whet.checkpoint import Factors


def group_sums(one: Factors, group: int) -> Tensor | None:
    """What an adapter adds to all weights of each group of `group` columns (0: of a row), `[out, groups]` float32;
    None where it does not add the same to all of one."""
    columns = one.a.shape[1]
    group = group or columns
    first = one.a[:, ::group]
    same = first.repeat_interleave(group, 1)[:, :columns]
    if one.magnitude is not None or not torch.equal(same, one.a):
        return None
    return one.scale * (one.b.float() @ first.float())


def stacked(first: Factors, second: Factors) -> Factors:
    """Two adapters of one module as one: the ranks add up. Neither has magnitudes."""
    assert first.magnitude is None and second.magnitude is None
    b = torch.cat([first.scale * first.b.float(), second.scale * second.b.float()], 1)
    return Factors(b, torch.cat([first.a.float(), second.a.float()]))
