"""Gates: pass, fail or not enough evidence; the error is what was promised, and a killed gate goes on to the same."""

from __future__ import annotations

import copy
import json
import os
import shutil

import numpy as np
import pytest
import scipy.stats
import torch

import killing
from whet.engines import Timing
from whet.engines.opening import open_engine
from whet.errors import UsageError
from whet.measure import evidence, judging
from whet.measure.evidence import Found, GateMaterial, Kept, Pair, Skills, Speed, Text
from whet.measure.gates import check_gate, measure_gate, parse_gate
from whet.measure.items import Item
from whet.measure.judging import conclude, judgings, take_looks
from whet.measure.skills import score

DOCUMENTS = [f"{i} 가나 ab {i * i} cd 마바 e {i * 7 % 13}." for i in range(90)]


@pytest.fixture(scope="module")
def folders(model, tokenizer, tmp_path_factory):
    """The original; a copy of it; one whose answers are the same though it is not; one that is worse; NaN inside."""
    root, made = tmp_path_factory.mktemp("models"), {}
    for name, noise in (("original", 0.0), ("close", 1e-6), ("worse", 0.3), ("nan", float("nan"))):
        changed = copy.deepcopy(model)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in changed.model.layers[1].parameters() if noise else ():
                parameter += noise * torch.randn_like(parameter)
        made[name] = root / name
        changed.save_pretrained(made[name])
        tokenizer.save_pretrained(made[name])
    made["copy"] = shutil.copytree(made["original"], root / "copy")
    return made


