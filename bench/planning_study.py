"""A model, its texts, and what was measured of the contestants on them, kept by the content of what it depends on."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import whet
from evaluation import cut, window_scores
from planning_rivals import GRIDS, Point, plan_of
from quantization import ROOMS, digest
from whet import starter
from whet.apply.job import scale_dtype
from whet.checkpoint import load_model, load_tokenizer, size_on_disk
from whet.grids import parse_scheme
from whet.steps.decide import decide
from whet.steps.options import Quantize
from whet.steps.score import score

PLANNING = ("budget",)  # what a plan depends on besides quantization.ROOMS
ROW = 48  # of the starter's documents behind each other: about nine windows
ASKING = ("measure", "engines", "starter")  # and what answers to questions do


@dataclass(frozen=True)
class Made:
    """A contestant on every draw: tensor bytes `[draw]`, KL and top-1 `[draw, window]`, and what each run said."""

    bytes: np.ndarray
    kl: np.ndarray
    top1: np.ndarray
    told: list[dict[str, Any]]


class Study:
    """Compresses and measures under `args.out`. The model is `starter` or a folder; without args.train the text is the
    starter's own."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out = args, Path(args.out)
        self.model = starter.path() if args.model == "starter" else Path(args.model)
        self.train: str | None = getattr(args, "train", None)

    @cached_property
    def original(self) -> torch.nn.Module:
        """In float32."""
        return load_model(self.model, dtype=torch.float32)

    @cached_property
    def windows(self) -> torch.Tensor:
        """All windows `[n, L]` of the evaluation text; the starter's documents are packed as in its training."""
        tokenizer = load_tokenizer(self.model)
        if self.train:
            text = Path(self.args.eval).read_text(encoding="utf-8")
        else:
            text = "".join(self.packed(starter.held_out(self.args.seed, self.args.held_out)))
        return cut(torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False).input_ids), self.args.window)

    def given(self, draw: int) -> dict[str, Any]:
        """What every contestant is given on a calibration draw; whet samples and splits it by the seed.

        Of the starter's own text `size` is given rows of documents, as they are in `windows`: what single documents
        calibrate has seen no end of one and nothing beyond the sixtieth position, and loses half as much again there.
        """
        text: Any = self.train
        if text is None and self.args.what == "size":
            text = self.packed(starter.documents(draw, ROW * (1 + self.args.samples // 2)))
        elif text is None:
            text = starter.documents(draw, 6 * self.args.samples)
        return {"text": text, "samples": self.args.samples, "window": self.args.window, "seed": draw}

    def packed(self, documents: Sequence[str]) -> list[str]:
        """ROW documents a text, each with the end of a document behind it."""
        end = load_tokenizer(self.model).eos_token
        return ["".join(f"{one}{end}" for one in documents[i : i + ROW]) for i in range(0, len(documents), ROW)]

    def key(self, draw: int, what: Any, rooms: Sequence[str]) -> str:
        """Of everything that a run of `what` on a draw depends on."""
        text = Path(self.train) if self.train else json.dumps(self.given(draw)["text"])
        settings = json.dumps([self.args.samples, self.args.window, draw, self.args.threads, what], sort_keys=True)
        return digest(
            *sorted(self.model.glob("*.safetensors")), self.model / "config.json", text, _code(*rooms), settings
        )[:16]

    def scores(self, draw: int) -> dict[str, Any]:
        """whet's scores with every grid on every part."""
        file = self.out / "scores" / f"{self.key(draw, GRIDS, (*ROOMS, *PLANNING))}.json"
        if not file.exists():
            given = self.given(draw)
            seed = given.pop("seed")
            job = decide(
                self.model, Quantize.of("plan", scheme=GRIDS[0], target="whet", **given), seed=seed, device="cpu"
            )
            grids = [parse_scheme(name, scale_dtype(job.dtype)) for name in GRIDS]
            write(file, score(job, lambda _: grids, seed=draw))
        return json.loads(file.read_text(encoding="utf-8"))

    def run(self, draw: int, what: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Compress by `what` (plan or bits) on a draw and measure: scores by window, bytes, what the run said."""
        key = self.key(draw, what, ROOMS if "plan" in what else (*ROOMS, *PLANNING))
        seen = digest(self.windows.numpy().tobytes(), Path(__file__).with_name("evaluation.py"))[:8]
        numbers, facts = self.out / "runs" / f"{key}-{seen}.npz", self.out / "runs" / f"{key}.json"
        if not (numbers.exists() and facts.exists()):
            lighter = self.out / "runs" / f"{key}.lighter"
            shutil.rmtree(lighter, ignore_errors=True)
            start = time.perf_counter()
            told = whet.compress(self.model, lighter, target="whet", device="cpu", **what, **self.given(draw))
            seconds = time.perf_counter() - start
            size = size_on_disk(lighter)
            scores = lighter_scores(self, lighter)
            shutil.rmtree(lighter)
            numbers.parent.mkdir(parents=True, exist_ok=True)
            np.savez(numbers, **scores)
            write(
                facts,
                {
                    "bytes": sum(size[part] for part in ("linears", "embedding", "head", "other")),
                    "seconds": seconds,
                    "verified": told.get("kl"),
                    "plan": told["plan"],
                    "paid": {address: line["kl"] for address, line in told["linears"].items() if "kl" in line},
                },
            )
        with np.load(numbers) as scores:
            return dict(scores), json.loads(facts.read_text(encoding="utf-8"))

    def all_draws(self, name: str, what: Sequence[Mapping[str, Any]]) -> Made:
        """A contestant on every draw; `what` is one thing a draw."""
        runs = [self.run(draw, one) for draw, one in enumerate(what)]
        kl, top1 = (np.stack([scores[kind] for scores, _ in runs]) for kind in ("kl", "top1"))
        made = Made(np.array([facts["bytes"] for _, facts in runs]), kl, top1, [facts for _, facts in runs])
        print(f"{name}: {made.bytes.mean():,.0f} bytes, KL {' '.join(f'{x:.5f}' for x in kl.mean(1))}", flush=True)
        return made

    def point(self, point: Point) -> Made:
        """A mix on every draw; what is written must have the bytes that were predicted."""
        made = self.all_draws(point.name, [{"plan": plan_of(point.schemes)}] * self.args.draws)
        if (made.bytes != point.bytes).any():
            raise SystemExit(f"{point.name}: {made.bytes[0]:,} bytes were written, {point.bytes:,} were predicted")
        return made


def lighter_scores(study: Study, folder: Path) -> dict[str, np.ndarray]:
    """Scores by window of the lighter model in `folder`, in float32."""
    return window_scores(study.original, load_model(folder, dtype=torch.float32), study.windows)


def write(file: Path, value: Any) -> None:
    """JSON, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_suffix(".half")
    half.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    half.replace(file)


@cache
def _code(*rooms: str) -> str:
    """Digest of what the Python files of whet's rooms say."""
    return digest(*(path for room in rooms for path in sorted((Path(whet.__file__).parent / room).rglob("*.py"))))
