"""Linears whose inputs spike, and which therefore keep them as they are (QFeM).

A scale reaches as far as the largest value that shares it, so one input far above the others leaves those few levels.
GLU models have such in few modules (Yang et al., "Mitigating quantization errors due to activation spikes in GLU-based
LLMs", arXiv 2405.14428). What that paper tells by the ratio of the largest value to the usual one is measured here
instead: the share of a module's outputs that rounding its inputs loses. Modules above several multiples of the median
share are tried without, and stay so where KL(original ‖ original with inputs rounded) on the verifying text, of at
least a thousandth of a nat, halves.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Linear
from whet.apply.agreement import agreement
from whet.apply.job import BATCH_TOKENS, Job
from whet.apply.ranges import Sampled, best_scale
from whet.checkpoint import write_json
from whet.events import OnEvent, Stage, note_event
from whet.messages import Message, first_of
from whet.text import batches
from whet.walk import BlockStep, RoundedInputs, Untouched, Walk

FILE = "spikes.json"
_TIMES = (100.0, 30.0, 10.0, 3.0)  # multiples of the median share from which modules are tried without, one by one
_WORTH = 1e-3  # nats a token that rounding all inputs has to lose for any of them to stay
_HALF, _NEAR = 0.5, 0.05  # what may be left of the KL, and which share of what the best set wins a smaller may miss
_TOKENS = 8192  # of text, at most, that a set is judged on
_LOOKED = 4096  # tokens that inputs are looked at on


@dataclasses.dataclass(frozen=True)
class Site:
    """An input of linears. addresses: those that read it. error: the share of their outputs that rounding it loses.
    channel, times: where its largest value is, and how many times the usual largest value of a channel that is."""

    addresses: list[str]
    error: float
    channel: int
    times: float
    scale: float | None = None


def with_spikes(job: Job, folder: Path, on_event: OnEvent) -> Job:
    """`job` with the inputs of linears that spike left as they are. folder: of the run, which keeps what was found."""
    if not job.inputs or not job.solve:
        return job
    file = folder / FILE
    if not file.is_file():
        write_json(file, _found(job, folder, on_event))
    found = json.loads(file.read_text(encoding="utf-8"))
    kept = {address for site in found["kept"] for address in site["addresses"]}
    if not kept:
        return job
    grids = {a: grid.with_inputs(None) if a in kept else grid for a, grid in job.grids.items()}
    note = Message(
        "{count} of {of} inputs spike and stay as they are: {names}. Rounding inputs alone costs {after:.4g} nats per "
        "token so, and {before:.4g} with these rounded too",
        count=len(found["kept"]),
        of=found["of"],
        names=first_of([_told(site) for site in found["kept"]], 4),
        after=found["after"],
        before=found["before"],
    )
    on_event(note_event(note))
    return dataclasses.replace(job, grids=grids, notes=(*job.notes, note))


def _told(site: Mapping[str, Any]) -> Message:
    return Message(
        "{address} (channel {channel} reaches {times:.0f} times the usual)",
        address=site["addresses"][0],
        channel=site["channel"],
        times=site["times"],
    )


def _found(job: Job, folder: Path, on_event: OnEvent) -> dict[str, Any]:
    """Sites that are `kept`, of how many (`of`), and what rounding inputs loses `before` and `after`."""
    sites = sorted(_looked(job, folder, on_event), key=lambda site: -site.error)
    whole: dict[str, Any] = {"kept": [], "of": len(sites), "before": None, "after": None}
    median = sites[len(sites) // 2].error
    counts = dict.fromkeys(sum(site.error > times * median for site in sites) for times in _TIMES)
    tried = [sites[:count] for count in counts if 0 < count <= len(sites) // 2]
    windows = _judging(job)
    if not tried or not windows:
        return whole
    stage = Stage(on_event, "score", len(tried) + 1)
    lost = list[float]()
    for kept in ([], *tried):
        lost.append(_lost(job, folder, sites, windows, kept))
        stage.step()
        if lost[0] < _WORTH:
            return whole
    best = min(lost)
    if best > _HALF * lost[0]:
        return whole
    at = next(i for i, one in enumerate(lost) if one <= best + _NEAR * (lost[0] - best))
    return whole | {"kept": [dataclasses.asdict(x) for x in tried[at - 1]], "before": lost[0], "after": lost[at]}


def _judging(job: Job) -> Sequence[Tensor]:
    """Windows that sets are judged on: verifying ones, or where there are none the last of those calibrated on."""
    taken, left = list[Tensor](), _TOKENS
    for window in job.verify or [*reversed(job.solve)][:4]:
        left -= len(window)
        if taken and left < 0:
            break
        taken.append(window)
    return taken


def _looked(job: Job, folder: Path, on_event: OnEvent) -> list[Site]:
    """Every input of the model that is to be rounded, on text calibrated on."""
    table = job.checkpoint.read(job.anatomy.embedding.parameter)
    taken, left = list[Tensor](), _LOOKED
    for window in job.solve:
        if taken and left < len(window):
            break
        left -= len(window)
        taken.append(window)
    walk = Walk(
        job.checkpoint, job.anatomy, batches(taken, BATCH_TOKENS), [], table, table, job.device, folder, job.compute
    )
    visitor = _Look(job, Stage(on_event, "score", len(job.anatomy.blocks)))
    walk.go(visitor)
    return visitor.sites


class _Look:
    """Visits every block, which stays as it is."""

    def __init__(self, job: Job, stage: Stage) -> None:
        self.job, self.stage = job, stage
        self.sites: list[Site] = []

    def visit(self, step: BlockStep) -> Mapping[str, Tensor]:
        """What rounding each input of a block loses, and where its largest value is."""
        linears = [x for x in step.linears if x.address in self.job.inputs]
        sampled = Sampled(step, linears, range(step.walk.solving))
        for reads, x in sampled.inputs.items():
            readers = [linear for linear in linears if linear.reads == reads]
            self.sites.append(self._site(step, readers, x, sampled.largest[reads]))
        self.stage.step(unit=f"block {step.index}")
        return {}

    def _site(self, step: BlockStep, readers: Sequence[Linear], x: Tensor, largest: float) -> Site:
        grid, scale = self.job.inputs[readers[0].address], None
        weights = torch.cat([step.weight(linear) for linear in readers])
        if grid.scale_part is not None:
            scale = best_scale(x, weights, grid, largest, self.job.dtype)[1].to(x.device)
        lost = ((x - grid.rounded(x, scale)) @ weights.t()).square().sum().item()
        size = (x @ weights.t()).square().sum().item()
        peaks = x.abs().amax(0)
        times = peaks.max() / peaks.median().clamp_min(1e-12)
        return Site(
            [linear.address for linear in readers],
            lost / size if size else 0.0,
            int(peaks.argmax()),
            times.item(),
            None if scale is None else float(scale),
        )


def _lost(job: Job, folder: Path, sites: Sequence[Site], windows: Sequence[Tensor], kept: Collection[Site]) -> float:
    """What rounding the inputs of all sites but those `kept` loses by itself: KL in nats a token, or of models without
    next tokens the relative squared error of what comes out of the last block."""
    left = [site for site in sites if site not in kept]
    inputs = RoundedInputs({a: job.inputs[a] for site in left for a in site.addresses})
    for site in left:
        dtype = torch.float32 if job.inputs[site.addresses[0]].group else job.dtype
        if site.scale is not None:
            scale = torch.tensor([site.scale], dtype=dtype, device=job.device)
            inputs.scales |= dict.fromkeys(site.addresses, scale)
    read, anatomy = job.checkpoint.read, job.anatomy
    table, taken = read(anatomy.embedding.parameter), batches(windows, BATCH_TOKENS)
    walk = Walk(job.checkpoint, anatomy, [], taken, table, table, job.device, folder, job.compute, inputs=inputs)
    walk.go(Untouched())
    if anatomy.task != "causal":
        return walk.drift[-1]
    head = read((anatomy.head or anatomy.embedding).parameter).to(job.device).float()
    return agreement(walk.skeleton, taken, walk.verified(), head, head).kl
