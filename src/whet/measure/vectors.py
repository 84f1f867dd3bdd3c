"""What a base model kept, which gives hidden states and no answer: the states, and the vectors of texts made of them.

A text's vector is what a sentence encoder's folder says (`1_Pooling/config.json`): the mean over tokens, the first
token's state or the last one's; the mean where it says nothing. What such vectors are for is finding texts that are
near each other, so it is told how often the nearest one stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from whet.engines.torch import outputs
from whet.errors import GateError, UsageError
from whet.events import OnEvent, Stage
from whet.measure.statistics import Estimate, skewed_ratio, told_of, wilson
from whet.strict import parse_json
from whet.text import batch_indices

_MOST = 2000  # texts whose vectors are compared, each with each
_POOLING = Path("1_Pooling") / "config.json"


def pooling(folder: Path) -> str:
    """How a text's vector is made of its states in `folder`: `mean`, `cls` (the first token's) or `lasttoken`."""
    file = folder / _POOLING
    said: Any = {}
    if file.is_file():
        try:
            said = parse_json(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(
                "{file} is not valid JSON ({error}). Download it again.", file=file, error=error
            ) from error
    if not isinstance(said, dict):
        return "mean"
    mode = said.get("pooling_mode")
    if said.get("pooling_mode_cls_token") or mode == "cls":
        return "cls"
    return "lasttoken" if said.get("pooling_mode_lasttoken") or mode == "lasttoken" else "mean"


@dataclass
class Vectors:
    """What is kept of both models' states, window after window: relative errors, vectors, and the windows' numbers."""

    pooling: str
    errors: list[float] = field(default_factory=list)
    original: list[Tensor] = field(default_factory=list)
    lighter: list[Tensor] = field(default_factory=list)
    windows: list[int] = field(default_factory=list)
    identical: bool = True

    def add(self, first: Tensor, second: Tensor, windows: Sequence[int]) -> None:
        """States `[b, L, hidden]` of the original and the lighter model for `windows`.

        Raises UsageError where the original's are not finite, GateError where the lighter's are not.
        """
        if not torch.isfinite(first).all():
            raise UsageError(
                "The original gives states that are not finite. Its weights are broken; download it again."
            )
        if not torch.isfinite(second).all():
            raise GateError(
                "The lighter model gives states that are not finite. Its weights are broken: make it again."
            )
        first, second = first.double().cpu(), second.double().cpu()
        self.identical = self.identical and torch.equal(first, second)
        apart, whole = (x.flatten(1).norm(dim=1) for x in (second - first, first))
        self.errors += (apart / whole.clamp_min(1e-30)).tolist()
        self.original.append(self._pooled(first))
        self.lighter.append(self._pooled(second))
        self.windows += windows

    def _pooled(self, states: Tensor) -> Tensor:
        if self.pooling == "mean":
            return states.mean(1)
        return states[:, 0 if self.pooling == "cls" else -1]


def ask_both(
    original: PreTrainedModel,
    lighter: PreTrainedModel,
    windows: Sequence[Tensor],
    batch_tokens: int,
    pooled: str,
    on_event: OnEvent,
) -> Vectors:
    """The states of both models for `windows`, each int64 [L], in batches of equal length. pooled: as `pooling`."""
    groups = batch_indices([len(window) for window in windows], batch_tokens)
    stage, found = Stage(on_event, "divergence", len(groups)), Vectors(pooled)
    for group in groups:
        batch = torch.stack([windows[i] for i in group])
        with torch.inference_mode():
            found.add(outputs(original, batch), outputs(lighter, batch), group)
        stage.step()
    return found


def summarize_vectors(found: Vectors, clusters: Sequence[int], confidence: float = 0.95) -> dict[str, Any]:
    """The figures of a report; `clusters[i]` is the document of window i.

    `error`: the mean over texts of ||lighter - original|| / ||original|| of their states. `cosine`: the mean cosine of
    the two vectors of a text. `neighbours`: the share of texts with the same nearest other text, by cosine; None of
    fewer than three texts.
    """
    groups = np.asarray(clusters)[found.windows]
    first, second = (torch.nn.functional.normalize(torch.cat(x), dim=1) for x in (found.original, found.lighter))
    ones = np.ones(len(groups))
    apart = skewed_ratio((1 - (first * second).sum(1)).clamp_min(0).numpy(), ones, groups, confidence)
    return {
        "answers": len(groups),
        "of": "texts",
        "kind": "vectors",
        "pooling": found.pooling,
        "labels": first.shape[1],
        "clusters": len(set(groups.tolist())),
        "confidence": confidence,
        **dict.fromkeys(("kl", "top1", "perplexity", "difference", "order")),
        "error": told_of(skewed_ratio(np.array(found.errors), ones, groups, confidence)),
        "cosine": _turned(apart, None),
        "neighbours": _neighbours(first[:_MOST], second[:_MOST], groups[:_MOST], confidence),
    }


def _neighbours(first: Tensor, second: Tensor, groups: Any, confidence: float) -> dict[str, Any] | None:
    if len(first) < 3:
        return None
    nearest = [(x @ x.t()).fill_diagonal_(-2).argmax(1) for x in (first, second)]
    same = (nearest[0] == nearest[1]).numpy()
    apart = skewed_ratio(~same, np.ones(len(same)), groups, confidence)
    return _turned(apart, wilson(0, len(same), confidence) if same.all() else None)


def _turned(apart: Estimate, ends: tuple[float, float] | None) -> dict[str, Any]:
    """What is left of 1 after `apart`; its interval is of `ends`, where they are given."""
    ends = ends if ends is not None and apart.interval is not None else apart.interval
    interval = None if ends is None else [1 - ends[1], 1 - ends[0]]
    return {"mean": 1 - apart.value, "standard_error": apart.standard_error, "interval": interval}
