"""What the text that is calibrated on is worth: KL on held-out text with one's own text, with what the model writes
itself, with the generated text of the embedded model, and with text of another kind.

    python bench/calibration_text.py MODEL --train train.txt --held valid.txt [--other other.txt] [--seeds 3]

Each is solved by `gptq` in groups of 32 with the same number of windows; `nearest` needs no text.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import whet
from whet import starter


def texts(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Texts by name; None: the model writes its own."""
    found: dict[str, Any] = {"own text": args.train, "written by the model": None}
    found["generated (starter)"] = starter.documents(seed, 4000)
    if args.other:
        found["another kind of text"] = args.other
    return found


def kl(args: argparse.Namespace, text: Any, scheme: str, solver: str, seed: int) -> float:
    """Mean KL in nats a token on the held-out text."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lighter"
        whet.compress(
            args.model,
            out,
            scheme=scheme,
            target="whet",  # its groups need not divide the rows
            solver=solver,
            text=text,
            samples=args.samples,
            window=args.window,
            seed=seed,
        )
        found = whet.compare(args.model, out, text=args.held, speed=False, windows=128, window=args.window)
    return float(found["divergence"]["kl"]["mean"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("--train", required=True)
    parser.add_argument("--held", required=True)
    parser.add_argument("--other")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--window", type=int, default=256)
    args = parser.parse_args()
    sys.stdout.write("| text | 4 bits | 3 bits |\n|---|---:|---:|\n")
    schemes = ("int4z-g32", "int3z-g32")
    rows: dict[str, list[list[float]]] = {}
    for seed in range(args.seeds):
        for name, text in texts(args, seed).items():
            row = rows.setdefault(name, [[] for _ in schemes])
            for place, scheme in enumerate(schemes):
                row[place].append(kl(args, text, scheme, "gptq", seed))
    rows["none (`nearest`)"] = [[kl(args, args.train, scheme, "nearest", 0)] for scheme in schemes]
    for name, row in rows.items():
        told = [f"{statistics.mean(one):.4f} ({min(one):.4f}–{max(one):.4f})" for one in row]
        sys.stdout.write(f"| {name} | {' | '.join(told)} |\n")


if __name__ == "__main__":
    main()
