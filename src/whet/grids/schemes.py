"""What a user types for a grid: `W4A16`, `int4-g32`, `int3z-g64` (real zero), `int4s-g128` (symmetric)."""

from __future__ import annotations

import re

import torch

from whet.errors import UsageError, did_you_mean
from whet.grids.integer import IntegerGrid

_INTEGER = re.compile(r"int([2-8])([sz]?)(?:-g([1-9][0-9]*))?")
_ZERO = {"s": "none", "": "int", "z": "real"}

# The field's names, as llm-compressor uses them: symmetric, groups of 128, 8 bits per channel.
PRESETS = {"W8A16": "int8s", "W4A16": "int4s-g128", "W3A16": "int3s-g128", "W2A16": "int2s-g128"}


def parse_scheme(scheme: str, scale_dtype: torch.dtype = torch.float16) -> IntegerGrid:
    """The grid that `scheme` names.

    `int<bits><kind>[-g<group>]`: bits 2 to 8; kind nothing (integer zero), `s` (symmetric, signed scale) or `z` (real
    zero); without a group, one scale per row. Or a preset, W2A16 to W8A16. Case does not matter.
    """
    known = {name.lower(): text for name, text in PRESETS.items()}
    match = _INTEGER.fullmatch(known.get(scheme.strip().lower(), scheme.strip().lower()))
    if match is None:
        examples = [*PRESETS, *(f"int{b}{k}-g{g}" for b in range(2, 9) for k in ("", "s", "z") for g in (32, 64, 128))]
        raise UsageError(
            f"Scheme {scheme!r} is not known.{did_you_mean(scheme, examples)} A scheme is int<bits><kind>-g<group> "
            "with 2 to 8 bits, kind nothing (integer zero), s (symmetric) or z (real zero), and any group (without -g: "
            f"one scale per row), for example int4-g32, int3z-g64, int4s-g128; or one of {', '.join(PRESETS)}."
        )
    bits, kind, group = match.groups()
    return IntegerGrid(int(bits), int(group or 0), _ZERO[kind], scale_dtype)  # type: ignore[arg-type]
