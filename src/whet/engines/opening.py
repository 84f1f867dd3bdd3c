"""Any model, opened in the runtime it is for: a folder in PyTorch, a .gguf file in llama.cpp."""

from __future__ import annotations

from pathlib import Path

import torch

from whet.checkpoint import check_files
from whet.checkpoint.gguf import is_gguf, model_file
from whet.engines.cache import find_cache
from whet.engines.llamacpp import LlamaEngine, open_gguf
from whet.engines.torch import TorchEngine, open_model
from whet.errors import UsageError, verb
from whet.events import OnEvent, ignore


def open_engine(
    model: str | Path, device: str = "auto", dtype: str | torch.dtype | None = None, threads: int | None = None
) -> TorchEngine | LlamaEngine:
    """`open_model` for a folder, `open_gguf` for a .gguf, which computes in its own types whatever `dtype` says."""
    if is_gguf(model):
        return open_gguf(model, threads)
    return open_model(model, device, dtype, threads)


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
    kv: str | None = None,
    on_event: OnEvent = ignore,
) -> str:
    """The text after `prompt`, from any model folder or .gguf; greedy at temperature 0, else sampled with `seed`.

    kv: what keys and values are kept in (`whet.engines.cache`): int8, int4, q4_0 or fp8.
    With `chat` the prompt is a user's turn in the model's chat template. Raises UsageError when the model has no
    template, when prompt and answer do not fit the model's context, or when a number is out of range.
    """
    if not prompt and not chat:
        raise UsageError("The prompt is empty. Give some words to continue.")
    for kind in () if kv is None else kv.split(","):
        find_cache(kind)
    folder = model_file(folder)
    if is_gguf(folder) and device not in ("auto", "cpu"):
        raise UsageError("{path} runs in llama.cpp, which whet runs on the processor. Leave --device out.", path=folder)
    check_files(folder, on_event)
    engine = open_engine(folder, device)
    if kv is not None:
        engine.keep(kv)
    ids = engine.encode(prompt, chat=chat)
    (new,) = engine.continue_ids([ids], max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    if engine.task == "seq2seq":
        return engine.decode(new)  # an answer to the prompt, not what comes after it
    # decoded together, because what a token says can depend on the one before it (a space, half a Korean syllable)
    before, whole = engine.decode(ids), engine.decode([*ids, *new])
    return whole[len(before) :] if whole.startswith(before) else engine.decode(new)
