"""The walk in reverse: what every linear's output means to the model's own predictions, with bounded memory.

Forward, block by block, only the hidden states between blocks are kept; backward, each block is brought in once more,
run again with its graph, and handed its gradient. One block and its activations are in memory at a time.

The gradient is of the logits times noise of covariance diag(p) − p pᵀ at every counted position, p the model's own
prediction: E[g gᵀ] is then the Fisher information, the curvature of KL(original ‖ changed) at zero change, so
½ E[(g·δ)²] is the KL that a change δ of an output will cost (Martens, "New insights and perspectives on the natural
gradient method", 2020, arXiv 1412.1193, §5). With the text's own tokens it is not, and no labels are needed this way.
Labels drawn from p have the same covariance, but where the model is sure a rare one outweighs all others: on the
embedded model two seeds gave sums of 0.108 and 0.028 for one scheme, with Gaussian noise 0.030 and 0.035.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from whet.anatomy import Anatomy, Linear
from whet.checkpoint import Checkpoint
from whet.errors import UsageError
from whet.events import OnEvent, Stage, ignore
from whet.messages import Message
from whet.walk.hidden import HiddenStates
from whet.walk.products import Product, Products
from whet.walk.skeleton import Call, Skeleton, give_back, hooked

_LOGITS = 1 << 24  # logits looked at together


@dataclass(frozen=True)
class Sample:
    """Tokens that go through the model together: int64 `[b, L]`, rows may be padded on the right.

    real: bool `[b, L]`, False on padding. counted: bool `[b, L]`, True where the prediction made at a position counts.
    name: what the visitor knows the sample by.
    """

    tokens: Tensor
    real: Tensor
    counted: Tensor
    name: str = ""

    @classmethod
    def of_text(cls, tokens: Tensor, name: str = "") -> Sample:
        """A sample in which every position is real, and counts if there is a next one, as where KL is measured."""
        every = torch.ones_like(tokens, dtype=torch.bool)
        counted = every.clone()
        counted[:, -1] = False
        return cls(tokens, every, counted, name)


@dataclass
class Flow:
    """One sample in one block: hidden states `[b, L, hidden]` before and after it, the `slope` of what comes after,
    inputs by what they are called in the family's table, outputs and gradients by address, `[b, L, width]`, in the type
    the block computes in. Of an expert they are `[n, width]`, of the tokens that were sent to it, whose places among
    all `b · L` are in `sent [n]` by input; an expert that was sent none is in none of them."""

    sample: Sample
    before: Tensor
    after: Tensor
    slope: Tensor
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    sent: dict[str, Tensor] = field(default_factory=dict)


class GradientVisitor(Protocol):
    """What is done at the head, at every block from the last to the first, and at the embedding."""

    def head(self, sample: Sample, hidden: Tensor, chance: Tensor, slope: Tensor | None, position: slice) -> None:
        """Final hidden states `[n, hidden]` and predictions `[n, vocabulary]` of some counted positions.

        slope: `[n, vocabulary]`, how much of a change of what the head computes reaches the logits; None: all of it.
        """

    def flow(self, index: int, linears: list[Linear], flow: Flow) -> None:
        """One sample at one block."""

    def leave(self, index: int, linears: list[Linear], module: nn.Module, prefix: str) -> None:
        """Every sample was at block `index`; its original weights, float32, are in `module` for the last time."""

    def embedding(self, sample: Sample, gradient: Tensor) -> None:
        """The gradient `[b, L, hidden]` of what the embedding gives."""


class GradientWalk:
    """Sends samples through the model and their gradients back.

    compute: type that products inside blocks and the head are computed in; hidden states and gradients between blocks
    are float32. folder: where hidden states are spilled when there are too many. seed: of the noise.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        anatomy: Anatomy,
        device: str,
        compute: torch.dtype = torch.float32,
        folder: Path | None = None,
        seed: int = 0,
    ) -> None:
        refuse_unscored(anatomy)
        self.skeleton = Skeleton(checkpoint, anatomy, device)
        if _has_experts(anatomy):
            # one after another, so that every product is seen; a kernel for all at once hides them
            self.skeleton.model.set_experts_implementation("eager")
        self.checkpoint, self.anatomy, self.compute, self.folder = checkpoint, anatomy, compute, folder
        self.chance = torch.Generator(device).manual_seed(seed)

    def stage(self, passes: int, on_event: OnEvent, name: str = "score") -> Stage:
        """Progress of so many calls of `go`."""
        return Stage(on_event, name, passes * (2 * len(self.anatomy.blocks) + 1))

    def go(self, samples: Sequence[Sample], visitor: GradientVisitor, stage: Stage | None = None) -> None:
        """Forward and back through every block. Raises UsageError where hidden states are not finite."""
        skeleton, anatomy = self.skeleton, self.anatomy
        count = len(anatomy.blocks)
        stage = stage or self.stage(1, ignore)
        table = self.checkpoint.read(anatomy.embedding.parameter)
        calls: dict[tuple[int, ...], list[Call]] = {}
        states = HiddenStates.empty(
            [(*sample.tokens.shape, table.shape[1]) for _ in range(count + 1) for sample in samples],
            self.folder,
            skeleton.device,
        )

        def place(block: int, number: int) -> int:
            return block * len(samples) + number

        with skeleton.embedding(table):
            for number, sample in enumerate(samples):
                hidden, arguments = skeleton.enter(sample.tokens)
                calls.setdefault(tuple(sample.tokens.shape), arguments)
                states.update(place(0, number), hidden)
        for index in range(count):
            module = skeleton.load_block(index)
            with torch.no_grad():
                for number, sample in enumerate(samples):
                    call = calls[tuple(sample.tokens.shape)][index]
                    after = skeleton.run(module, states[place(index, number)], call, self.compute)
                    states.update(place(index + 1, number), after)
            skeleton.free_block(index)
            stage.step(unit=f"block {index} forward")
        weights = (table if anatomy.head is None else self.checkpoint.read(anatomy.head.parameter)).to(skeleton.device)
        norm = skeleton.load_norm()
        for number, sample in enumerate(samples):
            last = states[place(count, number)]
            if not torch.isfinite(last).all():
                raise UsageError(
                    "{folder}: hidden states after the last block are NaN or infinite on this text. The weights are "
                    "damaged or the config is not their own. Download the model again.",
                    folder=self.checkpoint.path,
                )
            states.update(place(count, number), self._from_head(norm, weights, last, sample, visitor))
        stage.step(unit="head")
        del weights
        for index in reversed(range(count)):
            module = skeleton.load_block(index)
            linears = anatomy.blocks[index]
            prefix = anatomy.block_prefix(index)
            for number, sample in enumerate(samples):
                # the gradient of a block's output lies where the output itself was
                gradient = states[place(index + 1, number)]
                call = calls[tuple(sample.tokens.shape)][index]
                flow, before = self._back(module, linears, prefix, states[place(index, number)], gradient, call, sample)
                visitor.flow(index, linears, flow)
                states.update(place(index, number), before)
                states.drop(place(index + 1, number))
            give_back()
            visitor.leave(index, linears, module, prefix)
            skeleton.free_block(index)
            stage.step(unit=f"block {index} backward")
        scale = skeleton.scale()
        for number, sample in enumerate(samples):
            visitor.embedding(sample, states[place(0, number)] * scale)

    def _from_head(
        self, norm: nn.Module, weights: Tensor, last: Tensor, sample: Sample, visitor: GradientVisitor
    ) -> Tensor:
        """The gradient of what the last block gives; rows of vocabulary width exist for a few positions at a time."""
        x = last.detach().clone().requires_grad_()
        with torch.enable_grad():
            normed = norm(x)
        gradient = torch.zeros_like(normed)
        with torch.no_grad():
            counted = sample.counted.to(x.device).nonzero()
            step = max(1, _LOGITS // len(weights))
            table = weights.to(self.compute)
            for start in range(0, len(counted), step):
                rows, columns = counted[start : start + step].unbind(1)
                hidden = normed[rows, columns].float()
                logits = self.skeleton.cap((hidden.to(self.compute) @ table.t()).float())
                chance = logits.softmax(-1)
                noise = chance.sqrt() * torch.empty_like(chance).normal_(generator=self.chance)
                bound = self.skeleton.bound
                slope = None if bound is None else 1 - (logits / bound).square()
                visitor.head(sample, hidden, chance, slope, slice(start, start + len(rows)))
                error = noise - chance * noise.sum(1, keepdim=True)
                if slope is not None:
                    error *= slope
                gradient[rows, columns] = (error.to(self.compute) @ table).to(gradient.dtype)
        normed.backward(gradient)
        assert x.grad is not None
        return x.grad

    def _back(
        self,
        module: nn.Module,
        linears: list[Linear],
        prefix: str,
        hidden: Tensor,
        gradient: Tensor,
        call: Call,
        sample: Sample,
    ) -> tuple[Flow, Tensor]:
        x = hidden.detach().clone().requires_grad_()
        flow = Flow(sample, hidden, hidden, gradient)
        dense = [linear for linear in linears if linear.held.expert is None]
        experts = [linear for linear in linears if linear.held.expert is not None]
        listening = _listening(module, dense, prefix, flow), _listening_to_experts(module, experts, prefix, flow)
        with torch.enable_grad(), listening[0], listening[1]:
            out = self.skeleton.run(module, x, call, self.compute)
            flow.after = out.detach()
            out.backward(gradient.to(out.dtype))
        assert x.grad is not None
        return flow, x.grad


def refuse_unscored(anatomy: Anatomy) -> None:
    """Raises UsageError for a model whose parts cannot be scored."""
    if (why := _not_scored(anatomy)) is not None:
        title = anatomy.family.title or anatomy.model_type
        raise UsageError(
            "{family} cannot be scored, so there is no planning by budget for it: {why}. Give one scheme for all of "
            "it (whet compress --scheme W4A16), or a plan of your own (--plan).",
            family=title,
            why=why,
        )


def not_followed(anatomy: Anatomy) -> Message | None:
    """Why gradients of a model are followed by nothing but scores, or not at all; None where they can be."""
    if _has_experts(anatomy):
        return Message("what an expert is worth depends on which tokens are sent to it, and only budgets measure that")
    return _not_scored(anatomy)


def _not_scored(anatomy: Anatomy) -> Message | None:
    """Why the parts of a model cannot be scored; None where they can."""
    if anatomy.family.found and _has_experts(anatomy):
        return Message("its experts were found by running it, and which tokens are sent to them is not told by a table")
    if not anatomy.family.known:
        return Message("no table says what its parts are")
    if anatomy.task != "causal":
        return Message("scoring follows predictions of the next token, which it does not make")
    return None


def _has_experts(anatomy: Anatomy) -> bool:
    return any(linear.held.expert is not None for linear in anatomy.linears())


@contextmanager
def _listening(module: nn.Module, linears: list[Linear], prefix: str, flow: Flow) -> Iterator[None]:
    """Puts inputs, outputs and gradients of the linears into `flow` while the block runs forward and back."""

    def hook(linear: Linear):  # type: ignore[no-untyped-def]
        rows = slice(*(linear.held.rows or (None, None)))

        def take(gradient: Tensor) -> None:
            flow.gradients[linear.address] = shaped(gradient)[..., rows]

        def hear(_module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            flow.inputs.setdefault(linear.reads, shaped(args[0].detach()))
            flow.outputs[linear.address] = shaped(out.detach())[..., rows]
            out.register_hook(take)

        return hear

    def shaped(x: Tensor) -> Tensor:
        """`[b, L, width]`, which some blocks flatten."""
        return x.reshape(*flow.before.shape[:2], -1)

    handles = [
        module.get_submodule(linear.held.parameter.removeprefix(prefix).rpartition(".")[0]).register_forward_hook(
            hook(linear)
        )
        for linear in linears
    ]
    with hooked(handles):
        yield


@contextmanager
def _listening_to_experts(module: nn.Module, linears: list[Linear], prefix: str, flow: Flow) -> Iterator[None]:
    """The same of the linears of experts, which are run one after another on the tokens that are sent to each."""
    by_matrix: dict[tuple[str, int], list[Linear]] = {}
    for linear in linears:
        assert linear.held.expert is not None
        key = linear.held.parameter.removeprefix(prefix), linear.held.expert
        by_matrix.setdefault(key, []).append(linear)
    sent: dict[int, Tensor] = {}

    def route(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        chosen = (*args, *kwargs.values())[1]
        # `[tokens, choices]`; transformers goes through the tokens choice by choice
        sent.update({expert: (chosen == expert).t().nonzero()[:, 1] for _, expert in by_matrix})

    def hear(product: Product) -> None:
        mine = by_matrix[product.name, product.expert]
        assert len(product.x) == len(sent[product.expert]), "an expert was given other tokens than were sent to it"
        for linear in mine:
            rows = slice(*(linear.held.rows or (None, None)))
            flow.sent[linear.reads] = sent[product.expert]
            flow.inputs[linear.reads] = product.x.detach()
            flow.outputs[linear.address] = product.out.detach()[:, rows]

        def take(gradient: Tensor) -> None:
            for linear in mine:
                flow.gradients[linear.address] = gradient[:, slice(*(linear.held.rows or (None, None)))]

        product.out.register_hook(take)

    stacks = {name: module.get_parameter(name) for name, _ in by_matrix}
    owners = {name.rpartition(".")[0] for name in stacks}
    handles = [module.get_submodule(owner).register_forward_pre_hook(route, with_kwargs=True) for owner in owners]
    with hooked(handles), Products(stacks, hear):
        yield
    heard = [linear.reads in flow.sent for linear in linears if len(sent[linear.held.expert])]  # type: ignore[index]
    assert all(heard), "experts were multiplied out of sight"
