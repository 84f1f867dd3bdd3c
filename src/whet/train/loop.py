"""The training loop: a model, a function from step to batch, a schedule, a folder to resume from.

Batches are asked for by step number, so a resumed run sees exactly the batches it would have seen, and its weights end
bit for bit where an undisturbed run's end (same machine kind, same thread count). Weights, gradients and optimiser
state are in the model's type (fp32 for training from nothing); with `autocast` the matrix products run in bfloat16.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whet.errors import MachineError, UsageError
from whet.events import OnEvent, ignore
from whet.train.muon import Muon
from whet.train.steps import descend

Batch = dict[str, Tensor]
STATE_FILE = "training-state.pt"


@dataclass(frozen=True)
class Schedule:
    """Learning rate over a run: linear warm-up to `peak`, then `cosine` down to `floor * peak`, or `wsd`: steady, then
    linear down over the last `decay` share of the steps."""

    peak: float
    steps: int
    warmup: int = 100
    kind: str = "wsd"
    decay: float = 0.4
    floor: float = 0.0

    def __call__(self, step: int) -> float:
        """Learning rate of `step` (0 is the first)."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if self.kind == "cosine":
            along = (step - self.warmup) / max(1, self.steps - self.warmup)
            share = 0.5 * (1 + math.cos(math.pi * min(1.0, along)))
        elif self.kind == "wsd":
            share = min(1.0, (self.steps - step) / max(1.0, self.decay * self.steps))
        else:
            raise UsageError("schedule kind {kind!r} is not known. Use cosine or wsd.", kind=self.kind)
        return self.peak * (self.floor + (1 - self.floor) * share)


def token_loss(model: Any, batch: Batch) -> Tensor:
    """Weighted mean cross-entropy of the next token, for causal models of transformers.

    `batch`: `input_ids [rows, tokens + 1]` and `weights [rows, tokens]`, the weight of each predicted token. The head,
    a quarter of a small model's work, only runs where the weight is not 0.
    """
    ids, weights = batch["input_ids"], batch["weights"]
    hidden = model.base_model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    counted = weights > 0
    logits = model.get_output_embeddings()(hidden[counted])
    losses = F.cross_entropy(logits.float(), ids[:, 1:][counted], reduction="none")
    return (losses * weights[counted]).sum() / weights.sum()


def needed_bytes(model: nn.Module) -> int:
    """Memory that lasts through training: weights, gradients and two states a weight (activations come on top)."""
    return sum(param.numel() * param.element_size() * 4 for param in model.parameters() if param.requires_grad)


def _optimizers(model: nn.Module, muon: bool, weight_decay: float) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the matrices inside the blocks and AdamW for embedding, head and vectors."""
    trained = [(name, param) for name, param in model.named_parameters() if param.requires_grad]
    inside = [param for name, param in trained if param.ndim == 2 and "embed" not in name and "lm_head" not in name]
    chosen = {id(param) for param in inside} if muon else set()
    rest = [param for _, param in trained if id(param) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
                {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=0.0,
            betas=(0.9, 0.98),
            eps=1e-10,
        )
    ]
    if chosen:
        optimizers.append(Muon(inside, weight_decay=weight_decay))
    return optimizers


def _keep_freed_memory() -> None:
    """Asks glibc not to hand freed activations back to the system after every operation.

    Without it each large tensor is mapped and faulted in anew: silu of 2 M numbers took 8.0 ms instead of 1.2 ms.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
        mallopt(-2, 1 << 28)  # M_TOP_PAD


