"""What every runtime's `continue_ids` shares: checking what is asked for, and drawing a token."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from whet.errors import UsageError


def check_request(
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    context: int | None,
    where: str,
) -> None:
    """Raises UsageError for numbers out of range, an empty prompt, or one that leaves no room in the context."""
    if max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
        raise UsageError(
            "max_new_tokens {tokens}, temperature {temperature}, top_p {top_p}: they must be at least 1, at least 0, "
            "and above 0 up to 1.",
            tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
        )
    longest = max(map(len, prompts), default=0)
    if context is not None and longest + max_new_tokens > context:
        raise UsageError(
            "{where}: a prompt of {longest} tokens and {tokens} new ones exceed the model's context of {context}. "
            "Shorten the prompt, or ask for fewer new tokens.",
            where=where,
            longest=longest,
            tokens=max_new_tokens,
            context=context,
        )
    if any(len(prompt) == 0 for prompt in prompts):
        raise UsageError("A prompt without tokens cannot be continued. Give some words.")


def sample(logits: Tensor, temperature: float, top_p: float, samplers: Sequence[torch.Generator]) -> Tensor:
    """One token [b] from `logits` [b, vocabulary]: temperature, then the likeliest tokens whose shares reach top_p."""
    shares = torch.softmax(logits.float().cpu() / temperature, dim=-1)
    ordered, tokens = shares.sort(dim=-1, descending=True)
    # a token is kept when those before it do not reach top_p yet, so the first always is
    kept = ordered * (ordered.cumsum(-1) - ordered < top_p)
    picks = [torch.multinomial(row, 1, generator=g) for row, g in zip(kept, samplers, strict=True)]
    return tokens.gather(-1, torch.stack(picks))[:, 0]


def draw(logits: Tensor, temperature: float, top_p: float, seed: int, position: int) -> int:
    """One token from `logits` [vocabulary], as `sample` weighs them: a function of logits, seed and position alone.

    So an answer can be gone on with anywhere, by another process, and is the one it would have been. The likeliest at
    temperature 0. position: how many tokens of the answer stand before this one.

    Every token has a random time, which its share speeds up, and the first one is taken (Gumbel's trick). So two models
    that are much alike draw the same token from the same seed: where their shares differ by a total variation of d,
    with a probability of at least (1 - d) / (1 + d) (Daliri, Musco and Suresh 2024, arXiv 2408.07978).
    """
    if temperature == 0:
        return int(logits.argmax())
    scores = logits.double().cpu() / temperature
    if top_p < 1:
        scores = scores.where(_likeliest(scores.softmax(-1), top_p), -torch.inf)
    key = [seed % 2**64, position]
    times = np.random.Generator(np.random.Philox(key=key)).standard_exponential(len(scores))  # type: ignore[arg-type]
    return int((scores - torch.from_numpy(times).log()).argmax())


def shares(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """What `draw` draws from: probabilities [n, vocabulary] float64 for `logits` [n, vocabulary], temperature above
    0."""
    found = torch.softmax(logits.double().cpu() / temperature, dim=-1)
    if top_p < 1:
        found = found * _likeliest(found, top_p)
    return found / found.sum(-1, keepdim=True)


def _likeliest(shares: Tensor, top_p: float) -> Tensor:
    """Which tokens are the likeliest that together reach `top_p`: a token is kept when those before it do not."""
    ordered, tokens = shares.sort(dim=-1, descending=True, stable=True)
    kept = ordered.cumsum(-1) - ordered < top_p
    return torch.zeros_like(kept).scatter(-1, tokens, kept)


class Doubt:
    """How unsure a model is while it writes: 1 - the share of its likeliest token, as the mean of its last tokens."""

    def __init__(self, window: int = 8) -> None:
        self._last: deque[float] = deque(maxlen=window)

    def add(self, logits: Tensor) -> float:
        """The doubt at the token that `logits` [vocabulary] foretell, those before it included."""
        logits = logits.float()
        self._last.append(1 - 1 / float((logits - logits.max()).exp().sum()))
        return sum(self._last) / len(self._last)
