"""False alarms: the embedded model beside itself, computed with another number of threads, judged again and again.

Both are asked once. Then, run by run, windows of the text and questions are drawn with replacement (a bootstrap), every
figure is measured on what was drawn and judged by default limits, whether or not both are equal to the last bit. A
limit that fails is an alarm.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections import Counter
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from torch import Tensor

from evaluation import table
from whet import starter
from whet.engines.torch import TorchEngine, open_model
from whet.events import ignore
from whet.measure.asked import Asked, Given, read_given
from whet.measure.aspects import KNOWN, Case, Sides
from whet.measure.divergence import TokenScores, by_token, divergence, summarize
from whet.measure.items import Item, read_skills
from whet.measure.limits import judgements, resolve_limits
from whet.measure.skills import Outcome, compare_skills, score

ASPECTS = ("acceptance", "calibration", "languages", "knowledge")  # measured on what text and questions gave


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    asked = Asked(
        starter.path(), starter.path(), "text", False, False, args.windows, 128, 2048, 0, "cpu", None, False, (),
        None, 0, {},
    )  # fmt: skip
    given = read_given(asked, starter.held_out(seed=0, count=2000), "causal")
    items = read_skills(starter.skills("report", per_skill=args.questions))
    first, second = open_model(starter.path(), "cpu"), open_model(starter.path(), "cpu")
    second = Threaded(second.model, second.tokenizer, second.folder)
    second.threads = args.threads
    collect = [KNOWN[name].collect for name in ASPECTS if KNOWN[name].collect is not None]
    scores = divergence(first, second, given.windows, collect=collect)
    outcomes = score(first, items), score(second, items)
    told = f"largest KL {scores.kl.max():.2g}, {sum(a != b for a, b in zip(*outcomes, strict=True))} other answers"
    print(f"{len(scores.kl):,} tokens, {len(items)} questions; {told}", flush=True)
    fails: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    alarms = 0
    for seed in range(args.runs):
        found = judged(asked, given, items, scores, outcomes, (first, second), seed)
        broken = [entry for entry in found if entry["verdict"] == "fail"]
        verdicts.update(entry["verdict"] for entry in found)
        fails.update(f"{entry['limit']} {entry['of']}" for entry in broken)
        alarms += bool(broken)
    print(table(["verdict", "limits"], [[verdict, f"{count:,}"] for verdict, count in verdicts.most_common()]))
    print(f"{alarms} alarms in {args.runs} runs: {dict(fails) or 'none'}")


class Threaded(TorchEngine):
    """An engine that computes with another number of threads."""

    threads = 2

    def logit_chunks(self, batch: Tensor, tokens_at_once: int) -> Iterator[Tensor]:
        torch.set_num_threads(self.threads)
        try:
            chunks = list(super().logit_chunks(batch, tokens_at_once))
        finally:
            torch.set_num_threads(1)
        yield from chunks

    def continue_ids(self, *args, **more):
        torch.set_num_threads(self.threads)
        try:
            return super().continue_ids(*args, **more)
        finally:
            torch.set_num_threads(1)


def judged(
    asked: Asked,
    given: Given,
    items: list[Item],
    scores: TokenScores,
    outcomes: tuple[list[Outcome], list[Outcome]],
    engines: tuple[TorchEngine, TorchEngine],
    seed: int,
) -> list[dict]:
    """The limits, judged on windows and questions drawn with replacement."""
    rng = np.random.default_rng(seed)
    windows = np.sort(rng.integers(len(given.windows), size=len(given.windows)))
    starts = np.searchsorted(scores.window, np.arange(len(given.windows) + 1))
    tokens = np.concatenate([np.arange(starts[one], starts[one + 1]) for one in windows])
    lengths = [starts[one + 1] - starts[one] for one in windows]
    fields = {name: getattr(scores, name)[tokens] for name in ("kl", "agree", "nll_original", "nll_lighter")}
    drawn = dataclasses.replace(
        scores,
        **fields,
        window=np.repeat(np.arange(len(windows)), lengths),
        collected={name: values[tokens] for name, values in scores.collected.items()},
    )
    some = dataclasses.replace(
        given,
        windows=[given.windows[one] for one in windows],
        clusters=[given.clusters[one] for one in windows],
        documents=[given.documents[one] for one in windows],
    )
    places = np.sort(rng.integers(len(items), size=len(items)))
    mine = [items[place] for place in places]
    rights = [[side[place] for place in places] for side in outcomes]
    case = Case(asked, some, mine, "causal")
    sides = Sides(*engines, by_token(drawn), rights)
    result = {
        "limits": resolve_limits(None, True, "predictions", ASPECTS),
        "divergence": summarize(drawn, some.clusters),
        "skills": compare_skills(mine, rights[0], rights[1], 0),
        "aspects": {name: KNOWN[name].measure(case, sides, ignore) for name in ASPECTS},
        "size": {"shrink": 1.0},
    }
    return judgements(result, identical=False)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--windows", type=int, default=96)
    parser.add_argument("--questions", type=int, default=30, help="of each skill")
    parser.add_argument("--threads", type=int, default=2, help="of the second model; the first has one")
    return parser.parse_args()


if __name__ == "__main__":
    main()
