"""Mixes: budgets are kept to the byte, targets are offered only what they hold, and nothing better was left out."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from whet.budget.knapsack import Infeasible
from whet.budget.left_out import left_out
from whet.budget.mix import KEEP, Budget, Offers, header_bytes, make_plan
from whet.budget.offered import offered
from whet.budget.sizes import linear_bytes
from whet.grids import parse_scheme
from whet.targets import TARGETS, find_target, storage

SCHEMES = tuple(grid.name for grid in offered(find_target("whet"), (64, 64), table=False))
ROLES = {"q": (64, 64), "k": (32, 64), "v": (32, 64), "o": (64, 64), "gate": (96, 64), "up": (96, 64), "down": (64, 96)}


def scores(blocks: int = 2, schemes: tuple[str, ...] = SCHEMES) -> dict[str, Any]:
    """Made-up scores: losses fall fourfold a bit and differ by part."""
    parts = []

    def part(address: str, role: str, block: int | None, shape: tuple[int, int], worth: float) -> None:
        priced = {}
        for name in schemes:
            grid = parse_scheme(name)
            kind = {"none": 1.0, "int": 0.95, "real": 0.85}[grid.zero]
            wide = 1 + (grid.group or 128) / 128
            priced[name] = {"bytes": linear_bytes(grid, shape), "kl": worth * kind * wide * 4.0**-grid.bits}
        size = shape[0] * shape[1]
        parts.append(
            {"address": address, "role": role, "block": block, "shape": list(shape), "parameters": size}
            | {"bytes": 2 * size, "sensitivity": worth, "schemes": priced}
        )

    for block in range(blocks):
        for number, (role, shape) in enumerate(ROLES.items()):
            part(f"model.layers.{block}.{role}", role, block, shape, 1.0 + 3 * ((7 * block + number * 5) % 11))
    part("model.embed_tokens", "embedding", None, (264, 64), 20.0)
    other = {"bytes": 640, "parameters": 320, "tensors": 5}
    return {"model": {"name": "m", "sha256": None}, "text": None, "parts": parts, "other": other}


def total(found: dict[str, Any], schemes: dict[str, str]) -> int:
    return found["other"]["bytes"] + sum(
        part["bytes"] if schemes[part["address"]] == KEEP else part["schemes"][schemes[part["address"]]]["bytes"]
        for part in found["parts"]
    )


@pytest.mark.parametrize("name", TARGETS)
def test_offered_is_what_the_target_holds(name: str) -> None:
    target = find_target(name)
    for shape, table in itertools.product([(64, 64), (96, 80), (64, 96), (64, 172)], [False, True]):
        for grid in offered(target, shape, table):
            storage(target, {"a": grid}, {"a": shape}, frozenset({"a"} if table else ()))


def test_rows_that_32_does_not_divide_have_choices_at_every_width() -> None:
    for name in ("transformers", "vllm", "openvino"):
        target = find_target(name)
        for width in (172, 344, 40):
            shape = (64, width)
            mine = offered(target, shape, table=False, widths={64, width})
            other = {grid.name for grid in offered(target, (64, 64), table=False, widths={64, width})}
            for grid in mine:
                storage(target, {"a": grid}, {"a": shape}, frozenset())
            assert {grid.bits for grid in mine} == set(target.bits)
            assert {f"int{bits}s" for bits in target.bits} <= other & {grid.name for grid in mine}
    groups = {grid.group for grid in offered(find_target("transformers"), (64, 172), table=False)}
    assert groups == {0, 43, 86}


def test_a_budget_of_bits_is_kept_and_used() -> None:
    found = scores()
    plan = make_plan(found, find_target("whet"), Budget("bits", 3.5, "--bits 3.5"))
    assert plan["predicted"]["bytes"] == total(found, plan["schemes"])
    assert 3.4 < plan["predicted"]["bits"] <= 3.5
    assert plan["predicted"]["kl"] == pytest.approx(sum(plan["predicted"]["by_part"].values()))
    assert plan["gap"]["relative"] < 0.02
    uniform = [one for one in plan["uniform"] if one["bits"] <= 3.5]
    assert uniform and plan["predicted"]["kl"] < min(one["kl"] for one in uniform)


def test_a_budget_of_bytes_leaves_room_for_headers() -> None:
    found = scores()
    plan = make_plan(found, find_target("whet"), Budget("bytes", 60_000, "--fit 60kB"))
    assert plan["predicted"]["bytes"] + header_bytes(found) <= 60_000
    assert plan["budget"]["bytes"] == 60_000 - header_bytes(found)


def test_quality_takes_the_fewest_bytes() -> None:
    found = scores()
    plan = make_plan(found, find_target("whet"), Budget("quality", 0.98, "--quality 0.98"))
    assert plan["predicted"]["kl"] <= -math.log(0.98)
    smaller = make_plan(found, find_target("whet"), Budget("quality", 0.9, "--quality 0.9"))
    assert smaller["predicted"]["bytes"] < plan["predicted"]["bytes"]
    strict = make_plan(found, find_target("whet"), Budget("quality", 0.9, "--quality 0.9"), most_kl=1e-4)
    assert strict["predicted"]["kl"] <= 1e-4


def test_stock_transformers_takes_one_scheme_or_symmetric_ones() -> None:
    found = scores()
    target = find_target("transformers")
    shapes = {part["address"]: tuple(part["shape"]) for part in found["parts"]}
    for bits in (3.0, 4.5, 9.0):
        plan = make_plan(found, target, Budget("bits", bits, f"--bits {bits}"))
        grids = {a: parse_scheme(s) for a, s in plan["schemes"].items() if s != KEEP}
        held = storage(target, grids, shapes, frozenset({"model.embed_tokens"}))
        assert (held.container == "compressed-tensors") == (plan["gap"]["among"] == "stock")
        assert any("(trust_remote_code=True)" in note["message"] for note in plan["notes"]) != held.stock
        assert plan["predicted"]["bits"] <= bits


@pytest.mark.parametrize("budget", [Budget("bits", 4.0, "--bits 4"), Budget("quality", 0.9, "--quality 0.9")])
def test_a_stock_plan_says_what_a_free_mix_would_be(budget: Budget) -> None:
    found = scores()
    plan = make_plan(found, find_target("transformers"), budget)
    free = make_plan(found, find_target("whet"), budget)
    assert (plan["gap"]["among"], free["gap"]["among"], free["gap"]["free"]) == ("stock", "all", None)
    least = "bytes" if budget.kind == "quality" else "kl"
    assert free["predicted"][least] <= plan["gap"]["free"][least] < plan["predicted"][least]
    assert plan["gap"]["bound"] <= plan["predicted"][least] * (1 + 1e-12)
    much = plan["gap"]["free"][least] < 0.8 * plan["predicted"][least]
    assert any("--for whet" in note["message"] for note in plan["notes"]) == much


def test_what_stock_cannot_keep_goes_through_the_modelling_file() -> None:
    found = scores()
    least = Offers(found, find_target("whet"), stock=False).least()
    plan = make_plan(found, find_target("transformers"), Budget("bits", 8 * least / 36_000, "small"))
    assert plan["predicted"]["bytes"] >= least


def test_vllm_ties_what_it_fuses() -> None:
    found = scores()
    plan = make_plan(found, find_target("vllm"), Budget("bits", 9.0, "--bits 9"))
    for block in (0, 1):
        for roles in (("q", "k", "v"), ("gate", "up")):
            assert len({plan["schemes"][f"model.layers.{block}.{role}"] for role in roles}) == 1
    assert plan["schemes"]["model.embed_tokens"] == KEEP
    assert any("embedding" in line["message"] for line in plan["left_out"])
    assert any("fuses q, k, v" in line["message"] for line in plan["left_out"])


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_graph_gets_a_free_mix_of_what_its_runtime_stores(name: str) -> None:
    """Integer zeros beside symmetric grids and an embedding of its own: no stock container has to hold it."""
    found, target = scores(), find_target(name)
    plan = make_plan(found, target, Budget("bits", 4.4, "--bits 4.4"))
    grids = {a: parse_scheme(s) for a, s in plan["schemes"].items() if s != KEEP}
    shapes = {part["address"]: tuple(part["shape"]) for part in found["parts"]}
    assert storage(target, grids, shapes, frozenset({"model.embed_tokens"})).container == "whet"
    assert {grid.zero for grid in grids.values()} == {"none", "int"} and plan["predicted"]["bits"] <= 4.4
    assert {grid.bits for grid in grids.values()} <= set(target.bits)
    assert f"{name} holds no real zeros." in [line["message"] for line in plan["left_out"]]


def test_ragged_groups_are_named_where_they_are_left_out() -> None:
    assert any("divide the row" in line for line in left_out(scores(), find_target("transformers")))
    assert left_out(scores(), find_target("whet")) == []


@pytest.mark.parametrize("kind, value, asked", [("bytes", 900, "--fit 900"), ("bits", 1.0, "--bits 1")])
def test_an_impossible_budget_says_what_is_possible(kind: str, value: float, asked: str) -> None:
    found = scores()
    with pytest.raises(Infeasible, match=asked) as caught:
        make_plan(found, find_target("whet"), Budget(kind, value, asked))
    smallest = int(caught.value.smallest)
    assert f"{smallest:,} bytes" in str(caught.value)
    enough = Budget("bytes", smallest if kind == "bytes" else smallest + header_bytes(found), "enough")
    assert make_plan(found, find_target("whet"), enough)["predicted"]["bytes"] <= smallest
    with pytest.raises(Infeasible):
        make_plan(found, find_target("whet"), Budget("bytes", enough.value - 1, "one less"))


def test_small_models_are_mixed_optimally() -> None:
    """Every mix of four schemes on one block's first three linears, by brute force."""
    names = ("int2s-g32", "int3-g64", "int4s-g32", "int8s")
    found = scores(1, names)
    found["parts"] = found["parts"][:3]
    offers = Offers(found, find_target("whet"), stock=False)
    for bits in (2.6, 3.3, 4.1, 5.7):
        limit = int(bits * offers.parameters / 8)
        every = [
            sum(0.0 if s == KEEP else part["schemes"][s]["kl"] for s, part in zip(mix, found["parts"], strict=True))
            for mix in itertools.product((KEEP, *names), repeat=3)
            if total(found, dict(zip((p["address"] for p in found["parts"]), mix, strict=True))) <= limit
        ]
        if every:
            assert offers.best(limit).kl == pytest.approx(min(every))
