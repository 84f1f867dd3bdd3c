"""The matrices and vectors of a folder, original or lighter, as a graph holds them: codes with their scales as they
were solved, or the numbers themselves. Read one by one; nothing is rounded here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Anatomy, anatomy
from whet.checkpoint import Checkpoint
from whet.checkpoint.codes_whet import codes_of, unpack
from whet.checkpoint.modeling_whet import decode, form_of, parts_of
from whet.checkpoint.table import check_stored
from whet.errors import UsageError
from whet.messages import Message, listed
from whet.targets import Target

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_BEYOND = {"values", "part", "in_byte"}  # in entries of codes that are no integers on one level


@dataclass(frozen=True)
class Coded:
    """A matrix `[out, in]` of codes: uint8 `codes`; `scale` `[out, groups]` as stored; `zero` uint8 `[out, groups]`, or
    None where the middle code is 0. group: columns that share a scale, the last ones fewer; 0 for a whole row."""

    bits: int
    group: int
    codes: Tensor
    scale: Tensor
    zero: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """`(out, in)`."""
        return self.codes.shape[0], self.codes.shape[1]


class Weights:
    """The tensors of a folder by the names they have in the original.

    linears: how the quantized ones are read, by address (`whet.json`); none for an original. cast: the type that the
    matrices of an original are written in; None for the stored one. Raises UsageError that names every scheme that
    `target` does not store, and what to do.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        linears: Mapping[str, Mapping[str, Any]],
        target: Target,
        cast: torch.dtype | None = None,
    ) -> None:
        self.checkpoint, self.linears, self.cast = checkpoint, linears, cast
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.coded: set[str] = set()
        lost: dict[str, list[str]] = {}
        shapes = check_stored(checkpoint, linears)
        for address, entry in linears.items():
            if "bits" in entry:
                if not _held(entry, shapes[f"{address}.weight"][1], target):
                    lost.setdefault(entry.get("grid") or Message("its scheme"), []).append(address)
                self.coded.add(address)
        for name, shape in shapes.items():
            info = checkpoint.tensors.get(name)
            if info is None or info.dtype in _FLOATS:  # masks and counters that old versions stored are not
                self.shapes[name] = shape
        if lost:
            told = [
                Message("{scheme} ({count} linears, first {name})", scheme=scheme, count=len(a), name=a[0])
                for scheme, a in lost.items()
            ]
            raise UsageError(
                "{source}: {target} does not store {lost}, and rounding again would change the weights that were "
                "judged. Compress with --for {target}, which takes what it stores.",
                source=checkpoint.path,
                target=target.name,
                lost=listed(told, "; "),
            )

    def parts(self) -> Anatomy:
        """The parts of the model that they make up."""
        config = {key: value for key, value in self.checkpoint.config.items() if key not in _WRITTEN}
        return anatomy(config, self.shapes, str(self.checkpoint.path))

    def matrix(self, address: str) -> Coded | Tensor:
        """The matrix `[out, in]` at `address`: codes, or numbers in their stored type, or that of `cast`."""
        if address not in self.coded:
            value = self.checkpoint.read(f"{address}.weight")
            return value if self.cast is None else value.to(self.cast)
        entry, (rows, columns) = dict(self.linears[address]), self.shapes[f"{address}.weight"]
        codes = codes_of(self.checkpoint.read(f"{address}.weight_packed"), entry, columns)
        scale, zero = self.checkpoint.read(f"{address}.weight_scale"), None
        if entry["zero"] == "int":
            points = self.checkpoint.read(f"{address}.weight_zero_point").t().contiguous()
            zero = unpack(points, entry["bits"], rows).t().contiguous()
        return Coded(entry["bits"], entry["group"] or 0, codes, scale, zero)

    def values(self, address: str) -> Tensor:
        """The same as float32 numbers, by the one definition of weights."""
        if address not in self.coded:
            return self.checkpoint.read(f"{address}.weight").float()
        entry = {**self.linears[address], "decode": "float32"}
        return decode(
            {part: self.checkpoint.read(f"{address}.{part}") for part in parts_of(entry)}, entry, torch.float32
        )

    def in_float32(self, manifest: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """The folder's whet.json (or `manifest`) with every linear computed in float32; None of an original."""
        told = manifest or self.checkpoint.whet
        if told is None or not self.linears:
            return None
        reading = told.get("reading") or told
        linears = {
            a: {**line, "decode": "float32"} if "bits" in line else line for a, line in reading["linears"].items()
        }
        return {
            **told,
            "reading": {**{k: reading[k] for k in ("names", "convert") if k in reading}, "linears": linears},
        }

    def vector(self, name: str) -> Tensor | None:
        """A norm or a bias as float32; None where there is none."""
        return self.checkpoint.read(name).float() if name in self.shapes else None


_WRITTEN = ("quantization_config", "whet", "auto_map")


def _held(entry: Mapping[str, Any], columns: int, target: Target) -> bool:
    """Whether `target` stores rows of `columns` weights on the grid of this table `entry`."""
    group = entry["group"] or 0
    return (
        form_of(dict(entry)) == "codes"
        and not _BEYOND & entry.keys()
        and entry["bits"] in target.bits
        and (entry["zero"] != "real" or target.real_zero)
        and (target.groups is None or group in target.groups)
        and not (target.divides and group and columns % group)
    )
