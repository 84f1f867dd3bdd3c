"""Loads a model folder written by whet: reads its integer codes, computes the weights, fills the stock architecture.

This file and `beside_whet.py` (torch, transformers and safetensors are all they need) are copied into folders that
stock transformers cannot hold by itself. There, `AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)`
uses it; without `trust_remote_code` loading fails with an error, because the weights are in `whet-*.safetensors`.

Stored for a linear `name` of `out` rows and `in` columns, codes of b bits, groups of g columns:

- `name.weight_packed` int32 `[out, ceil(in * b / 32)]`: codes 0 … 2^b − 1, a dense little-endian bit stream per row; or
  (`"in_byte": 5`) uint8 `[out, groups * ceil(g / 5)]`: codes 0, 1 and 2, five in a byte as digits to base 3, the first
  the lowest, each group from a new byte on;
- `name.weight_scale` `[out, groups]`;
- `name.weight_zero_point` int32 `[ceil(out * b / 32), groups]` (integer zeros, packed along rows) or
  `name.weight_offset` `[out, groups]` (real zeros);
- `name.weight_parts` int32 `[ceil(out * part_bits / 32), parts]`, packed along rows: on two levels the whole numbers of
  each part of `part` columns, the scales' and then those of the offsets;
- `name.weight_shape` int64 `[2]`.

Beside rounded inputs of 8 bits codes of a symmetric grid are bytes (`"form": "bytes"`): `name.weight` int8 `[out, in]`,
and the one scale of inputs where it is stored is `name.input_scale` or `name.input_global_scale` `[1]` (`"inputs"`).

A weight is `scale * (code − zero)` or `scale * code + offset`; a symmetric grid's zero is 2^(b−1). On two levels scales
are `scale * number` and offsets `−offset * number`, numbers of a symmetric grid counted from the middle too. What codes
stand for may be a table (`values`).

A linear on floats of 8 or 4 bits (`"float"`) is stored as other formats have it, and a weight is `scale * value`:

- `e4m3`, `e5m2`: `name.weight` in that 8-bit float; `name.weight_scale` `[out, 1]`, `[1]`, or one for each block of
  `"rows"` rows and `"group"` columns;
- `e2m1`: `name.weight_packed` uint8 `[out, in / 2]`, of two values the first in the lower half; `name.weight_scale`
  `[out, groups]`, float8_e4m3fn and divided by `name.weight_global_scale` float32 `[1]` (`"scales": "e4m3"`), uint8
  exponents of 2, 127 more than they mean (`"e8m0"`), or a plain float; or `[out, 1]` and divided by 2 to the power of
  each group's number of `"shift_bits"` bits in `name.weight_parts`, packed along rows.

`whet.json`, or the `whet` entry of config.json, says for each linear how many bits, which group and zero, and in which
type it is computed: the model's (`"decode": "model"`), that of the stored scales (`"scale"`) or float32 (`"float32"`),
as the container's readers do. A linear that was only stored in fewer bytes (`"plain"`) is a plain tensor,
`name.weight`. Where a linear is not a parameter of its own, `into` says of which `parameter` it is which `rows`, which
`expert` of a stack, and whether that is `transposed`; without `bits` it is stored as it was, as `name.weight`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from .beside_whet import compute_buffers, round_inputs
from .codes_whet import NESTED, codes_of, level_parts, nested_parts, unpack
from .switch_whet import Switch, in_several, precisions_of, table_at

# FP4's values by their stored codes, as in the OCP Microscaling formats.
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
HALVES = (torch.float16, torch.bfloat16)
_OPEN = 1 << 25  # bytes read of a file before it is closed and opened again


def form_of(entry: dict) -> str:
    """Which of FORMS a linear with this table `entry` is stored in; an entry tells only what is none of the first."""
    first = "plain" if entry["decode"] == "plain" else "float" if "float" in entry else "codes"
    return entry.get("form", first)


def parts_of(entry: dict) -> set[str]:
    """What a linear with this table `entry` is stored as; nothing where it is a plain tensor."""
    return FORMS[form_of(entry)][0](entry) if "bits" in entry else set()


def decode(parts: dict[str, Tensor], entry: dict, model_dtype: torch.dtype) -> Tensor:
    """The weights `[out, in]` of one linear, in `model_dtype`, from its stored parts and its table `entry`."""
    return FORMS[form_of(entry)][1](parts, entry, model_dtype)


def _code_parts(entry: dict) -> set[str]:
    more = {"none": set(), "int": {"weight_zero_point"}, "real": {"weight_offset"}}[entry["zero"]]
    return {"weight_packed", "weight_scale", "weight_shape"} | more | ({"weight_parts"} if "part" in entry else set())


def _along(parts: dict[str, Tensor], name: str, bits: int, rows: int) -> Tensor:
    """Numbers `[rows, …]` of a part that is packed along rows, or in memory unpacked (uint8)."""
    value = parts[name]
    return value if value.dtype == torch.uint8 else unpack(value.t().contiguous(), bits, rows).t()


def scales_of(parts: dict[str, Tensor], entry: dict, dtype: torch.dtype) -> tuple[Tensor, Tensor | None, int]:
    """Scales `[rows, groups]` of codes, real zeros likewise (None where there are none), and the columns of a group."""
    rows, columns = (int(n) for n in parts["weight_shape"])
    width = entry["group"] or columns
    scale = parts["weight_scale"].to(dtype)
    offset = parts["weight_offset"].to(dtype) if entry["zero"] == "real" else None
    if "part" in entry:
        count = columns // entry["part"]
        own = torch.arange(count, device=scale.device) * entry["part"] // width
        numbers = _along(parts, "weight_parts", entry["part_bits"], rows).to(dtype)
        scale = scale[:, own] * (numbers[:, :count] - (2 ** (entry["part_bits"] - 1) if offset is None else 0))
        offset = None if offset is None else -offset[:, own] * numbers[:, count : 2 * count]
        width = entry["part"]
    return scale, offset, width


def points_of(parts: dict[str, Tensor], entry: dict) -> Tensor:
    """Whole zeros `[rows, groups]` of codes."""
    return _along(parts, "weight_zero_point", entry["bits"], int(parts["weight_shape"][0]))


def _codes(parts: dict[str, Tensor], entry: dict, model_dtype: torch.dtype) -> Tensor:
    dtype = {"scale": parts["weight_scale"].dtype, "float32": torch.float32}.get(entry["decode"], model_dtype)
    columns = int(parts["weight_shape"][1])
    codes = codes_of(parts["weight_packed"], entry, columns)
    scale, offset, width = scales_of(parts, entry, dtype)
    index = torch.arange(columns, device=codes.device) // width
    scale = scale[:, index]
    if "values" in entry:
        return (torch.tensor(entry["values"], dtype=dtype, device=codes.device)[codes.long()] * scale).to(model_dtype)
    if offset is not None:
        return (codes.to(dtype) * scale + offset[:, index]).to(model_dtype)
    if entry["zero"] == "int":
        return ((codes.to(dtype) - points_of(parts, entry).to(dtype)[:, index]) * scale).to(model_dtype)
    return ((codes.to(dtype) - 2 ** (entry["bits"] - 1)) * scale).to(model_dtype)


def _float_parts(entry: dict) -> set[str]:
    if entry["float"] in ("e4m3", "e5m2"):
        return {"weight", "weight_scale"}
    more = {"weight_global_scale"} if entry.get("scales") == "e4m3" else set()
    return {"weight_packed", "weight_scale"} | more | ({"weight_parts"} if "shift_bits" in entry else set())


def halves_of(packed: Tensor) -> Tensor:
    """Codes int32 `[rows, columns]` of bytes that hold two, the first in the lower half."""
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(1).int()


def float_scales(parts: dict[str, Tensor], entry: dict, dtype: torch.dtype | None, rows: int) -> Tensor:
    """Scales of small floats, `[rows or 1 or bands, groups or 1]`, in `dtype` (None: their own)."""
    scale = parts["weight_scale"]
    if scale.dtype == torch.uint8:  # powers of two, by the bits of a float32
        scale = (scale.int() << 23).view(torch.float32)
    scale = scale.to(dtype or scale.dtype)
    if "weight_global_scale" in parts:
        scale = scale / parts["weight_global_scale"].to(scale.dtype)
    if "shift_bits" in entry:
        shifts = _along(parts, "weight_parts", entry["shift_bits"], rows).int()
        scale = scale * ((127 - shifts) << 23).view(torch.float32).to(scale.dtype)
    return scale.reshape(-1, scale.shape[-1])


def _small_floats(parts: dict[str, Tensor], entry: dict, model_dtype: torch.dtype) -> Tensor:
    dtype = {"scale": None, "float32": torch.float32}.get(entry["decode"], model_dtype)
    scale = float_scales(parts, entry, dtype, len(parts["weight" if "weight" in parts else "weight_packed"]))
    if "weight" in parts:
        values = parts["weight"].to(scale.dtype)
    else:
        codes = halves_of(parts["weight_packed"])
        values = torch.tensor(E2M1, dtype=scale.dtype, device=codes.device)[codes]
    rows, columns = values.shape
    row = torch.arange(rows, device=values.device) // (entry.get("rows", 1) or rows)
    column = torch.arange(columns, device=values.device) // (entry["group"] or columns)
    scale = scale[row] if len(scale) > 1 else scale
    return (values * (scale[:, column] if scale.shape[1] > 1 else scale)).to(model_dtype)


def _byte_parts(entry: dict) -> set[str]:
    return {"weight", "weight_scale"}


# How linears are stored: of each form, which parts one with a table entry has, and the weights that they are. A grid
# that is stored in none of them has a form of its own here, which its entries name (`"form"`).
FORMS = {
    "plain": (lambda entry: set(), lambda parts, entry, model_dtype: parts["weight"].to(model_dtype)),
    "codes": (_code_parts, _codes),
    "float": (_float_parts, _small_floats),
    "bytes": (_byte_parts, _small_floats),
    NESTED: (nested_parts, lambda parts, entry, model_dtype: _codes(*level_parts(parts, entry), model_dtype)),
}


def stored(
    folder: Path, files: list[str], table: dict[str, dict], device: str
) -> Iterator[tuple[str, Tensor | dict[str, Tensor]]]:
    """Every tensor of `files` by its stored name; of codes all parts of a linear together, by the name of its weight.

    What was read counts as memory in use until its file is closed, so it is closed now and then."""
    waiting: dict[str, dict[str, Tensor]] = {}
    for file in files:
        with safe_open(folder / file, framework="pt", device=device) as shard:
            keys = list(shard.keys())
        taken = _OPEN
        for key in keys:
            if taken >= _OPEN:
                shard, taken = safe_open(folder / file, framework="pt", device=device), 0
            address, _, part = key.rpartition(".")
            value = shard.get_tensor(key)
            taken += value.nbytes
            wanted = parts_of(table.get(address, {}))
            if part not in wanted:
                yield key, value
                continue
            waiting.setdefault(address, {})[part] = value
            if len(waiting[address]) == len(wanted):
                yield f"{address}.weight", waiting.pop(address)


def converted(
    model: PreTrainedModel, folder: Path, files: list[str], table: dict[str, dict], device: str
) -> PreTrainedModel:
    """The model with transformers' own conversions of stored names, for families that whet has no table of."""
    given = {
        key: value if isinstance(value, Tensor) else decode(value, table[key.removesuffix(".weight")], model.dtype)
        for key, value in stored(folder, files, table, device)
    }
    made = type(model).from_pretrained(None, config=model.config, state_dict=given, dtype=model.dtype)
    return made.eval().to(device)  # type: ignore[arg-type]


