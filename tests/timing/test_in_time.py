"""From measurement to finished file, with a clock that is a sum over matrices: what is kept, planned, refused, told."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import models
import whet
from whet.checkpoint.gguf import read_gguf
from whet.errors import UsageError
from whet.steps import search
from whet.timing import pairs, prices
from whet.timing.twin import twin_of

PACE = {"F16": 16.0, "BF16": 17.0, "Q8_0": 9.0, "Q6_K": 8.0, "Q4_0": 4.0, "Q5_0": 12.0}
ELSE, REST = 6.0, 1e-3  # other types, and what is no matrix


def seconds(order: Mapping[str, Any], variant: Mapping[str, Any]) -> float:
    """A token's time of a variant: each weight of a type takes as long."""
    twin = twin_of(order["model"], depth=variant.get("depth", order["depth"]))
    if "file" in variant:
        types = {name: tensor.type for name, tensor in read_gguf(variant["file"]).tensors.items()}
        sizes = {t.name: math.prod(t.shape) for t, _ in twin.matrices(twin.depth)}
        return REST + 1e-8 * sum(size * PACE.get(types[name], ELSE) for name, size in sizes.items())
    return REST + 1e-8 * sum(
        math.prod(tensor.shape) * PACE.get(variant["types"][name], ELSE) for tensor, name in twin.matrices(twin.depth)
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """How often something was timed."""
    calls = [0]

    def time_variants(
        order: Mapping[str, Any], variants: Sequence[Mapping[str, Any]], policy: str, on_line: Callable[..., None]
    ) -> dict[str, Any]:
        calls[0] += 1
        found = {}
        base = seconds(order, {"types": order["base"]})
        for variant in variants:
            own = seconds(order, variant)
            turns = {"own": [own] * 3, "base": [base] * 3}
            found[variant["name"]] = {"name": variant["name"], "decode": turns, "prefill": turns}
            on_line(found[variant["name"]])
        return found

    def time_torch(order: Mapping[str, Any], policy: str, on_line: Callable[..., None]) -> str | None:
        for name in order["whole"]:
            on_line({"whole": name, "decode": 0.1, "prefill": 0.01})
        on_line({"format": "bfloat16", "decode": 0.06, "prefill": 0.001})
        on_line({"format": "int4-g64", "decode": 0.01, "prefill": 0.002})
        on_line({"format": "int4-g256", "error": "no such group"})
        return None

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for room in (pairs, prices):
        monkeypatch.setattr(room, "time_variants", time_variants)
        monkeypatch.setattr(room, "available", lambda: True)
    monkeypatch.setattr(pairs, "time_torch", time_torch)
    monkeypatch.setattr(pairs, "bandwidth", lambda threads: {"triad": 1e9, "read": 2e9})
    return calls


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return models.make(tmp_path / "model")


def test_pairs_are_measured_once_and_again_when_asked(clock: list[int], model: Path) -> None:
    found = whet.hardware(model)
    rows = {(pair["runtime"], pair["format"]): pair for pair in found["pairs"]}
    assert rows["llama.cpp", "F16"]["speedup"] == 1 and rows["llama.cpp", "Q4_0"]["speedup"] > 1.5
    assert rows["torch", "int4-g64"]["decode"] == pytest.approx(1 / (0.1 - 0.06 + 0.01))
    assert rows["torch", "int4-g64"]["measured"] == "kernels" and ("torch", "int4-g256") not in rows
    assert {one["pair"] for one in found["left_out"]} >= {"torch int4-g256", "openvino"}
    assert found["cached"] is None and clock[0] > 0 and any("Q4_0" in str(one) for one in found["advice"])
    before = clock[0]
    assert whet.hardware(model)["pairs"] == found["pairs"] and clock[0] == before
    assert whet.hardware(model, dry_run=True)["estimate"] > 0 and clock[0] == before
    assert whet.hardware(model, fresh=True)["cached"] is None and clock[0] > before


def test_a_file_made_for_a_speed_has_it(clock: list[int], model: Path, tmp_path: Path) -> None:
    text = models.documents()
    made = whet.compress(model, tmp_path / "out", speedup=1.5, solver="nearest", text=text, target="auto", window=64)
    time = made["time"]
    assert time["predicted"] <= time["limit"] == pytest.approx(time["sixteen"] / 1.5)
    assert time["measured"]["then"] == pytest.approx(time["predicted"], rel=0.01)
    assert time["measured"]["then"] >= 0.85 * time["limit"]
    assert "Q5_0" not in made["plan"]["schemes"].values()  # slower than Q8_0 here
    plan = whet.plan(model, latency=f"{1e3 * time['limit']:.6f}ms", solver="nearest", text=text, window=64)
    assert plan["time"]["predicted"] <= time["limit"] * 1.001 and plan["target"] == "llama.cpp"
    kept = whet.plan(model, quality=0.9, target="auto", solver="nearest", text=text, window=64)
    assert kept["time"]["limit"] is None and kept["predicted"]["kl"] <= -math.log(0.9)


def test_what_cannot_be_is_refused_before_anything_is_scored(
    clock: list[int], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "score", lambda *_, **__: pytest.fail("scored"))
    asked: dict[str, Any] = {"text": models.documents(), "solver": "nearest", "window": 64}
    with pytest.raises(UsageError, match=r"everything at its fastest a token is predicted to take .* ms"):
        whet.compress(model, tmp_path / "out", latency="1us", **asked)
    before = clock[0]
    for wrong, why in (
        ({"latency": "30"}, "30ms"),
        ({"speedup": -1.0}, "such as 2"),
        ({"speedup": 2.0, "target": "vllm"}, "--for llama.cpp"),
        ({"speedup": 2.0, "bits": 4.0}, "each alone says"),
        ({"speedup": 2.0, "text": None}, "--text"),
    ):
        with pytest.raises(UsageError, match=why):
            whet.compress(model, tmp_path / "out", **{**asked, **wrong})
    assert clock[0] == before and not (tmp_path / "out").exists()
