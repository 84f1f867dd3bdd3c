"""How other tools lay out the codes of a linear: GPTQ's, AWQ's and MLX's tensors and settings, and how they are read
back. Codes, scales and zeros go over as they are; nothing is rounded.

- GPTQ (AutoGPTQ, GPTQModel, vLLM): `qweight` int32 `[in * bits / 32, out]`, codes packed along the inputs, the first
  lowest; `qzeros` int32 `[groups, out * bits / 32]`, packed along the outputs, of a zero the number below it, which
  readers of `"checkpoint_format": "gptq"` add 1 to again (of `gptq_v2` they do not); `scales` float16 `[groups, out]`;
  `g_idx` int32 `[in]`, the group of each input.
- AWQ (AutoAWQ's GEMM, vLLM): `qweight` int32 `[in, out / 8]` and `qzeros` int32 `[groups, out / 8]`, eight outputs to a
  word in the order `AWQ_ORDER`; `scales` float16 `[groups, out]`.
- MLX: `weight` uint32 `[out, in * bits / 32]`, a bit stream a row, the first lowest; `scales` and `biases`
  `[out, groups]`; a weight is `scale * code + bias`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whet.checkpoint.modeling_whet import unpack
from whet.grids import pack

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # which of eight outputs is in the lowest 4 bits of a word, in the next, …


@dataclass(frozen=True)
class Codes:
    """A linear `[out, in]` as integers: uint8 `codes`; `scale [out, groups]` as stored; whole `zero` uint8, or real
    `offset` in the type of the scales, `[out, groups]`. group: columns that share a scale."""

    bits: int
    group: int
    codes: Tensor
    scale: Tensor
    zero: Tensor | None = None
    offset: Tensor | None = None

    @property
    def zeros(self) -> Tensor:
        """Whole zeros `[out, groups]`, the middle code where none are stored."""
        return torch.full(self.scale.shape, 2 ** (self.bits - 1), dtype=torch.uint8) if self.zero is None else self.zero


@dataclass(frozen=True)
class PackedLayout:
    """A layout. bits, groups: what its loaders take; 0 for a whole row. zeros: kinds of zeros. tensors: of a linear by
    their names. read: from those the float32 weights `[out, in]`. settings: the entries of config.json, of all linears
    by name. halves: scales are float16 whatever the model is. words: outputs and inputs fill words of 32 bits. mixed:
    linears may differ, embedding and head may have codes too."""

    name: str
    bits: tuple[int, ...]
    groups: tuple[int, ...]
    zeros: tuple[str, ...]
    tensors: Callable[[Codes, bool], dict[str, Tensor]]
    read: Callable[[Mapping[str, Tensor], int, int, bool], Tensor]
    settings: Callable[[Mapping[str, tuple[int, int]], bool, bool], dict[str, Any]]
    halves: bool = False
    words: bool = False
    mixed: bool = False


def _words(codes: Tensor, bits: int) -> Tensor:
    """int32 `[rows, columns * bits / 32]`, of bits that divide 32."""
    return pack(codes.contiguous(), bits)


def _gptq(linear: Codes, below: bool) -> dict[str, Tensor]:
    zeros = linear.zeros - 1 if below else linear.zeros
    columns = linear.codes.shape[1]
    return {
        "qweight": _words(linear.codes, linear.bits).t().contiguous(),
        "qzeros": _words(zeros.t(), linear.bits),
        "scales": linear.scale.half().t().contiguous(),
        "g_idx": (torch.arange(columns) // (linear.group or columns)).to(torch.int32),
    }


def _read_gptq(parts: Mapping[str, Tensor], bits: int, group: int, below: bool) -> Tensor:
    columns, rows = len(parts["g_idx"]), parts["scales"].shape[1]
    codes = unpack(parts["qweight"].t().contiguous(), bits, columns)
    zeros = unpack(parts["qzeros"], bits, rows).float() + below
    own = parts["g_idx"].long()
    return (codes.float() - zeros[own].t()) * parts["scales"].float()[own].t()


def _gptq_settings(linears: Mapping[str, tuple[int, int]], symmetric: bool, below: bool) -> dict[str, Any]:
    bits, group = next(iter(linears.values()))
    told = {"quant_method": "gptq", "bits": bits, "group_size": group or -1, "desc_act": False, "sym": symmetric}
    version = "gptq" if below else "gptq_v2"
    return {"quantization_config": {**told, "lm_head": False, "checkpoint_format": version}}


def _eights(codes: Tensor) -> Tensor:
    """int32 `[rows, columns / 8]` of 4-bit codes, eight to a word in AWQ's order."""
    eights = codes.unflatten(1, (-1, 8))[..., list(AWQ_ORDER)]
    return pack(eights.flatten(1).contiguous(), 4)


