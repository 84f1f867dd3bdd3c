"""What blocks that differ in shape lose beside uniform ones: KL a token on other text, and what every skill keeps.

For every share: whet's choice of a uniform shape, and `--shapes free`, both as they are without and with repair; then
sub-blocks alone (`--units attention,ffn`), of which 22.2 % is about a quarter of the embedded model's twelve.
It is the embedded model, and text and measure are those of `bench/pruning.py`.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import shutil
import time
from typing import Any

import numpy as np
import torch

import whet
from evaluation import table, window_scores
from pruning import WINDOW, Bench, Measured
from whet import starter
from whet.checkpoint import load_model


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    bench = Bench(args)
    asked = [(share, how, {"shapes": how}) for share in args.shares for how in args.shapes]
    asked += [(share, "sub-blocks", {"shapes": "free", "units": "attention,ffn"}) for share in args.sub_blocks]
    rows, kept = [], []
    for share, name, options in asked:
        for repair in (True,) if args.repair_only else (False, True):
            found, made = measured(bench, share, repair, **options)
            rows.append([share, name, "yes" if repair else "no", f"{found.removed:.1%}", str(found), told(made)])
            print("measured:", *rows[-1], f"{found.seconds:.0f} s", flush=True)
            if repair and args.questions:
                kept += [[share, name, *row] for row in skills(bench, args)]
    shutil.rmtree(bench.folder, ignore_errors=True)
    print(f"\n{table(['asked', 'shapes', 'repair', 'went', 'KL', 'what stays of each block'], rows)}")
    if kept:
        print(f"\n{table(['asked', 'shapes', 'skill', 'kept of the score above chance'], kept)}")


def measured(bench: Bench, share: str, repair: bool, **options: Any) -> tuple[Measured, dict[str, Any]]:
    """KL of every text, and what was made."""
    shutil.rmtree(bench.folder, ignore_errors=True)
    started = time.perf_counter()
    made = whet.prune(bench.model, bench.folder, remove=share, repair=repair, **options, **bench.text(bench.args.seed))
    seconds = time.perf_counter() - started
    model = load_model(bench.folder, torch.float32)
    kl = np.array([window_scores(bench.original, model, one)["kl"][0] for one in bench.windows])
    return Measured(kl, bench.sizes, made["removed"], seconds, made["amounts"]), made


def told(made: dict[str, Any]) -> str:
    """How many channels and heads every block has, 0 where the sub-block is gone; only of what blocks lost."""
    kept = made["kept"]
    lost = {
        unit: {int(i): len(mine) for i, mine in kept[unit].items()} for unit in ("channels", "heads") if unit in kept
    }
    parts = [f"{unit} {' '.join(str(of.get(i, 'all')) for i in kept['layers'])}" for unit, of in lost.items()]
    return ", ".join([f"{len(kept['layers'])} blocks", *parts])


def skills(bench: Bench, args: argparse.Namespace) -> list[list[str]]:
    """What every skill keeps, by `whet compare`."""
    found = whet.compare(
        bench.model,
        bench.folder,
        text=starter.held_out(args.seed, args.held_out),
        skills=starter.skills("report", args.questions, args.seed),
        windows=64,
        window=WINDOW,
        device="cpu",
        speed=False,
    )
    rows = []
    for one in found["skills"]:
        value, interval = one["retention"]["value"], one["retention"].get("interval")
        rows.append([one["skill"], "none" if value is None else f"{value:.1%} ({interval[0]:.1%} – {interval[1]:.1%})"])
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shares", nargs="*", default=["16.7%", "33.3%"])
    parser.add_argument("--shapes", nargs="*", default=["uniform", "free"])
    parser.add_argument("--sub-blocks", nargs="*", default=["22.2%"])
    parser.add_argument("--repair-only", action="store_true", help="leave out what is not repaired")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", type=int, default=100, help="texts to measure on")
    parser.add_argument("--questions", type=int, default=50, help="questions a skill; 0 leaves skills out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="/tmp/free-shapes")
    parser.set_defaults(model=None)
    return parser.parse_args()


if __name__ == "__main__":
    main()
