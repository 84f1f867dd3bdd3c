"""The training loop: a model, a function from step to batches, a loss, a schedule, a folder to resume from.

Batches are asked for by step number, and what is drawn at random in a step (dropout) by its number too, so a resumed
run sees exactly what it would have seen, and its weights end bit for bit where an undisturbed run's end (same machine
kind, same thread count). Weights, gradients and optimiser state are in the model's type (fp32 for training from
nothing); with `autocast` the matrix products run in bfloat16.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whet.errors import UsageError
from whet.events import OnEvent, ignore, note_event
from whet.messages import Message
from whet.train.groups import make_optimizers, roles_by_shape, roles_of, set_rates, trained
from whet.train.ranks import Alone, Losing, Together
from whet.train.schedule import Schedule
from whet.train.state import BEST_FILE, GOOD_FILE, START_FILE, STATE_FILE, Kept, Metrics, put_back, weights
from whet.train.steps import Judge, noise
from whet.train.trackers import Tracker
from whet.train.watch import Watch

Batch = dict[str, Tensor]
Loss = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]
_VERSION = 3  # of the files that are kept
_REWINDS = 4  # times that a run goes back, each at half the rate


@dataclass(frozen=True)
class Settings:
    """How the weights are moved.

    muon: matrices of the blocks are trained by Muon, the rest by AdamW. adam_share: AdamW's rate at a step as a share
    of the schedule's. shares: of the rate, by role (`whet.train.groups`). weight_decay: decoupled; none on vectors.
    clip: gradients are scaled down to this norm. autocast: bfloat16 matrix products. checkpointing: blocks are computed
    again in the backward pass, which holds the inputs of one block at a time (a third more time). seed: of dropout.
    """

    muon: bool = False
    adam_share: Callable[[int], float] | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    weight_decay: float = 0.01
    clip: float = 1.0
    autocast: bool = False
    checkpointing: bool = False
    seed: int = 0


def token_loss(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the next token for causal models of transformers: its weighted sum, and the sum of the weights.

    `batch`: `input_ids [rows, tokens + 1]` and `weights [rows, tokens]`, the weight of each predicted token. The head,
    a quarter of a small model's work, only runs where the weight is not 0.
    """
    ids, weights = batch["input_ids"], batch["weights"]
    hidden = model.base_model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    counted = weights > 0
    logits = model.get_output_embeddings()(hidden[counted])
    losses = F.cross_entropy(logits.float(), ids[:, 1:][counted], reduction="none")
    return (losses * weights[counted]).sum(), weights.sum()


def needed_bytes(model: nn.Module) -> int:
    """Memory that lasts through training: weights, and for those that are trained a gradient and two states
    (activations come on top)."""
    every = sum(param.numel() * param.element_size() for param in model.parameters())
    return every + 3 * sum(param.numel() * param.element_size() for param in trained(model).values())


