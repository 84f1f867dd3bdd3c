"""Whole models: an original loads as transformers loads it, sizes add up, a config that cannot be is named."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import models
from whet.checkpoint import (
    Checkpoint,
    empty_model,
    load_lighter,
    load_model,
    load_tokenizer,
    model_config,
    size_on_disk,
)
from whet.errors import UsageError

TOKENS = torch.arange(2, 22)[None]


@pytest.mark.parametrize("family", models.FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_an_original_computes_what_transformers_computes(tmp_path, family, tied):
    folder = models.make(tmp_path / "m", family, tied=tied, shards=True, with_tokenizer=False)
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(folder).eval()(TOKENS).logits
        assert torch.equal(load_model(folder)(TOKENS).logits, theirs)
        # whet's own filling of the architecture, with nothing quantized
        own = load_lighter(Checkpoint(folder), {}, torch.float32, "cpu")
        assert torch.equal(own(TOKENS).logits, theirs)
        assert not own.training and not any(p.is_meta for p in own.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_computes_in_its_own_type_unless_told(tmp_path, dtype):
    folder = models.make(tmp_path / "m", dtype=dtype, with_tokenizer=False)
    models.edit_config(folder, remove=("dtype",))
    assert load_model(folder).dtype == dtype
    assert load_model(folder, torch.float32).dtype == torch.float32


def test_tensors_no_architecture_has_are_left_alone(tmp_path):
    folder = models.make(tmp_path / "m", with_tokenizer=False)
    before = load_lighter(Checkpoint(folder), {}, torch.float32, "cpu")(TOKENS).logits
    tensors = load_file(folder / "model.safetensors")
    tensors |= {"vision_tower.weight": torch.ones(3), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    save_file(tensors, folder / "model.safetensors")
    after = load_lighter(Checkpoint(folder), {}, torch.float32, "cpu")(TOKENS).logits
    assert torch.equal(before, after)


def test_a_file_short_of_a_tensor_is_named(tmp_path):
    folder = models.make(tmp_path / "m", with_tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"no file holds model.norm.weight"):
        load_lighter(Checkpoint(folder), {}, torch.float32, "cpu")


def test_a_folder_another_tool_quantized_is_refused(tmp_path):
    folder = models.make(tmp_path / "m", with_tokenizer=False)
    models.edit_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UsageError, match="quantized by another tool"):
        load_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "wide"},
        {"num_attention_heads": 3},
        {"hidden_act": "nonsense"},
        {"rope_parameters": {"rope_type": "nonsense", "rope_theta": 10000.0}},
        {"num_attention_heads": 0},
        {"dtype": "float99"},
        {"model_type": "nonsense"},
    ],
)
def test_a_config_transformers_cannot_build_is_one_sentence(tmp_path, change):
    folder = models.make(tmp_path / "m", with_tokenizer=False)
    models.edit_config(folder, **change)
    with pytest.raises(UsageError, match=r"config.json: transformers cannot build a model from it") as raised:
        empty_model(Checkpoint(folder), torch.float32)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"])
def test_a_negative_count_is_named(tmp_path, key):
    folder = models.make(tmp_path / "m", with_tokenizer=False)
    models.edit_config(folder, **{key: -1})
    with pytest.raises(UsageError, match=rf"config\.json says {key} = -1, which no model can have"):
        Checkpoint(folder)


def test_whets_own_entries_are_no_part_of_the_architecture(tmp_path):
    folder = models.make(tmp_path / "m", with_tokenizer=False)
    models.edit_config(folder, whet={"format": 1}, auto_map={"AutoModelForCausalLM": "x.Y"})
    config = model_config(Checkpoint(folder))
    assert not hasattr(config, "whet") and not getattr(config, "auto_map", None)


def test_a_folder_without_tokenizer_says_so(tmp_path):
    folder = models.make(tmp_path / "m", with_tokenizer=False)
    with pytest.raises(UsageError, match=r"no tokenizer.*Put tokenizer\.json"):
        load_tokenizer(folder)
    models.tokenizer().save_pretrained(folder)
    assert load_tokenizer(folder)("ab")["input_ids"][0] == 0


@pytest.mark.parametrize("tied", [False, True])
def test_sizes_by_part_add_up_to_the_folder(tmp_path, tied):
    folder = models.make(tmp_path / "m", tied=tied, shards=True, dtype=torch.bfloat16)
    sizes = size_on_disk(folder)
    shards = list(folder.glob("*.safetensors"))
    assert sizes["weights"] == sum(s.stat().st_size for s in shards)
    assert sizes["total"] == sum(p.stat().st_size for p in folder.iterdir())
    assert sizes["embedding"] == 264 * 64 * 2 and sizes["head"] == (0 if tied else 264 * 64 * 2)
    block = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96)
    assert sizes["linears"] == 2 * block and sizes["other"] == 5 * 64 * 2
    data = sum(sizes[part] for part in ("linears", "embedding", "head", "other"))
    assert data == Checkpoint(folder).nbytes < sizes["weights"]
    assert sizes["tokenizer"] == sum((folder / n).stat().st_size for n in ("tokenizer.json", "tokenizer_config.json"))


@pytest.mark.parametrize("where", ["tokenizer", "config", "generation"])
def test_code_of_a_model_is_never_run_nor_asked_about(tmp_path, monkeypatch, where):
    folder = models.make(tmp_path / "m")
    ran = tmp_path / "ran"
    code = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n"
    (folder / "own.py").write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    file = folder / "tokenizer_config.json"
    if where == "tokenizer":
        (folder / "tokenizer.json").unlink()
        own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
        file.write_text(json.dumps(json.loads(file.read_text()) | own))
    elif where == "config":
        models.edit_config(folder, auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"})
    asked = []
    monkeypatch.setattr("builtins.input", lambda words="": asked.append(words) or "y")
    if where == "tokenizer":
        with pytest.raises(UsageError, match="tokenizer is code of its own"):
            load_tokenizer(folder)
    else:
        load_tokenizer(folder)
    load_model(folder).generate(TOKENS, max_new_tokens=1)
    empty_model(Checkpoint(folder), torch.float32)
    assert not asked and not ran.exists()
