"""The law: what is written with a draft is what the original writes, whatever the draft guesses."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

import models
from whet.engines import drafted, slots
from whet.engines.drafting import Drafter, Pace, drafter, instead, judged, keep_share
from whet.engines.opening import generate
from whet.engines.sampling import draw, shares
from whet.engines.stepping import AloneStepper, stepper
from whet.engines.torch import open_model
from whet.errors import UsageError

PROMPTS = ("ab cd", "가나다", "the ", "the for cd ab")


class Always(Pace):
    """Guesses so many tokens, whatever they cost."""

    def choose(self, rows: int) -> int:
        return self.most


def some_shares(*shape: int, seed: int = 0, peak: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(peak * torch.randn(*shape, generator=generator, dtype=torch.float64), -1)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = models.make(tmp_path_factory.mktemp("tiny") / "model", "qwen3", dtype=torch.float32)
    return open_model(folder, "cpu", "float32")


@pytest.fixture(scope="module")
def other(engine, tmp_path_factory):
    """Weights moved enough that some guesses are wrong."""
    made = open_model(engine.folder, "cpu", "float32")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in made.model.parameters():
            value += 0.15 * value.abs().mean() * torch.randn(value.shape, generator=generator)
    return made


def pair(engine, other, slots: int = 1, length: int | None = 3):
    steps, drafts = drafted.steppers(engine, other, slots, 96)
    if length is not None:
        drafts.pace = Always(length)
    return steps, drafts


def test_two_guesses_and_what_is_drawn_instead_are_distributed_as_the_original_by_enumeration() -> None:
    """Every way that two guesses can go, with its probability: together the first two tokens are drawn from p."""
    p1, q1 = some_shares(3, seed=1), some_shares(3, seed=2)
    p2, q2 = some_shares(3, 3, seed=3), some_shares(3, 3, seed=4)
    found = torch.zeros(3, 3, dtype=torch.float64)
    for one, two in itertools.product(range(3), repeat=2):
        ways = q1[one] * q2[one, two]
        first, second = keep_share(p1, q1, one), keep_share(p2[one], q2[one], two)
        found += ways * (1 - first) * instead(p1, q1)[:, None] * p2  # the next pass draws what comes after
        found[one] += ways * first * (1 - second) * instead(p2[one], q2[one])
        found[one, two] += ways * first * second
    assert torch.allclose(found, p1[:, None] * p2, atol=1e-12)
    assert not torch.allclose(q1[:, None] * q2, p1[:, None] * p2, atol=0.05)  # which could not be seen otherwise


def test_what_is_judged_is_distributed_as_the_original() -> None:
    p, q = some_shares(2, 5, seed=5), some_shares(5, seed=6)
    sampler, counts = torch.Generator().manual_seed(0), Counter()
    for _ in range(4000):
        guess = int(torch.multinomial(q, 1, generator=sampler))
        counts[judged(p, [q], [guess], sampler)[0]] += 1
    found = [counts[token] for token in range(5)]
    assert chisquare(found, (4000 * p[0]).tolist()).pvalue > 0.01
    assert chisquare(found, (4000 * q).tolist()).pvalue < 1e-6


def test_sampled_answers_of_a_model_are_distributed_as_its_own(engine, other) -> None:
    """The first two tokens after a prompt, in classes of the first token, with a draft that guesses two."""
    steps, drafts = pair(engine, other, length=2)
    prompt, runs = engine.encode("ab cd"), 600
    p = shares(engine.logits(torch.tensor([prompt]))[0, -1:], 0.4, 0.9)[0]
    first = int(p.argmax())
    after = shares(engine.logits(torch.tensor([[*prompt, first]]))[0, -1:], 0.4, 0.9)[0]
    counts: Counter[tuple[bool, bool]] = Counter()
    for seed in range(runs):
        one, two, *_ = drafted.write(
            engine, steps, drafts, prompt, 4, temperature=0.4, top_p=0.9, seed=seed, past_ends=True
        ).ids
        counts[one == first, one == first and two == int(after.argmax())] += 1
    share, next_share = float(p[first]), float(after.max())
    expected = {(True, True): share * next_share, (True, False): share * (1 - next_share), (False, False): 1 - share}
    assert chisquare([counts[cell] for cell in expected], [runs * one for one in expected.values()]).pvalue > 0.01
    assert 0 < drafts.pace.kept < drafts.pace.proposed


@pytest.mark.parametrize("length", [1, 3, 8])
def test_greedy_answers_are_the_originals_own(engine, other, length: int) -> None:
    steps, drafts = pair(engine, other, length=length)
    for prompt in PROMPTS:
        ids = engine.encode(prompt)
        done = drafted.write(engine, steps, drafts, ids, 32, past_ends=True)
        assert done.ids == engine.continue_ids([ids], 32, past_ends=True)[0]
    assert 0 < drafts.pace.kept < drafts.pace.proposed


def test_a_draft_with_other_numbers_for_its_tokens_and_fewer_of_them(engine, other) -> None:
    """Half of the draft's tokens are unknown to it; the rest have other numbers."""
    names = engine.tokenizer.get_vocab()
    theirs = {name: number for name, number in names.items() if number % 3}
    made = Drafter(stepper(other, 1, 96), theirs, names, engine.vocabulary, engine.ends)
    made.pace = Always(3)
    for prompt in PROMPTS:
        ids = engine.encode(prompt)
        done = drafted.write(engine, stepper(engine, 1, 96), made, ids, 32, past_ends=True)
        assert done.ids == engine.continue_ids([ids], 32, past_ends=True)[0]
    full = torch.arange(float(engine.vocabulary))
    turned = {name: engine.vocabulary - 1 - number for name, number in names.items()}
    shuffled = Drafter(stepper(other, 1, 96), turned, names, engine.vocabulary, ())
    assert torch.equal(shuffled._as_theirs(full)[:200], full.flip(0)[:200])


