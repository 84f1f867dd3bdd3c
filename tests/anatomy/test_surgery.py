"""Surgery on shapes and config: nothing taken changes nothing, and what is taken is what was said."""

from __future__ import annotations

import pytest
import torch

import models
from whet.anatomy import Kept, anatomy, block_cuts, resized, unit_counts
from whet.checkpoint import Checkpoint, model_config
from whet.messages import Message


def opened(folder):
    checkpoint = Checkpoint(folder)
    built = {**model_config(checkpoint).to_dict(), **checkpoint.config}
    return checkpoint, anatomy(checkpoint.config, checkpoint.shapes), built


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "mixtral", "gemma3_text", "gpt_neox"])
def test_nothing_taken_changes_nothing(tmp_path, family):
    checkpoint, parts, built = opened(models.make(tmp_path / family, family, blocks=3))
    config, cuts = resized(parts, checkpoint.config, built, checkpoint.shapes, Kept((0, 1, 2)))
    assert config == checkpoint.config
    assert {name: (cut.stored, cut.places) for name, cut in cuts.items()} == {
        name: (name, ()) for name in checkpoint.tensors
    }


def test_rows_of_fused_tensors_and_biases_follow_their_units(tmp_path):
    checkpoint, parts, built = opened(models.make(tmp_path / "m", "phi3", blocks=3))
    kept = Kept((0, 2), channels={2: (1, 5, 90)}, heads={2: (1,)})
    cuts = block_cuts(parts, built, checkpoint.shapes, kept, 2)
    read = {name: cut.of(checkpoint.read(cut.stored)) for name, cut in cuts.items()}
    whole = {name.replace("layers.2.", "layers.1."): checkpoint.read(name) for name in parts.block_tensors[2]}
    prefix = "model.layers.1."
    gate_up = whole[f"{prefix}mlp.gate_up_proj.weight"]
    assert torch.equal(read[f"{prefix}mlp.gate_up_proj.weight"], gate_up[[1, 5, 90, 97, 101, 186]])
    qkv = whole[f"{prefix}self_attn.qkv_proj.weight"]  # 64 rows of q, 32 of k, 32 of v; heads of 16 rows
    rows = [*range(32, 64), *range(80, 96), *range(112, 128)]
    assert torch.equal(read[f"{prefix}self_attn.qkv_proj.weight"], qkv[rows])
    assert torch.equal(read[f"{prefix}self_attn.o_proj.weight"], whole[f"{prefix}self_attn.o_proj.weight"][:, 32:])
    assert torch.equal(read[f"{prefix}mlp.down_proj.weight"], whole[f"{prefix}mlp.down_proj.weight"][:, [1, 5, 90]])


def test_lists_with_an_entry_for_every_block_lose_those_of_the_blocks_that_go(tmp_path):
    checkpoint, parts, built = opened(models.make(tmp_path / "m", "gemma3_text", blocks=3))
    config, _ = resized(parts, checkpoint.config, built, checkpoint.shapes, Kept((0, 1)))
    assert config["num_hidden_layers"] == 2 and config["layer_types"] == ["sliding_attention", "full_attention"]
    # numbers of blocks: which of them have experts is said anew
    checkpoint, parts, built = opened(models.make(tmp_path / "moe", "qwen2_moe", blocks=3))
    config, cuts = resized(parts, checkpoint.config, built, checkpoint.shapes, Kept((0, 2)))
    assert config["mlp_only_layers"] == [0] and config["decoder_sparse_step"] == 1
    assert not any(".layers.2." in name for name in cuts)


def test_experts_that_stay_are_numbered_anew_with_their_rows_of_the_router(tmp_path):
    checkpoint, parts, built = opened(models.make(tmp_path / "m", "mixtral", blocks=2))
    kept = Kept((0, 1), experts={0: (1, 3), 1: (0, 2)})
    config, cuts = resized(parts, checkpoint.config, built, checkpoint.shapes, kept)
    assert config["num_local_experts"] == 2
    name = next(n for n in cuts if "layers.0." in n and ".experts.1." in n and n.endswith("w2.weight"))
    assert cuts[name].stored == name.replace(".experts.1.", ".experts.3.")
    router = next(n for n in cuts if "layers.1." in n and n.endswith("gate.weight"))
    assert torch.equal(cuts[router].of(checkpoint.read(router)), checkpoint.read(router)[[0, 2]])


def test_what_cannot_be_taken_is_said(tmp_path):
    _, parts, built = opened(models.make(tmp_path / "m", "mixtral", blocks=2))
    counts = unit_counts(parts, built)
    assert counts["layers"] == 2 and counts["heads"] == 2 and counts["experts"] == 4
    assert isinstance(counts["channels"], Message) and "experts" in str(counts["channels"])
    assert isinstance(unit_counts(parts, {**built, "scale_attn_by_inverse_layer_idx": True})["layers"], Message)
    _, parts, built = opened(models.make(tmp_path / "t5", "t5", architecture="AutoModelForSeq2SeqLM"))
    assert all("two stacks" in str(why) for why in unit_counts(parts, built).values())
