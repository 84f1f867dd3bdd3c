"""How many outliers each block has among the weights that get masks, found on a walk before the one that makes them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from whet.apply.job import Job
from whet.checkpoint import write_json
from whet.events import OnEvent, Stage
from whet.pruning import wanda
from whet.pruning.outliers import OUTLIER, OWL, Counted, shares_by_outliers
from whet.text import batches
from whet.walk import BlockStep, Walk

FILE = "outliers.json"


def with_shares(job: Job, folder: Path, on_event: OnEvent) -> Job:
    """`job` with the share that each linear loses, where blocks do not all lose the same. folder: of the run, which
    keeps what was counted."""
    rule = job.sparsity
    if rule is None or rule.allocation != OWL or rule.pattern is None:
        return job
    file = folder / FILE
    if not file.is_file():
        write_json(file, _counted(job, folder, on_event))
    counted = {int(index): Counted(**one) for index, one in json.loads(file.read_text(encoding="utf-8")).items()}
    by_block = zip(counted, shares_by_outliers(list(counted.values()), rule.pattern.share), strict=True)
    shares = {x.address: share for index, share in by_block for x in job.chosen(job.anatomy.blocks[index])}
    return dataclasses.replace(job, sparsity=dataclasses.replace(rule, shares=shares))


def _counted(job: Job, folder: Path, on_event: OnEvent) -> dict[str, dict[str, int]]:
    table = job.checkpoint.read(job.anatomy.embedding.parameter)
    solve = batches(job.solve, job.batch)
    walk = Walk(job.checkpoint, job.anatomy, solve, [], table, table, job.device, folder, job.compute)
    visitor = _Outliers(job, Stage(on_event, "score", len(job.anatomy.blocks)))
    walk.go(visitor)
    return {str(index): dataclasses.asdict(one) for index, one in visitor.found.items()}


class _Outliers:
    """Visits every block, which stays as it is; `found` are those with linears that get masks."""

    def __init__(self, job: Job, stage: Stage) -> None:
        self.job, self.stage = job, stage
        self.found: dict[int, Counted] = {}

    def visit(self, step: BlockStep) -> Mapping[str, Tensor]:
        """Counts the weights of a block, and those whose |w| √E[x²] is several times the mean of the block's."""
        linears = self.job.chosen(step.linears)
        if linears:
            moments = dataclasses.replace(step, linears=linears).second_moments()
            seen = {reads: moments.take(reads)[0] for reads in dict.fromkeys(x.reads for x in linears)}
            weights = sum(x.shape[0] * x.shape[1] for x in linears)
            every = [(x, seen[x.reads]) for x in linears]
            mean = sum(wanda(step.weight(x), h).double().sum().item() for x, h in every) / weights
            above = (wanda(step.weight(x), h) > torch.tensor(OUTLIER * mean) for x, h in every)
            self.found[step.index] = Counted(weights, sum(int(one.sum()) for one in above))
        self.stage.step(unit=f"block {step.index}")
        return {}
