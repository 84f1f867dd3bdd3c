"""Anatomy: every tensor of a model has a place, and what config and files disagree about is refused."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

import models
from whet.anatomy import FAMILIES, Linear, anatomy
from whet.errors import UsageError


def described(family: str = "llama", tied: bool = False, **more):
    """Config and shapes of a tiny model, as a folder stores them."""
    config = models.config(family, tied, **more)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return config.to_dict(), {name: tuple(p.shape) for name, p in model.named_parameters()}


@pytest.mark.parametrize("family", models.FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_every_tensor_has_exactly_one_place(family, tied):
    config, shapes = described(family, tied, blocks=3)
    parts = anatomy(config, shapes)
    assert sorted([n for names in parts.block_tensors for n in names] + parts.other_tensors) == sorted(shapes)
    assert [len(b) for b in parts.blocks] == [7, 7, 7] and len(parts.linears()) == 21
    matrices = {n for n, s in shapes.items() if len(s) == 2}
    tables = {parts.embedding.parameter} | ({parts.head.parameter} if parts.head else set())
    assert {linear.parameter for linear in parts.linears()} | tables == matrices
    assert all(shapes[linear.parameter] == linear.shape for linear in parts.linears())
    assert parts.tied == tied and parts.unnamed == [] and parts.dropped is None
    assert parts.block_prefix(1) == "model.layers.1."


@pytest.mark.parametrize("family", models.FAMILIES)
def test_linears_that_read_the_same_input_say_so(family):
    parts = anatomy(*described(family))
    by_input: dict[str, list[str]] = {}
    for linear in parts.blocks[0]:
        by_input.setdefault(linear.reads, []).append(linear.role)
    assert sorted(by_input.values()) == [["down"], ["gate", "up"], ["o"], ["q", "k", "v"]]


def test_tables_name_every_architecture_once():
    named = [a for family in FAMILIES.values() for a in family.architectures]
    assert len(named) == len(set(named))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_residual_stream_is_turned_or_something_keeps_it(family):
    """Who writes onto it is a linear of some block, and never one that a norm stands behind."""
    row = FAMILIES[family]
    assert bool(row.writes) != bool(row.still)
    assert set(row.writes) <= {name.role for name in row.every}
    if row.writes:
        reads = {name.reads for name in row.every if name.role in row.writes}
        assert not reads & {name for fold in row.folds if fold.norm for name in fold.reads}
        assert all(fold.norm and not fold.why for fold in row.folds if not fold.by)


def test_a_view_writes_into_its_parameter():
    fused = torch.arange(24.0).reshape(6, 4)
    linear = Linear("x", "x.weight", "k", (2, 4), rows=(2, 4))
    linear.view(fused)[:] = 0
    assert (fused[2:4] == 0).all() and (fused[:2] != 0).sum() == 7 and (fused[4:] != 0).all()
    stacked = torch.arange(24.0).reshape(2, 3, 4)
    expert = Linear("x", "x.weight", "up", (4, 3), expert=1, transposed=True)
    assert torch.equal(expert.view(stacked), stacked[1].t())
    expert.view(stacked)[0] = -1
    assert (stacked[1, :, 0] == -1).all() and (stacked[0] >= 0).all()


def test_a_stored_copy_of_a_tied_head_is_dropped():
    config, shapes = described(tied=True)
    parts = anatomy(config, {**shapes, "lm_head.weight": shapes["model.embed_tokens.weight"]})
    assert parts.tied and parts.dropped == "lm_head.weight"


def test_a_head_that_is_neither_tied_nor_stored_is_missing():
    config, shapes = described(tied=True)
    for settings in ({**config, "tie_word_embeddings": False}, {k: v for k, v in config.items() if k[:3] != "tie"}):
        with pytest.raises(UsageError, match=r"lm_head\.weight is missing.*tie_word_embeddings"):
            anatomy(settings, shapes, "folder")


def test_what_no_table_names_is_listed_and_old_buffers_are_no_part_of_a_block():
    config, shapes = described()
    inverse = "model.layers.1.self_attn.rotary_emb.inv_freq"
    parts = anatomy(config, {**shapes, "vision.weight": (3, 3), inverse: (8,)})
    assert parts.unnamed == ["vision.weight", inverse]
    assert all(inverse not in names for names in parts.block_tensors)


def test_an_unknown_family_is_told_the_nearest():
    config, shapes = described()
    with pytest.raises(UsageError, match=r"folder is of the family 'lama'.*Did you mean llama\?.*qwen3"):
        anatomy({**config, "model_type": "lama"}, shapes, "folder")
    with pytest.raises(UsageError, match="none named"):
        anatomy({k: v for k, v in config.items() if k != "model_type"}, shapes)


@pytest.mark.parametrize(
    "entry",
    [{"quantization_config": {"quant_method": "awq"}}, {"whet": {"format": 1}}, {"quantization_config": [1]}],
)
def test_a_quantized_model_is_refused_with_the_remedy(entry):
    config, shapes = described()
    with pytest.raises(UsageError, match=r"already quantized.*Give whet the original.*base_model"):
        anatomy({**config, **entry}, shapes)


@pytest.mark.parametrize("count", [1, 3, 0, -1, "two", None, 2.5])
def test_a_number_of_blocks_the_files_do_not_have_is_refused(count):
    config, shapes = described()
    with pytest.raises(UsageError, match="num_hidden_layers"):
        anatomy({**config, "num_hidden_layers": count}, shapes)


def test_blocks_with_a_gap_are_refused():
    config, shapes = described(blocks=3)
    left = {n: s for n, s in shapes.items() if ".layers.1." not in n}
    with pytest.raises(UsageError, match="num_hidden_layers = 3, the weight files hold 2"):
        anatomy(config, left)


@pytest.mark.parametrize("shape", [None, (64,), (2, 3, 4)])
def test_a_linear_that_is_missing_or_no_matrix_is_named(shape):
    config, shapes = described()
    shapes["model.layers.1.mlp.up_proj.weight"] = shape
    if shape is None:
        del shapes["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(UsageError, match=r"model\.layers\.1\.mlp\.up_proj\.weight (is missing|has shape)"):
        anatomy(config, shapes)
