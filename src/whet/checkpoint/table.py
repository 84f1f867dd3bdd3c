"""The table in whet.json that says how linears are stored, checked before anything is computed from it: the entries by
themselves, the tensors that are stored by what the entries say, and both by the model that they go into."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from whet.checkpoint.codes_whet import NESTED, codes_of, levels_of
from whet.checkpoint.modeling_whet import FORMS, form_of, parts_of
from whet.errors import UsageError
from whet.messages import Message

if TYPE_CHECKING:
    from whet.checkpoint.folder import Checkpoint

Table = Mapping[str, Mapping[str, Any]]
Shape = tuple[int, ...]
_FP8 = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def _whole(least: int, most: int = 1 << 31) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _one_of(*known: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in known


def _place(value: Any) -> bool:
    """Whether `value` says where in a parameter of the model a linear is."""
    if not isinstance(value, dict) or not isinstance(value.get("parameter"), str):
        return False
    rows, count = value.get("rows"), _whole(0)
    ordered = rows is None or (
        isinstance(rows, list) and len(rows) == 2 and all(map(count, rows)) and rows[0] < rows[1]
    )
    expert, transposed = value.get("expert"), value.get("transposed", False)
    return ordered and (expert is None or count(expert)) and isinstance(transposed, bool)


def _inputs(value: Any) -> bool:
    """Whether `value` says how inputs are rounded."""
    known = {"values": ("int", "e4m3", "e2m1"), "per": ("token", "tensor", "group")}
    return (
        isinstance(value, dict)
        and _whole(2, 8)(value.get("bits"))
        and all(_one_of(*names)(value.get(key)) for key, names in known.items())
        and ((value["per"] == "group") == ("group" in value) and _whole(1)(value.get("group", 1)))
    )


def _level(value: Any) -> bool:
    """Whether `value` is the entry of a linear at one of its precisions."""
    known = {"bits": _whole(2, 8), "group": _whole(0), "zero": _one_of("none", "int", "real"), "decode": _DECODE}
    return isinstance(value, dict) and value.keys() == known.keys() and all(known[k](v) for k, v in value.items())


_DECODE = _one_of("model", "scale", "float32", "plain")
_MAY: dict[str, Callable[[Any], bool]] = {
    "bits": _whole(1, 16),
    "group": lambda value: value is None or _whole(0)(value),  # 0: a whole row
    "zero": _one_of("none", "int", "real"),
    "decode": _DECODE,
    "values": lambda value: isinstance(value, list) and 0 < len(value) <= 256 and all(map(_number, value)),
    "part": _whole(1),
    "part_bits": _whole(1, 8),
    "in_byte": _whole(5, 5),
    "float": _one_of(*_FP8, "e2m1"),
    "rows": _whole(0),
    "scales": _one_of("", "e4m3", "e8m0"),
    "shift_bits": _whole(1, 8),
    "form": lambda value: isinstance(value, str) and value in FORMS,
    "into": _place,
    "inputs": _inputs,
    "under": lambda value: isinstance(value, list) and bool(value) and all(map(_level, value)),
    "grid": lambda value: isinstance(value, str),
    "error": _number,
    "unrepaired": _number,
    "kl": _number,
}
_NEEDS = {"part": ("part_bits",), "in_byte": ("group",)}


def checked_table(table: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`table` as it is. Raises ValueError for an entry that says what cannot be, by its address and key."""
    for address, entry in table.items():
        for key, value in entry.items():
            if key in _MAY and not _MAY[key](value):
                raise ValueError(
                    Message("{address}: {key} is {value}", address=address, key=key, value=repr(value)[:60])
                )
        if "bits" not in entry:
            continue
        wanted = ["group", "zero", "decode", *(more for key in _NEEDS if key in entry for more in _NEEDS[key])]
        if (missing := next((key for key in wanted if key not in entry), None)) is not None:
            raise ValueError(Message("{address}: {key} is missing", address=address, key=missing))
        if "in_byte" in entry and (not entry["group"] or entry["bits"] != 2):
            raise ValueError(Message("{address}: {key} is {value}", address=address, key="in_byte", value=5))
        if entry.get("form") == NESTED:
            every = [entry["bits"], *(one["bits"] for one in entry.get("under", ()))]
            if len(every) < 2 or every != sorted(set(every), reverse=True) or every[0] > 8:
                raise ValueError(Message("{address}: {key} is {value}", address=address, key="under", value=every[1:]))
    return table


