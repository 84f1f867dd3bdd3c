"""What pruning loses: KL a token on other text, by rule, share and repair; and what every skill keeps.

The first table has every rule at every share as it was published (weights that stay are not moved) and with whet's
repair: channels, then blocks, then whet's own: the hidden width, and its choice among shapes (channels, heads and
blocks together). Ratios are to the best published rule of that share (with ``--rules``, of those that are measured).
The second asks the embedded model's questions of whet's choice and of that rule.

Text that is calibrated on differs from draw to draw; what measures does not. Errors are over documents (or
windows), of the mean over draws. Without ``--model`` it is the embedded model and its own text.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import whet
from evaluation import cut, table, window_scores
from whet import starter
from whet.checkpoint import load_model
from whet.cli.compress import ITEMS
from whet.cli.starter import calibration

WINDOW = 256
# What was published: units and importance. None of them moves the weights that stay.
PUBLISHED = {
    "magnitude": ("channels", "magnitude"),
    "activation (Minitron)": ("channels", "activation"),
    "Wanda, by channels": ("channels", "wanda"),
    "ridge leverage (MoDeGPT)": ("channels", "leverage"),
    "influence (ShortGPT)": ("layers", "influence"),
    "perplexity (BlockPruner)": ("layers", "perplexity"),
    "divergence (FinerCut)": ("layers", "divergence"),
}
OWN = {
    "OBS, channels": ("channels", "obs"),
    "hidden width (one rotation)": ("hidden", "pca"),
    "all units, hidden too": ("layers,channels,heads,hidden", None),
    "whet's choice": (None, None),
}


@dataclass
class Measured:
    """KL by document or window, the mean over draws, in nats a token, and tokens of each; the share that went, and
    seconds a draw."""

    kl: np.ndarray
    sizes: np.ndarray
    removed: float
    seconds: float
    amounts: dict[str, int]

    @property
    def mean(self) -> float:
        return float(np.average(self.kl, weights=self.sizes))

    def __str__(self) -> str:
        share, count = self.sizes / self.sizes.sum(), len(self.sizes)
        error = float(np.sqrt(np.sum((share * (self.kl - self.mean)) ** 2) * count / (count - 1)))
        return f"{self.mean:.4f} ± {error:.4f}"


class Bench:
    """A model, its text by draw, and other text to measure on."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.folder = args, Path(args.out)
        self.model = args.model or starter.path()
        self.original = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        if args.model is None:
            texts = starter.held_out(args.seed, args.held_out)
            self.windows = [torch.tensor([tokenizer(text).input_ids[:WINDOW]]) for text in texts]
        else:
            ids = torch.tensor(tokenizer(Path(args.held_out_text).read_text(encoding="utf-8")).input_ids)
            self.windows = list(cut(ids, WINDOW)[: args.held_out].split(1))
        self.sizes = np.array([one.shape[1] - 1 for one in self.windows])

    def text(self, draw: int) -> dict[str, Any]:
        """What a draw calibrates on."""
        samples = self.args.samples
        text = calibration(samples, draw) if self.args.model is None else self.args.text
        return {"text": text, "samples": samples, "window": WINDOW, "seed": draw, "device": "cpu"}

    def prune(
        self,
        draw: int,
        share: str,
        units: str | None,
        importance: str | None,
        repair: bool,
        protect: str | None = None,
    ) -> dict[str, Any]:
        """One pruned folder. protect: skills of the embedded model's questions that decide, or languages."""
        shutil.rmtree(self.folder, ignore_errors=True)
        asked: dict[str, Any] = {"remove": share, "units": units, "importance": importance, "repair": repair}
        if protect is not None:
            asked |= {"protect": protect, "skills": starter.skills("verify", ITEMS, draw)}
        return whet.prune(self.model, self.folder, **asked, **self.text(draw))

    def measure(self, name: str, share: str, units: str | None, importance: str | None, repair: bool) -> Measured:
        """KL of every window, the mean over draws."""
        by_draw, seconds, made = [], 0.0, {}
        for draw in range(self.args.seed, self.args.seed + self.args.draws):
            started = time.perf_counter()
            made = self.prune(draw, share, units, importance, repair)
            seconds += (time.perf_counter() - started) / self.args.draws
            model = load_model(self.folder, torch.float32)
            by_draw.append([window_scores(self.original, model, one)["kl"][0] for one in self.windows])
        found = Measured(np.mean(by_draw, axis=0), self.sizes, made["removed"], seconds, made["amounts"])
        print(f"measured: {share}, {name}, {'repair' if repair else 'no repair'}: {found} {found.amounts}", flush=True)
        return found


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    bench = Bench(args)
    rows: list[list[str]] = []
    best: dict[str, tuple[str | None, str | None]] = {}
    for share in args.shares:
        rules = {name: rule for name, rule in {**PUBLISHED, **OWN}.items() if not args.rules or name in args.rules}
        found = {
            name: [bench.measure(name, share, *rule, repair) for repair in (False, True)]
            for name, rule in rules.items()
        }
        name = min([rule for rule in PUBLISHED if rule in found] or found, key=lambda rule: found[rule][0].mean)
        best[share] = rules[name]
        least = found[name][0].mean
        for rule, (raw, repaired) in found.items():
            removed = f"{raw.removed:.1%}"
            ratios = [f"{one.mean / least:.2f}" for one in (raw, repaired)]
            rows.append(
                [share, rule, removed, str(raw), ratios[0], str(repaired), ratios[1], f"{repaired.seconds:.0f}"]
            )
    head = ["asked", "rule", "went", "KL as published", "ratio", "KL with repair", "ratio", "seconds"]
    print(f"\n{args.draws} draws, {len(bench.windows)} texts of up to {WINDOW} tokens\n\n{table(head, rows)}")
    if args.model is None and args.questions:
        print(f"\n{skills(bench, args, best)}")


