"""Keys and values in few bits: a cache for transformers that holds codes, and what it takes.

- `int8`, `q4_0`: a scale (float16) for every 32 channels of a token's key or value, as llama.cpp's `q8_0` and `q4_0`;
- `int4`: keys by channel and values by token, each 32 numbers with a scale and a smallest value, and the last tokens as
  they are (KIVI, Liu et al. 2024, arXiv 2402.02750): channels of keys differ in size, those of values do not;
- `fp8`: E4M3 under one scale a layer for keys and one for values, as vLLM holds them: the folder's own scales where it
  was made with `compress --kv fp8`, else 1;
- `fp8-head`, `int8-tensor`, `int8-head`: under scales that the folder holds (`whet.grids.caches`);
- `16`: as the model computes them.

Layers that look back over a window only, or keep something else than keys and values, stay as they are; with scales of
the folder's own those of windows are rounded too, as compressed-tensors and vLLM do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from whet.checkpoint import Checkpoint, model_config
from whet.checkpoint.files import TensorInfo, read_tensor
from whet.errors import UsageError, did_you_mean
from whet.grids import CACHE_GRIDS, CACHE_PARTS
from whet.messages import Message

GROUP = 32  # numbers that share a scale
RECENT = 32  # tokens that `int4` keeps as they are, at least
FULL = "16"
CACHES = ("int8", "int4", "q4_0", *CACHE_GRIDS, FULL)
Scales = Mapping[int, tuple[Tensor, Tensor]]  # of keys and of values, by layer
_LAYER = re.compile(r"\.(\d+)\.")


def find_cache(name: str) -> str:
    """A known kind of cache. Raises UsageError with a did-you-mean."""
    said = name.strip().lower()
    if said not in CACHES:
        raise UsageError(
            "Cache type {name!r} is not known.{near} Types: {known}.",
            name=name,
            near=did_you_mean(said, CACHES),
            known=", ".join(CACHES),
        )
    return said


@dataclass(frozen=True)
class CacheShape:
    """What a model keeps of a token.

    heads, width: of each layer, key-value heads and numbers of each. full: by layer, whether all tokens are kept, and
    not those of a window. window: of the others, 0 where there is none. itemsize: bytes of a number as the model
    computes it.
    """

    heads: tuple[int, ...]
    width: tuple[int, ...]
    full: tuple[bool, ...]
    window: int
    itemsize: int = 2

    @classmethod
    def of(cls, config: Any, itemsize: int = 2) -> CacheShape:
        """Of a transformers config. Raises UsageError where a layer keeps something else than keys and values."""
        text = config.get_text_config(decoder=True)
        count, heads = text.num_hidden_layers, text.num_attention_heads
        kept = getattr(text, "num_key_value_heads", None) or heads
        width = getattr(text, "head_dim", None) or text.hidden_size // heads
        kinds = getattr(text, "layer_types", None) or ["full_attention"] * count
        window = getattr(text, "sliding_window", None) or 0
        if getattr(text, "layer_types", None) is None and window and getattr(text, "use_sliding_window", True):
            kinds = ["sliding_attention"] * count
        other = [kind for kind in kinds if kind not in ("full_attention", "sliding_attention")]
        if other:
            raise UsageError(
                "{family} has layers of the kind {kind}, which keep something else than keys and values. Leave --kv "
                "out.",
                family=text.model_type,
                kind=other[0],
            )
        full = tuple(kind == "full_attention" for kind in kinds)
        return cls((kept,) * count, (width,) * count, full, 0 if all(full) else window, itemsize)

    def nbytes(self, kinds: Sequence[str], tokens: int) -> int:
        """Bytes of the cache of one sequence of so many tokens, by the kind of each layer."""
        layers = zip(kinds, self.heads, self.width, self.full, strict=True)
        return sum(
            self._layer(kind if full else FULL, heads * width, tokens if full else min(tokens, self.window))
            for kind, heads, width, full in layers
        )

    def _layer(self, kind: str, numbers: int, tokens: int) -> int:
        if kind == "int4":
            whole = max(0, tokens - RECENT) // GROUP * GROUP
            coded = 2 * whole * (numbers // 2 + numbers // GROUP * 4)
            return coded + 2 * (tokens - whole) * numbers * self.itemsize
        each = {"int8": numbers + numbers // GROUP * 2, "q4_0": numbers // 2 + numbers // GROUP * 2}
        each |= dict.fromkeys(CACHE_GRIDS, numbers)
        return 2 * tokens * each.get(kind, numbers * self.itemsize)


def new_cache(model: PreTrainedModel, kinds: Sequence[str], scales: Scales | None = None) -> DynamicCache:
    """An empty cache for `model` with the kind of each layer. Raises UsageError for heads that groups do not divide."""
    cache = DynamicCache(config=model.config)
    for number, kind in enumerate(kinds):
        own, layer = (scales or {}).get(number), cache.layers[number]
        if kind in CACHE_GRIDS and own is not None and type(layer) is DynamicSlidingWindowLayer:
            cache.layers[number] = RoundedWindow(layer.sliding_window, kind, own)
        elif kind != FULL and type(layer) is DynamicLayer:
            cache.layers[number] = Recent() if kind == "int4" else Coded(kind, own)
    return cache


def check_cache(config: Any, kinds: Sequence[str]) -> None:
    """Raises UsageError where layers of a model cannot be kept so."""
    shape = CacheShape.of(config)
    for width, kind in zip(shape.width, kinds, strict=True):
        if kind not in (FULL, *CACHE_GRIDS) and width % GROUP:
            raise UsageError(
                "Heads of {width} numbers do not divide into groups of {group}, which --kv {kind} needs. Use --kv fp8.",
                width=width,
                group=GROUP,
                kind=kind,
            )


@dataclass
class _Codes:
    """Numbers `[..., n]` as codes. params: what they are multiplied by, and added to, in groups of the last dimension.
    dtype: what they are decoded to."""

    codes: Tensor
    params: tuple[Tensor, ...]

    def cat(self, other: _Codes, dim: int) -> _Codes:
        params = tuple(torch.cat(pair, dim) for pair in zip(self.params, other.params, strict=True))
        return _Codes(torch.cat([self.codes, other.codes], dim), params)

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + sum(one.nbytes for one in self.params)


def _paired(codes: Tensor) -> Tensor:
    """Two codes of 4 bits in a byte."""
    return codes[..., ::2] | codes[..., 1::2] << 4


def _apart(packed: Tensor) -> Tensor:
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)


def encode_blocks(x: Tensor, kind: str) -> _Codes:
    """`x [..., width]` with a scale for every 32 numbers, as llama.cpp's `q8_0` (`int8`) and `q4_0`."""
    blocks = x.float().unflatten(-1, (-1, GROUP))
    if kind == "int8":
        scale = blocks.abs().amax(-1, keepdim=True) / 127
        inverse = torch.where(scale > 0, 1 / scale, 0.0)
        codes = (blocks * inverse).round().clamp(-127, 127).to(torch.int8).flatten(-2)
        return _Codes(codes, (scale.half().squeeze(-1),))
    farthest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    scale = farthest / -8
    inverse = torch.where(scale != 0, 1 / scale, 0.0)
    codes = (blocks * inverse + 8.5).floor().clamp(0, 15).to(torch.uint8).flatten(-2)
    return _Codes(_paired(codes), (scale.half().squeeze(-1),))


