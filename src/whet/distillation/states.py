"""The loss on hidden states: the student's blocks are to leave the residual stream as certain blocks of the teacher do.

A student that was pruned knows which blocks of the teacher are its own; any other is spread evenly over them. Where
the two are not equally wide, a projection that is trained along and dropped in the end brings the student's to the
teacher's width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def layer_map(student: int, teacher: int, kept: Sequence[int] | None = None) -> list[tuple[int, int]]:
    """Which block of the teacher each block of the student is compared with, as pairs of their numbers.

    student, teacher: how many blocks each has. kept: numbers in the teacher of the student's own blocks; without them
    the last of both are a pair, and those before it are spread evenly. The last always ends where the teacher ends.
    """
    if kept is None:
        return [(i, round((i + 1) * teacher / student) - 1) for i in range(student)]
    pairs = list(enumerate(kept))
    return [*pairs[:-1], (student - 1, teacher - 1)]


def normalised(states: Tensor) -> Tensor:
    """States `[..., hidden]` at length 1 a channel: RMS 1, as the norm of the next block sees them."""
    return states * states.square().mean(-1, keepdim=True).clamp_min(1e-12).rsqrt()


def state_loss(student: Tensor, teacher: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared difference of normalised states, as a weighted sum over positions, and the sum of the weights.

    student, teacher `[..., hidden]`, equally wide; weights `[...]`. It is 2 (1 − cosine): between 0 and 4.
    """
    gaps = (normalised(student.float()) - normalised(teacher.float())).square().mean(-1)
    return (gaps * weights).sum(), weights.sum()


class Projections(nn.Module):
    """Matrices that bring the student's states to the teacher's width, one for each pair of blocks; dropped in the end.

    student, teacher: the widths. kept: channels of the teacher's stream that the student's are (selection); without
    them the first ones. Where both are equally wide there are none, and states pass as they are.
    """

    def __init__(
        self,
        pairs: int,
        student: int,
        teacher: int,
        kept: Sequence[int] | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        start = torch.zeros(teacher, student, device=device)
        at = torch.tensor(list(range(min(student, teacher))) if kept is None else list(kept))
        start[at, torch.arange(len(at))] = 1.0
        count = 0 if student == teacher else pairs
        self.matrices = nn.ParameterList([nn.Parameter(start.clone()) for _ in range(count)])

    def forward(self, number: int, states: Tensor) -> Tensor:
        """States `[..., student]` of pair `number` at the teacher's width."""
        return states @ self.matrices[number].t() if len(self.matrices) else states
