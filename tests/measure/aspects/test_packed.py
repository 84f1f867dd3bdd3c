"""The aspect packed: figures of a folder kept packed beside its decoded self, notes on what has no kernel."""

from __future__ import annotations

import pytest

import models
import whet
from whet.errors import UsageError

TEXT = models.documents(12, 40)


@pytest.mark.parametrize("scheme,kernels", [("int4-g32", {"int4": 15}), ("NVFP4", {})])
def test_figures_and_notes(tmp_path, scheme, kernels):
    original = models.make(tmp_path / "m", tied=False)
    options = {"target": "whet", "solver": "nearest", "device": "cpu"}
    whet.compress(original, tmp_path / "out", scheme=scheme, embed="int8-g32" if kernels else None, **options)
    asked = {"text": TEXT, "window": 32, "device": "cpu"}
    found = whet.compare(original, tmp_path / "out", measure=["packed"], **asked)["aspects"]["packed"]
    figures = {(reading["figure"], reading["of"]): reading["value"] for reading in found["readings"]}
    assert {name for name, _ in figures} >= {"kl", "top1", "prefill_speedup", "decode_speedup", "memory"}
    assert 0 < figures["kl", ""] < 1e-3 and figures["top1", ""] > 0.9 and figures["memory", ""] < 1.5
    assert found["kernels"] == kernels | ({"lookup": 1} if kernels else {}) and found["dtype"] == "bfloat16"
    assert ["no kernel for 14 linears" in str(note) for note in found["notes"]] == ([] if kernels else [True])
    with pytest.raises(UsageError, match="packed"):
        whet.compare(original, tmp_path / "out", measure=["packed"], speed=False, **asked)
