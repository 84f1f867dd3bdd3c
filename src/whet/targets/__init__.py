"""Runtimes as a table: what each stores and loads, and which container a plan therefore takes."""

from whet.targets.storage import Storage, beside_adapter, storage
from whet.targets.table import (
    TARGETS,
    Target,
    check_family,
    divided,
    find_target,
    stand_in,
    stored_for,
    tie,
    tied,
)

__all__ = [
    "TARGETS",
    "Storage",
    "Target",
    "beside_adapter",
    "check_family",
    "divided",
    "find_target",
    "stand_in",
    "storage",
    "stored_for",
    "tie",
    "tied",
]
