"""whet makes a language model lighter and shows what it kept.

    import whet
    whet.compress("model", "lighter", scheme="W4A16", text="corpus.txt")
    print(whet.compare("model", "lighter", text="corpus.txt")["verdict"])
    print(whet.generate("lighter", "Once upon a time"))

Importing is light: torch and the rooms that need it load when a verb is first used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# oneDNN keeps what it compiled for a shape of a product, and its scratch memory, for 1,024 shapes. The texts of a
# training differ in length, so that 1.5 GB became 8 GB; with 64 it stays at 1.5 GB and takes no longer. It reads this
# once, before its first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

if TYPE_CHECKING:
    from whet.checkpoint.code import trust_remote_code
    from whet.checkpoint.verify import verify
    from whet.engines.opening import generate
    from whet.engines.packed import load
    from whet.formats.export import export
    from whet.formats.pack import pack, unpack
    from whet.measure.compare import compare
    from whet.recipe.choose import choose
    from whet.recipe.compress import compress
    from whet.recipe.curate import curate
    from whet.recipe.distill import distill
    from whet.recipe.dynamic import dynamic
    from whet.recipe.fit_context import fit_context
    from whet.recipe.hardware import hardware
    from whet.recipe.heal import heal
    from whet.recipe.inspect import inspect
    from whet.recipe.masks import masks
    from whet.recipe.merge import merge
    from whet.recipe.plan import plan
    from whet.recipe.prune import prune
    from whet.recipe.resume import resume, status
    from whet.recipe.runner import run
    from whet.recipe.slice import slice
    from whet.recipe.tune import tune

__version__ = "0.1.0"
# Where each verb is; the rooms it needs load when it is first used.
_VERBS = {
    "choose": "whet.recipe.choose",
    "compare": "whet.measure.compare",
    "compress": "whet.recipe.compress",
    "curate": "whet.recipe.curate",
    "distill": "whet.recipe.distill",
    "dynamic": "whet.recipe.dynamic",
    "export": "whet.formats.export",
    "fit_context": "whet.recipe.fit_context",
    "generate": "whet.engines.opening",
    "hardware": "whet.recipe.hardware",
    "heal": "whet.recipe.heal",
    "inspect": "whet.recipe.inspect",
    "load": "whet.engines.packed",
    "masks": "whet.recipe.masks",
    "merge": "whet.recipe.merge",
    "pack": "whet.formats.pack",
    "plan": "whet.recipe.plan",
    "prune": "whet.recipe.prune",
    "resume": "whet.recipe.resume",
    "run": "whet.recipe.runner",
    "slice": "whet.recipe.slice",
    "status": "whet.recipe.resume",
    "tune": "whet.recipe.tune",
    "unpack": "whet.formats.pack",
    "trust_remote_code": "whet.checkpoint.code",
    "verify": "whet.checkpoint.verify",
}
__all__ = [
    "__version__",
    "choose",
    "compare",
    "compress",
    "curate",
    "distill",
    "dynamic",
    "export",
    "fit_context",
    "generate",
    "hardware",
    "heal",
    "inspect",
    "load",
    "masks",
    "merge",
    "pack",
    "plan",
    "prune",
    "resume",
    "run",
    "slice",
    "status",
    "trust_remote_code",
    "tune",
    "unpack",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        return getattr(importlib.import_module(_VERBS[name]), name)
    raise AttributeError(f"module 'whet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
