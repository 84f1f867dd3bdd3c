"""A folder as one .gguf file: first what goes where, to the byte, then the bytes, one tensor at a time.

A pure function of the folder: codes and scales go over as they are, and only their order in rows changes where
llama.cpp wants another. The header is known before a single weight is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType
from torch import Tensor

from whet import __version__
from whet.checkpoint import (
    Checkpoint,
    Factors,
    adapter_file,
    atomic,
    empty_model,
    gguf_entries,
    load_tokenizer,
    quiet_transformers,
    read_factors,
    read_map,
)
from whet.checkpoint.gguf import GgufFile, read_gguf
from whet.errors import GateError, UsageError
from whet.formats.gguf.adapters import place_adapter
from whet.formats.gguf.architectures import find_architecture, remarks, settings_of
from whet.formats.gguf.blocks import FLOAT_BYTES, float_rows, row_bytes
from whet.formats.gguf.layout import Layout
from whet.formats.gguf.placing import Placed, place
from whet.formats.gguf.source import Source, text_model
from whet.formats.gguf.tokenizers import fitting_name, vocabulary
from whet.messages import Message, to_json
from whet.strict import parse_json

# What readers call a file whose weights are mostly of a type.
_FILE_TYPES = {
    **{"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "BF16": 32},
    **{"Q2_K": 10, "Q3_K": 11, "Q4_K": 14, "Q5_K": 16, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30},
    **{"TQ1_0": 36, "TQ2_0": 37},
}
# Of a model that reads images, a file holds what reads text.
_TEXT_ALONE = Message(
    "the .gguf holds the text model alone: for images llama.cpp takes a second file of the original's vision tower, "
    "which its own converter writes (convert_hf_to_gguf.py --mmproj)"
)


def plan_gguf(folder: str | Path, kind: str | None = None, manifest: Mapping[str, Any] | None = None) -> Layout:
    """What a .gguf of `folder` will hold. Reads headers, config and tokenizer, and no weights.

    kind: the type of an original's matrices, `F16`, `BF16` or `F32`; None keeps the stored one. manifest: what
    whet.json will say, where it is not written yet. Raises UsageError for a family, tokenizer or scheme that the format
    cannot express, naming it.
    """
    checkpoint = Checkpoint(folder)
    where = str(checkpoint.path)
    known = manifest or checkpoint.whet or {}
    # where a linear is not stored by its own address, whet.json has a table of how tensors are read
    linears = (known.get("reading") or known).get("linears", {})
    if not linears and (checkpoint.config.get("quantization_config") or checkpoint.config.get("whet")):
        raise UsageError(
            "{folder} was quantized by another tool. whet exports originals and its own folders.", folder=where
        )
    if kind is not None and linears:
        raise UsageError(
            "{folder} is a lighter model: its types were decided when it was made, and an export does not round "
            "again. Leave --type out.",
            folder=where,
        )
    if kind is not None and kind not in FLOAT_BYTES:
        raise UsageError(
            "{type} is no type for an original: give f32, f16 or bf16, or compress it for the others.", type=kind
        )
    empty_model(checkpoint, torch.float32)  # what no model can be built of has no file either
    text = text_model(checkpoint)
    config = text.config
    row = find_architecture(config, where, text.layers)
    settings, computed = settings_of(config, row, where, text.larger, text.layers)
    source = Source(checkpoint, linears)
    tensors = place(source, row, text, kind)
    tensors += [Placed(name, "F32", tuple(value.shape), value=value) for name, value in computed.items()]
    by_name = {tensor.name: tensor for tensor in tensors}
    if "token_embd.weight" not in by_name:
        raise UsageError(
            "{folder} has no embedding that llama.cpp knows. The folder is incomplete; download it again.", folder=where
        )
    with quiet_transformers():
        tokenizer = load_tokenizer(checkpoint.path)
    ends = _ends(checkpoint, config)
    words = vocabulary(tokenizer, by_name["token_embd.weight"].shape[0], where, ends)
    layout = Layout(row.name, {}, tensors, source)
    layout.notes += remarks(config, row, settings, by_name)
    layout.notes += [_TEXT_ALONE] if text.larger is not None else []
    layout.notes += [
        Message(
            "transformers leaves {entry} ({value}) out of this model's logits, and so does the .gguf: the likeliest "
            "token is the same, but in a file made by a converter that goes by the config the odds differ",
            entry=entry,
            value=value,
        )
        for entry, value in text.left_out.items()
    ]
    named = fitting_name((known.get("base_model") or {}).get("name") or checkpoint.path.resolve().name, words)
    layout.notes = [*words.notes, *layout.notes]
    layout.entries = {
        **_general(layout, known, named),
        **gguf_entries(read_map(checkpoint.path)),
        **settings,
        **words.entries,
    }
    if "adapter" in known:
        factors = {name: Factors(*pair) for name, pair in read_factors(adapter_file(checkpoint.path)).items()}
        layout.adapter = place_adapter(factors, row, text, source, named)
    return layout


def write_gguf(layout: Layout, path: str | Path) -> GgufFile:
    """Write the file atomically and read its header back. Raises GateError unless it says what was planned."""
    path = Path(path)
    with atomic(path) as temporary:
        writer = gguf.GGUFWriter(temporary, layout.architecture)
        for key, value in layout.entries.items():
            _add(writer, key, value)
        for tensor in layout.tensors:
            bytes_shape = (*tensor.shape[:-1], row_bytes(tensor.type, tensor.shape[-1]))
            kind = GGMLQuantizationType[tensor.type]
            writer.add_tensor_info(tensor.name, bytes_shape, np.dtype(np.uint8), tensor.nbytes, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in layout.tensors:
            writer.write_tensor_data(_bytes(tensor, layout.source).numpy())
        writer.close()
    written = read_gguf(path)
    told = {name: (tensor.type, tensor.shape, tensor.nbytes) for name, tensor in written.tensors.items()}
    if told != {tensor.name: (tensor.type, tensor.shape, tensor.nbytes) for tensor in layout.tensors}:
        raise GateError(
            "{path}: the file's tensors are not those that were planned. This is a defect of whet.", path=path
        )
    return written


def _bytes(tensor: Placed, source: Source) -> Tensor:
    """The data of one tensor, uint8 `[..., bytes of a row]`."""
    if tensor.value is not None:
        return tensor.value.contiguous().view(torch.uint8)
    parts = []
    for name in tensor.sources:
        if tensor.add or tensor.transposed:
            value = source.read(name)
            value = value.float() + tensor.add if tensor.add else value.t()
            rows = float_rows(value.contiguous(), tensor.type, name)
        else:
            rows = source.rows(name, tensor.type)
        if tensor.order is not None:
            rows = rows.reshape(source.tensors[name].shape[0], -1)[tensor.order]
        parts.append(rows)
    return torch.stack(parts).contiguous() if tensor.stacked else parts[0].contiguous()


def _general(layout: Layout, known: Mapping[str, Any], name: str) -> dict[str, Any]:
    sizes: dict[str, int] = {}
    for tensor in layout.tensors:
        sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.nbytes
    base = known.get("base_model") or {}
    entries: dict[str, Any] = {
        "general.type": "model",
        "general.name": name,
        "general.file_type": np.uint32(_FILE_TYPES[max(sizes, key=lambda kind: sizes[kind])]),
        "general.quantization_version": np.uint32(2),
        "whet.version": __version__,
    }
    if known:
        about = {"base_model": base, "lineage": known.get("lineage", []), "notes": known.get("notes", [])}
        entries["whet.lineage"] = json.dumps(to_json(about), ensure_ascii=False)
    return entries


def _ends(checkpoint: Checkpoint, config: Any) -> Sequence[int]:
    """Ids that end a text, as generation_config.json or config.json names them."""
    file = checkpoint.path / "generation_config.json"
    try:
        said = parse_json(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise UsageError("{file} is not valid JSON ({error}). Download it again.", file=file, error=error) from error
    found = said.get("eos_token_id", checkpoint.config.get("eos_token_id", getattr(config, "eos_token_id", None)))
    return [found] if isinstance(found, int) else [end for end in found or [] if isinstance(end, int)]


def _add(writer: Any, key: str, value: Any) -> None:
    """One entry, in the type readers expect: whole numbers as uint32, others as float32."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, (int, np.integer)):
        writer.add_uint32(key, int(value))
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        sub = {"u1": gguf.GGUFValueType.UINT8, "i4": gguf.GGUFValueType.INT32, "f4": gguf.GGUFValueType.FLOAT32}
        kind = sub[value.dtype.str[1:]] if isinstance(value, np.ndarray) else gguf.GGUFValueType.STRING
        listed = value.tolist() if isinstance(value, np.ndarray) else list(value)
        writer.add_key_value(key, listed, gguf.GGUFValueType.ARRAY, sub_type=kind)
