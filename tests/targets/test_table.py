"""Targets: what loads gets the container that loads it, and what would fail or load wrong never gets that far."""

from __future__ import annotations

import pytest
import torch

import models
from whet.anatomy import anatomy
from whet.checkpoint import Checkpoint
from whet.errors import UsageError
from whet.formats.graphs.decoder import DECODERS
from whet.formats.graphs.encoder import ENCODERS
from whet.grids import TernaryGrid, leaves_group, parse_scheme
from whet.targets import (
    TARGETS,
    check_family,
    divided,
    find_target,
    stand_in,
    storage,
    tie,
    tied,
)
from wording import each

TABLES = frozenset({"embed", "head"})
SHAPES = {
    **{"a": (64, 64), "b": (96, 64), "c": (64, 96), "wide": (96, 128), "long": (64, 256), "odd": (64, 37)},
    **{"embed": (264, 64), "head": (264, 64)},
}


def choose(target="transformers", **schemes):
    return storage(find_target(target), {a: parse_scheme(s) for a, s in schemes.items()}, SHAPES, TABLES)


@pytest.mark.parametrize(
    "schemes,container,dequantize",
    [
        ({"a": "int4s-g32", "b": "int4s-g32"}, "compressed-tensors", False),
        ({"a": "int4s-g32", "b": "int8s", "c": "int2s-g16"}, "compressed-tensors", False),
        ({"a": "int4-g32", "b": "int4-g32"}, "compressed-tensors", True),
        ({"a": "int4-g32", "embed": "int4-g32"}, "compressed-tensors", True),
        ({"a": "int4s-g32", "embed": "int4s-g32", "head": "int4s-g32"}, "compressed-tensors", True),
        # these would load in stock transformers without an error, and wrongly
        ({"a": "int4-g32", "b": "int3-g32"}, "whet", False),
        ({"a": "int4-g32", "b": "int4s-g32"}, "whet", False),
        ({"a": "int4s-g32", "embed": "int8s"}, "whet", False),
        ({"a": "int4s-g32", "embed": "int4s-g32", "head": "int8s"}, "whet", False),
        # these it cannot store
        ({"a": "int4z-g32", "b": "int4z-g32"}, "whet", False),
        ({"a": "int4s-g32", "b": "int4z-g32"}, "whet", False),
        # small floats: those of compressed-tensors mix with each other and with symmetric integers
        ({"a": "FP8", "b": "FP8"}, "compressed-tensors", False),
        ({"a": "NVFP4", "b": "NVFP4"}, "compressed-tensors", True),
        ({"a": "NVFP4", "b": "FP8", "c": "MXFP4"}, "compressed-tensors", False),
        ({"a": "fp8-tensor", "b": "int4s-g32"}, "compressed-tensors", False),
        ({"a": "FP8", "embed": "FP8"}, "compressed-tensors", True),
        ({"a": "NVFP4", "b": "int4-g32"}, "whet", False),
        ({"a": "NVFP4", "embed": "FP8"}, "whet", False),
        ({"a": "FP8", "b": "fp8e5m2"}, "whet", False),
        ({"a": "nf4", "b": "NVFP4"}, "whet", False),
    ],
)
def test_each_mix_gets_the_container_that_holds_it(schemes, container, dequantize):
    made = choose(**schemes)
    assert (made.container, made.dequantize) == (container, dequantize) and made.reason


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_fp4_beside_others_needs_a_bfloat16_model(dtype):
    """compressed-tensors computes weights of FP4 in bfloat16, which the products of another type refuse."""
    grids = {"a": parse_scheme("NVFP4"), "b": parse_scheme("MXFP4")}
    made = storage(find_target("transformers"), grids, SHAPES, TABLES, dtype=dtype)
    assert made.container == ("compressed-tensors" if dtype == torch.bfloat16 else "whet")
    alone = storage(find_target("transformers"), {"a": grids["a"]}, SHAPES, TABLES, dtype=dtype)
    assert (alone.container, alone.dequantize) == ("compressed-tensors", True)
    if dtype != torch.bfloat16:
        with pytest.raises(UsageError, match=r"in bfloat16.*Convert the original"):
            storage(find_target("vllm"), grids, SHAPES, TABLES, dtype=dtype)


