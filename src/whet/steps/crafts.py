"""The steps of a recipe, by name: what each reads and gives, and what it does.

A step reads a folder and writes a folder; nothing else passes between steps. To add one: its file with `run`, its
options in `whet.steps.options`, and its row here (docs/adding.md).
"""

from __future__ import annotations

from whet.steps import distill, dynamic, export, heal, masks, prune, quantize, slice, transform, tune
from whet.steps.prune_coded import after_codes
from whet.steps.request import Craft

CRAFTS: dict[str, Craft] = {
    "prune": Craft(
        ("dense", "rounded"),
        "dense",
        prune.run,
        check=prune.check,
        after=after_codes,
        halved=prune.halved,
        keeps=True,
    ),
    "slice": Craft(("dense",), "dense", slice.run, check=slice.check, after=slice.after),
    "masks": Craft(("dense",), "dense", masks.run, check=masks.check, halved=masks.halved),
    "distill": Craft(("dense", "rounded"), "dense", distill.run, check=distill.check, keeps=True),
    "dynamic": Craft(("dense",), "dense", dynamic.run, check=dynamic.check),
    "tune": Craft(("dense",), "dense", tune.run, check=tune.check),
    "heal": Craft(("dense", "rounded"), "dense", heal.run, check=heal.check, keeps=True),
    "transform": Craft(("dense",), "dense", transform.run),
    "quantize": Craft(("dense",), "rounded", quantize.run, check=quantize.check, halved=quantize.halved),
    "export": Craft(("dense", "rounded"), None, export.run),
}