def _wide(model: PreTrainedModel) -> list[re.Pattern[str]]:
    """What transformers holds in float32 in a model of 16 bits, by name."""
    wide = [*((model.dtype in HALVES and model._keep_in_fp32_modules_strict) or ())]
    wide += (model.dtype == torch.float16 and model._keep_in_fp32_modules) or ()
    return [re.compile(re.escape(one).replace(r"\*", ".*")) for one in wide]


def fill(
    model: PreTrainedModel,
    folder: Path,
    files: list[str],
    table: dict[str, dict],
    device: str,
    names: dict[str, str] | None = None,
    packing: Any = None,
    several: bool = False,
) -> list[str]:
    """Give every parameter of `model` (built on the meta device) its value; returns what the files did not hold.

    names: what the model calls tensors that are stored under another name. Tensors that the architecture has no place
    for (a vision tower, frequencies that are computed today) are left alone. packing: a `Packing` of packing_whet.py.
    several: only what is stored in several precisions, of a model that has the rest or is to be without it.
    """
    dtype = model.dtype
    only = in_several(table, names or {}) if several else set()
    written: dict[str, int] = {}
    known = {name for name, _ in (*model.named_parameters(remove_duplicate=False), *model.named_buffers())}

    patterns = _wide(model)

    def kept(name: str, old: Tensor | None) -> torch.dtype:
        if any(pattern.search(name) for pattern in patterns):
            return torch.float32
        return old.dtype if old is not None and old.is_floating_point() else dtype

    def put(name: str, value: Tensor, place: dict) -> None:
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if leaf not in module._parameters:
            module._buffers[leaf] = value.to(kept(name, module._buffers[leaf])) if value.is_floating_point() else value
            return
        old = module._parameters[leaf]
        if value.is_floating_point():
            value = value.to(kept(name, old))
        if not place:
            module._parameters[leaf] = torch.nn.Parameter(value, requires_grad=False)
            return
        whole = module._parameters[leaf]
        assert whole is not None
        if whole.is_meta:
            whole = torch.nn.Parameter(torch.empty(whole.shape, dtype=value.dtype, device=device), requires_grad=False)
            module._parameters[leaf] = whole
        part = whole.data if place.get("expert") is None else whole.data[place["expert"]]
        part = part.t() if place.get("transposed") else part
        start, end = place.get("rows") or (0, part.shape[0])
        part[start:end] = value
        written[name] = written.get(name, 0) + value.numel()

    # before the weights are here, because those of the same module would be made anew
    compute_buffers(model, device)
    scales: dict[str, Any] = {}
    if packing is not None:
        model.tie_weights()
        packing.look(model)
    for key, value in stored(folder, files, table, device):
        address, _, part = key.rpartition(".")
        if part in ("input_scale", "input_global_scale"):
            scales[key] = value
            continue
        entry = table.get(address, {}) if part == "weight" else {}
        place = entry.get("into") or {}
        name = place.get("parameter") or (names or {}).get(key, key)
        if name not in known or (several and name not in only):
            continue
        if packing is not None:
            value = packing.add(name, place, value, entry, dtype)
        if value is not None:
            put(name, value if isinstance(value, Tensor) else decode(value, entry, dtype), place)
    model.tie_weights()
    if packing is not None:
        packing.finish(model)
    if not several:
        round_inputs(model, table, scales)
    whole = {name: parameter for name, parameter in model.named_parameters() if not several or name in only}
    partly = [name for name, count in written.items() if name in whole and count < whole[name].numel()]
    return [n for n, p in whole.items() if p.is_meta] + partly


