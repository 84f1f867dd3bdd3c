"""Adapters: small tensors beside a model's linears that are trained in their place, and what becomes of them."""

from __future__ import annotations

from whet.adapt.kinds import FULL, FULL_RATE, KINDS, Kind, find_kind, kind_names
from whet.adapt.lost import rounding_lost
from whet.adapt.merge import group_sums, stacked
from whet.adapt.parametrize import Parametrization, installed, shares_of
from whet.adapt.targets import adapted_modules, check_rank, parse_targets

__all__ = [
    "FULL",
    "FULL_RATE",
    "KINDS",
    "Kind",
    "Parametrization",
    "adapted_modules",
    "check_rank",
    "find_kind",
    "group_sums",
    "installed",
    "kind_names",
    "parse_targets",
    "rounding_lost",
    "shares_of",
    "stacked",
]
