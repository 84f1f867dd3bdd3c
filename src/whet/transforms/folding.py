"""The tensors of a block while a transform is folded into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Group, Linear
from whet.apply.job import Job


def double_device(device: str) -> str:
    """Where products in float64 are computed: on the device if it is a CUDA one, as others have no such type."""
    return device if torch.device(device).type == "cuda" else "cpu"


@dataclass(frozen=True)
class Fold:
    """What is folded into a group, factors `[in]` or a basis `[head, head]`, float64, and what is told of it."""

    told: dict[str, Any]
    factors: Tensor | None = None
    basis: Tensor | None = None


class Held:
    """The tensors of a block, in float64 once they are changed."""

    def __init__(self, job: Job, types: Mapping[str, torch.dtype], names: Sequence[str]) -> None:
        self.device = job.device
        self.tensors = {name: job.checkpoint.read(name) for name in names}
        self.types = {name: types.get(name, tensor.dtype) for name, tensor in self.tensors.items()}
        self.changed: set[str] = set()

    def weight(self, linear: Linear) -> Tensor:
        """The weights `[out, in]` as they are by now, float32 on the device."""
        return linear.view(self.tensors[linear.parameter]).to(self.device, torch.float32)

    def exact(self, name: str) -> Tensor:
        """A tensor to be changed in place, float64."""
        if name not in self.changed:
            self.changed.add(name)
            self.tensors[name] = self.tensors[name].double()
        return self.tensors[name]

    def finished(self) -> dict[str, Tensor]:
        """All as they are written; what was not changed has the type it had."""
        return {
            name: tensor.to(self.types[name]) if name in self.changed else tensor
            for name, tensor in self.tensors.items()
        }

    def take(self, group: Group, fold: Fold) -> None:
        """Fold into a group what was found for it."""
        if fold.factors is not None:
            self.scale(group, fold.factors)
        if fold.basis is not None:
            self.rotate(group, fold.basis)

    def scale(self, group: Group, columns: Tensor) -> None:
        """Fold factors `[in]`, float64, into a group."""
        factors = torch.ones(group.given, dtype=torch.float64)
        factors[group.source()] = columns
        self._scale_readers(group, columns)
        if group.giver is not None:
            group.giver.view(self.exact(group.giver.parameter)).div_(factors[:, None])
        for place, (name, rows) in enumerate(group.vectors):
            adds = group.adds if place == 0 else 0.0
            self.exact(name)[slice(*rows) if rows else slice(None)].add_(adds).div_(factors).sub_(adds)

    def _scale_readers(self, group: Group, columns: Tensor) -> None:
        for linear in group.readers:
            linear.view(self.exact(linear.parameter)).mul_(columns)
        for name in group.kept:
            self.exact(name).mul_(columns)

    def rotate(self, group: Group, basis: Tensor) -> None:
        """Turn each head of a group by `basis [head, head]`, float64."""
        size = len(basis)
        for linear in group.readers:
            w = linear.view(self.exact(linear.parameter))
            w.copy_((w.reshape(len(w), -1, size) @ basis).reshape(w.shape))
        assert group.giver is not None
        w = group.giver.view(self.exact(group.giver.parameter))
        w.copy_((basis.t() @ w.reshape(-1, size, w.shape[1])).reshape(w.shape))
        for name, rows in group.vectors:
            vector = self.exact(name)[slice(*rows) if rows else slice(None)]
            vector.copy_((vector.reshape(-1, size) @ basis).reshape(vector.shape))

    def fold_norm(self, group: Group) -> None:
        """Move the weights of the norm that gives a group's channels into all that reads it."""
        ((name, _),) = group.vectors
        norm = self.exact(name)
        self._scale_readers(group, norm + group.adds)
        norm.fill_(1 - group.adds)

    def turn_inputs(self, group: Group, basis: Tensor) -> None:
        """Turn all channels that a norm gives to a group, by `basis [in, in]`, float64."""
        matrices = [linear.view(self.exact(linear.parameter)) for linear in group.readers]
        for w in (*matrices, *map(self.exact, group.kept)):
            w.copy_(self._product(w, basis))

    def turn_outputs(self, linears: Sequence[Linear], biases: Sequence[str], basis: Tensor) -> None:
        """Turn what linears with `biases` (stored names) give, by `basis [out, out]`, float64."""
        for linear in linears:
            w = linear.view(self.exact(linear.parameter))
            w.copy_(self._product(w.t(), basis).t())
        for name in biases:
            vector = self.exact(name)
            vector.copy_(vector @ basis)

    def _product(self, w: Tensor, basis: Tensor) -> Tensor:
        place = double_device(self.device)
        return (w.to(place) @ basis.to(place)).to(w.device)

    def settle(self, group: Group, columns: Tensor) -> Tensor:
        """The factors `[in]`, float64, nearest to `columns [in]` that every tensor of a group holds in its type."""
        source = torch.tensor(group.source())
        factors = torch.zeros(group.given, dtype=torch.float64)
        factors.index_add_(0, source, columns.cpu().double().log()).div_(group.heads[1]).exp_()
        given = () if group.giver is None else (group.giver,)
        matrices = [*(x.parameter for x in (*group.readers, *given)), *group.kept]
        narrow = [name for name in (*matrices, *(name for name, _ in group.vectors)) if self.types[name].itemsize < 4]
        if len(narrow) == len(group.vectors) == 1:
            (name, rows), adds = group.vectors[0], group.adds
            value = self.tensors[name][slice(*rows) if rows else slice(None)].double() + adds
            stored = (value / factors - adds).to(self.types[name]).double() + adds
            usable = (value != 0) & (stored != 0) & torch.isfinite(stored)
            factors = torch.where(usable, value / torch.where(usable, stored, 1.0), 1.0)
        elif narrow:
            factors = factors.log2().round().exp2()
        return factors[source]
