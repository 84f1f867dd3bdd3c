"""How far a student's prediction q is from its teacher's p, token by token: one function a divergence.

Each takes log-probabilities `p, q [tokens, vocabulary]` of the teacher and the student, float32 or wider, and its
parameter, and gives nats `[tokens]`. None of them is negative, and all are 0 where p = q. The gradient is the
student's.

The parameter is called `mix`; what it means is said by each. A divergence without one is not given it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_EVEN = 1e-12  # gaps between p and q whose ratio is noise


def forward_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p‖q) = Σ p log(p/q): the student covers all that the teacher may say (Hinton et al. 2015)."""
    return _kl(p, q)


def reverse_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(q‖p): the student says nothing that the teacher would not (MiniLLM, Gu et al. 2023, arXiv 2306.08543)."""
    return _kl(q, p)


def jensen_shannon(p: Tensor, q: Tensor, mix: float) -> Tensor:
    """Generalised Jensen–Shannon (GKD, Agarwal et al. 2023, arXiv 2306.13649): with m = βp + (1−β)q,
    [β KL(p‖m) + (1−β) KL(q‖m)] / (β(1−β)), β = `mix`.

    As published it shrinks with β(1−β), and ends 0 and 1 that are put in by hand, as TRL does, make the loss jump.
    Divided by that it goes to the forward KL as β goes to 0 and to the reverse KL as β goes to 1. At 1/2 it is four
    times the usual.
    """
    if mix in (0.0, 1.0):
        return _kl(p, q) if mix == 0 else _kl(q, p)
    m = _mixed(p, q, mix)
    return (mix * _kl(p, m) + (1 - mix) * _kl(q, m)) / (mix * (1 - mix))


def skewed_forward_kl(p: Tensor, q: Tensor, mix: float) -> Tensor:
    """KL(p‖αp + (1−α)q), α = `mix` (DistiLLM, Ko et al. 2024, arXiv 2402.03898): the forward KL at 0, nothing at 1."""
    return _kl(p, _mixed(p, q, mix))


def skewed_reverse_kl(p: Tensor, q: Tensor, mix: float) -> Tensor:
    """KL(q‖αq + (1−α)p), α = `mix` (DistiLLM): the reverse KL at 0, nothing at 1."""
    return _kl(q, _mixed(q, p, mix))


def adaptive_kl(p: Tensor, q: Tensor, mix: float) -> Tensor:
    """AKL (Wu et al. 2024, arXiv 2404.02657): forward and reverse KL, weighted by how far p and q are apart on the head
    of p and on its tail. The head are the likeliest tokens that hold a mass of `mix` together; the gap is Σ|p − q|.
    Weights are taken as they are, not trained.
    """
    with torch.no_grad():
        likely, order = p.exp().sort(-1, descending=True)
        gaps = (p.exp() - q.exp()).abs().gather(-1, order)
        in_head = likely.cumsum(-1) - likely < mix
        head, every = (gaps * in_head).sum(-1), gaps.sum(-1)
        share = torch.where(every > _EVEN, head / every.clamp_min(_EVEN), 0.5)
    return share * _kl(p, q) + (1 - share) * _kl(q, p)


def cakld(p: Tensor, q: Tensor, mix: float) -> Tensor:
    """CAKLD (BitDistiller, Du et al. 2024, arXiv 2402.10631): γ KL(q‖p) + (1−γ) KL(p‖q), γ = `mix`: how sure the
    teacher is of the text, the mean chance that it gives to its tokens."""
    return mix * _kl(q, p) + (1 - mix) * _kl(p, q)


def todi(p: Tensor, q: Tensor) -> Tensor:
    """ToDi (Jung et al. 2025, arXiv 2505.16297): Σ a p log(p/q) + (1−a) q log(q/p) with a = sigmoid(log(p/q)) of every
    token of the vocabulary, taken as it is: forward where the student gives too little, reverse where too much."""
    a = torch.sigmoid(p - q).detach()
    return (a * p.exp() * (p - q) + (1 - a) * q.exp() * (q - p)).sum(-1)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum(-1)


def _mixed(p: Tensor, q: Tensor, share: float) -> Tensor:
    """The logarithm of `share` of p and the rest of q."""
    if share in (0.0, 1.0):
        return p if share == 1 else q
    return torch.logaddexp(p + math.log(share), q + math.log(1 - share))


@dataclass(frozen=True)
class Divergence:
    """A row of the table. mix: the usual parameter, None of a divergence that has none. says: what the parameter is."""

    of: Callable[..., Tensor]
    mix: float | None = None
    says: str = ""

    def bound(self, mix: float | None) -> Callable[[Tensor, Tensor], Tensor]:
        """The divergence at a parameter, the usual one where None is given."""
        if self.mix is None:
            return self.of
        chosen = self.mix if mix is None else mix
        return lambda p, q: self.of(p, q, chosen)


DIVERGENCES: dict[str, Divergence] = {
    "forward": Divergence(forward_kl),
    "reverse": Divergence(reverse_kl),
    "js": Divergence(jensen_shannon, 0.5, "0 is the forward KL, 1 the reverse"),
    "skewed": Divergence(skewed_forward_kl, 0.1, "how much of the teacher is mixed into the student"),
    "skewed-reverse": Divergence(skewed_reverse_kl, 0.1, "how much of the student is mixed into the teacher"),
    "adaptive": Divergence(adaptive_kl, 0.5, "the mass of the teacher's likeliest tokens, which are the head"),
    "cakld": Divergence(cakld, 0.5, "the share of the reverse KL"),
    "todi": Divergence(todi),
}
