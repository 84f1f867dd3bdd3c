"""Functions that round a linear, each once: several of a user's solvers share one and differ in what comes after."""

from __future__ import annotations

from whet.quantize import ROUNDINGS

ROUNDERS = {name: row.solve for name, row in ROUNDINGS.items()}
