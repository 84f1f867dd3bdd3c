"""Targets by random sampling (RS-KD, Anshumann et al. 2025, arXiv 2503.16870): of what a teacher predicts a few tokens
are drawn, and a student that is trained on them gets the gradient of the forward KL, without bias.

Of N tokens drawn from p, the loss −(1/N) Σ log q(drawn) is the cross-entropy of p and q in expectation, so its gradient
is the forward KL's; its variance falls as 1/N. The likeliest k tokens, which others store, miss the rest of p: a
student of them is too sure. A position is kept as the tokens drawn with how often each was, and the entropy of p,
which makes a KL of the loss.

A token that was drawn takes three bytes: 20 bits of its number and 4 of how often, less one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from whet.distillation.logits import AT_ONCE, Head, log_chances

DRAWS = 12  # as dense as the whole prediction is what is learnt from so many
MOST_TOKENS = 1 << 20  # of a vocabulary
_TIMES = 16  # that an entry can count


@dataclass(frozen=True)
class Drawn:
    """What was drawn at n positions.

    sizes: entries of each, uint8 `[n]`. entries: their three bytes, one position behind the other, uint8 `[m, 3]`.
    entropy: of the prediction, nats, float32 `[n]`.
    """

    sizes: Tensor
    entries: Tensor
    entropy: Tensor

    @classmethod
    def of(cls, p: Tensor, draws: int, generator: torch.Generator) -> Drawn:
        """Draw `draws` tokens at each position from log-probabilities `p [n, vocabulary]`."""
        if draws > 255 or p.shape[-1] > MOST_TOKENS:
            raise ValueError(f"{draws} draws of {p.shape[-1]} tokens do not fit the format")
        chances = p.exp()
        found = torch.multinomial(chances.cpu(), draws, replacement=True, generator=generator).sort(-1).values
        starts = torch.ones_like(found, dtype=torch.bool)
        starts[:, 1:] = found[:, 1:] != found[:, :-1]
        place = torch.arange(draws).expand_as(found)
        starts |= (place - torch.where(starts, place, 0).cummax(-1).values) % _TIMES == 0
        first = starts.flatten().nonzero()[:, 0]
        times = torch.cat([first[1:], torch.tensor([found.numel()])]) - first
        whole = (found.flatten()[first] | (times - 1) << 20).int()
        entries = whole[:, None].view(torch.uint8)[:, :3].contiguous()
        entropy = -(chances * p.clamp_min(-1e4)).sum(-1)
        return cls(starts.sum(-1).to(torch.uint8), entries, entropy.float().cpu())

    @classmethod
    def joined(cls, some: Sequence[Drawn]) -> Drawn:
        """Several, one behind the other."""
        return cls(*(torch.cat([getattr(one, name) for one in some]) for name in ("sizes", "entries", "entropy")))

    def read(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of every entry its position, its token and how often that was drawn, int64 `[m]` each."""
        whole = torch.nn.functional.pad(self.entries, (0, 1)).view(torch.int32)[:, 0].long()
        places = torch.arange(len(self.sizes), device=self.sizes.device)
        positions = torch.repeat_interleave(places, self.sizes.long())
        return positions, whole & (MOST_TOKENS - 1), (whole >> 20) + 1


def sampled_loss(
    student: tuple[Tensor, Head],
    drawn: Drawn,
    weights: Tensor,
    vocabulary: int,
    *,
    temperature: float = 1.0,
    at_once: int = AT_ONCE,
) -> tuple[Tensor, Tensor]:
    """The forward KL as what was drawn estimates it: its weighted sum over positions, and the sum of the weights.

    student: hidden states `[n, hidden]` of the positions that were drawn at, and what makes logits of them. weights
    `[n]`. temperature: at which the teacher's were drawn too; as in `prediction_loss`.
    """
    hidden, head = student
    positions, tokens, times = drawn.read()
    counts = torch.zeros(len(weights), device=hidden.device).index_add_(0, positions, times.float())
    shares = (weights / counts)[positions] * times

    def part(states: Tensor, start: int, entropy: Tensor, each: Tensor) -> Tensor:
        q = log_chances(head(states), vocabulary, temperature)
        inside = (positions >= start) & (positions < start + len(states))
        picked = q[positions[inside] - start, tokens[inside]]
        return -((picked * shares[inside]).sum() + (entropy * each).sum()) * temperature**2

    rows = max(1, at_once // (4 * vocabulary))
    entropy = drawn.entropy
    if len(weights) <= rows:
        return part(hidden, 0, entropy, weights), weights.sum()
    total = torch.zeros((), device=hidden.device, dtype=torch.float32)
    parts = zip(hidden.split(rows), range(0, len(weights), rows), entropy.split(rows), weights.split(rows), strict=True)
    for given in parts:
        total = total + checkpoint(part, *given, use_reentrant=False, preserve_rng_state=False)
    return total, weights.sum()


def estimated_kl(p: Tensor, q: Tensor) -> Tensor:
    """What each token that was drawn from a teacher says of the forward KL, given its log-probabilities p and q there.

    log(p/q) + q/p − 1 is the KL in expectation, as q/p is 1 in expectation; it is never negative and varies far less
    (Schulman 2020, "Approximating KL divergence").
    """
    gap = q - p
    return gap.exp() - 1 - gap
