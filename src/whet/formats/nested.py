"""One folder of several precisions, made of a folder of each: what the finer ones add is coded on the coarser ones.

Nothing is rounded again. Every linear is read back at every precision before its shard is kept, and has to be the
tensors that the folder of that precision has, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.checkpoint import Checkpoint, read_header, read_tensor, write_json, write_tensors
from whet.checkpoint.codes_whet import NESTED, deflated, level_parts, nearest, unpack
from whet.checkpoint.modeling_whet import parts_of
from whet.errors import GateError
from whet.events import Stage

INDEX = "whet.safetensors.index.json"
Entry = dict[str, Any]
_STORED = ("bits", "group", "zero", "decode")  # of an entry how it is stored


def table_in(manifest: Mapping[str, Any]) -> dict[str, Entry]:
    """How a folder's linears are read, by address, as its whet.json tells."""
    table: dict[str, Entry] = (manifest.get("reading") or manifest)["linears"]
    return table


def nested_table(tables: Mapping[int, Mapping[str, Entry]]) -> dict[str, Entry]:
    """The table of a folder of several precisions, of theirs by bits: the finest one's entries, the others under it."""
    finest, *coarser = sorted(tables, reverse=True)
    made = {}
    for address, entry in tables[finest].items():
        under = [_stored(tables[bits][address]) for bits in coarser if "bits" in entry]
        made[address] = {**entry, "form": NESTED, "under": under} if under else dict(entry)
    return made


def nest(folders: Mapping[int, Path], out: Path, stage: Stage) -> dict[int, int]:
    """Write the shards and the index of `folders`, by bits, as those of one folder `out`; returns the bytes that each
    precision adds to those below it, of the coarsest its own and what all share. Raises GateError where something is
    not as in the folder of its precision. stage: a step a shard."""
    order = sorted(folders)
    opened = {bits: Checkpoint(folder) for bits, folder in folders.items()}
    tables = {bits: table_in(checkpoint.whet or {}) for bits, checkpoint in opened.items()}
    table = nested_table(tables)
    adds, mapping = dict.fromkeys(order, 0), dict[str, str]()
    for name in sorted({info.file.name for info in opened[order[-1]].tensors.values()}):
        shards = {bits: read_header(folder / name) for bits, folder in folders.items()}
        tensors: dict[str, Tensor] = {}
        for address, entry in table.items():
            if entry.get("form") != NESTED or f"{address}.weight_packed" not in shards[order[0]]:
                continue
            parts = {
                bits: {
                    part: read_tensor(shards[bits].pop(f"{address}.{part}")) for part in parts_of(tables[bits][address])
                }
                for bits in order
            }
            for bits, added in _levels(parts, {bits: _stored(tables[bits][address]) for bits in order}).items():
                adds[bits] += sum(tensor.nbytes for tensor in added.values())
                tensors |= {f"{address}.{part}": tensor for part, tensor in added.items()}
            _check(address, tensors, entry, parts)
        for key, info in shards[order[-1]].items():
            shared = [read_tensor(shards[bits][key]) for bits in order]
            if any(not torch.equal(shared[0], other) for other in shared[1:]):
                raise _defect(key)
            tensors[key] = shared[0]
            adds[order[0]] += info.nbytes
        write_tensors(out / name, tensors)
        mapping |= dict.fromkeys(tensors, name)
        stage.step(unit=name)
    write_json(
        out / INDEX, {"metadata": {"total_size": sum(adds.values())}, "weight_map": dict(sorted(mapping.items()))}
    )
    return adds


def _levels(parts: Mapping[int, dict[str, Tensor]], entries: Mapping[int, Entry]) -> dict[int, dict[str, Tensor]]:
    """The stored tensors of one linear, by the precision that they are for."""
    coarser, *finer = sorted(parts)
    columns = int(parts[coarser]["weight_shape"][1])
    codes = unpack(parts[coarser]["weight_packed"], coarser, columns)
    found = {coarser: dict(parts[coarser])}
    for bits in finer:
        own = unpack(parts[bits]["weight_packed"], bits, columns)
        near = nearest(codes, parts[coarser], entries[coarser], parts[bits], entries[bits])
        params = {f"{n}_{bits}": t for n, t in parts[bits].items() if n not in ("weight_packed", "weight_shape")}
        found[bits] = {f"weight_more_{bits}": deflated((own - near).bitwise_and_(2**bits - 1)), **params}
        codes, coarser = own, bits
    return found


def _check(
    address: str, tensors: Mapping[str, Tensor], entry: Entry, parts: Mapping[int, Mapping[str, Tensor]]
) -> None:
    """Raises GateError unless `address` reads at every precision as the `parts` of that alone."""
    stored = {part: tensors[f"{address}.{part}"] for part in parts_of(entry)}
    for bits, alone in parts.items():
        again, _ = level_parts(stored, {**entry, "precision": bits})
        if again.keys() != alone.keys() or any(not torch.equal(again[part], alone[part]) for part in alone):
            raise _defect(f"{address} ({bits} bits)")


def _stored(entry: Mapping[str, Any]) -> Entry:
    return {key: entry[key] for key in _STORED}


def _defect(name: str) -> GateError:
    return GateError(
        "{name}: what was stored is not what the folder of that precision has. This is a defect of whet; please report "
        "it with the scheme.",
        name=name,
    )
