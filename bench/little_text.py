"""What solvers lose of the embedded model where there is little text to solve on: KL a token on other text.

Text is given as the command line gives it, so that there is more of it to verify on than the few documents that are
solved on; both differ from draw to draw, what measures does not.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import whet
from evaluation import table, window_scores
from whet import starter
from whet.checkpoint import load_model
from whet.cli.starter import calibration

LONGEST = 256  # tokens of a document


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    original = AutoModelForCausalLM.from_pretrained(starter.path(), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(starter.path())
    rest = [torch.tensor([tokenizer(text).input_ids[:LONGEST]]) for text in starter.held_out(args.seed, args.held_out)]
    sizes = [one.shape[1] - 1 for one in rest]
    lighter = Path(args.out) / "lighter"
    rows = []
    for documents in args.documents:
        for scheme in args.schemes:
            for solver in args.solvers:
                found, tokens = [], []
                for draw in range(args.seed, args.seed + args.draws):
                    shutil.rmtree(lighter, ignore_errors=True)
                    result = whet.compress(
                        starter.path(), lighter, scheme=scheme, solver=solver, target="whet", device="cpu",
                        text=calibration(documents, draw), samples=documents, window=LONGEST, synthetic=0,
                    )  # fmt: skip
                    tokens.append(result["text"]["tokens"])
                    model = load_model(lighter, dtype=torch.float32)
                    by_document = [window_scores(original, model, one)["kl"][0] for one in rest]
                    found.append(np.average(by_document, weights=sizes))
                    shutil.rmtree(lighter)
                each = " ".join(f"{kl:.5f}" for kl in found)
                rows.append([str(documents), f"{np.mean(tokens):.0f}", scheme, solver, f"{np.mean(found):.5f}", each])
                print(f"measured: {documents} documents, {scheme}, {solver}: {each}", flush=True)
    print("\n" + table(["documents", "tokens", "scheme", "solver", "KL", "draw by draw"], rows))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", nargs="+", type=int, default=[4, 16, 64], help="to solve on")
    parser.add_argument("--schemes", nargs="+", default=["int4-g32", "int3-g32", "int2-g32"])
    parser.add_argument("--solvers", nargs="+", default=["nearest", "gptq"])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--held-out", type=int, default=300, help="documents to measure on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/little-text")
    return parser.parse_args()


if __name__ == "__main__":
    main()
