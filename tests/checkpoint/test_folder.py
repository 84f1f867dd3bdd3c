"""Model folders: what is read is what is there, and whatever does not fit is named before anything runs."""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import models
from whet.checkpoint import Checkpoint, load_model
from whet.errors import UsageError
from whet.paths import find_folder
from whet.recipe.compress import compress
from whet.recipe.masks import masks


@pytest.fixture
def folder(tmp_path):
    return models.make(tmp_path / "model", shards=True, with_tokenizer=False)


def index_of(folder):
    return json.loads((folder / "model.safetensors.index.json").read_text())


def write_index(folder, index):
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_tensors_of_all_shards_are_there(folder):
    checkpoint = Checkpoint(folder)
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    theirs = {k: v for shard in shards for k, v in load_file(shard).items()}
    assert set(checkpoint.tensors) == set(theirs)
    assert all(torch.equal(checkpoint.read(name), theirs[name]) for name in theirs)
    assert checkpoint.nbytes == sum(t.numel() * 4 for t in theirs.values())
    assert checkpoint.shapes["model.norm.weight"] == (64,) and checkpoint.dtype == torch.float32
    assert checkpoint.whet is None


def test_a_missing_shard_is_named(folder):
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(UsageError, match=f"shard {shard.name} is missing"):
        Checkpoint(folder)


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ""])
def test_an_index_that_points_outside_the_folder_is_refused(folder, name):
    index = index_of(folder)
    index["weight_map"]["model.norm.weight"] = name
    write_index(folder, index)
    with pytest.raises(UsageError, match="outside the folder"):
        Checkpoint(folder)


def test_a_tensor_in_two_shards_is_refused(folder):
    first, second = sorted(folder.glob("*.safetensors"))[:2]
    tensors = load_file(second)
    name = next(iter(load_file(first)))
    save_file({**tensors, name: torch.zeros(3)}, second)
    with pytest.raises(UsageError, match=f"{name} is in .* and in another file"):
        Checkpoint(folder)


def test_an_index_that_names_what_no_shard_holds_is_refused(folder):
    index = index_of(folder)
    index["weight_map"]["model.layers.7.x"] = next(iter(index["weight_map"].values()))
    write_index(folder, index)
    with pytest.raises(UsageError, match=r"names 1 tensors that no shard holds \(first model.layers.7.x\)"):
        Checkpoint(folder)


@pytest.mark.parametrize("value", [{}, {"weight_map": [1]}, {"weight_map": {"a": 3}}])
def test_an_index_without_a_map_is_refused(folder, value):
    write_index(folder, value)
    with pytest.raises(UsageError, match="has no weight_map"):
        Checkpoint(folder)


def test_shards_without_an_index_are_an_unfinished_download(folder):
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(UsageError, match=r"no model.safetensors.index.json.*not finished"):
        Checkpoint(folder)


def test_a_folder_of_pickles_is_told_what_to_do(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"pickle \(pytorch_model.bin\).*whet does not read it.*save_pretrained"):
        Checkpoint(tmp_path)


def test_a_folder_without_config_is_no_model(tmp_path):
    with pytest.raises(UsageError, match=r"no config.json"):
        Checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(UsageError, match="not valid JSON"):
        Checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UsageError, match="not a JSON object"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("installed", [True, False])
def test_an_adapter_beside_a_model_is_refused_whether_peft_is_installed_or_not(folder, monkeypatch, installed):
    if not installed:
        monkeypatch.setitem(sys.modules, "peft", None)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/name"}')
    for read in (Checkpoint, load_model):
        with pytest.raises(UsageError, match=r"a model and an adapter \(adapter_config.json\).*Merge it first"):
            read(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UsageError, match=r"an adapter for org/name, and no model\. Merge it into that first"):
        Checkpoint(folder)


