"""The proof of a folder with fewer tokens: its tokens, its hidden states and its logits are the original's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.checkpoint import Checkpoint, load_model, load_tokenizer, read_tensor
from whet.errors import GateError
from whet.events import OnEvent, Stage
from whet.pruning.vocabulary import in_pieces
from whet.pruning.vocabulary.samples import SAMPLES, UNSEEN
from whet.steps.vocabulary_plan import Cut

_AT_ONCE = 256  # documents
_WINDOWS, _LENGTH = 4, 64
# Products of other sizes are summed in another order: the last digits of a type may differ, relative to the largest.
_ROUNDING = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def prove_cut(out: Path, cut: Cut, on_event: OnEvent) -> dict[str, Any]:
    """Prove what was written; raises GateError where it is not so.

    tokens: every document of the corpus whose tokens all stay has the same ones under both tokenizers (`same` of
    `documents`, which is all of them where tokens that occur once stay). unseen: text of no kept tokens comes back from
    them as it did. weights: every tensor was read back. model: of small ones, hidden states are equal bit for bit and
    logits are the original's rows, both loaded by stock transformers.
    """
    texts = list(in_pieces([*SAMPLES.values(), *cut.documents]))
    stage = Stage(on_event, "prove", 4)
    before, after = load_tokenizer(cut.checkpoint.path), load_tokenizer(out)
    tokens = _tokens(out, cut, before, after, texts)
    stage.step()
    unseen = _unseen(out, cut, before, after)
    stage.step()
    count = _weights(out, cut)
    stage.step()
    model: Any = "not run: the model is too large to load twice"
    if cut.small:
        model = _model(out, cut, _windows(cut, before, texts))
    stage.step()
    return {"tokens": tokens, "unseen": unseen, "weights": count, "model": model}


def _rows(tokenizer: Any, texts: Sequence[str]) -> Iterable[list[int]]:
    for first in range(0, len(texts), _AT_ONCE):
        some = list(texts[first : first + _AT_ONCE])
        yield from tokenizer(some, add_special_tokens=False, verbose=False)["input_ids"]


def _tokens(out: Path, cut: Cut, before: Any, after: Any, texts: Sequence[str]) -> dict[str, int]:
    ids, kept = cut.chosen.ids, set(cut.chosen.ids)
    same = whole = 0
    own = len(texts) - len(list(in_pieces(cut.documents)))  # whet's own sentences, of which nothing is promised
    for number, (old, new) in enumerate(zip(_rows(before, texts), _rows(after, texts), strict=True)):
        alike = old == [ids[one] if one < len(ids) else -1 for one in new]
        stays = kept.issuperset(old)
        if stays and not alike:
            raise GateError(
                "{out}: text of kept tokens is read as other tokens than before ({text!r}). Please report this "
                "tokenizer.",
                out=out,
                text=texts[number][:60],
            )
        if number >= own:
            same, whole = same + alike, whole + stays
    return {"documents": len(texts) - own, "same": same, "of kept tokens": whole}


def _unseen(out: Path, cut: Cut, before: Any, after: Any) -> str:
    """That unseen text comes back as it did from the original's tokens."""
    if not cut.pieces.falls_back:
        return "not run: the tokenizer has no bytes to fall back on"
    for text in (*UNSEEN, *SAMPLES.values()):
        told = [
            tokenizer.decode(
                tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"],
                clean_up_tokenization_spaces=False,
            )
            for tokenizer in (before, after)
        ]
        if told[0] != told[1]:
            raise GateError(
                "{out}: the text {text!r} comes back as {found!r} from its tokens. Please report this tokenizer.",
                out=out,
                text=told[0][:60],
                found=told[1][:60],
            )
    return "comes back"


def _weights(out: Path, cut: Cut) -> int:
    """How many tensors were written as they were to be; all of them, or GateError."""
    written, count = Checkpoint(out), 0
    for name, info in cut.checkpoint.stored.items():
        if name in cut.rows.without:
            continue
        wanted = cut.rows.taken(name, read_tensor(info)).contiguous()
        found = written.tensors.get(name)
        if found is None or found.shape != tuple(wanted.shape) or not _equal(written.read(name), wanted):
            raise GateError("{out}: tensor {name} is not what was written. Is the disk sound?", out=out, name=name)
        count += 1
    return count


def _equal(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, NaN too."""
    return torch.equal(*(value.reshape(-1).view(torch.uint8) for value in (one, other)))


def _windows(cut: Cut, tokenizer: Any, texts: Sequence[str]) -> list[Tensor]:
    """Windows of old ids that all stay, from the texts, or else of any tokens that stay."""
    kept, found = set(cut.chosen.ids), []
    for row in _rows(tokenizer, sorted(texts, key=len, reverse=True)[:_AT_ONCE]):
        stays = [one for one in row if one in kept][:_LENGTH]
        if len(stays) >= _LENGTH // 4:
            found.append(torch.tensor([stays]))
        if len(found) == _WINDOWS:
            break
    return found or [torch.tensor([cut.chosen.ids[:_LENGTH]])]


def _model(out: Path, cut: Cut, windows: Sequence[Tensor]) -> dict[str, Any]:
    """Both models, loaded by stock transformers, on the same text: how many hidden states were compared, and by how
    much logits differ, relative to the largest."""
    first, second = load_model(cut.checkpoint.path), load_model(out)
    new, gap, count = cut.chosen.new, 0.0, 0
    rows = torch.tensor(cut.chosen.ids)
    for window in windows:
        mine = torch.tensor([[new[old] for old in window[0].tolist()]])
        states, logits = _computed(first, window)
        others, theirs = _computed(second, mine)
        if len(states) != len(others) or not all(map(_equal, states, others)):
            raise GateError(
                "{out}: the model computes other hidden states than the original on the same text.", out=out
            )
        count += len(states)
        wanted = logits[..., rows] if logits.shape[-1] == cut.before else logits
        scale = wanted.float().abs().max().item() or 1.0
        gap = max(gap, (wanted.float() - theirs.float()).abs().max().item() / scale)
        if not gap <= _ROUNDING.get(logits.dtype, 1e-2):
            raise GateError("{out}: logits differ from the original's by {gap:.3g} of the largest.", out=out, gap=gap)
    return {"hidden states": count, "logits": gap}


def _computed(model: Any, window: Tensor) -> tuple[list[Tensor], Tensor]:
    """Hidden states of every layer, and logits."""
    more = {"decoder_input_ids": window} if model.config.is_encoder_decoder else {}
    with torch.inference_mode():
        found = model(input_ids=window, output_hidden_states=True, **more)
    names = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")
    return [state for name in names for state in getattr(found, name, None) or ()], found.logits
