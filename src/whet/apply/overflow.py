"""Whether a model in float16 computes numbers that it does not hold: seen on one window, before anything is solved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from whet.apply.job import Job
from whet.errors import UsageError
from whet.messages import Message
from whet.walk import BlockStep, Walk

_MOST = torch.finfo(torch.float16).max


def refuse_overflow(job: Job) -> None:
    """Raises UsageError naming the block where the original in float16 overflows on the first window of its text.

    Whoever loads such a folder gets infinities, from the original too. Blocks run in float32 here, which shows them.
    """
    if job.dtype != torch.float16 or job.anatomy.task != "causal" or not job.solve:
        return
    table = job.checkpoint.read(job.anatomy.embedding.parameter)
    walk = Walk(job.checkpoint, job.anatomy, [job.solve[0][None]], [], table, table, job.device)
    walk.go(_Largest(job.name))


class _Largest:
    """A visitor that looks at what every module of a block gives."""

    def __init__(self, model: str) -> None:
        self.model = model

    def visit(self, step: BlockStep) -> Mapping[str, Tensor]:
        """Nothing is replaced."""
        handles = [
            module.register_forward_hook(lambda _m, _a, out, name=name: self._look(step.index, name, out))
            for name, module in step.module.named_modules()
        ]
        try:
            step.walk.run(step, step.walk.lighter[0], 0)
        finally:
            for handle in handles:
                handle.remove()
        return {}

    def _look(self, index: int, name: str, out: Any) -> None:
        values = out[0] if isinstance(out, tuple) and out else out
        if not isinstance(values, Tensor) or not values.is_floating_point():
            return
        largest = values.abs().max().item() if values.numel() else 0.0
        if largest > _MOST:
            raise UsageError(
                "{model} is in float16, and overflows: block {index} ({name}) gives {largest:.3g} on the first window "
                "of the text, and float16 ends at {most:g}. The original computes infinities there too. Take a copy "
                'in bfloat16, or write "dtype": "bfloat16" into its config.json.',
                model=self.model,
                index=index,
                name=name or Message("its output"),
                largest=largest,
                most=_MOST,
            )
