"""What `whet heal` gives back of the embedded model on few bits, and what it costs: skills on questions that nothing
else reads, before and after, and processor seconds.

Practised are questions of the training's kind; what gates is the split `verify`, what this table shows `report`.
Scores above chance are shares of the original's, with 95 % intervals of the paired difference.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

import whet
from evaluation import table
from whet import starter


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    folder = Path(args.out) / f"{args.scheme}-{args.solver}"
    if not (folder / "whet.json").exists():
        text = starter.documents(0, args.rounding)
        whet.compress(starter.path(), folder, scheme=args.scheme, solver=args.solver, text=text, device="cpu")
    for how in args.how.split(","):
        result = healed(args, folder, how)
        print(f"\n{how}: {result['outcome']}: {result['reason']}")
        print(f"{result['processor']:.0f} processor seconds, {args.steps} steps of {args.batch} tokens")
        print(f"\n{gate_table(result)}\n", flush=True)
        out = Path(args.out) / f"{folder.name}-{how}"
        if args.report and out.exists():
            print(f"{report_table(args, folder, out)}\n", flush=True)


def healed(args: argparse.Namespace, folder: Path, how: str) -> dict[str, Any]:
    """Heal; what `whet.heal` returns, and the processor seconds of all of it."""
    started = time.process_time()
    practised = set(args.skill.split(","))
    counts = {skill: args.questions if skill in practised else args.others for skill in starter.SKILLS}
    gate = [item for skill, count in counts.items() for item in of_skill("verify", skill, count, args.seed)]
    result = whet.heal(
        folder, Path(args.out) / f"{folder.name}-{how}", original=starter.path(), skills=gate, skill=args.skill,
        practice=starter.practice(round(1.25 * args.problems), args.seed), problems=args.problems, how=how,
        text=starter.documents(args.seed + 1, 600), samples=args.windows, window=128, steps=args.steps,
        batch=args.batch, rate=args.rate, to=args.to, device="cpu",
    )  # fmt: skip
    return {**result, "processor": time.process_time() - started}


def of_skill(split: str, skill: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Questions of one skill."""
    return [item for item in starter.skills(split, count, seed) if item["skill"] == skill]


def gate_table(result: dict[str, Any]) -> str:
    """On the questions that gated."""
    rows = [
        [entry["skill"], str(entry["questions"]), share(entry["before"]), share(entry["after"])]
        for entry in result["skills"]
    ]
    return table(["gate", "questions", "before", "after"], rows)


def report_table(args: argparse.Namespace, folder: Path, out: Path) -> str:
    """On questions and text that nothing else opened."""
    found = [
        whet.compare(
            starter.path(), one, text=starter.held_out(args.seed, 60), windows=60,
            skills=starter.skills("report", args.report, args.seed), device="cpu", speed=False,
        )
        for one in (folder, out)
    ]  # fmt: skip
    kl = [one["divergence"]["kl"] for one in found]
    rows = [["KL, nats a token", "", *(f"{one['mean']:.4f} ± {one['standard_error']:.4f}" for one in kl)]]
    for before, after in zip(*(one["skills"] for one in found), strict=True):
        rows.append([before["skill"], str(before["items"]), share(before["retention"]), share(after["retention"])])
    return table(["report", "questions", "before", "after"], rows)


def share(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "–"
    low, high = figure["interval"]
    return f"{figure['value']:.1%} ({low:.1%} – {high:.1%})"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scheme", default="int3z-g64")
    parser.add_argument("--solver", default="gptq")
    parser.add_argument("--rounding", type=int, default=256, help="documents for the solver")
    parser.add_argument("--skill", default="arithmetic_ko", help="what is practised")
    parser.add_argument("--how", default="weights", help="scales, weights, adapter; several with commas between")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=1024, help="tokens of a step")
    parser.add_argument("--rate", type=float, help="without it whet's own")
    parser.add_argument("--to", type=float, default=0.98)
    parser.add_argument("--problems", type=int, default=3000, help="of a practised skill")
    parser.add_argument("--windows", type=int, default=512, help="of ordinary text")
    parser.add_argument("--questions", type=int, default=300, help="that gate a practised skill")
    parser.add_argument("--others", type=int, default=100, help="that gate any other")
    parser.add_argument("--report", type=int, default=200, help="that report each, 0 for none")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/healing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