def test_whets_own_target_takes_everything():
    made = choose("whet", a="int3-g100", b="int5z-g7", embed="int2s-g33")
    assert made.container == "whet"


@pytest.mark.parametrize(
    "target,schemes",
    [
        ("onnx", {"a": "int4s-g32", "b": "int8s"}),
        ("onnx", {"a": "int4-g32", "b": "int2s-g16", "embed": "int8s"}),
        ("onnx", {"a": "int4s-g64", "c": "int4s-g64"}),
        ("openvino", {"a": "int4-g20", "c": "int8s-g48"}),
    ],
)
def test_what_goes_into_a_graph_may_be_mixed(target, schemes):
    """Integer zeros beside symmetric grids, an embedding of its own, shorter last groups: computed in float32 there."""
    shapes = {**SHAPES, "a": (64, 80)} if "int4-g20" in schemes.values() else SHAPES
    grids = {a: parse_scheme(s) for a, s in schemes.items()}
    made = storage(find_target(target), grids, shapes, TABLES)
    assert (made.container, made.decode, made.graph) == ("whet", "float32", True) and "the graph" in made.reason


def test_families_of_graphs_are_those_that_can_be_written():
    written = {*DECODERS, *ENCODERS}
    assert all(set(row.families or ()) == written for row in TARGETS.values() if row.graph)


REFUSED = {
    "bits": ("vllm", {"a": "int3s-g32"}, r"a \(64 x 64\) as int3s-g32: vllm has no 3-bit kernel", "4 or 8 bits"),
    "real zero": ("vllm", {"b": "int4z-g32"}, r"b \(96 x 64\) as int4z-g32: vllm holds no real zeros", "int4-g64"),
    "embedding": ("vllm", {"embed": "int4s-g32"}, "embed .* loads no quantized embedding", "Leave out --embed"),
    "group": ("vllm", {"a": "int4s-g16"}, "takes no group of 16", "group of 32, 64, or none"),
    "mixed": ("vllm", {"a": "int4-g32", "b": "int4s-g32"}, "different schemes", "symmetric schemes"),
    "mixed bits": ("vllm", {"a": "int4-g32", "b": "int8-g32"}, "different schemes", "symmetric schemes"),
    "vllm, divides": ("vllm", {"c": "int4s-g64"}, "64 does not divide 96", "divides every row, such as 32"),
    "divides": ("transformers", {"c": "int4s-g64"}, r"c \(64 x 96\).*64 does not divide 96", "or --for whet"),
    "onnx, bits": (
        "onnx",
        {"a": "int3s-g32"},
        r"a \(64 x 64\) as int3s-g32: onnx has no 3-bit",
        "Use 2 or 4 or 8 bits",
    ),
    "onnx, group": ("onnx", {"a": "int4-g96"}, "onnx takes no group of 96", "group of 16, 32, 64, 128, 256, or none"),
    "onnx, a table": ("onnx", {"a": "IQ4_NL"}, "onnx reads no block types of ggml", "--for llama.cpp"),
    "onnx, floats": ("onnx", {"a": "FP8"}, "as FP8: onnx holds integers", "--for whet"),
    "openvino, two levels": ("openvino", {"long": "IQ4_XS"}, "openvino reads no block types of ggml", "int4s-g128"),
    "onnx, real zero": ("onnx", {"a": "int4z-g32"}, "onnx holds no real zeros", "int4-g64"),
    "openvino, bits": ("openvino", {"a": "int2s-g32"}, "openvino has no 2-bit kernel", "Use 4 or 8 bits"),
    "openvino, real zero": ("openvino", {"embed": "int4z-g32"}, "openvino holds no real zeros", "int4-g64"),
    "openvino, divides": ("openvino", {"c": "int4-g64"}, "64 does not divide 96", "such as 32"),
    "a foreign float": ("vllm", {"a": "fp4m2-g32"}, r"as fp4m2-g32: vllm holds FP8, fp8-tensor", "--for whet"),
    "a foreign table": ("vllm", {"a": "nf4"}, r"a \(64 x 64\) as nf4: vllm holds FP8, fp8-tensor", "--for whet"),
    "a table's group": ("transformers", {"c": "nf4"}, "64 does not divide 96", "such as 32"),
    "a table's row": ("transformers", {"odd": "nf4"}, "64 does not divide 37", "Use FP8, which has one scale"),
    "a block of floats": ("transformers", {"a": "fp8-block"}, "128 does not divide 64", "Use FP8, which has one scale"),
    "blocks of what is fused": ("vllm", {"wide": "fp8-block"}, "blocks of 128 rows do not divide 96", "Use FP8"),
    "an embedding of floats": ("vllm", {"embed": "FP8"}, "embed .* loads no quantized embedding", "Leave out --embed"),
    "one scale for an embedding": ("whet", {"embed": "fp8-tensor"}, "some thousand rows at a time", "Use FP8"),
    "too wide": ("transformers", {"a": "int4s-g128"}, "128 does not divide 64", "such as 64"),
}


