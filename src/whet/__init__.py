"""whet makes a language model lighter and shows what it kept.

    import whet
    whet.compress("model", "lighter", scheme="W4A16", text="corpus.txt")
    print(whet.compare("model", "lighter", text="corpus.txt")["verdict"])
    print(whet.generate("lighter", "Once upon a time"))

Importing is light: torch and the rooms that need it load when a verb is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whet.engines.opening import generate
    from whet.formats.export import export
    from whet.measure.compare import compare
    from whet.recipe.compress import compress, resume
    from whet.recipe.inspect import inspect
    from whet.recipe.plan import plan

__version__ = "0.1.0"
_VERBS = ("compare", "compress", "export", "generate", "inspect", "plan", "resume")
__all__ = ["__version__", "compare", "compress", "export", "generate", "inspect", "plan", "resume"]


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        return getattr(importlib.import_module("whet.recipe"), name)
    raise AttributeError(f"module 'whet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
