"""What the sizes in an elastic folder keep: KL a token on other text, and the score of every skill.

The folder is made of the embedded model, and every size cut from it as `whet slice` does: no weight is moved and no
text is read. KL has the error over windows, and beside it what the folder says: on its own verifying text, without and
with the weights that stay fitted anew. Scores are above chance, as shares of the original's, with 95 % intervals.
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
from evaluation import table
from whet import starter
from whet.checkpoint import Checkpoint
from whet.cli.starter import calibration


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    folder = Path(args.out) / "elastic"
    if not (folder / "whet.json").exists():
        started = time.perf_counter()
        whet.prune(
            starter.path(), folder, elastic=True, sizes=args.sizes, text=calibration(args.samples, args.seed),
            samples=args.samples, window=args.window, seed=args.seed, device="cpu",
        )  # fmt: skip
        print(f"sorted in {time.perf_counter() - started:.0f} s", flush=True)
    known = {one["size"]: one for one in Checkpoint(folder).whet["elastic"]["sizes"]}
    rows = [row(args, folder, size, one) for size, one in {1.0: None, **known}.items()]
    skills = [name for name, _ in rows[0][1]]
    head = ["size", "shape", "seconds", "KL", "KL, verifying", "KL, with repair", *skills]
    print(f"\n{table(head, [[*cells, *(kept for _, kept in found)] for cells, found in rows])}")


def row(args: argparse.Namespace, folder: Path, size: float, known: dict | None) -> tuple[list[str], list]:
    """A size: what it is and loses, and by skill what it keeps."""
    cut = folder.parent / f"{size:.0%}"
    seconds = "–"
    if not (cut / "whet.json").exists():
        started = time.perf_counter()
        whet.slice(folder, cut, size=size, device="cpu")
        seconds = f"{time.perf_counter() - started:.1f}"
    found = whet.compare(
        starter.path(), cut, text=starter.held_out(args.seed, args.held_out), windows=args.held_out, window=args.window,
        skills=starter.skills("report", args.questions, args.seed), device="cpu", speed=False,
    )  # fmt: skip
    kl, config = found["divergence"]["kl"], Checkpoint(cut).config
    shape = [config["num_hidden_layers"], config["num_key_value_heads"], config["intermediate_size"]]
    told = ["0", "0"] if known is None else [f"{known['kl']:.4f}", f"{known['kl_repaired']:.4f}"]
    cells = [f"{size:.0%}", " × ".join(map(str, shape)), seconds, f"{kl['mean']:.4f} ± {kl['standard_error']:.4f}"]
    print(*cells, *told, flush=True)
    return [*cells, *told], [(one["skill"], kept(one["retention"])) for one in found["skills"]]


def kept(retention: dict) -> str:
    if retention["value"] is None:
        return "none"
    low, high = retention["interval"]
    return f"{retention['value']:.1%} ({low:.1%} – {high:.1%})"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="90%,80%,70%,60%,50%")
    parser.add_argument("--samples", type=int, default=128, help="windows to calibrate on")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--held-out", type=int, default=150, help="documents for the KL")
    parser.add_argument("--questions", type=int, default=200, help="a skill; some have fewer and ask all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/elastic")
    return parser.parse_args()


if __name__ == "__main__":
    main()
