"""Loads a model folder written by whet: reads its integer codes, computes the weights, fills the stock architecture.

This file is whole by itself (torch, transformers and safetensors are all it needs) and is copied into folders that
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

import torch
import transformers
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

# FP4's values by their stored codes, as in the OCP Microscaling formats.
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
HALVES = (torch.float16, torch.bfloat16)


def form_of(entry: dict) -> str:
    """Which of FORMS a linear with this table `entry` is stored in; an entry tells only what is none of the first."""
    first = "plain" if entry["decode"] == "plain" else "float" if "float" in entry else "codes"
    return entry.get("form", first)


def parts_of(entry: dict) -> set[str]:
    """What a linear with this table `entry` is stored as; nothing where it is a plain tensor."""
    return FORMS[form_of(entry)][0](entry) if "bits" in entry else set()


def unpack(words: Tensor, bits: int, columns: int) -> Tensor:
    """Codes uint8 `[rows, columns]` from their bit stream, int32 `[rows, ceil(columns * bits / 32)]`."""
    rows = words.shape[0]
    step = max(1, (1 << 22) // max(columns, 1))  # the working copy takes eight bytes a code
    if rows > step:
        return torch.cat([unpack(words[i : i + step], bits, columns) for i in range(0, rows, step)])
    count = -(-columns // 32)
    padded = torch.zeros(rows, count * bits, dtype=torch.int64, device=words.device)
    padded[:, : words.shape[1]] = words.to(torch.int64) & 0xFFFFFFFF
    padded = padded.view(rows, count, bits)
    codes = torch.empty(rows, count, 32, dtype=torch.uint8, device=words.device)
    for i in range(32):
        word, shift = divmod(i * bits, 32)
        value = padded[:, :, word] >> shift
        if shift + bits > 32:
            value = value | (padded[:, :, word + 1] << (32 - shift))
        codes[:, :, i] = (value & (2**bits - 1)).to(torch.uint8)
    return codes.view(rows, count * 32)[:, :columns]


def digit_places(columns: int, group: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The byte of a row in which each column's digit is, and the power of 3 there, where five digits make a byte."""
    column = torch.arange(columns, device=device)
    inside = column % group
    return column // group * -(-group // 5) + inside // 5, inside % 5


def codes_of(packed: Tensor, entry: dict, columns: int) -> Tensor:
    """Codes uint8 `[rows, columns]` from `weight_packed` of a linear with this table `entry`."""
    if "in_byte" not in entry:
        return unpack(packed, entry["bits"], columns)
    place, digit = digit_places(columns, entry["group"], packed.device)
    powers = torch.tensor([1, 3, 9, 27, 81], dtype=torch.uint8, device=packed.device)
    return packed[:, place].div_(powers[digit], rounding_mode="floor").remainder_(3)


def decode(parts: dict[str, Tensor], entry: dict, model_dtype: torch.dtype) -> Tensor:
    """The weights `[out, in]` of one linear, in `model_dtype`, from its stored parts and its table `entry`."""
    return FORMS[form_of(entry)][1](parts, entry, model_dtype)


def _plain_parts(entry: dict) -> set[str]:
    return set()


def _plain(parts: dict[str, Tensor], entry: dict, model_dtype: torch.dtype) -> Tensor:
    return parts["weight"].to(model_dtype)


def _code_parts(entry: dict) -> set[str]:
    more = {"none": set(), "int": {"weight_zero_point"}, "real": {"weight_offset"}}[entry["zero"]]
    return {"weight_packed", "weight_scale", "weight_shape"} | more | ({"weight_parts"} if "part" in entry else set())


