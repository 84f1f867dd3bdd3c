"""What the runners share: arguments, calibration windows, the plain folder they write, result.json.

A runner is a script that is started in the environment of one quantizer (each needs its own) and knows nothing of
the others. Every runner reads the same calibration windows from the same file and writes the same two things:

- ``OUT/dequant/``: the original Hugging Face folder in fp32 with the rounded linears swapped in, so that one
  measuring program can read the results of all of them;
- ``OUT/result.json``: seconds of the quantizer alone (no imports, no loading, no saving) on the wall's clock and on the
  processor's, peak resident memory of the process and what it has after its imports, versions.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that every runner takes."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--model", required=True, help="Hugging Face folder of the original")
    result.add_argument("--windows", required=True, help="safetensors file with the int64 tensor `windows` [n, L]")
    what = result.add_mutually_exclusive_group(required=True)
    what.add_argument("--bits", type=int, help="of an integer grid")
    what.add_argument("--scheme", choices=["FP8", "NVFP4", "MXFP4"], help="a float format instead of an integer grid")
    result.add_argument("--group", type=int, default=0, help="weights that share a scale of an integer grid")
    result.add_argument("--symmetric", action="store_true", help="no zero point (default: an integer zero)")
    result.add_argument("--keep", default="", help="linears with this in their names stay as they are: mlp")
    result.add_argument("--threads", type=int, default=1)
    result.add_argument("--out", required=True)
    return result


def read_windows(path: str | Path) -> torch.Tensor:
    """Calibration windows, int64 [n, L]."""
    return load_file(path)["windows"]


def samples(windows: torch.Tensor) -> list[dict[str, list[int]]]:
    """The windows as the rows of token ids that the peers take."""
    return [{"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in windows]


def linears(model: torch.nn.Module, keep: str = "") -> dict[str, torch.nn.Linear]:
    """The linears of the blocks, by name, but for those with ``keep`` in it."""
    every = model.named_modules()
    found = {name: one for name, one in every if isinstance(one, torch.nn.Linear) and name != "lm_head"}
    return {name: one for name, one in found.items() if not keep or keep not in name}


def save_dequantized(
    args: argparse.Namespace, weights: dict[str, torch.Tensor], beside: dict[str, torch.Tensor] | None = None
) -> int:
    """Write ``OUT/dequant``: the original in fp32 with ``weights`` (module name -> [out, in]) swapped in, and what a
    transform changed ``beside`` them (parameter name -> values).

    Returns how many linears differ from the original. Exits if a peer left any that it was to round as they were
    (auto-round 0.16.1 puts all back when it saves an fp32 checkpoint, and leaves out those with a side that 32 does not
    divide; both score as nearly lossless), if groups hold more values than there are codes, or if a linear came back
    further from the original than zeros would be (a transposed square matrix).
    """
    original = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    if set(beside or ()) - {name for name, _ in original.named_parameters()}:  # a head of its own, once tied
        original = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, tie_word_embeddings=False)
    modules = dict(original.named_modules())
    asked = linears(original, args.keep)
    if missing := sorted(asked.keys() - weights.keys()):
        raise SystemExit(f"{len(missing)} of {len(asked)} linears were not rounded: {missing[0]}, ...")
    weights = {name: weights[name] for name in asked}
    if args.bits and (left := [name for name, value in weights.items() if values(value, args.group) > 2**args.bits]):
        raise SystemExit(
            f"{len(left)} of {len(asked)} linears hold more than {2**args.bits} values in a group, so they were not "
            f"rounded to {args.bits} bits: {left[0]} ({list(weights[left[0]].shape)}), ..."
        )
    changed = 0
    worst = 0.0
    with torch.no_grad():
        for name, value in weights.items():
            target = modules[name].weight
            if value.shape != target.shape:
                raise SystemExit(f"{name}: decoded as {tuple(value.shape)}, the original is {tuple(target.shape)}")
            if beside is None:  # columns that were scaled may be far from what they were
                worst = max(worst, ((value - target).norm() / target.norm()).item())
            changed += not torch.equal(target, value.to(target))
            target.copy_(value)
        for name, value in (beside or {}).items():
            original.get_parameter(name).copy_(value)
    if changed != len(weights) or not weights:
        raise SystemExit(f"only {changed} of {len(weights)} linears differ from the original: nothing was quantized")
    if worst > 1:
        raise SystemExit(f"a decoded linear is {worst:.2f} times its own norm away from the original: decoded wrongly")
    folder = Path(args.out) / "dequant"
    original.save_pretrained(folder)
    AutoTokenizer.from_pretrained(args.model).save_pretrained(folder)
    return changed


def values(w: torch.Tensor, group: int) -> int:
    """The most distinct values in any group of ``w [out, in]`` (a short last one aside; 0: groups are whole rows)."""
    size = min(group or w.shape[1], w.shape[1])
    groups = w[:, : w.shape[1] // size * size].unflatten(1, (-1, size)).sort(-1).values
    return int((groups.diff(dim=-1) != 0).sum(-1).max()) + 1


class Run:
    """One run of a quantizer: made after the imports, whose memory it notes; sets threads and the seed.

    The processor's seconds are those of all threads. On a machine with other work they are steadier than the wall's,
    and with one thread they are what the wall would show on an idle machine.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.out = Path(args.out)
        self.imported = 4096 * int(Path("/proc/self/statm").read_text().split()[1])
        self.seconds = self.cpu_seconds = 0.0
        torch.set_num_threads(args.threads)
        torch.manual_seed(0)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """What is done inside is the quantizer's."""
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.seconds, self.cpu_seconds = time.perf_counter() - wall, time.process_time() - processor

    def record(self, packages: list[str], **more: object) -> None:
        """Write ``OUT/result.json``."""
        result = {
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "imported_rss_bytes": self.imported,
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "versions": {name: metadata.version(name) for name in ["torch", "transformers", *packages]},
            **more,
        }
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
