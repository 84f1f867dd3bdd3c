"""A lighter folder written in another tool's layout, tensor by tensor, and proved: read back by the layout's own
formula, every weight is bit for bit what the folder's definition says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from whet.anatomy import Anatomy, anatomy
from whet.checkpoint import Checkpoint, disk_errors, write_json, write_tensors
from whet.checkpoint.beside import is_read
from whet.checkpoint.modeling_whet import codes_of, decode, form_of, parts_of, unpack
from whet.checkpoint.table import check_stored
from whet.errors import GateError, UsageError
from whet.events import OnEvent, Stage, note_event
from whet.formats.graph_export import must_be_free
from whet.formats.graphs.write import stock
from whet.formats.layouts import PACKED, Codes, PackedLayout
from whet.formats.unproved import unproved
from whet.messages import Message, with_or

_BEYOND = {"values", "part", "in_byte", "inputs", "into"}  # in entries of what no layout holds
_WEIGHTS, _ANEW = (".safetensors", ".safetensors.index.json"), ("whet.json", "config.json")
_HALF = torch.float16


@dataclass(frozen=True)
class LayoutPlan:
    """What is written. linears: bits and group of every coded linear, by its name. below: GPTQ's zeros are stored as
    the number below them, as its first version has them."""

    checkpoint: Checkpoint
    layout: PackedLayout
    table: Mapping[str, Mapping[str, Any]]
    shapes: Mapping[str, tuple[int, ...]]
    linears: Mapping[str, tuple[int, int]]
    below: bool

    def codes(self, address: str) -> Codes:
        """The codes of a linear, as they are stored."""
        entry, (rows, columns) = dict(self.table[address]), self.shapes[f"{address}.weight"]
        read = self.checkpoint.read
        codes = codes_of(read(f"{address}.weight_packed"), entry, columns)
        zero = offset = None
        if entry["zero"] == "int":
            points = read(f"{address}.weight_zero_point").t().contiguous()
            zero = unpack(points, entry["bits"], rows).t().contiguous()
        elif entry["zero"] == "real":
            offset = read(f"{address}.weight_offset")
        return Codes(entry["bits"], entry["group"] or 0, codes, read(f"{address}.weight_scale"), zero, offset)

    def values(self, address: str) -> torch.Tensor:
        """The weights in float32, by the one definition."""
        entry = {**self.table[address], "decode": "float32"}
        parts = {part: self.checkpoint.read(f"{address}.{part}") for part in parts_of(entry)}
        return decode(parts, entry, torch.float32)

    @property
    def nbytes(self) -> int:
        """About how many bytes are written."""
        return self.checkpoint.nbytes


def export_layout(folder: Path, to: str, out: Path, kind: str | None, text: Any, on_event: OnEvent) -> dict[str, Any]:
    """`folder` in the layout `to` in the new folder `out`; what `export` returns of it. Raises UsageError before
    anything is written for what the layout does not hold, and GateError, leaving nothing, where a weight is another."""
    if kind is not None:
        raise UsageError("type is of originals: a lighter folder has its types already. Leave --type out.")
    if text is not None:
        raise UsageError(
            "text is what a file is run on, and no loader of {layout} is run here. Leave it out.", layout=to
        )
    plan = plan_layout(folder, PACKED[to])
    must_be_free(out, plan.nbytes)
    notes = list(_notes(plan))
    with unproved(out) as place:
        sizes = _write(plan, place, on_event)
        with disk_errors(out):
            place.rename(out)
    for note in notes:
        on_event(note_event(note))
    kinds = [f"{bits} bits" + (f", g{group}" if group else "") for bits, group in plan.linears.values()]
    return {
        "out": str(out),
        "architecture": str(plan.checkpoint.config.get("model_type")),
        "types": {one: kinds.count(one) for one in sorted(set(kinds))},
        "bytes": {"planned": plan.nbytes, "tensors": sizes, "file": sum(f.stat().st_size for f in out.iterdir())},
        "check": {"weights": "equal, bit for bit", "loader": Message("{layout} was not run here", layout=to)},
        "notes": notes,
    }


def plan_layout(folder: Path, layout: PackedLayout) -> LayoutPlan:
    """What the folder will be in `layout`. Raises UsageError that names what the layout does not hold, and why."""
    checkpoint = Checkpoint(folder)
    told = checkpoint.whet
    if told is None or told["container"] not in ("compressed-tensors", "whet") or "gguf" in told or "graph" in told:
        raise UsageError(
            "{folder} holds no codes for {layout} to take over: that is written of a lighter folder (whet compress "
            "--scheme int4s-g64), and not of an original or a runtime's own file.",
            folder=folder,
            layout=layout.name,
        )
    if "adapter" in told:
        raise UsageError(
            "{folder} has an adapter, which {target} does not run beside a model. Merge it first (whet merge).",
            folder=folder,
            target=layout.name,
        )
    table = (told.get("reading") or told)["linears"]
    shapes = check_stored(checkpoint, table)
    coded = {address: entry for address, entry in table.items() if "bits" in entry}
    for address, entry in coded.items():
        if (why := _lacking(layout, entry, shapes[f"{address}.weight"])) is not None:
            raise _refused(folder, layout, address, entry.get("grid") or "", why)
    parts = anatomy(stock(checkpoint.config), dict(shapes), str(folder))
    _check_whole(folder, layout, parts, coded)
    linears = {address: (entry["bits"], entry["group"] or 0) for address, entry in coded.items()}
    plan = LayoutPlan(checkpoint, layout, table, shapes, linears, below=False)
    lowest = min((int(plan.codes(a).zeros.min()) for a in linears), default=1) if layout.name == "gptq" else 0
    return LayoutPlan(checkpoint, layout, table, shapes, linears, below=layout.name == "gptq" and lowest > 0)


def _refused(folder: Path, layout: PackedLayout, address: str, grid: str, why: Message) -> UsageError:
    return UsageError(
        "{folder}: {address} ({grid}): {layout} {why}. Rounding again would change the weights that were judged: "
        "compress the original with a scheme that it holds, such as {scheme}.",
        folder=folder,
        address=address,
        grid=grid,
        layout=layout.name,
        why=why,
        scheme="int4s-g64",
    )


def _lacking(layout: PackedLayout, entry: Mapping[str, Any], shape: tuple[int, ...]) -> Message | None:
    """Why a linear is not held; None where it is."""
    rows, columns = shape
    group = entry["group"] or 0
    if "inputs" in entry:
        return Message("says nothing of inputs, which this folder rounds too")
    if "into" in entry:
        return Message("holds whole linears alone, and this one is a part of a fused, stacked or transposed tensor")
    if form_of(dict(entry)) != "codes" or _BEYOND & entry.keys():
        return Message("holds integers alone, a scale and a zero for each group")
    if entry["bits"] not in layout.bits:
        return Message("has {allowed} bits", allowed=with_or(layout.bits))
    if group not in layout.groups or (group and columns % group):
        some = with_or([size for size in layout.groups if size])
        return Message("has groups of {allowed} that divide the row of {width}", allowed=some, width=columns)
    if entry["zero"] not in layout.zeros:
        if layout.name == "mlx":
            return Message(
                "adds a number to scale and code, and a whole zero times its scale is none that 16 bits hold"
            )
        return Message("holds no real zeros")
    step = 32 // entry["bits"] if layout.words else 1
    if rows % step or columns % step or (columns * entry["bits"]) % 32:
        return Message("packs words of 32 bits, which {rows} x {width} does not fill", rows=rows, width=columns)
    return None


def _check_whole(folder: Path, layout: PackedLayout, parts: Anatomy, coded: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises UsageError where a layout of one setting is given several, or some linears of the blocks without codes."""
    if layout.mixed:
        return
    tables = {parts.embedding.address} | ({parts.head.address} if parts.head is not None else set())
    for address in tables & coded.keys():
        why = Message("leaves embedding and head as they are")
        raise _refused(folder, layout, address, coded[address].get("grid") or "", why)
    first = next(iter(coded.values()))
    for linear in parts.linears():
        entry = coded.get(linear.address)
        if entry is None or any(entry[key] != first[key] for key in ("bits", "group", "zero")):
            why = Message("has one scheme for all linears of the blocks, here {grid}", grid=first.get("grid") or "")
            raise _refused(folder, layout, linear.address, "keep" if entry is None else entry.get("grid") or "", why)


