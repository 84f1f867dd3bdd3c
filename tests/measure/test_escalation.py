"""The law: harmful flips stay below what was promised, and as few answers as possible go over."""

from __future__ import annotations

import random

import pytest
import torch
from scipy.stats import beta

import models
from whet.engines.sampling import Doubt
from whet.engines.stepping import stepper
from whet.engines.torch import open_model
from whet.errors import UsageError
from whet.measure import escalation
from whet.measure.escalation import DOUBTS, Written, _last_that_holds, choose, fewest, one_of_each
from whet.measure.items import Item
from whet.measure.statistics import upper_limit


def test_the_upper_limit_is_clopper_and_pearsons() -> None:
    for count, of in ((0, 299), (3, 50), (40, 41), (7, 7)):
        expected = 1.0 if count == of else float(beta.ppf(0.95, count + 1, of - count))
        assert upper_limit(count, of) == pytest.approx(expected, abs=1e-9)
    assert upper_limit(0, fewest(0.01)) <= 0.01 < upper_limit(0, fewest(0.01) - 1) and fewest(0.01) == 299


def test_doubt_is_one_minus_the_largest_share_over_the_last_tokens() -> None:
    made, logits = Doubt(3), torch.randn(6, 20, generator=torch.Generator().manual_seed(0))
    single = (1 - logits.softmax(-1).amax(-1)).tolist()
    found = [made.add(row) for row in logits]
    for at in range(6):
        last = single[max(0, at - 2) : at + 1]
        assert found[at] == pytest.approx(sum(last) / len(last), abs=1e-6)


def simulated(seed: int, count: int = 600, harm: float = 0.08) -> tuple:
    """Answers of one token: the more doubt, the oftener wrong. What the original goes on with is right."""
    rng = random.Random(seed)
    mine, alone = [], []
    for _ in range(count):
        doubt = rng.random()
        mine.append(Written([7], [doubt, 0.0]))
        alone.append(rng.random() > 2 * harm * doubt)
    good = [True] * count
    right = {(i, 0): True for i in range(count)}
    return mine, good, right, alone


def test_the_promise_holds_and_no_larger_doubt_would_do() -> None:
    """Over many draws: the true share of harmful flips at the chosen doubt exceeds the promise in at most 5 %."""
    broken, runs, taken = 0, 200, []
    for seed in range(runs):
        chosen = _last_that_holds(*simulated(seed), share=0.03)
        true = 0.08 * chosen.doubt**2  # the mean of 2 x harm x doubt below it
        broken += true > 0.03
        taken.append(chosen)
        assert chosen.limit <= 0.03 and chosen.alone > chosen.harmful
    assert broken <= 0.05 * runs + 3 * (0.05 * 0.95 * runs) ** 0.5
    assert 0.1 < sum(one.escalated for one in taken) / runs < 0.9
    mine, good, right, alone = simulated(0)
    chosen = _last_that_holds(mine, good, right, alone, share=0.03)
    after = DOUBTS[DOUBTS.index(chosen.doubt) + 1]
    harmful = sum(not alone[i] for i, one in enumerate(mine) if one.until(after) is None)
    assert upper_limit(harmful, len(mine)) > 0.03


def test_what_cannot_be_promised_is_refused() -> None:
    mine, good, _, alone = simulated(1)
    wrong = {(i, 0): False for i in range(len(mine))}  # the original cannot mend what was begun
    with pytest.raises(UsageError, match="No threshold keeps"):
        _last_that_holds(mine, good, wrong, alone, share=0.03)
    items = [Item("sums", f"{i}", "1", group=f"g{i % 20}") for i in range(100)]
    assert len(one_of_each(items)) == 20
    assert not one_of_each([Item("x", "y", choices=("a", "b"), label=0)])
    with pytest.raises(UsageError, match=r"20 questions .* at least 59"):
        choose(None, None, items, 0.05)


def test_answers_of_two_models(tmp_path, monkeypatch) -> None:
    """Of real models: the answers are those that each writes."""
    folder = models.make(tmp_path / "model", "qwen3", dtype=torch.float32)
    original, lighter = (open_model(folder, "cpu", "float32") for _ in range(2))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in lighter.model.parameters():
            value += 0.02 * value.abs().mean() * torch.randn(value.shape, generator=generator)
    monkeypatch.setattr(escalation, "LONGEST_ANSWER", 6)
    prompts = [f"{i % 7} ab {'cd ' * (i % 3)}{i}" for i in range(80)]
    answers = {}
    for name, engine in (("original", original), ("lighter", lighter)):
        ids = [engine.encode(prompt) for prompt in prompts]
        answers[name] = escalation.write(engine, stepper(engine, 16, 96), ids, [6] * 80)
        expected = [engine.continue_ids([one], 6, stop_at_newline=True)[0] for one in ids]
        assert [one.ids for one in answers[name]] == expected
    items = [
        Item("same", prompt, original.decode(one.ids).split("\n")[0].strip() or "?", check="exact")
        for prompt, one in zip(prompts, answers["original"], strict=True)
    ]
    differ = [i for i in range(80) if answers["original"][i].ids != answers["lighter"][i].ids]
    asked = [items[i] for i in range(80) if i not in differ] + [items[i] for i in differ[:3]]
    chosen = choose(original, lighter, asked, 0.3)
    assert chosen.questions == len(asked) > 20 and chosen.limit <= 0.3 and 0 < chosen.alone <= 3
    assert choose(original, original, items, 0.05).doubt == 1.0  # nothing to fear from the original itself
