"""Every decoder that transformers builds, tiny and random: what whet makes of it, run and written into the documents.

For each `model_type`: how its parts are known (a row, or found by running it, or why not), the share of its weights
that is rounded, KL to the original on other text after `int3s-g32` by GPTQ and by rounding to nearest, whether it can
be scored (budgets, `whet inspect`), whether llama.cpp's file is written and proved, and what loads the usual folder,
whose logits are compared with those of the decoded weights. `--write` puts the table into docs/families.md. A run that
was stopped goes on: rows are kept in OUT/rows.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from transformers import AutoModelForCausalLM

import whet
from tiny_families import DECODERS, make
from tiny_models import documents, windows
from whet.checkpoint import load_model
from whet.errors import WhetError
from whet.steps.original import open_original
from whet.targets import TARGETS, find_target

DOCUMENT = Path(__file__).parents[1] / "docs" / "families.md"
HEAD = ["`model_type`", "parts", "rounded", "GPTQ", "nearest", "budgets, inspect", "`.gguf`", "loads in"]
_SAID = 90  # letters of a reason


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="bench-out/every-family")
    parser.add_argument("--families", nargs="+", default=list(DECODERS))
    parser.add_argument("--write", action="store_true", help="put the table into docs/families.md")
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    kept = Path(args.out) / "rows.json"
    known: dict[str, list[str]] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for family in args.families:
        if family in known:
            continue
        folder = Path(args.out) / family
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            known[family] = judged(folder, family)
        except Exception as error:  # one that whet fails at is a row too
            known[family] = [f"fails: {type(error).__name__}: {short(error)}", *[""] * (len(HEAD) - 2)]
        shutil.rmtree(folder)
        kept.write_text(json.dumps(known, indent=1), encoding="utf-8")
        print(" | ".join([family, *known[family]]), flush=True)
    rows = [HEAD, ["---"] * len(HEAD), *([f"`{family}`", *known[family]] for family in args.families)]
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    print(text)
    if args.write:
        written = DOCUMENT.read_text(encoding="utf-8")
        start, end = "<!-- every -->\n", "<!-- /every -->"
        before, after = written[: written.index(start) + len(start)], written[written.index(end) :]
        DOCUMENT.write_text(before + text + "\n" + after, encoding="utf-8")


def judged(folder: Path, family: str) -> list[str]:
    """The cells of one family after its name."""
    original = make(folder / "m", family)
    about = open_original(original, find_target("whet"))
    asked: dict[str, Any] = {"text": documents(40, 0), "samples": 16, "window": 24}
    kl = []
    for solver in ("gptq", "nearest"):
        whet.compress(original, folder / solver, scheme="int3s-g32", target="whet", solver=solver, **asked)
        compared = whet.compare(original, folder / solver, text=documents(20, 3), window=24, speed=False)
        kl.append(compared["divergence"]["kl"]["mean"])
    shown = [f"{value:.5f}" for value in kl]
    if about.unfound is not None:
        shown = ["–", shown[1]]
    return [
        parts(about),
        rounded(about),
        *shown,
        scored(original, folder),
        gguf(original, folder),
        loads(original, folder),
    ]


def parts(about: Any) -> str:
    """How the parts of a model are known."""
    if about.unfound is not None:
        return f"not found: {short(about.unfound)}"
    return "found" if about.parts.family.found else "row"


def rounded(about: Any) -> str:
    """The share of its weights that one scheme for the blocks rounds."""
    every = sum(info.nbytes / info.dtype.itemsize for info in about.checkpoint.tensors.values())
    return f"{sum(x.shape[0] * x.shape[1] for x in about.parts.linears()) / every:.0%}"


def scored(original: Path, folder: Path) -> str:
    """Whether it can be planned by a budget and looked into, or why not."""
    asked: dict[str, Any] = {"text": documents(40, 0), "samples": 12, "window": 24}
    try:
        whet.compress(original, folder / "plan", bits=12.0, target="whet", **asked)  # `inspect` is the first half of it
    except WhetError as error:
        why = str(error).rpartition("planning by budget for it: ")[2].partition(". Give one scheme")[0]
        return f"no: {'experts' if 'its experts were found' in why else short(why)}"
    return "yes"


def gguf(original: Path, folder: Path) -> str:
    """Whether a file for llama.cpp is written and proved."""
    if about_type(original) not in (TARGETS["llama.cpp"].families or ()):
        return "no"
    asked: dict[str, Any] = {"text": documents(20, 0), "samples": 4, "window": 24}
    # llama.cpp rounds what goes into a product too, which louder models answer with much else
    calm = make(folder / "calm", about_type(original), loud=1.0)
    try:
        made = whet.compress(calm, folder / "gguf", scheme="Q8_0", target="llama.cpp", **asked)
    except WhetError as error:
        return f"no: {short(str(error).replace(str(calm), 'it'))}"
    return "yes" if made["check"]["gguf"]["check"] else "no"


def about_type(original: Path) -> str:
    """The `model_type` in config.json."""
    return str(transformers.AutoConfig.from_pretrained(original).model_type)


def loads(original: Path, folder: Path) -> str:
    """What loads the folder of the usual scheme in bfloat16, and how far its logits are from the decoded weights'."""
    half = folder / "half"
    AutoModelForCausalLM.from_pretrained(original, dtype=torch.bfloat16).save_pretrained(half)
    for file in original.glob("token*"):
        shutil.copy(file, half)
    asked: dict[str, Any] = {"text": documents(20, 0), "samples": 4, "window": 24}
    made = whet.compress(half, folder / "usual", scheme="int4s-g16", **asked)
    stock = made["loads_in"] == "transformers"
    model = AutoModelForCausalLM.from_pretrained(folder / "usual", trust_remote_code=not stock).eval()
    tokens = windows(2, 16)
    with torch.no_grad():
        theirs = model(tokens).logits
        mine = load_model(folder / "usual")(tokens).logits
    gap = float((theirs - mine).abs().max() / mine.abs().max())
    where = "stock transformers" if stock else "the modelling file"
    return where if gap == 0 else f"{where}, {gap:.0e} off"


def short(said: Any) -> str:
    """A reason in one line of a table."""
    text = " ".join(str(said).replace("|", "/").split())
    return text if len(text) < _SAID else text[:_SAID] + " …"


if __name__ == "__main__":
    main()