def _notes(plan: LayoutPlan) -> Iterator[Message]:
    yield Message(
        "every weight was read back by the layout's formula, bit for bit; a loader of {layout} was not run here",
        layout=plan.layout.name,
    )
    if plan.layout.name == "gptq" and not plan.below:
        yield Message(
            "some zeros are 0, which the first version of the layout cannot tell: written as gptq_v2, which GPTQModel "
            "and vLLM read"
        )
    if plan.checkpoint.kv:
        yield Message("scales of keys and values are left out: {layout} has none", layout=plan.layout.name)


def _write(plan: LayoutPlan, place: Path, on_event: OnEvent) -> int:
    """Write the folder `place`, a file for each of the source's, and prove it; returns the bytes of its tensors."""
    source = plan.checkpoint
    for file in sorted(source.path.iterdir()):
        if file.is_file() and is_read(file.name) and not file.name.endswith((*_WEIGHTS, *_ANEW)):
            shutil.copyfile(file, place / file.name)
    symmetric = all(plan.table[address]["zero"] == "none" for address in plan.linears)
    write_json(
        place / "config.json",
        stock(source.config) | plan.layout.settings(plan.linears, symmetric, plan.below),
    )
    files = sorted({info.file for info in source.tensors.values()})
    stage, mapping, total = Stage(on_event, "finish", len(files)), dict[str, str](), 0
    parts = {f"{a}.{part}" for a in plan.linears for part in parts_of(dict(plan.table[a]))}
    for number, file in enumerate(files, 1):
        name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        tensors: dict[str, torch.Tensor] = {}
        for stored, info in source.tensors.items():
            address, _, part = stored.rpartition(".")
            if info.file == file and part == "weight_packed" and address in plan.linears:
                tensors |= {f"{address}.{one}": value for one, value in _laid_out(plan, address).items()}
            elif info.file == file and stored not in parts:
                tensors[stored] = source.read(stored)
        write_tensors(place / name, tensors)
        mapping |= dict.fromkeys(tensors, name)
        total += sum(value.nbytes for value in tensors.values())
        stage.step()
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(mapping.items()))}
    write_json(place / "model.safetensors.index.json", index)
    return total


def _laid_out(plan: LayoutPlan, address: str) -> dict[str, torch.Tensor]:
    """The tensors of a linear, proved. Raises UsageError for scales that float16 does not hold."""
    linear, layout = plan.codes(address), plan.layout
    if layout.halves and not torch.equal(linear.scale.to(_HALF).float(), linear.scale.float()):
        why = Message("has float16 scales, and some of these are too small or too large for it")
        raise _refused(plan.checkpoint.path, layout, address, plan.table[address].get("grid") or "", why)
    tensors = layout.tensors(linear, plan.below)
    bits, group = plan.linears[address]
    again = layout.read(tensors, bits, group or linear.codes.shape[1], plan.below)
    if not torch.equal(again, plan.values(address)):
        raise GateError(
            "{path}: tensor {name} ({type}) is not what the folder holds. This is a defect of whet; please report "
            "it with the family and the scheme.",
            path=plan.checkpoint.path,
            name=address,
            type=layout.name,
        )
    return tensors
