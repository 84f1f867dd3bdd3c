"""How maps at exits are trained, and what the exits say of held-out text, for the step `dynamic`.

The model is frozen, so its states do not depend on the maps: one pass gives what every exit reads and what it is to
predict. What is lost is the KL of every exit from the whole model, mean over exits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whet.distillation import Halves, log_chances, prediction_loss
from whet.distillation.divergences import forward_kl
from whet.engines.exits import Exits
from whet.measure.exiting import Window
from whet.steps.tune_text import in_batches, lost_on
from whet.train import Batch


class Leaving:
    """A loss of the maps at the exits of a frozen model."""

    def __init__(self, model: Any, exits: Exits) -> None:
        self.halves, self.exits = Halves.of(model), exits
        self.norm = model.get_submodule(self.halves.parts.family.norm)

    def states(self, ids: Tensor) -> tuple[list[Tensor], Tensor]:
        """Of `ids [rows, L]` the stream at every exit, and the final states."""
        with torch.no_grad():
            out = self.halves.states(ids, every=True)
        return [out.hidden_states[after] for after in self.exits.after], out.last_hidden_state

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of the stream as an exit has it read."""
        return self.halves.logits(self.norm(hidden))

    def loss(self, _: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """For the training loop: the KL of the exits, summed over tokens."""
        early, final = self.states(batch["input_ids"])
        total: Any = 0.0
        count = batch["weights"].sum()
        for number, hidden in enumerate(early):
            found, count = prediction_loss(
                forward_kl,
                (self.exits(hidden, number), self.head),
                (final, self.halves.logits),
                batch["weights"],
                self.halves.vocabulary,
            )
            total = total + found / len(early)
        return total, count

    @torch.no_grad()
    def lost(self, batch: Batch) -> Tensor:
        """The KL at every position of a batch `[rows, L]`, mean over exits."""
        early, final = self.states(batch["input_ids"])
        rows = []
        for row, taught in enumerate(final):
            p = log_chances(self.halves.logits(taught), self.halves.vocabulary)
            every = [
                forward_kl(p, log_chances(self.head(self.exits(hidden[row], number)), self.halves.vocabulary))
                for number, hidden in enumerate(early)
            ]
            rows.append(torch.stack(every).mean(0))
        return torch.stack(rows)

    @torch.no_grad()
    def windows(self, given: Sequence[Tensor], tell: Callable[[], None]) -> list[Window]:
        """What the exits say of windows `[2, L]`; `tell` is called for each batch of them."""
        found = []
        for batch in in_batches(given):
            on = {name: value.to(self.halves.model.device) for name, value in batch.items()}
            early, final = self.states(on["input_ids"])
            for row, weights in enumerate(on["weights"]):
                counted = weights > 0
                likely = self.halves.logits(final[row][counted]).argmax(-1)
                sure, same = [], []
                for number, hidden in enumerate(early):
                    logits = self.head(self.exits(hidden[row][counted], number)).float()
                    sure.append(torch.softmax(logits, -1).max(-1).values.cpu())
                    same.append((logits.argmax(-1) == likely).cpu())
                found.append(Window(torch.stack(sure), torch.stack(same)))
            tell()
        return found


def judge_of(leaving: Leaving, windows: Sequence[Tensor]) -> Callable[[nn.Module], Tensor]:
    """Held-out losses for the training loop, as `lost_on` has them: the KL, mean over exits."""
    some = in_batches(windows)
    return lambda _: lost_on(some, leaving.lost, leaving.halves.model.device)