def test_a_model_drafts_for_itself_without_a_wrong_guess(engine) -> None:
    steps, drafts = pair(engine, engine, length=4)
    done = drafted.write(engine, steps, drafts, engine.encode("ab cd"), 31, past_ends=True)
    assert done.kept == done.proposed >= 20


def test_the_length_follows_from_what_was_measured() -> None:
    def pace(acceptance: float, cost: float, slope: float) -> Pace:
        made = Pace()
        for tokens in (1, 5, 3, 9):
            made.reads.add(tokens, 1 + slope * (tokens - 1))
            made.drafts.add(1, cost)
        for i in range(400):
            made.add(1, int((i * acceptance) % 1 + acceptance >= 1))
        return made

    good, bad = pace(0.9, 0.1, 0.02), pace(0.3, 0.6, 0.1)
    assert good.tokens(4) == pytest.approx((1 - good.acceptance**5) / (1 - good.acceptance))
    assert good.acceptance == pytest.approx(0.9, abs=0.05) and bad.acceptance == pytest.approx(0.3, abs=0.05)
    assert good.choose(1) >= 4 and bad.choose(1) == 0
    assert good.rate(4, 1) == pytest.approx(good.tokens(4) / (1 + 4 * 0.02 + 4 * 0.1))
    # many sequences fill the pass of the original, so guesses are worth less
    assert pace(0.7, 0.1, 0.2).choose(1) > pace(0.7, 0.1, 0.2).choose(16)
    assert {bad.choose(1) for _ in range(40)} == {0, 1}  # it looks again, as costs and texts change


def test_rows_of_any_length_go_through_together(engine) -> None:
    prompts = [engine.encode(prompt) for prompt in PROMPTS[:3]]
    steps = stepper(engine, 3, 96)
    assert isinstance(steps, slots.SlotStepper)
    for slot, ids in enumerate(prompts):
        steps.read(slot, ids)
    for _ in range(2):  # the second time, tokens that were taken back lie behind
        rows = steps.step([(2, [7, 8, 9]), (0, [5])])
        for slot, fed, logits in ((2, [7, 8, 9], rows[0]), (0, [5], rows[1])):
            alone = engine.logits(torch.tensor([[*prompts[slot], *fed]]))[0, -len(fed) :]
            assert torch.allclose(logits, alone, atol=1e-4)
        for slot, ids in enumerate(prompts):
            steps.crop(slot, len(ids))
    with torch.inference_mode():
        steps._cache.layers[0].values[1] = float("nan")
    steps.end(1)
    assert torch.isfinite(steps.read(1, prompts[0])).all()


def test_models_that_cannot_go_back_are_run_alone_and_refuse_a_draft(engine, other, monkeypatch) -> None:
    config = engine.model.config
    monkeypatch.setattr(config, "sliding_window", 8, raising=False)
    monkeypatch.setattr(config, "use_sliding_window", True, raising=False)
    assert isinstance(stepper(engine, 2, 96), AloneStepper)
    with pytest.raises(UsageError, match="cannot take tokens back"):
        drafted.steppers(engine, other, 1, 96)
    monkeypatch.undo()
    monkeypatch.setattr(engine, "run", lambda *_, **__: torch.zeros(2, engine.vocabulary))
    assert not slots.can_share(engine, 96)


def test_what_cannot_draft_is_refused(engine, other) -> None:
    with pytest.raises(UsageError, match="only 1 of its 3 tokens"):
        Drafter(stepper(other, 1, 96), {"zz1": 0, "zz2": 1, "a": 2}, {"a": 0}, 9, ())
    assert drafter(engine, other, stepper(other, 1, 96))._same


def test_from_the_verb(engine) -> None:
    plain = generate(engine.folder, "ab cd", max_new_tokens=20)
    assert generate(engine.folder, "ab cd", max_new_tokens=20, draft=engine.folder) == plain
    with pytest.raises(UsageError, match="exceed"):
        generate(engine.folder, "ab cd", max_new_tokens=1 << 20, draft=engine.folder)


def test_likelier_guesses_of_alike_models_from_one_seed(engine) -> None:
    """Coupled draws: two shares that differ by d in total variation draw the same token in (1 - d) / (1 + d)."""
    p, q = some_shares(200, seed=7, peak=1.0), some_shares(200, seed=7, peak=1.1)
    d = float((p - q).abs().sum() / 2)
    same = sum(draw(p.log(), 1.0, 1.0, 3, at) == draw(q.log(), 1.0, 1.0, 3, at) for at in range(2000)) / 2000
    assert same >= (1 - d) / (1 + d) - 0.02 and d > 0.02
