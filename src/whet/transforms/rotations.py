"""The residual stream turned as a whole: where that can be, by which rotations, and what is outside the blocks.

What a norm gives has first to be what its root mean square leaves, with nothing weighed: the norm's weights go into the
linears that read it, those of the last norm into the head, which is therefore a tensor of its own
(`whet.steps.original`). Then the embedding's rows and whatever is added to the stream are turned by one basis, and
all that reads it by the same. Rotations have names: `stream`, and those of heads the name of their group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from whet.anatomy import Group, stream
from whet.apply.job import Job
from whet.budget import tables, tensor_bytes
from whet.checkpoint import read_header, read_tensor, write_tensors
from whet.errors import UsageError
from whet.events import OnEvent, Stage
from whet.messages import Message
from whet.quantize import LEARNING_STEPS, Turned, pivots, random_hadamard, spinquant
from whet.transforms.folding import double_device
from whet.walk import Journal, SecondMoments

STREAM = "stream"
LEARNED = "rotations"
_ROWS = 8192  # of an embedding or head that are in float64 at once

Rotations = Mapping[str, Tensor]


def check_turning(job: Job) -> list[Message]:
    """Notes where the head is parted from the embedding. Raises UsageError where the stream cannot be turned."""
    parts, kind = job.anatomy, job.transform
    why = parts.family.still
    if not why and parts.unnamed:
        why = Message("no table names {names}, which may read it", names=", ".join(parts.unnamed[:3]))
    if why:
        raise UsageError(
            "--transform {kind} turns the residual stream, which the family {family} does not allow: {why}. Take "
            "another transform: awq, smooth, rotate or auto.",
            kind=kind,
            family=parts.family.title,
            why=why,
        )
    if not any(linear.address in job.grids for linear in parts.linears()):
        raise UsageError(
            "--transform {kind} has nothing to help: no linear of the blocks is rounded. Leave it out.", kind=kind
        )
    head = parts.head
    assert head is not None  # `part` has seen to it
    if not job.parted:
        return []
    if job.scheme is None and job.plan is None:
        takes = Message("counts in the budget")
    else:
        stored = {head.parameter: job.checkpoint.tensors[head.parameter]}
        takes = Message("takes {size:,} bytes more", size=tensor_bytes(parts, stored, job.grids)["head"])
    return [
        Message(
            "the head is stored apart from the embedding, to which config.json ties it, and {takes}: the last norm's "
            "weights are folded into it",
            takes=takes,
        )
    ]


def seed_of(job: Job, index: int, number: int) -> int:
    """The seed of a rotation of block `index`, its own, so that it does not matter what an earlier run had done."""
    return int(job.seed) * 1_000_003 + index * 1009 + number


def random_rotations(job: Job, heads: Sequence[Sequence[Group]]) -> dict[str, Tensor]:
    """Random Hadamard matrices, float64: of the stream where that is turned, and of `heads`, the groups by block."""
    found = {}
    if job.folding.stream:
        found[STREAM] = random_hadamard(job.anatomy.embedding.shape[1], seed_of(job, 0, 1_000_000))
    return found | {
        group.name: random_hadamard(group.given // group.heads[0], seed_of(job, index, number))
        for index, groups in enumerate(heads)
        for number, group in enumerate(groups)
    }


def moments_file(folder: Path, index: int) -> Path:
    """Where what is known of the inputs of block `index` lies while rotations are learned."""
    return folder / f"moments-{index:05d}.safetensors"


def keep_moments(
    job: Job, folder: Path, journal: Journal, index: int, moments: SecondMoments, heads: Sequence[Group]
) -> None:
    """Write what rotations of block `index` are learned from: second moments of inputs that are turned, of the others
    what an error costs in each column."""
    turns = _columns(job, index, heads)
    found = {}
    for linear in job.chosen(job.anatomy.blocks[index]):
        if linear.reads not in found:
            h = moments.steady(linear.reads).cpu()
            found[linear.reads] = h if linear.address in turns else pivots(h.double()).float()
    write_tensors(moments_file(folder, index), found)
    journal.record(f"moments {index}", moments_file(folder, index))


def moment_bytes(job: Job) -> int:
    """Bytes of these files, at most."""
    if not job.folding.learned:
        return 0
    inputs = {(i, x.reads): x.shape[1] for i, block in enumerate(job.anatomy.blocks) for x in job.chosen(block)}
    return 4 * sum(width**2 for width in inputs.values())


def learned(
    job: Job, folder: Path, journal: Journal, heads: Sequence[Sequence[Group]], on_event: OnEvent
) -> dict[str, Tensor]:
    """Rotations as `spinquant` learns them from the moments that were kept, or as an earlier run did."""
    file = folder / f"{LEARNED}.safetensors"
    if not journal.finished(LEARNED, folder):
        start = random_rotations(job, heads)
        found = spinquant(
            lambda index: _turned(job, folder, index, heads[index]),
            len(job.anatomy.blocks),
            {name: basis.to(double_device(job.device)) for name, basis in start.items()},
            job.seed,
            on_step=Stage(on_event, "learn", LEARNING_STEPS).step,
        )
        write_tensors(file, {name: basis.cpu().contiguous() for name, basis in found.items()})
        journal.record(LEARNED, file)
    return {name: read_tensor(info) for name, info in read_header(file).items()}


def _columns(job: Job, index: int, heads: Sequence[Group]) -> dict[str, str]:
    """By address, the name of the rotation of a linear's inputs in block `index`, where these are turned."""
    touched = stream(job.anatomy, index)
    found = {linear.address: STREAM for group in touched.read for linear in group.readers}
    return found | {linear.address: group.name for group in heads for linear in group.readers}


