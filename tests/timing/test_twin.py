"""Twins: the model's shapes with other weights, whatever types they are in, and every linear in its class."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import models
from whet import compress, starter
from whet.anatomy import anatomy
from whet.budget import tables
from whet.checkpoint import Checkpoint
from whet.checkpoint.gguf import read_gguf
from whet.errors import UsageError
from whet.starter.shapes import write_standard
from whet.timing.order import TYPES
from whet.timing.twin import LOOKUP, kept_types, parts_of, twin_of, write_twin


@pytest.fixture(scope="module")
def standard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("standard") / "model"
    write_standard(folder, starter.path())
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["head", "tied"])
def tiny(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return models.make(tmp_path_factory.mktemp("tiny") / "model", tied=request.param)


def test_a_twin_has_the_shapes_of_its_model_and_the_types_asked_for(standard: Path, tmp_path: Path) -> None:
    twin = twin_of(standard, depth=1)
    assert twin.blocks == 12 and twin.counts(12)["2048 x 768"] == 24 and LOOKUP not in twin.counts(12)
    for kind in TYPES:
        write_twin(twin, twin.types(kind), tmp_path / "twin.gguf")
        written = read_gguf(tmp_path / "twin.gguf").tensors
        wanted = {t.name: t.shape for t in twin.layout.tensors if not t.name.startswith("blk.") or t.name[4:6] == "0."}
        assert {name: tensor.shape for name, tensor in written.items()} == wanted
        assert {written[name].type for name in twin.classes if name in written} == {kind}


def test_rows_that_a_type_does_not_divide_have_what_stands_in_for_it(tiny: Path) -> None:
    twin = twin_of(tiny)
    name = next(iter(twin.columns))
    assert twin.columns[name] % 256 and not twin.holds("Q4_K", name)
    assert twin.types("Q4_K")[name] in ("Q5_0", "F16")


def test_every_linear_is_a_share_of_what_is_multiplied(standard: Path) -> None:
    twin, checkpoint = twin_of(standard), Checkpoint(standard)
    parts = anatomy(checkpoint.config, checkpoint.shapes, str(standard))
    linears = [*parts.linears(), *tables(parts)]
    shares = parts_of(twin, linears)
    sums: dict[str, float] = {}
    for own in shares.values():
        for name, share in own.items():
            sums[name] = sums.get(name, 0.0) + share
    assert sums == pytest.approx({**twin.counts(twin.blocks), LOOKUP: 1.0})
    assert kept_types(twin, linears) == {"BF16"}
    assert twin.bytes_read(twin.types("F16"), 12) == 2 * sum(math.prod(linear.shape) for linear in linears[:-2]) + 2 * (
        32000 * 768
    )


def test_a_table_is_multiplied_where_it_is_the_head_and_looked_up_elsewhere(tiny: Path) -> None:
    twin, checkpoint = twin_of(tiny), Checkpoint(tiny)
    parts = anatomy(checkpoint.config, checkpoint.shapes, str(tiny))
    (embedding,) = parts_of(twin, tables(parts))[parts.embedding.address]
    assert (embedding == LOOKUP) == (parts.head is not None)


def test_a_lighter_model_is_refused(tmp_path: Path) -> None:
    models.make(tmp_path / "model")
    compress(tmp_path / "model", tmp_path / "lighter", scheme="int8s", solver="nearest")
    with pytest.raises(UsageError, match="lighter model"):
        twin_of(tmp_path / "lighter")
