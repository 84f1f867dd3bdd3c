"""The processes that train one model together: each takes its share of a step's batches, and all take the same step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from whet.errors import UsageError

T = TypeVar("T")
Loss = Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, Tensor]]


_SPLIT = ("FSDP", "DEEPSPEED", "MEGATRON_LM")  # accelerate's names of what gives a process a part of the weights


class Losing(nn.Module):
    """A model whose forward is its loss, so that what wraps it sees all of the work."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.loss(self.model, batch)


class Alone:
    """One process."""

    count, first = 1, True

    def wrapped(self, losing: Losing) -> nn.Module:
        """What is called in place of `losing`."""
        return losing

    def mine(self, batches: Sequence[T]) -> Sequence[T]:
        """This process's share of the batches of a step."""
        return batches

    def sum(self, *numbers: float) -> list[float]:
        """Sums over all processes."""
        return list(numbers)

    def any(self, mine: bool) -> bool:
        """Whether it is so for any process, which all then agree on (clocks differ)."""
        return self.sum(float(mine))[0] > 0

    def apart(self, wrapped: nn.Module) -> contextlib.AbstractContextManager[Any]:
        """While gradients are not exchanged yet."""
        return contextlib.nullcontext()

    def wait(self) -> None:
        """Until all processes are here."""


class Together(Alone):
    """Several, by an `accelerate.Accelerator`: every process has the whole model (DDP). Gradients are averaged."""

    def __init__(self, accelerator: Any) -> None:
        kind = getattr(accelerator.distributed_type, "value", str(accelerator.distributed_type))
        if kind in _SPLIT:
            raise UsageError(
                "The accelerator splits the model's weights over processes ({kind}), and whet's training reads them "
                "whole: the state to go on from, the best iterate and what is computed through grids and adapters. Use "
                "one that gives every process the whole model (DDP: --multi_gpu or --multi_cpu).",
                kind=kind,
            )
        self.accelerator = accelerator
        self.count, self.first = int(accelerator.num_processes), bool(accelerator.is_main_process)

    def wrapped(self, losing: Losing) -> nn.Module:
        made: nn.Module = self.accelerator.prepare_model(losing)
        return made

    def mine(self, batches: Sequence[T]) -> Sequence[T]:
        if len(batches) % self.count:
            raise UsageError(
                "A step has {batches} batches, which {count} processes cannot share evenly. Give a multiple of that.",
                batches=len(batches),
                count=self.count,
            )
        return batches[self.accelerator.process_index :: self.count]

    def sum(self, *numbers: float) -> list[float]:
        given = torch.tensor(numbers, dtype=torch.float64, device=self.accelerator.device)
        found: list[float] = self.accelerator.reduce(given, "sum").tolist()
        return found

    def apart(self, wrapped: nn.Module) -> contextlib.AbstractContextManager[Any]:
        context: contextlib.AbstractContextManager[Any] = self.accelerator.no_sync(wrapped)
        return context

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()
