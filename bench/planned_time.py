"""What a run to a budget takes beside one at a scheme throughout: processor seconds, in a process each, and the ratio.

The default is a random Llama of 7.5 M parameters with every default of `whet compress`, so that what is timed is a text
of the size that a user gives. `--bits` and `--fit` runs are each beside the uniform scheme of about the same bits.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from evaluation import table

BENCH = Path(__file__).resolve().parent
RANDOM = "--hidden 256 --ffn 704 --blocks 8 --heads 8 --kv-heads 4 --vocabulary 4096 --characters 1500000"


def main() -> None:
    args = arguments()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    model, text = args.model, args.text
    if model is None:
        model, text = str(out / "model"), str(out / "text.txt")
        if not Path(text).exists():
            subprocess.run(
                [sys.executable, str(BENCH / "random_model.py"), model, "--text", text, *RANDOM.split()], check=True
            )
    every = [*([] if text is None else ["--text", text]), "--for", "whet", *args.more.split()]
    rows, base = [], 0.0
    for asked in (f"--scheme={args.scheme}", *args.ways):
        processor, wall = timed(out / "lighter", [model, *every, *asked.split()], args.threads)
        base = base or processor
        rows.append([asked, f"{processor:.0f}", f"{wall:.0f}", f"{processor / base:.2f}"])
        print(f"{asked}: {processor:.0f} processor s", flush=True)
    print(table(["", "processor s", "wall s", "over uniform"], rows))


def timed(lighter: Path, options: list[str], threads: int) -> tuple[float, float]:
    """Processor and wall seconds of `whet compress` into `lighter`, which is removed before and after."""
    shutil.rmtree(lighter, ignore_errors=True)
    model, *rest = options
    command = [str(Path(sys.executable).with_name("whet")), "compress", model, str(lighter), *rest]
    limits = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    before, started = os.times(), time.monotonic()
    subprocess.run(
        command, check=True, env={**os.environ, **limits}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    after, wall = os.times(), time.monotonic() - started
    shutil.rmtree(lighter, ignore_errors=True)
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, wall


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder, or `starter`; a random model is made if not given")
    parser.add_argument("--text", help="text to calibrate on; the random model has one")
    parser.add_argument("--scheme", default="int4-g64", help="the uniform one")
    parser.add_argument("--ways", nargs="+", default=["--bits=4.5", "--fit=25%"], help="budgets")
    parser.add_argument("--more", default="", help="options of every run: '--solver tuned --samples 32'")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/planned-time")
    return parser.parse_args()


if __name__ == "__main__":
    main()
