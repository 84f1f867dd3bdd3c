"""Feed-forward channels that are chosen by the prompt: who chooses them, and a model that has only those.

A prompt goes through the first blocks of the whole model once. What they make of it, each token over its root mean
square and the mean over tokens, is what a small network reads; it gives a score for every channel of every block, and
in each block those with the highest scores stay. Rows of gate and up and columns of down are then really taken out: the
model that reads the prompt and writes the answer is a stock model of the family with a narrower feed-forward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whet.anatomy import Anatomy, Kept, resized, stock_config, unit_counts
from whet.checkpoint.beside_whet import compute_buffers
from whet.messages import Message

READ = 2  # blocks that a prompt goes through before channels are chosen
INNER = 64  # width of the network that chooses
_TINY = 1e-12


class Chooser(nn.Module):
    """Scores `[prompts, blocks, channels]` of what was read of prompts `[prompts, hidden]`.

    `base [blocks, channels]` is the score whatever the prompt; the network adds to it, at first nothing.
    """

    def __init__(self, width: int, blocks: int, channels: int, inner: int = INNER) -> None:
        super().__init__()
        self.read = nn.Linear(width, inner)
        self.write = nn.Linear(inner, blocks * channels, bias=False)
        self.base = nn.Parameter(torch.zeros(blocks, channels))
        nn.init.zeros_(self.write.weight)

    def forward(self, read: Tensor) -> Tensor:
        """Scores of what was read of prompts."""
        own: Tensor = self.write(torch.nn.functional.silu(self.read(read)))
        return self.base + own.unflatten(-1, self.base.shape)


class _Enough(Exception):
    """What a forward is ended with."""


@torch.no_grad()
def read_prompts(model: Any, parts: Anatomy, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
    """What is read of prompts, float32 `[rows, hidden]`. ids int64 `[rows, L]`; lengths: how many tokens of each row
    are the prompt (None: all)."""
    found: list[Tensor] = []

    def hook(_: nn.Module, __: Any, made: Any) -> None:
        found.append(made[0] if isinstance(made, tuple) else made)
        raise _Enough

    last = parts.block_prefix(min(READ, len(parts.blocks)) - 1).rstrip(".")
    handle = model.get_submodule(last).register_forward_hook(hook)
    try:
        with contextlib.suppress(_Enough):
            model(input_ids=ids, use_cache=False)
    finally:
        handle.remove()
    states = found[0].float()
    states = states * states.square().mean(-1, keepdim=True).clamp_min(_TINY).rsqrt()
    if lengths is None:
        return states.mean(1)
    inside = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).float()
    return (states * inside[..., None]).sum(1) / inside.sum(1, keepdim=True)


def readers(model: Any, parts: Anatomy) -> list[nn.Module]:
    """Of every block the module that reads the feed-forward's channels."""
    found = [next(x for x in linears if x.role == "down") for linears in parts.blocks]
    return [model.get_submodule(x.held.parameter.removesuffix(".weight")) for x in found]


@contextlib.contextmanager
def masked(model: Any, parts: Anatomy, masks: Tensor) -> Iterator[None]:
    """Inside, every row of a batch has its channels multiplied by `masks [rows, blocks, channels]`."""

    def hook(index: int) -> Any:
        def multiply(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x, mine = given[0], masks[:, index].to(given[0].dtype)
            # a family (OPT) that has its tokens in one row after another here
            spread = mine.repeat_interleave(len(x) // len(mine), 0) if x.dim() == 2 else mine[:, None]
            return (x * spread, *given[1:])

        return multiply

    handles = [module.register_forward_pre_hook(hook(index)) for index, module in enumerate(readers(model, parts))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def why_not_chosen(parts: Anatomy, config: Mapping[str, Any]) -> Message | None:
    """Why channels of a model cannot be chosen by the prompt, if they cannot. config: config.json's, defaults too."""
    if parts.task != "causal":
        return Message("it predicts no next token")
    found = unit_counts(parts, config)["channels"]
    return None if isinstance(found, int) else found


def chosen(scores: Tensor, count: int) -> list[tuple[int, ...]]:
    """The channels, ascending, that each block keeps of `scores [blocks, channels]`."""
    order = scores.argsort(dim=-1, descending=True, stable=True)[:, :count]
    return [tuple(row) for row in order.sort(dim=-1).values.tolist()]


@torch.no_grad()
def sliced(model: Any, parts: Anatomy, kept: Sequence[Sequence[int]]) -> Any:
    """A model of the same class that has the `kept` channels of every block alone; what is not cut it shares with
    `model`. parts: of `model`, by its names."""
    built = model.config.to_dict()
    shapes = {name: tuple(param.shape) for name, param in model.named_parameters()}
    whole = Kept(tuple(range(len(parts.blocks))), channels={i: tuple(mine) for i, mine in enumerate(kept)})
    config, cuts = resized(parts, built, built, shapes, whole)
    with torch.device("meta"):
        made = type(model)._from_config(stock_config(config), dtype=model.dtype)
    held = model.state_dict()
    state = dict(held)
    for name, cut in cuts.items():
        if cut.places:
            places = tuple((dimension, numbers.to(model.device)) for dimension, numbers in cut.places)
            state[name] = type(cut)(cut.stored, places, cut.factor).of(held[cut.stored])
    compute_buffers(made, str(model.device))  # first: it draws weights anew, those of a shared embedding too
    made.load_state_dict({name: state[name] for name in made.state_dict()}, assign=True)
    made.tie_weights()
    made.generation_config = model.generation_config
    return made.requires_grad_(False).eval()
