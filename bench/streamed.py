"""Peak memory of comparing a model with itself: both in memory, and the second one's blocks on disk (`--streamed`).

Each is measured in a process of its own, less what the process has before a model is opened. Beside it is the size of
the weights of one model, of one block, and of what is outside the blocks.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch

import whet
from evaluation import table
from whet.anatomy import anatomy
from whet.checkpoint import Checkpoint
from whet.child import run_python
from whet.measure.sides import stored_blocks, weights_of
from whet.measure.speed import _resident

TEXT = [f"line {i}: {i * i} and {i * 7 % 13} of what was said {i % 5} times. " * 8 for i in range(60)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="such as bench/random_model.py writes")
    folder = parser.parse_args().folder
    checkpoint = Checkpoint(folder)
    count = len(anatomy(checkpoint.config, checkpoint.shapes, folder).blocks)
    whole, blocks = weights_of(folder, None)[1], stored_blocks(folder, None)
    rows = [
        ["weights of one model", _mb(whole)],
        ["of one block", _mb(blocks / count)],
        ["outside the blocks", _mb(whole - blocks)],
    ]
    kl = []
    for name, streamed in (("peak, both in memory", False), ("peak, streamed", True)):
        done = run_python("import sys; sys.path.insert(0, 'bench'); from streamed import child; child(*sys.argv[1:])",
                          folder, json.dumps(streamed))  # fmt: skip
        if done.returncode:
            sys.exit(done.stderr)
        told = json.loads(done.stdout.splitlines()[-1])
        rows.append([name, _mb(told["peak"] - told["before"])])
        kl.append(told["kl"])
    print(table(["", "MB"], rows))
    print(f"KL {kl[0]} and {kl[1]}")


def child(folder: str, streamed: str) -> None:
    """One comparison in this process; its figures to stdout."""
    torch.set_num_threads(1)
    before = _resident("VmRSS")
    found = whet.compare(
        folder, folder, text=TEXT, windows=4, window=64, batch_tokens=128, device="cpu", speed=False,
        measure=["none"], streamed=json.loads(streamed),
    )  # fmt: skip
    peak = _resident("VmHWM")
    print(json.dumps({"before": before, "peak": peak, "kl": found["divergence"]["kl"]["mean"]}))


def _mb(count: float) -> str:
    return f"{count / 1e6:,.0f}"


if __name__ == "__main__":
    main()
