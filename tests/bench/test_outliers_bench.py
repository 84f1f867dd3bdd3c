"""The bench of loud channels: the louder model computes what the original does, and both are measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from models import documents, make


def test_loud_channels_are_there_and_change_nothing_but_rounding(tmp_path: Path, bench: Callable[..., str]) -> None:
    model = make(tmp_path / "model", tied=True)
    (tmp_path / "train.txt").write_text("\n\n".join(documents(40, seed=1)), encoding="utf-8")
    given = ["--model", model, "--out", tmp_path / "out", "--train", tmp_path / "train.txt"]
    small = ["--draws", 1, "--samples", 4, "--window", 32, "--windows", 4]
    said = bench("outliers", *given, "--bits", 3, "--transforms", "none,quarot", *small)
    before = load_file(model / "model.safetensors")
    after = load_file(tmp_path / "out" / "loud" / "model.safetensors")
    name = "model.layers.1.post_attention_layernorm.weight"
    ratio = after[name] / before[name]
    assert sorted(ratio.round().tolist())[-5:] == [1, 30, 30, 30, 30]
    assert torch.equal(before["model.norm.weight"], after["model.norm.weight"])
    gap = float(said.partition("rounded: ")[2].split()[0])
    assert abs(gap) < 1e-6
    none, quarot = json.loads((tmp_path / "out" / "outliers.json").read_text(encoding="utf-8"))
    assert none["loud"] > none["kl"] > 0 and quarot["loud"] < none["loud"]
