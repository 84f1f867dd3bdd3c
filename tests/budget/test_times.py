"""Time as a cost: what is added up is what was measured, limits are kept, and what cannot be kept is refused with the
fastest there is."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import pytest

from budget.test_mix import scores
from whet.budget import read_plan
from whet.budget.knapsack import Infeasible
from whet.budget.mix import KEEP, Budget, Offers, make_plan
from whet.budget.times import Costs, of_all_blocks, over_base, parse_time
from whet.errors import UsageError
from whet.targets import TARGETS

LLAMA = dataclasses.replace(TARGETS["llama.cpp"], whole=False)  # addresses here look like rows of one tensor
TYPES = ("Q8_0", "Q5_0", "Q4_0")
# Seconds of a weight: Q5_0 is slower than Q8_0 here, as some are.
PACE = {"Q8_0": 3e-9, "Q5_0": 4e-9, "Q4_0": 1e-9, "F16": 6e-9}


def costs(found: dict, factor: float = 1.0) -> Costs:
    """Every part a class of its own, at PACE; the table is looked up and costs nothing."""
    sizes = {part["address"]: math.prod(part["shape"]) for part in found["parts"] if part["block"] is not None}
    over = {
        address: {kind: size * (pace - PACE["Q4_0"]) for kind, pace in PACE.items()} for address, size in sizes.items()
    }
    parts = {part["address"]: {part["address"]: 1.0} for part in found["parts"]}
    base = 1e-5 + sum(sizes.values()) * PACE["Q4_0"]
    sixteen = 1e-5 + sum(sizes.values()) * PACE["F16"]
    return Costs(
        "llama.cpp", 1, base, sixteen, over, parts, dict.fromkeys(parts, "F16"), "F16", sixteen, "Q4_0", base, factor
    )


def taken(found: dict, schemes: dict[str, str]) -> float:
    """The same, added up here."""
    return 1e-5 + sum(
        math.prod(p["shape"]) * PACE["F16" if schemes[p["address"]] == KEEP else schemes[p["address"]]]
        for p in found["parts"]
        if p["block"] is not None
    )


def test_a_time_is_kept_and_nothing_better_was_left_out() -> None:
    found = scores(blocks=1, schemes=TYPES)
    known = costs(found)
    for share in (0.2, 0.5, 0.8):
        limit = known.base + share * (known.sixteen - known.base)
        mix = Offers(found, LLAMA, stock=False).timed(Budget("time", limit, "--latency", known), math.inf)
        assert taken(found, mix.schemes) == pytest.approx(known.seconds(mix.schemes))
        assert taken(found, mix.schemes) <= limit + 1e-8  # a plan's grain
        parts = [part for part in found["parts"] if part["block"] is not None]
        best = min(
            loss
            for choice in itertools.product((KEEP, *TYPES), repeat=len(parts))
            if taken(found, {**mix.schemes, **dict(zip([p["address"] for p in parts], choice, strict=True))}) <= limit
            for loss in [sum(0.0 if c == KEEP else p["schemes"][c]["kl"] for p, c in zip(parts, choice, strict=True))]
        )
        # steps of a hundredth of a microsecond, rounded for each part
        assert mix.kl <= best * 1.02 + 1e-12


def test_a_quality_is_kept_in_the_least_time() -> None:
    found = scores(schemes=TYPES)
    known = costs(found)
    plan = make_plan(found, LLAMA, Budget("quality", 0.9, "--quality 0.9", known))
    small = make_plan(found, LLAMA, Budget("quality", 0.9, "--quality 0.9"))
    assert plan["predicted"]["kl"] <= -math.log(0.9)
    assert plan["time"]["predicted"] <= known.seconds(small["schemes"])
    assert "Q5_0" not in {plan["schemes"][p["address"]] for p in found["parts"] if p["block"] is not None}
    assert plan["time"]["limit"] is None and "time" not in small


def test_an_impossible_time_is_refused_with_the_fastest_there_is() -> None:
    found = scores(schemes=TYPES)
    known = costs(found)
    with pytest.raises(Infeasible) as refused:
        make_plan(found, LLAMA, Budget("time", known.base * 0.9, "--latency 1ms", known))
    assert refused.value.smallest == pytest.approx(1e3 * known.base)
    assert f"{1e3 * known.base:.3g} ms" in str(refused.value) and "--latency 1ms" in str(refused.value)
    make_plan(found, LLAMA, Budget("time", known.base, "--latency", known))


def test_a_whole_file_that_was_timed_corrects_the_sum() -> None:
    found = scores(schemes=TYPES)
    known = costs(found)
    schemes = dict.fromkeys((part["address"] for part in found["parts"]), "Q8_0")
    right = known.corrected(schemes, 1.3 * known.seconds(schemes))
    assert right.seconds(schemes) == pytest.approx(1.3 * known.seconds(schemes))
    with pytest.raises(Infeasible):
        make_plan(found, LLAMA, Budget("time", known.base * 1.2, "--latency", right))
    assert known.corrected(schemes, 100 * known.seconds(schemes)).factor == 2


def test_schemes_that_were_not_timed_are_no_choice_of_a_time() -> None:
    found = scores(schemes=(*TYPES, "IQ4_NL"))
    known = costs(found)
    mix = Offers(found, LLAMA, stock=False).timed(Budget("time", known.sixteen, "--latency", known), math.inf)
    assert "IQ4_NL" not in {mix.schemes[p["address"]] for p in found["parts"] if p["block"] is not None}


def test_what_classes_take_adds_up_to_the_uniform_file() -> None:
    shares, counts = {"a": 0.7, "b": 0.3}, {"a": 7, "b": 1}
    exact = {"a": {"Q8_0": (1.7, 0.0)}, "b": {"Q8_0": (1.1, 0.0)}}
    over = over_base({"Q8_0": 1.8}, exact, 1.0, shares, counts)
    assert over["a"]["Q8_0"] == pytest.approx(0.1) and over["b"]["Q8_0"] == pytest.approx(0.1)
    noisy = {"a": {"Q8_0": (1.9, 0.1)}, "b": {"Q8_0": (1.5, 0.3)}}
    over = over_base({"Q8_0": 1.8}, noisy, 1.0, shares, counts)
    assert 0.8 < 7 * over["a"]["Q8_0"] + over["b"]["Q8_0"] < 1.2  # and not the 1.4 that was measured one by one
    assert 0.24 < over["b"]["Q8_0"] < 0.5  # between its share of the uniform file and what was measured
    assert over_base({}, exact, 1.0, shares, counts)["b"]["Q8_0"] == pytest.approx(0.1)


def test_blocks_that_a_twin_leaves_out_are_counted() -> None:
    assert of_all_blocks(5.0, 3.0, 4, 2, 10) == 11.0
    assert of_all_blocks(5.0, 3.0, 4, 2, 4) == 5.0


def test_costs_survive_a_request_and_a_plan_its_file() -> None:
    found = scores(schemes=TYPES)
    budget = Budget("time", 1.0, "--latency 1s", costs(found, factor=1.1))
    assert Budget.read(json.loads(json.dumps(budget.record()))) == budget
    assert Budget("bits", 4.0, "--bits 4").record() == {"kind": "bits", "value": 4.0, "asked": "--bits 4"}
    plan = read_plan(make_plan(found, LLAMA, budget))
    assert plan["time"]["limit"] == 1.0 and plan["budget"]["kind"] == "time" and plan["budget"]["bytes"] is None


def test_times_are_read_with_their_unit() -> None:
    assert [parse_time(t) for t in ("30ms", "0.03s", "30 ms", "800us")] == pytest.approx([0.03, 0.03, 0.03, 8e-4])
    for wrong in ("30", "ms", "-3ms", "0ms", "3 min", "", "nan ms"):
        with pytest.raises(UsageError, match="30ms"):
            parse_time(wrong)
