"""What training through the grid gives back on 2 bits: the embedded model rounded by the best solver, then trained.

Every folder of one table takes the same bytes for its codes and scales. Text is divided beforehand: documents to train
on, a part of them kept out to choose the best iterate, and documents and questions for the table that nothing else
reads. KL to the original is in nats a token with its error over windows.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

import whet
from elastic import kept
from evaluation import table
from whet import starter
from whet.checkpoint import size_on_disk


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    rows, skills = [], list[str]()
    for scheme in args.schemes.split(","):
        folder = Path(args.out) / f"{scheme}-{args.solver}"
        rows.append(measured(args, skills, f"{scheme}, {args.solver}", folder, rounded(args, scheme, folder), 0))
        for steps in map(int, args.steps.split(",")):
            out = Path(args.out) / f"{scheme}-{args.solver}-{steps}-{args.rate or 'usual'}-{args.scales}"
            seconds = trained(args, folder, out, steps)
            rows.append(measured(args, skills, f"then {steps} steps", out, seconds, steps * args.batch))
    print(f"\n{table(['', 'bytes', 'tokens', 'seconds', 'KL', *skills], rows)}\n", flush=True)


def rounded(args: argparse.Namespace, scheme: str, out: Path) -> str:
    """Round the embedded model; seconds that it took, none where the folder is there from an earlier run."""
    if (out / "whet.json").exists():
        return "–"
    text, started = starter.documents(0, args.rounding), time.perf_counter()
    whet.compress(starter.path(), out, scheme=scheme, solver=args.solver, text=text, device="cpu")
    return f"{time.perf_counter() - started:.0f}"


def trained(args: argparse.Namespace, folder: Path, out: Path, steps: int) -> str:
    """Train a rounded folder; seconds likewise."""
    if (out / "whet.json").exists():
        return "–"
    text = starter.documents(1, args.documents)
    how = {"steps": steps, "batch": args.batch, "rate": args.rate, "scales": args.scales}
    result = whet.distill(folder, out, teacher=starter.path(), text=text, device="cpu", **how)
    return f"{result['seconds']['training']:.0f}"


def measured(
    args: argparse.Namespace, skills: list[str], name: str, folder: Path, seconds: str, tokens: int
) -> list[str]:
    """A row: bytes of the rounded linears, tokens and seconds of training, KL, every skill."""
    found = whet.compare(
        starter.path(), folder, text=starter.held_out(args.seed, args.held_out), windows=args.held_out,
        skills=starter.skills("report", args.questions, args.seed), device="cpu", speed=False,
    )  # fmt: skip
    kl = found["divergence"]["kl"]
    skills[:] = [one["skill"] for one in found["skills"]]
    cells = [name, f"{size_on_disk(folder)['linears']:,}", f"{tokens:,}", seconds]
    row = [
        *cells,
        f"{kl['mean']:.4f} ± {kl['standard_error']:.4f}",
        *(kept(one["retention"]) for one in found["skills"]),
    ]
    print(" | ".join(row), flush=True)
    return row


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemes", default="int2s-g32,seq2-g32")
    parser.add_argument("--solver", default="tuned")
    parser.add_argument("--rounding", type=int, default=256, help="documents for the solver")
    parser.add_argument("--steps", default="300")
    parser.add_argument("--batch", type=int, default=2048, help="tokens of a step")
    parser.add_argument("--rate", type=float, help="without it whet's own")
    parser.add_argument("--scales", default="coupled", help="coupled or lsq")
    parser.add_argument("--documents", type=int, default=8000)
    parser.add_argument("--held-out", type=int, default=60, help="documents for the KL")
    parser.add_argument("--questions", type=int, default=40, help="a skill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/qat")
    return parser.parse_args()


if __name__ == "__main__":
    main()
