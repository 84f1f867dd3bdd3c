"""End-to-end tuning: scales and real zeros of every block trained on KL(original ‖ lighter) with the codes frozen.

What is trained on each block's own output need not be what the last one's predictions want. Here a step goes forward
through the whole lighter model, from the files that were just written, and back, a block at a time: what is kept is
the hidden states between blocks of one step, and for each scale its factor and Adam's two averages. As EfficientQAT's
second phase (Chen et al. 2024, arXiv 2407.11062), with the original's predictions for targets in place of the text.

A weight is a product of its scale and what its code stands for, so the one definition of its value, `decode`, gives the
gradient for every grid.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Piece
from whet.apply.job import Job
from whet.apply.shards import Shards, summed
from whet.checkpoint import read_header, read_tensor, write_tensors
from whet.checkpoint.modeling_whet import decode
from whet.events import Stage
from whet.train import JUDGES, Judge, adam, descend, in_pieces, steps_of, take_step, usual_steps
from whet.walk import Walk, placed
from whet.walk.skeleton import hooked

# Steps at most; share that a scale moves in a step at first. KL of the embedded model on 2 bits, with 65,536 tokens:
# 0.0330 after 100 steps, 0.0314 after 300. (Of little text each is seen 25 times at most, which is fewer steps.)
TUNING_STEPS, _RATE = 200, 1e-3
_LOGITS = 1 << 24  # logits looked at together
_TRAINED = ("weight_scale", "weight_offset")


def tuned_file(run: Path) -> Path:
    """Where what was trained is kept until every block has it."""
    return run / "tuned.safetensors"


def tuned_tensors(run: Path) -> dict[str, Tensor]:
    """What `tune` wrote, by stored name."""
    return {name: read_tensor(info) for name, info in read_header(tuned_file(run)).items()}


def tune(
    job: Job,
    shards: Shards,
    walk: Walk,
    batches: Sequence[Tensor],
    judges: Sequence[Tensor],
    lighter: Tensor | None,
    head: Tensor | None,
) -> None:
    """Train, and write into the folder of the run what blocks are to have instead of what they have.

    walk: at its end, with the original stream on `batches`, which are trained on, and after them on `judges`, which
    tell whether that helped (without them some of the others do): where not, by more than its standard error, nothing
    is to be changed. lighter, head: the lighter embedding and head, None where they are the original's.
    """
    tuning = _Tuning(job, shards, walk, lighter, head)
    if not tuning.factors:  # plain floats, or scales that stay as they are
        write_tensors(tuned_file(shards.run), {})
        return
    sizes = [tokens.numel() for tokens in batches]
    steps = usual_steps(sum(sizes), TUNING_STEPS)
    stage = Stage(shards.on_event, "tune", steps)
    optimizer = adam([(list(tuning.factors.values()), _RATE)])
    judging = dict(enumerate(judges, len(batches)) if judges else enumerate(batches[:JUDGES]))

    def step(number: int, taken: list[int]) -> None:
        optimizer.zero_grad()
        tuning.back({batch: batches[batch] for batch in taken})
        take_step(optimizer, number / steps)
        stage.step()

    judge = Judge[dict[str, Tensor]](lambda: tuning.measured(judging), tuning.stored, {}, {steps})
    descend(steps_of(sizes, steps, job.seed), step, judge)
    write_tensors(tuned_file(shards.run), judge.kept()[0])


class _Tuning:
    """The lighter model as its files have it, with a factor for everything in them that is trained."""

    def __init__(self, job: Job, shards: Shards, walk: Walk, lighter: Tensor | None, head: Tensor | None) -> None:
        self.job, self.shards, self.walk, self.skeleton = job, shards, walk, walk.skeleton
        parts, read = job.anatomy, job.checkpoint.read
        self.table = read(parts.embedding.parameter) if lighter is None else lighter
        self.first = read((parts.head or parts.embedding).parameter).to(job.device, torch.float32)
        self.second = self.first if head is None else head.to(job.device, torch.float32)
        self.norm = self.skeleton.load_norm()
        self.compute = job.compute
        self.pieces: list[list[Piece]] = []
        self.factors: dict[str, Tensor] = {}
        for index, linears in enumerate(job.anatomy.blocks):
            mine = {linear.address for linear in job.chosen(linears)}
            self.pieces.append([piece for piece in job.pieces if piece.linears[0].address in mine])
            for name, tensor in self._trained(index).items():
                self.factors[name] = torch.ones_like(tensor, dtype=torch.float32).requires_grad_()

    def _read(self, index: int) -> dict[str, Tensor]:
        """The stored tensors of the linears of block `index` that have scales."""
        stored = read_header(self.shards.file_of(f"block {index}"))
        names = [
            name
            for piece in self.pieces[index]
            if f"{piece.address}.weight_scale" in stored
            for name in stored
            if name.rpartition(".")[0] == piece.address
        ]
        return {name: read_tensor(stored[name]).to(self.job.device) for name in names}

    def _trained(self, index: int) -> dict[str, Tensor]:
        """What of that is trained. Powers of two are too coarse, and what rows share may be in other linears too."""
        rows = {p.address: self.job.grids[p.linears[0].address].rows for p in self.pieces[index]}
        return {
            name: tensor
            for name, tensor in self._read(index).items()
            if name.endswith(_TRAINED) and tensor.is_floating_point() and rows[name.rpartition(".")[0]] == 1
        }

    def weights(self, index: int) -> dict[str, Tensor]:
        """The weights of block `index` by address, float32; gradients reach the factors."""
        stored = self._read(index)
        fixed = [piece for piece in self.pieces[index] if f"{piece.address}.weight_scale" not in stored]
        # what repairs add to those that are fixed is in the shards' weights already
        found = self.shards.weights(f"block {index}", [linear for piece in fixed for linear in piece.linears])
        added = self.shards.added(index)
        for piece in self.pieces[index]:
            parts = {n.rpartition(".")[2]: t for n, t in stored.items() if n.rpartition(".")[0] == piece.address}
            if not parts:
                continue
            for part in _TRAINED:
                if (name := f"{piece.address}.{part}") in self.factors:
                    exact = parts[part].float() * self.factors[name]  # and rounded to its type straight through
                    parts[part] = exact + (_stored(exact, parts[part].dtype).float() - exact).detach()
            entry = self.job.grids[piece.linears[0].address].table_entry("float32")
            whole = decode(parts, entry, torch.float32)
            rows = whole.split([linear.shape[0] for linear in piece.linears])
            found |= summed({x.address: part for x, part in zip(piece.linears, rows, strict=True)}, added)
        return found

    def stored(self) -> dict[str, Tensor]:
        """What was trained, as it is to be stored."""
        found: dict[str, Tensor] = {}
        with torch.no_grad():
            for index in range(len(self.pieces)):
                for name, tensor in self._trained(index).items():
                    found[name] = _stored(tensor.float() * self.factors[name], tensor.dtype).cpu()
        return found

    def measured(self, batches: Mapping[int, Tensor]) -> Tensor:
        """KL(original ‖ lighter) of pieces of batches that the walk holds under these numbers, summed over tokens."""
        states = self._forward(batches, keep=False)[0]
        return torch.cat([in_pieces(self._head(n, tokens, states[n][-1])[0]) for n, tokens in batches.items()])

    def back(self, batches: Mapping[int, Tensor]) -> None:
        """Add the gradient of some batches to the factors'; each block is brought in once for all of them."""
        states, calls = self._forward(batches)
        gradients = {n: self._head(n, tokens, states[n].pop())[1] for n, tokens in batches.items()}
        for index in reversed(range(len(self.pieces))):
            with torch.enable_grad(), self._block(index) as run:
                given = {n: some.pop().requires_grad_() for n, some in states.items()}
                outs = [run(x, calls[n][index]) for n, x in given.items()]
                torch.autograd.backward(outs, list(gradients.values()))
            gradients = {n: x.grad for n, x in given.items() if x.grad is not None}

    def _forward(
        self, batches: Mapping[int, Tensor], keep: bool = True
    ) -> tuple[dict[int, list[Tensor]], dict[int, list[Any]]]:
        """By number the hidden states before each block (if they are to be kept) and after the last, and every block's
        other arguments."""
        states: dict[int, list[Tensor]] = {}
        calls: dict[int, list[Any]] = {}
        with torch.no_grad():
            with self.skeleton.embedding(self.table):
                for n, tokens in batches.items():
                    hidden, calls[n] = self.skeleton.enter(tokens)
                    states[n] = [hidden]
            for index in range(len(self.pieces)):
                with self._block(index) as run:
                    for n, some in states.items():
                        some.append(run(some[-1], calls[n][index]))
                        if not keep:
                            del some[:-1]
        return states, calls

    @contextlib.contextmanager
    def _block(self, index: int) -> Iterator[Callable[[Tensor, Any], Tensor]]:
        """Block `index` with its lighter weights, as a function of hidden states and other arguments."""
        linears = self.job.anatomy.blocks[index]
        module = self.skeleton.load_block(index)
        parameters = placed(linears, self.weights(index), module, self.job.anatomy.block_prefix(index))
        with hooked(self.walk.inputs.listening(module, linears, self.job.anatomy.block_prefix(index))):
            yield lambda hidden, call: self.skeleton.run(module, hidden, call, self.compute, parameters)
        self.skeleton.free_block(index)

    def _head(self, number: int, tokens: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """The KL of every token of one batch `[b, L - 1]`, and the gradient of their sum in the last hidden states."""
        x = last.detach().requires_grad_()
        with torch.enable_grad():
            normed = self.norm(x)
        gradient, lost = torch.zeros_like(normed), normed.new_zeros(len(tokens), tokens.shape[1] - 1)
        with torch.no_grad():
            original = self.norm(self.walk.original[number])
            step = max(1, _LOGITS // len(self.second))
            for row in range(len(tokens)):
                for start in range(0, tokens.shape[1] - 1, step):
                    span = slice(start, min(start + step, tokens.shape[1] - 1))
                    before = self.skeleton.cap(original[row, span] @ self.first.t()).log_softmax(-1)
                    logits = self.skeleton.cap(normed[row, span] @ self.second.t())
                    after = logits.log_softmax(-1)
                    lost[row, span] = (before.exp() * (before - after)).sum(-1)
                    error = after.exp() - before.exp()
                    if self.skeleton.bound is not None:
                        error *= 1 - (logits / self.skeleton.bound).square()
                    gradient[row, span] = error @ self.second
        normed.backward(gradient)
        assert x.grad is not None
        return lost, x.grad


def _stored(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest of the type, its ends where it holds no more: a float8 would be no number there."""
    ends = torch.finfo(dtype)
    return exact.detach().clamp(ends.min, ends.max).to(dtype)
