"""What a folder is that holds no model whet reads, and what to do about it: one sentence for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from whet.errors import UsageError

RUN, REQUEST = ".whet", "request.json"  # a run that is not finished has the one in the other
_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024  # a pointer has about 130
_READ = ("*.safetensors", "*.json", "*.model", "*.gguf", "*.txt", "*.jinja")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_TRAINING = ("training_args", "optimizer", "scheduler", "rng_state", "openvino")  # what is no weights by any of these


def refuse_pointers(paths: Sequence[Path]) -> None:
    """Raises UsageError where one of the files is not there itself: git without its LFS leaves a pointer of 130 bytes
    in its place."""
    for path in paths:
        if path.is_file() and path.stat().st_size <= _POINTER_BYTES and path.read_bytes().startswith(_POINTER):
            raise UsageError(
                "{file} is a Git LFS pointer of {size} bytes and not the file itself. Fetch it (git lfs pull, in "
                "{folder}), or download the model again.",
                file=path,
                size=path.stat().st_size,
                folder=path.parent,
            )


def refuse_pointers_in(folder: Path) -> None:
    """The same of every file of a model's folder that may be read."""
    refuse_pointers(sorted(file for pattern in _READ for file in folder.glob(pattern)))


def is_unfinished(folder: Path) -> bool:
    """Whether it is the folder of a run that was stopped, or goes on, before all was written."""
    return (folder / RUN / REQUEST).is_file() and not (folder / "whet.json").is_file()


def refuse_unfinished(folder: Path) -> None:
    """Raises UsageError for the folder of a run that was stopped, or goes on, before all was written."""
    if is_unfinished(folder):
        raise UsageError(
            "{folder} is a run of whet that is not finished. `whet status {folder}` tells how far it is, and `whet "
            "resume {folder}` finishes it.",
            folder=folder,
        )


def without_config(folder: Path) -> UsageError:
    """What to say of a folder that has no config.json."""
    found = _other_format(folder) or _gguf(folder)
    if found is not None:
        return found
    inner = [path.parent for place in ("*", "snapshots/*") for path in sorted(folder.glob(f"{place}/config.json"))]
    if inner:
        return UsageError(
            "{folder} holds no model itself, but {inner} does. Give that.", folder=folder, inner=inner[-1]
        )
    return UsageError(
        "{folder} is not a model folder: it has no config.json. Give the folder that holds config.json and the "
        "weights.",
        folder=folder,
    )


def without_weights(folder: Path) -> UsageError:
    """What to say of a folder with a config.json that has no safetensors."""
    if (found := _other_format(folder) or _gguf(folder)) is not None:
        return found
    pickled = [
        path.name
        for path in sorted(folder.iterdir())
        if path.suffix in _PICKLED and not path.name.startswith(_TRAINING)
    ]
    if pickled:
        return UsageError(
            "{folder} has its weights as pickle ({file}), which can run code when it is opened, so whet does not read "
            "it. If you trust it, write safetensors with transformers (from_pretrained, then save_pretrained into a "
            "new folder) and give that; else look for a release with model.safetensors.",
            folder=folder,
            file=pickled[0],
        )
    return UsageError(
        "{folder} holds no model.safetensors: it has a config and no weights. Download the weights too.",
        folder=folder,
    )


def _gguf(folder: Path) -> UsageError | None:
    files = sorted(folder.glob("*.gguf"))
    if not files:
        return None
    return UsageError(
        "{folder} holds {file} and no weights of a Hugging Face model. A .gguf is a finished file: `whet generate` and "
        "`whet compare` read it by its own name. For anything else give the folder it was made from, or make it again "
        "with --folder (folder=True).",
        folder=folder,
        file=files[0].name,
    )


def _other_format(folder: Path) -> UsageError | None:
    """What to say of a folder that is another tool's whole, if it is."""
    for pattern, tool in _FORMATS.items():
        if next(folder.glob(pattern), None) is not None:
            return UsageError(
                "{folder} is in the format of {tool}, which whet does not read: it takes folders of Hugging Face with "
                "config.json and model.safetensors. Give the one that this was made from.",
                folder=folder,
                tool=tool,
            )
    return None


# Files that tell a format; the first that is there does.
_FORMATS = {
    "model_index.json": "diffusers",
    "openvino_*.xml": "OpenVINO",
    "*.onnx": "ONNX",
    "onnx/*.onnx": "ONNX",
    "consolidated.*.pth": "Meta (consolidated.*.pth)",
    "*.nemo": "NeMo",
    "*.tflite": "TensorFlow Lite",
    "tf_model.h5": "TensorFlow",
    "flax_model.msgpack": "Flax",
    "*.mlpackage": "Core ML",
    "rank*.engine": "TensorRT-LLM",
}
