"""When a low-rank repair is worth its bytes: schemes with repairs of several ranks beside schemes with more bits.

Each point is a scheme, and after a plus the rank of its repair: ``int2-g32+8``. Every one is solved on the same
calibration draws, windows of the first 90 % of the training text, and measured on the windows of another text, or
without one on the last 10 %. Bits are those of the linears of the blocks, adapter and all. The last column is what the
same bits buy without a repair: the KL on the line (of its logarithm over bits) through the points that have none.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import whet
from evaluation import clustered_error, cut, cut_sets, table, window_scores
from whet.checkpoint import load_model

POINTS = (
    "int2-g32,int2-g32+4,int2-g32+8,int2-g32+16,int2-g16,int2-g8,"
    "int3-g32,int3-g32+4,int3-g32+8,int3-g32+16,int3-g16,int3-g8,int4-g32,int5-g32"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--eval", help="without it the last 10 %% of --train")
    parser.add_argument("--points", default=POINTS)
    parser.add_argument("--solver", default="gptq")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--windows", type=int, default=128, help="the most windows to measure on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/repair")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    draws, measured = windows_of(args)
    original = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    rows = []
    for point in args.points.split(","):
        scheme, _, rank = point.partition("+")
        scores, seconds = [], 0.0
        for draw in draws:
            shutil.rmtree(out / "lighter", ignore_errors=True)
            started = time.perf_counter()
            made = whet.compress(
                args.model, out / "lighter", scheme=scheme, repair=int(rank) if rank else None, solver=args.solver,
                text=draw, device="cpu",
            )  # fmt: skip
            seconds += (time.perf_counter() - started) / len(draws)
            scores.append(window_scores(original, load_model(out / "lighter", dtype=torch.float32), measured)["kl"])
        sizes = made["sizes"]["lighter"]
        weights = sum(np.prod(line["shape"]) for line in made["linears"].values())
        kl = np.mean(scores, axis=0)
        bits = 8 * (sizes["linears"] + sizes.get("adapter", 0)) / weights
        rows.append({"point": point, "bits": float(bits), "kl": float(kl.mean()), "error": clustered_error(kl),
                     "seconds": seconds, "bytes": sizes["linears"] + sizes.get("adapter", 0)})  # fmt: skip
        print(f"measured: {point}, KL {kl.mean():.5f}", flush=True)
    shutil.rmtree(out / "lighter", ignore_errors=True)
    (out / "repair.json").write_text(json.dumps({**vars(args), "measured": len(measured), "points": rows}, indent=2))
    print(f"\n{len(measured)} windows of {args.window} tokens, {args.draws} calibration draws\n")
    print(table(["", "bits a weight", "KL", "the same bits without a repair", "seconds"], [*map(shown(rows), rows)]))


def windows_of(args: argparse.Namespace) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The calibration draws, disjoint, and the windows that are measured on."""
    tokenizer = AutoTokenizer.from_pretrained(args.model)

    def tokens(path: str) -> torch.Tensor:
        text = Path(path).read_text(encoding="utf-8")
        return tokenizer(text, add_special_tokens=False, return_tensors="pt", verbose=False).input_ids[0]

    draws, tail = cut_sets(tokens(args.train), args.window, [args.samples] * args.draws, args.seed)
    measured = cut(tokens(args.eval), args.window) if args.eval else tail
    return draws, measured[: args.windows]


def shown(rows: list[dict]):
    """How a row of the table is made of a point, among all of them."""
    plain = sorted((row["bits"], np.log(row["kl"])) for row in rows if "+" not in row["point"])
    best = [one for one in plain if all(one[1] <= other[1] for other in plain if other[0] <= one[0])]

    def line(row: dict) -> list[str]:
        within = len(best) > 1 and best[0][0] <= row["bits"] <= best[-1][0]
        same = f"{np.exp(np.interp(row['bits'], *zip(*best, strict=True))):.5f}" if within else "–"
        kl = f"{row['kl']:.5f} ± {row['error']:.5f}"
        return [row["point"], f"{row['bits']:.2f}", kl, same if "+" in row["point"] else "", f"{row['seconds']:.1f}"]

    return line


if __name__ == "__main__":
    main()