def scale_part(inputs: Mapping[str, Any] | None) -> str | None:
    """The stored tensor that holds the scale of rounded inputs, by how they are rounded; None where none is stored."""
    if inputs is None or inputs["per"] == "token":
        return None
    if inputs["per"] == "tensor":
        return "input_scale"
    return "input_global_scale" if inputs["group"] == 16 else None


def check_stored(checkpoint: Checkpoint, table: Table) -> dict[str, Shape]:
    """The shape of every weight that the files hold, decoded, by its stored name.

    Raises UsageError for a linear whose stored tensors are not what its entry says, by name, type and shape.
    """
    shapes: dict[str, Shape] = {}
    for name, info in checkpoint.tensors.items():
        address, _, part = name.rpartition(".")
        if part not in parts_of(dict(table.get(address, {}))):
            shapes[name] = info.shape
    for address, entry in table.items():
        if (stored := scale_part(entry.get("inputs"))) is not None:
            _Parts(checkpoint, address).wants(stored, _FLOATS, (1,))
        if "bits" in entry and form_of(dict(entry)) in _CHECKS:
            shape = _CHECKS[form_of(dict(entry))](checkpoint, address, entry)
            if shape is not None:
                shapes[f"{address}.weight"] = shape
    return shapes


def check_fitting(
    checkpoint: Checkpoint, table: Table, given: Mapping[str, Shape], model: torch.nn.Module, names: Mapping[str, str]
) -> None:
    """Raises UsageError where a weight of `given` does not have the shape of what it goes into in `model`."""
    places = {**dict(model.named_buffers()), **dict(model.named_parameters(remove_duplicate=False))}
    for name, shape in given.items():
        address, _, part = name.rpartition(".")
        into = (table.get(address, {}).get("into") or {}) if part == "weight" else {}
        place = places.get(into.get("parameter") or names.get(name, name))
        if place is None:
            continue  # what the architecture has no place for is left alone
        if (wanted := _part(tuple(place.shape), into)) != shape:
            raise UsageError(
                "{folder}: {name} has shape {shape}, and the model that config.json tells of takes {wanted} there. "
                "Download the folder again, or make it anew.",
                folder=checkpoint.path,
                name=name,
                shape=list(shape),
                wanted=Message("nothing") if wanted is None else list(wanted),
            )


def _part(shape: Shape, into: Mapping[str, Any]) -> Shape | None:
    """The shape of the part of a parameter that a linear goes into; None where it has no such part."""
    if into.get("expert") is not None:
        if len(shape) != 3 or into["expert"] >= shape[0]:
            return None
        shape = shape[1:]
    shape = shape[::-1] if into.get("transposed") else shape
    start, end = into.get("rows") or (0, shape[0] if shape else 0)
    return (end - start, *shape[1:]) if shape and end <= shape[0] else None if into.get("rows") else shape


class _Parts:
    """The stored tensors of one linear, each checked as it is asked for."""

    def __init__(self, checkpoint: Checkpoint, address: str) -> None:
        self.checkpoint, self.address = checkpoint, address

    def unfit(self, part: str, template: str, /, **values: Any) -> UsageError:
        return UsageError(
            "{folder}: {name} {fault}. Weights and whet.json are not of one folder, or a file is damaged: download the "
            "folder again, or make it anew.",
            folder=self.checkpoint.path,
            name=f"{self.address}.{part}",
            fault=Message(template, **values),
        )

    def wants(self, part: str, dtypes: tuple[torch.dtype, ...], *shapes: Shape) -> Shape:
        """The shape of a part, which has one of `dtypes` and one of `shapes`."""
        info = self.checkpoint.tensors.get(f"{self.address}.{part}")
        if info is None:
            raise self.unfit(part, "is missing, which whet.json says is stored")
        if info.dtype not in dtypes or (shapes and info.shape not in shapes):
            raise self.unfit(
                part,
                "is {dtype} of shape {shape}, and whet.json tells of {wanted}",
                dtype=str(info.dtype).removeprefix("torch."),
                shape=list(info.shape),
                wanted=f"{str(dtypes[0]).removeprefix('torch.')} {list(shapes[0]) if shapes else ''}".strip(),
            )
        return info.shape

    def read(self, part: str) -> Tensor:
        return self.checkpoint.read(f"{self.address}.{part}")


def _plain(checkpoint: Checkpoint, address: str, entry: Mapping[str, Any]) -> Shape:
    return _Parts(checkpoint, address).wants("weight", _FLOATS)


