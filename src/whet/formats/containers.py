"""What config.json says of a lighter folder, for each of the two containers; pure functions of what was decided.

`compressed-tensors` (pack-quantized, and for FP8, NVFP4 and MXFP4 formats of their own) is what stock transformers and
vLLM load. `whet` is for what it cannot hold; the folder then carries one modelling file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whet.anatomy import Anatomy
from whet.grids import CacheGrid, Grid

CT_VERSION = "0.20.0"


def linear_table(grids: Mapping[str, Grid], decode: str) -> dict[str, dict[str, Any]]:
    """Address → `Grid.table_entry`, as whet.json tells it of every linear."""
    return {address: grid.table_entry(decode) for address, grid in grids.items()}


def reading(parts: Anatomy, grids: Mapping[str, Grid], decode: str) -> dict[str, Any]:
    """How a folder's tensors become the model's, as `checkpoint.modeling_whet` uses it.

    `linears`: what is stored by itself, address → `Grid.table_entry` with its place in the model (`into`) where that is
    not `address.weight`; without `bits` it is stored as it was. `names`: the model's names of other tensors;
    `convert`: that transformers is to find them out.
    """
    table: dict[str, dict[str, Any]] = {}
    for piece in parts.pieces(grids):
        grid = grids.get(piece.linears[0].address)
        table[piece.address] = {} if grid is None else grid.table_entry(decode)
        if (into := piece.held.place(piece.address)) is not None:
            table[piece.address]["into"] = into
    for address, view in parts.moved().items():
        if address not in table and (into := view.place(address)) is not None:
            table[address] = {"into": into}
    more: dict[str, Any] = {"names": parts.names} if parts.names else {}
    return {"linears": table, **more, **({} if parts.family.known else {"convert": True})}


def quantization_config(
    grids: Mapping[str, Grid], dense: list[str], embedding: str, dequantize: bool, kv: CacheGrid | None = None
) -> dict[str, Any]:
    """The `quantization_config` of compressed-tensors for `grids` by the names of modules.

    dense: linears that stay as they are. embedding: the embedding. dequantize: ask transformers
    to compute the weights at load; needed for integer zeros and quantized embeddings, right only for one scheme. kv:
    what keys and values are rounded to.
    """
    by_grid: dict[Grid, list[str]] = {}
    for address, grid in grids.items():
        by_grid.setdefault(grid, []).append(address)
    groups: dict[str, Any] = {}
    for number, (grid, addresses) in enumerate(by_grid.items()):
        targets = addresses
        if len(by_grid) == 1:
            targets = ["Linear", "Embedding"] if embedding in addresses else ["Linear"]
        assert grid.compressed is not None  # `targets.storage` has seen to it
        groups[f"group_{number}"] = {"targets": targets, **grid.compressed}
    formats = {group["format"] for group in groups.values()}
    config: dict[str, Any] = {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "ignore": dense,
        "config_groups": groups,
        "version": CT_VERSION,
    }
    if kv is not None:
        config["kv_cache_scheme"] = kv.compressed
    if dequantize:
        config["dequantize"] = True
    return config


def whet_config(parts: Anatomy, grids: Mapping[str, Grid], auto_class: str, decode: str = "model") -> dict[str, Any]:
    """The entries of config.json that send `auto_class` of transformers to the modelling file in the folder."""
    return {
        "auto_map": {auto_class: "modeling_whet.WhetForCausalLM"},
        "whet": {"format": 1, **reading(parts, grids, decode)},
    }
