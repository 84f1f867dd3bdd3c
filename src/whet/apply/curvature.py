"""What errors of each block's output cost, measured before a run that trains blocks, and kept beside its journal."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from whet.apply.job import Job
from whet.checkpoint import read_header, read_tensor, write_tensors
from whet.events import OnEvent
from whet.scores import TEXT, Curvature
from whet.text import batches
from whet.walk import GradientWalk, Sample

SLOPE_TOKENS = 8192  # whose slopes are taken; hidden states of all blocks are kept for them
_BATCH = 2048  # tokens; a block's activations of one batch are in memory together


def measure_curvature(job: Job, run: Path, on_event: OnEvent) -> None:
    """Write the metric of every block's output into the folder `run`, unless a stopped run already did."""
    count = len(job.anatomy.blocks)
    if all(_file(run, index).is_file() for index in range(count)):
        return
    windows, taken = [], 0
    for window in job.solve:
        if taken and taken + len(window) > SLOPE_TOKENS:
            break
        windows.append(window)
        taken += len(window)
    samples = [Sample.of_text(batch, f"{TEXT}solve") for batch in batches(windows, _BATCH)]
    compute = job.compute
    seed = job.seed
    walk = GradientWalk(job.checkpoint, job.anatomy, job.device, compute, run, seed)
    walk.go(
        samples,
        Curvature(lambda index, metric: write_tensors(_file(run, index), {"metric": metric.cpu()})),
        walk.stage(1, on_event, "curvature"),
    )


def metric_of(run: Path, index: int) -> Tensor:
    """The metric `[hidden, hidden]` of block `index`, float32."""
    return read_tensor(read_header(_file(run, index))["metric"])


def _file(run: Path, index: int) -> Path:
    return run / f"curvature-{index:05d}.safetensors"
