"""The text of a run, as the windows it solves on and those it verifies with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.checkpoint import Checkpoint, context_length, load_tokenizer, read_header, read_tensor
from whet.errors import UsageError
from whet.messages import Message
from whet.text import Amount, ChatTemplate, Found, fingerprint, read_text, split, windows

VERIFY_WINDOWS = 16  # at most; they flow in both streams, so each costs two
_SHORT = 16  # times as many, where documents are shorter than a window


@dataclass(frozen=True)
class Windows:
    """Windows, int64, that solve and that verify; what the lineage says of the text, and what a person should know."""

    solve: list[Tensor]
    verify: list[Tensor]
    about: dict[str, Any]
    notes: tuple[Message, ...] = ()


def verify_count(samples: int) -> int:
    """Windows that verify beside `samples` that solve."""
    return min(VERIFY_WINDOWS, max(1, samples // 8))


def read_windows(
    checkpoint: Checkpoint,
    text: Any,
    eval_text: Any,
    *,
    field: str,
    chat: bool,
    samples: int,
    window: int,
    seed: int,
    skip_bad: bool = False,
    verify: int | None = None,
) -> Windows:
    """Solving and verifying windows.

    text: a path or hub name, documents, or windows already cut (a list of int64 tensors, `[n, L]`, or a safetensors
    file that holds `windows [n, L]`), with which eval_text is windows too. Without `eval_text` the text is split
    80/10/10 and only the first two parts are used; with it, all of `text` solves and `eval_text` verifies.
    verify: how many windows verify, at the most (None: a few, by `samples`).
    """
    ready = _ready_windows(text)
    if ready is not None:
        about = {"source": "windows given", "windows": len(ready)}
        return Windows(ready, _ready_windows(eval_text) or [], about)
    window = min(window, context_length(checkpoint) or window)
    tokenizer = load_tokenizer(checkpoint.path)
    source = str(text) if isinstance(text, (str, Path)) else Message("documents given")
    amount = Amount.enough(samples, window)
    found = _documents(text, field, chat, skip_bad, tokenizer, amount)
    documents, notes = found.documents, found.notes
    about = {
        "source": Path(str(source)).name,
        "fingerprint": fingerprint(documents),
        "seed": seed,
        "window": window,
        **({"read": found.read} if found.read else {}),
    }
    if eval_text is None:
        parts = split(documents, seed)
        solving, verifying = parts.solve, parts.verify
        about |= {"split": parts.how, "shares": [0.8, 0.1, 0.1]}
    else:
        solving = documents
        found = _documents(eval_text, field, chat, skip_bad, tokenizer, amount)
        verifying, notes = found.documents, (*notes, *found.notes)
        about |= {"split": "eval given", "eval_fingerprint": fingerprint(verifying)}
    solve = windows(solving, tokenizer, samples, window, seed, source)
    try:
        checking = _verifying(verifying, tokenizer, verify or verify_count(samples), window, seed, source)
    except UsageError:
        if eval_text is not None:
            raise
        checking = []  # a tenth of a short text may be less than a window; the run goes on without a verifying stream
    about |= {"windows": len(solve), "tokens": sum(len(w) for w in solve), "verify_windows": len(checking)}
    return Windows(solve, checking, about, notes)


def _verifying(
    documents: Sequence[str], tokenizer: Any, count: int, window: int, seed: int, source: str
) -> list[Tensor]:
    """`count` windows, or where documents are short as many as hold the tokens of `count` full ones."""
    found = windows(documents, tokenizer, count, window, seed, source)
    tokens = sum(len(one) for one in found)
    if len(found) == count and tokens < count * window:
        more = min(_SHORT * count, count * count * window // tokens)
        found = windows(documents, tokenizer, more, window, seed, source)
    return found


def _documents(text: Any, field: str, chat: bool, skip_bad: bool, tokenizer: Any, amount: Amount) -> Found:
    if isinstance(text, (str, Path)):
        return read_text(text, field, chat=chat, tokenizer=tokenizer, skip_bad=skip_bad, amount=amount)
    if not chat:
        return Found(list(text))
    with ChatTemplate(tokenizer) as template:
        return Found([template.render(one, Message("the documents given")) for one in text])


def _ready_windows(text: Any) -> list[Tensor] | None:
    if isinstance(text, (str, Path)) and str(text).endswith(".safetensors"):
        path = Path(text)
        if not path.is_file():
            raise UsageError(
                "{path} does not exist. Give a safetensors file that holds int64 windows [n, L].", path=path
            )
        found = read_header(path)
        if "windows" not in found or len(found["windows"].shape) != 2:
            raise UsageError(
                "{path} holds no tensor `windows` of shape [n, L]. Write the token windows under that name.", path=path
            )
        text = read_tensor(found["windows"])
    if isinstance(text, Tensor):
        text = list(text)
    if isinstance(text, list) and text and isinstance(text[0], Tensor):
        return [window.to(torch.int64).cpu().contiguous() for window in text]
    return None
