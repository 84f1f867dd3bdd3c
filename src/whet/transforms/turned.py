"""A checkpoint whose residual stream is turned by one basis: what is read of it computes what the original does.

Nothing is written. A tensor is turned when it is read, in float64, and comes in float32. Norms' weights go into what
reads them and are 1 afterwards, so the stream's directions may be cut like channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from whet.anatomy import Anatomy, stream
from whet.checkpoint import Checkpoint


class Turned(Checkpoint):
    """`whole`, a checkpoint of `parts` with a head of its own, turned by `basis [hidden, hidden]`, orthonormal,
    float64: a state x of the stream is x basis here."""

    def __init__(self, whole: Checkpoint, parts: Anatomy, basis: Tensor) -> None:
        vars(self).update(vars(whole))
        self.basis, self.adds = basis, parts.family.norm_adds
        assert parts.head is not None
        last = next(name for name in parts.other_tensors if parts.name(name) == f"{parts.family.norm}.weight")
        self._norms = {last}
        # by stored name: the norm whose weights it takes, and whether it is stored [in, out]
        self._readers: dict[str, tuple[str, bool]] = {parts.head.parameter: (last, False)}
        self._writers: dict[str, bool] = {parts.embedding.parameter: True}
        for index in range(len(parts.blocks)):
            touched = stream(parts, index)
            for group in touched.read:
                ((norm, _),) = group.vectors
                self._norms.add(norm)
                self._readers |= {x.parameter: (norm, x.transposed) for x in group.readers}
            self._writers |= {x.parameter: x.transposed for x in touched.writers}

    def read(self, name: str) -> Tensor:
        """One tensor as it is once the stream is turned."""
        if name in self._norms:
            return torch.full(self.tensors[name].shape, 1 - self.adds, dtype=torch.float32)
        found = super().read(name)
        if name in self._readers:
            norm, transposed = self._readers[name]
            scale = super().read(norm).double() + self.adds
            w = found.double().t() if transposed else found.double()
            w = (w * scale) @ self.basis
        elif name in self._writers:
            transposed = self._writers[name]
            w = found.double().t() if transposed else found.double()
            w = self.basis.t() @ w
        else:
            return found
        return (w.t() if transposed else w).float().contiguous()
