"""The aspect packed: figures of a folder kept packed beside its decoded self, notes on what has no kernel."""

from __future__ import annotations

import pytest

import models
import whet
from whet.errors import UsageError


def test_figures_and_notes(tmp_path):
    original = models.make(tmp_path / "m", tied=False)
    options = {"target": "whet", "solver": "nearest", "device": "cpu"}
    whet.compress(original, tmp_path / "out", scheme="NVFP4", embed="int8-g32", **options)
    asked = {"text": models.documents(12, 40), "window": 32, "measure": ["packed"], "device": "cpu"}
    found = whet.compare(original, tmp_path / "out", **asked)["aspects"]["packed"]
    figures = {reading["figure"]: reading["value"] for reading in found["readings"]}
    assert set(figures) >= {"kl", "top1", "prefill_speedup", "decode_speedup"}
    assert 0 < figures["kl"] < 1e-3 and figures["top1"] > 0.9
    # linears have no kernel, head and embedding have
    assert found["kernels"] == {"lookup": 1, "int4": 1} and found["without"] == {"group": 14}
    assert len(found["notes"]) == 1 and "no kernel for 14 linears" in str(found["notes"][0])
    with pytest.raises(UsageError, match="packed"):
        whet.compare(original, tmp_path / "out", speed=False, **asked)
