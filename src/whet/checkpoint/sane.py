"""Entries of config.json that whoever builds or runs the model takes as they are: found here, before hours or gigabytes
are spent on them, and named."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from whet.errors import UsageError

_COUNT = re.compile(r"^(n|num)_|_(size|dim|layers|heads|experts|positions|embeddings)$")
_TYPES = {"fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32", "float": "float32"}
_LABELS = 100_000  # transformers makes a list of them before anything else


def with_type(config: dict[str, Any]) -> dict[str, Any]:
    """`config` with the type of weights as PyTorch names it: some write `fp16` or `torch.float16`, or `auto`, which is
    the type that is stored."""
    for key in ("dtype", "torch_dtype"):
        said = config.get(key)
        if isinstance(said, str):
            name = said.removeprefix("torch.")
            config[key] = None if name == "auto" else _TYPES.get(name, name)
    return config


def check_config(file: Path, config: Mapping[str, Any], largest: int) -> None:
    """Raises UsageError for an entry of `config`, or of a table in it, that cannot be. largest: size of any tensor."""
    for key, value in _entries(config):
        if not _can_be(key, value, largest):
            raise UsageError(
                "{file} says {key} = {value}, which no model can have. Mend that entry, or download it again.",
                file=file,
                key=key,
                value=repr(value)[:60],
            )


def _entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        yield key, value
        if isinstance(value, Mapping) and key.endswith("config") and key != "quantization_config":
            yield from _entries(value)


def _can_be(key: str, value: Any, largest: int) -> bool:
    if value is None:
        return True
    if key == "num_labels":
        return isinstance(value, int) and 0 <= value <= max(_LABELS, largest)
    if key in ("dtype", "torch_dtype"):
        return isinstance(value, (str, Mapping))  # transformers itself says which names there are
    if key == "sliding_window":
        return not isinstance(value, int) or value >= 0
    if key == "max_relative_positions":
        return isinstance(value, int) and value >= -1  # as many as positions
    if _COUNT.search(key) and isinstance(value, int) and not isinstance(value, bool):
        return value >= 0
    # without it models give tuples, of which nobody knows what is what
    return not (key == "return_dict" and value is not True)
