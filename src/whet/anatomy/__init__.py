"""What a model is made of: families as data, blocks, linears as views, who shares an input, ties."""

from whet.anatomy.families import AUTO, FAMILIES, TASKS, Family, LinearName, task_of
from whet.anatomy.model import Anatomy, Linear, Piece, View, anatomy
from whet.anatomy.unknown import described

__all__ = [
    "AUTO",
    "FAMILIES",
    "TASKS",
    "Anatomy",
    "Family",
    "Linear",
    "LinearName",
    "Piece",
    "View",
    "anatomy",
    "described",
    "task_of",
]
