"""What onnxruntime and OpenVINO make of whet's graphs: the proof's figures, and speed and memory beside bfloat16.

Of each model and scheme a lighter folder is written for each runtime, rounded to nearest: the weights' quality is not
what is asked here. `KL float` is to the folder in PyTorch with float inputs, `KL as run` with the runtime's own
settings (of an encoder: the difference of hidden states over their size). Speed is a ratio to transformers in bfloat16
at batch 1, the median of interleaved rounds in one process; memory is the peak of a process of its own that opens the
model and decodes, over what its imports take.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModel, BertConfig

import whet
from evaluation import table
from random_model import write_tokenizer
from whet.checkpoint.model_files import files_of, model_file
from whet.cli.starter import resolve
from whet.engines.opening import open_engine
from whet.engines.torch import outputs
from whet.measure.speed import footprint, take_turns

SCHEMES = {
    "4 bits": {"scheme": "int4s-g32", "embed": "int4s-g32"},
    "4 bits, zeros": {"scheme": "int4-g32", "embed": "int4-g32"},
    "8 bits": {"scheme": "int8s", "embed": "int8s"},
    "8 bits, zeros": {"scheme": "int8-g32", "embed": "int8-g32"},
    "mixed": {"bits": 6.0},
}
HEADS = ["model", "runtime", "scheme", "MB", "KL float", "KL as run", "greedy", "decode", "prefill", "peak MB"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="starter,minilm", help="starter, minilm (made here), or folders")
    parser.add_argument("--targets", default="onnx,openvino")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("bench-out/runtimes"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    rows = []
    for name in args.models.split(","):
        model = minilm(args.out / "minilm") if name == "minilm" else resolve(name)
        for target in args.targets.split(","):
            rows += measured(Path(name).name, model, target, args)
    print(table(HEADS, rows))


def measured(name: str, model: Path, target: str, args: argparse.Namespace) -> list[list[str]]:
    """A row for the original as a graph and one for every scheme."""
    out, rows = args.out / f"{name}-{target}", []
    encoder = name == "minilm"
    out.mkdir()
    exported = whet.export(model, to=target, out=out / "original")
    told = {"original": (out / "original", exported["check"])}
    for scheme, asked in SCHEMES.items():
        if encoder and "bits" in asked:
            asked = {"scheme": "int8s", "embed": "int4s"}
        text = {"text": TEXT, "samples": 16, "window": 64} if "bits" in asked else {"solver": "nearest"}
        made = whet.compress(model, out / scheme.replace(" ", "-"), target=target, **asked, **text)
        told[scheme] = (Path(made["out"]), made["check"]["graph"]["check"])
    for scheme, (folder, check) in told.items():
        figures = encoded(model, folder, args) if encoder else decoded(model, folder, args)
        size = sum(file.stat().st_size for file in files_of(model_file(folder)))
        exact, run = (check.get(f"{how}{'error' if encoder else 'kl'}") for how in ("", "shipped_"))
        greedy = "" if encoder else f"{check['greedy']['same']}/{check['greedy']['of']}"
        proof = [f"{exact:.1e}", "" if run is None else f"{run:.1e}", greedy]
        rows.append([name, target, scheme, f"{size / 1e6:.1f}", *proof, *figures])
        print("  ".join(rows[-1]), flush=True)
    return rows


def decoded(model: Path, folder: Path, args: argparse.Namespace) -> list[str]:
    """Ratios of decoding and reading a prompt, and the peak of memory."""
    original, lighter = open_engine(model, "cpu", "bfloat16"), open_engine(model_file(folder))
    prompt = original.encode(" ".join(TEXT))[:128]
    speeds = take_turns(original, lighter, prompt, rounds=args.rounds)
    both = [zip(speeds[what]["original"], speeds[what]["lighter"], strict=True) for what in ("decode", "prefill")]
    ratios = [median(b / a for a, b in pairs) for pairs in both]
    return [*(f"{ratio:.2f}" for ratio in ratios), peak(model_file(folder), prompt)]


def encoded(model: Path, folder: Path, args: argparse.Namespace) -> list[str]:
    """The ratio of reading 128 tokens."""
    sides: list[Any] = [open_engine(model, "cpu", "bfloat16"), open_engine(model_file(folder))]
    batch, taken = torch.arange(128)[None] + 5, ([], [])
    for number in range(args.rounds + 1):
        for seconds, side in zip(taken, sides, strict=True):
            started = time.perf_counter()
            with torch.inference_mode():
                outputs(side.model, batch)
            if number:
                seconds.append(time.perf_counter() - started)
    return ["", f"{median(a / b for a, b in zip(*taken, strict=True)):.2f}", ""]


def peak(model: Path, prompt: list[int]) -> str:
    """Memory that a process of its own takes to open the model and decode, over what its imports take."""
    found = footprint(model, prompt)
    return "" if "error" in found else f"{(found['peak_bytes'] - found['before_bytes']) / 1e6:.0f}"


def minilm(folder: Path) -> Path:
    """A random BERT of the shape of all-MiniLM-L6-v2."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    write_tokenizer(folder, 0, 4096)
    config = BertConfig(
        vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


TEXT = [
    " ".join(f"Once upon a time a fox who lived in forest {i} counted {i * j} trees." for j in range(1, 20))
    for i in range(64)
]


if __name__ == "__main__":
    main()
