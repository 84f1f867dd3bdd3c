"""The loss on own text is the textbook's on the likeliest tokens and the rest; what is written is what was asked for;
what narrows is seen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import models
from whet.checkpoint import load_model
from whet.distillation import Halves, distinct, likeliest_loss, preferred_loss, said, written
from whet.train import Schedule, Watch, train

VOCABULARY, TOKENS, SUPPORT = 23, 11, 5


def logits(seed, scale=2.0):
    return scale * torch.randn(TOKENS, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("forward", "support"), [(0.5, SUPPORT), (0.8, SUPPORT), (1.0, SUPPORT), (0.3, VOCABULARY)])
def test_value_and_gradient_are_the_textbooks_in_parts_or_whole_and_of_counted_tokens_alone(forward, support):
    teacher, weights = logits(1), torch.linspace(0.5, 1.5, TOKENS, dtype=torch.float64)
    weights[[0, 4]] = 0
    naive, mine = logits(2).requires_grad_(), logits(2).requires_grad_()
    p, q = teacher.softmax(-1), naive.softmax(-1)
    if support < VOCABULARY:
        kept = p.topk(support, -1).indices
        p, q = (torch.cat([x.gather(-1, kept), 1 - x.gather(-1, kept).sum(-1, keepdim=True)], -1) for x in (p, q))
    each = forward * (p * (p / q).log()).sum(-1) + (1 - forward) * (q * (q / p).log()).sum(-1)
    expected = (each * weights).sum()
    expected.backward()
    for rows in (1, 3, TOKENS):
        mine.grad = None
        total, count = likeliest_loss(
            (mine, lambda x: x), (teacher, lambda x: x), weights, VOCABULARY, forward,
            support=support, at_once=4 * VOCABULARY * rows,
        )  # fmt: skip
        total.backward()
        assert total.item() == pytest.approx(expected.item(), rel=1e-9) and count == weights.sum()
        assert torch.allclose(mine.grad, naive.grad, rtol=1e-8, atol=1e-12)
        assert not mine.grad[weights == 0].any()


def test_it_is_nothing_between_equals_and_never_more_than_the_whole():
    same = logits(3).requires_grad_()
    ones = torch.ones(TOKENS, dtype=torch.float64)
    total, _ = likeliest_loss((same, lambda x: x), (logits(3), lambda x: x), ones, VOCABULARY, support=SUPPORT)
    total.backward()
    assert abs(total.item()) < 1e-12 and same.grad.abs().max() < 1e-12
    p, q = (logits(seed).log_softmax(-1) for seed in (4, 5))
    whole = (0.5 * (p.exp() - q.exp()) * (p - q)).sum()
    cut, _ = likeliest_loss((q, lambda x: x), (p, lambda x: x), ones, VOCABULARY, support=SUPPORT)
    assert 0 < cut < whole


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    folder = tmp_path_factory.mktemp("halves")
    return [
        Halves.of(load_model(models.make(folder / str(seed), "llama", seed=seed), torch.float32)) for seed in (1, 2)
    ]


def test_what_is_written_is_the_models_own_and_counts_from_the_prompt_to_the_end(halves):
    student, teacher = halves
    prompts = torch.arange(3, 15).view(3, 4)
    for other in (None, teacher):
        made, again = (written(student, prompts, 20, 7, vocabulary=250, teacher=other) for _ in range(2))
        assert torch.equal(made.ids, again.ids) and made.ids.shape == (3, 24) and int(made.ids.max()) < 250
        assert torch.equal(made.ids[:, :4], prompts) and made.lengths == [20, 20, 20]
        assert torch.equal(made.weights.nonzero()[:, 1].view(3, 20), torch.arange(3, 23).expand(3, 20))
        with torch.no_grad():  # a cache gives what none does
            q = student.model(made.ids).logits[:, 3:-1, :250].log_softmax(-1)
        assert made.entropy == pytest.approx(-(q.exp() * q).sum(-1).mean().item(), rel=1e-4)
        assert (made.stepped_in > 0.2) == (other is not None) and made.stepped_in < 1
    end = int(made.ids[0, 9])
    short = written(student, prompts, 20, 7, vocabulary=250, teacher=teacher, ends=[end], special=[int(made.ids[1, 6])])
    size = made.ids[0].tolist().index(end, 4) - 4 + 1
    assert short.lengths[0] == size and not short.weights[0, 3 + size :].any()
    if int(made.ids[1, 6]) not in made.ids[1, 7:] and end not in made.ids[1, 4:7]:
        assert short.weights[1, 5] == 0 and short.weights[1, 4] == 1
    # where both are the same nobody steps in
    assert written(student, prompts, 9, 7, vocabulary=250, teacher=student).stepped_in == 0


def test_distinct_runs():
    assert (
        distinct([[1, 2, 3, 4]]) == 1 and distinct([[1, 1, 1, 1, 1]]) == pytest.approx(1 / 3) and distinct([[1]]) == 1
    )


def test_a_collapse_ends_with_the_best_and_stopped_before_it_ends_the_same(tmp_path):
    def run(folder, stop_after=None):
        torch.manual_seed(0)
        model, watch = nn.Linear(4, 1), Watch()

        def batches(step):
            if step >= 12:
                watch.look(0.1 if step >= 14 else 1.0, 1.0, 0.9, 20.0)
            return {"x": torch.randn(8, 4, generator=torch.Generator().manual_seed(step))}

        def loss(model, batch):
            gap = (model(batch["x"]) - batch["x"].sum(-1, keepdim=True)).square()
            return gap.sum(), torch.tensor(float(gap.numel()))

        held_out = torch.randn(50, 4, generator=torch.Generator().manual_seed(99))
        told = train(
            model, batches, Schedule(0.1, 40), loss=loss, folder=folder, stop_after=stop_after, watch=watch,
            judge=lambda model: (model(held_out) - held_out.sum(-1, keepdim=True)).square()[:, 0], judge_every=5,
            good_every=4,
        )  # fmt: skip
        return model, told

    model, told = run(tmp_path / "whole")
    assert told["collapsed"] == 17 and told["held_out"]["step"] == 15 and told["held_out"]["helped"]
    for stop in (13, 16):
        run(tmp_path / str(stop), stop)
        again, told = run(tmp_path / str(stop))
        assert torch.equal(model.weight, again.weight) and told["collapsed"] == 17
    assert '"collapsed": true' in (tmp_path / "whole" / "metrics.jsonl").read_text()
    watch = Watch()
    for step in range(3):
        assert watch.collapsed(step) is None
        watch.look(1.0, 1.0, 0.9 if step == 0 else 0.2, 20.0)
    assert watch.collapsed(3) is None and watch.narrow == 2  # of fewer different words, too
    watch.look(1.0, 1.0, 0.9, 20.0)
    assert watch.narrow == 0


def test_what_is_preferred_is_the_textbooks_in_value_and_gradient_in_parts_or_whole():
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(0, VOCABULARY, (4, 6), generator=draw)
    weights = torch.ones(4, 6, dtype=torch.float64)
    weights[:, -1], weights[0, :2], weights[3, 3:] = 0, 0, 0
    q, p = (torch.randn(4, 6, VOCABULARY, generator=draw, dtype=torch.float64) for _ in range(2))
    naive = q.clone().requires_grad_()
    ratios = []
    for row in range(4):
        places = [i for i in range(5) if weights[row, i] > 0]
        gaps = naive[row].log_softmax(-1) - p[row].log_softmax(-1)
        ratios.append(sum(gaps[i, ids[row, i + 1]] for i in places) / len(places))
    expected = sum(-torch.log(torch.sigmoid(2.0 * (ratios[i] - ratios[i + 2]))) for i in range(2))
    expected.backward()
    for rows in (2, 100):
        mine = q.clone().requires_grad_()
        own, theirs = (
            said(x, lambda h: h, ids, weights, VOCABULARY, at_once=4 * VOCABULARY * rows).view(2, 2) for x in (mine, p)
        )
        total = preferred_loss(own, theirs).sum()
        total.backward()
        assert total.item() == pytest.approx(expected.item(), rel=1e-9)
        assert torch.allclose(mine.grad, naive.grad, rtol=1e-8, atol=1e-12)
        assert not mine.grad[weights == 0].any()
    assert preferred_loss(own.detach(), own.detach()).tolist() == pytest.approx([math.log(2)] * 2)
