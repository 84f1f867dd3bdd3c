"""How a chooser of channels is trained, and what its choices lose, for the step `dynamic`.

What is lost is the KL of the model with the chosen channels from the whole model, on the tokens behind a prompt that
the chooser has read. In training the mask is 1 and 0 as it will be, and the gradient that of SoftTopK.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whet.anatomy import Anatomy
from whet.distillation import Halves, log_chances, prediction_loss
from whet.distillation.divergences import forward_kl
from whet.engines.chooser import Chooser, masked, read_prompts, readers
from whet.pruning.soft_topk import hard_topk, soft_topk
from whet.steps.tune_text import Batches, in_batches, lost_on
from whet.train import Batch

SOFT = (1.0, 0.1)  # ε of SoftTopK at the first step and at the last, in standard deviations of a block's scores
SHORTEST = 4  # tokens of a prompt that is drawn


class Prompted:
    """Batches of a step in which the first tokens of every row are its prompt, and what follows is learnt.

    Of conversations the prompt ends where the first reply begins; of other text its length is drawn, up to half of the
    window. counts: how many channels stay, by turns.
    """

    def __init__(self, batches: Batches, counts: Sequence[int], steps: int, seed: int) -> None:
        self.batches, self.counts, self.steps, self.seed = batches, counts, steps, seed

    def __call__(self, step: int) -> list[Batch]:
        first, last = SOFT
        softness = first * (last / first) ** (step / max(1, self.steps - 1))
        more = {"count": torch.tensor(self.counts[step % len(self.counts)]), "softness": torch.tensor(softness)}
        draw = random.Random(self.seed * 1_000_003 + step)
        return [prompted(batch, draw) | more for batch in self.batches(step)]


def prompted(batch: Batch, draw: random.Random | None = None) -> Batch:
    """A batch with `prompt [rows]`, the lengths of the prompts, and no weight before their ends. draw: what lengths are
    drawn by; without it they are a quarter of the row."""
    weights = batch["weights"].clone()
    lengths = []
    for row in weights:
        counted = row.nonzero()[:, 0]
        start, end = int(counted[0]), int(counted[-1]) + 1
        if start == 0:  # no conversation, or one without a prompt
            most = max(SHORTEST, end // 2)
            start = draw.randint(SHORTEST, most) if draw is not None else max(SHORTEST, end // 4)
            start = min(start, end) - 1
        row[:start] = 0
        lengths.append(start + 1)
    return {**batch, "weights": weights, "prompt": torch.tensor(lengths)}


class Choosing:
    """A model, who chooses its channels, and who it is taught by: the model itself, or where it is trained too, the
    original as `teacher`."""

    def __init__(self, model: Any, chooser: Chooser, teacher: Any | None = None) -> None:
        self.chooser, self.joint = chooser, teacher is not None
        self.halves = Halves.of(model)
        self.teacher = self.halves if teacher is None else Halves.of(teacher)

    def trained(self) -> nn.Module:
        """What is trained. A model that is frozen is no part of it, and stays in evaluation mode."""
        beside = {"model": self.halves.model} if self.joint else {}
        return nn.ModuleDict({"chooser": self.chooser, **beside})

    @property
    def parts(self) -> Anatomy:
        """Of the model."""
        return self.halves.parts

    def scores(self, batch: Batch) -> Tensor:
        """What the prompts of a batch choose by, `[rows, blocks, channels]`."""
        found: Tensor = self.chooser(read_prompts(self.halves.model, self.parts, batch["input_ids"], batch["prompt"]))
        return found

    def loss(self, _: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """For the training loop: the KL behind the prompts, summed, and over how many tokens."""
        count = int(batch["count"])
        scores = self.scores(batch)
        soft = soft_topk(scores, count, float(batch["softness"]))
        mask = hard_topk(scores.detach(), count) + (soft - soft.detach())
        with torch.no_grad():
            taught = self.teacher.states(batch["input_ids"]).last_hidden_state
        with masked(self.halves.model, self.parts, mask):
            mine = self.halves.states(batch["input_ids"]).last_hidden_state
        return prediction_loss(
            forward_kl,
            (mine, self.halves.logits),
            (taught, self.teacher.logits),
            batch["weights"],
            self.halves.vocabulary,
        )

    @torch.no_grad()
    def lost(self, batch: Batch, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """With the `count` channels that `scores` choose: the KL at every position of a batch `[rows, L]`, and whether
        the likeliest token is the same."""
        taught = self.teacher.states(batch["input_ids"]).last_hidden_state
        with masked(self.halves.model, self.parts, hard_topk(scores, count)):
            mine = self.halves.states(batch["input_ids"]).last_hidden_state
        kl, same = [], []
        for own, their in zip(mine, taught, strict=True):
            p, q = self.teacher.logits(their), self.halves.logits(own)
            kl.append(forward_kl(log_chances(p, self.halves.vocabulary), log_chances(q, self.halves.vocabulary)))
            same.append(p.argmax(-1) == q.argmax(-1))
        return torch.stack(kl), torch.stack(same)


def judge_of(choosing: Choosing, windows: Sequence[Tensor], counts: Sequence[int]) -> Callable[[nn.Module], Tensor]:
    """Held-out losses for the training loop, as `lost_on` has them: the KL, mean over `counts`."""
    some = [prompted(batch) for batch in in_batches(windows)]

    def losses(batch: Batch) -> Tensor:
        scores = choosing.scores(batch)
        return torch.stack([choosing.lost(batch, scores, count)[0] for count in counts]).mean(0)

    return lambda _: lost_on(some, losses, choosing.halves.model.device)


@torch.no_grad()
def worth(choosing: Choosing, windows: Sequence[Tensor]) -> Tensor:
    """What every channel is worth whatever the prompt, `[blocks, channels]`: ln of its root mean square times the norm
    of its column of down, with mean 0 and deviation 1 in every block."""
    model = choosing.halves.model
    sums: list[Any] = [0.0] * len(choosing.parts.blocks)
    handles = []
    for index, module in enumerate(readers(model, choosing.parts)):

        def hook(_: nn.Module, given: tuple[Tensor, ...], index: int = index) -> None:
            sums[index] = sums[index] + given[0].double().square().flatten(0, -2).sum(0)

        handles.append(module.register_forward_pre_hook(hook))
    for batch in in_batches(windows):
        choosing.halves.states(batch["input_ids"].to(model.device))
    for handle in handles:
        handle.remove()
    found = []
    for index, linears in enumerate(choosing.parts.blocks):
        down = next(x for x in linears if x.role == "down")
        w = model.get_parameter(down.held.parameter).double()
        norm = (w if down.transposed else w.t()).square().sum(1)
        score = (sums[index] * norm).clamp_min(1e-30).log() / 2
        found.append((score - score.mean()) / score.std().clamp_min(1e-9))
    return torch.stack(found).float()


@torch.no_grad()
def choices_lost(
    choosing: Choosing, windows: Sequence[Tensor], counts: Sequence[int], base: Tensor
) -> list[dict[str, float]]:
    """On text that neither trained nor judged, by count: `kl` and `top1` of the chooser's choices, `kl_other` with each
    prompt's channels chosen by another prompt, and `kl_static` with those that are worth most whatever the prompt."""
    some = [prompted(batch) for batch in in_batches(windows)]
    model = choosing.halves.model
    found = []
    for count in counts:
        sums = dict.fromkeys(("kl", "top1", "kl_other", "kl_static"), 0.0)
        tokens = 0.0
        before: Tensor | None = None
        for given in some:
            batch = {name: value.to(model.device) for name, value in given.items()}
            weights = batch["weights"].double()
            scores = choosing.scores(batch)
            others = scores.roll(1, 0) if len(scores) > 1 or before is None else before
            before = scores[:1]
            fixed = base.to(scores.device).expand_as(scores)
            for name, mine in (("kl", scores), ("kl_other", others), ("kl_static", fixed)):
                kl, same = choosing.lost(batch, mine, count)
                sums[name] += float((kl.double() * weights).sum())
                if name == "kl":
                    sums["top1"] += float((same.double() * weights).sum())
            tokens += float(weights.sum())
        found.append({name: value / tokens for name, value in sums.items()})
    return found
