"""Bytes before they are written: nothing chosen is what is stored, and each choice counts exactly once."""

from __future__ import annotations

import pytest
import torch

import models
from whet.anatomy import anatomy
from whet.budget import linear_bytes, tensor_bytes
from whet.checkpoint import Checkpoint, size_on_disk
from whet.grids import parse_scheme


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    return Checkpoint(models.make(folder, tied=request.param, dtype=torch.bfloat16, with_tokenizer=False))


def test_without_grids_the_parts_are_those_on_disk(checkpoint):
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    sizes = tensor_bytes(parts, checkpoint.tensors, {})
    assert sizes["total"] == checkpoint.nbytes
    on_disk = size_on_disk(checkpoint.path)
    assert all(sizes[part] == on_disk[part] for part in ("linears", "embedding", "head", "other"))


@pytest.mark.parametrize("scheme", ["int3-g32", "int4s-g32", "int5z-g16", "int8s", "int7-g100"])
def test_a_linear_costs_the_bytes_of_its_tensors(scheme):
    grid = parse_scheme(scheme)
    w = torch.randn(37, 75)
    params = grid.fit(w)
    parts = grid.stored_parts(grid.encode(w, params), params)
    assert linear_bytes(grid, (37, 75)) == sum(p.numel() * p.element_size() for p in parts.values())


def test_each_choice_changes_its_own_part_only(checkpoint):
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    plain = tensor_bytes(parts, checkpoint.tensors, {})
    grid = parse_scheme("int4-g32")
    one = parts.blocks[1][3]
    some = tensor_bytes(parts, checkpoint.tensors, {one.address: grid})
    saved = one.shape[0] * one.shape[1] * 2 - linear_bytes(grid, one.shape)
    assert plain["linears"] - some["linears"] == saved == plain["total"] - some["total"]
    table = tensor_bytes(parts, checkpoint.tensors, {parts.embedding.address: grid})
    assert table["embedding"] == linear_bytes(grid, parts.embedding.shape)
    assert {k: v for k, v in table.items() if k not in ("embedding", "total")} == {
        k: v for k, v in plain.items() if k not in ("embedding", "total")
    }


def test_a_dropped_copy_of_the_head_costs_nothing(tmp_path):
    checkpoint = Checkpoint(models.make(tmp_path, tied=True, with_tokenizer=False))
    tensors = {**checkpoint.tensors, "lm_head.weight": checkpoint.tensors["model.embed_tokens.weight"]}
    parts = anatomy(checkpoint.config, {n: i.shape for n, i in tensors.items()})
    assert parts.dropped == "lm_head.weight"
    assert tensor_bytes(parts, tensors, {})["total"] == checkpoint.nbytes