def _awq(linear: Codes, below: bool) -> dict[str, Tensor]:
    return {
        "qweight": _eights(linear.codes.t()),
        "qzeros": _eights(linear.zeros.t()),
        "scales": linear.scale.half().t().contiguous(),
    }


def _read_awq(parts: Mapping[str, Tensor], bits: int, group: int, below: bool) -> Tensor:
    place = [AWQ_ORDER.index(i) for i in range(8)]

    def numbers(words: Tensor) -> Tensor:
        return unpack(words, 4, 8 * words.shape[1]).unflatten(1, (-1, 8))[..., place].flatten(1).float()

    codes, own = numbers(parts["qweight"]), torch.arange(len(parts["qweight"])) // group
    return ((codes - numbers(parts["qzeros"])[own]) * parts["scales"].float()[own]).t()


def _awq_settings(linears: Mapping[str, tuple[int, int]], symmetric: bool, below: bool) -> dict[str, Any]:
    bits, group = next(iter(linears.values()))
    told = {"quant_method": "awq", "bits": bits, "group_size": group, "zero_point": True, "version": "gemm"}
    return {"quantization_config": {**told, "modules_to_not_convert": None}}


def _mlx(linear: Codes, below: bool) -> dict[str, Tensor]:
    middle = linear.scale * -float(2 ** (linear.bits - 1))  # a power of two: exact
    return {
        "weight": pack(linear.codes.contiguous(), linear.bits).view(torch.uint32),
        "scales": linear.scale.contiguous(),
        "biases": (middle if linear.offset is None else linear.offset).contiguous(),
    }


def _read_mlx(parts: Mapping[str, Tensor], bits: int, group: int, below: bool) -> Tensor:
    words = parts["weight"].view(torch.int32)
    codes = unpack(words, bits, 32 * words.shape[1] // bits).float()
    own = torch.arange(codes.shape[1]) // group
    return codes * parts["scales"].float()[:, own] + parts["biases"].float()[:, own]


def _mlx_settings(linears: Mapping[str, tuple[int, int]], symmetric: bool, below: bool) -> dict[str, Any]:
    kinds = list(linears.values())
    bits, group = max(set(kinds), key=lambda kind: (kinds.count(kind), kind))
    told: dict[str, Any] = {"group_size": group, "bits": bits}
    others = {name: kind for name, kind in linears.items() if kind != (bits, group)}
    told |= {name: {"group_size": own[1], "bits": own[0]} for name, own in others.items()}
    return {"quantization": told, "quantization_config": told}


PACKED = {
    layout.name: layout
    for layout in (
        PackedLayout(
            name="gptq",
            bits=(2, 4, 8),
            groups=(0, 32, 64, 128),
            zeros=("none", "int"),
            halves=True,
            words=True,
            tensors=_gptq,
            read=_read_gptq,
            settings=_gptq_settings,
        ),
        PackedLayout(
            name="awq",
            bits=(4,),
            groups=(32, 64, 128),
            zeros=("none", "int"),
            halves=True,
            words=True,
            tensors=_awq,
            read=_read_awq,
            settings=_awq_settings,
        ),
        PackedLayout(
            name="mlx",
            bits=(2, 3, 4, 5, 6, 8),
            groups=(32, 64, 128),
            zeros=("none", "real"),
            mixed=True,
            tensors=_mlx,
            read=_read_mlx,
            settings=_mlx_settings,
        ),
    )
}
