"""Inputs and caches in few bits on the embedded model (or ``--model``): what they lose, beside llm-compressor's best.

- Schemes: each as whet makes it, with every input rounded and with spikes left as they are, and llm-compressor's
  nearest, GPTQ and SmoothQuant with GPTQ on the same windows, if ``--env-llmcompressor`` names its environment. All are
  opened by stock transformers with compressed-tensors, which rounds the inputs, and measured on the same held-out
  windows.
- Spikes: the model with one channel of one block's inputs 400 times as large, computing the same; what rounding inputs
  loses of it, and how much of that is back once the spike stays as it is.
- Caches: KL of the model with keys and values in few bits to itself, at its full context, by quarters of it.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from evaluation import table
from whet import starter
from whet.apply import spikes
from whet.checkpoint import Checkpoint, load_as_others, load_model, load_tokenizer
from whet.engines.cache import CacheShape
from whet.engines.torch import open_model, outputs
from whet.grids import CACHE_GRIDS
from whet.measure.divergence import divergence, score_tokens
from whet.measure.positions import by_position
from whet.recipe.compress import compress
from whet.text import encode

SCHEMES = ("W8A8", "W8A8-static", "W4A8", "FP8A8", "FP8A8-static")
RUNNER = Path(__file__).parent / "runners" / "run_llmcompressor_inputs.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(starter.path()))
    parser.add_argument("--schemes", type=lambda text: text.split(","), default=list(SCHEMES))
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--env-llmcompressor", help="folder of a virtual environment with llmcompressor")
    parser.add_argument("--only", choices=["schemes", "spikes", "caches"])
    parser.add_argument("--out", default="bench-out/activations")
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(args.model)
    solve, held = (cut(docs, tokenizer, args.samples) for docs in (starter.documents(3, 900), starter.held_out(5, 900)))
    save_file({"windows": torch.stack(solve)}, out / "windows.safetensors")
    if args.only in (None, "schemes"):
        print(table(["scheme", "made by", "KL", "top-1"], of_schemes(args, out, solve, held)), flush=True)
    if args.only in (None, "spikes"):
        print(table(["scheme", "inputs", "KL", "of the loss back"], of_spikes(args, out, solve, held)), flush=True)
    if args.only in (None, "caches"):
        print(table(["cache", "bytes", "computed", "KL", "by quarter"], of_caches(args, out, held)), flush=True)


def cut(documents: list[str], tokenizer: object, count: int) -> list[torch.Tensor]:
    """Windows of 256 tokens, documents one behind the other."""
    ids = [token for row in encode(documents, tokenizer) for token in row]  # type: ignore[arg-type]
    return [torch.tensor(ids[at : at + 256]) for at in range(0, len(ids) - 256, 256)][:count]


def measured(original: str, folder: Path, held: list[torch.Tensor]) -> tuple[float, float]:
    """KL and top-1 agreement of a folder as stock transformers runs it."""
    first, second = load_model(original), load_as_others(Checkpoint(folder), None, "cpu")
    kl, same = [], []
    with torch.no_grad():
        for window in held:
            batch = window[None]
            found = score_tokens(outputs(first, batch)[:, :-1], outputs(second, batch)[:, :-1], batch[:, 1:])
            kl.append(found[0].double().mean().item())
            same.append(found[1].double().mean().item())
    return math.fsum(kl) / len(kl), math.fsum(same) / len(same)


def by_whet(model: str, out: Path, scheme: str, solve: list[torch.Tensor], keep: bool, **more: str) -> Path:
    """A folder by whet; keep: whether inputs that spike may stay as they are."""
    shutil.rmtree(out, ignore_errors=True)
    times = spikes._TIMES
    spikes._TIMES = times if keep else ()  # type: ignore[assignment]
    try:
        made = compress(model, out, scheme=scheme, text=torch.stack(solve), **more)  # type: ignore[arg-type]
    finally:
        spikes._TIMES = times  # type: ignore[assignment]
    for note in made["notes"]:
        print(f"  {scheme}: {note}", flush=True)
    return out


def of_schemes(args: argparse.Namespace, out: Path, solve: list, held: list) -> list[list[str]]:
    rows = []

    def told(scheme: str, name: str, folder: Path) -> None:
        kl, same = measured(args.model, folder, held)
        rows.append([scheme, name, f"{kl:.5f}", f"{same:.4f}"])
        print(" ", *rows[-1], flush=True)

    for scheme in args.schemes:
        told(scheme, "whet, every input", by_whet(args.model, out / "all", scheme, solve, keep=False))
        told(scheme, "whet", by_whet(args.model, out / "kept", scheme, solve, keep=True))
        for way in ("nearest", "gptq", "smooth") if args.env_llmcompressor else ():
            folder = out / "peer"
            shutil.rmtree(folder, ignore_errors=True)
            python = str(Path(args.env_llmcompressor) / "bin" / "python")
            given = ["--model", args.model, "--windows", str(out / "windows.safetensors"), "--out", str(folder)]
            command = [python, str(RUNNER), *given, "--scheme", scheme, "--way", way]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"  llm-compressor {way} {scheme}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                continue
            told(scheme, f"llm-compressor {way}", folder)
    if not args.env_llmcompressor:
        print("not run: llm-compressor (no --env-llmcompressor)")
    return rows


def planted(model: str, out: Path, block: int = 2, channel: int = 37, times: float = 400.0) -> Path:
    """The model with one channel of an FFN's input so many times as large, in float32, computing the same."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(model, out)
    config = (out / "config.json").read_text(encoding="utf-8").replace('"bfloat16"', '"float32"')
    (out / "config.json").write_text(config, encoding="utf-8")
    for file in out.glob("*.safetensors"):
        tensors = {name: tensor.float() for name, tensor in load_file(file).items()}
        for name, tensor in tensors.items():
            if name == f"model.layers.{block}.post_attention_layernorm.weight":
                tensor[channel] *= times
            if name in (f"model.layers.{block}.mlp.{one}_proj.weight" for one in ("gate", "up")):
                tensor[:, channel] /= times
        save_file(tensors, file, metadata={"format": "pt"})
    return out


