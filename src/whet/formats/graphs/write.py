"""A folder as the graph of a runtime: planned, so that what cannot be written is refused at once, and written beside
the tokenizer and the config that it is read with."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from whet.checkpoint import Checkpoint, load_tokenizer, write_json
from whet.checkpoint.beside import is_read, subfolders
from whet.checkpoint.model_files import GRAPHS, read_object
from whet.engines import openvino
from whet.errors import UsageError
from whet.formats.gguf.source import text_model
from whet.formats.graphs.decoder import Decoder, read_decoder, write_decoder
from whet.formats.graphs.encoder import ENCODERS, Encoder, read_encoder, write_encoder
from whet.formats.graphs.genai import genai_config
from whet.formats.graphs.onnx import FLOAT, INT8, OnnxGraph, onnx_package
from whet.formats.graphs.openvino import OpenVinoGraph
from whet.formats.graphs.weights import Weights
from whet.targets import Target, check_family

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".gguf", ".onnx", ".data", ".xml", ".bin")
_ROW = 4  # bytes of a scale, at most
_WRITTEN = ("quantization_config", "whet", "auto_map")  # of config.json: how a folder's tensors are read


@dataclass(frozen=True)
class GraphPlan:
    """What will be written for `target`."""

    target: Target
    weights: Weights
    model: Decoder | Encoder

    @property
    def types(self) -> dict[str, int]:
        """How many matrices have each type: `int4-g32` or the like, or `F32`, `F16`, `BF16`."""
        found: dict[str, int] = {}
        for name, shape in self.weights.shapes.items():
            address = name.removesuffix(".weight")
            if len(shape) < 2:
                continue
            if address in self.weights.coded:
                kind = str(self.weights.linears[address].get("grid") or f"{self.weights.linears[address]['bits']}-bit")
            else:
                dtype = self.weights.cast or self.weights.checkpoint.tensors[name].dtype
                kind = next(name for name, one in TYPES.items() if one == dtype)
            found[kind] = found.get(kind, 0) + 1
        return found

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return sum(math.prod(shape) for shape in self.weights.shapes.values())

    @property
    def nbytes(self) -> int:
        """About how many bytes the numbers take."""
        angles = sum(2 * 4 * cos.numel() for cos, _ in self.model.ropes.values())
        return angles + sum(self._bytes(name, shape) for name, shape in self.weights.shapes.items())

    def _bytes(self, name: str, shape: tuple[int, ...]) -> int:
        address = name.removesuffix(".weight")
        if address not in self.weights.coded:
            dtype = self.weights.cast or self.weights.checkpoint.tensors[name].dtype
            return math.prod(shape) * (4 if len(shape) < 2 else dtype.itemsize)
        entry = self.weights.linears[address]
        groups = math.ceil(shape[1] / (entry["group"] or 256))
        return shape[0] * (math.ceil(shape[1] * entry["bits"] / 8) + groups * (_ROW + 1))

    def parts(self, told: Mapping[str, int]) -> dict[str, int]:
        """Bytes by part of tensors whose bytes are `told` by address, with the keys of `size_on_disk`."""
        found = dict.fromkeys(("linears", "embedding", "head", "other"), 0)
        tables = {self.model.parts.embedding.address: "embedding"}
        if self.model.parts.head is not None:
            tables[self.model.parts.head.address] = "head"
        linears = {linear.address for linear in self.model.parts.linears()}
        for address, nbytes in told.items():
            found[tables.get(address) or ("linears" if address in linears else "other")] += nbytes
        return found


def plan_graph(
    folder: str | Path, target: Target, kind: str | None = None, manifest: Mapping[str, Any] | None = None
) -> GraphPlan:
    """What the graph of the model in `folder` will be for `target`. kind: of an original, the type of its matrices:
    `F32`, `F16` or `BF16`; the stored one unless given. manifest: the folder's whet.json, where that is not written
    yet.

    Raises UsageError for a family, a config or a scheme that the runtime does not take, naming it.
    """
    checkpoint = Checkpoint(folder)
    told = manifest or checkpoint.whet
    if told is not None and "adapter" in told:
        raise UsageError(
            "{folder} has an adapter, which {target} does not run beside a model. Merge it first (whet merge).",
            folder=folder,
            target=target.name,
        )
    lighter = told is not None and told["container"] != "dense"
    if kind is not None and (kind not in TYPES or lighter):
        raise UsageError(
            "type {kind} is not known, or {folder} has types already. Types of originals: {known}.",
            kind=kind,
            folder=folder,
            known=", ".join(TYPES),
        )
    check_family(target, str(text_model(checkpoint).config.model_type), str(checkpoint.path))
    linears = ((told or {}).get("reading") or told or {}).get("linears", {}) if lighter else {}
    load_tokenizer(checkpoint.path)  # a graph is proved on text, and read with its tokenizer
    weights = Weights(checkpoint, linears, target, TYPES[kind] if kind else None)
    kind_of_model = str(text_model(checkpoint).config.model_type)
    read = read_encoder if kind_of_model in ENCODERS else read_decoder
    return GraphPlan(target, weights, read(weights, target))


def must_be_writable(target: str) -> None:
    """Raises MachineError where the package is missing that graphs for `target` are written with."""
    onnx_package() if target == "onnx" else openvino.runtime()


def write_graph(plan: GraphPlan, place: Path, inputs: str) -> tuple[Path, dict[str, int]]:
    """Write the planned graph into the folder `place`, with what is read beside it; returns its file, and the bytes of
    its tensors by address. inputs: `int8` or `float`, how linears of codes take them."""
    for name in subfolders(plan.weights.checkpoint.path):  # how an encoder's states become the vector of a text
        shutil.copytree(plan.weights.checkpoint.path / name, place / name)
    for file in sorted(plan.weights.checkpoint.path.iterdir()):
        if file.is_file() and is_read(file.name) and not file.name.endswith(_WEIGHTS) and file.name != "whet.json":
            shutil.copyfile(file, place / file.name)
    write_json(place / "config.json", stock(plan.weights.checkpoint.config))
    graph: OnnxGraph | OpenVinoGraph
    writes = isinstance(plan.model, Decoder)
    if plan.target.name == "onnx":
        graph = OnnxGraph(place, INT8 if inputs == "int8" else FLOAT, cached=writes)
    else:
        graph = OpenVinoGraph(place, inputs, cached=writes)
    if isinstance(plan.model, Encoder):
        write_encoder(graph, plan.model)
        return graph.close(plan.weights.checkpoint.path.resolve().name), graph.bytes
    write_decoder(graph, plan.model)
    if plan.target.name == "onnx":
        said = read_object(place / "generation_config.json")
        write_json(place / "genai_config.json", genai_config(plan.model, said))
    return graph.close(plan.weights.checkpoint.path.resolve().name), graph.bytes


def stock(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json without what it says of how a folder's tensors are read, which a graph does not need."""
    return {key: value for key, value in config.items() if key not in _WRITTEN}


def files_of_graph(target: Target) -> tuple[str, ...]:
    """The files that are a graph's own, by target."""
    return (*GRAPHS[target.name], *(("genai_config.json",) if target.name == "onnx" else ()))
