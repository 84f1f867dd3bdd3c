"""What a model is tuned on: windows of tokens with a mark at each that is to be learnt, and batches of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.checkpoint import Checkpoint, context_length, load_tokenizer
from whet.errors import UsageError
from whet.messages import Message
from whet.steps.material import Material, windows_of
from whet.steps.options import Dynamic, Tune
from whet.text import Amount, ChatTemplate, Conversation, encode, fingerprint, read_text, split, written_out
from whet.text.calibration import verify_count
from whet.train import PIECE, Batch

_LEAST = 2  # tokens of a window: one to read and one to predict
AT_ONCE = 2048  # tokens that go through the model together, at the least one window


def read_learnt(checkpoint: Checkpoint, asked: Tune | Dynamic, seed: int) -> Material:
    """Windows int64 `[2, L]`: tokens, and 1 for each that is to be predicted.

    Of conversations those are the assistant's replies, unless all of it was asked for; each conversation is windows of
    its own. Raises UsageError where there is no text, too little, or nothing to learn in it.
    """
    if asked.text is None:
        raise UsageError("No text was given to train on. Give --text FILE, of the kind the model is to be used for.")
    chats = _conversations(checkpoint, asked, asked.text) if asked.mask else []
    if chats:
        return _masked(checkpoint, asked, chats, seed)
    found = windows_of(asked, checkpoint, seed)
    return _checked(Material(marked(found.solve), marked(found.verify), found.about, notes=found.notes))


def marked(windows: Sequence[Tensor]) -> list[Tensor]:
    """Windows of tokens, all of which are learnt."""
    return [torch.stack([tokens, torch.ones_like(tokens)]) for tokens in windows if len(tokens) >= _LEAST]


def _checked(material: Material) -> Material:
    if not material.solve or not material.verify:
        raise UsageError(
            "The text is too short to train on and to check it by: {train} windows to train on, {verify} to check. "
            "Give more text, a smaller --window, or --eval FILE.",
            train=len(material.solve),
            verify=len(material.verify),
        )
    return material


def _conversations(checkpoint: Checkpoint, asked: Tune | Dynamic, text: Any) -> list[Conversation]:
    """The conversations in a text; none where it is no such text."""
    tokenizer = load_tokenizer(checkpoint.path)
    if isinstance(text, str | Path):
        if str(text).endswith((".safetensors", ".txt", ".md")):
            return []
        amount = Amount.enough(asked.most_samples, asked.window)
        found = read_text(
            text,
            asked.field,
            chat=asked.chat,
            tokenizer=tokenizer,
            skip_bad=asked.skip_bad,
            amount=amount,
            replies=True,
        )
        every: list[str] = found.documents
    elif asked.chat and isinstance(text, Sequence):
        with ChatTemplate(tokenizer) as template:
            every = [written_out(template, one, Message("the documents given"), replies=True) for one in text]  # type: ignore[arg-type]
    else:
        return []
    return [one for one in every if isinstance(one, Conversation)]


def _masked(checkpoint: Checkpoint, asked: Tune | Dynamic, chats: Sequence[Conversation], seed: int) -> Material:
    """Windows of conversations in which the replies are marked."""
    tokenizer = load_tokenizer(checkpoint.path)
    if not tokenizer.is_fast:
        raise UsageError(
            "{folder}: its tokenizer does not tell which letters its tokens are, so replies cannot be told from "
            "prompts. Train on all of it with --no-mask.",
            folder=checkpoint.path,
        )
    window = min(asked.window, context_length(checkpoint) or asked.window)
    if asked.eval_text is not None:
        learnt, checking = list(chats), _conversations(checkpoint, asked, asked.eval_text)
    else:
        learnt, checking = _parted(chats, seed)
    solve, verify = ([cut for one in some for cut in _cut(one, tokenizer, window)] for some in (learnt, checking))
    draw = random.Random(seed)
    solve = draw.sample(solve, min(len(solve), asked.most_samples))
    verify = draw.sample(verify, min(len(verify), 4 * verify_count(asked.most_samples)))
    about = {
        "source": Path(str(asked.text)).name if isinstance(asked.text, str | Path) else "documents given",
        "fingerprint": fingerprint(chats),
        "seed": seed,
        "window": window,
        "windows": len(solve),
        "tokens": sum(one.shape[1] for one in solve),
        "learnt": sum(int(one[1].sum()) for one in solve),
        "verify_windows": len(verify),
    }
    note = Message(
        "{count} conversations: {learnt} of {tokens} tokens are replies, and these alone are learnt (--no-mask learns "
        "all)",
        count=len(chats),
        learnt=about["learnt"],
        tokens=about["tokens"],
    )
    return _checked(Material(solve, verify, about, notes=(note,)))


def _parted(chats: Sequence[Conversation], seed: int) -> tuple[list[Conversation], list[Conversation]]:
    """Conversations to learn and to check by, a tenth: whole ones, also where they are few."""
    distinct = list(dict.fromkeys(chats))
    if len(distinct) >= 20:
        parts = split(distinct, seed)
        if parts.how == "documents":
            return parts.solve, parts.verify  # type: ignore[return-value]
    order = random.Random(seed).sample(distinct, len(distinct))
    count = max(1, len(order) // 10)
    return order[count:], order[:count]


def _cut(chat: Conversation, tokenizer: Any, window: int) -> list[Tensor]:
    """The windows of one conversation that have something to learn."""
    (row,) = encode([str(chat)], tokenizer)
    places = tokenizer(str(chat), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    marks = [int(any(first <= start < last for first, last in chat.replies)) for start, _ in places]
    tokens, marked = torch.tensor(row), torch.tensor([0] * (len(row) - len(marks)) + marks)
    pieces = torch.stack([tokens, marked]).split(window, 1)
    return [piece for piece in pieces if piece.shape[1] >= _LEAST and int(piece[1, 1:].sum()) > 0]


def batch_of(windows: Sequence[Tensor]) -> Batch:
    """Windows `[2, L]` beside each other, padded behind: tokens, and the weight of what follows each."""
    longest = max(one.shape[1] for one in windows)
    ids = torch.zeros(len(windows), longest, dtype=torch.int64)
    weights = torch.zeros(len(windows), longest)
    for row, one in enumerate(windows):
        ids[row, : one.shape[1]] = one[0]
        weights[row, : one.shape[1] - 1] = one[1, 1:].float()
    return {"input_ids": ids, "weights": weights}


def in_batches(windows: Sequence[Tensor]) -> list[Batch]:
    """All of `windows`, the longest first, AT_ONCE tokens together."""
    order = sorted(windows, key=lambda one: -one.shape[1])
    found, some = [], list[Tensor]()
    for one in order:
        if some and some[0].shape[1] * (len(some) + 1) > AT_ONCE:
            found.append(batch_of(some))
            some = []
        some.append(one)
    return [*found, batch_of(some)]


class Batches:
    """The batches of a step, by its number: about `tokens` tokens, all windows once before any comes again."""

    def __init__(self, windows: Sequence[Tensor], tokens: int, seed: int) -> None:
        self.windows, self.seed = list(windows), seed
        mean = sum(one.shape[1] for one in windows) / len(windows)
        self.rows = max(1, min(len(windows), round(tokens / mean)))
        self._order: tuple[int, list[int]] = (-1, [])

    @property
    def epoch(self) -> int:
        """Steps that go once through the text, at the least."""
        return -(-len(self.windows) // self.rows)

    def __call__(self, step: int) -> list[Batch]:
        places = range(step * self.rows, (step + 1) * self.rows)
        return in_batches([self.windows[self._at(place)] for place in places])

    def _at(self, place: int) -> int:
        epoch, inside = divmod(place, len(self.windows))
        if self._order[0] != epoch:
            order = list(range(len(self.windows)))
            random.Random(self.seed * 1_000_003 + epoch).shuffle(order)
            self._order = (epoch, order)
        return self._order[1][inside]


def judge_of(windows: Sequence[Tensor], losses: Callable[[Batch], Tensor]) -> Callable[[Any], Tensor]:
    """What a model loses on held-out text, as `lost_on` has it.

    losses: of a batch, what every position loses.
    """
    some = in_batches(windows)

    def judged(model: Any) -> Tensor:
        return lost_on(some, losses, model.device)

    return judged


def lost_on(some: Sequence[Batch], losses: Callable[[Batch], Tensor], device: Any) -> Tensor:
    """What is lost on held-out batches, a number for each piece of `PIECE` tokens; their mean is that of a token."""
    total = sum(float(batch["weights"].sum()) for batch in some)
    sums: list[Tensor] = []
    for batch in some:
        on = {name: value.to(device) for name, value in batch.items()}
        weights = on["weights"].double()
        found = (losses(on).double() * weights).split(PIECE, 1)
        counts = [part.sum(1) for part in weights.split(PIECE, 1)]
        sums += [part.sum(1)[count > 0] for part, count in zip(found, counts, strict=True)]
    every = torch.cat(sums)
    return every * len(every) / total
