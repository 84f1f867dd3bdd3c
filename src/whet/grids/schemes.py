"""What a user types for a grid: `W4A16`, `int4-g32`, `int3z-g64` (real zero), `int4s-g128` (symmetric), `Q4_0`."""

from __future__ import annotations

import re

import torch

from whet.errors import UsageError, did_you_mean
from whet.grids.floats import FloatGrid
from whet.grids.integer import IntegerGrid

Grid = IntegerGrid | FloatGrid

_INTEGER = re.compile(r"int([2-8])([sz]?)(?:-g([1-9][0-9]*))?")
_ZERO = {"s": "none", "": "int", "z": "real"}

# The field's names, as llm-compressor uses them: symmetric, groups of 128, 8 bits per channel.
PRESETS = {"W8A16": "int8s", "W4A16": "int4s-g128", "W3A16": "int3s-g128", "W2A16": "int2s-g128"}
# ggml's block types that are integer grids: 32 weights, a float16 scale, in the types that end in 1 also a float16
# minimum (a real zero). Q4_0 and Q5_0 count from the middle code, and so does Q8_0, whose codes ggml stores signed.
BLOCKS = {"Q4_0": "int4s-g32", "Q4_1": "int4z-g32", "Q5_0": "int5s-g32", "Q5_1": "int5z-g32", "Q8_0": "int8s-g32"}
FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16}


def parse_scheme(scheme: str, scale_dtype: torch.dtype = torch.float16) -> Grid:
    """The grid that `scheme` names.

    `int<bits><kind>[-g<group>]`: bits 2 to 8; kind nothing (integer zero), `s` (symmetric, signed scale) or `z` (real
    zero); without a group, one scale per row. Or a preset, W2A16 to W8A16; a block type of ggml, Q4_0 to Q8_0, whose
    scales are float16 whatever `scale_dtype` says; or F16 and BF16. Case does not matter.
    """
    said = scheme.strip().lower()
    floats = {name.lower(): dtype for name, dtype in FLOATS.items()}
    if said in floats:
        return FloatGrid(floats[said])
    block = next((name for name in BLOCKS if name.lower() == said), "")
    known = {name.lower(): text for name, text in (PRESETS | BLOCKS).items()}
    match = _INTEGER.fullmatch(known.get(said, said))
    if match is None:
        examples = [*PRESETS, *(f"int{b}{k}-g{g}" for b in range(2, 9) for k in ("", "s", "z") for g in (32, 64, 128))]
        examples += [*BLOCKS, *FLOATS]
        raise UsageError(
            f"Scheme {scheme!r} is not known.{did_you_mean(scheme, examples)} A scheme is int<bits><kind>-g<group> "
            "with 2 to 8 bits, kind nothing (integer zero), s (symmetric) or z (real zero), and any group (without -g: "
            f"one scale per row), for example int4-g32, int3z-g64, int4s-g128; or one of {', '.join(PRESETS)}; or, for "
            f"llama.cpp, one of {', '.join((*BLOCKS, *FLOATS))}."
        )
    bits, kind, group = match.groups()
    scales = torch.float16 if block else scale_dtype
    return IntegerGrid(int(bits), int(group or 0), _ZERO[kind], scales, block)  # type: ignore[arg-type]
