"""Every loss is what its formula says, in value and gradient, and is what it should be at its limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from whet.distillation import DIVERGENCES, log_chances, prediction_loss

VOCABULARY, TOKENS, HIDDEN = 23, 11, 7


def logits(seed: int, scale: float = 2.0, tokens: int = TOKENS) -> Tensor:
    return scale * torch.randn(tokens, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- the textbook, on probabilities ---------------------------------------------------------------------------------


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(-1)


def js(p: Tensor, q: Tensor, b: float) -> Tensor:
    if b in (0, 1):
        return kl(p, q) if b == 0 else kl(q, p)
    m = b * p + (1 - b) * q
    return (b * kl(p, m) + (1 - b) * kl(q, m)) / (b * (1 - b))


def akl(p: Tensor, q: Tensor, mu: float) -> Tensor:
    """Token by token, as the paper's algorithm reads."""
    found = []
    for one, other in zip(p, q, strict=True):
        mass, head = 0.0, set()
        for token in sorted(range(VOCABULARY), key=lambda i: -float(one[i])):
            if mass >= mu:
                break
            head.add(token)
            mass += float(one[token])
        gap = [abs((one[i] - other[i]).item()) for i in range(VOCABULARY)]
        high, low = sum(gap[i] for i in head), sum(gap[i] for i in range(VOCABULARY) if i not in head)
        share = high / (high + low) if high + low else 0.5
        found.append(share * kl(one, other) + (1 - share) * kl(other, one))
    return torch.stack(found)


def todi(p: Tensor, q: Tensor) -> Tensor:
    a = (p / (p + q)).detach()  # sigmoid(log p/q)
    return (a * p * (p / q).log() + (1 - a) * q * (q / p).log()).sum(-1)


TEXTBOOK = {
    "forward": kl,
    "reverse": lambda p, q: kl(q, p),
    "js": js,
    "skewed": lambda p, q, a: kl(p, a * p + (1 - a) * q),
    "skewed-reverse": lambda p, q, a: kl(q, a * q + (1 - a) * p),
    "adaptive": akl,
    "cakld": lambda p, q, g: g * kl(q, p) + (1 - g) * kl(p, q),
    "todi": todi,
}
POINTS = [
    (name, mix)
    for name, one in DIVERGENCES.items()
    for mix in ([None] if one.mix is None else [0.0, 0.1, 0.5, 0.9, 1.0])
]


def test_every_divergence_has_its_textbook():
    assert set(TEXTBOOK) == set(DIVERGENCES)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(("name", "mix"), POINTS)
def test_value_and_gradient_are_the_textbooks_in_parts_or_whole_and_of_counted_tokens_alone(name, mix, temperature):
    teacher, weights = logits(1), torch.linspace(0.5, 1.5, TOKENS, dtype=torch.float64)
    weights[[0, 4, 10]] = 0
    asked = [] if mix is None else [mix]
    mine, naive = logits(2).requires_grad_(), logits(2).requires_grad_()
    p, q = ((z / temperature).softmax(-1) for z in (teacher, naive))
    expected = (TEXTBOOK[name](p, q, *asked) * weights).sum() * temperature**2
    expected.backward()
    assert naive.grad is not None
    for rows in (1, 3, TOKENS):  # at once; the last takes all
        mine.grad = None
        total, count = prediction_loss(
            DIVERGENCES[name].bound(mix),
            (mine, lambda x: x),
            (teacher, lambda x: x),
            weights,
            VOCABULARY,
            temperature=temperature,
            at_once=4 * VOCABULARY * rows,
        )
        (total + 0 * mine.sum()).backward()
        assert total.item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-9)
        assert count == weights.sum()
        assert torch.allclose(mine.grad, naive.grad, rtol=1e-6, atol=1e-9)
        assert not mine.grad[weights == 0].any()


