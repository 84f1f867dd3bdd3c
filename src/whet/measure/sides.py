"""The two sides of a comparison, whatever they are stored as: a model folder, or a runtime's finished file."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from whet.anatomy import anatomy, stock_config, task_in
from whet.checkpoint import Checkpoint, context_length, load_tokenizer, rows_between, size_on_disk
from whet.checkpoint.gguf import is_gguf, read_gguf
from whet.checkpoint.memory import available_memory
from whet.checkpoint.model_files import (
    graph_config,
    graph_manifest,
    is_finished,
    is_graph,
    parameters_of,
    size_of_file,
)
from whet.engines.llamacpp import available, open_gguf, vocabulary
from whet.engines.opening import must_run_graphs
from whet.engines.streamed import stacks_of
from whet.engines.torch import DTYPES, resolve_device
from whet.errors import MachineError, UsageError
from whet.measure.classes import TASKS, kind_of, labels_of
from whet.measure.common_tokens import CommonTokens
from whet.measure.divergence import CHUNK
from whet.measure.items import Item
from whet.messages import Message
from whet.strict import parse_json


def size_of(model: str | Path) -> dict[str, int]:
    """Bytes by part, as `size_on_disk` gives them."""
    return size_of_file(model) if is_finished(model) else size_on_disk(model)


def config_of(model: str | Path) -> dict[str, Any]:
    """The config.json of a folder, or of a graph; {} of a .gguf."""
    if is_gguf(model):
        return {}
    return graph_config(model) if is_graph(model) else Checkpoint(model).config


def folder_of(model: str | Path) -> Path:
    """The folder that tells of a model: itself, or that of its file."""
    return Path(model).parent if is_finished(model) else Path(model)


def context_of(model: str | Path) -> int | None:
    """The most tokens a sequence may have, if the model says."""
    if is_graph(model):
        said = getattr(stock_config(graph_config(model)).get_text_config(), "max_position_embeddings", None)
        return said if isinstance(said, int) else None
    if not is_gguf(model):
        return context_length(Checkpoint(model))
    value = read_gguf(model).setting("context_length")
    return value if isinstance(value, int) else None


def weights_of(model: str | Path, dtype: str | None) -> tuple[int, int]:
    """How many numbers the model holds, and the bytes it takes in memory when it computes in `dtype`."""
    if is_finished(model):
        return parameters_of(model)
    checkpoint = Checkpoint(model)
    count = sum(math.prod(shape) for shape in checkpoint.shapes.values())
    return count, count * (DTYPES[dtype].itemsize if dtype in DTYPES else checkpoint.dtype.itemsize)


def seconds_a_token(model: str | Path, dtype: str | None = None) -> float:
    """About how long a token takes through a model here: one multiplication a weight, at half of the rate of a large
    product, which a model reaches at best."""
    weights, _ = weights_of(model, dtype)
    square = torch.ones(512, 512)
    started = time.perf_counter()
    for _ in range(4):
        square @ square
    a_second = 4 * 512**3 / (time.perf_counter() - started)
    return weights / (a_second / 2)


def item_tokens(items: Sequence[Item]) -> int:
    """About how many tokens questions and their answers are."""
    return sum(len(item.prompt.encode()) // 2 + (20 if item.answer else 10 * len(item.choices)) for item in items)


def memory_of(original: str | Path, lighter: str | Path, dtype: str | None, streamed: bool = False) -> int:
    """Bytes that both models take side by side: decoded, with the logits that are compared at once. streamed: of the
    lighter one without its blocks, but for one."""
    _, width = weights_of(original, dtype)
    # a lighter folder is decoded to what the original takes
    second = weights_of(lighter, dtype)[1] if is_finished(lighter) else width
    if streamed:
        blocks = _blocks(original, dtype)
        second -= sum(blocks) - max(blocks, default=0)
    return width + second + 8 * 4 * CHUNK + 500_000_000


def stored_blocks(original: str | Path, dtype: str | None) -> int:
    """Bytes of disk that the blocks take, decoded."""
    return sum(_blocks(original, dtype))


def _blocks(model: str | Path, dtype: str | None) -> list[int]:
    """Bytes of each block of an original, computing in `dtype`."""
    checkpoint = Checkpoint(model)
    read = anatomy(checkpoint.config, checkpoint.shapes, str(model))
    width = DTYPES[dtype].itemsize if dtype in DTYPES else checkpoint.dtype.itemsize
    return [width * sum(math.prod(checkpoint.shapes[name]) for name in names) for names in read.block_tensors]


def must_be_streamable(original: str | Path, lighter: str | Path) -> None:
    """Raises UsageError for a file, whose runtime reads it as it likes, and for a family that is not known."""
    for model in (original, lighter):
        if is_finished(model):
            raise UsageError(
                "{path} is a finished file, whose blocks its runtime keeps. Leave --streamed out, or give its folder.",
                path=model,
            )
        stacks_of(Checkpoint(model).config, model)


def must_have_disk(needs: int, folder: str | Path) -> None:
    """Raises MachineError where `needs` bytes are not free where `folder` is."""
    free = shutil.disk_usage(folder).free
    if free < needs:
        raise MachineError(
            "The decoded blocks of the lighter model take {needs:.1f} GB of disk, and {free:.1f} GB are free where "
            "{folder} is. Name another folder for temporary files in the environment: TMPDIR=/path.",
            needs=needs / 1e9,
            free=free / 1e9,
            folder=Path(folder).parent,
        )


def must_have_room(memory: int, device: str) -> None:
    """Raises MachineError where `memory` bytes for both models are not free; a GPU says so itself."""
    available = available_memory() if resolve_device(device) == "cpu" else None
    if available is not None and available < memory:
        raise MachineError(
            "Comparing needs about {needs:.1f} GB of memory for both models side by side, and {free:.1f} GB are free. "
            "Use a smaller type (dtype bfloat16), or a machine with more memory.",
            needs=memory / 1e9,
            free=available / 1e9,
        )


def lineage_of(model: str | Path) -> list[dict[str, Any]]:
    """The steps that made a lighter model, as whet.json or the file itself tells them; [] for anything else."""
    if is_graph(model):
        return graph_manifest(model).get("lineage") or []
    if not is_gguf(model):
        return (Checkpoint(model).whet or {}).get("lineage") or []
    try:
        about = parse_json(read_gguf(model).metadata.get("whet.lineage", "{}"))
        steps = about.get("lineage") or []
    except (ValueError, AttributeError, TypeError):
        return []
    return [step for step in steps if isinstance(step, dict)]


def must_be_this_way_round(original: str | Path, lighter: str | Path, size: Mapping[str, Mapping[str, int]]) -> None:
    """Raises UsageError where the first model was made by whet, and the second is none of whet's and larger: every
    figure would tell what the original kept of the lighter one."""
    larger = size["lighter"]["total"] > size["original"]["total"]
    if larger and lineage_of(original) and not lineage_of(lighter):
        raise UsageError(
            "{first} is the lighter model (whet made it) and {second} is larger: the original comes first. Give them "
            "the other way round: whet compare {second} {first}.",
            first=original,
            second=lighter,
        )


RUNTIMES = {".gguf": "llama.cpp", ".onnx": "onnxruntime", ".xml": "OpenVINO"}


def runtime_of(model: str | Path) -> str:
    """What runs a model."""
    return RUNTIMES[Path(model).suffix.lower()] if is_finished(model) else "PyTorch"


def notes_of(original: str | Path, lighter: str | Path) -> list[Message]:
    """What a reader has to know of how the two are stored and run."""
    found = []
    runtimes = [runtime_of(model) for model in (original, lighter)]
    if runtimes[0] != runtimes[1]:
        found.append(
            Message(
                "The original runs in {first}, the lighter model in {second}: the figures hold the difference of the "
                "runtimes too, such as inputs in 8 bits, and so do speed and memory.",
                first=runtimes[0],
                second=runtimes[1],
            )
        )
    if not is_finished(lighter) and "auto_map" in Checkpoint(lighter).config:
        found.append(
            Message(
                "The lighter folder needs its own modelling file: stock transformers loads it with "
                "trust_remote_code=True, whet loads it without."
            )
        )
    return found


def must_say_tokens(original: str | Path) -> str:
    """What the original answers; refuses a model with a class head, which says no token."""
    if is_gguf(original):
        return "causal"
    task = task_in(config_of(original))
    if task in TASKS:
        raise UsageError(
            "{folder} gives classes, scores or hidden states and no tokens, so there is no token to measure. whet "
            "compare tells what it kept of these.",
            folder=original,
        )
    return task


_UNITS = {
    "classification": Message("texts"),
    "tokens": Message("tokens"),
    "spans": Message("texts"),
    "states": Message("texts"),
}


def answers_of(original: str | Path, lighter: str | Path) -> tuple[str, str]:
    """What both models answer, as `measure.figures.ANSWERED` has it, and the task.

    Raises UsageError where they do not answer alike.
    """
    if is_gguf(original):
        return "predictions", "causal"
    config = config_of(original)
    task = task_in(config)
    if task not in TASKS:
        return "predictions", must_say_tokens(original)
    theirs = config_of(lighter)
    labels = labels_of(config), labels_of(theirs)
    if task_in(theirs) != task or labels[0] != labels[1]:
        raise UsageError(
            "{original} gives {count} labels for each of the {of}, and {lighter} does not. Give the original that the "
            "lighter model was made from.",
            original=original,
            lighter=lighter,
            count=labels[0],
            of=_UNITS[task],
        )
    return kind_of(task, config, labels[0]), task


def must_be_askable(original: str | Path, task: str, skills: Any, tasks: Any) -> None:
    """Raises UsageError where a model with a class head is asked what only one that writes can answer."""
    if task in TASKS and (skills is not None or tasks):
        raise UsageError(
            "{folder} gives classes, scores or hidden states and does not write, so it answers no questions. Leave "
            "skills and tasks out.",
            folder=original,
        )


def shared_tokenizer(original: str | Path, lighter: str | Path) -> Any:
    """The tokenizer of both, a folder's where there is one; of a lighter model with fewer tokens both in one, whose ids
    are the lighter's (`CommonTokens`). Raises UsageError where they differ otherwise.

    Numbers that a .gguf has no row for (tokens a model was never given) do not count.
    """
    ours, theirs = _words(original), _words(lighter)
    between = rows_between(original, lighter)
    if between is not None:
        place = {old: number for number, old in enumerate(between)}
        ours = {token: place[old] for token, old in ours.items() if old in place}
        theirs = {token: number for token, number in theirs.items() if number < len(between)}
    rows = [len(read_gguf(model).tokens) for model in (original, lighter) if is_gguf(model)]
    least = min(rows, default=None)
    if least is not None:
        ours, theirs = ({token: i for token, i in words.items() if i < least} for words in (ours, theirs))
    if ours != theirs:
        different = sum(ours.get(token) != i for token, i in theirs.items()) + len(ours.keys() - theirs.keys())
        raise UsageError(
            "{lighter} and {original} have different tokenizers ({count} tokens differ), so their predictions cannot "
            "be compared token by token. Give the original that the lighter model was made from.",
            lighter=lighter,
            original=original,
            count=different,
        )
    if between is not None:
        return CommonTokens(_tokenizer(original), _tokenizer(lighter), between)
    folder = next((model for model in (original, lighter) if not is_gguf(model)), None)
    return _tokenizer(original if folder is None else folder)


def _tokenizer(model: str | Path) -> Any:
    return open_gguf(model).tokenizer if is_gguf(model) else load_tokenizer(folder_of(model))


def must_be_runnable(models: Sequence[str | Path], tasks: Any) -> None:
    """Raises, before the long part, where a file cannot be opened here, or is asked what only a folder can be."""
    files = [model for model in models if is_finished(model)]
    if files and tasks:
        raise UsageError(
            "Tasks are run on folders, and {path} is a finished file. Leave tasks out, or give its folder.",
            path=files[0],
        )
    for model in files:
        if is_graph(model):
            must_run_graphs(model)
            continue
        read_gguf(model)
        if not available():
            raise MachineError(
                "Comparing {path} needs llama.cpp, which is not installed here. Install it: pip install "
                "'whet[llamacpp]' (it is compiled for this machine, which takes some minutes and a C++ compiler).",
                path=model,
            )


def _words(model: str | Path) -> Mapping[str, int]:
    return vocabulary(read_gguf(model)) if is_gguf(model) else load_tokenizer(folder_of(model)).get_vocab()