def _number(entry: dict) -> dict | float:
    """Infinities and what is no number, as transformers writes them into config.json."""
    return float(entry["__float__"]) if entry.keys() == {"__float__"} else entry


class WhetForCausalLM(PreTrainedModel):
    """Stands in for the stock class: `from_pretrained` returns the stock architecture with the weights computed."""

    @classmethod
    def from_pretrained(  # type: ignore[no-untyped-def,override]
        cls,
        folder,
        *args,
        dtype=None,
        torch_dtype=None,
        device_map=None,
        fast=False,
        packed=False,
        precision=None,
        **kwargs,
    ):
        """The model of a local folder (or hub name) in evaluation mode; `dtype` None takes the one in config.json.

        fast: linears stay packed where PyTorch has a kernel for their codes, and compute in bfloat16, as the model does
        unless `dtype` says otherwise. packed: those without a kernel too; they are decoded whenever they are used.
        precision: of a folder of several the bits to begin with, the most unless given; `model.set_precision(4)` then
        changes it.
        """
        path = Path(folder)
        if not path.is_dir():
            from huggingface_hub import snapshot_download

            path = Path(snapshot_download(str(folder), revision=kwargs.get("revision")))
        settings = json.loads((path / "config.json").read_text(encoding="utf-8"), object_hook=_number)
        table = settings.pop("whet")
        settings.pop("auto_map", None)
        stock = AutoConfig.for_model(**settings)
        dtype = dtype or torch_dtype or ("bfloat16" if fast or packed else "auto")
        if dtype == "auto":
            dtype = stock.dtype or torch.float32
        if isinstance(dtype, str):
            dtype = getattr(torch, dtype)
        device = (device_map or {}).get("", "cpu") if isinstance(device_map, dict) else device_map or "cpu"
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        names = settings.get("architectures") or []
        kind = getattr(transformers, names[0], None) if names else None

        def build() -> PreTrainedModel:
            with torch.device("meta"):
                if kind is None:
                    return transformers.AutoModelForCausalLM.from_config(stock, dtype=dtype)
                return kind._from_config(stock, dtype=dtype)

        model = build()
        index = json.loads((path / "whet.safetensors.index.json").read_text(encoding="utf-8"))
        files = sorted(set(index["weight_map"].values()))
        if any(Path(file).name != file for file in files):
            raise ValueError(f"{path}: the index names a file outside the folder")
        linears = table_at(table["linears"], precision)
        if table.get("convert"):
            return converted(model, path, files, linears, str(device))
        packing = None
        if fast or packed:
            from .packing_whet import Packing

            packing = Packing(at_use=packed, warns=True)
        names = table.get("names")
        missing = fill(model, path, files, linears, str(device), names, packing)
        if missing:
            raise ValueError(f"{path}: no file holds {', '.join(missing[:3])}; the folder is incomplete")
        if precisions_of(linears):
            others = None if packing is None else lambda: type(packing)(at_use=packed)
            model.set_precision = Switch(  # type: ignore[assignment]
                model,
                linears,
                precision,
                lambda one, at, how: fill(one, path, files, at, str(device), names, how, several=True),
                build,
                others,
            )
        return model.eval()