@pytest.mark.parametrize(("name", "mix"), POINTS)
def test_it_is_nothing_between_equals_and_never_negative(name, mix):
    divergence = DIVERGENCES[name].bound(mix)
    p, q = (logits(seed, 4.0, 200).log_softmax(-1) for seed in (3, 4))
    same = p.clone().requires_grad_()
    found = divergence(p, same)
    assert found.abs().max() < 1e-12
    (found + 0 * same.sum(-1)).sum().backward()
    at_logits = same.grad - p.exp() * same.grad.sum(-1, keepdim=True)  # through the softmax
    assert at_logits.abs().max() < 1e-9
    assert (divergence(p, q) >= (0 if mix == 1 and name.startswith("skewed") else 1e-6)).all()


def test_limits():
    p, q = (logits(seed).log_softmax(-1) for seed in (5, 6))
    forward, reverse = (DIVERGENCES[name].bound(None)(p, q) for name in ("forward", "reverse"))
    near, far = 1e-7, 1 - 1e-7
    for name, low, high in [
        ("js", forward, reverse),
        ("skewed", forward, torch.zeros(TOKENS)),
        ("skewed-reverse", reverse, torch.zeros(TOKENS)),
        ("cakld", forward, reverse),
    ]:
        for mix, limit in ((0.0, low), (near, low), (far, high), (1.0, high)):
            assert torch.allclose(DIVERGENCES[name].bound(mix)(p, q), limit.double(), rtol=1e-4, atol=1e-4), (name, mix)
    usual = DIVERGENCES["js"].bound(0.5)(p, q) / 4
    assert (usual <= math.log(2)).all()


def test_a_warm_teacher_asks_for_the_logits_themselves():
    """At a high temperature the gradient of T² KL goes to (z_q − z_p, each less its mean) / V (Hinton et al. 2015)."""
    teacher, mine = logits(7), logits(8).requires_grad_()
    weights = torch.ones(TOKENS, dtype=torch.float64)
    forward = DIVERGENCES["forward"].bound(None)
    one = (mine, lambda x: x)
    prediction_loss(forward, one, (teacher, lambda x: x), weights, VOCABULARY, temperature=1e5)[0].backward()
    gaps = mine.detach() - teacher
    assert torch.allclose(mine.grad, (gaps - gaps.mean(-1, keepdim=True)) / VOCABULARY, atol=1e-4)


def test_padded_vocabularies_are_compared_on_what_both_have():
    """151,936 against 152,064: whatever stands beyond changes neither the value nor a gradient."""
    heads = [nn.Linear(HIDDEN, size, bias=False, dtype=torch.float64) for size in (VOCABULARY + 9, VOCABULARY + 4)]
    states = [torch.randn(TOKENS, HIDDEN, dtype=torch.float64) for _ in heads]
    weights = torch.ones(TOKENS, dtype=torch.float64)
    forward = DIVERGENCES["forward"].bound(None)
    found = []
    for padding in (0.0, 50.0):
        with torch.no_grad():
            for head in heads:
                head.weight[VOCABULARY:] = padding
                head.weight.grad = None
        total, _ = prediction_loss(
            forward, (states[0], heads[0]), (states[1], heads[1]), weights, VOCABULARY, at_once=4 * VOCABULARY * 2
        )
        total.backward()
        found.append((total.item(), heads[0].weight.grad.clone()))
        assert not heads[0].weight.grad[VOCABULARY:].any() and heads[1].weight.grad is None
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])


def test_half_types_are_compared_in_float32():
    z = logits(9).bfloat16()
    assert log_chances(z, VOCABULARY).dtype == torch.float32
    assert log_chances(z.double(), VOCABULARY).dtype == torch.float64


def test_logits_of_a_whole_batch_are_never_held():
    """The largest table that the head makes, and how much autograd keeps of all of them."""
    seen, kept = [], []
    head = nn.Linear(HIDDEN, 1000, bias=False)

    def watched(x: Tensor) -> Tensor:
        made = head(x)
        seen.append(made.numel())
        return made

    mine = torch.randn(512, HIDDEN, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        total, _ = prediction_loss(
            DIVERGENCES["js"].bound(0.5),
            (mine, watched),
            (torch.randn(512, HIDDEN), watched),
            torch.ones(512),
            1000,
            at_once=4 * 1000 * 16,
        )
    assert max(seen) == 16 * 1000 and max(kept) <= 512 * HIDDEN
    total.backward()
    assert max(seen) == 16 * 1000
