"""What a model with a class head kept: its classes, or its scores where it gives numbers.

An answer is one for each text (`ForSequenceClassification`), one for each token (`ForTokenClassification`), or the two
marks of where an answer begins and ends in a text (`ForQuestionAnswering`), each a choice among its tokens. What it
means is in the config, as transformers trains it: of several labels a distribution over classes, or, where
`problem_type` says so, a yes or no for each; of one label, or with `problem_type` regression, a number: the score of a
reward model. A distribution over one class says nothing: scores are compared as numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from whet.anatomy import HEADLESS
from whet.engines.torch import outputs
from whet.errors import GateError, UsageError
from whet.events import OnEvent, Stage
from whet.measure.statistics import Estimate, clustered_mean, percentiles, skewed_ratio, t_quantile, told_of, wilson
from whet.text import batch_indices

Kind = Literal["classes", "decisions", "scores", "vectors"]
TASKS = {"classification": "texts", "tokens": "tokens", "spans": "marks", "states": "texts"}
_NEVER = -1e9  # as a logit: of what cannot be chosen
_PAIRED = 2000  # answers whose order is compared, each with each


@dataclass(frozen=True)
class Answers:
    """Logits of both models, float64 `[n, labels]`, and the window of each answer, int64 `[n]`."""

    original: NDArray[np.float64]
    lighter: NDArray[np.float64]
    window: NDArray[np.int64]

    @property
    def identical(self) -> bool:
        """Whether both models said the same, to the last bit."""
        return bool(np.array_equal(self.original, self.lighter))


def kind_of(task: str, config: Mapping[str, Any], labels: int) -> Kind:
    """What the answers of a model for `task` with this config.json are. labels: how many numbers an answer has."""
    if task in HEADLESS:
        return "vectors" if task == "states" else "classes"  # a mark is on one of the tokens
    if labels == 1 or config.get("problem_type") == "regression":
        return "scores"
    return "decisions" if config.get("problem_type") == "multi_label_classification" else "classes"


def labels_of(config: Mapping[str, Any]) -> int:
    """How many numbers an answer has, by config.json; transformers makes two where it does not say."""
    named = config.get("id2label")
    return len(named) if isinstance(named, Mapping) and named else int(config.get("num_labels") or 2)


def ask_both(
    original: PreTrainedModel, lighter: PreTrainedModel, windows: Sequence[Tensor], batch_tokens: int, on_event: OnEvent
) -> Answers:
    """What both models say of `windows`, each int64 [L], in batches of equal length."""
    groups = batch_indices([len(window) for window in windows], batch_tokens)
    stage = Stage(on_event, "divergence", len(groups))
    pairs = []
    for group in groups:
        batch = torch.stack([windows[i] for i in group])
        with torch.inference_mode():
            pairs.append((outputs(original, batch).float(), outputs(lighter, batch).float()))
        stage.step()
    return gathered(pairs, groups)


def gathered(pairs: Sequence[tuple[Tensor, Tensor]], windows: Sequence[Sequence[int]]) -> Answers:
    """Answers from logits `[b, labels]` or `[b, L, labels]` of both models, batch by batch.

    windows: the numbers of the windows of each batch. Raises UsageError where the original's are not finite, GateError
    where the lighter's are not.
    """
    both: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    numbers: list[NDArray[np.int64]] = []
    widest = max(first.shape[-1] for first, _ in pairs)
    for pair, group in zip(pairs, windows, strict=True):
        for rows, logits in zip(both, pair, strict=True):
            answers = logits.double().cpu().reshape(-1, logits.shape[-1])
            # of shorter texts there are fewer tokens to choose from
            rows.append(pad(answers, (0, widest - answers.shape[1]), value=_NEVER).numpy())
        numbers.append(np.repeat(np.array(group, dtype=np.int64), len(both[0][-1]) // len(group)))
    found = Answers(np.concatenate(both[0]), np.concatenate(both[1]), np.concatenate(numbers))
    if not np.isfinite(found.original).all():
        raise UsageError("The original gives answers that are not finite. Its weights are broken; download it again.")
    if not np.isfinite(found.lighter).all():
        raise GateError("The lighter model gives answers that are not finite. Its weights are broken: make it again.")
    return found


def summarize_answers(
    found: Answers, kind: Kind, of: str, clusters: Sequence[int], confidence: float = 0.95
) -> dict[str, Any]:
    """The figures of a report; `clusters[i]` is the document of window i.

    `answers`: how many; `of`: `texts` or `tokens`; `kind`, `labels`, `clusters`, `confidence`. What does not apply of
    the rest is None. Of classes and decisions `kl`: mean KL(original || lighter) in nats an answer, and its
    percentiles; `top1`: the share of answers with one class first in both, or with all decisions alike. Of scores
    `difference`: the mean of |lighter - original| over the standard deviation of the original's scores, None where that
    is 0; `order`: the share of pairs that both put in one order.
    """
    groups = np.asarray(clusters)[found.window]
    told: dict[str, Any] = {
        "answers": len(found.window),
        "of": of,
        "kind": kind,
        "labels": found.original.shape[1],
        "clusters": len(set(groups.tolist())),
        "confidence": confidence,
        **dict.fromkeys(("kl", "top1", "perplexity", "difference", "order")),
    }
    if kind == "scores":
        return told | {
            "difference": told_of(_difference(found, groups, confidence)),
            "order": told_of(_order(found, groups, confidence)),
        }
    kl, same = divergences(found, kind)
    ones = np.ones(len(kl))
    apart = skewed_ratio(~same, ones, groups, confidence)
    ends = wilson(0, len(same), confidence) if same.all() and apart.interval is not None else apart.interval
    interval = None if ends is None else [max(0.0, 1 - ends[1]), 1 - ends[0]]
    return told | {
        "kl": {**(told_of(skewed_ratio(kl, ones, groups, confidence)) or {}), "percentiles": percentiles(kl)},
        "top1": {"mean": 1 - apart.value, "standard_error": apart.standard_error, "interval": interval},
    }


def divergences(found: Answers, kind: Kind) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """KL in nats of every answer, and whether both say the same."""
    p, q = torch.from_numpy(found.original), torch.from_numpy(found.lighter)
    if kind == "decisions":
        yes, no = torch.nn.functional.logsigmoid, lambda x: torch.nn.functional.logsigmoid(-x)
        kl = (yes(p).exp() * (yes(p) - yes(q)) + no(p).exp() * (no(p) - no(q))).sum(-1)
        return kl.clamp_min(0).numpy(), ((p > 0) == (q > 0)).all(-1).numpy()
    log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).clamp_min(0)
    return kl.numpy(), (p.argmax(-1) == q.argmax(-1)).numpy()


def differences(found: Answers) -> NDArray[np.float64] | None:
    """|lighter - original| of every answer, over the original's standard deviation of that label; of several labels
    their mean. None where the original says the same of every text."""
    spread = found.original.std(axis=0, ddof=1) if len(found.original) > 1 else np.zeros(found.original.shape[1])
    if not spread.all():
        return None
    return np.asarray((np.abs(found.lighter - found.original) / spread).mean(axis=1))


def _difference(found: Answers, groups: NDArray[np.int64], confidence: float) -> Estimate | None:
    values = differences(found)
    return None if values is None else skewed_ratio(values, np.ones(len(values)), groups, confidence)


def _order(found: Answers, groups: NDArray[np.int64], confidence: float) -> Estimate | None:
    """The share of pairs of answers that both models put in the same order; pairs that the original ties do not count,
    and those that only the lighter ties count half.

    A U-statistic of degree 2: its standard error is twice that of the mean over answers of the share of an answer's
    pairs (Hoeffding, Annals of Mathematical Statistics 19, 1948). Where no pair is turned round, the interval is
    Wilson's, of half as many pairs as there are answers, which share none.
    """
    first, second = found.original[:_PAIRED], found.lighter[:_PAIRED]
    top, bottom = np.zeros(len(first)), np.zeros(len(first))
    for label in range(first.shape[1]):
        before = np.sign(first[:, None, label] - first[None, :, label])
        after = np.sign(second[:, None, label] - second[None, :, label])
        counted = before != 0
        top += ((1 + before * after) / 2 * counted).sum(1)
        bottom += counted.sum(1)
    if not bottom.sum():
        return None
    groups = groups[: len(first)]
    value = float(top.sum() / bottom.sum())
    shares = np.divide(top, bottom, out=np.full(len(top), value), where=bottom > 0)
    mean = clustered_mean(shares, groups, confidence)
    if mean.standard_error is None:
        return Estimate(value, None, None, mean.clusters, len(first))
    if value == 1:
        low = wilson(mean.clusters // 2, mean.clusters // 2, confidence)[0] if mean.clusters > 3 else 0.0
        return Estimate(value, 0.0, (low, 1.0), mean.clusters, len(first))
    error = 2 * mean.standard_error
    reach = t_quantile(0.5 + confidence / 2, mean.clusters - 1) * error
    ends = (max(0.0, value - reach), min(1.0, value + reach))
    return Estimate(value, error, ends, mean.clusters, len(first))
