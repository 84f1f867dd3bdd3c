"""What a quantized folder holds of each module of its model: which rows are codes, of what grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whet.checkpoint import Checkpoint
from whet.checkpoint.modeling_whet import form_of
from whet.errors import UsageError


@dataclass(frozen=True)
class Coded:
    """Rows (start, end; None: all) of a module that are stored as codes under `address`, by the table's `entry`."""

    address: str
    entry: Mapping[str, Any]
    rows: tuple[int, int] | None

    @property
    def group(self) -> int:
        """Columns that share parameters, 0 for a whole row."""
        return int(self.entry["group"] or 0)

    @property
    def real(self) -> bool:
        """Whether zeros are stored numbers of their own, one for each row and group, so that they can take more up."""
        plain = form_of(dict(self.entry)) == "codes" and not {"part", "values"} & set(self.entry)
        return plain and self.entry["zero"] == "real"


def table_of(checkpoint: Checkpoint) -> Mapping[str, Mapping[str, Any]]:
    """How linears are read, by address; nothing of a dense folder."""
    if checkpoint.whet is None or checkpoint.dense:
        return {}
    table: Mapping[str, Mapping[str, Any]] = (checkpoint.whet.get("reading") or checkpoint.whet)["linears"]
    return table


def refuse_kept(checkpoint: Checkpoint) -> None:
    """Raises UsageError for a folder that holds scales of keys and values: other weights need others."""
    if checkpoint.kv:
        raise UsageError(
            "{folder} holds scales of keys and values (compress --kv), which belong to its weights as they are. Make "
            "the folder without --kv for this step.",
            folder=checkpoint.path,
        )


def coded_modules(checkpoint: Checkpoint) -> dict[str, list[Coded]]:
    """What is codes, by the model's name of the module."""
    names = ((checkpoint.whet or {}).get("reading") or {}).get("names") or {}
    found: dict[str, list[Coded]] = {}
    for address, entry in table_of(checkpoint).items():
        into = entry.get("into") or {}
        if "bits" not in entry or into.get("expert") is not None:
            continue
        parameter = into.get("parameter") or names.get(f"{address}.weight", f"{address}.weight")
        rows = into.get("rows")
        one = Coded(address, entry, None if rows is None else (rows[0], rows[1]))
        found.setdefault(parameter.removesuffix(".weight"), []).append(one)
    return found
