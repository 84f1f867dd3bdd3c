"""Some of the bench of damaged folders: every call ends well or tells what is wrong; the bench finds what does not."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

import whet

BENCH = str(Path(__file__).resolve().parents[2] / "bench")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The bench as a module, and small folders."""
    sys.path.insert(0, BENCH)
    module = importlib.import_module("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("whet.formats.export"), "prove_running", lambda *_: {"llama.cpp": "no"})
        patch.setattr(module, "SCORED", tuple(module.KINDS))
        patch.setattr(module, "LONG", 10**9)
        yield module, module.make_folders(tmp_path_factory.mktemp("hostile"), ("packed", "coded", "fused"))
    sys.path.remove(BENCH)


@pytest.mark.parametrize("only", ["whet.json", ".safetensors", "config.json", "tokenizer.json"])
def test_what_is_damaged_is_told(hostile, only, tmp_path):
    module, folders = hostile
    tally = module.attack(folders, 10, 5, 60, tmp_path / "work", only)
    assert not tally.defects, "\n".join(tally.first.values())
    ends = [end for _, end in tally.calls.elements()]
    assert {"well", "told"} >= set(ends) and ends.count("told") > 10


def test_an_internal_error_is_found(hostile, tmp_path, monkeypatch):
    module, folders = hostile

    def broken(*_, **__):
        raise KeyError("zero")

    monkeypatch.setitem(vars(whet), "generate", broken)
    tally = module.attack(folders, 2, 0, 60, tmp_path / "work", "packed/whet.json")
    assert tally.defects
    assert all(key[0].startswith("KeyError at") and key[1] == "generate" for key in tally.defects)
