"""What a model is made of: families as data, blocks, linears as views, who shares an input, ties."""

from whet.anatomy.families import FAMILIES
from whet.anatomy.family import AUTO, TASKS, Family, LinearName, architecture_of, task_of
from whet.anatomy.folds import Group, Stream, Unfolded, fold_groups, stream
from whet.anatomy.model import Anatomy, Linear, Module, Piece, View
from whet.anatomy.read import anatomy
from whet.anatomy.unknown import described

__all__ = [
    "AUTO",
    "FAMILIES",
    "TASKS",
    "Anatomy",
    "Family",
    "Group",
    "Linear",
    "LinearName",
    "Module",
    "Piece",
    "Stream",
    "Unfolded",
    "View",
    "anatomy",
    "architecture_of",
    "described",
    "fold_groups",
    "stream",
    "task_of",
]
