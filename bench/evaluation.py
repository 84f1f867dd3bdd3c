"""Measuring a lighter model against its original, and the statistics that the tables quote.

Independent of whet on purpose: the same few lines measure whet and its peers, so a mistake in ``whet.measure`` cannot
flatter whet. Text is cut into windows that do not overlap; the first token of a window has no context and is not
scored, as in llama.cpp's and GPTQ's convention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def cut(ids: torch.Tensor, length: int) -> torch.Tensor:
    """All non-overlapping windows of ``length`` tokens, int64 [n, length]; what is left at the end is dropped."""
    count = len(ids) // length
    if not count:
        raise SystemExit(f"the text has {len(ids)} tokens, but one window needs {length}")
    return ids[: count * length].view(count, length).clone()


def cut_sets(
    ids: torch.Tensor, length: int, sizes: Sequence[int], seed: int
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Disjoint sets of so many windows of the first 90 % of a text, shuffled, and all windows of the rest."""
    border = len(ids) * 9 // 10
    pool = cut(ids[:border], length)
    if len(pool) < sum(sizes):
        raise SystemExit(f"the training text has {len(pool)} windows of {length} tokens; {sum(sizes)} are needed")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(pool)))
    return [pool[one] for one in order[: sum(sizes)].split(list(sizes))], cut(ids[border:], length)


@torch.inference_mode()
def window_scores(
    original: PreTrainedModel, lighter: PreTrainedModel, windows: torch.Tensor, batch: int = 8
) -> dict[str, np.ndarray]:
    """Per window, averaged over its L - 1 scored tokens: ``kl`` (original ‖ lighter, nats), ``nll``, ``top1``."""
    scores: dict[str, list[torch.Tensor]] = {"kl": [], "nll": [], "top1": []}
    for ids in windows.split(batch):
        p = original(input_ids=ids, use_cache=False).logits[:, :-1].double().log_softmax(-1)
        q = lighter(input_ids=ids, use_cache=False).logits[:, :-1].double().log_softmax(-1)
        scores["kl"].append((p.exp() * (p - q)).sum(-1).mean(-1))
        scores["nll"].append(-q.gather(-1, ids[:, 1:, None])[..., 0].mean(-1))
        scores["top1"].append((p.argmax(-1) == q.argmax(-1)).double().mean(-1))
    return {name: torch.cat(parts).numpy() for name, parts in scores.items()}


def clustered_error(values: np.ndarray) -> float:
    """Standard error of the mean of per-window values [n], a window being the unit."""
    return float(values.std(ddof=1) / len(values) ** 0.5)


@dataclass(frozen=True)
class Ratio:
    """A ratio of mean KLs with two 95 % intervals (low, high)."""

    value: float
    crossed: tuple[float, float]
    draws: tuple[float, float] | None

    @property
    def upper(self) -> float:
        """The larger of the upper bounds."""
        return max(self.crossed[1], self.draws[1] if self.draws else 0.0)


def paired_ratio(ours: np.ndarray, theirs: np.ndarray, resamples: int = 10_000, seed: int = 0) -> Ratio:
    """Ratio of the mean of ``ours`` to the mean of ``theirs``, both KL per [calibration draw, evaluation window].

    Cell (d, w) of both was calibrated on the same draw d and evaluated on the same window w, so everything is
    resampled in pairs. Two intervals, because each misses something:

    - ``crossed``: bootstrap over draws and windows at once (the pigeonhole bootstrap for crossed factors, Owen 2007).
      It carries both sources of chance, but with five draws it knows little about the tails.
    - ``draws``: Student's t over the log-ratios of the single draws: right for few draws, blind to the choice of
      windows. None for one draw.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"not paired: {ours.shape} against {theirs.shape}")
    count, width = ours.shape
    generator = np.random.default_rng(seed)
    draw = generator.multinomial(count, np.full(count, 1 / count), size=resamples)
    window = generator.multinomial(width, np.full(width, 1 / width), size=resamples)
    sums = [np.einsum("rd,dw,rw->r", draw, table, window, optimize=True) for table in (ours, theirs)]
    low, high = np.quantile(sums[0] / sums[1], [0.025, 0.975])
    t_interval = None
    if count > 1:
        logs = np.log(ours.mean(1) / theirs.mean(1))
        half = T_95[min(count - 1, len(T_95)) - 1] * logs.std(ddof=1) / count**0.5
        t_interval = (float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half)))
    return Ratio(float(ours.mean() / theirs.mean()), (float(low), float(high)), t_interval)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown table, columns padded so that it also reads well on a terminal."""
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells]
    lines = ["| " + " | ".join(row) + " |" for row in padded]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
