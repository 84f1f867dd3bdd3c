"""What every runtime's `continue_ids` shares: checking what is asked for, and drawing a token."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

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
    """
    if temperature == 0:
        return int(logits.argmax())
    shares = torch.softmax(logits.double().cpu() / temperature, dim=-1)
    ordered, tokens = shares.sort(descending=True, stable=True)
    kept = ordered * (ordered.cumsum(-1) - ordered < top_p)
    reached = kept.cumsum(-1)
    digest = hashlib.blake2b(f"{seed} {position}".encode(), digest_size=7).digest()
    at = int.from_bytes(digest, "big") / 2**56 * float(reached[-1])
    place = int(torch.searchsorted(reached, torch.tensor(at, dtype=reached.dtype), right=True))
    return int(tokens[min(place, int((kept > 0).sum()) - 1)])
