"""A model whose blocks lie on disk says bit by bit what it says in memory, and holds none of them in between."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import models
from whet.engines.streamed import StreamedEngine, stacks_of
from whet.engines.torch import open_model
from whet.errors import UsageError
from whet.measure.compare import compare
from whet.measure.sides import memory_of, stored_blocks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("streamed") / "model"
    models.make(path)
    return path


def test_results_are_those_of_the_model_in_memory(folder: Path, tmp_path: Path) -> None:
    whole, streamed = open_model(folder, "cpu"), StreamedEngine(open_model(folder, "cpu"), tmp_path)
    blocks = streamed.model.get_submodule("model.layers")
    assert all(parameter.is_meta for parameter in blocks.parameters())
    batch = torch.tensor([whole.encode("the quick brown fox")])
    assert torch.equal(whole.logits(batch), streamed.logits(batch))
    prompts = [whole.encode("one two"), whole.encode("three")]
    assert whole.continue_ids(prompts, 4) == streamed.continue_ids(prompts, 4)
    assert all(parameter.is_meta for parameter in blocks.parameters())
    ours = dict(streamed.parameters())
    assert all(torch.equal(value, ours.pop(name)) for name, value in whole.parameters()) and not ours


def test_a_comparison_tells_the_same(folder: Path) -> None:
    given = {"text": models.documents(), "windows": 4, "window": 16, "speed": False, "device": "cpu"}
    whole, streamed = (compare(folder, folder, measure=["all"], streamed=one, **given) for one in (False, True))
    assert whole["divergence"] == streamed["divergence"] and whole["aspects"] == streamed["aspects"]
    assert streamed["options"]["streamed"] and "streamed" not in whole["options"]
    needs = memory_of(folder, folder, None) - memory_of(folder, folder, None, streamed=True)
    assert 0 < needs < stored_blocks(folder, None)


def test_what_cannot_be_streamed_is_said_before_anything_is_opened(folder: Path) -> None:
    with pytest.raises(UsageError, match="does not know where the blocks"):
        stacks_of({"architectures": ["NobodysForCausalLM"], "model_type": "nobodys"}, folder)