def of_spikes(args: argparse.Namespace, out: Path, solve: list, held: list) -> list[list[str]]:
    model, rows = str(planted(args.model, out / "spiked")), []
    for scheme, weights in (("W8A8", "W8A16"), ("W8A8-static", "W8A16"), ("FP8A8-static", "fp8-tensor")):
        kl = {
            name: measured(model, by_whet(model, out / "made", one, solve, keep), held)[0]
            for name, one, keep in (("none", weights, True), ("every", scheme, False), ("without spikes", scheme, True))
        }
        back = (kl["every"] - kl["without spikes"]) / (kl["every"] - kl["none"])
        rows += [[scheme, name, f"{one:.5f}", f"{back:.1%}" if "spikes" in name else ""] for name, one in kl.items()]
    return rows


def of_caches(args: argparse.Namespace, out: Path, held: list) -> list[list[str]]:
    original, lighter, rows = open_model(args.model), open_model(args.model), []
    length = min(original.context or 4096, 4096)
    ids = torch.cat(held)
    windows = [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)][:16]
    for kind in ("16", "int8", "fp8", "int4", "q4_0"):
        lighter.keep(kind)
        cache = lighter.new_cache()
        lighter._step(windows[0][None], cache, {})
        held_bytes = sum(getattr(x, "nbytes", None) or x.keys.nbytes + x.values.nbytes for x in cache.layers)
        computed = CacheShape.of(lighter.model.config, lighter.model.dtype.itemsize).nbytes(lighter.kv or (), length)
        kl = divergence(original, lighter, windows).kl
        quarters = " ".join(f"{one['kl']:.1e}" for one in by_position(kl, windows))
        rows.append([kind, str(held_bytes), str(computed), f"{kl.mean():.2e}", quarters])
    return [*rows, *of_stored_scales(args, out, windows)]


def of_stored_scales(args: argparse.Namespace, out: Path, windows: list) -> list[list[str]]:
    """Folders with scales of keys and values, calibrated by `compress --kv`: against the same folder without them."""
    rows = []
    for kind in CACHE_GRIDS:
        folder = out / f"kv-{kind}"
        shutil.rmtree(folder, ignore_errors=True)
        compress(args.model, folder, scheme="int8s", solver="nearest", kv=kind, text=starter.documents(3, 900),
                 samples=min(args.samples, 16), window=256)  # fmt: skip
        plain, kept = open_model(folder, kv="16"), open_model(folder)
        kl = divergence(plain, kept, windows).kl
        computed = CacheShape.of(kept.model.config, kept.model.dtype.itemsize).nbytes(kept.kv or (), len(windows[0]))
        quarters = " ".join(f"{one['kl']:.1e}" for one in by_position(kl, windows))
        rows.append([f"{kind}, stored scales", str(computed), str(computed), f"{kl.mean():.2e}", quarters])
    return rows


if __name__ == "__main__":
    main()
