"""How far the lighter model's next-token distribution is from the original's, token by token on the same text.

KL(original || lighter) is the deciding figure: it sees every token of every position, while perplexity sees only the
token that came and can even fall when a model gets worse. Both models run side by side, so nothing is stored but four
numbers a token. Every position that has a next token counts, also the first ones of a window.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whet.engines import Engine
from whet.errors import GateError, UsageError
from whet.events import OnEvent, Stage, ignore
from whet.measure.statistics import Estimate, Floats, clustered_ratio, percentiles, skewed_ratio, wilson
from whet.messages import Message
from whet.text import Window, batch_indices

CHUNK = 1 << 24  # logits looked at together: 64 MiB in fp32, of which a few copies live at once
Collect = Callable[[Tensor, Tensor, Tensor], Mapping[str, Tensor]]
FEWEST_CLUSTERS = (
    5  # under so many documents, windows are the clusters: a t interval with 3 degrees says next to nothing
)


@dataclass(frozen=True)
class TokenScores:
    """One entry a predicted token, in the order of the windows and of the tokens in them.

    kl: KL(original || lighter) in nats, fp32, not below 0. agree: both put the same token first. nll_original,
    nll_lighter: -log p of the token that came, in nats. window: the number of its window. notes: what a reader of the
    figures has to know. outside: -log of the original's probability of all tokens that the lighter has, in nats; None
    where it has all. collected: what else was asked for, by name.
    """

    kl: NDArray[np.float32]
    agree: NDArray[np.bool_]
    nll_original: NDArray[np.float32]
    nll_lighter: NDArray[np.float32]
    window: NDArray[np.int64]
    notes: list[Message]
    outside: NDArray[np.float32] | None = None
    collected: dict[str, NDArray[Any]] = field(default_factory=dict)


def divergence(
    original: Engine,
    lighter: Engine,
    windows: Sequence[Tensor],
    batch_tokens: int = 2048,
    on_event: OnEvent = ignore,
    rows: Sequence[int] | None = None,
    collect: Sequence[Collect] = (),
) -> TokenScores:
    """Score both models on `windows`, each int64 [L >= 2], in batches of equal length of about `batch_tokens` tokens.

    rows: by the lighter's ids, which windows have, the original's, where tokens were cut. Of the original counts then
    what it says of these alone, as if there were no others; `outside` has what that leaves out. Where the two
    vocabularies are padded to different widths, both are cut to the smaller and a note says so. collect: what else is
    taken of every token.
    Raises UsageError when the original gives a logit that is not finite, GateError when the lighter does (both name the
    window), UsageError when a window holds a token that one of the models lacks.
    """
    if not windows or min(map(len, windows)) < 2:
        raise UsageError("There is no window of two tokens or more to compare on. Give more text.")
    width = min(original.vocabulary if rows is None else len(rows), lighter.vocabulary)
    taken = None if rows is None else torch.tensor(rows[:width])
    largest = max(int(window.max()) for window in windows)
    if largest >= width:
        raise UsageError(
            "The text has token {token}, but {original} and {lighter} share only the first {width} of their "
            "vocabularies. Compare a model with its own original, which has the same tokenizer.",
            token=largest,
            original=original.folder,
            lighter=lighter.folder,
            width=width,
        )
    starts = np.cumsum([0, *(len(window) - 1 for window in windows)])
    out: dict[str, NDArray[Any]] = {}
    groups = batch_indices([len(window) for window in windows], batch_tokens)
    stage = Stage(on_event, "divergence", len(groups))
    at_once = max(1, CHUNK // max(original.vocabulary, lighter.vocabulary))
    for group in groups:
        batch = torch.stack([windows[i] for i in group])
        position = 0
        read = batch if taken is None else taken[batch]
        chunks = zip(original.logit_chunks(read, at_once), lighter.logit_chunks(batch, at_once), strict=True)
        for logits_original, logits_lighter in chunks:
            n = min(logits_original.shape[1], batch.shape[1] - 1 - position)
            if n <= 0:
                break
            next_tokens = batch[:, position + 1 : position + 1 + n]
            lost: dict[str, Tensor] = {}
            if taken is not None:
                _must_be_finite(original, logits_original[:, :n], group, position, False)
                logits_original, lost["outside"] = _narrowed(logits_original[:, :n], taken)
            for engine, logits in ((original, logits_original), (lighter, logits_lighter)):
                _must_be_finite(engine, logits[:, :n, :width], group, position, engine is lighter)
            both = logits_original[:, :n, :width], logits_lighter[:, :n, :width], next_tokens
            found = {**_scored(*both, collect), **lost}
            places = starts[group] + position
            for name, values in found.items():
                whole = out.setdefault(name, np.empty(starts[-1], dtype=values.numpy().dtype))
                for place, row in zip(places, values, strict=True):
                    whole[place : place + n] = row.numpy()
            position += n
        stage.step()
    lengths = np.diff(starts)
    notes = []
    if rows is not None:
        notes.append(_kept_note(out["outside"], width, original.vocabulary))
    elif original.vocabulary != lighter.vocabulary:
        notes.append(
            Message(
                "The original's vocabulary is {original} wide, the lighter's {lighter}; the first {width} are "
                "compared.",
                original=original.vocabulary,
                lighter=lighter.vocabulary,
                width=width,
            )
        )
    told = {name: out.pop(name) for name in (*_FIGURES, "outside") if name in out}
    return TokenScores(**told, window=np.repeat(np.arange(len(windows)), lengths), notes=notes, collected=out)


_FIGURES = ("kl", "agree", "nll_original", "nll_lighter")


def _narrowed(logits: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [b, n, V] of `rows` alone, and -log of the probability that all of these have, [b, n] on the CPU."""
    some = logits.index_select(-1, rows.to(logits.device)).float()
    lost = torch.logsumexp(logits.float(), -1) - torch.logsumexp(some, -1)
    return some, lost.clamp_min_(0).cpu()


