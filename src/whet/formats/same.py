"""Whether a runtime's file is the model that its folder is in PyTorch: the odds on the next token, and the text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor

from whet.engines import Engine
from whet.engines.torch import TorchEngine
from whet.errors import GateError
from whet.measure.divergence import score_tokens
from whet.messages import Message
from whet.text import encode, windows

WINDOWS, WINDOW = 16, 128
_NEW_TOKENS = 32
_PROMPTS = 3
# Text of several kinds, where tokenizers differ: Korean, digits, runs of spaces, line ends, marks, other scripts.
SAMPLES = (
    "Once upon a time there was a small fox who lived at the edge of a forest. Every morning she counted the trees.",
    "옛날 옛적 깊은 산속에 호랑이 한 마리가 살았습니다. 호랑이는 아침마다 강가에 나가 물을 마시고 노래를 불렀지요.",
    "The price rose from 1,299.50 to 2300 in 1987; that's 77 % more, isn't it? I'LL say \"yes\" (perhaps).",
    "오늘은 3월 14일, 기온은 영하 2.5도입니다. GPU 2개로 whet을 실행했더니 40%가 줄었다!",
    "def add(a, b):\n    # sum\n\treturn a + b\n\n\nprint(add(2, 40))   #  two  spaces\r\n",
    "Ünïcödé, 日本語のテキスト, русский, emoji 🙂👍🏽, a​zero width, ﬁ ligature, ½, ㈜한글, ㄱㄴㄷ.",
    " leading space, trailing space ",
)


def checked_windows(mine: TorchEngine, documents: Sequence[str] | None, length: int) -> list[Tensor]:
    """Windows of `documents`, or of SAMPLES, of at most `length` tokens, to compare on."""
    if documents:
        return windows(documents, mine.tokenizer, WINDOWS, length, 0, Message("the text to check on"))
    rows = [torch.tensor(row[:length]) for row in encode(SAMPLES, mine.tokenizer)]
    return [row for row in rows if len(row) > 1]


def same_odds(
    mine: TorchEngine, theirs: Engine, cut: Sequence[Tensor], most: float, architecture: str
) -> dict[str, float]:
    """Mean KL in nats a token, which must be at most `most`, and the largest difference of two logits."""
    path = theirs.folder
    total, count, largest = 0.0, 0, 0.0
    for row in cut:
        batch = row[None]
        ours = mine.logits(batch).float()
        other = torch.cat(list(theirs.logit_chunks(batch, batch.numel())), dim=1)
        if not torch.isfinite(other).all():
            raise GateError(
                "{path}: {runtime} computes logits that are not finite. A type overflows: try --type bf16.",
                path=path,
                runtime=theirs.name,
            )
        width = min(ours.shape[-1], other.shape[-1])
        kl, *_ = score_tokens(ours[:, :-1, :width], other[:, :-1, :width], batch[:, 1:])
        total, count = total + kl.double().sum().item(), count + kl.numel()
        largest = max(largest, (ours[..., :width] - other[..., :width]).abs().max().item())
    if not total / count <= most:
        raise GateError(
            "{path}: the odds on the next token in {runtime} differ from the folder's by KL {kl:.3g} nats a "
            "token, more "
            "than the arithmetic of its types explains ({most:g}). The architecture {name} may compute something else "
            "for this config; please report it.",
            path=path,
            runtime=theirs.name,
            kl=total / count,
            most=most,
            name=architecture,
        )
    return {"kl": total / count, "most_kl": most, "largest_difference": largest}


def same_text(
    mine: TorchEngine, theirs: Engine, cut: Sequence[Tensor], near: float, looks_back: int = 0
) -> dict[str, int]:
    """Greedy continuations must be the same, but for choices that lie within what arithmetic may move.

    `same` counts continuations that are equal throughout, `close` those that part where the logits of the two tokens
    were at most `near` to each other. looks_back: an attention window that the runtime has not, beyond which nothing is
    compared; 0 for none.
    """
    room = min(most or 1 << 30 for most in (mine.context, theirs.context, looks_back)) - 1
    prompts = [row[: max(2, min(len(row) // 2, room - 1))].tolist() for row in cut[:_PROMPTS]]
    new = min(_NEW_TOKENS, min(room - len(prompt) for prompt in prompts))
    if new < 1:
        return {"same": 0, "close": 0, "of": 0}
    close = 0
    for prompt, a, b in zip(prompts, mine.continue_ids(prompts, new), theirs.continue_ids(prompts, new), strict=True):
        b = list(takewhile(lambda token: token not in mine.ends, b))  # a note says where a runtime does not stop
        if a == b:
            continue
        at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        logits = mine.logits(torch.tensor([[*prompt, *a[:at]]]))[0, -1].float()
        best = logits.max()
        other = logits[b[at]] if at < len(b) else max(logits[end] for end in mine.ends)
        if best - other > near:
            raise GateError(
                "{path}: {runtime} goes on with another text than the folder after {prompt!r}: {theirs!r} instead of "
                "{mine!r}.",
                path=theirs.folder,
                runtime=theirs.name,
                prompt=mine.decode(prompt)[-40:],
                theirs=theirs.decode(b)[:60],
                mine=mine.decode(a)[:60],
            )
        close += 1
    return {"same": len(prompts) - close, "close": close, "of": len(prompts)}