def _save(path: Path, state: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise MachineError(
            "{path}: the training state cannot be written ({error}). Free some disk space or choose another folder, "
            "then resume.",
            path=path,
            error=error.strerror,
        ) from error


@dataclass(frozen=True)
class _Kept:
    """What is kept of a training in `folder` (nowhere if None), to go on from; `fingerprint` tells whose it is."""

    folder: Path | None
    fingerprint: str
    model: nn.Module
    optimizers: list[torch.optim.Optimizer]

    def taken_up(self) -> tuple[int, float]:
        """Take up what is there; the steps that were taken, and the seconds they took."""
        if self.folder is None:
            return 0, 0.0
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / STATE_FILE
        if not file.exists():
            return 0, 0.0
        state = torch.load(file, weights_only=True)
        if state["fingerprint"] != self.fingerprint:
            raise UsageError(
                "{file} was saved by training with another model, schedule or settings. Use another folder, or delete "
                "it to start again.",
                file=file,
            )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        return state["step"], state["seconds"]

    def save(self, step: int, seconds: float) -> None:
        """Keep the state after so many steps."""
        if self.folder is not None:
            state = {"fingerprint": self.fingerprint, "model": self.model.state_dict(), "step": step}
            state |= {"seconds": seconds, "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}
            _save(self.folder / STATE_FILE, state)


def _update(optimizers: Sequence[torch.optim.Optimizer], rate: float, adam_share: float) -> None:
    """A step by the gradients as they are, which are let go then; adam_share: of the rate, for AdamW."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * (1.0 if isinstance(optimizer, Muon) else adam_share)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _finite(loss: float, step: int, schedule: Schedule) -> float:
    """`loss` of a step. Raises UsageError where it is no number."""
    if not math.isfinite(loss):
        raise UsageError(
            "the loss of step {step} is {loss}, so training stops before the weights are ruined. Lower the "
            "learning rate (peak {peak:g}) and start again.",
            step=step,
            loss=loss,
            peak=schedule.peak,
        )
    return loss


def train(
    model: nn.Module,
    batches: Callable[[int], Batch],
    schedule: Schedule,
    *,
    folder: Path | None = None,
    loss: Callable[[nn.Module, Batch], Tensor] = token_loss,
    muon: bool = False,
    adam_share: Callable[[int], float] = lambda step: 1.0,
    weight_decay: float = 0.01,
    clip: float = 1.0,
    autocast: bool = False,
    save_seconds: float = 180.0,
    stop_after: int | None = None,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """Trains `model` in place for `schedule.steps` steps and returns `{steps, loss, seconds}`.

    Args:
        model: in its training type, already on its device.
        batches: the batch of a step, a function of the step alone.
        schedule: learning rate; `schedule.steps` is the length of the run.
        folder: where the state is saved (atomically, every `save_seconds`); if it holds one, the run goes on from it.
        loss: scalar of `(model, batch)`.
        muon: matrices inside the blocks are trained by Muon, the rest by AdamW.
        adam_share: AdamW's learning rate at a step as a share of the schedule's.
        weight_decay: decoupled; none on vectors.
        clip: gradients are scaled down to this norm.
        autocast: bfloat16 matrix products.
        stop_after: ends the call early after this many of the run's steps, state saved; for runs in pieces.
        on_event: told the memory needed (`plan`), then `progress` with loss and time left.

    Raises:
        UsageError: the loss is not finite; the saved state belongs to another model or schedule.
        MachineError: the state cannot be written.
    """
    _keep_freed_memory()
    optimizers = _optimizers(model, muon, weight_decay)
    about = "weights, gradients and optimiser state in bytes; activations come on top"
    on_event({"event": "plan", "steps": schedule.steps, "memory": needed_bytes(model), "note": about})
    shapes = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    kept = _Kept(folder, repr((schedule, muon, weight_decay, clip, autocast, shapes)), model, optimizers)
    first, before = kept.taken_up()
    started = saved_at = time.monotonic()

    def elapsed() -> float:
        return time.monotonic() - started

    model.train()
    device, value = next(model.parameters()).device, math.nan
    last = min(schedule.steps, stop_after or schedule.steps)

    def step(number: int, given: Batch) -> None:
        nonlocal value, saved_at
        batch = {name: tensor.to(device) for name, tensor in given.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            result = loss(model, batch)
        value = _finite(result.item(), number, schedule)
        result.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        _update(optimizers, schedule(number), adam_share(number))
        done = number + 1
        left = elapsed() / (done - first) * (schedule.steps - done)
        progress = {"event": "progress", "stage": "train", "done": done, "of": schedule.steps, "loss": value}
        on_event({**progress, "tokens": batch["input_ids"].numel(), "seconds_left": left})
        if time.monotonic() - saved_at > save_seconds and done < last:
            kept.save(done, before + elapsed())
            saved_at = time.monotonic()

    descend(map(batches, range(first, last)), step, first=first)
    if first < last:
        kept.save(last, before + elapsed())
    model.eval()
    return {"steps": last, "loss": value, "seconds": before + elapsed()}
