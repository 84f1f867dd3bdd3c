"""Time per block of whet's GPTQ and llm-compressor's, side by side, and the peak memory of the whole whet command.

Time: both work on the first blocks of the model (``--blocks``, a cut-down copy, so that the peer fits in memory and
the rounds are short), in turns, in the same run on the same windows, with the same number of threads. A block's time
is one whole turn of the loop (calibrate, quantize, run again), from one block to the next, so loading, tracing and the
head are in neither; the median is taken. Seconds are given on the wall's clock and on the processor's: where other
work shares the machine, compare the latter, with one thread.

Memory: of both, what the process had at its peak over what its imports take; with ``--blocks`` of the whole model's
number, that of the whole model. And ``whet compress`` as a user types it, on the whole model, as a process of its own.
The peak is the kernel's own account of a process (``ru_maxrss``, which counts mapped pages of the model's files too).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer

from evaluation import cut, table

RUNNERS = Path(__file__).resolve().parent / "runners"


def main() -> None:
    args = arguments()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if args.env_llmcompressor and args.rounds:
        header = "round, program, s/block, processor s/block, whole run s, MB over imports"
        header += ", wall / peer, processor / peer, MB / peer"
        print(table(header.split(", "), speed(args, out)), flush=True)
    elif not args.env_llmcompressor:
        print("skipped: time per block (no --env-llmcompressor)")
    if not args.no_whole:
        print(memory(args, out))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a Llama-like folder, e.g. written by random_model.py")
    parser.add_argument("--text", required=True, help="UTF-8 calibration text")
    parser.add_argument("--env-llmcompressor", help="folder of a virtual environment with llmcompressor")
    parser.add_argument("--blocks", type=int, default=3, help="blocks of the cut-down copy")
    parser.add_argument("--rounds", type=int, default=2, help="0: no comparison of speed")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--peer-dtype", choices=["auto", "float32"], action="append", help="type the peer computes in (repeatable)"
    )
    parser.add_argument("--no-whole", action="store_true", help="leave out the whole command")
    parser.add_argument("--out", default="bench-out/memory-speed")
    args = parser.parse_args()
    args.peer_dtype = args.peer_dtype or ["auto"]
    return args


def speed(args: argparse.Namespace, out: Path) -> list[list[str]]:
    """Rounds of peer and whet in turns on the cut-down copy; rows of the table."""
    short = cut_down(Path(args.model), out / f"first-{args.blocks}-blocks", args.blocks)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    text = Path(args.text).read_text(encoding="utf-8")
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt", verbose=False).input_ids[0]
    windows = cut(ids, args.window)[: args.samples]
    if len(windows) < args.samples:
        raise SystemExit(
            f"{args.text} has {len(windows)} windows of {args.window} tokens; {args.samples} are asked for"
        )
    save_file({"windows": windows.contiguous()}, out / "windows.safetensors")
    peer = Path(args.env_llmcompressor or "") / "bin" / "python"
    programs = {
        f"llm-compressor {dtype}": [str(peer), str(RUNNERS / "run_llmcompressor.py"), "--dtype", dtype]
        for dtype in args.peer_dtype
    } | {"whet": [sys.executable, str(RUNNERS / "run_whet.py")]}
    rows = []
    for turn in range(1, args.rounds + 1):
        measured: dict[str, list[float]] = {}
        for name, command in programs.items():
            folder = out / f"round-{turn}-{name.replace(' ', '-')}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            command = [*command, "--model", str(short), "--windows", str(out / "windows.safetensors")]
            command += ["--bits", str(args.bits), "--group", str(args.group), "--symmetric", "--time-only"]
            command += ["--threads", str(args.threads), "--out", str(folder)]
            with (folder / "log.txt").open("w") as log:
                subprocess.run(command, env=environment(args.threads), stdout=log, stderr=log, check=True)
            facts = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            block = [statistics.median(facts[key]) for key in ("seconds_per_block", "cpu_seconds_per_block")]
            measured[name] = [*block, (facts["peak_rss_bytes"] - facts["imported_rss_bytes"]) / 1e6]
            best = [min(peer) for peer in zip(*(m for other, m in measured.items() if other != "whet"), strict=True)]
            row = [str(turn), name, *(f"{seconds:.1f}" for seconds in block)]
            row += [f"{facts['seconds']:.0f}", f"{measured[name][-1]:.0f}"]
            row += [f"{m / b:.2f}" for m, b in zip(measured[name], best, strict=True)] if name == "whet" else [""] * 3
            rows.append(row)
            print(f"round {turn}: {name}: {block[0]:.1f} s per block", flush=True)
    return rows


def memory(args: argparse.Namespace, out: Path) -> str:
    """Run the whole command; a line with its peak resident memory and time."""
    lighter = out / "lighter"
    shutil.rmtree(lighter, ignore_errors=True)
    whet = Path(sys.executable).with_name("whet")
    command = [str(whet), "compress", args.model, str(lighter), "--scheme", f"int{args.bits}s-g{args.group}"]
    command += ["--text", args.text, "--samples", str(args.samples), "--window", str(args.window), "--device", "cpu"]
    start = time.perf_counter()
    with (out / "whole.log").open("w") as log:
        process = subprocess.Popen(command, env=environment(args.threads), stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)}: failed\n{(out / 'whole.log').read_text()[-2000:]}")
    blocks = json.loads((Path(args.model) / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    weights = sum(path.stat().st_size for path in Path(args.model).glob("*.safetensors"))
    smaller = sum(path.stat().st_size for path in lighter.glob("*.safetensors"))
    return (
        f"whole command: peak resident {usage.ru_maxrss * 1024 / 1e9:.2f} GB, {seconds:.0f} s for {blocks} blocks "
        f"({seconds / blocks:.1f} s a block, everything included), "
        f"weights {weights / 1e6:.1f} -> {smaller / 1e6:.1f} MB"
    )


def environment(threads: int) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(threads)}


def cut_down(model: Path, folder: Path, blocks: int) -> Path:
    """A copy of the model with its first blocks only, tensor by tensor."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["num_hidden_layers"] = blocks
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for path in model.glob("*token*"):
        shutil.copy(path, folder)
    kept: dict[str, torch.Tensor] = {}
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                part = name.split(".")
                if part[1] != "layers" or int(part[2]) < blocks:
                    kept[name] = file.get_tensor(name)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


if __name__ == "__main__":
    main()