@each("name", REFUSED)
def test_a_refusal_names_thing_cause_and_remedy(name):
    target, schemes, cause, remedy = REFUSED[name]
    with pytest.raises(UsageError, match=cause) as raised:
        choose(target, **schemes)
    assert remedy in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("kept", [False, True])
def test_what_a_target_fuses_has_one_scheme(kept):
    schemes = {"x.a": "int4s-g32"} | ({} if kept else {"x.b": "int8s"})
    grids = {address: parse_scheme(scheme) for address, scheme in schemes.items()}
    shapes = dict.fromkeys(("x.a", "x.b"), (64, 64))
    with pytest.raises(UsageError, match=rf"^x: vllm fuses .*a int4s-g32, b {'keep' if kept else 'int8s'}") as raised:
        storage(find_target("vllm"), grids, shapes, TABLES, [["x.a", "x.b"]])
    assert "Give them the same" in str(raised.value)
    same = dict.fromkeys(shapes, parse_scheme("int8s"))
    assert storage(find_target("vllm"), same, shapes, TABLES, [["x.a", "x.b"]]).container == "compressed-tensors"


def test_what_is_fused_is_found_in_every_block(tmp_path):
    checkpoint = Checkpoint(models.make(tmp_path, blocks=2, with_tokenizer=False))
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    names = [[address.rpartition(".")[2] for address in group] for group in tied(find_target("vllm"), parts)]
    assert names == [["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj"]] * 2
    assert tied(find_target("transformers"), parts) == []


def test_what_a_remedy_names_is_taken():
    """A group named by one refusal does not meet the next one, at any of the linears."""
    for target in ("transformers", "vllm"):
        with pytest.raises(UsageError) as raised:
            choose(target, a="int4s-g64", c="int4s-g64")
        group = str(raised.value).split("such as ")[1].split(",")[0]
        choose(target, a=f"int4s-g{group}", c=f"int4s-g{group}")


@each(
    "target,scheme,widths",
    [
        ("transformers", "W4A16", {576: "int4s-g64", 704: "int4s-g64", 2048: "int4s-g128", 172: "int4s"}),
        ("vllm", "W4A16", {576: "int4s-g64", 96: "int4s-g32", 2048: "int4s-g128", 172: "int4s"}),
        ("openvino", "w4a16", {576: "int4s-g64", 720: "int4s-g16"}),
        ("onnx", "W2A16", {172: "int2s-g128"}),  # which holds shorter last groups
        ("transformers", "nf4", {96: "nf4-g32", 176: "nf4-g16", 172: "nf4"}),
    ],
)
def test_a_group_that_nobody_chose_gives_way_to_the_largest_that_divides(target, scheme, widths):
    assert leaves_group(scheme)
    grid = parse_scheme(scheme)
    assert {width: divided(find_target(target), grid, {width}).name for width in widths} == widths
    assert not any(map(leaves_group, ("int4s-g128", "int4s", "nf4-g64", "NVFP4", "Q4_K", "fp8-block")))


def test_an_unknown_target_is_told_the_nearest():
    with pytest.raises(UsageError, match=r"'transformer' is not known\. Did you mean transformers\?"):
        find_target("transformer")
    assert all(find_target(name).name == name for name in TARGETS)


