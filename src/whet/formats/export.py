"""`export`: a folder as the file its runtime reads, and the proof that it is the same model. (Graphs of onnxruntime and
OpenVINO: `whet.formats.graph_export`.)

The proof of a .gguf goes from what needs nothing to what needs llama.cpp: the header is valid and holds the planned
bytes; every weight decoded by the `gguf` package equals the folder's own; the file loads, makes the same tokens of the
same text, puts the same odds on the next token as far as the types' arithmetic allows, and goes on with the same text.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType

from whet.checkpoint import (
    Checkpoint,
    check_files,
    is_adapter,
    load_tokenizer,
    precisions_in,
    read_adapter,
    refuse_scaled,
    replace,
)
from whet.checkpoint.gguf import ADAPTER_KEY, ADAPTER_SUFFIX, GgufFile
from whet.checkpoint.model_files import GRAPHS
from whet.errors import GateError, MachineError, UsageError, did_you_mean, verb
from whet.events import OnEvent, ignore, note_event
from whet.formats.gguf import Layout, plan_adapter, plan_gguf, write_gguf
from whet.formats.graph_export import INPUTS, export_graph
from whet.formats.layout_export import export_layout
from whet.formats.layouts import PACKED
from whet.formats.running import prove_running
from whet.formats.unproved import unproved
from whet.messages import Message, with_or
from whet.paths import check_output, find_folder
from whet.text import read_text

FORMATS = ("gguf", *GRAPHS, *PACKED)
FILE = "model.gguf"  # in the folder that `compress --for llama.cpp` writes


@verb
def export(
    folder: str | Path,
    *,
    to: str = "gguf",
    out: str | Path | None = None,
    kind: str | None = None,
    text: str | Path | Sequence[str] | None = None,
    base: str | Path | None = None,
    dequantize: bool = False,
    inputs: str | None = None,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """Write `folder`, original or lighter, as what its runtime reads, and prove that it is the same model.

    to: the format: `gguf`, the graph of `onnx` or `openvino`, or of a lighter folder the layout of `gptq`, `awq` or
    `mlx`. out: the file, `<folder's name>.gguf` here unless given; of a graph or a layout the folder, `<name>-onnx`.
    inputs: of a graph, how its linears of codes take theirs: `int8`, which is fast, unless given; or `float`. kind: of
    an original, the type of its matrices: `f32`, `f16` or `bf16` (the stored one unless given); a lighter folder has
    its types already. text: what the file is checked on, as `compress` takes it; a few built-in sentences unless given.
    base: of an adapter's folder, its model, the one it names unless given; the file is what llama.cpp loads beside that
    model, and its numbers alone are checked.
    dequantize: an original that is stored in FP8 or MXFP4 is written as what it decodes to.

    Returns a JSON-able dict: `out`, `types` (how many matrices have each), `bytes` (`planned` and `tensors`, of tensor
    data, and `file`), `adapter` (its `file` beside `out`, where the folder has one), `check`, `notes`, `seconds`.
    Raises UsageError before anything is written for what the format cannot express, and GateError, leaving no file,
    where a proof fails.
    """
    started = time.monotonic()
    if to not in FORMATS:
        raise UsageError(
            "Format {name!r} is not known.{near} Formats: {known}.",
            name=to,
            near=did_you_mean(to, FORMATS),
            known=", ".join(FORMATS),
        )
    if inputs is not None and (to not in GRAPHS or inputs not in INPUTS):
        raise UsageError(
            "inputs {name!r}: graphs of {formats} take {known}, and a .gguf has its own types.",
            name=inputs,
            formats=with_or(tuple(GRAPHS)),
            known=with_or(INPUTS),
        )
    path = find_folder(folder)
    name = path.resolve().name + (f"-{kind.lower()}" if kind else "")
    target = Path(out) if out is not None else Path(f"{name}-{to}" if to != "gguf" else f"{name}.gguf")
    _must_be_new(target)
    check_output(target, path)
    if is_adapter(path) and to != "gguf":
        raise UsageError(
            "{folder} is an adapter, which {target} does not run beside a model. Merge it first (whet merge) and "
            "export "
            "that.",
            folder=path,
            target=to,
        )
    if is_adapter(path):
        return _export_adapter(path, target, kind, base, started)
    if base is not None:
        raise UsageError("{folder} is a model, and base is of adapters. Leave it out.", folder=path)
    refuse_scaled(path, Checkpoint(path).stored_in, dequantize)
    _must_be_one(path, to)
    check_files(path, on_event)
    told: dict[str, Any] = {"format": "whet.export", "version": 1, "folder": str(path)}
    if to in PACKED:
        made = export_layout(path, to, target, kind, text, on_event)
        return {**told, **made, "seconds": time.monotonic() - started}
    documents: list[str] | None = None
    if isinstance(text, (str, Path)):
        documents = read_text(text, tokenizer=load_tokenizer(path)).documents
    elif text is not None:
        documents = list(text)
    if to in GRAPHS:
        made = export_graph(path, to, target, kind, inputs or INPUTS[0], documents, on_event)
        return {**told, **made, "seconds": time.monotonic() - started}
    layout = plan_gguf(path, kind.upper() if kind else None)
    _must_be_free(target, layout)
    made = write_verified(layout, target, path, None, documents, on_event)
    return {**told, **made, "seconds": time.monotonic() - started}


def _must_be_one(folder: Path, to: str) -> None:
    """Raises UsageError for a folder of several precisions."""
    if precisions_in(Checkpoint(folder)):
        raise UsageError(
            "{folder} has several precisions, and {format} holds one. Compress the original to that one: whet compress "
            "MODEL OUT --for RUNTIME --scheme SCHEME.",
            folder=folder,
            format=to,
        )


def _export_adapter(
    folder: Path, target: Path, kind: str | None, base: str | Path | None, started: float
) -> dict[str, Any]:
    """Write the adapter in a folder as the file that llama.cpp loads beside its model."""
    if kind is not None:
        raise UsageError("type is of models: an adapter is written in the type it is stored in. Leave --type out.")
    adapter = read_adapter(folder)
    named = base or adapter.config.get("base_model_name_or_path")
    if not isinstance(named, (str, Path)) or not Path(named).is_dir():
        raise UsageError(
            "{folder} is an adapter, and its model {base} is not here, which tells what llama.cpp calls its tensors. "
            "Give the model's folder: --base MODEL.",
            folder=folder,
            base=named or Message("(not named)"),
        )
    layout = plan_adapter(adapter, named)
    _must_be_free(target, layout)
    with unproved(target) as place:
        file = write_gguf(layout, place / target.name)
        check = {"header": "valid", "weights": _prove_weights(layout, file)}
        replace(file.path, target)
    return {
        "format": "whet.export",
        "version": 1,
        "folder": str(folder),
        "base": str(named),
        "out": str(target),
        "architecture": layout.architecture,
        "types": layout.types,
        "bytes": {"planned": layout.nbytes, "tensors": file.nbytes, "file": target.stat().st_size},
        "check": check,
        "notes": [],
        "seconds": time.monotonic() - started,
    }


def write_verified(
    layout: Layout,
    target: Path,
    folder: Path,
    manifest: Mapping[str, Any] | None,
    documents: Sequence[str] | None = None,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """Write the planned file and prove it. Until it is proved it lies in a folder beside `target`, which is gone
    afterwards: a proof that fails, or is stopped, leaves nothing.

    folder: what the file was made from. manifest: its whet.json, where that is not written yet. Raises GateError where
    a proof fails.
    """
    beside = adapter_beside(target)
    kinds = [*layout.types, *(() if layout.adapter is None else layout.adapter.types)]
    with unproved(target) as place:
        if layout.adapter is not None:
            layout.entries[ADAPTER_KEY] = beside.name
            _prove_weights(layout.adapter, write_gguf(layout.adapter, place / beside.name))
        file = write_gguf(layout, place / target.name)
        check: dict[str, Any] = {"header": "valid", "weights": _prove_weights(layout, file)}
        check |= prove_running(file, folder, manifest, kinds, documents)
        layout.notes += check.pop("notes", [])
        if layout.adapter is not None:
            replace(place / beside.name, beside)
        replace(file.path, target)
    for note in layout.notes:
        on_event(note_event(note))
    if "llama.cpp" in check:
        on_event(note_event(Message("{target} was not run: {why}", target=target, why=check["llama.cpp"])))
    return {
        "out": str(target),
        "architecture": layout.architecture,
        "types": layout.types,
        "bytes": {"planned": layout.nbytes, "tensors": file.nbytes, "file": target.stat().st_size},
        **({} if layout.adapter is None else {"adapter": {"file": beside.name, "bytes": beside.stat().st_size}}),
        "check": check,
        "notes": layout.notes,
    }


def adapter_beside(target: Path) -> Path:
    """The file of the adapter of the model in the file `target`."""
    return target.with_name(target.stem + ADAPTER_SUFFIX)


def _must_be_new(file: Path) -> None:
    if file.exists():
        raise UsageError("{file} is there already. Name another one with --out, or remove it.", file=file)


def _must_be_free(target: Path, layout: Layout) -> None:
    if layout.adapter is not None:
        _must_be_new(adapter_beside(target))
    free = shutil.disk_usage(target.parent).free
    if free < layout.nbytes * 1.02 + 2**24:
        raise MachineError(
            "The disk of {file} has {free:.0f} MB free; the file needs {needs:.0f} MB. Free some space or choose "
            "another disk.",
            file=target,
            free=free / 1e6,
            needs=layout.nbytes / 1e6,
        )


def _prove_weights(layout: Layout, file: GgufFile) -> str:
    """Every tensor as the `gguf` package decodes it must be what the folder's own definition says, bit for bit."""
    for tensor in layout.tensors:
        stored = file.tensors[tensor.name]
        data = file.read(tensor.name)
        if tensor.type == "F32":
            mine = torch.from_numpy(data.view(np.float32))
        else:
            kind = GGMLQuantizationType[tensor.type]
            mine = torch.from_numpy(np.array(gguf.dequantize(data.reshape(-1, data.shape[-1]), kind), dtype=np.float32))
        theirs = layout.values(tensor)
        if not torch.equal(mine.reshape(stored.shape), theirs):
            raise GateError(
                "{path}: tensor {name} ({type}) is not what the folder holds. This is a defect of whet; please report "
                "it with the family and the scheme.",
                path=file.path,
                name=tensor.name,
                type=tensor.type,
            )
    return "equal, bit for bit"
