"""`score`: one pass forward and one back, and every part's worth and every scheme's price is known.

The result is plain JSON (`"format": "whet.scores"`, `"version": 1`), the only thing planning, inspecting and the report
read:

    parts    one entry a linear, embedding and head: address, role, block, shape, parameters, bytes, `sensitivity` (KL
             in nats a token if 1 % of its output's energy were noise), `schemes` {scheme: {bytes, kl}}, `spectrum`; of
             an expert's linears also its number as `expert`, and `sent`, the share of the text's tokens it was sent
    other    bytes, parameters and number of the tensors that no scheme is asked for
    blocks   index, influence, sensitivity, `skills` and `languages` {name: nats a counted token}, outliers
    skills   names in `blocks[].skills`; text, tokens, seconds, model, seed: what was scored, on what
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Linear
from whet.apply.job import Job
from whet.budget import linear_bytes, tables
from whet.checkpoint import load_tokenizer
from whet.errors import UsageError
from whet.events import OnEvent, ignore
from whet.grids import Grid
from whet.measure.items import Item
from whet.scores import LOST, TEXT, Sensitivity, TableUse, rank_share, table_losses, tied_metric
from whet.text import batches, encode
from whet.walk import GradientWalk, Sample, refuse_unscored
from whet.walk.skeleton import Skeleton

VERSION = 1
# Tokens of text for a walk, and walks: second moments need no more, squared gradients do. With one walk the plans of
# three draws of the embedded model at 3.5 bits lost 0.0124 to 0.0171 nats a token. There are as many as have half the
# tokens that the run solves on, and of a long window its first positions: attention over all of them costs more than
# they tell.
SCORED_TOKENS, _WALKS = 8192, 4
_SHARE, _FEWEST, _SCORED_WINDOW = 0.5, 4096, 512
_APART = 4096  # tokens of text whose inputs and gradients are kept for a block at a time
_ITEMS = 32  # of a skill and language
_BATCH = 2048  # tokens; a block's outputs and gradients of one batch are in memory together
_LONGEST = 512  # tokens of a skill's prompt and answer
_HANGUL = re.compile(r"[가-힣]")
_LETTER = re.compile(r"[^\W\d_]")

Schemes = Callable[[Linear], Sequence[Grid]]


def score(
    job: Job,
    schemes: Schemes,
    *,
    items: Sequence[Item] = (),
    spectra: bool = False,
    folder: Path | None = None,
    seed: int = 0,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """Score every part of `job`'s model on its solving windows, and each skill's share in every block.

    schemes: grids to price, by linear (embedding and head among them). items: questions with answers. spectra: also
    the rank that holds 90 % of each output's energy, which costs an eigenvalue problem a linear. folder: where hidden
    states are spilled. seed: of the noise. Raises UsageError where there is no text to score on.
    """
    started = time.monotonic()
    parts, checkpoint = job.anatomy, job.checkpoint
    refuse_unscored(parts)
    if not job.solve:
        raise UsageError("Scoring needs text: give --text FILE, of the kind the model is used for.")
    tokenizer = load_tokenizer(checkpoint.path)
    texts = _of_text(job.solve, tokenizer)
    apart = min(0.5, _APART / sum(sample.tokens.numel() for sample in texts[0]))
    spectrum = rank_share if spectra else None
    visitor = Sensitivity(parts, schemes, spectrum, solving=job.tokens, apart=apart, passes=len(texts))
    compute = job.compute
    walk = GradientWalk(checkpoint, parts, job.device, compute, folder, seed)
    stage = walk.stage(len(texts), on_event)
    for text in reversed(texts[1:]):
        walk.go(text, visitor, stage)
    walk.go(texts[0] + _of_skills(items, tokenizer), visitor, stage)
    found: list[dict[str, Any]] = [
        {
            **_part(linear, index, job),
            "sensitivity": mine.sensitivity,
            "schemes": _priced(linear, schemes(linear), mine.schemes),
            "spectrum": mine.spectrum,
            **({} if mine.sent is None else {"sent": mine.sent}),
        }
        for index, linears in enumerate(parts.blocks)
        for linear in linears
        for mine in (visitor.parts[linear.address],)
    ]
    found += _tables(job, visitor, schemes, walk.skeleton)
    outliers = visitor.outliers.table()
    for outlier in outliers.values():
        outlier["text"] = tokenizer.decode([outlier["token"]])
    blocks = []
    for index, linears in enumerate(parts.blocks):
        skills, languages = _by_name(visitor.by_kind(index), visitor.counted)
        blocks.append(
            {
                "index": index,
                "influence": visitor.influence[index],
                "sensitivity": sum(visitor.parts[linear.address].sensitivity for linear in linears),
                "skills": skills,
                "languages": languages,
                "outliers": [
                    {"address": linear.address, **outliers[linear.address]}
                    for linear in linears
                    if linear.address in outliers
                ],
            }
        )
    return {
        "format": "whet.scores",
        "version": VERSION,
        "model": {"name": job.name, "sha256": job.sha256},
        "text": job.text,
        "tokens": visitor.text_tokens,
        "seed": seed,
        "parts": found,
        "other": _other(job),
        "blocks": blocks,
        "skills": list(dict.fromkeys(item.skill for item in items)),
        "seconds": time.monotonic() - started,
    }


def unscored(job: Job, schemes: Schemes) -> dict[str, Any]:
    """Scores without a single loss, made without text or a forward pass: bytes are known beforehand."""
    parts = job.anatomy
    refuse_unscored(parts)
    inside: dict[str, int] = {linear.address: i for i, linears in enumerate(parts.blocks) for linear in linears}
    found = []
    for linear in (*parts.linears(), *tables(parts)):
        grids = schemes(linear)
        free = _priced(linear, grids, {grid.name: 0.0 for grid in grids})
        found.append({**_part(linear, inside.get(linear.address), job), "schemes": free})
    return {"parts": found, "other": _other(job)}


def language(text: str) -> str:
    """`ko` where at least three letters in ten are Hangul, else `en`: the two languages whet tells apart."""
    letters = len(_LETTER.findall(text))
    return "ko" if letters and len(_HANGUL.findall(text)) >= 0.3 * letters else "en"


def scored_tokens(solving: int) -> tuple[int, int]:
    """Walks, and tokens of text in each, that score a model which is solved on `solving` tokens."""
    share = int(_SHARE * solving)
    return max(1, min(_WALKS, share // SCORED_TOKENS)), min(SCORED_TOKENS, max(share, _FEWEST))


def _of_text(windows: Sequence[Tensor], tokenizer: Any) -> list[list[Sample]]:
    """The windows of each walk, by language, without padding."""
    walks: list[dict[str, list[Tensor]]] = []
    most, tokens = scored_tokens(sum(map(len, windows)))
    taken = tokens
    for window in (whole[:_SCORED_WINDOW] for whole in windows):
        if taken + len(window) > tokens:
            if len(walks) == most:
                break
            walks.append(defaultdict(list))
            taken = 0
        walks[-1][language(tokenizer.decode(window))].append(window)
        taken += len(window)
    return [
        [Sample.of_text(batch, f"{TEXT}{name}") for name, some in walk.items() for batch in batches(some, _BATCH)]
        for walk in walks
    ]


def _of_skills(items: Sequence[Item], tokenizer: Any) -> list[Sample]:
    """Prompt and right answer of some items of each skill and language; what predicts the answer counts."""
    by_name: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        some = by_name[f"{item.skill}/{language(item.prompt + str(item.answer or item.choices))}"]
        if len(some) < _ITEMS:
            some.append(item)
    samples = []
    for name, some in by_name.items():
        answers = [f" {item.answer}" if item.answer is not None else item.choices[item.label] for item in some]
        asked = encode([item.prompt for item in some], tokenizer)
        rows = encode([item.prompt + answer for item, answer in zip(some, answers, strict=True)], tokenizer)
        kept = [_cut(prompt, row) for prompt, row in zip(asked, rows, strict=True)]
        kept.sort(key=lambda pair: len(pair[1]))
        while kept:
            width = len(kept[-1][1])
            together, kept = kept[-max(1, _BATCH // width) :], kept[: -max(1, _BATCH // width)]
            tokens = torch.zeros(len(together), width, dtype=torch.int64)
            real, counted = torch.zeros_like(tokens, dtype=torch.bool), torch.zeros_like(tokens, dtype=torch.bool)
            for i, (n, row) in enumerate(together):
                tokens[i, : len(row)] = torch.tensor(row)
                real[i, : len(row)] = True
                counted[i, n - 1 : len(row) - 1] = True
            samples.append(Sample(tokens, real, counted, name))
    return samples


def _cut(prompt: Sequence[int], row: list[int]) -> tuple[int, list[int]]:
    """Where the answer begins in `row`, and `row` in at most _LONGEST tokens, of a longer prompt the end.

    It begins with the first token that is not the prompt's: the last of those (a space) may go into one with it.
    """
    begins = next((i for i, (a, b) in enumerate(zip(prompt, row, strict=False)) if a != b), min(len(prompt), len(row)))
    first = 0 if begins < _LONGEST else min(begins - 1, len(row) - _LONGEST)
    return max(1, begins - first), row[first : first + _LONGEST]


def _by_name(kinds: dict[str, float], counted: dict[str, int]) -> tuple[dict[str, float], dict[str, float]]:
    """Sensitivity by skill over its languages, and by language over skills (over text where there are no skills)."""
    skills: dict[str, list[tuple[float, int]]] = defaultdict(list)
    languages: dict[str, list[tuple[float, int]]] = defaultdict(list)
    asked = any(not name.startswith(TEXT) for name in kinds)
    for name, value in kinds.items():
        what, _, spoken = name.rpartition("/")
        if not name.startswith(TEXT):
            skills[what].append((value, counted[name]))
        if asked != name.startswith(TEXT):
            languages[spoken].append((value, counted[name]))
    return _means(skills), _means(languages)


def _means(values: dict[str, list[tuple[float, int]]]) -> dict[str, float]:
    return {name: sum(v * n for v, n in pairs) / sum(n for _, n in pairs) for name, pairs in values.items()}


def _part(linear: Linear, block: int | None, job: Job) -> dict[str, Any]:
    stored = job.checkpoint.tensors[linear.parameter]
    size = linear.shape[0] * linear.shape[1]
    return {
        "address": linear.address,
        "role": linear.role,
        "block": block,
        "shape": list(linear.shape),
        # a head with the embedding's values is none of the original's, whose parameters a budget's bits are of
        "parameters": 0 if linear.parameter in job.original.repeated else size,
        "bytes": size * stored.dtype.itemsize,
        # rows of one tensor take one scheme, so that they are stored as one; those of an expert are stored apart
        **({"tensor": linear.parameter} if linear.rows is not None and linear.expert is None else {}),
        **({"expert": linear.held.expert} if linear.held.expert is not None else {}),
    }


def _other(job: Job) -> dict[str, int]:
    parts = job.anatomy
    mine = {linear.parameter for linear in (*parts.linears(), *tables(parts))} | {parts.dropped}
    rest = [info for name, info in job.checkpoint.tensors.items() if name not in mine]
    return {
        "bytes": sum(info.nbytes for info in rest),
        "parameters": sum(info.nbytes // info.dtype.itemsize for info in rest),
        "tensors": len(rest),
    }


def _priced(linear: Linear, grids: Sequence[Grid], losses: dict[str, float]) -> dict[str, Any]:
    first = linear.rows is None or linear.rows[0] == 0 or linear.expert is not None
    return {grid.name: {"bytes": linear_bytes(grid, linear.shape, first), "kl": losses[grid.name]} for grid in grids}


def _tables(job: Job, visitor: Sensitivity, schemes: Schemes, skeleton: Skeleton) -> list[dict[str, Any]]:
    """Embedding and head. A tied one pays twice, and is solved by the metric that `compress` uses for it."""
    parts, device = job.anatomy, job.device
    tokens = visitor.text_tokens
    hidden, gradient = visitor.head_hidden / tokens, visitor.embedding_gradient / visitor.looked.sum().float()
    looked, read = (visitor.looked / tokens).float(), (visitor.read / tokens).float()
    looked_up, slopes = (torch.cat(some).to(device) for some in zip(*visitor.lookups, strict=True))
    states = torch.cat(visitor.final).to(device)
    found = []
    for linear in tables(parts):
        looks, reads = linear.role == "embedding", linear.role == "head" or parts.tied
        metric = tied_metric(hidden) if looks and reads else hidden if reads else None
        use = TableUse(
            looked=looked.to(device) if looks else None,
            gradient=gradient.to(device) if looks else None,
            read=read.to(device) if reads else None,
            hidden=hidden.to(device) if reads else None,
            metric=None if metric is None else metric.to(device),
            tokens=looked_up if looks else None,
            slopes=slopes if looks else None,
            states=states if reads else None,
            bound=skeleton.bound,
            bias=skeleton.bias,
        )
        w = job.checkpoint.read(linear.parameter).to(device).float()
        grids = schemes(linear)
        losses = dict(zip((grid.name for grid in grids), table_losses(w, use, grids), strict=True))
        found.append(
            {
                **_part(linear, None, job),
                "sensitivity": LOST * float(use.cost(w).sum()),
                "schemes": _priced(linear, grids, losses),
                "spectrum": None,
            }
        )
    return found