def _codes(checkpoint: Checkpoint, address: str, entry: Mapping[str, Any]) -> Shape:
    parts, bits = _Parts(checkpoint, address), entry["bits"]
    parts.wants("weight_shape", (torch.int64,), (2,))
    rows, columns = parts.read("weight_shape").tolist()
    if min(rows, columns) < 1 or max(rows, columns) > 1 << 31:
        raise parts.unfit("weight_shape", "says {shape}, which no weight has", shape=[rows, columns])
    group = entry["group"] or columns
    groups = -(-columns // group)
    if "in_byte" in entry:
        parts.wants("weight_packed", (torch.uint8,), (rows, groups * -(-group // 5)))
    else:
        parts.wants("weight_packed", (torch.int32,), (rows, -(-columns * bits // 32)))
    parts.wants("weight_scale", _FLOATS, (rows, groups))
    if entry["zero"] == "real":
        parts.wants("weight_offset", _FLOATS, (rows, groups))
    elif entry["zero"] == "int":
        parts.wants("weight_zero_point", (torch.int32,), (-(-rows * bits // 32), groups))
    if "part" in entry:
        count = -(-columns // entry["part"]) * (2 if entry["zero"] == "real" else 1)
        parts.wants("weight_parts", (torch.int32,), (-(-rows * entry["part_bits"] // 32), count))
    if "values" in entry and "in_byte" not in entry and len(entry["values"]) < 1 << bits:
        largest = int(codes_of(parts.read("weight_packed"), dict(entry), columns).max())
        if largest >= len(entry["values"]):
            raise parts.unfit("weight_packed", "has code {code}, which whet.json gives no value", code=largest)
    return rows, columns


def _nested(checkpoint: Checkpoint, address: str, entry: Mapping[str, Any]) -> Shape:
    every = levels_of(dict(entry))
    *finer, coarsest = every.values()
    shape = _codes(checkpoint, address, coarsest)
    parts = _Parts(checkpoint, address)
    for one in finer:
        bits, groups = one["bits"], -(-shape[1] // (one["group"] or shape[1]))
        parts.wants(f"weight_scale_{bits}", _FLOATS, (shape[0], groups))
        if one["zero"] == "real":
            parts.wants(f"weight_offset_{bits}", _FLOATS, (shape[0], groups))
        elif one["zero"] == "int":
            parts.wants(f"weight_zero_point_{bits}", (torch.int32,), (-(-shape[0] * bits // 32), groups))
        more = parts.wants(f"weight_more_{bits}", (torch.uint8,))
        if len(more) != 1:
            raise parts.unfit(
                f"weight_more_{bits}", "has shape {shape}, and codes are a row of bytes", shape=list(more)
            )
    return shape


def _bytes(checkpoint: Checkpoint, address: str, entry: Mapping[str, Any]) -> Shape:
    parts = _Parts(checkpoint, address)
    shape = parts.wants("weight", (torch.int8,))
    if len(shape) != 2 or 0 in shape:
        raise parts.unfit("weight", "has shape {shape}, and a weight has rows and columns", shape=list(shape))
    parts.wants("weight_scale", _FLOATS, (shape[0], -(-shape[1] // (entry["group"] or shape[1]))))
    return shape


def _floats(checkpoint: Checkpoint, address: str, entry: Mapping[str, Any]) -> Shape:
    parts = _Parts(checkpoint, address)
    if entry["float"] in _FP8:
        shape = parts.wants("weight", (_FP8[entry["float"]],))
        columns = shape[-1] if shape else 0
    else:
        shape = parts.wants("weight_packed", (torch.uint8,))
        columns = 2 * shape[-1] if shape else 0
    if len(shape) != 2 or 0 in shape:
        raise parts.unfit("weight", "has shape {shape}, and a weight has rows and columns", shape=list(shape))
    rows = shape[0]
    groups, bands = -(-columns // (entry["group"] or columns)), -(-rows // (entry.get("rows", 1) or rows))
    kinds = {"e8m0": (torch.uint8,), "e4m3": (torch.float8_e4m3fn,)}.get(entry.get("scales", ""), _FLOATS)
    parts.wants("weight_scale", kinds, (bands, groups), (bands, 1), (1,))
    if entry.get("scales") == "e4m3":
        parts.wants("weight_global_scale", _FLOATS, (1,))
    if "shift_bits" in entry:
        parts.wants("weight_parts", (torch.int32,), (-(-rows * entry["shift_bits"] // 32), groups))
    return rows, columns


# Forms that a grid of another's brings along are checked by its own decoder.
_CHECKS = {"plain": _plain, "codes": _codes, "float": _floats, "bytes": _bytes, NESTED: _nested}