def _kept_note(outside: NDArray[np.float32], kept: int, whole: int) -> Message:
    return Message(
        "The lighter model has {kept} of the original's {whole} tokens. The original gives these {mass:.3%} of its "
        "probability ({nats:.3g} nats a token, which come on top of the KL), and is compared by what it says of them "
        "alone.",
        kept=kept,
        whole=whole,
        mass=float(np.exp(-outside.astype(np.float64)).mean()),
        nats=float(outside.mean(dtype=np.float64)),
    )


def _scored(original: Tensor, lighter: Tensor, next_tokens: Tensor, collect: Sequence[Collect]) -> dict[str, Tensor]:
    """What is known of every token, [b, n] by name; all that is collected looks at the same probabilities."""
    log_p, log_q = _log_probabilities(original, lighter)
    found: dict[str, Tensor] = {}
    if collect:
        p, q = log_p.exp(), log_q.exp()
        for more in collect:
            found |= more(p, q, next_tokens.to(p.device))
        del p, q
    return {**dict(zip(_FIGURES, _score(log_p, log_q, next_tokens), strict=True)), **found}


def _log_probabilities(original: Tensor, lighter: Tensor) -> tuple[Tensor, Tensor]:
    """Of logits [b, n, V] of both, in fp32 whatever their type, and in memory of their own."""
    second = lighter.to(original.device).float()
    return torch.log_softmax(original.float(), dim=-1), torch.log_softmax(second, dim=-1)