def decode_blocks(kept: _Codes, kind: str, dtype: torch.dtype) -> Tensor:
    """What `encode_blocks` stands for."""
    codes = kept.codes.float() if kind == "int8" else _apart(kept.codes).float() - 8
    return (codes.unflatten(-1, (-1, GROUP)) * kept.params[0].float().unsqueeze(-1)).flatten(-2).to(dtype)


def encode_ranges(x: Tensor) -> _Codes:
    """`x [..., n]` in 4 bits, every 32 numbers between their smallest and largest."""
    blocks = x.float().unflatten(-1, (-1, GROUP))
    least, most = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
    scale, least = ((most - least) / 15).half(), least.half()
    inverse = torch.where(scale > 0, 1 / scale.float(), 0.0)
    codes = ((blocks - least.float()) * inverse).round().clamp(0, 15).to(torch.uint8)
    return _Codes(_paired(codes.flatten(-2)), (scale.squeeze(-1), least.squeeze(-1)))


def decode_ranges(kept: _Codes, dtype: torch.dtype) -> Tensor:
    """What `encode_ranges` stands for."""
    scale, least = (one.float().unsqueeze(-1) for one in kept.params)
    return (_apart(kept.codes).float().unflatten(-1, (-1, GROUP)) * scale + least).flatten(-2).to(dtype)


