"""The original with its residual stream turned, so that its last directions matter least: what `hidden` is cut from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from whet.apply.job import Job
from whet.apply.narrow import StreamMoments, normed
from whet.checkpoint import read_header, read_tensor, write_tensors
from whet.events import OnEvent, Stage
from whet.steps.original import open_original
from whet.targets import find_target
from whet.transforms.turned import Turned
from whet.walk import BlockStep, Walk

BASIS = "basis.safetensors"


def turned(job: Job, folder: Path, batches: Sequence[Tensor], tell: OnEvent) -> Job:
    """`job` about the turned original, whose head is a tensor of its own. folder: of the run, where the basis is kept.

    The basis are the principal components of what the norms give their readers, over all norms together: each state
    over its root mean square, as readers see it, and not centred, as readers do not centre it (SliceGPT, Ashkboos et
    al. 2024, arXiv 2401.15024, with one basis for all blocks, so that none has to be undone between them).
    """
    # that few bits are to be decoded was asked for when the job was
    opened = open_original(job.checkpoint.path, find_target("transformers"), dequantize=True, turned=True)
    plain = dataclasses.replace(job, checkpoint=opened.checkpoint, anatomy=opened.parts, parted=opened.parted)
    file = folder / BASIS
    if not file.is_file():
        write_tensors(file, {"basis": _basis(plain, folder, batches, tell)})
    basis = read_tensor(read_header(file)["basis"])
    checkpoint = Turned(opened.checkpoint, opened.parts, basis)
    return dataclasses.replace(plain, checkpoint=checkpoint, source=job.checkpoint)


def _basis(job: Job, folder: Path, batches: Sequence[Tensor], tell: OnEvent) -> Tensor:
    parts, checkpoint = job.anatomy, job.checkpoint
    stage = Stage(tell, "turn", len(parts.blocks))
    found = _Told(parts.embedding.shape[1], stage)
    table = checkpoint.read(parts.embedding.parameter)
    walk = Walk(checkpoint, parts, batches, [], table, table, job.device, folder)
    walk.go(found)
    for batch in range(len(batches)):
        found.total += normed(walk.lighter[batch])
    return torch.linalg.eigh(found.total).eigenvectors.flip(1).contiguous()


class _Told(StreamMoments):
    """Tells of every block it was in."""

    def __init__(self, width: int, stage: Stage) -> None:
        super().__init__(width)
        self.stage = stage

    def visit(self, step: BlockStep) -> dict[str, Tensor]:
        super().visit(step)
        self.stage.step()
        return {}


def head_of(job: Job) -> Tensor:
    """The table `[vocabulary, hidden]` that gives logits."""
    parts, checkpoint = job.anatomy, job.checkpoint
    return checkpoint.read((parts.head or parts.embedding).parameter)
