"""What a user types for a grid: `W4A16`, `int4-g32`, `int3z-g64` (real zero), `int4s-g128` (symmetric), `Q4_0`."""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from whet.errors import UsageError, did_you_mean
from whet.grids.codebook import CodebookGrid
from whet.grids.floats import FloatGrid
from whet.grids.integer import IntegerGrid

CodedGrid = IntegerGrid | CodebookGrid
Grid = CodedGrid | FloatGrid

_INTEGER = re.compile(r"int([2-8])([sz]?)(?:-g([1-9][0-9]*))?")
_ZERO = {"s": "none", "": "int", "z": "real"}

# The field's names, as llm-compressor uses them: symmetric, groups of 128, 8 bits per channel.
PRESETS = {"W8A16": "int8s", "W4A16": "int4s-g128", "W3A16": "int3s-g128", "W2A16": "int2s-g128"}
# ggml's block types that are integer grids: 32 weights, a float16 scale, in the types that end in 1 also a float16
# minimum (a real zero). Q4_0 and Q5_0 count from the middle code, and so does Q8_0, whose codes ggml stores signed.
BLOCKS = {"Q4_0": "int4s-g32", "Q4_1": "int4z-g32", "Q5_0": "int5s-g32", "Q5_1": "int5z-g32", "Q8_0": "int8s-g32"}
FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16}
# Code books under a scale: of a row, of all (`-tensor`), of a block of 128 x 128 (`-block`), or of a group.
CODEBOOKS = {
    grid.name: grid
    for grid in (
        CodebookGrid("FP8", "e4m3"),
        CodebookGrid("fp8-tensor", "e4m3", rows=0),
        CodebookGrid("fp8-block", "e4m3", group=128, rows=128),
        CodebookGrid("fp8e5m2", "e5m2"),
        CodebookGrid("fp8e5m2-tensor", "e5m2", rows=0),
        CodebookGrid("fp8e5m2-block", "e5m2", group=128, rows=128),
        CodebookGrid("NVFP4", "e2m1", group=16, scale_dtype=torch.float8_e4m3fn),
        CodebookGrid("MXFP4", "e2m1", group=32, scale_dtype=torch.float8_e8m0fnu),
        CodebookGrid("nf4", "nf4", group=64),
    )
}
_NF4 = re.compile(r"nf4-g([1-9][0-9]*)")


def parse_scheme(scheme: str, scale_dtype: torch.dtype = torch.float16) -> Grid:
    """The grid that `scheme` names.

    `int<bits><kind>[-g<group>]`: bits 2 to 8; kind nothing (integer zero), `s` (symmetric, signed scale) or `z` (real
    zero); without a group, one scale per row. Or a preset, W2A16 to W8A16; a block type of ggml, Q4_0 to Q8_0, whose
    scales are float16 whatever `scale_dtype` says; F16 and BF16; or a code book: FP8 (E4M3, a scale for each row),
    fp8-tensor, fp8-block, the same of E5M2 (fp8e5m2 …), NVFP4, MXFP4, nf4 (in groups of 64) and nf4-g<group>. Case does
    not matter.
    """
    said = scheme.strip().lower()
    floats = {name.lower(): dtype for name, dtype in FLOATS.items()}
    if said in floats:
        return FloatGrid(floats[said])
    if (book := _codebook(said, scale_dtype)) is not None:
        return book
    block = next((name for name in BLOCKS if name.lower() == said), "")
    known = {name.lower(): text for name, text in (PRESETS | BLOCKS).items()}
    match = _INTEGER.fullmatch(known.get(said, said))
    if match is None:
        examples = [*PRESETS, *(f"int{b}{k}-g{g}" for b in range(2, 9) for k in ("", "s", "z") for g in (32, 64, 128))]
        examples += [*BLOCKS, *FLOATS, *CODEBOOKS, *(f"nf4-g{g}" for g in (32, 128))]
        raise UsageError(
            f"Scheme {scheme!r} is not known.{did_you_mean(scheme, examples)} A scheme is int<bits><kind>-g<group> "
            "with 2 to 8 bits, kind nothing (integer zero), s (symmetric) or z (real zero), and any group (without -g: "
            f"one scale per row), for example int4-g32, int3z-g64, int4s-g128; or one of {', '.join(PRESETS)}; "
            f"{', '.join(CODEBOOKS)} or nf4-g<group>; or, for llama.cpp, one of {', '.join((*BLOCKS, *FLOATS))}."
        )
    bits, kind, group = match.groups()
    scales = torch.float16 if block else scale_dtype
    return IntegerGrid(int(bits), int(group or 0), _ZERO[kind], scales, block)  # type: ignore[arg-type]


def _codebook(said: str, scale_dtype: torch.dtype) -> CodebookGrid | None:
    """The grid of a code book that `said` (in lower case) names, or None."""
    grid = next((grid for name, grid in CODEBOOKS.items() if name.lower() == said), None)
    if (match := _NF4.fullmatch(said)) is not None and grid is None:
        group = int(match[1])
        grid = replace(CODEBOOKS["nf4"], group=group, name="nf4" if group == CODEBOOKS["nf4"].group else said)
    return grid if grid is None or grid.scales else replace(grid, scale_dtype=scale_dtype)
