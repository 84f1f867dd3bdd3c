"""Models that are finished files of a runtime: a .gguf of llama.cpp, an .onnx of onnxruntime, an .xml of OpenVINO.

A graph lies in a folder with its numbers, tokenizer and config.json, and with a whet.json that tells what it was made
from; it is named by its own file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whet.checkpoint.gguf import ADAPTER_SUFFIX, is_gguf, read_gguf
from whet.checkpoint.manifest import MANIFEST, read_manifest
from whet.errors import UsageError
from whet.strict import parse_json

# By target: the file of the graph, and the one of its numbers beside it.
GRAPHS = {"onnx": ("model.onnx", "model.onnx.data"), "openvino": ("openvino_model.xml", "openvino_model.bin")}
_TOKENS = ("vocab", "merges")


def is_graph(path: str | Path) -> bool:
    """Whether `path` names a graph of onnxruntime or OpenVINO rather than a model folder."""
    return Path(path).suffix.lower() in (".onnx", ".xml") and not Path(path).is_dir()


def is_finished(path: str | Path) -> bool:
    """Whether `path` names a finished file, which a runtime of its own reads."""
    return is_gguf(path) or is_graph(path)


def model_file(path: str | Path) -> Path:
    """The finished file in a folder that holds one and no weights of a Hugging Face model, as `compress --for
    llama.cpp` or `--for onnx` leaves it; else `path`."""
    folder = Path(path)
    if not folder.is_dir() or next(folder.glob("*.safetensors"), None) is not None:
        return folder
    graphs = [folder / file for file, _ in GRAPHS.values() if (folder / file).is_file()]
    if len(graphs) == 1:
        return graphs[0]
    if (folder / "config.json").is_file():
        return folder
    found = [file for file in sorted(folder.glob("*.gguf")) if not file.name.endswith(ADAPTER_SUFFIX)]
    return found[0] if len(found) == 1 else folder


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object; {} where there is no such file. Raises UsageError for one that is none."""
    if not file.is_file():
        return {}
    try:
        value = parse_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError("{file} is not valid JSON ({error}). Download it again.", file=file, error=error) from error
    if not isinstance(value, dict):
        raise UsageError("{file} is not a JSON object. Download it again.", file=file)
    return value


def graph_config(file: str | Path) -> dict[str, Any]:
    """The config.json beside a graph. Raises UsageError where there is no graph or no config."""
    file = Path(file)
    config = read_object(file.parent / "config.json")
    if not file.is_file() or not config:
        raise UsageError(
            "{file} does not exist, or no config.json lies beside it. Give the file in the folder that whet export "
            "wrote, with everything that is in it.",
            file=file,
        )
    return config


def graph_manifest(file: str | Path) -> dict[str, Any]:
    """The whet.json beside a graph, if it is of that; {} else."""
    place = Path(file).parent / MANIFEST
    found = read_object(place)
    return read_manifest(found, place) if Path(file).name in found.get("files", ()) else {}


def numbers_of(file: str | Path) -> Path:
    """The file of a graph's numbers."""
    file = Path(file)
    return file.with_suffix(".bin") if file.suffix.lower() == ".xml" else file.with_name(file.name + ".data")


def size_of_file(file: str | Path) -> dict[str, int]:
    """Bytes by part of a finished file, as `size_on_disk` gives those of a folder."""
    if is_gguf(file):
        return read_gguf(file).size()
    file = Path(file)
    parts = dict.fromkeys(("linears", "embedding", "head", "other"), 0)
    parts |= (graph_manifest(file).get("graph") or {}).get("parts") or {}
    here = [one for one in file.parent.iterdir() if one.is_file() and one.suffix != ".safetensors"]
    weights = sum(one.stat().st_size for one in (file, numbers_of(file)) if one.is_file())
    tokens = [one for one in here if "token" in one.name or one.stem in _TOKENS]
    return {
        **parts,
        "weights": weights,
        "tokenizer": sum(one.stat().st_size for one in tokens),
        "total": sum(one.stat().st_size for one in here),
    }


def parameters_of(file: str | Path) -> tuple[int, int]:
    """How many numbers a finished file holds, and their bytes."""
    if is_gguf(file):
        header = read_gguf(file)
        return header.parameters, header.nbytes
    data = numbers_of(file)
    nbytes = data.stat().st_size if data.is_file() else 0
    return (graph_manifest(file).get("graph") or {}).get("parameters", nbytes), nbytes


def files_of(model: str | Path) -> list[Path]:
    """The files of a model's weights, whatever it is."""
    if not is_finished(model):
        return sorted(Path(model).glob("*.safetensors"))
    return [file for file in (Path(model), numbers_of(model)) if file.is_file()]
