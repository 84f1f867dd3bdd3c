"""What `make bench` runs: nearest rounding against GPTQ on the embedded model, and the peers where they are installed.

Needs no download: model, calibration text and evaluation text are whet's own. Takes a few minutes on two cores. With
`--schemes every --solvers every` it is every solver on every grid, which takes a night.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

import whet
from evaluation import clustered_error, cut, table, window_scores
from whet import starter
from whet.checkpoint import load_model, load_tokenizer, size_on_disk
from whet.grids import BLOCKS, SMALL_FLOATS
from whet.quantize import METHODS

BENCH = Path(__file__).resolve().parent
SOLVED = ("nearest", "gptq")
SCHEMES = ("W8A16", "W4A16", "int4-g32", "int4s-g32", "int3-g32", "int3s-g32", "int2-g32")


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    model = starter.path()
    tokenizer = load_tokenizer(model)
    texts = {
        "train": "\n\n".join(starter.documents(args.seed, args.documents)),
        "eval": "\n\n".join(starter.held_out(args.seed, args.documents // 4)),
    }
    windows = {}
    for name, text in texts.items():
        (out / f"{name}.txt").write_text(text, encoding="utf-8")
        ids = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
        windows[name] = cut(ids, args.window)
    calibration = windows["train"][: args.samples].contiguous()
    save_file({"windows": calibration}, out / "calibration.safetensors")

    original = load_model(model, dtype=torch.float32)
    before = size_on_disk(model)["total"]
    perplexity = torch.from_numpy(window_scores(original, original, windows["eval"])["nll"]).mean().exp().item()
    print(
        f"original: {before:,} bytes, perplexity {perplexity:.4f} on {len(windows['eval'])} windows of {args.window}",
        flush=True,
    )
    rows, failed = [], []
    for scheme, solver in itertools.product(args.schemes, args.solvers):
        try:
            size, seconds = compressed(args, scheme, solver, out)
            scores = window_scores(original, load_model(out / "lighter", dtype=torch.float32), windows["eval"])
        except Exception as error:  # one of hundreds of pairs: the others are still worth their time
            failed.append(f"{scheme} {solver}: {type(error).__name__}: {error}")
            print(f"failed: {failed[-1]}", flush=True)
            continue
        kl = f"{scores['kl'].mean():.5f} ± {clustered_error(scores['kl']):.5f}"
        perplexity = torch.from_numpy(scores["nll"]).mean().exp().item()
        row = [scheme, solver, kl, f"{scores['top1'].mean():.4f}", f"{perplexity:.4f}"]
        rows.append([*row, f"{size:,}", f"{size / before:.3f}", f"{seconds:.1f}"])
        print(f"{scheme} {solver}: KL {kl}", flush=True)
    header = ["scheme", "solver", "KL ± error", "top-1", "perplexity", "bytes", "of original", "seconds"]
    print(table(header, rows), flush=True)
    if failed:
        raise SystemExit("\n".join([f"{len(failed)} of {len(failed) + len(rows)} pairs failed:", *failed]))
    peers(args, model, out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env-gptqmodel", help="folder of a virtual environment with gptqmodel")
    parser.add_argument("--env-llmcompressor", help="folder of a virtual environment with llmcompressor")
    parser.add_argument("--schemes", nargs="+", default=SCHEMES, help="`every`: one of each grid, in every width")
    parser.add_argument("--solvers", nargs="+", default=SOLVED, help="`every`: all of them")
    parser.add_argument("--documents", type=int, default=2000, help="documents generated to calibrate on")
    parser.add_argument("--samples", type=int, default=64, help="calibration windows")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/starter")
    args = parser.parse_args()
    if args.schemes == ["every"]:
        integers = [
            f"int{bits}{kind}-g{group}" for bits in range(2, 9) for kind in ("", "s", "z") for group in (32, 128)
        ]
        args.schemes = [*integers, *BLOCKS, *SMALL_FLOATS]
    if args.solvers == ["every"]:
        args.solvers = list(METHODS)
    return args


def compressed(args: argparse.Namespace, scheme: str, solver: str, out: Path) -> tuple[int, float]:
    """Make the lighter model in ``out/lighter``; its bytes, and the seconds it took."""
    lighter = out / "lighter"
    shutil.rmtree(lighter, ignore_errors=True)
    start = time.perf_counter()
    whet.compress(
        starter.path(),
        lighter,
        scheme=scheme,
        solver=solver,
        target="whet",
        text=str(out / "calibration.safetensors"),
        samples=args.samples,
        window=args.window,
        device="cpu",
    )
    return size_on_disk(lighter)["total"], time.perf_counter() - start


def peers(args: argparse.Namespace, model: Path, out: Path) -> None:
    """`quantization.py` on the same model and texts with the environments that are given."""
    given = {"--env-gptqmodel": args.env_gptqmodel, "--env-llmcompressor": args.env_llmcompressor}
    if not any(given.values()):
        print(
            f"skipped: the comparison with other quantizers ({' and '.join(given)} are not given; see bench/README.md)"
        )
        return
    command = [sys.executable, str(BENCH / "quantization.py"), "--model", str(model), "--draws", "2"]
    command += ["--train", str(out / "train.txt"), "--eval", str(out / "eval.txt"), "--out", str(out / "peers")]
    command += ["--window", str(args.window), "--threads", str(args.threads)]
    for option, folder in given.items():
        command += [option, folder] if folder else []
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
