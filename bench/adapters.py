"""Whether a low rank loses logic, and whether DoRA gives it back: LoRA, DoRA and full training of the embedded model,
pruned, at several ranks, on the same text for the same steps.

The student is the embedded model without a share of its blocks' parameters; it learns what the original predicts. KL is
of text that nothing was trained on, with its standard error; skills are shares of the original's score above chance
with 95 % intervals, on the report's questions.
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
from whet.cli.starter import calibration


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    student = out / "student"
    if not (student / "whet.json").exists():
        text = calibration(64, args.seed)
        whet.prune(
            starter.path(), student, remove=args.remove, text=text, samples=64, window=256, units="channels",
            device="cpu",
        )  # fmt: skip
    runs = [("full", 0), *((kind, rank) for rank in args.ranks for kind in ("lora", "dora"))]
    rows = [row(args, "none", student, 0.0, None)]
    rows += [row(args, *trained(args, out, student, kind, rank)) for kind, rank in runs]
    names = list(dict.fromkeys(name for _, found in rows for name, _ in found))
    head = ["trained", "parameters", "held-out KL", "seconds", "KL", *names]
    print(f"\n{table(head, [[*cells, *(share for _, share in found)] for cells, found in rows])}")


def trained(args: argparse.Namespace, out: Path, student: Path, kind: str, rank: int) -> tuple:
    """A run: its name, the folder it wrote, the seconds it took and what it returned."""
    name = kind if kind == "full" else f"{kind} {rank}"
    folder = out / name.replace(" ", "-")
    started = time.perf_counter()
    rates = {"full": args.full_rate}
    result = whet.tune(
        student, folder, adapter=kind, **({} if kind == "full" else {"rank": rank, "merge": True}),
        teacher=starter.path(), text=starter.documents(args.seed + 1, args.documents), steps=args.steps,
        batch=args.batch, window=128, learning_rate=rates.get(kind, args.rate), seed=args.seed, device="cpu",
    )  # fmt: skip
    return name, folder, time.perf_counter() - started, result


def row(args: argparse.Namespace, name: str, folder: Path, seconds: float, result: dict | None) -> tuple:
    """What was trained, what that took, and by skill what it keeps."""
    found = whet.compare(
        starter.path(), folder, text=starter.held_out(args.seed, args.held_out), windows=args.held_out, window=128,
        skills=[q for q in starter.skills("report", args.questions, args.seed) if q["skill"].startswith(args.skills)],
        device="cpu", speed=False,
    )  # fmt: skip
    kl = found["divergence"]["kl"]
    held = result and result["held_out"]
    cells = [
        name,
        f"{result['trained']:,}" if result else "0",
        f"{held['start']:.4f} → {held['best']:.4f} ± {held['error']:.4f}" if held else "",
        f"{seconds:.0f}",
        f"{kl['mean']:.4f} ± {kl['standard_error']:.4f}",
    ]
    skills = [(one["skill"], kept(one["retention"])) for one in found["skills"]]
    print(*cells, *(f"{skill} {share}" for skill, share in skills), sep=" | ", flush=True)
    return cells, skills


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--remove", default="35%", help="of the blocks' parameters, in channels")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch", type=int, default=512, help="tokens of a step")
    parser.add_argument("--documents", type=int, default=600)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--full-rate", type=float, default=5e-4)
    parser.add_argument("--held-out", type=int, default=40, help="documents for the KL")
    parser.add_argument("--questions", type=int, default=100, help="a skill")
    parser.add_argument("--skills", nargs="+", default=["logic", "arithmetic"], help="that are asked about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/adapters")
    args = parser.parse_args()
    args.skills = tuple(args.skills)
    return args


if __name__ == "__main__":
    main()