def _codes(parts: dict[str, Tensor], entry: dict, model_dtype: torch.dtype) -> Tensor:
    bits, group, zero = entry["bits"], entry["group"], entry["zero"]
    computed = {"scale": parts["weight_scale"].dtype, "float32": torch.float32}
    dtype = computed.get(entry["decode"], model_dtype)
    rows, columns = (int(n) for n in parts["weight_shape"])
    codes = codes_of(parts["weight_packed"], entry, columns)
    index = torch.arange(columns, device=codes.device) // (group or columns)
    scale = parts["weight_scale"].to(dtype)[:, index]
    offset = parts["weight_offset"].to(dtype)[:, index] if zero == "real" else None
    if "part" in entry:
        count, part = columns // entry["part"], torch.arange(columns, device=codes.device) // entry["part"]
        numbers = unpack(parts["weight_parts"].t().contiguous(), entry["part_bits"], rows).t().to(dtype)
        scale = scale * (numbers[:, part] - (2 ** (entry["part_bits"] - 1) if offset is None else 0))
        offset = None if offset is None else -offset * numbers[:, count + part]
    if "values" in entry:
        return (torch.tensor(entry["values"], dtype=dtype, device=codes.device)[codes.long()] * scale).to(model_dtype)
    if offset is not None:
        return (codes.to(dtype) * scale + offset).to(model_dtype)
    if zero == "int":
        points = unpack(parts["weight_zero_point"].t().contiguous(), bits, rows).t().to(dtype)[:, index]
        return ((codes.to(dtype) - points) * scale).to(model_dtype)
    return ((codes.to(dtype) - 2 ** (bits - 1)) * scale).to(model_dtype)


def _float_parts(entry: dict) -> set[str]:
    if entry["float"] in ("e4m3", "e5m2"):
        return {"weight", "weight_scale"}
    more = {"weight_global_scale"} if entry.get("scales") == "e4m3" else set()
    return {"weight_packed", "weight_scale"} | more | ({"weight_parts"} if "shift_bits" in entry else set())


def _small_floats(parts: dict[str, Tensor], entry: dict, model_dtype: torch.dtype) -> Tensor:
    scale = parts["weight_scale"]
    if scale.dtype == torch.uint8:  # powers of two, by the bits of a float32
        scale = (scale.int() << 23).view(torch.float32)
    dtype = {"scale": scale.dtype, "float32": torch.float32}.get(entry["decode"], model_dtype)
    scale = scale.to(dtype)
    if "weight_global_scale" in parts:
        scale = scale / parts["weight_global_scale"].to(dtype)
    if "weight" in parts:
        values = parts["weight"].to(dtype)
    else:
        packed = parts["weight_packed"]
        codes = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(1).int()
        values = torch.tensor(E2M1, dtype=dtype, device=codes.device)[codes]
    rows, columns = values.shape
    if "shift_bits" in entry:
        shifts = unpack(parts["weight_parts"].t().contiguous(), entry["shift_bits"], rows).t().int()
        scale = scale * ((127 - shifts) << 23).view(torch.float32).to(dtype)
    scale = scale.reshape(-1, scale.shape[-1])
    row = torch.arange(rows, device=values.device) // (entry.get("rows", 1) or rows)
    column = torch.arange(columns, device=values.device) // (entry["group"] or columns)
    scale = scale[row] if len(scale) > 1 else scale
    return (values * (scale[:, column] if scale.shape[1] > 1 else scale)).to(model_dtype)


def _byte_parts(entry: dict) -> set[str]:
    return {"weight", "weight_scale"}


