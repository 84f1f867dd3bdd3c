"""The rounded matrices of a quantized folder as they are trained, and as they are stored again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from whet.checkpoint import Checkpoint
from whet.checkpoint.modeling_whet import parts_of
from whet.errors import UsageError
from whet.grids import CodedGrid, parse_scheme
from whet.steps.coded import table_of
from whet.train.rounded import Place, Rounded


def rounded_parts(
    checkpoint: Checkpoint, device: str, *, frozen: bool, coupled: bool = True
) -> tuple[dict[str, Rounded], dict[str, Place]]:
    """What a quantized folder holds of its matrices, ready to be trained, and where in the model each is, by address.

    frozen, coupled: as in `Rounded`. Raises UsageError for a folder whose matrices are on no grid that whet knows.
    """
    manifest = checkpoint.whet or {}
    names = (manifest.get("reading") or {}).get("names") or {}
    rounded: dict[str, Rounded] = {}
    places: dict[str, Place] = {}
    for address, entry in table_of(checkpoint).items():
        if "bits" not in entry or entry["decode"] == "plain":
            continue
        stored = {part: checkpoint.read(f"{address}.{part}") for part in parts_of(dict(entry))}
        grid = _grid(checkpoint, address, stored["weight_scale"].dtype)
        codes, params = grid.read_parts(stored)
        computed = {"scale": stored["weight_scale"].dtype}.get(entry["decode"], torch.float32)
        rounded[address] = Rounded(
            grid,
            codes,
            params,
            decode=computed if computed.is_floating_point and computed.itemsize > 1 else torch.float32,
            mask=_mask(checkpoint, address, grid, codes, params),
            frozen=frozen,
            coupled=coupled,
        ).to(device)
        into = entry.get("into") or {}
        places[address] = Place(
            into.get("parameter") or names.get(f"{address}.weight", f"{address}.weight"),
            (into["rows"][0], into["rows"][1]) if into.get("rows") else None,
            into.get("expert"),
            bool(into.get("transposed")),
        )
    return rounded, places


def stored_again(rounded: Mapping[str, Rounded]) -> dict[str, Tensor]:
    """The stored tensors of matrices as they are now, by name."""
    found: dict[str, Tensor] = {}
    for address, one in rounded.items():
        codes, params = one.rounded()
        parts = one.grid.stored_parts(codes.cpu(), {k: v.cpu() for k, v in params.items()})
        found |= {f"{address}.{part}": tensor for part, tensor in parts.items()}
    return found


def _grid(checkpoint: Checkpoint, address: str, scales: torch.dtype) -> CodedGrid:
    """The grid of what is stored under `address`: a linear, or several one above the other."""
    linears = (checkpoint.whet or {})["linears"]
    mine = [entry for name, entry in linears.items() if name == address or name.startswith(f"{address}.")]
    names = {entry["grid"] for entry in mine if "grid" in entry}
    grid = parse_scheme(names.pop(), scales) if len(names) == 1 else None
    if grid is None or grid.coded is None:
        raise UsageError(
            "{folder}: {address} is on no grid that can be trained. Train the model that it was made from, and "
            "quantize that.",
            folder=checkpoint.path,
            address=address,
        )
    return grid.coded


def _mask(
    checkpoint: Checkpoint, address: str, grid: CodedGrid, codes: Tensor, params: Mapping[str, Tensor]
) -> Tensor | None:
    """Where a matrix with a mask is not 0."""
    masks = (checkpoint.whet or {}).get("masks") or {}
    rows = [name for name in (checkpoint.whet or {})["linears"] if name == address or name.startswith(f"{address}.")]
    if not any(name in masks for name in rows):
        return None
    return grid.decode(codes, dict(params)) != 0
