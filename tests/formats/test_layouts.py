"""GPTQ's, AWQ's and MLX's layouts: read back here by a reading of its own, in numpy, a word and a bit at a time, every
weight is what the folder says; settings are what loaders want; what a layout does not hold is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import models
from whet.checkpoint import Checkpoint
from whet.checkpoint.modeling_whet import decode, parts_of
from whet.errors import UsageError
from whet.formats.export import export
from whet.recipe.compress import compress

SIZE = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
SCHEMES = {
    "gptq": ("int4s-g32", "int4-g32", "int8s-g32", "int2s-g32", "int4s", "int8-g32"),
    "awq": ("int4s-g32", "int4-g32"),
    "mlx": ("int2s-g32", "int3s-g32", "int4s-g32", "int5s-g32", "int6s-g32", "int8s-g32", "int4z-g32", "int3z-g32"),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("layouts") / "model", dtype=torch.bfloat16, **SIZE)


@pytest.fixture(scope="module")
def folders(original, tmp_path_factory):
    """A lighter folder of a scheme, made once."""
    made: dict = {}

    def folder(scheme, **more):
        key = (scheme, *more.items())
        if key not in made:
            made[key] = tmp_path_factory.mktemp("lighter") / "lighter"
            compress(original, made[key], scheme=scheme, solver="nearest", **more)
        return made[key]

    return folder


def bits_at(words: np.ndarray, at: int, bits: int) -> int:
    """The `bits` from bit `at` on of a row of 32-bit words."""
    whole = sum(int(word) << (32 * i) for i, word in enumerate(words[at // 32 : at // 32 + 2]))
    return whole >> at % 32 & (1 << bits) - 1


def read_gptq(t, name, bits, version):
    scales, words, zeros = (t[f"{name}.{part}"].numpy() for part in ("scales", "qweight", "qzeros"))
    columns, rows = len(t[f"{name}.g_idx"]), scales.shape[1]
    found = np.zeros((rows, columns), dtype=np.float32)
    for i in range(columns):
        group = int(t[f"{name}.g_idx"][i])
        for o in range(rows):
            code = bits_at(words.view(np.uint32)[:, o], i * bits, bits)
            zero = bits_at(zeros.view(np.uint32)[group], o * bits, bits) + (version == "gptq")
            found[o, i] = (code - zero) * np.float32(scales[group, o])
    return found


def read_awq(t, name, group):
    scales, words, zeros = (t[f"{name}.{part}"].numpy() for part in ("scales", "qweight", "qzeros"))
    columns, rows = len(words), scales.shape[1]
    found = np.zeros((rows, columns), dtype=np.float32)
    lowest = dict(
        enumerate((0, 4, 1, 5, 2, 6, 3, 7))
    )  # of eight outputs the nibble that each is in, as AutoAWQ reverses them
    for i in range(columns):
        for o in range(rows):
            at = 8 * (o // 8) * 4 + 4 * lowest[o % 8]
            code = bits_at(words.view(np.uint32)[i], at, 4)
            zero = bits_at(zeros.view(np.uint32)[i // group], at, 4)
            found[o, i] = (code - zero) * np.float32(scales[i // group, o])
    return found


def read_mlx(t, name, bits, group):
    words, scales, biases = (t[f"{name}.{part}"] for part in ("weight", "scales", "biases"))
    words, scales, biases = words.numpy(), scales.float().numpy(), biases.float().numpy()
    rows, columns = len(words), words.shape[1] * 32 // bits
    found = np.zeros((rows, columns), dtype=np.float32)
    for o in range(rows):
        for i in range(columns):
            found[o, i] = bits_at(words[o], i * bits, bits) * scales[o, i // group] + biases[o, i // group]
    return found


def stored(folder, address):
    """The weights of a folder by its own definition, in float32."""
    checkpoint = Checkpoint(folder)
    told = checkpoint.whet.get("reading") or checkpoint.whet
    entry = {**told["linears"][address], "decode": "float32"}
    parts = {part: checkpoint.read(f"{address}.{part}") for part in parts_of(entry)}
    return decode(parts, entry, torch.float32).numpy()


NAMES = ("model.layers.1.mlp.down_proj", "model.layers.0.self_attn.k_proj")


@pytest.mark.parametrize(("to", "scheme"), [(to, scheme) for to, schemes in SCHEMES.items() for scheme in schemes])
def test_every_weight_is_read_back_by_another_reading(to, scheme, tmp_path, folders):
    folder = folders(scheme, **({} if to != "mlx" or "z" in scheme else {"embed": scheme}))
    result = export(folder, to=to, out=tmp_path / "out")
    assert result["check"]["weights"] == "equal, bit for bit"
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    tensors = {k: v for file in (tmp_path / "out").glob("*.safetensors") for k, v in load_file(file).items()}
    assert not {"whet", "auto_map"} & config.keys() and (tmp_path / "out" / "tokenizer.json").is_file()
    bits = int(scheme[3])
    for name in NAMES:
        if to == "gptq":
            said = config["quantization_config"]
            assert (said["bits"], said["group_size"], said["sym"]) == (
                bits,
                32 if "g32" in scheme else -1,
                "s" in scheme,
            )
            found = read_gptq(tensors, name, bits, said["checkpoint_format"])
        elif to == "awq":
            assert config["quantization_config"]["zero_point"] and config["quantization_config"]["group_size"] == 32
            found = read_awq(tensors, name, 32)
        else:
            assert config["quantization"]["bits"] == bits and tensors[f"{name}.weight"].dtype == torch.uint32
            found = read_mlx(tensors, name, bits, 32)
        assert np.array_equal(found, stored(folder, name)), name
    left = {k for k in tensors if k.startswith("model.layers") and k.endswith("norm.weight")}
    assert len(left) == 4 and all(torch.equal(tensors[k], Checkpoint(folder).read(k)) for k in left)


def test_mlx_names_what_differs(tmp_path, original):
    groups = {
        "down": {"addresses": ["*.down_proj"], "choice": {"schemes": "int8s-g32"}},
        "all": {"addresses": ["*[!n]_proj"], "choice": {"schemes": "int4s-g32"}},
        "tables": {"addresses": ["model.embed_tokens", "lm_head"], "choice": {"schemes": "keep"}},
    }
    plan = {"format": "whet.plan", "version": 1, "target": "whet", "groups": groups}
    compress(original, tmp_path / "lighter", plan=plan, solver="nearest")
    export(tmp_path / "lighter", to="mlx", out=tmp_path / "out")
    told = json.loads((tmp_path / "out" / "config.json").read_text())["quantization"]
    assert (told["bits"], told["group_size"]) == (4, 32)
    assert told["model.layers.0.mlp.down_proj"] == {"bits": 8, "group_size": 32} and len(told) == 4
    with pytest.raises(UsageError, match=r"has one scheme for all linears of the blocks, here int[48]s-g32"):
        export(tmp_path / "lighter", to="gptq", out=tmp_path / "gptq")


REFUSED = [
    ("gptq", {"scheme": "int3s-g32"}, r"\(int3s-g32\): gptq has 2 or 4 or 8 bits"),
    ("awq", {"scheme": "int8s-g32"}, "awq has 4 bits"),
    ("awq", {"scheme": "int4s"}, "awq has groups of 32 or 64 or 128"),
    ("gptq", {"scheme": "int4z-g32"}, "gptq holds no real zeros"),
    ("mlx", {"scheme": "int4-g32"}, "a whole zero times its scale is none that 16 bits hold"),
    ("mlx", {"scheme": "nf4", "target": "whet"}, "holds integers alone"),
    ("gptq", {"scheme": "int4s-g32", "embed": "int4s-g32"}, "leaves embedding and head as they are"),
]


@pytest.mark.parametrize(("to", "made", "said"), REFUSED)
def test_what_a_layout_does_not_hold_is_refused(to, made, said, tmp_path, folders):
    made = dict(made)
    with pytest.raises(UsageError, match=said):
        export(folders(made.pop("scheme"), **made), to=to, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_originals_and_useless_options_are_refused(tmp_path, original, folders):
    with pytest.raises(UsageError, match="holds no codes for mlx to take over"):
        export(original, to="mlx", out=tmp_path / "out")
    for option in ({"kind": "f16"}, {"text": ["words"]}, {"inputs": "int8"}):
        with pytest.raises(UsageError):
            export(folders("int4s-g32"), to="mlx", out=tmp_path / "out", **option)
    assert not list(tmp_path.iterdir())