def rounded_inputs(x: Tensor, how: dict, scale: Tensor | None = None) -> Tensor:
    """Inputs `x [..., in]` of a linear rounded as `how` tells (an entry's `inputs`), in compressed-tensors' arithmetic.

    scale: what is stored, `[1]`: the scale of all tokens, or what NVFP4's scales are multiplied by.
    """
    values, kind, shape = how["values"], x.dtype, x.shape
    top = {"int": (2 ** how["bits"] - 1) / 2, "e4m3": 448.0, "e2m1": 6.0}[values]
    x = x.unflatten(-1, (-1, how["group"])) if how["per"] == "group" else x
    peak = x.abs().amax(-1, keepdim=True)
    if how["per"] == "tensor":
        scale = scale.to(kind)  # type: ignore[union-attr]
    elif values != "e2m1":
        scale = peak / top
        scale = torch.where(scale == 0, torch.full_like(scale, torch.finfo(kind).eps), scale)
    elif scale is not None:
        local = (scale * (peak / top)).clamp(-448, 448).to(torch.float8_e4m3fn).to(scale.dtype)
        scale = torch.where(local == 0, torch.full_like(local, 0.125), local) / scale
    else:  # a power of two, the next one from a mantissa of 1.75 on
        mantissa, exponent = torch.frexp(peak.float())
        scale = torch.exp2((exponent - 3 + (mantissa >= 0.875)).clamp(-126, 126).float()).to(kind)
    scaled = x / scale
    if values == "int":
        found = scaled.clamp(-top - 0.5, top - 0.5).round()
    elif values == "e4m3":
        found = scaled.clamp(-top, top).to(torch.float8_e4m3fn)
    else:
        size = scaled.float().abs().clamp(max=top)
        step = torch.exp2((torch.frexp(size).exponent - 1).clamp(0, 2) - 1.0)
        found = ((size / step).round() * step).copysign(scaled)
    return (found.to(scale.dtype) * scale).to(kind).reshape(shape)


def round_inputs(model: torch.nn.Module, table: dict[str, dict], scales: dict[str, Tensor]) -> None:
    """Have linears of `model` round their inputs as their entries in `table` tell. scales: by stored name."""
    hooked = set()
    for address, entry in table.items():
        place = (entry.get("into") or {}).get("parameter") or f"{address}.weight"
        name = place.rpartition(".")[0]
        if "inputs" not in entry or name in hooked:  # rows of one tensor read one input
            continue
        hooked.add(name)
        scale = scales.get(f"{address}.input_scale", scales.get(f"{address}.input_global_scale"))

        def hook(_: torch.nn.Module, args: tuple, how: dict = entry["inputs"], scale: Tensor | None = scale) -> tuple:
            return (rounded_inputs(args[0], how, scale), *args[1:])

        model.get_submodule(name).register_forward_pre_hook(hook)


# How linears are stored: of each form, which parts one with a table entry has, and the weights that they are. A grid
# that is stored in none of them has a form of its own here, which its entries name (`"form"`).
FORMS = {
    **{"plain": (_plain_parts, _plain), "codes": (_code_parts, _codes), "float": (_float_parts, _small_floats)},
    "bytes": (_byte_parts, _small_floats),
}


