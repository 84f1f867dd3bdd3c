"""whet's solvers against GPTQModel, llm-compressor, auto-round, HQQ and torchao on the same draws and windows.

Makes the calibration windows once (every program reads them from the same files), runs each quantizer in its own
environment, decodes every result to a plain folder and measures it with ``evaluation.py``. Prints, per width, the
mean KL over the draws, and the paired ratio of whet to the best peer, i.e. the one with the lowest mean KL at that
width; draws KL against processor seconds in ``quantization-eval.svg``. Runs are cached by the content of everything
they depend on, so a second call costs nothing.

``--schemes NVFP4,MXFP4,FP8`` compares float formats, weight-only: the peers are llm-compressor's data-free rounding and
its GPTQ, each with the scales of the largest weight and with those of least error.

The training text is split before use: calibration draws come from its first 90 %, and ``--on tail`` evaluates on the
held-back rest. ``whet auto`` and ``whet nearest auto`` judge transforms on windows that are in no draw and in no
evaluation. Tune with ``--on tail``; open the evaluation text (``--on eval``) for the report. The embedded model comes
with its own texts: documents one behind the other, as in its training.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import whet
from evaluation import Ratio, cut, cut_sets, paired_ratio, table, window_scores
from frontier import Dot, Panel, frontier_plot
from whet import starter
from whet.quantize import TRANSFORMS

RUNNERS = Path(__file__).resolve().parent / "runners"
DOCUMENTS = 12  # of the embedded model's for a window of 256 tokens, with some to spare
# The rooms of whet that its quantized weights depend on.
ROOMS = ("anatomy", "checkpoint", "text", "grids", "targets", "walk", "quantize", "scores", "formats", "recipe")


@dataclass(frozen=True)
class Method:
    """A quantizer: script, environment (an option of this program, or None: this one), its packages, options."""

    script: str
    environment: str | None
    packages: tuple[str, ...]
    options: tuple[str, ...] = ()


GPTQMODEL = ("run_gptqmodel.py", "env_gptqmodel", ("gptqmodel", "torch", "transformers"))
AUTOROUND = ("run_autoround.py", "env_autoround", ("auto_round", "torch", "transformers"))
HQQ = ("run_hqq.py", "env_free", ("hqq", "torch", "transformers"))
TORCHAO = ("run_torchao.py", "env_free", ("torchao", "torch", "transformers"))
LLMCOMPRESSOR = ("run_llmcompressor.py", "env_llmcompressor", ("llmcompressor", "compressed_tensors", "torch"))
PEERS = {
    "GPTQModel": Method(*GPTQMODEL),
    "GPTQModel mse=2.4": Method(*GPTQMODEL, options=("--mse", "2.4")),
    "llm-compressor": Method(*LLMCOMPRESSOR),
    "auto-round": Method(*AUTOROUND),
    "auto-round 1000 steps": Method(*AUTOROUND, options=("--iters", "1000")),
    "auto-round alg_ext": Method(*AUTOROUND, options=("--alg-ext",)),
    "auto-round 1000 alg_ext": Method(*AUTOROUND, options=("--iters", "1000", "--alg-ext")),
    "HQQ": Method(*HQQ),
    "torchao": Method(*TORCHAO),
    "torchao hqq": Method(*TORCHAO, options=("--hqq",)),
}
# The same where a format is given instead of bits.
FORMAT_PEERS = {
    "llm-compressor nearest": Method(*LLMCOMPRESSOR, options=("--nearest",)),
    "llm-compressor nearest mse": Method(*LLMCOMPRESSOR, options=("--nearest", "--observer", "memoryless_mse")),
    "llm-compressor": Method(*LLMCOMPRESSOR),
    "llm-compressor mse": Method(*LLMCOMPRESSOR, options=("--observer", "memoryless_mse")),
}
OURS = {
    "whet nearest": Method("run_whet.py", None, (), ("--solver", "nearest")),
    "whet": Method("run_whet.py", None, ()),
    "whet block": Method("run_whet.py", None, (), ("--solver", "block")),
    "whet gptaq": Method("run_whet.py", None, (), ("--solver", "gptaq")),
    "whet tuned": Method("run_whet.py", None, (), ("--solver", "tuned")),
    "whet best": Method("run_whet.py", None, (), ("--solver", "best")),
    "whet best spinquant": Method("run_whet.py", None, (), ("--solver", "best", "--transform", "spinquant")),
    **{f"whet {name}": Method("run_whet.py", None, (), ("--transform", name)) for name in TRANSFORMS},
    "whet nearest auto": Method("run_whet.py", None, (), ("--solver", "nearest", "--transform", "auto")),
}
METHODS = PEERS | FORMAT_PEERS | OURS


def main() -> None:
    args = arguments()
    out = Path(args.out)
    files = make_windows(args, out / "windows")
    skipped = [name for name, method in METHODS.items() if method.environment and not getattr(args, method.environment)]
    for name in skipped:
        print(f"skipped: {name} (no --{METHODS[name].environment.replace('_', '-')})")
    original = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    chosen = [name for name in METHODS if name not in skipped and (not args.only or name in args.only)]
    for split in ["tail", "eval"] if args.on == "both" else [args.on]:
        windows = load_file(files[split])["windows"]
        results = {}
        for bits in args.widths:
            for name in chosen:
                if name not in ((PEERS if bits.isdigit() else FORMAT_PEERS) | OURS):
                    continue
                try:
                    runs = [one_run(args, name, bits, files[f"draw-{draw}"], out) for draw in range(args.draws)]
                except RuntimeError as error:
                    if name in OURS:
                        raise
                    print(f"left out: {error}", flush=True)  # not every peer takes every model, width and group
                    continue
                scores = [measured(run, split, original, windows) for run in runs]
                results[bits, name] = runs, scores
        print(f"\n{split}: {len(windows)} windows of {args.window} tokens, {args.draws} calibration draws\n")
        print(summary(args, results))
        plot = out / f"quantization-{split}.svg"
        plot.write_text(frontier_plot([panel(args, results, bits) for bits in args.widths]), encoding="utf-8")
        print(f"\n{plot}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="starter", help="Hugging Face folder, or starter (the embedded model)")
    parser.add_argument("--train", help="UTF-8 text for calibration (first 90 %%) and tuning (the rest)")
    parser.add_argument("--eval", help="UTF-8 text for the report")
    parser.add_argument("--env-gptqmodel", help="folder of a virtual environment with gptqmodel")
    parser.add_argument("--env-llmcompressor", help="folder of a virtual environment with llmcompressor")
    parser.add_argument("--env-autoround", help="folder of a virtual environment with auto-round")
    parser.add_argument("--env-free", help="folder of a virtual environment with hqq and torchao, which need no data")
    parser.add_argument("--bits", type=lambda text: text.split(","), default=["4", "3", "2"])
    parser.add_argument("--schemes", type=lambda text: text.split(","), help="FP8, NVFP4, MXFP4 instead of bits")
    parser.add_argument("--group", type=int, default=32)
    parser.add_argument("--keep", default="", help="linears with this in their names stay as they are: mlp")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--samples", type=int, default=32, help="windows in a calibration draw")
    parser.add_argument("--window", type=int, default=256, help="tokens in a window")
    parser.add_argument("--verify-windows", type=int, default=16, help="on which `auto` chooses")
    parser.add_argument("--tail-windows", type=int, default=40)
    parser.add_argument("--held-out", type=int, default=500, help="documents the embedded model is evaluated on")
    parser.add_argument("--on", choices=["tail", "eval", "both"], default="eval")
    parser.add_argument("--only", action="append", choices=list(METHODS), help="run only this method (repeatable)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/quantization", help="windows, runs and their cache")
    args = parser.parse_args()
    args.widths = args.schemes or args.bits
    if args.model != "starter" and not (args.train and args.eval):
        parser.error("give --train and --eval with a model of your own")
    args.own = args.model == "starter"
    args.model = str(starter.path()) if args.own else args.model
    torch.set_num_threads(args.threads)
    return args


def make_windows(args: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Write ``draw-0`` ..., ``verify``, ``tail``, ``eval``: safetensors files with the tensor ``windows`` int64 [n, L].

    The draws are disjoint sets of the windows of the first 90 % of the training tokens, shuffled with ``--seed``.
    """
    tokenizer = AutoTokenizer.from_pretrained(args.model)

    def tokens(text: str) -> torch.Tensor:
        return tokenizer(text, add_special_tokens=False, return_tensors="pt", verbose=False).input_ids[0]

    if args.own:
        many = DOCUMENTS * args.draws * args.samples
        kinds = starter.documents(args.seed, many), starter.held_out(args.seed, args.held_out)
        texts = ["".join(f"{one}{tokenizer.eos_token}" for one in kind) for kind in kinds]
    else:
        texts = [Path(path).read_text(encoding="utf-8") for path in (args.train, args.eval)]
    train = tokens(texts[0])
    sizes = [args.samples] * args.draws + [args.verify_windows]
    (*draws, verify), tail = cut_sets(train, args.window, sizes, args.seed)
    sets = {f"draw-{number}": draw for number, draw in enumerate(draws)}
    sets |= {"verify": verify, "tail": tail[: args.tail_windows]}
    sets["eval"] = cut(tokens(texts[1]), args.window)
    folder.mkdir(parents=True, exist_ok=True)
    for name, windows in sets.items():
        save_file({"windows": windows.contiguous()}, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in sets}


