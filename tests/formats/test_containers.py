"""What config.json says: groups by scheme, names only where they are needed, the flag only where it is right."""

from __future__ import annotations

from compressed_tensors.quantization import QuantizationConfig

from whet.anatomy import anatomy
from whet.formats import quantization_config, whet_config
from whet.grids import parse_scheme


def test_one_scheme_names_module_types():
    grid = parse_scheme("int4s-g32")
    made = quantization_config({"a.q_proj": grid, "a.k_proj": grid}, ["lm_head"], "embed", dequantize=False)
    assert [g["targets"] for g in made["config_groups"].values()] == [["Linear"]]
    assert made["ignore"] == ["lm_head"] and "dequantize" not in made
    with_table = quantization_config({"a.q_proj": grid, "embed": grid}, [], "embed", dequantize=True)
    assert with_table["config_groups"]["group_0"]["targets"] == ["Linear", "Embedding"]
    assert with_table["dequantize"] is True


def test_mixed_schemes_name_every_linear_once():
    grids = {"a": parse_scheme("int4s-g32"), "b": parse_scheme("int8s"), "c": parse_scheme("int4s-g32")}
    made = quantization_config(grids, [], "embed", dequantize=False)
    groups = list(made["config_groups"].values())
    assert [g["targets"] for g in groups] == [["a", "c"], ["b"]]
    assert [g["weights"]["strategy"] for g in groups] == ["group", "channel"]
    assert [g["weights"]["group_size"] for g in groups] == [32, None]


def test_compressed_tensors_takes_what_is_written():
    for scheme in ("int3s-g64", "int4-g32", "int8s"):
        made = quantization_config({"a": parse_scheme(scheme)}, ["lm_head"], "embed", dequantize=False)
        made.pop("quant_method")
        parsed = QuantizationConfig.model_validate(made)
        weights = next(iter(parsed.config_groups.values())).weights
        assert weights.num_bits == parse_scheme(scheme).bits
        assert weights.symmetric == (parse_scheme(scheme).zero == "none")


def test_compressed_tensors_takes_small_floats_as_its_own_presets():
    """Its weight-only NVFP4A16 and MXFP4A16, and the weights of its FP8 presets."""
    from compressed_tensors.quantization.quant_scheme import FP8, FP8_BLOCK, FP8_DYNAMIC, MXFP4A16, NVFP4A16

    presets = {"FP8": FP8_DYNAMIC, "fp8-tensor": FP8, "fp8-block": FP8_BLOCK, "NVFP4": NVFP4A16, "MXFP4": MXFP4A16}
    every = quantization_config({name: parse_scheme(name) for name in presets}, [], "embed", dequantize=False)
    assert every["format"] == "mixed-precision"
    every.pop("quant_method")
    groups = {group.targets[0]: group for group in QuantizationConfig.model_validate(every).config_groups.values()}
    for name, preset in presets.items():
        mine, theirs = groups[name].weights, preset["weights"]
        for field in ("num_bits", "type", "symmetric", "strategy", "group_size", "block_structure", "scale_dtype"):
            assert getattr(mine, field) == getattr(theirs, field), (name, field)
        assert groups[name].input_activations is None
        alone = quantization_config({name: parse_scheme(name)}, [], "embed", dequantize=False)
        assert alone["format"] == alone["config_groups"]["group_0"]["format"] != "pack-quantized"


def test_the_table_of_the_modelling_file_has_every_linear():
    shapes = {"model.embed_tokens.weight": (8, 64), "model.norm.weight": (64,)}
    ffn = ("gate_proj", "up_proj", "down_proj")
    names = [f"self_attn.{part}_proj" for part in "qkvo"] + [f"mlp.{part}" for part in ffn]
    shapes |= {f"model.layers.0.{name}.weight": (64, 64) for name in names}
    parts = anatomy({"model_type": "llama", "num_hidden_layers": 1, "tie_word_embeddings": True}, shapes)
    a, b = "model.layers.0.self_attn.k_proj", "model.embed_tokens"
    made = whet_config(parts, {a: parse_scheme("int3z-g64"), b: parse_scheme("W8A16")}, "AutoModelForCausalLM")
    assert made["whet"] == {
        "format": 1,
        "linears": {
            a: {"bits": 3, "group": 64, "zero": "real", "decode": "model"},
            b: {"bits": 8, "group": 0, "zero": "none", "decode": "model"},
        },
    }
    assert made["auto_map"] == {"AutoModelForCausalLM": "modeling_whet.WhetForCausalLM"}
