"""What transformers calls tensors that files name otherwise, by its own conversions, and experts it stacks from files
that hold one by one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

# Conversions by the names of their steps, after which the rows of each source follow each other in a stack of experts.
_STACKING = (("MergeModulelist",), ("MergeModulelist", "Concatenate"))
_NUMBER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Conversion:
    """How stored names become the model's.

    called: the model's name of each tensor that is only named otherwise; those of single experts, of which the model
    has none, keep their own beside prefixes that change. experts: by parameter of the model into which they are
    stacked, the modules of single experts with `{}` for their number, in the order of their rows. changed: other stored
    tensors that transformers computes parameters from, and the first of those.
    """

    called: dict[str, str] = field(default_factory=dict)
    experts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)


def conversion(model: Any, stored: Iterable[str]) -> Conversion:
    """How transformers turns the tensors `stored` into the parameters of `model` (on the meta device)."""
    steps = get_model_conversion_mapping(model)
    renamings = [step for step in steps if isinstance(step, WeightRenaming)]
    converters = [step for step in steps if isinstance(step, WeightConverter)]
    of_source = {source: converter for converter in converters for source in converter.source_patterns}
    has, prefix = model.state_dict(), model.base_model_prefix
    found = Conversion()
    places: dict[str, dict[int, str]] = {}
    for name in stored:
        own, _ = rename_source_key(name, renamings, [], prefix, has)
        target, source = (own, None) if own in has else rename_source_key(name, renamings, converters, prefix, has)
        if source is None:
            if target != name:
                found.called[name] = target
            continue
        converter = of_source[source]
        number = _NUMBER.search(own, _common(own, target))
        if tuple(type(step).__name__ for step in converter.operations) not in _STACKING or number is None:
            found.changed[name] = target
            continue
        module = own[: number.start()] + ".{}." + own[number.end() :].removesuffix(".weight")
        places.setdefault(target, {})[converter.source_patterns.index(source)] = module
        if own != name:
            found.called[name] = own
    for target, modules in places.items():
        found.experts[target] = tuple(modules[place] for place in sorted(modules))
    return found


def turned(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The stored tensors, of `shapes`, whose last two dimensions transformers swaps when it loads `model`, as the first
    files of Qwen3-VL's experts need. Tensors that are stored the other way round it takes as they are."""
    steps = get_model_conversion_mapping(model)
    renamings = [step for step in steps if isinstance(step, WeightRenaming)]
    converters = [step for step in steps if isinstance(step, WeightConverter)]
    swapping = [one for one in converters if [getattr(step, "check_dims", False) for step in one.operations] == [True]]
    if not swapping:
        return []
    has, found = model.state_dict(), []
    for name, shape in shapes.items():
        target, source = rename_source_key(name, renamings, swapping, model.base_model_prefix, has)
        wanted = tuple(has[target].shape) if source is not None and target in has else shape
        if shape != wanted and (*shape[:-2], *shape[:-3:-1]) == wanted:
            found.append(name)
    return found


def _common(one: str, other: str) -> int:
    """How many letters both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))) - 1