def train(
    model: nn.Module,
    batches: Callable[[int], Batch | Sequence[Batch]],
    schedule: Schedule,
    *,
    loss: Loss = token_loss,
    settings: Settings = Settings(),
    roles: Mapping[str, str] | None = None,
    folder: Path | None = None,
    accelerator: Any | None = None,
    judge: Callable[[nn.Module], Tensor] | None = None,
    judge_every: int = 100,
    good_every: int = 200,
    save_seconds: float = 180.0,
    stop_after: int | None = None,
    watch: Watch | None = None,
    tracker: Tracker | None = None,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """Trains the parameters of `model` that ask for a gradient, in place, for `schedule.steps` steps.

    Args:
        model: in its training type, already on its device.
        batches: the batch of a step, or several whose gradients are added up; a function of the step alone.
        schedule: learning rate; `schedule.steps` is the length of the run.
        loss: of `(model, batch)` the sum of the losses and what it is the sum over, scalars. A step goes by the sum of
            all its batches over the count of all.
        roles: of the parameters, for `settings.muon` and `settings.shares`; read off the model's anatomy where needed.
        folder: where states and metrics are saved (`whet.train.state`); if it holds a state, the run goes on from it.
        accelerator: an `accelerate.Accelerator`, where several processes train together. Each has the whole model and
            takes its share of a step's batches; they end as one process that takes all. The first of them writes and
            tells.
        judge: held-out losses of the model, one for each piece of text, `[n]`. The model ends as it was where their sum
            was least, if that is better than at the start by more than its standard error, and else as it started.
        judge_every: steps after which it is asked, and after the last.
        good_every: steps after which a state is kept to go back to where a loss or a gradient is not finite. The run
            goes on from there at half the rate, four times at most.
        save_seconds: after which the state is saved.
        stop_after: ends the call early after this many of the run's steps, state saved; for runs in pieces.
        watch: told by `batches` what a model writes that learns from its own text. Where that collapses, the run ends
            with the best weights so far, or without a judge with the last good ones.
        tracker: told every line of metrics too.
        on_event: told the memory needed (`plan`), then `progress` with loss and time left.

    Returns `{steps, loss, seconds, rewinds}`, `collapsed` where it ended for that, and with a judge and
    all steps done `held_out`: `start`, `best`, `error` (the standard error of what was gained), `step`, `helped`,
    `curve` (pairs of step and loss).

    Raises:
        UsageError: the loss is not finite, rate lowered or not; the saved state belongs to another model or schedule.
        MachineError: a state cannot be written.
    """
    ranks = Alone() if accelerator is None else Together(accelerator)
    run = _Run(model, batches, schedule, loss, settings, roles, folder, ranks, watch, on_event)
    run.metrics.tracker = tracker if ranks.first else None
    run.judged_by(judge, judge_every)
    with _prepared(model, settings):
        run.go(min(schedule.steps, stop_after or schedule.steps), good_every, save_seconds)
    return run.result()


@contextlib.contextmanager
def _prepared(model: Any, settings: Settings) -> Iterator[None]:
    """The model as it trains; afterwards as it is used."""
    _keep_freed_memory()
    if settings.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    try:
        model.train()
        yield
    finally:
        model.eval()
        if settings.checkpointing:
            model.activation_checkpointing_disable()


def _keep_freed_memory() -> None:
    """Asks glibc not to hand freed activations back to the system after every operation.

    Without it each large tensor is mapped and faulted in anew: silu of 2 M numbers took 8.0 ms instead of 1.2 ms.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
        mallopt(-2, 1 << 28)  # M_TOP_PAD


class _Run:
    """A training under way."""

    def __init__(
        self,
        model: nn.Module,
        batches: Callable[[int], Batch | Sequence[Batch]],
        schedule: Schedule,
        loss: Loss,
        settings: Settings,
        roles: Mapping[str, str] | None,
        folder: Path | None,
        ranks: Alone,
        watch: Watch | None,
        on_event: OnEvent,
    ) -> None:
        self.model, self.batches, self.schedule, self.ranks = model, batches, schedule, ranks
        self.settings, self.on_event = settings, on_event if ranks.first else ignore
        self.losing = ranks.wrapped(Losing(model, loss))
        if roles is None:
            roles = roles_of(model) if settings.muon or settings.shares else roles_by_shape(model)
        made = settings
        self.optimizers = make_optimizers(model, roles, made.shares, made.muon, made.weight_decay)
        about = "weights, gradients and optimiser state in bytes; activations come on top"
        self.on_event({"event": "plan", "steps": schedule.steps, "memory": needed_bytes(model), "note": about})
        shapes = [(name, tuple(param.shape)) for name, param in trained(model).items()]
        plain = (made.muon, dict(made.shares), made.weight_decay, made.clip, made.autocast, made.seed)
        self.kept = Kept(folder, repr((_VERSION, schedule, plain, shapes)), ranks)
        self.metrics = Metrics(folder if ranks.first else None)
        self.done, self.before, self.lowered, self.rewinds, self.good = 0, 0.0, 1.0, 0, 0
        self.value = math.nan
        self.watch, self.collapsed = watch or Watch(), False
        self.curve: list[list[float]] = []  # held-out loss by step
        self.judge: Judge[int] | None = None
        self.device = next(model.parameters()).device
        self.started = time.monotonic()
        if (state := self.kept.read(STATE_FILE)) is not None:
            self._take_up(state)
        else:
            self.kept.write(START_FILE, {"weights": weights(model)})
        self.metrics.go_on(self.done)
        self.first = self.done

    def judged_by(self, losses: Callable[[nn.Module], Tensor] | None, every: int) -> None:
        """Have the best kept."""
        if losses is None:
            return
        steps = self.schedule.steps
        state = self.kept.read(STATE_FILE)

        def look() -> Tensor:
            self.model.eval()
            with torch.no_grad():
                found = losses(self.model).double().cpu()
            self.model.train()
            self.metrics.write(step=self.done, held_out=found.mean().item(), error=noise(found))
            self.curve.append([self.done, found.mean().item()])
            return found

        def best() -> int:
            self.kept.write(BEST_FILE, {"weights": weights(self.model)})
            return self.done

        first = None if state is None else state["judged"]["first"]
        self.judge = Judge(look, best, 0, {*range(every, steps, every), steps}, first)
        if state is not None:
            self.judge.found, self.judge.best = state["judged"]["found"], state["judged"]["best"]

    def go(self, last: int, good_every: int, save_seconds: float) -> None:
        """Take the steps up to `last`."""
        saved = time.monotonic()
        while self.done < last:
            if not self._step(self.batches(self.done)):
                self._rewind()
                continue
            if self.judge is not None:
                self.judge.look(self.done)
            if (message := self.watch.collapsed(self.done)) is not None:
                self._collapse(message)
                break
            if self.done % good_every == 0 and self.done < self.schedule.steps:
                self.good = self.done
                self.kept.write(GOOD_FILE, self._state())
                self.kept.also(GOOD_FILE, STATE_FILE)
                saved = time.monotonic()
            elif self.done == last or self.ranks.any(time.monotonic() - saved > save_seconds):
                self.kept.write(STATE_FILE, self._state())
                saved = time.monotonic()
        if self.judge is not None and (self.collapsed or self.done == self.schedule.steps):
            helped = self.judge.helped and self.judge.best
            kept = self.kept.read(BEST_FILE if helped else START_FILE)
            assert kept is not None
            put_back(self.model, kept["weights"])

    def result(self) -> dict[str, Any]:
        """What `train` returns."""
        found = {"steps": self.done, "loss": self.value, "seconds": self._seconds(), "rewinds": self.rewinds}
        if self.collapsed:
            found["collapsed"] = self.done
        if self.judge is None or (self.done < self.schedule.steps and not self.collapsed):
            return found
        first, best = self.judge.first, self.judge.found
        held_out = {"start": first.mean().item(), "best": best.mean().item(), "error": noise(first - best)}
        looked = {"step": self.judge.best, "helped": self.judge.helped, "curve": self.curve}
        return {**found, "held_out": {**held_out, **looked}}

    def _step(self, given: Batch | Sequence[Batch]) -> bool:
        """Take one step; False, with the weights as they were, where something of it is not finite."""
        some = [given] if isinstance(given, dict) else list(given)
        rate = self.schedule(self.done) * self.lowered
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.settings.seed + self.done)
            self.value, norm = self._gradients(self.ranks.mine(some))
        finite = math.isfinite(self.value) and math.isfinite(norm)
        if finite:
            share = self.settings.adam_share
            set_rates(self.optimizers, rate, 1.0 if share is None else share(self.done))
            for optimizer in self.optimizers:
                optimizer.step()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        if not finite:
            return False
        self.done += 1
        tokens = sum(batch["input_ids"].numel() for batch in some if "input_ids" in batch)
        taken = {"loss": self.value, "tokens": tokens}
        told = self.watch.told()
        self.metrics.write(step=self.done, **taken, rate=rate, norm=norm, seconds=self._seconds(), **told)
        left = (time.monotonic() - self.started) / (self.done - self.first) * (self.schedule.steps - self.done)
        whole = {"done": self.done, "of": self.schedule.steps, "whole": self.done / self.schedule.steps}
        self.on_event({"event": "progress", "stage": "train", **whole, **taken, "seconds_left": left})
        return True

    def _gradients(self, some: Sequence[Batch]) -> tuple[float, float]:
        """Leave the gradients of a step in the parameters; the loss, and their norm before they are clipped."""
        total, count, by = 0.0, 0.0, 1.0
        for number, given in enumerate(some):
            batch = {name: tensor.to(self.device) for name, tensor in given.items()}
            last = number == len(some) - 1
            with contextlib.nullcontext() if last else self.ranks.apart(self.losing):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.autocast):
                    found, mine = self.losing(batch)
                count += float(mine)
                if number == 0:  # so that gradients are of the size they end with
                    by = self.ranks.sum(float(mine))[0] / self.ranks.count or 1.0
                result = found / by
                total += float(result.detach())
                if not math.isfinite(total) and self.ranks.count == 1:  # others wait for this one's gradients
                    return total, math.nan
                result.backward()  # type: ignore[no-untyped-call]
        total, count = self.ranks.sum(total, count)
        if count == 0:
            raise UsageError("step {step}: no token of its text counts. Give other text.", step=self.done)
        params = list(trained(self.model).values())
        if count != (averaged := by * self.ranks.count):
            for param in params:
                if param.grad is not None:
                    param.grad.mul_(averaged / count)
        return total * by / count, float(torch.nn.utils.clip_grad_norm_(params, self.settings.clip))

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    def _state(self) -> dict[str, Any]:
        """All that a run goes on from."""
        found = {"step": self.done, "seconds": self._seconds(), "lowered": self.lowered, "rewinds": self.rewinds}
        judged: dict[str, Any] = {}
        if self.judge is not None:
            judged = {"first": self.judge.first, "found": self.judge.found, "best": self.judge.best}
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        seen = {"good": self.good, "watched": self.watch.state(), "curve": self.curve}
        return {**found, **seen, "weights": weights(self.model), "judged": judged, "optimizers": optimizers}

    def _take_up(self, state: Mapping[str, Any]) -> None:
        put_back(self.model, state["weights"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.done, self.before, self.good = state["step"], state["seconds"], state["good"]
        self.lowered, self.rewinds = state["lowered"], state["rewinds"]
        self.watch.take_up(state["watched"])
        self.curve = [list(point) for point in state["curve"]]

    def _collapse(self, message: Message) -> None:
        """End here, with the weights as they last were good; a judge has better ones."""
        self.collapsed = True
        kept = self.kept.read(GOOD_FILE) if self.good else self.kept.read(START_FILE)
        assert kept is not None
        put_back(self.model, kept["weights"])
        self.metrics.write(step=self.done, collapsed=True)
        self.on_event(note_event(message))

    def _rewind(self) -> None:
        """Go back to the last good state, at half the rate. Raises UsageError where that cannot help."""
        if self.done == self.good or self.rewinds == _REWINDS:
            raise UsageError(
                "the loss of step {step} is {loss}, so training stops before the weights are ruined. Lower the "
                "learning rate (peak {peak:g}) and start again.",
                step=self.done,
                loss=self.value,
                peak=self.schedule.peak,
            )
        lowered, rewinds, failed = self.lowered / 2, self.rewinds + 1, self.done
        seconds = self._seconds()
        if (state := self.kept.read(GOOD_FILE) if self.good else None) is not None:
            self._take_up(state)
        else:
            start = self.kept.read(START_FILE)
            assert start is not None
            put_back(self.model, start["weights"])
            for optimizer in self.optimizers:
                optimizer.state.clear()
            self.done = 0
        self.lowered, self.rewinds, self.before = lowered, rewinds, seconds
        self.started, self.first = time.monotonic(), self.done
        self.metrics.write(step=self.done, rewound_from=failed, lowered=lowered)
        self.kept.write(STATE_FILE, self._state())
        message = Message(
            "the loss or its gradient was not finite after {failed} steps: training goes on from step {step}, at "
            "{share:.0%} of the learning rate",
            failed=failed,
            step=self.done,
            share=lowered,
        )
        self.on_event(note_event(message))