@pytest.mark.parametrize("scheme", ["Q4_0", "q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "F16", "BF16"])
def test_llama_cpp_takes_its_own_types_mixed_on_everything(scheme):
    made = choose("llama.cpp", a=scheme, b="Q4_0", embed="Q8_0", head="F16")
    assert (made.container, made.decode, made.dequantize) == ("whet", "float32", False)


def test_llama_cpp_takes_nothing_else_and_no_ragged_rows():
    with pytest.raises(UsageError, match=r"a \(64 x 64\) as int4s-g32: llama\.cpp holds Q4_0, .*Use Q4_0, which"):
        choose("llama.cpp", a="int4s-g32")
    shapes = {"ragged": (64, 172)}
    with pytest.raises(UsageError, match=r"needs rows that divide by 32, and 172 does not\. Give this part F16"):
        storage(find_target("llama.cpp"), {"ragged": parse_scheme("Q8_0")}, shapes, TABLES)
    assert storage(find_target("llama.cpp"), {"ragged": parse_scheme("F16")}, shapes, TABLES).decode == "float32"
    with pytest.raises(UsageError, match=r"F16 and BF16 are for llama\.cpp"):
        choose("transformers", a="F16")


@pytest.mark.parametrize("scheme", ["Q2_K", "Q3_K", "q4_k", "Q5_K", "Q6_K", "IQ4_XS", "iq4_nl", "tq1_0", "TQ2_0"])
def test_block_types_of_other_levels_go_wherever_rows_divide(scheme):
    shapes, grids = {"a": (64, 512)}, {"a": parse_scheme(scheme)}
    assert storage(find_target("llama.cpp"), grids, shapes, TABLES).decode == "float32"
    for name in ("transformers", "whet"):
        made = storage(find_target(name), grids, shapes, TABLES)
        assert made.container == "whet"
    with pytest.raises(UsageError, match=r"vllm reads no block types of ggml\. Use int4s-g128 or the like, or --for"):
        storage(find_target("vllm"), grids, shapes, TABLES)


STAND_INS = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}
STAND_INS |= {"TQ1_0": "Q4_0", "TQ2_0": "Q4_0"}


@pytest.mark.parametrize("scheme", STAND_INS)
def test_rows_that_do_not_divide_take_what_llama_quantize_takes(scheme):
    target = find_target("llama.cpp")
    assert [stand_in(target, scheme, n) for n in (512, 96, 100)] == [scheme, STAND_INS[scheme], "F16"]
    ternary = isinstance(parse_scheme(scheme), TernaryGrid)  # of one level: elsewhere the last group may be shorter
    assert not ternary or storage(find_target("whet"), {"a": parse_scheme(scheme)}, {"a": (64, 96)}, TABLES)
    for name in ("llama.cpp",) if ternary else ("llama.cpp", "whet"):
        with pytest.raises(UsageError, match=r"needs rows that divide by 256, and 96 does not\. Give this part"):
            storage(find_target(name), {"a": parse_scheme(scheme)}, {"a": (64, 96)}, TABLES)


def test_what_llama_cpp_holds_as_one_tensor_has_one_scheme():
    """Rows of a fused tensor and the experts of a block; q and k of a family that stores them apart need not."""
    target = find_target("llama.cpp")
    assert tie(target, "blocks.0.attn.qkv_proj.q", "q") == tie(target, "blocks.0.attn.qkv_proj.v", "v") is not None
    assert tie(target, "blocks.0.attn.q_proj", "q") is None
    assert tie(target, "experts.3.w1", "expert gate") == tie(target, "experts.0.w1", "expert gate")
    assert tie(target, "experts.3.w1", "expert gate") != tie(target, "experts.3.w2", "expert down")
    assert tie(find_target("transformers"), "blocks.0.attn.qkv_proj.q", "q") is None


def test_a_family_that_a_target_does_not_load_is_refused_by_name():
    check_family(find_target("llama.cpp"), "qwen2", "m")
    check_family(find_target("transformers"), "anything", "m")
    with pytest.raises(UsageError, match=r"^m is of the family 'opt', .*llama\.cpp loads.*--for transformers"):
        check_family(find_target("llama.cpp"), "opt", "m")