def weights(
    folder: Path, files: list[str], table: dict[str, dict], dtype: torch.dtype, device: str
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of `files` by its stored name, those that are codes as the weights that they stand for."""
    waiting: dict[str, dict[str, Tensor]] = {}
    for file in files:
        with safe_open(folder / file, framework="pt", device=device) as shard:
            for key in shard.keys():  # noqa: SIM118
                address, _, part = key.rpartition(".")
                value = shard.get_tensor(key)
                entry = table.get(address, {})
                wanted = parts_of(entry)
                if part not in wanted:
                    yield key, value
                    continue
                waiting.setdefault(address, {})[part] = value
                if len(waiting[address]) == len(wanted):
                    yield f"{address}.weight", decode(waiting.pop(address), entry, dtype)


def converted(
    model: PreTrainedModel, folder: Path, files: list[str], table: dict[str, dict], device: str
) -> PreTrainedModel:
    """The model with transformers' own conversions of stored names, for families that whet has no table of."""
    stored = dict(weights(folder, files, table, model.dtype, device))
    made = type(model).from_pretrained(None, config=model.config, state_dict=stored, dtype=model.dtype)
    return made.eval().to(device)  # type: ignore[arg-type]


def compute_buffers(model: PreTrainedModel, device: str) -> None:
    """What no file holds, such as rotary frequencies, computed from the config, in a `model` on the meta device."""
    made = set()
    makers: dict[torch.nn.Module, PreTrainedModel] = {}
    for maker in model.modules():
        if isinstance(maker, PreTrainedModel):  # of a model inside another one the inner one knows how
            makers |= dict.fromkeys(maker.modules(), maker)
        left = {name: buffer for name, buffer in maker._buffers.items() if buffer is not None and buffer.is_meta}
        for name, buffer in left.items():
            maker._buffers[name] = torch.empty_like(buffer, device=device)
        if left:
            made.add(maker)
    for module, maker in makers.items():
        if module in made or (made and module is maker):  # some are made by the model itself
            maker._init_weights(module)


def fill(
    model: PreTrainedModel,
    folder: Path,
    files: list[str],
    table: dict[str, dict],
    device: str,
    names: dict[str, str] | None = None,
) -> list[str]:
    """Give every parameter of `model` (built on the meta device) its value; returns what the files did not hold.

    names: what the model calls tensors that are stored under another name. Tensors that the architecture has no place
    for (a vision tower, frequencies that are computed today) are left alone.
    """
    dtype = model.dtype
    written: dict[str, int] = {}
    known = {name for name, _ in (*model.named_parameters(remove_duplicate=False), *model.named_buffers())}

    # what transformers holds in float32 in a model of 16 bits
    wide = [*((dtype in HALVES and model._keep_in_fp32_modules_strict) or ())]
    wide += (dtype == torch.float16 and model._keep_in_fp32_modules) or ()
    patterns = [re.compile(re.escape(one).replace(r"\*", ".*")) for one in wide]

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
    scales = {}
    for key, value in weights(folder, files, table, dtype, device):
        address, _, part = key.rpartition(".")
        if part in ("input_scale", "input_global_scale"):
            scales[key] = value
            continue
        place = (table.get(address, {}).get("into") or {}) if part == "weight" else {}
        name = place.get("parameter") or (names or {}).get(key, key)
        if name in known:
            put(name, value, place)
    model.tie_weights()
    round_inputs(model, table, scales)
    whole = dict(model.named_parameters())
    partly = [name for name, count in written.items() if name in whole and count < whole[name].numel()]
    return [n for n, p in whole.items() if p.is_meta] + partly


def _number(entry: dict) -> dict | float:
    """Infinities and what is no number, as transformers writes them into config.json."""
    return float(entry["__float__"]) if entry.keys() == {"__float__"} else entry


class WhetForCausalLM(PreTrainedModel):
    """Stands in for the stock class: `from_pretrained` returns the stock architecture with the weights computed."""

    @classmethod
    def from_pretrained(cls, folder, *args, config=None, dtype=None, torch_dtype=None, device_map=None, **kwargs):  # type: ignore[no-untyped-def,override]
        """The model of a local folder (or hub name) in evaluation mode; `dtype` None takes the one in config.json."""
        path = Path(folder)
        if not path.is_dir():
            from huggingface_hub import snapshot_download

            path = Path(snapshot_download(str(folder), revision=kwargs.get("revision")))
        settings = json.loads((path / "config.json").read_text(encoding="utf-8"), object_hook=_number)
        table = settings.pop("whet")
        settings.pop("auto_map", None)
        stock = AutoConfig.for_model(**settings)
        dtype = dtype or torch_dtype or "auto"
        if dtype == "auto":
            dtype = stock.dtype or torch.float32
        if isinstance(dtype, str):
            dtype = getattr(torch, dtype)
        device = (device_map or {}).get("", "cpu") if isinstance(device_map, dict) else device_map or "cpu"
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        names = settings.get("architectures") or []
        kind = getattr(transformers, names[0], None) if names else None
        with torch.device("meta"):
            if kind is None:
                model = transformers.AutoModelForCausalLM.from_config(stock, dtype=dtype)
            else:
                model = kind._from_config(stock, dtype=dtype)
        index = json.loads((path / "whet.safetensors.index.json").read_text(encoding="utf-8"))
        files = sorted(set(index["weight_map"].values()))
        if any(Path(file).name != file for file in files):
            raise ValueError(f"{path}: the index names a file outside the folder")
        if table.get("convert"):
            return converted(model, path, files, table["linears"], str(device))
        missing = fill(model, path, files, table["linears"], str(device), table.get("names"))
        if missing:
            raise ValueError(f"{path}: no file holds {', '.join(missing[:3])}; the folder is incomplete")
        return model.eval()
