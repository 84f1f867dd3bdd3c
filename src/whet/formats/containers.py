"""What config.json says of a lighter folder, for each of the two containers; pure functions of what was decided.

`compressed-tensors` (pack-quantized, and for FP8, NVFP4 and MXFP4 formats of their own) is what stock transformers and
vLLM load. `whet` is for what it cannot hold; the folder then carries one modelling file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whet.anatomy import AUTO, Anatomy
from whet.grids import FloatGrid, Grid, IntegerGrid, NestedGrid, ShiftedGrid, SmallFloatGrid, TableGrid, TernaryGrid
from whet.grids.shifted import SHIFT_BITS

CONTAINERS = ("compressed-tensors", "whet")
CT_VERSION = "0.20.0"


def table_entry(grid: Grid, decode: str) -> dict[str, Any]:
    """How one linear is read (see `checkpoint.modeling_whet`).

    decode: the type its weights are multiplied out in: the model's (`model`), that of the stored scales (`scale`, as
    compressed-tensors does when it dequantizes) or `float32` (as ggml does, and whoever reads its types of two levels;
    bitsandbytes for NF4; weights of NVFP4 and MXFP4 are exact in any type). A linear on a plain float is a plain
    tensor, with nothing to decode.
    """
    wide = isinstance(grid, (NestedGrid, TableGrid)) or (isinstance(grid, SmallFloatGrid) and grid.bits < 8)
    told = "plain" if isinstance(grid, FloatGrid) else "float32" if wide else decode
    entry: dict[str, Any] = {"bits": grid.bits, "group": grid.group, "zero": grid.zero, "decode": told}
    if isinstance(grid, NestedGrid):
        entry |= {"part": grid.part, "part_bits": grid.part_bits}
    if isinstance(grid, (NestedGrid, TableGrid)) and grid.values:
        entry["values"] = list(grid.values)
    if isinstance(grid, TernaryGrid) and grid.in_byte == 5:
        entry["in_byte"] = grid.in_byte
    if isinstance(grid, SmallFloatGrid):
        entry |= {"float": grid.values} | ({"rows": grid.rows} if grid.rows != 1 else {})
        entry |= {"scales": grid.scales} if grid.scales else {}
        entry |= {"shift_bits": SHIFT_BITS} if isinstance(grid, ShiftedGrid) else {}
    return entry


def linear_table(grids: Mapping[str, Grid], decode: str) -> dict[str, dict[str, Any]]:
    """Address → `table_entry`, as whet.json tells it of every linear."""
    return {address: table_entry(grid, decode) for address, grid in grids.items()}


def reading(parts: Anatomy, grids: Mapping[str, Grid], decode: str) -> dict[str, Any]:
    """How a folder's tensors become the model's, as `checkpoint.modeling_whet` uses it.

    `linears`: what is stored by itself, address → `table_entry` with its place in the model (`into`) where that is not
    `address.weight`; without `bits` it is stored as it was. `names`: the model's names of other tensors; `convert`:
    that transformers is to find them out.
    """
    table: dict[str, dict[str, Any]] = {}
    for piece in parts.pieces(grids):
        grid = grids.get(piece.linears[0].address)
        table[piece.address] = {} if grid is None else table_entry(grid, decode)
        if (into := piece.held.place(piece.address)) is not None:
            table[piece.address]["into"] = into
    for address, view in parts.moved().items():
        if address not in table and (into := view.place(address)) is not None:
            table[address] = {"into": into}
    more: dict[str, Any] = {"names": parts.names} if parts.names else {}
    return {"linears": table, **more, **({} if parts.family.known else {"convert": True})}


def quantization_config(
    grids: Mapping[str, Grid], dense: list[str], embedding: str, dequantize: bool
) -> dict[str, Any]:
    """The `quantization_config` of compressed-tensors for `grids` by address.

    dense: addresses of linears that stay as they are. embedding: address of the embedding. dequantize: ask transformers
    to compute the weights at load; needed for integer zeros and quantized embeddings, right only for one scheme.
    """
    by_grid: dict[IntegerGrid | SmallFloatGrid, list[str]] = {}
    for address, grid in grids.items():
        if isinstance(grid, (IntegerGrid, SmallFloatGrid)):
            by_grid.setdefault(grid, []).append(address)
    groups: dict[str, Any] = {}
    for number, (grid, addresses) in enumerate(by_grid.items()):
        targets = addresses
        if len(by_grid) == 1:
            targets = ["Linear", "Embedding"] if embedding in addresses else ["Linear"]
        groups[f"group_{number}"] = {
            "targets": targets,
            "format": _format(grid),
            "weights": _weights(grid),
        }
    formats = {group["format"] for group in groups.values()}
    config: dict[str, Any] = {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "ignore": dense,
        "config_groups": groups,
        "version": CT_VERSION,
    }
    if dequantize:
        config["dequantize"] = True
    return config


def whet_config(parts: Anatomy, grids: Mapping[str, Grid], decode: str = "model") -> dict[str, Any]:
    """The entries of config.json that send transformers' automatic class to the modelling file in the folder."""
    return {
        "auto_map": {AUTO[parts.task]: "modeling_whet.WhetForCausalLM"},
        "whet": {"format": 1, **reading(parts, grids, decode)},
    }


def _format(grid: IntegerGrid | SmallFloatGrid) -> str:
    """What compressed-tensors calls the way `grid` is stored."""
    if isinstance(grid, IntegerGrid):
        return "pack-quantized"
    if grid.values == "e2m1":
        return {"e4m3": "nvfp4-pack-quantized", "e8m0": "mxfp4-pack-quantized"}[grid.scales]
    return "float-quantized"


def _weights(grid: IntegerGrid | SmallFloatGrid) -> dict[str, Any]:
    """The `weights` of a config group: weight-only, whatever the inputs are."""
    if isinstance(grid, IntegerGrid):
        strategy = "group" if grid.group else "channel"
    elif grid.bits == 8:
        strategy = {0: "tensor", 1: "channel"}.get(grid.rows, "block")
    else:
        strategy = "tensor_group" if grid.scales == "e4m3" else "group"
    said: dict[str, Any] = {
        "num_bits": grid.bits,
        "type": "int" if isinstance(grid, IntegerGrid) else "float",
        "symmetric": grid.zero == "none",
        "strategy": strategy,
        "group_size": grid.group if "group" in strategy else None,
        "dynamic": False,
    }
    if strategy == "block" and isinstance(grid, SmallFloatGrid):
        said["block_structure"] = [grid.rows, grid.group]
    if isinstance(grid, SmallFloatGrid) and grid.scales:
        said["scale_dtype"] = {"e4m3": "torch.float8_e4m3fn", "e8m0": "torch.uint8"}[grid.scales]
    return said