def digest(*parts: bytes | str | Path) -> str:
    """SHA-256 of strings and of the contents of files; of Python files what they say, not how they are laid out."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            part = ast.dump(ast.parse(part.read_text("utf-8"))) if part.suffix == ".py" else part.read_bytes()
        total.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return total.hexdigest()


def one_run(args: argparse.Namespace, name: str, bits: str, windows: Path, out: Path) -> Path:
    """Run one quantizer unless the same run is in the cache; returns its folder (dequant/, result.json). Raises
    RuntimeError with the end of its log where it fails."""
    method = METHODS[name]
    environment = getattr(args, method.environment) if method.environment else None
    python = str(Path(environment) / "bin" / "python") if environment else sys.executable
    what = ["--bits", bits, "--group", str(args.group)] if bits.isdigit() else ["--scheme", bits]
    options = [*what, "--threads", str(args.threads), *method.options]
    options += ["--keep", args.keep] if args.keep else []
    verify = windows.with_name("verify.safetensors") if "auto" in method.options else None
    depends = [*sorted(Path(args.model).glob("*.safetensors")), Path(args.model) / "config.json", windows]
    depends += [verify] if verify else []
    depends += [RUNNERS / "common.py", RUNNERS / method.script]
    versions: list[str] = []
    if environment:
        installed = Path(environment).glob("lib/python3*/site-packages/*.dist-info")
        versions = sorted(path.name for path in installed if path.name.split("-")[0] in method.packages)
    else:
        depends += [path for room in ROOMS for path in sorted((Path(whet.__file__).parent / room).rglob("*.py"))]
    key = digest(*depends, *options, *versions)[:16]
    folder = out / "runs" / f"{name.replace(' ', '-')}-{label(bits).replace(' ', '')}-{windows.stem}-{key}"
    if (folder / "result.json").exists():
        return folder
    command = [python, str(RUNNERS / method.script), "--model", args.model, "--windows", str(windows)]
    command += ["--verify", str(verify)] if verify else []
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("w") as log:
        code = subprocess.run([*command, *options, "--out", str(folder)], stdout=log, stderr=log).returncode
    if code:
        tail = "\n".join((folder / "log.txt").read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{name}, {label(bits)}, {windows.stem}: exit code {code}\n{tail}")
    print(f"ran: {name}, {label(bits)}, {windows.stem}: {result(folder)['cpu_seconds']:.1f} processor s", flush=True)
    return folder


def label(bits: str) -> str:
    return f"{bits} bits" if bits.isdigit() else bits


def stored_bits(facts: dict, bits: str, group: int) -> float:
    """Stored bits a weight: as counted, or of integers with a float16 scale and an integer zero a group."""
    formats = {"NVFP4": 4.5, "MXFP4": 4.25, "FP8": 8.0}
    return facts.get("bits_per_weight") or formats.get(bits) or int(bits) + (16 + int(bits)) / group


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def measured(folder: Path, split: str, original: torch.nn.Module, windows: torch.Tensor) -> dict[str, np.ndarray]:
    """Per-window scores of one run, kept beside it."""
    path = folder / f"{split}-{digest(windows.numpy().tobytes(), RUNNERS.parent / 'evaluation.py')[:8]}.npz"
    if not path.exists():
        lighter = AutoModelForCausalLM.from_pretrained(folder / "dequant", dtype=torch.float32).eval()
        np.savez(path, **window_scores(original, lighter, windows))
    with np.load(path) as scores:
        return dict(scores)


def summary(args: argparse.Namespace, results: dict) -> str:
    """The table: one row per width and method; ratios are to the peer with the lowest mean KL at that width, or where
    none was run to whet without options."""
    header = ["bits", "method", "KL", "sd over draws", "KL / best peer", "95 % crossed", "95 % over draws",
              "perplexity", "top-1", "bits/weight", "processor s", "MB over imports"]  # fmt: skip
    rows = []
    for bits in args.widths:
        kl = {name: np.stack([s["kl"] for s in scores]) for (b, name), (_, scores) in results.items() if b == bits}
        peers = [name for name in kl if name not in OURS]
        best = min(peers, key=lambda name: kl[name].mean(), default="whet" if "whet" in kl else None)
        for name in kl:
            runs, scores = results[bits, name]
            facts = [result(run) for run in runs]
            per_draw = kl[name].mean(1)
            ratio = paired_ratio(kl[name], kl[best]) if best and name != best else None
            rows.append(
                [
                    bits,
                    name + (" (best peer)" if name == best and peers else ""),
                    f"{per_draw.mean():.5f}",
                    f"{per_draw.std(ddof=1):.5f}" if args.draws > 1 else "",
                    *ratio_cells(ratio),
                    f"{np.mean([np.exp(s['nll'].mean()) for s in scores]):.4f}",
                    f"{np.mean([s['top1'].mean() for s in scores]):.4f}",
                    f"{stored_bits(facts[0], bits, args.group):.3f}",
                    f"{processor_seconds(facts):.1f}",
                    f"{max(f['peak_rss_bytes'] - f['imported_rss_bytes'] for f in facts) / 1e6:.0f}",
                ]
            )
    return table(header, rows)


def panel(args: argparse.Namespace, results: dict, bits: str) -> Panel:
    """What the plot shows of one width."""
    dots = []
    for (width, name), (runs, scores) in results.items():
        if width == bits:
            per_draw = np.array([s["kl"].mean() for s in scores])
            spread = float(per_draw.std(ddof=1)) if len(per_draw) > 1 else 0.0
            facts = [result(run) for run in runs]
            stored = stored_bits(facts[0], bits, args.group)
            dots.append(Dot(name, processor_seconds(facts), float(per_draw.mean()), spread, stored, name in OURS))
    return Panel(label(bits), dots)


def processor_seconds(facts: list[dict]) -> float:
    """Of the least busy draw: other work on a machine makes the same instructions take longer, never shorter."""
    return min(fact["cpu_seconds"] for fact in facts)


def ratio_cells(ratio: Ratio | None) -> list[str]:
    if ratio is None:
        return ["", "", ""]
    cells = [f"{low:.3f}-{high:.3f}" for low, high in (ratio.crossed, ratio.draws or (np.nan, np.nan))]
    return [f"{ratio.value:.3f}", *cells]


if __name__ == "__main__":
    main()
