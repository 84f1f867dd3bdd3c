"""Any model, opened in the runtime it is for: a folder in PyTorch, a .gguf in llama.cpp, an .onnx in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from whet.checkpoint import Checkpoint, check_files, check_precision
from whet.checkpoint.gguf import is_gguf
from whet.checkpoint.model_files import is_finished, is_graph, model_file
from whet.checkpoint.packing_whet import Packing
from whet.engines import onnx, openvino
from whet.engines.cache import FULL, find_cache
from whet.engines.cached import CachedEngine
from whet.engines.drafted import steppers, write
from whet.engines.dynamic import ChoosingEngine, check_asked, open_choosing, open_leaving
from whet.engines.llamacpp import LlamaEngine, open_gguf
from whet.engines.onnx import open_onnx
from whet.engines.packed import packing_of, tell_packing
from whet.engines.torch import TorchEngine, open_model
from whet.errors import UsageError, verb
from whet.events import OnEvent, ignore


def open_engine(
    model: str | Path,
    device: str = "auto",
    dtype: str | torch.dtype | None = None,
    threads: int | None = None,
    packing: Packing | None = None,
    precision: int | None = None,
) -> TorchEngine | LlamaEngine | CachedEngine:
    """`open_model` for a folder; for a finished file the engine of its runtime, which computes in its own types
    whatever `dtype` says and stays packed as it is."""
    if is_gguf(model):
        return open_gguf(model, threads)
    if is_graph(model):
        return open_graph(model, threads)
    return open_model(model, device, dtype, threads, packing, precision=precision)


def open_graph(path: str | Path, threads: int | None = None) -> CachedEngine:
    """A graph in its runtime, by its ending."""
    return open_onnx(path, threads) if _is_onnx(path) else openvino.open_openvino(path, threads)


def must_run_graphs(path: str | Path) -> None:
    """Raises MachineError where the package of the runtime that reads the graph `path` is not installed."""
    onnx.runtime() if _is_onnx(path) else openvino.runtime()


def _is_onnx(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".onnx"


@verb
def generate(
    folder: str | Path,
    prompt: str,
    *,
    max_new_tokens: int = 100,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    chat: bool = False,
    device: str = "auto",
    fast: bool = False,
    packed: bool = False,
    kv: str | None = None,
    precision: int | None = None,
    draft: str | Path | None = None,
    active: str | float | None = None,
    task: str | None = None,
    early_exit: bool = False,
    on_event: OnEvent = ignore,
) -> str:
    """The text after `prompt`, from any model folder or finished file; greedy at temperature 0, else sampled with
    `seed`.

    fast, packed: of a lighter folder, what stays packed in memory, as `whet.load` says. kv: what keys and values are
    kept in (`whet.engines.cache`): int8, int4, q4_0 or fp8, of all layers or, with commas, of each.
    precision: of a folder of several, the bits to compute with; of the draft's it says nothing.
    With `chat` the prompt is a user's turn in the model's chat template. draft: a lighter model that guesses tokens for
    this one to verify, which is faster and changes no answer: greedy the same, sampled the same distribution. Raises
    UsageError when the model has no template, when prompt and answer do not fit the model's context, when a number is
    out of range, or when `draft` cannot draft for it. An event `drafted` tells how many guessed tokens were kept.
    Of a folder of `whet.dynamic`, active: the share of channels that are used (50%), chosen by the prompt, or by the
    text `task` for every prompt of that kind; early_exit: tokens leave where they are sure. An event `dynamic` tells
    what was used.
    """
    if not prompt and not chat:
        raise UsageError("The prompt is empty. Give some words to continue.")
    for kind in () if kv is None else kv.split(","):
        find_cache(kind)
    if kv is not None and kv != FULL and draft is not None:
        raise UsageError("A draft keeps keys and values as they are computed. Leave --kv or --draft out.")
    if active is not None or task is not None or early_exit:
        check_asked(
            active, task, early_exit, {"fast": fast, "packed": packed, "kv": kv, "draft": draft, "precision": precision}
        )
        folder = model_file(folder)
        check_files(folder, on_event)
        decides = open_leaving(folder, device) if active is None else open_choosing(folder, active, task, device)
        ids = decides.encode(prompt, chat=chat)
        (new,) = decides.continue_ids([ids], max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
        on_event({"event": "dynamic", **decides.told()})
        return _behind(decides, ids, new)
    engine = _opened(folder, device, packing_of(fast, packed), on_event, precision)
    if kv is not None:
        keep(engine, kv)
    ids = engine.encode(prompt, chat=chat)
    if draft is None:
        (new,) = engine.continue_ids([ids], max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    else:
        other = _opened(draft, device, packing_of(fast, packed), on_event)
        steps, drafts = steppers(engine, other, 1, len(ids) + max_new_tokens)
        done = write(engine, steps, drafts, ids, max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
        new, rate = done.ids, len(done.ids) / max(done.seconds, 1e-9)
        on_event({"event": "drafted", "proposed": done.proposed, "kept": done.kept, "tokens_per_second": rate})
    if engine.task == "seq2seq":
        return engine.decode(new)  # an answer to the prompt, not what comes after it
    return _behind(engine, ids, new)


def _behind(
    engine: TorchEngine | LlamaEngine | CachedEngine | ChoosingEngine, ids: Sequence[int], new: Sequence[int]
) -> str:
    """The text of the tokens `new` behind `ids`, decoded together with them, because what a token says can depend on
    the one before it (a space, half a Korean syllable)."""
    before, whole = engine.decode(ids), engine.decode([*ids, *new])
    return whole[len(before) :] if whole.startswith(before) else engine.decode(new)


def keep(engine: TorchEngine | LlamaEngine | CachedEngine, kv: str) -> None:
    """Keep keys and values in `kv` from now on. Raises UsageError where the runtime has a way of its own."""
    if isinstance(engine, CachedEngine):
        raise UsageError(
            "{folder} is a graph, which keeps keys and values its own way. Leave --kv out.", folder=engine.folder
        )
    engine.keep(kv)


def must_have_precision(model: str | Path, precision: int | None) -> None:
    """Raises UsageError for a precision that `model` does not have."""
    if precision is None:
        return
    if is_finished(model):
        raise UsageError("{path} is a file of one precision. Leave precision out, or give its folder.", path=model)
    check_precision(Checkpoint(model), precision)


def _opened(
    model: str | Path, device: str, packing: Packing | None, on_event: OnEvent, precision: int | None = None
) -> TorchEngine | LlamaEngine | CachedEngine:
    """A model with its files checked; what stays packed of it is told."""
    model = model_file(model)
    if is_finished(model) and device not in ("auto", "cpu"):
        raise UsageError(
            "{path} runs in a runtime of its own, which whet runs on the processor. Leave --device out.", path=model
        )
    if is_finished(model) and packing is not None:
        raise UsageError(
            "{path} runs in a runtime of its own, which keeps it packed as it is. Leave --fast and --packed out.",
            path=model,
        )
    must_have_precision(model, precision)
    check_files(model, on_event)
    engine = open_engine(model, device, packing=packing, precision=precision)
    tell_packing(packing, model, on_event)
    return engine