@pytest.fixture(scope="module")
def items(folders):
    """Questions that the original answers, most of them rightly."""
    prompts = [f"{i % 10}{chr(97 + i % 26)} {i}" for i in range(240)]
    own = score(open_engine(folders["original"], "cpu"), [Item("own", prompt, answer="?") for prompt in prompts])
    right = [outcome.answer if i % 12 else "never" for i, outcome in enumerate(own)]
    return [
        Item("own", prompt, answer=answer or "?", group=str(i // 2))
        for i, (prompt, answer) in enumerate(zip(prompts, right, strict=True))
    ]


def measure(folders, lighter, limits, material, folder, **more):
    gate = parse_gate(limits, [item.skill for item in material.items], text=bool(material.text))
    return measure_gate(folders["original"], folders[lighter], gate, material, folder=folder, device="cpu", **more)


def figures(result):
    """A result without what time it took."""
    return {key: value for key, value in result.items() if key != "seconds"}


def test_a_gate_is_read_and_what_it_cannot_mean_is_refused():
    gate = parse_gate({"retention": 0.97, "retention.b": 0.99, "kl": 0.1, "shrink": 2}, ["a", "b", "a", "c"])
    assert [(each.name, each.at, each.named) for each in gate.asked] == [
        ("shrink", 2.0, False),
        ("kl", 0.1, False),
        ("retention.a", 0.97, False),
        ("retention.c", 0.97, False),
        ("retention.b", 0.99, True),
    ]
    assert gate.sources == {"size", "text", "skills"} and gate.limits["shrink"] == 2.0
    whole = ["kl", "top1", "perplexity", "shrink", "prefill.speedup", "decode.speedup", "memory"]
    assert len(parse_gate(dict.fromkeys(whole, 0.5)).asked) == len(whole)
    for limits, message in (
        ({}, "the gate is no gate: a gate is figures"),
        ([0.1], "the gate is no gate: a gate is figures"),
        ({"klm": 1}, r"no figure klm\. Did you mean kl\?"),
        ({"decode.speed": 1}, r"no figure decode\.speed\. Did you mean decode\.speedup\?"),
        ({"kl.a": 1}, r"no figure kl\.a\."),
        ({"retention.aa": 1}, r"is of skill aa\. Did you mean a\?"),
        ({"retention": 97}, "the gate: retention is 97; a limit on it is a number from 0 to 2"),
        ({"top1": 1.5}, "from 0 to 1"),
        ({"kl": -1}, "from 0 to inf"),
        ({"kl": True}, "kl is True"),
        ({"kl": "0.1"}, "kl is '0.1'"),
        ({"kl": float("nan")}, "kl is nan"),
        ({"kl": None}, "kl is None"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_gate(limits, ["a", "b"])
    with pytest.raises(UsageError, match="kl is measured on text, and none"):
        parse_gate({"kl": 0.1}, text=False)
    for name in ("retention", "retention.a"):
        with pytest.raises(UsageError, match=f"the gate: {name} is measured on questions, and none"):
            parse_gate({name: 0.9})


class Closed:
    """A pair of models that must not be asked."""

    on_event = staticmethod(lambda event: None)


def kept(tmp_path, gate, original=()):
    return Kept(tmp_path / "o", tmp_path / "g", dict(original), gate)


def decided(limits, sources, skills=()):
    """The verdict on evidence that is all there, and the judgements."""
    judged = judgings(parse_gate(limits, skills).asked, lambda source: sources[source])
    take_looks(judged, lambda number, names: None)
    return conclude(judged)[0], judged


def text_of(rng, tmp_path, documents=200, mean=0.1, apart=0.1):
    """Documents of 50 tokens whose KL is skewed (gamma 1), and whose tokens are apart together (beta)."""
    kl = rng.gamma(1.0, 50 * mean, documents)
    different = rng.binomial(50, rng.beta(20 * apart, 20 * (1 - apart), documents))
    gap = rng.normal(50 * np.log(1.1), 5, documents)
    rows = np.stack([np.full(documents, 50.0), kl, different, gap], axis=1).tolist()
    found = Found([None] * documents, list(range(documents)), list(range(1, documents + 1)), [])
    return Text(Closed(), found, kept(tmp_path, {"windows": rows}))


def skills_of(rng, tmp_path, groups=200, lost=0.1, into=None):
    """Two questions a group; the original has 90 % of groups right, the lighter loses both of a group or one.

    into: what to answer anew, of as many groups.
    """
    if into is None:
        items = [Item("s", f"{g} {i}", answer="x", group=str(g)) for g in range(groups) for i in range(2)]
        into = Skills(Closed(), GateMaterial(items=items), kept(tmp_path, {}), 0, same=False)
    right = np.repeat(rng.random(groups) < 0.9, 2)
    together = np.repeat(rng.random(groups) < 0.5, 2)
    gone = np.where(together, np.repeat(rng.random(groups) < lost, 2), rng.random(2 * groups) < lost)
    into.kept.original, into.kept.gate["answers"] = (
        {key: {"answer": "", "right": bool(flag)} for key, flag in zip(into.keys.values(), flags, strict=True)}
        for flags in (right, right & ~gone)
    )
    return into


def wrong(limits, make, runs, skills=()):
    """The share of gates that are decided though each true value is the limit itself."""
    rng = np.random.default_rng(0)
    return sum(decided(limits, make(rng), skills)[0] != "undecided" for _ in range(runs)) / runs


def test_a_true_value_at_the_limit_is_decided_in_at_most_five_of_a_hundred_gates(tmp_path, monkeypatch):
    """To what so many gates tell; `test_sequential` has the looks alone to a hundredth of that."""
    questions = skills_of(np.random.default_rng(0), tmp_path)

    def read(rng):
        return {"text": text_of(rng, tmp_path)}

    def asked(rng):
        return {"skills": skills_of(rng, tmp_path, into=questions)}

    def most(runs):
        return scipy.stats.binom.ppf(0.99, runs, 0.05) / runs

    assert most(400) < 0.08
    assert wrong({"kl": 0.1}, read, 600) <= most(600)
    assert wrong({"kl": 0.1, "top1": 0.9, "perplexity": 1.1}, read, 200) <= most(200)
    assert wrong({"retention": 0.9}, asked, 400, ["s"]) <= most(400)
    # the check tells: with the whole error at each look it is more
    monkeypatch.setattr(judging, "levels", lambda counts, error: [error] * len(counts))
    assert wrong({"kl": 0.1}, read, 200) > 0.09
    assert wrong({"retention": 0.9}, asked, 200, ["s"]) > 0.09


def test_what_is_plain_is_decided_early_and_rightly(tmp_path):
    rng = np.random.default_rng(0)
    for mean, lost, verdict in ((0.02, 0.0, "pass"), (0.5, 0.6, "fail")):
        for limits, sources in (
            ({"kl": 0.1}, {"text": text_of(rng, tmp_path, mean=mean)}),
            ({"retention": 0.8}, {"skills": skills_of(rng, tmp_path, lost=lost)}),
        ):
            found, (judged,) = decided(limits, sources, ["s"])
            assert found == verdict and judged.look <= 2, (limits, judged.why)


def test_little_material_is_not_enough_and_more_of_it_decides(tmp_path):
    rng = np.random.default_rng(0)
    found, (judged,) = decided({"retention": 0.95}, {"skills": skills_of(rng, tmp_path, groups=12, lost=0.0)}, ["s"])
    assert found == "undecided" and judged.look is None
    assert "has 0.95 inside, and all of its questions are in: about" in judged.why
    found, (judged,) = decided({"retention": 0.95}, {"skills": skills_of(rng, tmp_path, groups=400, lost=0.0)}, ["s"])
    assert found == "pass" and judged.measured.value == 1.0


def test_one_broken_limit_ends_it_and_says_so(tmp_path):
    rng = np.random.default_rng(0)
    sources = {"text": text_of(rng, tmp_path, mean=0.5), "skills": skills_of(rng, tmp_path, lost=0.05)}
    judged = judgings(parse_gate({"retention": 0.9, "kl": 0.1}, ["s"]).asked, lambda source: sources[source])
    looks = []
    take_looks(judged, lambda number, names: looks.append((number, names)))
    verdict, reason = conclude(judged)
    assert verdict == "fail" and reason.startswith("kl: mean KL in nats a token: 0.") and looks == [(1, ["kl"])]
    assert judged[1].record()["reason"].endswith("above chance: not measured; kl was broken first.")


def test_a_skill_the_original_lacks_has_no_say_unless_it_is_named(tmp_path):
    rng = np.random.default_rng(0)

    def sources(groups):
        both = skills_of(rng, tmp_path, groups=groups, lost=0.0)
        hopeless = [Item("no", f"{i}", choices=("a", "b"), label=0) for i in range(40)]
        both.groups["no"] = [[item] for item in hopeless]
        both.keys |= {item: str(i) for i, item in enumerate(hopeless)}
        for answers in (both.kept.original, both.kept.gate["answers"]):
            answers |= {str(i): {"answer": "a", "right": i % 2 == 0} for i in range(40)}
        return {"skills": both}

    found, judged = decided({"retention": 0.9}, sources(300), ["s", "no"])
    assert found == "pass" and [each.verdict for each in judged] == ["pass", "not judged"]
    assert "nothing to keep as far as 40 questions tell" in judged[1].why
    found, judged = decided({"retention": 0.9, "retention.no": 0.5}, sources(300), ["s", "no"])
    assert found == "undecided" and judged[1].verdict == "undecided"
    found, _ = decided({"retention": 0.9}, sources(300), ["no"])  # nothing was judged at all
    assert found == "undecided"


class Clockwork:
    """An engine that takes `seconds` a prompt, give or take `noise`."""

    def __init__(self, seconds, noise, rng):
        self.seconds, self.noise, self.rng = seconds, noise, rng

    def time(self, prompt, new_tokens):
        seconds = self.seconds * np.exp(self.noise * self.rng.normal())
        return Timing(seconds, 2 * seconds, len(prompt), new_tokens)


@pytest.mark.parametrize(
    ("faster", "noise", "verdict", "rounds"),
    [(2.0, 0.01, "pass", 12), (1.1, 0.01, "fail", 12), (1.5, 0.3, "undecided", 48)],
)
def test_speed_is_judged_by_the_interval_of_its_rounds(tmp_path, faster, noise, verdict, rounds):
    rng = np.random.default_rng(0)
    pair = Pair(("", ""), "cpu", None, lambda event: None)
    pair.original, pair.lighter = Clockwork(1.0, noise, rng), Clockwork(1.0 / faster, noise, rng)
    found, (judged,) = decided({"decode.speedup": 1.5}, {"speed": Speed(pair, [1] * 8, kept(tmp_path, {}))})
    assert found == verdict and judged.evidence.used() == {"rounds": rounds}
    low, high = judged.measured.interval
    assert low <= judged.measured.value <= high


def test_a_model_against_itself_passes_at_the_first_look(folders, items, tmp_path):
    material = GateMaterial(DOCUMENTS, items, window=16)
    result = measure(folders, "copy", {"kl": 0.0, "retention": 1.0, "top1": 1.0}, material, tmp_path / "a")
    assert result["verdict"] == "pass" and result["reason"] == "All 3 limits hold." and len(result["looks"]) == 1
    assert [(each["value"], each["interval"]) for each in result["judgements"]] == [
        (0.0, [0.0, 0.0]),
        (1.0, [1.0, 1.0]),
        (1.0, [1.0, 1.0]),
    ]
    assert 0 < result["questions"] < len(items) and json.loads(json.dumps(result, allow_nan=False)) == result
    alone = measure(folders, "copy", {"retention": 1.0}, GateMaterial(items=items), tmp_path / "b")
    assert alone["verdict"] == "pass" and alone["tokens"] == 0
    # the same answers by other numbers are not the same model: that takes as much evidence as any
    few = measure(folders, "close", {"retention": 0.97}, GateMaterial(items=items[:60]), tmp_path / "c")
    assert few["verdict"] == "undecided" and few["judgements"][0]["value"] == 1.0 and few["questions"] == 60


def test_a_broken_model_fails_and_one_that_computes_nothing_is_no_error(folders, items, tmp_path):
    material = GateMaterial(DOCUMENTS, items, window=16)
    result = measure(folders, "worse", {"retention.own": 0.97}, material, tmp_path)
    assert result["verdict"] == "fail" and result["judgements"][0]["look"] == 1
    assert result["reason"].startswith("retention.own: accuracy over the original's, above chance: ")
    for limits, message in (
        ({"kl": 0.1}, "a logit is not finite"),
        ({"retention": 0.9}, "not finite where it answers"),
    ):
        result = measure(folders, "nan", limits, material, tmp_path)
        assert result["verdict"] == "fail" and message in result["reason"]


def test_only_what_is_asked_for_is_measured(folders, items, tmp_path, monkeypatch):
    events = []
    material = GateMaterial(DOCUMENTS, items, window=16)
    measure(folders, "worse", {"retention": 0.9}, material, tmp_path / "a", on_event=events.append)
    assert {event.get("stage") for event in events} == {"skills, original", "skills, lighter", None}
    events.clear()
    measure(folders, "close", {"retention": 0.5}, material, tmp_path / "a", on_event=events.append)
    assert "skills, original" not in {event.get("stage") for event in events}  # asked once in a run
    monkeypatch.setattr(evidence, "open_engine", None)
    peaks = iter([{"peak_bytes": 100}, {"peak_bytes": 40}])
    monkeypatch.setattr(evidence, "footprint", lambda *given, **more: next(peaks))
    result = measure(folders, "copy", {"shrink": 1.0, "memory": 0.5}, GateMaterial(), tmp_path / "b")
    assert result["verdict"] == "pass" and [each["value"] for each in result["judgements"]] == [1.0, 0.4]
    monkeypatch.setattr(evidence, "footprint", lambda *given, **more: {"error": "it ended"})
    result = measure(folders, "copy", {"memory": 0.5}, GateMaterial(DOCUMENTS, window=16), tmp_path / "b")
    assert result["verdict"] == "undecided" and "it ended" in result["reason"]


def test_the_same_seed_gives_the_same_and_another_order_is_another_gate(folders, items, tmp_path):
    material = GateMaterial(DOCUMENTS, items, window=16)
    limits = {"kl": 1.0, "retention": 0.9}
    results = [
        measure(folders, "close", limits, material, tmp_path / str(number), seed=seed)
        for number, seed in enumerate((0, 0, 1))
    ]
    assert figures(results[0]) == figures(results[1]) != figures(results[2])


LIMITS = {"kl": 1.0, "top1": 0.5, "retention": 0.97}


@pytest.fixture(scope="module")
def undisturbed(folders, items, tmp_path_factory):
    """A gate of several looks."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return measure(folders, "close", LIMITS, GateMaterial(DOCUMENTS, items, window=16), folder)


@pytest.mark.parametrize("at", [1, 3, 5])
def test_killed_between_looks_it_goes_on_to_the_same_result(folders, items, undisturbed, tmp_path, at):
    material, events = GateMaterial(DOCUMENTS, items, window=16), []
    assert len(undisturbed["looks"]) >= 2

    def die_at_rename():
        replace, count = os.replace, iter(range(1, 100))

        def counted(*given):
            replace(*given)
            if next(count) == at:
                killing.die()

        os.replace = counted

    killing.killed(lambda: measure(folders, "close", LIMITS, material, tmp_path), die_at_rename)
    result = measure(folders, "close", LIMITS, material, tmp_path, on_event=events.append)
    assert figures(result) == figures(undisturbed) and result["seconds"] > 0
    # once all of it is there, nothing is measured again
    events.clear()
    assert figures(measure(folders, "close", LIMITS, material, tmp_path, on_event=events.append)) == figures(result)
    assert {event["event"] for event in events} == {"look"}


def test_windows_already_cut_are_a_document_each(folders, tmp_path):
    windows = [torch.randint(2, 258, (12,), generator=torch.Generator().manual_seed(i)) for i in range(60)]
    result = measure(folders, "worse", {"kl": 1e-3}, GateMaterial(windows), tmp_path)
    assert result["verdict"] == "fail" and result["tokens"] == 30 * 11
    with pytest.raises(UsageError, match="kl is measured on text"):
        measure_gate(folders["original"], folders["worse"], parse_gate({"kl": 1}), GateMaterial(), folder=tmp_path)


def test_what_a_gate_will_refuse_is_refused_before_there_is_a_model(folders, items):
    def check(limits, material):
        check_gate(folders["original"], parse_gate(limits, ["own"]), material)

    check({"kl": 0.1, "decode.speedup": 1.5, "retention.own": 0.9}, GateMaterial(DOCUMENTS, items))
    with pytest.raises(UsageError, match="The text set aside for gates: text shorter than a window"):
        check({"kl": 0.1}, GateMaterial(DOCUMENTS[:1], items))
    with pytest.raises(UsageError, match="kl is measured on text, and none"):
        check({"kl": 0.1}, GateMaterial(None, items))
    with pytest.raises(UsageError, match=r"retention\.own is measured on questions, and none"):
        check({"retention.own": 0.9}, GateMaterial(DOCUMENTS))


def test_a_gate_on_an_aspect_measures_it_once(folders, tmp_path, monkeypatch):
    material = GateMaterial(DOCUMENTS, window=32, windows=40)
    results = {}
    for lighter, limit in (("copy", 0.99), ("worse", 0.99), ("worse", 0.01)):
        gate = {"acceptance.share": limit, "kl": 50.0}
        result = measure(folders, lighter, gate, material, tmp_path / f"{lighter}{limit}")
        results[lighter, limit] = {each["figure"]: each["verdict"] for each in result["judgements"]}
    assert results["copy", 0.99]["acceptance.share"] == results["worse", 0.01]["acceptance.share"] == "pass"
    assert results["worse", 0.99]["acceptance.share"] == "fail"
    again = measure(folders, "worse", gate, material, tmp_path / f"worse{limit}")
    assert {each["figure"]: each["verdict"] for each in again["judgements"]} == results["worse", 0.01]
    monkeypatch.setattr("whet.measure.aspect_evidence.divergence", lambda *_: pytest.fail("it was measured before"))
    assert measure(folders, "worse", gate, material, tmp_path / f"worse{limit}")["verdict"] == "pass"
    with pytest.raises(UsageError, match=r"Did you mean acceptance\.share"):
        parse_gate({"acceptance.shares": 1})
