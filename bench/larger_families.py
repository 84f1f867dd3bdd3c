"""Models that read images or sounds beside text, tiny and random: what is found of their text model and what it wins.

For each: its text model and how that is known (a row, or found by running it), whether llama.cpp's file is written and
proved, KL to the original on other text after `int3s-g32` by GPTQ and by rounding to nearest, the ratio, whether a
budget can be planned, and who loads the folder. Weights are drawn wide enough for blocks to do something.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import larger_models
import whet
from evaluation import table
from tiny_models import documents
from whet.steps.original import open_original
from whet.targets import find_target

# Text models of which llama.cpp reads those whose blocks alternate as the released ones do.
WINDOWED = {
    kind: {"num_hidden_layers": every, "layer_types": [*["sliding_attention"] * (every - 1), "full_attention"]}
    for kind, every in {"gemma3_text": 6, "cohere2": 4}.items()
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="bench-out/larger-families")
    parser.add_argument("--families", nargs="+", default=list(larger_models.MODELS))
    args = parser.parse_args()
    rows = []
    for family in args.families:
        folder = Path(args.out) / family
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rows.append([f"`{family}`", *larger(folder, family)])
        print(" | ".join(rows[-1]), flush=True)
    head = ["`model_type`", "text model", "`.gguf`", "GPTQ", "nearest", "ratio", "budgets", "loads in"]
    print(table(head, rows))


def larger(folder: Path, family: str) -> list[str]:
    """What is known of the text model of a larger one, whether it becomes a .gguf, and the figures."""
    kind = larger_models.MODELS[family]["text_config"]["model_type"]
    larger_models.make(folder / "m", family, scale=2.0, **WINDOWED.get(kind, {}))
    about = open_original(folder / "m", find_target("whet"))
    parts = about.parts
    how = "row" if not parts.family.found else "found"
    # in louder models the last bit of a float sends tokens to other experts
    larger_models.make(folder / "calm", family, **WINDOWED.get(kind, {}))
    try:
        whet.export(folder / "calm", out=folder / "m.gguf")
        written = "yes"
    except whet.errors.WhetError:
        written = "no"
    if not parts.family.known:
        return [f"`{parts.model_type}`: to nearest, {about.unfound}"[:120], written, "", "", "", "no", ""]
    return [f"`{parts.model_type}` ({how})", written, *figures(folder, 18.0)]


def figures(folder: Path, bits: float) -> list[str]:
    """What the solvers make of the model `m` in `folder`, whether it can be planned for `bits`, and who loads it."""
    asked = {"text": documents(60, 0), "samples": 24, "window": 32}
    kl = []
    for solver in ("gptq", "nearest"):
        whet.compress(folder / "m", folder / solver, scheme="int3s-g32", target="whet", solver=solver, **asked)
        compared = whet.compare(folder / "m", folder / solver, text=documents(30, 3), window=32, speed=False)
        kl.append(compared["divergence"]["kl"]["mean"])
    try:
        whet.compress(folder / "m", folder / "plan", bits=bits, target="whet", **asked)
        planned = "yes"
    except whet.errors.WhetError as error:
        planned = f"no: {error}"
    made = whet.compress(folder / "m", folder / "usual", **asked)
    loads = "stock transformers" if made["loads_in"] == "transformers" else "the modelling file"
    return [f"{kl[0]:.5f}", f"{kl[1]:.5f}", f"{kl[0] / kl[1]:.2f}", planned, loads]


if __name__ == "__main__":
    main()
