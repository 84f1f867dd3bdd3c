"""Early exit: a token leaves the model after a block where what would be predicted there is sure enough.

At an exit a small map is added to the residual stream (a tuned lens: Belrose et al. 2023, arXiv 2303.08112; at first it
adds nothing), and the model's own final norm and head read the sum. Where the likeliest token has a probability of at
least the threshold it is taken, and the blocks behind are not run for it now.

They have no keys and values of such a token then, and later tokens look back at them. Nothing is made up in their
place: the token waits, its state with it, until a later token does not leave, and then goes through those blocks
together with it. So every key and value is what the whole model computes, whatever left before; an exit decides what is
predicted and nothing else, and that it is what the whole model would have predicted can be measured on text read as one
piece. What is saved is reading weights, once for all tokens that wait; the arithmetic is put off, and only that of the
last tokens is never done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from whet.anatomy import Anatomy
from whet.messages import Message

RANK = 32  # of the map at an exit
NEVER = float("inf")  # a threshold at which no token leaves


class Exits(nn.Module):
    """Maps at the exits `after` so many blocks: h + B A h, `A [rank, hidden]`, `B [hidden, rank]`, B at first 0."""

    def __init__(self, width: int, after: Sequence[int], rank: int = RANK) -> None:
        super().__init__()
        self.after = tuple(after)
        rank = min(rank, width)
        self.down = nn.ParameterList(nn.Parameter(torch.randn(rank, width) / width**0.5) for _ in after)
        self.up = nn.ParameterList(nn.Parameter(torch.zeros(width, rank)) for _ in after)

    def forward(self, hidden: Tensor, number: int) -> Tensor:
        """States `[..., hidden]` as exit `number` has them read."""
        a, b = self.down[number], self.up[number]
        return hidden + ((hidden.to(a.dtype) @ a.t()) @ b.t()).to(hidden.dtype)


def why_no_exits(model: Any, parts: Anatomy) -> Message | None:
    """Why tokens cannot leave a model early, if they cannot."""
    if parts.task != "causal":
        return Message("it predicts no next token")
    if not parts.family.known or len(parts.family.stacks) > 1 or parts.family.entries:
        return Message("whet has no row for one stack of blocks of the family {family}", family=parts.model_type)
    if len(parts.blocks) < 2:
        return Message("it has one block")
    layers = DynamicCache(config=model.config).layers
    if len(layers) not in (0, len(parts.blocks)) or any(type(one).__name__ != "DynamicLayer" for one in layers):
        return Message("not every block keeps all keys and values, as where attention has a window")
    return None


class _From(DynamicCache):
    """A cache of which blocks from `first` on are used: its length is theirs."""

    first = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens that went through the blocks that are used."""
        return super().get_seq_length(max(layer_idx, self.first))

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """As the blocks that are used need them."""
        return super().get_mask_sizes(query_length, max(layer_idx, self.first))


@dataclass
class Used:
    """What was run: tokens predicted; by stage how often its blocks were read, and how many tokens they computed; and
    how often an exit was looked at."""

    read: list[int]
    computed: list[int]
    tokens: int = 0
    looked: int = 0

    @classmethod
    def of(cls, stages: int) -> Used:
        """Nothing yet."""
        return cls([0] * stages, [0] * stages)

    def layers(self, ends: Sequence[int]) -> tuple[float, float]:
        """Blocks that were read for a token, mean, and blocks that a token went through."""
        sizes = [end - start for start, end in zip((0, *ends), ends, strict=False)]
        tokens = max(1, self.tokens)
        read, computed = (
            sum(n * size for n, size in zip(some, sizes, strict=True)) for some in (self.read, self.computed)
        )
        return read / tokens, computed / max(1, self.computed[0])


def stages(exits: Exits, blocks: int) -> list[int]:
    """By stage the number of the first block behind it."""
    return [*exits.after, blocks]


@torch.inference_mode()
def gives_tuples(model: Any, block: nn.Module) -> bool:
    """Whether a block gives its stream in a tuple with something else, as Falcon's do."""
    found = []
    handle = block.register_forward_hook(lambda _, __, made: found.append(isinstance(made, tuple)))
    try:
        model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=model.device), use_cache=False)
    finally:
        handle.remove()
    return found[0]


class Staged:
    """One text that goes through a model stage by stage: the blocks up to the first exit, those up to the next, …

    threshold: the probability from which on a token leaves. used: is added to.
    """

    def __init__(self, model: Any, parts: Anatomy, exits: Exits, threshold: float, used: Used) -> None:
        self.model, self.exits, self.threshold, self.used = model, exits, threshold, used
        self.blocks = [model.get_submodule(parts.block_prefix(i).rstrip(".")) for i in range(len(parts.blocks))]
        self.ends = stages(exits, len(self.blocks))
        self.tuples = gives_tuples(model, self.blocks[0])
        self.caches = [_From() for _ in self.ends]
        for cache, first in zip(self.caches, (0, *self.ends), strict=False):
            cache.first = first
        self.waiting: list[list[tuple[Tensor, Tensor | None]]] = [[] for _ in self.ends]

    @torch.inference_mode()
    def next(self, ids: Tensor) -> Tensor:
        """Logits `[1, vocabulary]` of what follows `ids` int64 `[1, n]`, which follow all that was given before."""
        self.waiting[0].append((ids, None))
        self.used.tokens += 1
        for stage in range(len(self.ends)):
            some, self.waiting[stage] = self.waiting[stage], []
            together = torch.cat([one for one, _ in some], 1)
            logits, hidden = self._run(stage, together, [state for _, state in some if state is not None])
            self.used.read[stage] += 1
            self.used.computed[stage] += together.shape[1]
            if stage == len(self.ends) - 1:
                break
            self.waiting[stage + 1].append((together, hidden))
            self.used.looked += 1
            if float(torch.softmax(logits.float(), -1).max()) >= self.threshold:
                break
        return logits

    def _run(self, stage: int, ids: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What is predicted after a stage `[1, vocabulary]`, and the stream there `[1, n, hidden]`. states: the stream
        before the stage, of `ids [1, n]`; of the first stage none."""
        first, last = self.caches[stage].first, self.ends[stage]
        given = torch.cat(list(states), 1) if states else None
        with self._only(first, last, given, stage) as found:
            out = self.model(input_ids=ids, past_key_values=self.caches[stage], use_cache=True, logits_to_keep=1)
        return out.logits[:, -1], found[0]

    @contextlib.contextmanager
    def _only(self, first: int, last: int, given: Tensor | None, stage: int) -> Iterator[list[Tensor]]:
        """Inside, the model runs its blocks from `first` to `last` alone, on `given`, and predicts from what the exit
        behind them makes of the stream; the list has the stream itself."""
        found: list[Tensor] = []

        def around(index: int, run: Any) -> Any:
            def instead(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
                if not first <= index < last:
                    return (hidden, None) if self.tuples else hidden
                made = run(given if index == first and given is not None else hidden, *args, **kwargs)
                if index < last - 1:
                    return made
                found.append(made[0] if isinstance(made, tuple) else made)
                if stage == len(self.ends) - 1:
                    return made
                left = self.exits(found[0], stage)
                return (left, *made[1:]) if isinstance(made, tuple) else left

            return instead

        for index, block in enumerate(self.blocks):
            block.forward = around(index, block.forward)
        try:
            yield found
        finally:
            for block in self.blocks:
                del block.forward