def test_a_newer_artifact_is_refused(folder):
    (folder / "whet.json").write_text('{"format": 2}')
    with pytest.raises(UsageError, match=r"format 2.*Update whet"):
        Checkpoint(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named_and_counted(tmp_path, dtype, bad):
    folder = models.make(tmp_path / "m", dtype=dtype, with_tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4:6] = bad
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(
        UsageError, match=r"model\.safetensors: tensor model\.layers\.1\.mlp\.up_proj\.weight has 2 wei"
    ):
        Checkpoint(folder).examine()


def test_the_hash_sees_every_weight_the_config_and_nothing_else(folder):
    before = Checkpoint(folder).examine()
    (folder / "notes.txt").write_text("anything")
    read = []
    assert Checkpoint(folder).examine(read.append) == before
    assert sum(read) == Checkpoint(folder).nbytes
    shard = sorted(folder.glob("*.safetensors"))[-1]
    tensors = load_file(shard)
    name = next(iter(tensors))
    tensors[name].view(-1)[0] += 1e-6
    save_file(tensors, shard)
    assert Checkpoint(folder).examine() != before
    tensors[name].view(-1)[0] -= 1e-6
    models.edit_config(folder, rms_norm_eps=1e-5)
    assert Checkpoint(folder).examine() != before


def test_a_repeated_tensor_is_read_but_no_part_of_what_is_stored(folder):
    checkpoint = Checkpoint(folder)
    before = checkpoint.examine()
    checkpoint.repeat("copy.weight", "lm_head.weight")
    checkpoint.config["tie_word_embeddings"] = None
    assert torch.equal(checkpoint.read("copy.weight"), checkpoint.read("lm_head.weight"))
    assert set(checkpoint.tensors) - set(checkpoint.stored) == {"copy.weight"} == checkpoint.repeated
    assert checkpoint.examine() == before


def test_large_weights_that_sum_beyond_their_type_are_finite(tmp_path):
    folder = models.make(tmp_path / "m", dtype=torch.float16, with_tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"].fill_(60000.0)
    save_file(tensors, folder / "model.safetensors")
    Checkpoint(folder).examine()


def test_a_path_that_does_not_exist_is_told_the_nearest(tmp_path):
    (tmp_path / "babyllama").mkdir()
    with pytest.raises(UsageError, match=r"babylama does not exist\. Did you mean babyllama\?"):
        find_folder(tmp_path / "babylama")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=r"is a file. Give the folder"):
        find_folder(tmp_path / "file")
    assert find_folder(tmp_path / "babyllama") == tmp_path / "babyllama"
    assert not os.listdir(tmp_path / "babyllama")


@pytest.mark.parametrize("named", [None, "model.safetensors.index.json", "other.safetensors"])
def test_of_several_files_those_are_read_that_transformers_reads(tmp_path, named):
    """A single file beside shards and their index, as a second download or conversion leaves it; and what is named."""
    folder = models.make(tmp_path / "model", shards=True)
    models.make(tmp_path / "single", seed=1)
    models.make(tmp_path / "third", seed=2)
    shutil.copy(tmp_path / "single" / "model.safetensors", folder)
    shutil.copy(tmp_path / "third" / "model.safetensors", folder / "other.safetensors")
    if named is not None:
        models.edit_config(folder, transformers_weights=named)
    theirs = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    checkpoint = Checkpoint(folder)
    assert all(torch.equal(checkpoint.read(name), theirs[name]) for name in checkpoint.tensors)
    assert len(checkpoint.tensors) == len(Checkpoint(tmp_path / "single").tensors)
    compress(folder, tmp_path / "out", scheme="int8s", solver="nearest")
    masks(folder, tmp_path / "zeros", pattern="2:4", importance="magnitude", update=False)
    for out in ("out", "zeros"):
        assert AutoModelForCausalLM.from_pretrained(tmp_path / out) is not None
    mine, kept = Checkpoint(tmp_path / "zeros"), "model.layers.0.input_layernorm.weight"
    assert torch.equal(mine.read(kept), theirs[kept])


@pytest.mark.parametrize("named", ["../model.safetensors", "weights.bin", 7, "none.safetensors"])
def test_a_named_file_that_is_none_of_the_folder_is_refused(tmp_path, named):
    folder = models.make(tmp_path / "model", with_tokenizer=False)
    models.edit_config(folder, transformers_weights=named)
    with pytest.raises(UsageError, match=r"transformers_weights = .*no such file"):
        Checkpoint(folder)