class Coded(DynamicLayer):
    """Keys and values of one layer, each token coded as it comes."""

    def __init__(self, kind: str, scales: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.kind, self.scales = kind, scales or (torch.ones(1), torch.ones(1))
        self.kept: list[_Codes] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values `[b, heads, n, width]` of all tokens, as they are decoded."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.scales = _beside(self.scales, key_states)
        new = [self._encode(x, s) for x, s in zip((key_states, value_states), self.scales, strict=True)]
        self.kept = new if self.kept is None else [a.cat(b, -2) for a, b in zip(self.kept, new, strict=True)]
        key, value = (self._decode(x, s) for x, s in zip(self.kept, self.scales, strict=True))
        return key, value

    def _encode(self, x: Tensor, scale: Tensor) -> _Codes:
        if self.kind in CACHE_GRIDS:
            return _Codes(CACHE_GRIDS[self.kind].encode(x, scale), ())
        return encode_blocks(x, self.kind)

    def _decode(self, kept: _Codes, scale: Tensor) -> Tensor:
        if self.kind in CACHE_GRIDS:
            return CACHE_GRIDS[self.kind].decode(kept.codes, scale, self.dtype)
        return decode_blocks(kept, self.kind, self.dtype)

    def get_seq_length(self) -> int:
        """Tokens that are kept."""
        return 0 if self.kept is None else self.kept[0].codes.shape[-2]

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return 0 if self.kept is None else sum(one.nbytes for one in self.kept)


class RoundedWindow(DynamicSlidingWindowLayer):
    """Keys and values of a layer that looks back over a window, rounded as they come and kept in the model's type."""

    def __init__(self, window: int, kind: str, scales: tuple[Tensor, Tensor]) -> None:
        super().__init__(sliding_window=window)
        self.kind, self.scales = kind, scales

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values `[b, heads, n, width]` that the layer looks at."""
        grid, scales = CACHE_GRIDS[self.kind], _beside(self.scales, key_states)
        new = (grid.rounded(x, scale) for x, scale in zip((key_states, value_states), scales, strict=True))
        return super().update(*new, *args, **kwargs)  # type: ignore[no-any-return]


def _beside(scales: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Scales in the type and on the device of `x`."""
    key, value = (scale.to(x) for scale in scales)
    return key, value


def stored_cache(checkpoint: Checkpoint) -> tuple[str, Scales] | None:
    """What a folder says that keys and values are kept in, and its scales; None where it says nothing. Raises
    UsageError where scales are missing, or are no numbers above 0."""
    if checkpoint.whet is None or "kv" not in checkpoint.whet:
        return None
    kind, shape = checkpoint.whet["kv"]["kind"], CacheShape.of(model_config(checkpoint))
    scales = scales_in(checkpoint, checkpoint.kv)
    for number, heads in enumerate(shape.heads):
        for part, scale in zip(CACHE_PARTS, scales.get(number, (None, None)), strict=True):
            name = f"{part} ({number})"
            if scale is None:
                raise _unfit(checkpoint, name, Message("is missing, which whet.json says is stored"))
            if scale.shape != CACHE_GRIDS[kind].shape(heads) or not (scale > 0).all() or not scale.isfinite().all():
                raise _unfit(checkpoint, name, Message("is no scale of {kind}", kind=kind))
    return kind, scales


def scales_in(checkpoint: Checkpoint, stored: Mapping[str, TensorInfo]) -> dict[int, tuple[Tensor, Tensor]]:
    """By layer the scales of keys and of values among `stored`. Raises UsageError where one is without the other."""
    found = dict[int, dict[str, Tensor]]()
    for name, info in stored.items():
        stem, _, part = name.rpartition(".")
        place = _LAYER.search(f"{stem}.")
        if part in CACHE_PARTS and place is not None:
            found.setdefault(int(place[1]), {})[part] = read_tensor(info)
    if (lone := next((number for number, one in found.items() if len(one) < len(CACHE_PARTS)), None)) is not None:
        raise _unfit(checkpoint, f"k_scale, v_scale ({lone})", Message("is missing, which whet.json says is stored"))
    return {number: (one[CACHE_PARTS[0]], one[CACHE_PARTS[1]]) for number, one in found.items()}


def _unfit(checkpoint: Checkpoint, name: str, fault: Message) -> UsageError:
    return UsageError(
        "{folder}: {name} {fault}. Weights and whet.json are not of one folder, or a file is damaged: download the "
        "folder again, or make it anew.",
        folder=checkpoint.path,
        name=name,
        fault=fault,
    )


class Recent(DynamicLayer):
    """Keys by channel and values by token in 4 bits, the last tokens as they are: what a forward brings is looked at as
    it is, and whole groups of tokens are coded once `RECENT` others came after them."""

    def __init__(self) -> None:
        super().__init__()
        self.old: list[_Codes] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values `[b, heads, n, width]` of all tokens."""
        recent = super().update(key_states, value_states)
        found = recent
        if self.old is not None:
            key, value = (decode_ranges(one, self.dtype) for one in self.old)
            found = torch.cat([key.transpose(-1, -2), recent[0]], -2), torch.cat([value, recent[1]], -2)
        count = max(0, recent[0].shape[-2] - RECENT) // GROUP * GROUP
        if count:
            new = [encode_ranges(recent[0][..., :count, :].transpose(-1, -2)), encode_ranges(recent[1][..., :count, :])]
            dims = (-1, -2)  # along which tokens lie
            self.old = new if self.old is None else [a.cat(b, d) for a, b, d in zip(self.old, new, dims, strict=True)]
            self.keys, self.values = recent[0][..., count:, :].clone(), recent[1][..., count:, :].clone()
        return found

    @property
    def coded(self) -> int:
        """Tokens that are coded."""
        return 0 if self.old is None else self.old[1].codes.shape[-2]

    def get_seq_length(self) -> int:
        """Tokens that are kept."""
        return self.coded + super().get_seq_length()

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        recent = sum(one.nbytes for one in (self.keys, self.values) if one is not None)
        return recent + (0 if self.old is None else sum(one.nbytes for one in self.old))
