"""Speed and memory of lighter folders packed in memory, against their original in transformers, in one process.

    python bench/random_model.py bench-out/twin --hidden 768 --ffn 2048 --blocks 14 --heads 12 --kv-heads 4
    OMP_NUM_THREADS=2 python bench/packed_speed.py bench-out/twin --scheme int4s-g128 --scheme W8A16

Each scheme is made by nearest rounding (embedding and head too), which changes neither speed nor memory. The original
and the packed model take turns, batch 1; the medians of the rounds' ratios are shown with their spread. Memory is the
most that a process of its own held while it loaded the model and generated, and what that is above the same process
before it opened the model.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from statistics import median

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

import whet
from evaluation import table
from whet.engines.packed import packing_of
from whet.engines.torch import open_model
from whet.measure.speed import footprint, take_turns

HEADER = [
    *("model", "decode / original", "spread", "prefill / original", "tokens/s", "peak MB", "/ original"),
    *("above imports MB", "/ original", "kept"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="the original, e.g. written by random_model.py")
    parser.add_argument("--scheme", action="append", help="of linears, embedding and head (repeatable)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--prompt", type=int, default=64, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=32, help="tokens decoded in a round")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    parser.add_argument("--decoded", action="store_true", help="time each lighter folder decoded too")
    parser.add_argument("--out", default="bench-out/packed-speed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    prompt = torch.randint(2, 200, (args.prompt,), generator=torch.Generator().manual_seed(0)).tolist()
    original = open_model(args.model, "cpu")
    alone = footprint(args.model, prompt, args.tokens)
    rows, found = [], []
    for scheme in args.scheme or ["int4s-g128"]:
        folder = Path(args.out) / scheme
        if not (folder / "whet.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            options = {"target": "whet", "solver": "nearest", "device": "cpu"}
            whet.compress(args.model, folder, scheme=scheme, embed=scheme, **options)
        for fast in (True, False) if args.decoded else (True,):
            packing = packing_of(fast, packed=False)
            engine = open_model(folder, "cpu", packing=packing)
            timed = take_turns(original, engine, prompt, rounds=args.rounds, new_tokens=args.tokens)
            ratios = {
                what: [b / a for a, b in zip(both["original"], both["lighter"], strict=True)]
                for what, both in timed.items()
            }
            own = footprint(folder, prompt, args.tokens, fast=fast)
            above = [one["peak_bytes"] - one["before_bytes"] for one in (alone, own)]
            speeds = [median(timed["decode"][which]) for which in ("original", "lighter")]
            rows.append(
                [
                    f"{scheme}{'' if fast else ', decoded'}",
                    f"{median(ratios['decode']):.2f}",
                    f"{min(ratios['decode']):.2f} – {max(ratios['decode']):.2f}",
                    f"{median(ratios['prefill']):.2f}",
                    f"{speeds[0]:.1f} → {speeds[1]:.1f}",
                    f"{own['peak_bytes'] / 1e6:.0f}",
                    f"{own['peak_bytes'] / alone['peak_bytes']:.2f}",
                    f"{above[1] / 1e6:.0f}",
                    f"{above[1] / above[0]:.2f}",
                    "" if packing is None else ", ".join(f"{n} {kernel}" for kernel, n in packing.kept.items()),
                ]
            )
            found.append({"scheme": scheme, "fast": fast, "ratios": ratios, "original": alone, "lighter": own})
            print(table(HEADER, rows), flush=True)
            del engine
    (Path(args.out) / "result.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