def skills(bench: Bench, args: argparse.Namespace, best: dict[str, tuple[str | None, str | None]]) -> str:
    """What every skill keeps, of whet's choice with repair and of the best published rule without; or of channels, with
    skills protected and without."""
    asked = starter.skills("report", args.questions, args.seed)
    text = starter.held_out(args.seed, args.held_out)
    rows = []
    for share in args.shares:
        contenders = [
            ("best published", best[share], False, None),
            ("whet's choice", OWN["whet's choice"], True, None),
        ]
        if args.protect is not None:
            rule = OWN["OBS, channels"]
            contenders = [("channels", rule, True, None), (f"{args.protect} protected", rule, True, args.protect)]
        for name, rule, repair, protect in contenders:
            bench.prune(args.seed, share, *rule, repair, protect)
            found = whet.compare(
                bench.model, bench.folder, text=text, skills=asked, windows=64, window=WINDOW, device="cpu", speed=False
            )
            for one in found["skills"]:
                kept = one["retention"]
                told = "" if kept["value"] is None else f"{kept['value']:.1%} ({kept['interval'][0]:.1%} – "
                rows.append([share, name, one["skill"], told + (f"{kept['interval'][1]:.1%})" if told else "none")])
    shutil.rmtree(bench.folder, ignore_errors=True)
    return table(["asked", "rule", "skill", "kept of the original's score above chance"], rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shares", nargs="+", default=["16.7%", "33.3%"])
    parser.add_argument("--rules", nargs="+", choices=[*PUBLISHED, *OWN], help="some of them; without it all")
    parser.add_argument("--model", help="a folder; without it the embedded model")
    parser.add_argument("--text", help="of --model: a file that is calibrated on")
    parser.add_argument("--held-out-text", help="of --model: a file that is measured on")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--samples", type=int, default=128, help="windows to calibrate on")
    parser.add_argument("--held-out", type=int, default=150, help="documents, or windows, to measure on")
    parser.add_argument("--questions", type=int, default=200, help="a skill; 0 asks none")
    parser.add_argument("--protect", help="compare skills with these protected and without, in place of the rules")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/pruning")
    return parser.parse_args()


if __name__ == "__main__":
    main()
