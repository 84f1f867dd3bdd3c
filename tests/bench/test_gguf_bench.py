"""The benchmark of ggml's types: both sides are on the same type, and what is read back is what the files hold."""

from __future__ import annotations

import pytest

import models


@pytest.mark.parametrize("kind", ["Q4_0", pytest.param("Q5_K", marks=pytest.mark.long)])
def test_both_sides_are_measured_and_put_beside_each_other(tmp_path, bench, kind):
    pytest.importorskip("llama_cpp")
    wide = {"hidden_size": 256, "intermediate_size": 256} if kind == "Q5_K" else {}
    model = models.make(tmp_path / "model", tied=True, **wide)
    for name, seed in (("train.txt", 0), ("eval.txt", 1)):
        (tmp_path / name).write_text("\n\n".join(models.documents(40, seed=seed)), encoding="utf-8")
    options = {"train": tmp_path / "train.txt", "eval": tmp_path / "eval.txt", "model": model, "out": tmp_path / "out"}
    options |= {"draws": 1, "samples": 6, "window": 32, "windows": 8, "run-windows": 4, "types": kind}
    shown = bench("gguf_types", *(word for name, value in options.items() for word in (f"--{name}", value)))
    rows = [line for line in shown.splitlines() if line.startswith(f"| {kind}")]
    assert len(rows) == 3
    for column in (3, 5):  # KL, energy of outputs
        losses = [float(row.split("|")[column]) for row in rows]
        assert 0 < losses[0] < losses[1] and all(loss < 0.1 for loss in losses)  # whet's first
