"""Originals stored in FP8 and MXFP4: read as the weights that transformers and compressed-tensors decode them to."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from compressed_tensors.compressors import FloatQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

import models
from whet import compress, export, inspect, masks, prune
from whet.checkpoint import Checkpoint, load_model
from whet.errors import UsageError

TEXT = {"window": 32, "samples": 8}


def blocks_of(w, rows, columns):
    """`w` as DeepSeek stores it: FP8, and a scale for each block, of which the last may be cut off."""
    height, width = (-(-size // step) for size, step in zip(w.shape, (rows, columns), strict=True))
    padded = torch.zeros(height * rows, width * columns)
    padded[: w.shape[0], : w.shape[1]] = w.float()
    parts = padded.reshape(height, rows, width, columns)
    scale = parts.abs().amax((1, 3)).clamp(min=1e-9) / 448
    codes = (parts / scale[:, None, :, None]).to(torch.float8_e4m3fn).reshape(padded.shape)
    return codes[: w.shape[0], : w.shape[1]].contiguous(), scale


def in_blocks(folder, size=(32, 32)):
    """A model in the blocks of DeepSeek."""
    stored = {}
    for name, value in load_file(folder / "model.safetensors").items():
        stored[name] = value
        if name.endswith("_proj.weight"):
            stored[name], stored[f"{name}_scale_inv"] = blocks_of(value, *size)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    settings = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": list(size)}
    models.edit_config(folder, quantization_config=settings)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return in_blocks(models.make(tmp_path_factory.mktemp("fp8") / "model", "qwen3", dtype=torch.bfloat16))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "t.txt"
    file.write_text("\n\n".join(models.documents(40)))
    return str(file)


def test_blocks_are_what_transformers_decodes(original):
    settings = transformers.FineGrainedFP8Config(dequantize=True, weight_block_size=(32, 32))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(original, quantization_config=settings).state_dict()
    ours = load_model(original)
    assert ours.dtype == torch.bfloat16 and ours.state_dict().keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())


def test_blocks_that_do_not_divide_and_exponents_for_scales(tmp_path):
    """As DeepSeek V3 has them, whose 576 rows are four blocks of 128 and a half."""
    folder = in_blocks(models.make(tmp_path / "model", dtype=torch.bfloat16), (40, 24))
    stored = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    scale = stored[f"{name}_scale_inv"]
    wide = scale.repeat_interleave(40, 0).repeat_interleave(24, 1)[:96, :64]
    assert torch.equal(Checkpoint(folder).read(name), (stored[name].float() * wide).to(torch.bfloat16))
    exponents = torch.randint(115, 125, scale.shape, dtype=torch.uint8)
    save_file({**stored, f"{name}_scale_inv": exponents}, folder / "model.safetensors", {"format": "pt"})
    wide = torch.exp2(exponents.float() - 127).repeat_interleave(40, 0).repeat_interleave(24, 1)[:96, :64]
    assert torch.equal(Checkpoint(folder).read(name), (stored[name].float() * wide).to(torch.bfloat16))


@pytest.mark.parametrize("strategy", ["tensor", "channel", "block"])
def test_scales_are_taken_as_compressed_tensors_takes_them(tmp_path, strategy):
    folder = models.make(tmp_path / "model", dtype=torch.bfloat16)
    more = {"block_structure": [32, 32]} if strategy == "block" else {}
    args = QuantizationArgs(num_bits=8, type="float", strategy=strategy, symmetric=True, **more)
    scheme = QuantizationScheme(targets=["Linear"], weights=args, format="float-quantized")
    stored, decoded = {}, {}
    for name, value in load_file(folder / "model.safetensors").items():
        stored[name] = value
        if not name.endswith("_proj.weight"):
            continue
        if strategy == "block":
            codes, scale = blocks_of(value, 32, 32)
        else:
            scale = value.float().abs().amax(**({"dim": 1, "keepdim": True} if strategy == "channel" else {})) / 448
            codes = (value.float() / scale).to(torch.float8_e4m3fn)
        parts = {"weight": codes, "weight_scale": scale.to(torch.bfloat16).reshape(scale.shape or (1,))}
        decoded[name] = FloatQuantizationCompressor.decompress(dict(parts), scheme)["weight"]
        address = name.removesuffix(".weight")
        stored |= {f"{address}.{part}": one for part, one in parts.items()}
        stored[f"{address}.input_scale"] = torch.ones(1)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    group = {"targets": ["Linear"], "weights": args.model_dump(mode="json")}
    settings = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": group}}
    models.edit_config(folder, quantization_config=settings)
    checkpoint = Checkpoint(folder)
    assert checkpoint.stored_in == "FP8" and "model.layers.0.mlp.up_proj.input_scale" not in checkpoint.tensors
    assert decoded and all(torch.equal(checkpoint.read(name), value) for name, value in decoded.items())


def test_experts_in_mxfp4_are_those_that_transformers_decodes(tmp_path):
    """GPT-OSS, which was published so."""
    sizes = {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1, "num_local_experts": 4, "head_dim": 16}
    folder = models.make(tmp_path / "model", "gpt_oss", dtype=torch.bfloat16, num_experts_per_tok=2, **sizes)
    stored, decoded = {}, {}
    for name, value in load_file(folder / "model.safetensors").items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            stored[name] = value
            continue
        experts, columns, rows = value.shape
        blocks = torch.randint(0, 256, (experts, rows, columns // 32, 16), dtype=torch.uint8)
        scales = torch.randint(118, 124, (experts, rows, columns // 32), dtype=torch.uint8)
        stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        decoded[name] = convert_moe_packed_tensors(blocks, scales)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    models.edit_config(folder, quantization_config={"quant_method": "mxfp4"})
    checkpoint = Checkpoint(folder)
    assert checkpoint.stored_in == "MXFP4" and len(decoded) == 2
    assert all(torch.equal(checkpoint.read(name), value) for name, value in decoded.items())
    compress(folder, tmp_path / "out", scheme="int4s-g32", solver="nearest", target="whet", dequantize=True)
    assert "stored in MXFP4" in (tmp_path / "out" / "README.md").read_text()


def test_without_the_flag_it_is_refused_and_the_flag_is_named(original, text, tmp_path):
    for verb in (compress, masks, prune):
        more = {"remove": "25%"} if verb is not compress else {}
        with pytest.raises(UsageError, match=r"is stored in FP8.*base_model.*--dequantize"):
            verb(original, tmp_path / "out", text=text, **more)
    with pytest.raises(UsageError, match="--dequantize"):
        inspect(original, text=text)
    with pytest.raises(UsageError, match="--dequantize"):
        export(original, out=tmp_path / "m.gguf")
    with pytest.raises(UsageError, match=r"tokens are taken out of weights as they are stored.*16 bits"):
        prune(original, tmp_path / "out", vocab=text, dequantize=True)
    assert not list(tmp_path.iterdir())


def test_what_is_made_of_it_is_made_of_its_weights(original, text, tmp_path):
    """The same bytes as from a folder of the decoded weights, and dense folders that are plain ones."""
    plain = tmp_path / "plain"
    load_model(original).save_pretrained(plain)
    models.tokenizer().save_pretrained(plain)
    made = compress(original, tmp_path / "a", scheme="int4s-g32", text=text, dequantize=True, **TEXT)
    compress(plain, tmp_path / "b", scheme="int4s-g32", text=text, **TEXT)
    shards = {file.name: file.read_bytes() for file in (tmp_path / "a").glob("*.safetensors")}
    assert shards and all((tmp_path / "b" / name).read_bytes() == data for name, data in shards.items())
    sizes = made["sizes"]["original"]["linears"], sum(x.nbytes for x in Checkpoint(original).tensors.values())
    assert "stored in FP8" in made["notes"][0] and sizes[0] < sizes[1] / 2
    masks(original, tmp_path / "sparse", pattern="2:4", text=text, dequantize=True, **TEXT)
    assert "quantization_config" not in json.loads((tmp_path / "sparse" / "config.json").read_text())
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "sparse")
    up = stock.model.layers[0].mlp.up_proj.weight
    assert up.dtype == torch.bfloat16 and (up.reshape(-1, 4) == 0).sum(1).min() == 2
