"""What a user types for a grid: `W4A16`, `int4-g32`, `int3z-g64` (real zero), `int4s-g128` (symmetric), `Q4_0`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from whet.errors import UsageError, did_you_mean
from whet.grids.floats import FloatGrid
from whet.grids.grid import CodedGrid, Grid
from whet.grids.grouped import GroupedGrid
from whet.grids.inputs import find_inputs
from whet.grids.integer import IntegerGrid
from whet.grids.nested import NestedGrid
from whet.grids.shifted import ShiftedGrid
from whet.grids.small_floats import MXFP4, NVFP4, SmallFloatGrid
from whet.grids.table import IQ4, NF4, SEQ, TableGrid
from whet.grids.ternary import TernaryGrid
from whet.peers import refuse_peers_word

_INTEGER = re.compile(r"int([2-8])([sz]?)(?:-g([1-9][0-9]*))?")
_ZERO = {"s": "none", "": "int", "z": "real"}

# The field's names, as llm-compressor uses them: symmetric, groups of 128, 8 bits per channel.
PRESETS = {"W8A16": "int8s", "W4A16": "int4s-g128", "W3A16": "int3s-g128", "W2A16": "int2s-g128"}
# The same with inputs rounded while the model runs, a scale a token; -static: one for all, calibrated on text.
ROUNDED = {
    **{"W8A8": "int8s+int8", "W8A8-static": "int8s+int8-tensor", "W4A8": "int4s-g128+int8"},
    **{"FP8A8": "FP8+fp8", "FP8A8-static": "FP8+fp8-tensor", "W4A4": "NVFP4+nvfp4"},
}
# ggml's block types. Of one level, 32 weights: a float16 scale, in the types that end in 1 also a float16 minimum (a
# real zero). Q4_0 and Q5_0 count from the middle code, and so does Q8_0, whose codes ggml stores signed. Of two levels,
# 256 weights, of which 16 or 32 have a scale that is a whole number. The ternary ones have one float16 for 256 weights.
BLOCKS: dict[str, CodedGrid] = {
    grid.name: grid
    for grid in (
        IntegerGrid(4, 32, "none", block="Q4_0"),
        IntegerGrid(4, 32, "real", block="Q4_1"),
        IntegerGrid(5, 32, "none", block="Q5_0"),
        IntegerGrid(5, 32, "real", block="Q5_1"),
        IntegerGrid(8, 32, "none", block="Q8_0"),
        NestedGrid("Q2_K", bits=2, zero="real", part=16, part_bits=4),
        NestedGrid("Q3_K", bits=3, zero="none", part=16, part_bits=6),
        NestedGrid("Q4_K", bits=4, zero="real", part=32, part_bits=6),
        NestedGrid("Q5_K", bits=5, zero="real", part=32, part_bits=6),
        NestedGrid("Q6_K", bits=6, zero="none", part=16, part_bits=8),
        TableGrid(4, 32, "none", block="IQ4_NL"),
        NestedGrid("IQ4_XS", bits=4, zero="none", part=32, part_bits=6, values=IQ4),
        TernaryGrid(2, 256, "none", block="TQ1_0", in_byte=5),
        TernaryGrid(2, 256, "none", block="TQ2_0"),
    )
}
# llama-quantize's mixes of these, by the type that most of a model has (`whet.formats.gguf.mixes`).
MIXES = {
    **{"Q2_K_S": "Q2_K", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K"},
    **{"Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K", "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K"},
}
FLOATS = {grid.name: grid for grid in (FloatGrid(torch.float16), FloatGrid(torch.bfloat16))}
# Floats of 8 and 4 bits under a scale, of a row, of all (`-tensor`), of a block of 128 x 128 (`-block`) or of a group;
# NormalFloat is a table. The group of some is the user's to choose (`nf4-g32`).
SMALL_FLOATS: dict[str, GroupedGrid] = {
    grid.name: grid
    for grid in (
        SmallFloatGrid("FP8", "e4m3"),
        SmallFloatGrid("fp8-tensor", "e4m3", rows=0),
        SmallFloatGrid("fp8-block", "e4m3", group=128, rows=128),
        SmallFloatGrid("fp8e5m2", "e5m2"),
        SmallFloatGrid("fp8e5m2-tensor", "e5m2", rows=0),
        SmallFloatGrid("fp8e5m2-block", "e5m2", group=128, rows=128),
        NVFP4,
        MXFP4,
        TableGrid(4, 64, "none", values=NF4, table="nf4"),
        TableGrid(2, 64, "none", values=SEQ, table="seq2"),
        SmallFloatGrid("fp4", "e2m1", group=64, regroups=True),
        SmallFloatGrid("fp4m1", "e2m1", group=64, scale_dtype=torch.float8_e8m0fnu, regroups=True),
        ShiftedGrid("fp4m2", "e2m1", group=64, regroups=True),
    )
}
_GROUPED = re.compile(r"(.*)-g([1-9][0-9]*)")


def parse_scheme(scheme: str, scale_dtype: torch.dtype = torch.float16) -> Grid:
    """The grid that `scheme` names.

    `int<bits><kind>[-g<group>]`: bits 2 to 8; kind nothing (integer zero), `s` (symmetric, signed scale) or `z` (real
    zero); without a group, one scale per row. Or a preset, W2A16 to W8A16; a block type of ggml (BLOCKS), whose scales
    are float16 whatever `scale_dtype` says; F16 and BF16; FP8 (E4M3, a scale for each row), fp8-tensor, fp8-block, the
    same of E5M2 (fp8e5m2 …), NVFP4, MXFP4; nf4, seq2, fp4, fp4m1 and fp4m2 in groups of 64 or with -g<group>, of which
    fp4m1-g32 is MXFP4. After a plus, what the inputs of linears are rounded to while the model runs (`INPUTS`):
    `int8s+int8`, `FP8+fp8-tensor`; or such a preset, W8A8, W8A8-static, W4A8, FP8A8, FP8A8-static, W4A4. Case does not
    matter.
    """
    said = scheme.strip().lower()
    said = {name.lower(): text.lower() for name, text in ROUNDED.items()}.get(said, said)
    weights, plus, inputs = said.partition("+")
    if plus:
        return parse_scheme(weights, scale_dtype).with_inputs(find_inputs(inputs))
    named: dict[str, Grid] = {
        **{name.lower(): grid for name, grid in (*BLOCKS.items(), *FLOATS.items())},
        **{name.lower(): grid.scaled(scale_dtype) for name, grid in SMALL_FLOATS.items()},
    }
    if (grid := named.get(said) or _regrouped(named, said)) is not None:
        return grid
    known = {name.lower(): text for name, text in PRESETS.items()}
    match = _INTEGER.fullmatch(known.get(said, said))
    if (mix := find_mix(scheme)) is not None:
        raise UsageError(
            "{mix} is no scheme of one matrix but llama.cpp's mix of several for a whole model: give --scheme {mix} "
            "with --for llama.cpp. Of one matrix say {type}.",
            mix=mix,
            type=MIXES[mix],
        )
    if match is None:
        refuse_peers_word("scheme", scheme)
        examples = [
            *PRESETS,
            *ROUNDED,
            *(f"int{b}{k}-g{g}" for b in range(2, 9) for k in ("", "s", "z") for g in (32, 64, 128)),
        ]
        examples += [*BLOCKS, *MIXES, *FLOATS, *SMALL_FLOATS]
        free = [name for name, grid in SMALL_FLOATS.items() if grid.regrouped(grid.group) is not None]
        examples += [f"{name}-g{g}" for name in free for g in (32, 128)]
        raise UsageError(
            "Scheme {scheme!r} is not known.{near} A scheme is int<bits><kind>-g<group> with 2 to 8 bits, kind "
            "nothing (integer zero), s (symmetric) or z (real zero), and any group (without -g: one scale per row), "
            "for example int4-g32, int3z-g64; or one of {presets}; {floats}; {grouped} (with -g<group> too); with "
            "inputs rounded too {rounded}; for llama.cpp {blocks}.",
            scheme=scheme,
            near=did_you_mean(scheme, examples),
            presets=", ".join(PRESETS),
            rounded=", ".join(ROUNDED),
            floats=", ".join(name for name in SMALL_FLOATS if name not in free),
            grouped=", ".join(free),
            blocks=", ".join((*BLOCKS, *FLOATS)),
        )
    bits, kind, group = match.groups()
    return IntegerGrid(int(bits), int(group or 0), _ZERO[kind], scale_dtype)  # type: ignore[arg-type]


def find_mix(scheme: str) -> str | None:
    """The mix of llama.cpp that `scheme` names (`Q4_K_M`), if it names one."""
    return next((mix for mix in MIXES if mix.lower() == scheme.strip().lower()), None)


def leaves_group(scheme: str) -> bool:
    """Whether `scheme` names no group and has one only by custom: W4A16, nf4."""
    said = scheme.strip().lower().partition("+")[0]
    small = {name.lower() for name, grid in SMALL_FLOATS.items() if grid.regrouped(grid.group) is not None}
    return said in small | {name.lower() for name in (*PRESETS, *ROUNDED)}


def _regrouped(named: Mapping[str, Grid], said: str) -> Grid | None:
    """What `said` names as one of `named` with a group of the user's choice, if it does."""
    match = _GROUPED.fullmatch(said)
    grid = named.get(match[1]) if match else None
    return grid.regrouped(int(match[2])) if match and grid else None
