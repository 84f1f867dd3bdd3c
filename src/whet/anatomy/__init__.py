"""What a model is made of: families as data, blocks, linears as views, who shares an input, ties."""

from whet.anatomy.families import FAMILIES, Family, LinearName
from whet.anatomy.model import Anatomy, Linear, anatomy

__all__ = ["FAMILIES", "Anatomy", "Family", "Linear", "LinearName", "anatomy"]
