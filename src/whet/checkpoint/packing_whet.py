"""A model whose linears, embeddings and experts stay packed in memory.

Copied into folders beside `modeling_whet.py` and `packed_whet.py`. `PackedWeight` stands where a module's `weight` was.
PyTorch asks it (`__torch_function__`) whenever that weight is multiplied or looked up, so modules, their subclasses and
hooks stay as they are; what else is done with it is done with the decoded weight.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from .codes_whet import NESTED, level_parts
from .modeling_whet import decode, form_of
from .packed_whet import AtUse, Dense, Fit, Int4, Int8, Parts, Piece, fit_of, kernels, opened


class PackedWeight:
    """What a module has for its `weight`: pieces that are rows one below the other, and rows to look up.

    shape: that of the parameter; `[in, out]` where `turned`. dtype: what the model computes in.
    """

    is_meta = False
    requires_grad = False

    def __init__(self, pieces: list[Piece], shape: torch.Size, turned: bool, dtype: torch.dtype) -> None:
        self.pieces, self.shape, self.turned, self.dtype = pieces, shape, turned, dtype
        self.device = pieces[0].device
        self.lookup: AtUse | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def dim(self) -> int:
        return len(self.shape)

    def size(self, dim: int | None = None) -> torch.Size | int:
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes it takes in memory."""
        return sum(piece.nbytes for piece in self.pieces) + (0 if self.lookup is None else self.lookup.nbytes)

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x [..., in]` times the matrix: `[..., out]`."""
        flat = x.reshape(-1, x.shape[-1])
        here = flat if flat.dtype == torch.bfloat16 else flat.bfloat16()
        made = [piece(here if piece.kernel[:3] == "int" else flat) for piece in self.pieces]
        y = (made[0] if len(made) == 1 else torch.cat([one.to(x.dtype) for one in made], dim=-1)).to(x.dtype)
        return (y if bias is None else y + bias).view(*x.shape[:-1], y.shape[-1])

    def rows(self, ids: Tensor) -> Tensor:
        """The rows of these numbers: `[..., in]`."""
        if self.lookup is None:
            return functional.embedding(ids, self.decoded())
        return self.lookup.at(ids.reshape(-1)).view(*ids.shape, -1)

    def decoded(self) -> Tensor:
        """The whole matrix, as the parameter was."""
        if self.lookup is not None:
            matrix = self.lookup.at(slice(None))
            return matrix.t() if self.turned else matrix
        eye = torch.eye(self.shape[0 if self.turned else 1], dtype=self.dtype, device=self.device)
        return self.product(eye) if self.turned else self.product(eye).t()

    def float(self) -> Tensor:
        """The whole matrix in float32."""
        return self.decoded().float()

    def t(self) -> PackedWeight:
        """The same, turned."""
        other = PackedWeight(self.pieces, self.shape[::-1], not self.turned, self.dtype)
        other.lookup = self.lookup
        return other

    @property
    def T(self) -> PackedWeight:
        """The same, turned."""
        return self.t()

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: tuple[type, ...], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        given = kwargs or {}
        if func is functional.linear:
            said = {**dict(zip(_OF_LINEAR, args, strict=False)), **given}
            if isinstance(said["weight"], cls) and not said["weight"].turned:
                return said["weight"].product(said["input"], said.get("bias"))
        elif func is functional.embedding and isinstance(args[1], cls):
            return args[1].rows(args[0])
        elif func in _PRODUCTS and len(args) == 2 and isinstance(args[1], cls) and args[1].turned:
            return args[1].product(args[0])
        elif func is torch.addmm and not given and isinstance(args[2], cls) and args[2].turned:
            return args[2].product(args[1], args[0])
        return func(*(_plain(one) for one in args), **{key: _plain(one) for key, one in given.items()})


def _plain(value: Any) -> Any:
    return value.decoded() if isinstance(value, PackedWeight) else value


_OF_LINEAR = ("input", "weight", "bias")
_PRODUCTS = (torch.matmul, torch.mm, torch.Tensor.matmul, torch.Tensor.__matmul__)


class PackedStack:
    """Experts `[experts, …]`, each a `PackedWeight`."""

    is_meta = False
    requires_grad = False

    def __init__(self, experts: list[PackedWeight], shape: torch.Size) -> None:
        self.experts, self.shape = experts, shape
        self.dtype, self.device = experts[0].dtype, experts[0].device

    def __len__(self) -> int:
        return len(self.experts)

    def __getitem__(self, expert: Tensor | int) -> PackedWeight:
        return self.experts[int(expert)]

    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes it takes in memory."""
        return sum(expert.nbytes for expert in self.experts)


# Why no kernel takes a linear.
_WHY = {
    "floats": "8-bit floats",
    "values": "a table of values that are not whole numbers",
    "group": "scales of other than a multiple of 32 columns",
    "form": "a form of its own",
    "device": "no int4 kernel on this device",
    "model": "the model's code reads them by itself",
}


@dataclass
class Packing:
    """Keeps linears and embeddings of a model packed while it is filled, and counts what became of them.

    at_use: what no kernel takes is decoded whenever it is used; else once, and stays so. warns: of what that is. kept:
    linears by `kernel`, and embeddings by `lookup`. without: linears that no kernel takes, by why: as `fit_of` says,
    `device`, or `model` for parameters that the model's code reads by itself.
    """

    at_use: bool = False
    warns: bool = False
    kept: Counter[str] = field(default_factory=Counter)
    without: Counter[str] = field(default_factory=Counter)
    _uses: dict[str, tuple[Tensor, set[str]]] = field(default_factory=dict)
    _held: dict[int, _Held] = field(default_factory=dict)

    def look(self, model: nn.Module) -> None:
        """Find the parameters of a `model` on the meta device, tied, whose modules can be given something else."""
        found: dict[int, tuple[list[str], Tensor, set[str]]] = {}
        for path, module in model.named_modules():
            for leaf, parameter in module._parameters.items():
                if parameter is not None:
                    names, _, uses = found.setdefault(id(parameter), ([], parameter, set()))
                    names.append(f"{path}.{leaf}" if path else leaf)
                    uses.add(_use(module, leaf, parameter))
        self._uses = {name: (one, uses) for names, one, uses in found.values() for name in names}

    def add(self, name: str, place: dict, value: Tensor | Parts, entry: dict, dtype: torch.dtype) -> Tensor | None:
        """Keep a linear, codes as stored or weights, of the parameter `name`, all of it or that of `place`. Returns its
        weights where the parameter is to hold them as always."""
        if isinstance(value, Tensor) and not place:
            return value.clone()  # or it holds on to all that was read of its file
        parameter, uses = self._uses.get(name, (None, {""}))
        if parameter is None or "" in uses:
            if isinstance(value, Tensor):
                return value
            self.without["model"] += 1
            return decode(value, entry, dtype)
        piece, lookup = self._piece(value, entry, dtype, uses)
        if isinstance(piece, Dense) and not place:
            return piece.weight
        held = self._held.setdefault(id(parameter), _Held(parameter, name, bool(place.get("transposed")), dtype))
        start = (place.get("rows") or (0,))[0]
        held.pieces.setdefault(place.get("expert", -1), []).append((start, piece))
        held.lookup = lookup
        return None

    def _piece(
        self, value: Tensor | Parts, entry: dict, dtype: torch.dtype, uses: set[str]
    ) -> tuple[Piece, AtUse | None]:
        """What a linear is kept as, and what rows are looked up in."""
        if isinstance(value, Tensor):
            return Dense(value.to(dtype, copy=True)), None
        if form_of(entry) == NESTED:
            value, entry = level_parts(value, entry)
        if form_of(entry) not in ("codes", "float"):
            self.without["form"] += 1
            return Dense(decode(value, entry, dtype)), None
        parts, entry = opened(value, entry)
        raw = AtUse(parts, entry, dtype)
        lookup = raw.own() if "rows" in uses else None
        if uses == {"rows"}:
            self.kept["lookup"] += 1
            return raw.own(), raw
        fit, there = fit_of(entry, raw.columns), kernels(str(raw.device))
        if isinstance(fit, Fit) and fit.whole and "int8" in there:
            self.kept["int8"] += 1
            return Int8(parts, entry, raw.rows, raw.columns), lookup
        if isinstance(fit, Fit) and "int4" in there:
            self.kept["int4"] += 1
            return Int4(parts, entry, fit, raw.rows, raw.columns), lookup
        self.without[fit if isinstance(fit, str) else "device"] += 1
        if self.at_use:
            self.kept["at use"] += 1
            return raw.own(), lookup
        return Dense(raw.at(slice(None))), None

    def told(self) -> str:
        """In a line, what no kernel takes, and why."""
        how = "decoded whenever they are used, which is slow" if self.at_use else "decoded, and take their full size"
        reasons = "; ".join(f"{count}: {_WHY[why]}" for why, count in self.without.items())
        return f"PyTorch has no kernel for {self.without.total()} of the linears, which are {how} ({reasons})"

    def finish(self, model: nn.Module) -> None:
        """Give the modules of `model`, tied by now, what was kept of parameters that are whole."""
        for held in self._held.values():
            made = held.whole()
            if made is None:
                continue
            for module in model.modules():
                for leaf in [leaf for leaf, one in module._parameters.items() if one is held.parameter]:
                    if isinstance(made, Tensor):
                        module._parameters[leaf] = nn.Parameter(made, requires_grad=False)
                        continue
                    del module._parameters[leaf]
                    setattr(module, leaf, made)
                    if isinstance(made, PackedStack):  # the others multiply all experts at once
                        module.config._experts_implementation = "eager"  # type: ignore[union-attr]
        if self.kept:
            model.save_pretrained = _refuse  # type: ignore[assignment]
        self._held.clear()
        self._uses.clear()
        if self.warns and self.without:
            warnings.warn(self.told(), stacklevel=2)


@dataclass
class _Held:
    """What came of one parameter: its pieces with their first rows, by expert (-1: there are none)."""

    parameter: Tensor
    name: str
    turned: bool
    dtype: torch.dtype
    pieces: dict[int, list[tuple[int, Piece]]] = field(default_factory=dict)
    lookup: AtUse | None = None

    def whole(self) -> PackedWeight | PackedStack | Tensor | None:
        """What stands in the parameter's place; None where a part of it did not come."""
        shape = self.parameter.shape
        experts = list(range(shape[0])) if len(shape) == 3 else [-1]
        rows = shape[-1] if self.turned else shape[-2]
        if sorted(self.pieces) != experts or any(sum(p.rows for _, p in self.pieces[e]) != rows for e in experts):
            return None
        own = shape[-2:]
        ordered = [[piece for _, piece in sorted(self.pieces[e], key=lambda one: one[0])] for e in experts]
        if all(isinstance(piece, Dense) for pieces in ordered for piece in pieces):
            return self._decoded(ordered)
        weights = [PackedWeight(pieces, own, self.turned, self.dtype) for pieces in ordered]
        if len(shape) == 3:
            return PackedStack(weights, shape)
        weights[0].lookup = self.lookup
        return weights[0]

    def _decoded(self, ordered: list[list[Piece]]) -> Tensor:
        """The parameter itself, of pieces that are weights, which are given up one by one."""
        made = torch.empty(self.parameter.shape, dtype=self.dtype, device=ordered[0][0].device)
        for place, pieces in zip(made if made.ndim == 3 else [made], ordered, strict=True):
            matrix, start = place.t() if self.turned else place, 0
            for piece in pieces:
                matrix[start : start + piece.rows] = piece.weight  # type: ignore[union-attr]
                start += piece.rows
            pieces.clear()
        return made


def _refuse(*args: Any, **kwargs: Any) -> None:
    raise ValueError(
        "This model was loaded packed and cannot be saved. Copy its folder, or load it without fast, packed."
    )


def _use(module: nn.Module, leaf: str, parameter: Tensor) -> str:
    """How a module uses a parameter: `linear`, `rows` (looked up), `stack` (of experts), or in some way of its own."""
    if leaf == "weight" and isinstance(module, nn.Embedding):
        return "rows"
    if leaf == "weight" and isinstance(module, nn.Linear | Conv1D):
        return "linear"
    settings = getattr(module, "config", None)
    if parameter.ndim == 3 and getattr(settings, "_experts_implementation", None) is not None:
        return "stack"
    return ""
