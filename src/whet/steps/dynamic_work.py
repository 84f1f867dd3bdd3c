"""The long part of the step `dynamic`: training, and what held-out text says of what was trained."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from whet.apply.run import Run
from whet.budget import tensor_bytes
from whet.checkpoint import load_model
from whet.engines.chooser import Chooser
from whet.engines.exits import Exits
from whet.events import Stage, Way, without_plan
from whet.measure.exiting import Left, calibrate, look
from whet.steps import dynamic_channels, dynamic_exits
from whet.steps.dynamic_plan import MODEL_SHARE, Plan
from whet.steps.tune_text import Batches, in_batches
from whet.train import Schedule, Settings, train

_WARM = 0.1  # share of the steps in which the rate rises
_WORTH = 64  # windows that tell what channels are worth whatever the prompt


class Work:
    """A model with what is trained beside it, or of it. `beside` is what is written beside the model."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.model: Any = load_model(plan.checkpoint.path, plan.dtype, plan.device).requires_grad_(False)
        self.beside: nn.Module
        with torch.random.fork_rng([]):
            torch.manual_seed(plan.seed)
            width = plan.parts.embedding.shape[1]
            if plan.kind == "channels":
                self.beside = Chooser(width, len(plan.parts.blocks), plan.channels)
            else:
                self.beside = Exits(width, plan.after)
        self.beside.to(plan.device)

    def done(self, run: Run, way: Way) -> tuple[dict[str, Any], dict[str, Any]]:
        """Train, leaving the best in the modules; the training's result, and what whet.json is to say."""
        return self._channels(run, way) if self.plan.kind == "channels" else self._exits(run, way)

    def tensors(self) -> dict[str, Tensor]:
        """What is written beside the model."""
        return {name: value.detach().cpu().contiguous() for name, value in self.beside.state_dict().items()}

    def _channels(self, run: Run, way: Way) -> tuple[dict[str, Any], dict[str, Any]]:
        plan = self.plan
        assert isinstance(self.beside, Chooser)
        teacher = None
        if plan.asked.joint:
            teacher = load_model(plan.checkpoint.path, plan.dtype, plan.device).requires_grad_(False)
        choosing = dynamic_channels.Choosing(self.model, self.beside, teacher)
        base = dynamic_channels.worth(choosing, plan.solve[:_WORTH])
        with torch.no_grad():
            self.beside.base.copy_(base)
        counts = list(plan.counts.values())
        if plan.asked.joint:
            self.model.requires_grad_(True)
            counts.append(plan.channels)  # so that the whole model stays near the original
        batches = dynamic_channels.Prompted(self._batches(), counts, plan.steps, plan.seed)
        judge = dynamic_channels.judge_of(choosing, plan.held["judge"], counts)
        result = self._trained(choosing.trained(), batches, choosing.loss, judge, run, way)
        self.model.requires_grad_(False)
        found = dynamic_channels.choices_lost(choosing, plan.held["report"], counts, base)
        sizes = [
            {"active": share, "channels": count, "bytes": self._active(count), **one}
            for (share, count), one in zip(plan.counts.items(), found, strict=False)
        ]
        said = {"kind": "channels", "joint": plan.asked.joint, "sizes": sizes}
        if plan.asked.joint:
            result["whole"] = {name: found[-1][name] for name in ("kl", "top1")}
        return result, said

    def _exits(self, run: Run, way: Way) -> tuple[dict[str, Any], dict[str, Any]]:
        plan = self.plan
        assert isinstance(self.beside, Exits) and plan.agreement is not None
        leaving = dynamic_exits.Leaving(self.model, self.beside)
        judge = dynamic_exits.judge_of(leaving, plan.held["judge"])
        result = self._trained(self.beside, self._batches(), leaving.loss, judge, run, way)
        batches = {name: len(in_batches(plan.held[name])) for name in ("calibrate", "report")}
        stage = Stage(way, "calibrate", sum(batches.values()))
        some = {name: leaving.windows(plan.held[name], stage.step) for name in batches}
        taken = calibrate(some["calibrate"], plan.agreement)
        report = look(some["report"], taken.threshold)
        said = {
            "kind": "exits",
            "after": list(plan.after),
            "threshold": taken.threshold,
            "target": plan.agreement,
            "calibrated": reads_of(plan, taken),
            "report": reads_of(plan, report),
        }
        return result, said

    def _active(self, count: int) -> int:
        """Bytes of the model's weights with so many channels, and of what chooses them."""
        plan = self.plan
        whole = tensor_bytes(plan.parts, plan.checkpoint.stored, {})["total"]
        gone = plan.channels - count
        cut = sum(
            gone * (x.shape[0] if x.role == "down" else x.shape[1]) * plan.checkpoint.stored[x.parameter].dtype.itemsize
            for x in plan.parts.linears()
            if x.role in ("gate", "up", "down")
        )
        return whole - cut + self.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of what is beside the model."""
        return sum(value.numel() * value.element_size() for value in self.beside.state_dict().values())

    def _batches(self) -> Batches:
        return Batches(self.plan.solve, self.plan.asked.batch, self.plan.seed)

    def _trained(self, module: nn.Module, batches: Any, loss: Any, judge: Any, run: Run, way: Way) -> dict[str, Any]:
        plan = self.plan
        warm = max(1, min(100, round(_WARM * plan.steps)))
        shares = {"model": MODEL_SHARE, "beside": 1.0}
        named = {name: "model" if name.startswith("model.") else "beside" for name, _ in module.named_parameters()}
        return train(
            module,
            batches,
            Schedule(plan.rate, plan.steps, warmup=warm, kind="cosine"),
            loss=loss,
            settings=Settings(weight_decay=0.0, seed=plan.seed, shares=shares),
            roles=named,
            folder=run.folder / "training",
            judge=judge,
            judge_every=plan.judged_every,
            on_event=without_plan(way),
        )


def reads_of(plan: Plan, left: Left) -> dict[str, Any]:
    """What a threshold does, as JSON: with `layers`, blocks that are read for a token, mean, and `reads`, the share of
    the bytes that the whole model reads for one, the head at every exit that is looked at counted."""
    parts, stored = plan.parts, plan.checkpoint.stored
    sizes = [sum(stored[name].nbytes for name in names) for names in parts.block_tensors]
    head = stored[(parts.head or parts.embedding).parameter].nbytes
    ends = [*plan.after, len(parts.blocks)]
    reach, layers, read = 1.0, 0.0, 0.0
    for start, end, share in zip((0, *ends), ends, left.shares, strict=False):
        layers += reach * (end - start)
        read += reach * (sum(sizes[start:end]) + head)
        reach -= share
    found = {name: value for name, value in dataclasses.asdict(left).items() if name != "threshold"}
    return {**found, "layers": layers, "of": len(parts.blocks), "reads": read / (sum(sizes) + head)}
