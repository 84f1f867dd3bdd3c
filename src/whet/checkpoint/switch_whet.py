"""The precision of a model in memory, changed between two requests without loading it anew.

Copied into folders beside `modeling_whet.py`. Decoded weights are decoded once more from the folder's files, in place.
Packed ones are packed once for each precision that is used and stay so: from then on a change takes no time, and the
model takes the memory of all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from .codes_whet import NESTED, entry_at, levels_of

# Fills a model, at a precision, with a `Packing` or without; returns what the files did not hold.
Fill = Callable[[PreTrainedModel, dict[str, dict], Any], list[str]]


def precisions_of(table: dict[str, dict]) -> tuple[int, ...]:
    """The bits at which the linears of a `table` are stored, the finest first; none where it is one each."""
    every: set[int] = set()
    for entry in table.values():
        every |= levels_of(entry).keys() if entry.get("form") == NESTED else set()
    return tuple(sorted(every, reverse=True))


def table_at(table: dict[str, dict], precision: int | None) -> dict[str, dict]:
    """The `table` read at a precision, the finest unless given. Raises ValueError for one that it does not have."""
    known = precisions_of(table)
    if precision is None:
        return table
    if precision not in known:
        there = ", ".join(map(str, known)) or "one precision alone"
        raise ValueError(f"there is no precision {precision} here: the folder has {there}")
    return {address: entry_at(entry, precision) for address, entry in table.items()}


def in_several(table: dict[str, dict], names: dict[str, str]) -> set[str]:
    """The parameters that are stored in several precisions, all or a part of each."""
    found = set()
    for address, entry in table.items():
        if entry.get("form") == NESTED:
            place, key = entry.get("into") or {}, f"{address}.weight"
            found.add(place.get("parameter") or names.get(key, key))
    return found


class Switch:
    """Sets the precision of `model`: `switch(4)`.

    precisions: those there are. now: which one it is at. kept: packed weights of the others, by precision.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        table: dict[str, dict],
        now: int | None,
        fill: Fill,
        build: Callable[[], PreTrainedModel],
        packing: Callable[[], Any] | None,
    ) -> None:
        self.model, self.table, self.fill, self.build, self.packing = model, table, fill, build, packing
        self.precisions = precisions_of(table)
        self.now: int | None = now or self.precisions[0]
        self.kept: dict[int, dict[tuple[str, str], Any]] = {}

    def __call__(self, precision: int) -> None:
        table = table_at(self.table, precision)
        if precision == self.now:
            return
        if self.packing is None:
            self.now = None  # what is left of a change that fails is of two precisions
            _whole(self.fill(self.model, table, None))
        else:
            weights = self.kept.get(precision)
            if weights is None:
                twin = self.build()
                _whole(self.fill(twin, table, self.packing()))
                weights = _weights(twin)
            before = _put(self.model, weights)
            if self.now is not None:
                self.kept[self.now] = before
            self.kept.pop(precision, None)
        self.now = precision


def _whole(missing: list[str]) -> None:
    if missing:
        raise ValueError(f"no file holds {', '.join(missing[:3])}; the folder is incomplete")


def _weights(model: nn.Module) -> dict[tuple[str, str], Any]:
    """What modules of a model on the meta device were given, by their path and its name there."""
    found: dict[tuple[str, str], Any] = {}
    for path, module in model.named_modules():
        found |= {(path, n): p for n, p in module._parameters.items() if p is not None and not p.is_meta}
        packed = {n: p for n, p in vars(module).items() if hasattr(p, "is_meta") and not isinstance(p, nn.Module)}
        found |= {(path, name): weight for name, weight in packed.items()}
    return found


def _put(model: nn.Module, weights: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    """Give modules other weights; returns those they had."""
    before = {}
    for (path, name), weight in weights.items():
        module = model.get_submodule(path)
        before[path, name] = getattr(module, name)
        if name in module._parameters:
            del module._parameters[name]
        else:
            delattr(module, name)
        if isinstance(weight, nn.Parameter):
            module._parameters[name] = weight
        else:
            setattr(module, name, weight)
    return before
