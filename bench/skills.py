"""What every skill of the embedded model keeps at a scheme: many questions a skill, in pairs with the original.

The questions are those of the `report` split, which no run saw: several draws of as many together, because of one large
draw without repetition the short questions run out and the hard ones are what is left. Error bars go by what questions
are about. A lighter model that is there already (``--out``) is asked again and not made again.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

import whet
from evaluation import table
from whet import starter
from whet.cli.starter import calibration


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    seeds = range(args.seed, args.seed + args.draws)
    asked = [item for seed in seeds for item in starter.skills("report", args.questions, seed)]
    for scheme in args.schemes:
        lighter = Path(args.out) / f"{scheme}-{args.solver}-{args.samples}x{args.window}"
        if not (lighter / "whet.json").exists():
            whet.compress(
                starter.path(), lighter, scheme=scheme, solver=args.solver, target="whet", device="cpu",
                text=calibration(args.samples, args.seed), samples=args.samples, window=args.window,
            )  # fmt: skip
        found = whet.compare(
            starter.path(), lighter, text=starter.held_out(args.seed, args.held_out), windows=None, window=args.window,
            skills=asked, device="cpu", speed=False,
        )  # fmt: skip
        kl = found["divergence"]["kl"]
        print(f"\n{scheme}, {args.solver}: KL {kl['mean']:.5f} ± {kl['standard_error']:.5f} nats a token\n")
        headings = ["skill", "questions", "about", "original", "lighter", "lost", "gained", "retention", "95 %"]
        print(table(headings, rows(found)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemes", nargs="+", default=["int3-g32", "int2-g32"])
    parser.add_argument("--solver", default="best")
    parser.add_argument("--samples", type=int, default=2048, help="documents to compress with")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--questions", type=int, default=1000, help="a skill and draw; some have fewer and ask all")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--held-out", type=int, default=500, help="documents for the KL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/skills")
    return parser.parse_args()


def rows(found: dict) -> list[list[str]]:
    lines = []
    for entry in found["skills"]:
        value, interval, flips = entry["retention"]["value"], entry["retention"]["interval"], entry["flips"]
        accuracies = [f"{entry[who]['accuracy']:.4f}" for who in ("original", "lighter")]
        kept = ["", ""] if value is None else [f"{value:.4f}", f"{interval[0]:.3f}-{interval[1]:.3f}"]
        counts = [str(flips["lost"]), str(flips["gained"])]
        lines.append([entry["skill"], str(entry["items"]), str(entry["groups"]), *accuracies, *counts, *kept])
    return lines


if __name__ == "__main__":
    main()