def score_tokens(original: Tensor, lighter: Tensor, next_tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(kl, agree, nll_original, nll_lighter), each [b, n] on the CPU, from logits [b, n, V] and tokens int64 [b, n].

    In fp32 whatever the logits' type; equal logits give KL of exactly 0. KL cannot be negative: rounding below 0 is 0.
    """
    return _score(*_log_probabilities(original, lighter), next_tokens)


def _score(log_p: Tensor, log_q: Tensor, next_tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`score_tokens` from log-probabilities, which are overwritten."""
    next_tokens = next_tokens.to(log_p.device)[..., None]
    agree = log_p.argmax(-1) == log_q.argmax(-1)
    nll_p, nll_q = -log_p.gather(-1, next_tokens)[..., 0], -log_q.gather(-1, next_tokens)[..., 0]
    # in place from here: at these sizes each copy is what memory is spent on
    gap = log_q.neg_().add_(log_p)
    kl = log_p.exp_().mul_(gap).sum(-1).clamp_min_(0)
    return kl.cpu(), agree.cpu(), nll_p.cpu(), nll_q.cpu()


def by_token(scores: TokenScores) -> dict[str, NDArray[Any]]:
    """All that is known of every token, by name: the fields that are there, and what was collected."""
    known = {name: value for name in (*_FIGURES, "window", "outside") if (value := getattr(scores, name)) is not None}
    return known | scores.collected


@dataclass(frozen=True)
class Sums:
    """What the figures of a text are made of, a row a window [n]: `tokens` predicted, and over these the sums of
    `kl`, of `apart` (1 where the first choices differ) and of `gap` (nll of the lighter less that of the original)."""

    tokens: Floats
    kl: Floats
    apart: Floats
    gap: Floats

    @property
    def identical(self) -> bool:
        """Whether both models said the same of every token, to the last bit."""
        return not self.kl.any() and not self.gap.any()


def sums(scores: TokenScores) -> Sums:
    """Token scores added up by window."""
    gap = scores.nll_lighter.astype(np.float64) - scores.nll_original
    rows = (np.ones(len(gap)), scores.kl, ~scores.agree, gap)
    return Sums(*(np.bincount(scores.window, weights=row).astype(np.float64) for row in rows))


def estimates(found: Sums, clusters: Sequence[int], confidence: float = 0.95) -> dict[str, Estimate]:
    """`kl`, `top1` and `log_ratio` (of the perplexities) with their intervals; `clusters[i]` is that of window i.

    KL and the share of tokens with another first choice are skewed (`skewed_ratio`). Where no token has another, that
    share is at most what Wilson's interval leaves of 0 of so many tokens. The difference of nll is paired, so what both
    models find hard cancels from its error.
    """
    apart = skewed_ratio(found.apart, found.tokens, clusters, confidence)
    ends = apart.interval
    if ends is not None and not found.apart.any():
        ends = wilson(0, float(found.tokens.sum()), confidence)
    interval = None if ends is None else (max(0.0, 1 - ends[1]), 1 - ends[0])
    return {
        "kl": skewed_ratio(found.kl, found.tokens, clusters, confidence),
        "top1": dataclasses.replace(apart, value=1 - apart.value, interval=interval),
        "log_ratio": clustered_ratio(found.gap, found.tokens, clusters, confidence),
    }


def summarize(scores: TokenScores, clusters: Sequence[int], confidence: float = 0.95) -> dict[str, Any]:
    """The figures of a report from token scores; `clusters[i]` is the document (or other cluster) of window i.

    `kl`: mean in nats a token with error and interval, and its percentiles. `top1`: share of positions where both put
    the same token first. `perplexity`: of each model, and the ratio lighter / original = exp(mean difference of nll).
    `kept`, where tokens were cut: the original's probability of those that stay (`mass`) and -log of it (`nats`).
    """
    found = estimates(sums(scores), clusters, confidence)
    kl, log_ratio = found["kl"], found["log_ratio"]
    ends = log_ratio.interval
    kept = {}
    if scores.outside is not None:
        lost = scores.outside.astype(np.float64)
        kept = {"kept": {"mass": float(np.exp(-lost).mean()), "nats": float(lost.mean())}}
    return {
        **kept,
        "tokens": len(scores.kl),
        "clusters": kl.clusters,
        "confidence": confidence,
        "kl": {**_estimate(kl), "percentiles": percentiles(scores.kl)},
        "top1": _estimate(found["top1"]),
        "perplexity": {
            "original": exp(float(np.mean(scores.nll_original, dtype=np.float64))),
            "lighter": exp(float(np.mean(scores.nll_lighter, dtype=np.float64))),
            "ratio": {
                "value": exp(log_ratio.value),
                "interval": None if ends is None else [exp(end) for end in ends],
            },
            "log_ratio": {"value": log_ratio.value, "standard_error": log_ratio.standard_error},
        },
    }


def clusters_of(windows: Sequence[Window], notes: list[Message]) -> tuple[list[int], str]:
    """What the windows are clustered by: their documents, or themselves where documents are too few."""
    documents = [window.document for window in windows]
    if len(set(documents)) >= FEWEST_CLUSTERS:
        return documents, "documents"
    notes.append(
        Message(
            "The text has {count} document(s): error bars are over its {windows} windows, which are not quite "
            "independent, so they are somewhat too short. A text of many documents gives honest ones.",
            count=len(set(documents)),
            windows=len(windows),
        )
    )
    return list(range(len(windows))), "windows"


def _estimate(estimate: Estimate) -> dict[str, Any]:
    interval = None if estimate.interval is None else list(estimate.interval)
    return {"mean": estimate.value, "standard_error": estimate.standard_error, "interval": interval}


def exp(value: float) -> float:
    """exp that ends at the largest double instead of an error: a ruined model's perplexity has no upper bound."""
    return math.exp(min(value, 709.0))


def _must_be_finite(engine: Engine, logits: Tensor, group: Sequence[int], position: int, is_lighter: bool) -> None:
    finite = torch.isfinite(logits).all(-1)
    if bool(finite.all()):
        return
    row, column = (int(v) for v in (~finite).nonzero()[0])
    found = {"folder": engine.folder, "window": group[row], "token": position + column}
    if is_lighter:
        raise GateError(
            "{folder} (the lighter model): a logit is not finite in window {window} after token {token}. Its weights "
            "are broken, or its type overflows: compare in float32 to tell which, then compress again.",
            **found,
        )
    raise UsageError(
        "{folder} (the original): a logit is not finite in window {window} after token {token}. Its weights are "
        "broken, or its type overflows: compare in float32 to tell which, then download the model again.",
        **found,
    )
