"""What masks lose of the embedded model: KL a token on other text, by importance, pattern, update and grid.

Three tables, of which ``--tables`` names some. The first has every importance at every pattern, as the step `masks`
makes them (dense) and with codes from the same solve. The second has ways to the same sparse and rounded model, each
beside the first of its pattern:

    joint      masks and codes of each linear from one solve, block after block (`compress --sparsity`)
    chained    the step `masks` through the whole model, then `quantize` on what that made
    SparseGPT, then GPTQ    SparseGPT as it was published (masks and updates in one pass over the columns, here written
               anew) through the whole model, then `quantize --sparsity kept`: the order of llm-compressor

The third has shares that blocks lose alike and by their outliers, each beside alike.

Text differs from draw to draw; what measures does not. Errors are over documents, of the mean over draws.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import whet
from evaluation import table, window_scores
from whet import starter
from whet.anatomy import anatomy
from whet.checkpoint import Checkpoint, load_model
from whet.cli.starter import calibration
from whet.pruning import IMPORTANCES, Grouped, Pattern, parse_pattern
from whet.pruning.outliers import ALLOCATIONS, UNIFORM
from whet.text import batches
from whet.text.calibration import read_windows
from whet.walk import BlockStep, Walk

LONGEST = 256  # tokens of a document
SCHEME = "int4s-g32"
_COLUMNS = 128  # that SparseGPT goes through before the others are updated


@dataclass
class Measured:
    """KL by document `[n]`, in nats a token, and how many tokens each has."""

    kl: np.ndarray
    sizes: np.ndarray
    seconds: float

    @property
    def mean(self) -> float:
        return float(np.average(self.kl, weights=self.sizes))

    def __str__(self) -> str:
        return f"{self.mean:.5f} ± {self.error(self.kl - self.mean):.5f}"

    def over(self, other: Measured) -> str:
        """The ratio of the means, with its error over documents in pairs."""
        ratio = self.mean / other.mean
        return f"{ratio:.3f} ± {self.error(self.kl - ratio * other.kl) / other.mean:.3f}"

    def error(self, off: np.ndarray) -> float:
        """The standard error of a mean over tokens that come in documents, from what each is off."""
        share, count = self.sizes / self.sizes.sum(), len(self.sizes)
        return float(np.sqrt(np.sum((share * off) ** 2) * count / (count - 1)))


Make = Callable[[int, Path], Path]


class Bench:
    """The embedded model, its text by draw, and other text to measure on."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.folder = args, Path(args.out)
        self.original = AutoModelForCausalLM.from_pretrained(starter.path(), dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(starter.path())
        texts = starter.held_out(args.seed, args.held_out)
        self.documents = [torch.tensor([tokenizer(text).input_ids[:LONGEST]]) for text in texts]
        self.sizes = np.array([one.shape[1] - 1 for one in self.documents])

    def text(self, draw: int) -> dict[str, Any]:
        """What a draw calibrates on."""
        samples = self.args.samples
        return {"text": calibration(samples, draw), "samples": samples, "window": LONGEST, "device": "cpu"}

    def measure(self, name: str, make: Make) -> Measured:
        """KL of every document, the mean over draws of what `make(draw, folder)` writes, and seconds a draw."""
        by_draw, seconds = [], 0.0
        for draw in range(self.args.seed, self.args.seed + self.args.draws):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            started = time.perf_counter()
            made = make(draw, self.folder)
            seconds += (time.perf_counter() - started) / self.args.draws
            model = load_model(made, dtype=torch.float32)
            by_draw.append([window_scores(self.original, model, one)["kl"][0] for one in self.documents])
        shutil.rmtree(self.folder)
        measured = Measured(np.mean(by_draw, axis=0), self.sizes, seconds)
        print(f"measured: {name}: {measured}", flush=True)
        return measured

    def dense(
        self, draw: int, folder: Path, pattern: str, importance: str, update: bool, allocation: str = UNIFORM
    ) -> Path:
        """The step `masks` alone."""
        asked = {"pattern": pattern} if ":" in pattern else {"remove": pattern}
        asked |= {"importance": importance, "update": update, "allocation": allocation}
        whet.masks(starter.path(), folder / "sparse", **asked, **self.text(draw))
        return folder / "sparse"

    def rounded(self, draw: int, folder: Path, source: Path, **options: Any) -> Path:
        """The step `quantize` on `source`."""
        whet.compress(source, folder / "lighter", target="whet", synthetic=0, **options, **self.text(draw))
        return folder / "lighter"

    def published(self, draw: int, folder: Path, pattern: str) -> Path:
        """SparseGPT as it was published, through the whole model; a plain folder."""
        checkpoint = Checkpoint(starter.path())
        parts = anatomy(checkpoint.config, checkpoint.shapes)
        asked = self.text(draw)
        solve = read_windows(
            checkpoint, asked["text"], None, field="text", chat=False, samples=asked["samples"], window=LONGEST, seed=0
        ).solve
        table = checkpoint.read(parts.embedding.parameter)
        walk = Walk(checkpoint, parts, batches(solve, 4096), [], table, table, "cpu", folder, torch.bfloat16)
        visitor = Published(parse_pattern(pattern, "matrix"))
        walk.go(visitor)
        model = AutoModelForCausalLM.from_pretrained(starter.path(), dtype=torch.bfloat16)
        for linear in parts.linears():
            linear.held.of(model.get_parameter(linear.held.parameter).data).copy_(visitor.weights[linear.address])
        model.save_pretrained(folder / "sparse")
        for file in starter.path().glob("tokenizer*"):
            shutil.copy(file, folder / "sparse")
        return folder / "sparse"


class Published:
    """The visitor that leaves every linear as SparseGPT does (arXiv 2301.00774, algorithm 1)."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern, self.weights = pattern, dict[str, torch.Tensor]()

    def visit(self, step: BlockStep) -> dict[str, torch.Tensor]:
        moments = step.second_moments()
        inputs = {linear.reads: linear for linear in step.linears}
        found = {}
        for reads in inputs:
            h, _ = moments.take(reads)
            h.diagonal().add_(0.01 * h.diagonal().mean())
            root = torch.linalg.cholesky(torch.linalg.inv(h.double()), upper=True).float()
            for linear in step.linears:
                if linear.reads == reads:
                    found[linear.address] = self._pruned(step.weight(linear).clone(), root)
        self.weights |= found
        return found

    def _pruned(self, w: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
        """`w [out, in]`, masks chosen a block of columns (or a group of them) at a time. root: U of H⁻¹ = Uᵀ U."""
        for start in range(0, w.shape[1], _COLUMNS):
            block, own = w[:, start : start + _COLUMNS], root[start : start + _COLUMNS, start : start + _COLUMNS]
            scores, errors = block.square() / own.diagonal().square(), torch.zeros_like(block)
            mask = self.pattern.mask(scores)
            group = self.pattern.size if isinstance(self.pattern, Grouped) else 0
            for column in range(block.shape[1]):
                if group and column % group == 0:
                    span = slice(column, column + group)
                    mask[:, span] = self.pattern.mask(block[:, span].square() / own.diagonal()[span].square())
                errors[:, column] = torch.where(mask[:, column], 0.0, block[:, column]) / own[column, column]
                block[:, column:] -= errors[:, column : column + 1] * own[column, column:]
            block[~mask] = 0
            w[:, start + _COLUMNS :] -= errors @ root[start : start + _COLUMNS, start + _COLUMNS :]
        return w


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    bench = Bench(args)
    found = [TABLES[name](bench, args) for name in args.tables]
    print("\n\n".join([f"\n{args.draws} draws, {len(bench.documents)} documents", *found]))


def by_importance(bench: Bench, args: argparse.Namespace) -> str:
    """The first table."""
    rows = []
    for pattern in args.patterns:
        for importance in args.importances:
            for update in (False, True):
                solver = "gptq" if update else "nearest"
                options = {"scheme": args.scheme, "solver": solver, "sparsity": pattern, "importance": importance}
                dense = partial(bench.dense, pattern=pattern, importance=importance, update=update)
                coded = partial(bench.rounded, source=starter.path(), **options)
                name = f"{pattern}, {importance}, {'update' if update else 'no update'}"
                both = [bench.measure(f"{name}, {kind}", make) for kind, make in (("dense", dense), ("coded", coded))]
                rows.append([pattern, importance, "yes" if update else "no", *map(str, both)])
    return table(["pattern", "importance", "update", "KL, dense", f"KL, {args.scheme}"], rows)


def by_way(bench: Bench, args: argparse.Namespace) -> str:
    """The second table."""
    coded = partial(bench.rounded, scheme=args.scheme)
    alone = bench.measure(args.scheme, partial(coded, source=starter.path()))
    rows = [["none", args.scheme, str(alone), "", f"{alone.seconds:.0f}"]]
    for pattern in args.patterns:
        own = partial(bench.dense, pattern=pattern, importance="sparsegpt", update=True)
        theirs = partial(bench.published, pattern=pattern)
        ways: dict[str, Make] = {
            "joint": partial(coded, source=starter.path(), sparsity=pattern),
            "chained": lambda d, f, own=own: coded(d, f, own(d, f)),
            "SparseGPT, then GPTQ": lambda d, f, theirs=theirs: coded(d, f, theirs(d, f), sparsity="kept"),
            "SparseGPT alone": theirs,
        }
        found = {name: bench.measure(f"{pattern}, {name}", make) for name, make in ways.items()}
        for name, one in found.items():
            rows.append([pattern, name, str(one), one.over(found["joint"]), f"{one.seconds:.0f}"])
    return table(["pattern", "way", "KL", "over joint", "seconds"], rows)


def by_allocation(bench: Bench, args: argparse.Namespace) -> str:
    """The third table."""
    rows = []
    for pattern in args.shares:
        for importance, update in (("wanda", False), ("sparsegpt", True)):
            made = partial(bench.dense, pattern=pattern, importance=importance, update=update)
            found = {
                name: bench.measure(f"{pattern}, {importance}, {name}", partial(made, allocation=name))
                for name in ALLOCATIONS
            }
            for name, one in found.items():
                rows.append([pattern, importance, "yes" if update else "no", name, str(one), one.over(found[UNIFORM])])
    return table(["pattern", "importance", "update", "allocation", "KL", "over uniform"], rows)


TABLES = {"importance": by_importance, "way": by_way, "allocation": by_allocation}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--shares", nargs="+", default=["50%", "60%"], help="of the third table")
    parser.add_argument("--patterns", nargs="+", default=["50%", "2:4"])
    parser.add_argument("--importances", nargs="+", default=list(IMPORTANCES))
    parser.add_argument("--scheme", default=SCHEME)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--samples", type=int, default=128, help="documents to calibrate on")
    parser.add_argument("--held-out", type=int, default=300, help="documents to measure on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/masks")
    return parser.parse_args()


if __name__ == "__main__":
    main()
