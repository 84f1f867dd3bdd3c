"""What pruning loses: KL a token on other text, by rule, share and repair; and what every skill keeps.

The first table has every rule at every share as it was published (weights that stay are not moved) and with whet's
repair: channels, then blocks, then whet's own: the hidden width, and its choice among shapes (channels, heads and
blocks together). Ratios are to the best published rule of that share (with ``--rules``, of those that are measured).
The second asks the embedded model's questions of whet's choice and of that rule.

Text that is calibrated on differs from draw to draw; what measures does not. Errors are over documents (or
windows), of the mean over draws; in brackets are the least and the largest over draws. Without ``--model`` it is the
embedded model and its own text. Every row is a line of ``OUT.jsonl`` once it is measured, and a run that is started
again measures the others.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
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
    """KL in nats a token by draw and document or window [draws, documents], and tokens of each document; the share that
    went, and seconds a draw."""

    kl: np.ndarray
    sizes: np.ndarray
    removed: float
    seconds: float

    @property
    def by_draw(self) -> np.ndarray:
        return np.average(self.kl, weights=self.sizes, axis=1)

    @property
    def mean(self) -> float:
        return float(self.by_draw.mean())

    def __str__(self) -> str:
        share, count, kl = self.sizes / self.sizes.sum(), len(self.sizes), self.kl.mean(axis=0)
        error = float(np.sqrt(np.sum((share * (kl - self.mean)) ** 2) * count / (count - 1)))
        return f"{self.mean:.4f} ± {error:.4f}" + between(self.by_draw, ".4f")


def between(values: np.ndarray, form: str) -> str:
    """The least and the largest over draws, in brackets; nothing of one draw."""
    return "" if len(values) < 2 else f" ({values.min():{form}} – {values.max():{form}})"


class Bench:
    """A model, its text by draw, and other text to measure on."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.folder = args, Path(args.out)
        self.rows = self.folder.with_name(self.folder.name + ".jsonl")
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

    def kept(self, key: list[Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was measured under a key, now or by a run before this one, which is a line of the file of rows."""
        key = [self.args.model, self.args.samples, self.args.held_out, *key]
        if self.rows.is_file():
            for line in self.rows.read_text(encoding="utf-8").splitlines():
                if (row := json.loads(line))["key"] == key:
                    return row["found"]
        found = make()
        self.rows.parent.mkdir(parents=True, exist_ok=True)
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "found": found}) + "\n")
        return found

    def text(self, draw: int) -> dict[str, Any]:
        """What a draw calibrates on."""
        samples = self.args.samples
        text = calibration(samples, draw) if self.args.model is None else self.args.text
        return {"text": text, "samples": samples, "window": WINDOW, "seed": draw, "device": "cpu"}

    def place(self, *row: Any) -> Path:
        """The folder that a row is pruned into."""
        return self.folder / "-".join(re.sub(r"[^\w.]+", "+", str(one)) for one in row)

    def prune(
        self,
        draw: int,
        share: str,
        units: str | None,
        importance: str | None,
        repair: bool,
        protect: str | None = None,
    ) -> dict[str, Any]:
        """A pruned folder, in `place`. protect: skills of the embedded model's questions that decide, or languages."""
        place = self.place(draw, share, units, importance, repair, protect)
        shutil.rmtree(place, ignore_errors=True)
        asked: dict[str, Any] = {"remove": share, "units": units, "importance": importance, "repair": repair}
        if protect is not None:
            asked |= {"protect": protect, "skills": starter.skills("verify", ITEMS, draw)}
        return whet.prune(self.model, place, **asked, **self.text(draw))

    def measure(self, draw: int, share: str, units: str | None, importance: str | None, repair: bool) -> dict[str, Any]:
        """KL of every document or window, of one draw."""

        def make() -> dict[str, Any]:
            started = time.perf_counter()
            made = self.prune(draw, share, units, importance, repair)
            seconds = time.perf_counter() - started
            model = load_model(self.place(draw, share, units, importance, repair, None), torch.float32)
            kl = [float(window_scores(self.original, model, one)["kl"][0]) for one in self.windows]
            return {"kl": kl, "removed": made["removed"], "seconds": seconds, "amounts": made["amounts"]}

        found = self.kept(["kl", draw, share, units, importance, repair], make)
        told = f"{share}, draw {draw}, {units or 'whet chooses'}, {importance or 'default'}, "
        told += f"{'repair' if repair else 'no repair'}: {np.average(found['kl'], weights=self.sizes):.4f}"
        print(f"measured: {told} {found['amounts']} {found['seconds']:.0f} s", flush=True)
        return found

    def gathered(self, share: str, units: str | None, importance: str | None, repair: bool) -> Measured:
        """All draws of one row."""
        found = [self.measure(draw, share, units, importance, repair) for draw in self.draws]
        return Measured(
            np.array([one["kl"] for one in found]),
            self.sizes,
            float(np.mean([one["removed"] for one in found])),
            float(np.mean([one["seconds"] for one in found])),
        )

    @property
    def draws(self) -> range:
        return range(self.args.seed, self.args.seed + self.args.draws)


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    bench = Bench(args)
    rules = {name: rule for name, rule in {**PUBLISHED, **OWN}.items() if not args.rules or name in args.rules}
    rows: list[list[str]] = []
    best: dict[str, tuple[str | None, str | None]] = {}
    repaired_too = [name for name in rules if not args.repaired or name in args.repaired]
    for draw, share, name, repair in product(bench.draws, args.shares, rules, (False, True)):
        if not repair or name in repaired_too:
            bench.measure(draw, share, *rules[name], repair)
    for share in args.shares:
        found = {
            name: [bench.gathered(share, *rule, repair) for repair in (False, True)[: 1 + (name in repaired_too)]]
            for name, rule in rules.items()
        }
        name = min([rule for rule in PUBLISHED if rule in found] or found, key=lambda rule: found[rule][0].mean)
        best[share] = rules[name]
        least = found[name][0]
        for rule, measured in found.items():
            row = [share, rule, f"{measured[0].removed:.1%}"]
            for one in measured:
                row += [str(one), f"{one.mean / least.mean:.2f}" + between(one.by_draw / least.by_draw, ".2f")]
            rows.append([*row, *["not measured", ""][: 7 - len(row)], f"{measured[-1].seconds:.0f}"])
    head = ["asked", "rule", "went", "KL as published", "ratio", "KL with repair", "ratio", "seconds"]
    print(
        f"\n{args.draws} draws, {len(bench.windows)} texts of up to {WINDOW} tokens\n\n{table(head, rows)}", flush=True
    )
    if args.model is None and args.questions:
        print(f"\n{skills(bench, args, best)}")


def skills(bench: Bench, args: argparse.Namespace, best: dict[str, tuple[str | None, str | None]]) -> str:
    """What every skill keeps, of whet's choice with repair and of the best published rule without; or of channels, with
    skills protected and without. Over draws: the mean, the mean ends of its 95 % interval, and the least and the
    largest."""
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
            found = [asked(bench, draw, share, rule, repair, protect) for draw in bench.draws]
            for skill in found[0]:
                kept = [one[skill] for one in found if one[skill] is not None]
                rows.append([share, name, skill, retained(np.array(kept)) if len(kept) == len(found) else "none"])
    return table(["asked", "rule", "skill", "kept of the original's score above chance"], rows)


def retained(kept: np.ndarray) -> str:
    """Retention and its interval [draws, 3] as one cell."""
    value, low, high = kept.mean(axis=0)
    return f"{value:.1%} ({low:.1%} – {high:.1%})" + ("; draws" + between(kept[:, 0], ".1%") if len(kept) > 1 else "")


def asked(
    bench: Bench, draw: int, share: str, rule: tuple[str | None, str | None], repair: bool, protect: str | None
) -> dict[str, list[float] | None]:
    """By skill: what one draw's folder keeps, with the ends of its interval; None where the original has nothing."""

    def make() -> dict[str, Any]:
        place = bench.place(draw, share, *rule, repair, protect)
        if not (place / "whet.json").is_file():
            bench.prune(draw, share, *rule, repair, protect)
        questions = starter.skills("report", bench.args.questions, bench.args.seed)
        text = starter.held_out(bench.args.seed, bench.args.held_out)
        how: dict[str, Any] = {"windows": 64, "window": WINDOW, "device": "cpu", "speed": False}
        found = whet.compare(bench.model, place, text=text, skills=questions, **how)
        kept = {one["skill"]: one["retention"] for one in found["skills"]}
        return {name: None if one["value"] is None else [one["value"], *one["interval"]] for name, one in kept.items()}

    found = bench.kept(["skills", draw, share, *rule, repair, protect, bench.args.questions], make)
    print(f"asked: {share}, draw {draw}, {rule}", flush=True)
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shares", nargs="+", default=["16.7%", "33.3%"])
    parser.add_argument("--rules", nargs="+", choices=[*PUBLISHED, *OWN], help="some of them; without it all")
    parser.add_argument("--repaired", nargs="+", choices=[*PUBLISHED, *OWN], help="those repaired too; without it all")
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
