"""What recovery reaches on the embedded model: much removed at once or in small steps, and the shares of published
claims, each trained on the original's predictions.

A row is a recipe that runs unattended, with no other gate than one that always holds, so that every row gets the tokens
it was promised. All are measured on documents and questions that nothing else reads: KL a token with its error over
documents, and every skill's score above chance as a share of the original's, with 95 % intervals. Minutes are
the process's own time on the processor. Beside them the control: the shape of the first row trained from random weights
on as many tokens. A row that is there from an earlier run is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch

import whet
from distill import trained_from_nothing
from elastic import kept
from evaluation import table
from whet import starter
from whet.checkpoint import Checkpoint, size_on_disk

HOLDS = {"kl": 100}  # a gate for schedules, which want one


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    rows, found = [], {}
    for name in args.rows.split(","):
        for seed in range(args.seeds):
            folder = out / f"{name}-{args.tokens}-{seed}"
            found[name, seed] = measured(args, folder, made(args, name, seed, folder), seed)
            rows.append([name, str(seed), *found[name, seed]["cells"]])
            print(" | ".join(rows[-1]), flush=True)
    skills = next(iter(found.values()))["skills"]
    head = ["", "seed", "parameters", "of the original's bytes", "tokens", "minutes", "KL", "mean of skills", *skills]
    print(f"\n{table(head, rows)}\n")
    if "gradual" in args.rows and "one-shot" in args.rows:
        difference(found, args.seeds)


def recipe(name: str, tokens: int, seed: int) -> dict[str, Any]:
    """The steps of a row."""
    training = {"tokens": tokens, "samples": 12000}

    def taught(remove: str, **more: Any) -> list[dict[str, Any]]:
        return [{"prune": {"remove": remove, **more}}, {"distill": training}]

    quarter = {**training, "tokens": tokens // 4}
    steps: list[dict[str, Any]] = {
        "one-shot": taught("45%"),
        "gradual": [
            {
                "prune": {},
                "schedule": {"remove": "45%", "step": "11.5%", "shape": "cubic", "train": quarter},
                "gate": HOLDS,
            }
        ],
        "distilbert": taught("52%"),
        "gpt2": taught("74%", units="layers,channels,heads,hidden"),
        "eighth": [
            *taught("20%"),
            {"quantize": {"scheme": "int2s-g64", "embed": "int3s-g64", "solver": "good", "for": "whet"}},
            {"distill": training},
        ],
    }[name]
    return {"version": 1, "seed": seed, "steps": steps}


def made(args: argparse.Namespace, name: str, seed: int, folder: Path) -> float:
    """Run a row's recipe, or the control; minutes of the processor that it took, as told by the run that made it."""
    told = folder.with_suffix(".json")
    if told.is_file():
        return float(json.loads(told.read_text())["minutes"])
    started = time.process_time()
    text = starter.documents(seed + 1, args.documents)
    if name == "nothing":
        shape = Path(args.out) / f"one-shot-{args.tokens}-{seed}"
        trained_from_nothing(shape, folder, text, args.tokens // args.batch, args.batch, seed)
    else:
        whet.run(recipe(name, args.tokens, seed), starter.path(), folder, text=text, device="cpu")
    minutes = (time.process_time() - started) / 60
    told.write_text(json.dumps({"minutes": minutes}))
    return minutes


def measured(args: argparse.Namespace, folder: Path, minutes: float, seed: int) -> dict[str, Any]:
    """A row's cells, names of skills, and what each document lost."""
    found = whet.compare(
        starter.path(), folder, text=starter.held_out(0, args.held_out), windows=args.held_out,
        skills=starter.skills("report", args.questions, 0), device="cpu", speed=False,
    )  # fmt: skip
    kl, skills = found["divergence"]["kl"], found["skills"]
    mean = np.mean([one["retention"]["value"] for one in skills])
    count = sum(int(np.prod(shape)) for shape in Checkpoint(folder).shapes.values())
    whole = sum(int(np.prod(shape)) for shape in Checkpoint(starter.path()).shapes.values())
    share = size_on_disk(folder)["total"] / size_on_disk(starter.path())["total"]
    tokens = args.tokens * (2 if "eighth" in folder.name else 1)
    cells = [f"{count / whole:.1%}", f"{share:.1%}", f"{tokens:,}", f"{minutes:.1f}"]
    cells += [f"{kl['mean']:.4f} ± {kl['standard_error']:.4f}", f"{mean:.1%}"]
    return {
        "cells": [*cells, *(kept(one["retention"]) for one in skills)],
        "skills": [one["skill"] for one in skills],
        "kl": kl["mean"],
    }


def difference(found: dict[tuple[str, int], dict[str, Any]], seeds: int) -> None:
    """How many times the KL of one shot gradual steps leave, seed by seed."""
    logs = [np.log(found["gradual", seed]["kl"] / found["one-shot", seed]["kl"]) for seed in range(seeds)]
    print("gradual over one shot, KL:", ", ".join(f"{np.exp(one):.3f}" for one in logs), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="one-shot,gradual,nothing", help="and distilbert, gpt2, eighth")
    parser.add_argument("--tokens", type=int, default=1_200_000, help="in all, of a row's training")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--documents", type=int, default=20000)
    parser.add_argument("--held-out", type=int, default=200, help="documents for the KL")
    parser.add_argument("--questions", type=int, default=200, help="a skill")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/recovered")
    return parser.parse_args()


if __name__ == "__main__":
    main()
