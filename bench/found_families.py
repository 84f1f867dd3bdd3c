"""Families without a row, tiny and random: whether their parts are found by running them, and what that wins.

For each: KL to the original on other text after `int3s-g32` by GPTQ and by rounding to nearest, the ratio, whether a
budget can be planned, and who loads the folder. Where the parts are not found, why. Weights are drawn wide enough for
blocks to do something; whatever transformers cannot build in this size is left out by name. With --larger, of models
that read images or sounds beside text: what is found of their text model, by its row or by running it.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import larger_models
import whet
from evaluation import table
from tiny_models import USUAL, documents, tokenizer
from whet.steps.original import open_original
from whet.targets import find_target

FAMILIES = (
    "apertus",
    "arcee",
    "biogpt",
    "bitnet",
    "bloom",
    "cohere",
    "ctrl",
    "deepseek_v3",
    "diffllama",
    "doge",
    "glm",
    "gpt_bigcode",
    "gpt_oss",
    "granitemoe",
    "jetmoe",
    "lfm2",
    "mamba",
    "mpt",
    "nanochat",
    "nemotron",
    "olmo",
    "olmoe",
    "persimmon",
    "phi",
    "phimoe",
    "rwkv",
    "vaultgemma",
    "xglm",
)
# Text models of which llama.cpp reads those whose blocks alternate as the released ones do.
WINDOWED = {
    kind: {"num_hidden_layers": every, "layer_types": [*["sliding_attention"] * (every - 1), "full_attention"]}
    for kind, every in {"gemma3_text": 6, "cohere2": 4}.items()
}
# What a family's own config says of ties and of how weights are drawn stays as it says.
SETTINGS = {k: v for k, v in USUAL.items() if k not in ("tie_word_embeddings", "initializer_range")} | {
    "pad_token_id": 263
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="bench-out/found-families")
    parser.add_argument("--families", nargs="+")
    parser.add_argument("--larger", action="store_true")
    args = parser.parse_args()
    rows = []
    for family in args.families or (larger_models.MODELS if args.larger else FAMILIES):
        folder = Path(args.out) / family
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rows.append([f"`{family}`", *(larger(folder, family) if args.larger else judged(folder, family))])
        print(" | ".join(rows[-1]), flush=True)
    more = ["text model", "`.gguf`"] if args.larger else []
    print(table(["`model_type`", *more, "GPTQ", "nearest", "ratio", "budgets", "loads in"], rows))


def judged(folder: Path, family: str) -> list[str]:
    """The figures of one family, or why there are none."""
    try:
        make(folder / "m", family)
    except Exception as error:  # transformers' own, of a config in this size
        return [f"not built in this size: {type(error).__name__}", "", "", "", ""]
    about = open_original(folder / "m", find_target("whet"))
    if not about.parts.family.found:
        return [f"not found: {about.unfound}", "", "", "", ""]
    return figures(folder, 12.0)


def larger(folder: Path, family: str) -> list[str]:
    """What is known of the text model of a larger one, whether it becomes a .gguf, and the figures."""
    kind = larger_models.MODELS[family]["text_config"]["model_type"]
    larger_models.make(folder / "m", family, scale=2.0, **WINDOWED.get(kind, {}))
    about = open_original(folder / "m", find_target("whet"))
    parts = about.parts
    how = "row" if not parts.family.found else "found"
    try:
        whet.export(folder / "m", out=folder / "m.gguf")
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


def make(folder: Path, family: str) -> None:
    """A random model with a tokenizer."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SETTINGS))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


if __name__ == "__main__":
    main()
