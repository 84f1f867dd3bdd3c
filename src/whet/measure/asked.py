"""What a comparison was asked with, and what both models read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.measure.common_tokens import alike_windows
from whet.measure.costs import Costs
from whet.measure.divergence import clusters_of
from whet.measure.material import read_material
from whet.measure.records import Material
from whet.measure.sides import context_of, must_be_runnable, notes_of, shared_tokenizer
from whet.measure.speed import DECODE_TOKENS, PREFILL_TOKENS
from whet.messages import Message
from whet.text import Amount, located_windows


@dataclass(frozen=True)
class Asked:
    """What `compare` was asked with. files: by aspect, its own material. kv: what the lighter one keeps keys and values
    in. precision: of several, the bits that it computes with. streamed: the lighter one's blocks lie on disk. classes:
    the field that says what kind each document is."""

    original: str | Path
    lighter: str | Path
    field: str
    chat: bool
    skip_bad: bool
    windows: int | None
    window: int
    batch_tokens: int
    seed: int
    device: str
    dtype: str | None
    speed: bool
    tasks: tuple[str, ...]
    use_report_split: bool | None
    examples: int
    files: Mapping[str, Material]
    costs: Costs = dataclasses.field(default_factory=Costs)
    kv: str | None = None
    precision: int | None = None
    streamed: bool = False
    classes: str = ""


@dataclass(frozen=True)
class Given:
    """What both models read: `windows` and what these are clustered by, the `documents` these are cut from (each
    window's), and a `prompt` to time them with, [] where nothing is timed. described: the text as the result has it."""

    windows: list[Tensor]
    clusters: list[int]
    documents: list[str]
    described: dict[str, Any]
    prompt: list[int]
    notes: list[Message]


def read_given(asked: Asked, text: str | Path | Sequence[str], task: str) -> Given:
    """Read the text, and cut it as both models can take it."""
    original, lighter, length = asked.original, asked.lighter, asked.window
    must_be_runnable((original, lighter), asked.tasks)
    tokenizer = shared_tokenizer(original, lighter)
    notes = notes_of(original, lighter) + ([_READ_AS[task]] if task in _READ_AS else [])
    context = min((n for n in map(context_of, (original, lighter)) if n is not None), default=None)
    if context is not None and context < length:
        notes.append(
            Message(
                "Windows have {context} tokens, the context of the model, instead of {asked}.",
                context=context,
                asked=length,
            )
        )
        length = context
    material = read_material(
        text,
        asked.lighter,
        tokenizer,
        field=asked.field,
        chat=asked.chat,
        skip_bad=asked.skip_bad,
        amount=Amount.enough(asked.windows, length),
        use_report_split=asked.use_report_split,
        seed=asked.seed,
        classes=asked.classes,
    )
    notes += material.notes
    found = located_windows(material.documents, tokenizer, asked.windows, length, asked.seed, material.source)
    found = alike_windows(found, tokenizer, notes)
    clusters, clustered_by = clusters_of(found, notes)
    described = {
        **material.described,
        "windows": len(found),
        "window": length,
        "tokens": sum(len(w.tokens) for w in found),
        "clusters": len(set(clusters)),
        "clustered_by": clustered_by,
    }
    tokens = [w.tokens for w in found]
    prompt: list[int] = []
    if asked.speed and task in ("causal", "seq2seq"):
        prompt = torch.cat(tokens)[: min(PREFILL_TOKENS, (context or 1 << 30) - DECODE_TOKENS - 1)].tolist()
    return Given(tokens, clusters, [material.documents[w.document] for w in found], described, prompt, notes)


_READ_AS = {
    "masked": Message("A masked model: at every position it is asked for the token that stands there, which it sees."),
    "seq2seq": Message(
        "An encoder and a decoder: both are given each window, and the decoder says what comes next in it."
    ),
}