def _turned(job: Job, folder: Path, index: int, heads: Sequence[Group]) -> list[Turned]:
    """The linears of block `index` that are rounded, between the rotations they are turned by."""
    checkpoint = job.checkpoint
    touched = stream(job.anatomy, index)
    columns = _columns(job, index, heads)
    rows = {linear.address: STREAM for linear in touched.writers}
    rows |= {group.giver.address: group.name for group in heads if group.giver is not None}
    place = double_device(job.device)
    norms = {
        linear.address: checkpoint.read(group.vectors[0][0]).to(place, torch.float64) + group.adds
        for group in touched.read
        for linear in group.readers
    }
    stored = read_header(moments_file(folder, index))
    moments = {name: read_tensor(info).to(place, torch.float64) for name, info in stored.items()}
    tensors: dict[str, Tensor] = {}
    found = []
    for linear in job.chosen(job.anatomy.blocks[index]):
        if linear.parameter not in tensors:
            tensors[linear.parameter] = checkpoint.read(linear.parameter).to(place, torch.float64)
        w, h = linear.view(tensors[linear.parameter]), moments[linear.reads]
        if (norm := norms.get(linear.address)) is not None:
            inverse = torch.where(norm != 0, 1 / norm, 0.0)  # of a channel that nothing is read of nothing is known
            w, h = w * norm, h * inverse[:, None] * inverse
        address = linear.address
        found.append(Turned(w, h, job.grids[address], rows.get(address), columns.get(address)))
    return found


def turned_rest(job: Job, names: list[str], types: Mapping[str, torch.dtype], basis: Tensor) -> dict[str, Tensor]:
    """Tensors `names` outside the blocks once the stream is turned by `basis`: embedding, last norm and head change."""
    parts, checkpoint = job.anatomy, job.checkpoint
    tensors = {name: checkpoint.read(name) for name in names}
    norm = next(name for name in names if parts.name(name) == f"{parts.family.norm}.weight")
    weights = tensors[norm].double() + parts.family.norm_adds
    tensors[norm] = torch.full_like(tensors[norm], 1 - parts.family.norm_adds)
    for table in tables(parts):
        before = tensors[table.parameter]
        after = torch.empty(before.shape, dtype=types[table.parameter])
        own = basis if table.role == "embedding" else weights[:, None] * basis
        for start in range(0, len(before), _ROWS):
            after[start : start + _ROWS] = before[start : start + _ROWS].double() @ own
        tensors[table.parameter] = after
    return tensors
