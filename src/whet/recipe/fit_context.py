"""`fit_context`: a context in so much memory, by what keys and values are kept in, and what that loses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from whet.budget import parse_size
from whet.checkpoint import Checkpoint, check_files, context_length, model_config, size_on_disk
from whet.engines.cache import FULL, GROUP, CacheShape
from whet.engines.torch import TorchEngine, open_model
from whet.errors import UsageError, verb
from whet.events import OnEvent, Part, Stage, Way, ignore
from whet.measure.divergence import divergence
from whet.measure.fitting import Choice, Runtime, cheapest, fitted, most_tokens, runtimes
from whet.measure.positions import by_position
from whet.measure.sides import seconds_a_token
from whet.messages import Message
from whet.text import encode, read_text

WINDOW, WINDOWS = 2048, 4  # of text that losses are measured on, at most
_CONTEXT = re.compile(r"([1-9][0-9]*)([kKmM]?)")


@verb
def fit_context(
    folder: str | Path,
    *,
    context: str | int,
    memory: str | int,
    text: str | Path | Sequence[str] | None = None,
    field: str = "text",
    sequences: int = 1,
    window: int = WINDOW,
    windows: int = WINDOWS,
    seed: int = 0,
    device: str = "auto",
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """What keys and values of each layer are kept in so that weights and cache of `sequences` of `context` tokens fit
    into `memory`, with the least KL, and the flags that say so to vLLM, llama.cpp and whet.

    context: tokens, 32768 or 32k (1024 each). memory: bytes, 6GB. text: what the loss of a layer is measured on, in
    `windows` of at most `window` tokens, which may be fewer than the context: `positions` tells how it grows.

    Returns a JSON-able dict: `context`, `memory`, `weights` and `room` in bytes, `windowed` (layers that look back over
    a window only, which stay as they are), `losses` (KL by kind and layer), and `runtimes`, each with `kinds` by layer,
    `bytes`, `fits`, `kl`, `positions`, `most_tokens` that fit with the fewest bits it has, and `flags`. Raises
    UsageError for models without keys and values, and where the weights alone do not fit.
    """
    tokens = tokens_of(context)
    room_for = parse_size(memory, 0)
    checkpoint = Checkpoint(folder)
    most = context_length(checkpoint)
    if most is not None and tokens > most:
        raise UsageError(
            "{folder} has positions for {most} tokens, and {tokens} are asked for. Give --context {most} or less.",
            folder=checkpoint.path,
            most=most,
            tokens=tokens,
        )
    if text is None:
        raise UsageError("What a cache loses is measured on text: give --text FILE, of the kind the model is used for.")
    if sequences < 1 or window < 2 * GROUP or windows < 1:
        raise UsageError("sequences and windows are 1 or more, and window is {least} or more.", least=2 * GROUP)
    weights = size_on_disk(checkpoint.path)["weights"]
    if weights >= room_for:
        raise UsageError(
            "The weights of {folder} are {weights:,} bytes, and {memory:,} are given for weights and cache. Give more, "
            "or make the model lighter first (whet compress).",
            folder=checkpoint.path,
            weights=weights,
            memory=room_for,
        )
    itemsize = (model_config(checkpoint).dtype or checkpoint.dtype).itemsize
    shape = CacheShape.of(model_config(checkpoint), itemsize)
    check_files(checkpoint.path, on_event)
    engine = open_model(folder, device, kv=FULL)
    cut = _windows(engine, text, field, windows, min(window, tokens, most or window), seed)
    return {
        "folder": str(folder),
        "context": tokens,
        "sequences": sequences,
        "memory": room_for,
        "weights": weights,
        "room": room_for - weights,
        "windowed": [i for i, full in enumerate(shape.full) if not full],
        "window": len(cut[0]),
        **_found(engine, shape, cut, tokens, sequences, room_for - weights, on_event),
        "notes": _notes(shape, len(cut[0]), tokens),
    }


def tokens_of(context: str | int) -> int:
    """`32k` → 32768. Raises UsageError for what is no number of tokens."""
    match = _CONTEXT.fullmatch(str(context).strip())
    if match is None:
        raise UsageError("context {context!r} is no number of tokens. Give one, such as 32768 or 32k.", context=context)
    return int(match[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[match[2].lower()]


def _windows(engine: TorchEngine, text: Any, field: str, count: int, length: int, seed: int) -> list[Tensor]:
    """Up to `count` windows of `length` tokens, documents one behind the other, as a long conversation is."""
    documents = read_text(text, field).documents if isinstance(text, str | Path) else list(text)
    order = Random(seed).sample(range(len(documents)), len(documents))
    ids: list[int] = []
    for number in order:
        if len(ids) >= count * length:
            break
        ids += encode([documents[number]], engine.tokenizer)[0]
    if len(ids) < 2 * GROUP:
        raise UsageError("The text has {count} tokens: too few to tell what a cache loses. Give more.", count=len(ids))
    length = min(length, len(ids))
    return [torch.tensor(ids[at : at + length]) for at in range(0, len(ids) - length + 1, length)][:count]


def _found(
    engine: TorchEngine,
    shape: CacheShape,
    cut: Sequence[Tensor],
    tokens: int,
    sequences: int,
    room: int,
    on_event: OnEvent,
) -> dict[str, Any]:
    """Losses of single layers, and what each runtime takes."""
    known = runtimes(engine.model.config)
    full = [i for i, one in enumerate(shape.full) if one]
    kinds = list(dict.fromkeys(kind for one in known for kind in one.kinds if kind != FULL))
    count = sum(map(len, cut))
    each = 2 * seconds_a_token(engine.folder) * count
    way = Way(on_event, [Part("follow", each * len(full) * len(kinds)), Part("verify", each * len(known))])
    stage = Stage(way, "follow", len(full) * len(kinds))
    losses: dict[str, dict[int, float]] = {kind: {} for kind in kinds}
    for kind in kinds:
        for layer in full:
            one = [kind if i == layer else FULL for i in range(len(shape.full))]
            losses[kind][layer] = _kl(engine, cut, one)[0]
            stage.step()
    found, stage = {}, Stage(way, "verify", len(known))
    for runtime in known:
        found[runtime.name] = _runtime(runtime, engine, shape, cut, losses, tokens, sequences, room)
        stage.step()
    return {"losses": {kind: {str(i): kl for i, kl in by.items()} for kind, by in losses.items()}, "runtimes": found}


def _runtime(
    runtime: Runtime,
    engine: TorchEngine,
    shape: CacheShape,
    cut: Sequence[Tensor],
    losses: dict[str, dict[int, float]],
    tokens: int,
    sequences: int,
    room: int,
) -> dict[str, Any]:
    """What one runtime keeps, measured."""
    choice: Choice | None = fitted(runtime, shape, losses, tokens, sequences, room)
    kinds = cheapest(runtime, shape) if choice is None else choice.kinds
    kl, positions = _kl(engine, cut, kinds)
    fewest = cheapest(runtime, shape)
    return {
        "kinds": list(kinds),
        "bytes": sequences * shape.nbytes(kinds, tokens),
        "fits": choice is not None,
        "kl": kl,
        "positions": positions,
        "most_tokens": most_tokens(shape, fewest, sequences, room),
        "flags": runtime.flags(kinds, tokens if choice is not None else most_tokens(shape, fewest, sequences, room)),
    }


def _kl(engine: TorchEngine, cut: Sequence[Tensor], kinds: Sequence[str]) -> tuple[float, list[dict[str, Any]]]:
    """KL of the model to itself with keys and values kept so, in nats a token, and by position."""
    other = TorchEngine(engine.model, engine.tokenizer, engine.folder)
    other.own, other.scales = engine.own, engine.scales
    other.keep(kinds)
    with torch.no_grad():
        scores = divergence(engine, other, cut)
    return float(scores.kl.mean()), by_position(scores.kl, cut)


def _notes(shape: CacheShape, length: int, tokens: int) -> list[Message]:
    notes = [Message("what a runtime takes beside weights and cache is not counted")]
    if length < tokens:
        notes.append(
            Message(
                "losses are measured on windows of {length} tokens, and {tokens} are asked for: `positions` tells how "
                "they grow",
                length=length,
                tokens=tokens,
            )
        )
    if not all(shape.full):
        notes.append(
            Message(
                "{count} of {of} layers look back over {window} tokens only and stay as they are",
                count=len(shape.full) - sum(shape.full),
                of=len(shape.full),
                window=shape.window,
            )
        )
    return notes
