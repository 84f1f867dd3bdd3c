"""Several sequences in one forward pass in PyTorch, each as long as it is: what batching and drafting need.

Notable: keys and values lie by slot and position, so nothing is padded on the left, sequences come and go without
copying the others, and going back is forgetting a length. A mask says which positions each row may see. Whether a model
can be run so is found out by asking, not by a name: `can_share` compares with sequences that are run alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from whet.engines.torch import TorchEngine

_ROUND = 256  # room for so many positions is added at a time
# How far logits may lie apart, in shares of their range, and still be the same but for rounding.
_ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}


class _Places:
    """Where the tokens of a forward pass go: slots [b], positions [b, n]; upto: positions that are looked at."""

    slots: Tensor
    positions: Tensor
    upto: int
    first: int | None  # where the slots lie one after the other, the first of them


class _Layer(CacheLayerMixin):
    """Keys and values of one layer, [slots, heads, room, width]."""

    is_croppable = False

    def __init__(self, count: int, places: _Places) -> None:
        super().__init__()
        self.count, self.places = count, places

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = (self._grown(None, states) for states in (key_states, value_states))
        self.is_initialized = True

    def _grown(self, old: Tensor | None, states: Tensor) -> Tensor:
        room = -(-self.places.upto // _ROUND) * _ROUND
        made = states.new_zeros(self.count, states.shape[1], room, states.shape[3])
        if old is not None:
            made[:, :, : old.shape[2]] = old
        return made

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        if self.keys.shape[2] < self.places.upto:
            self.keys, self.values = self._grown(self.keys, key_states), self._grown(self.values, value_states)
        return self._put(self.keys, key_states), self._put(self.values, value_states)

    def _put(self, held: Tensor, states: Tensor) -> Tensor:
        """`states` [b, heads, n, width] put in their places; of the same slots, all that is looked at."""
        places = self.places
        held[places.slots[:, None], :, places.positions] = states.transpose(1, 2)
        if places.first is None:
            return held[places.slots, :, : places.upto]
        return held[places.first : places.first + len(states), :, : places.upto]

    def clear(self, slot: int) -> None:
        """Zeros instead of what was there: a number that is not finite would spoil sums even where it is masked."""
        if self.is_initialized:
            assert self.keys is not None and self.values is not None
            with torch.inference_mode():
                self.keys[slot], self.values[slot] = 0, 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.places.upto, 0

    def get_seq_length(self) -> int:
        return self.places.upto

    def get_max_length(self) -> int:
        return -1


class SlotStepper:
    """Implements `stepping.Stepper`: all sequences that are told of go through together."""

    def __init__(self, engine: TorchEngine, slots: int, context: int) -> None:
        self.engine, self.slots, self.context = engine, slots, context
        self.lengths = [0] * slots
        self._places = _Places()
        self._cache = Cache(layer_class_to_replicate=lambda: _Layer(slots, self._places))  # type: ignore[arg-type]

    def read(self, slot: int, ids: Sequence[int]) -> Tensor:
        return self._run([(slot, ids)], last=True)[0][-1]

    def step(self, fed: Sequence[tuple[int, Sequence[int]]]) -> list[Tensor]:
        return self._run(fed, last=False)

    def last(self, fed: Sequence[tuple[int, Sequence[int]]]) -> list[Tensor]:
        return [rows[-1] for rows in self._run(fed, last=True)]

    def crop(self, slot: int, length: int) -> None:
        self.lengths[slot] = min(self.lengths[slot], length)

    def end(self, slot: int) -> None:
        self.lengths[slot] = 0
        for layer in self._cache.layers:
            layer.clear(slot)  # type: ignore[union-attr, operator]

    def score(self, ids: Sequence[int], start: int) -> Tensor:
        return self.engine.logits(torch.tensor([list(ids)]))[0, start - 1 : -1]

    def _run(self, fed: Sequence[tuple[int, Sequence[int]]], last: bool) -> list[Tensor]:
        """Logits [n, vocabulary] after each token of each row, or after its last alone. Rows that are shorter than
        others are filled up behind their end, where the next token will be written over it."""
        device = self.engine.device
        fed = sorted(fed) if (given := [slot for slot, _ in fed]) != sorted(given) else fed
        counts = [len(ids) for _, ids in fed]
        most = max(counts)
        batch = torch.tensor([[*ids, *[ids[-1]] * (most - len(ids))] for _, ids in fed])
        slots = [slot for slot, _ in fed]
        starts = torch.tensor([self.lengths[slot] for slot in slots])
        positions = starts[:, None] + torch.arange(most)
        places = self._places
        places.slots, places.positions = torch.tensor(slots, device=device), positions.to(device)
        places.upto = int(positions.max()) + 1
        places.first = slots[0] if slots == list(range(slots[0], slots[0] + len(slots))) else None
        seen = torch.arange(places.upto) <= positions[:, :, None]
        dtype = self.engine.model.dtype
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]
        wanted = [(row, at) for row, n in enumerate(counts) for at in range(n) if not last or at == n - 1]
        logits = self.engine.run(
            batch.to(device),
            self._cache,
            wanted,
            attention_mask=mask.to(device),
            position_ids=places.positions,
        )
        for slot, count in zip(slots, counts, strict=True):
            self.lengths[slot] += count
        by_slot = dict(zip(slots, logits.split([1] * len(slots) if last else counts), strict=True))
        return [by_slot[slot] for slot in given]


def can_share(engine: TorchEngine, context: int) -> bool:
    """Whether sequences of up to `context` tokens can go through this model together, and be cropped."""
    config = engine.model.config.get_text_config()
    for name in ("sliding_window", "attention_chunk_size"):
        size = getattr(config, name, None)
        if isinstance(size, int) and size < context and getattr(config, "use_sliding_window", True):
            return False  # the mask does not know of windows
    one, two = ([(7 * i + k) % min(engine.vocabulary, 97) for i in range(9 + k)] for k in (1, 4))
    try:
        alone = [engine.advance(torch.tensor([ids], device=engine.device))[0][0] for ids in (one, two)]
        slots = SlotStepper(engine, 3, context)
        slots.read(0, one[:3])
        slots.read(2, [*two[:6], 5, 6])
        slots.crop(2, 6)
        together = slots.last([(0, one[3:]), (2, two[6:])])
    except Exception:  # whatever a model's own code does with a cache that is not its own
        return False
    allowed = _ROUNDING.get(engine.model.dtype, 1e-3)
    return all(
        bool(((a - b).abs().max() <= allowed * (a.max() - a.min())).item())
        for a, b in zip((row.float() for row in alone), (row.float() for row in together), strict=True)
    )
