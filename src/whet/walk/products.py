"""Who multiplies with stacked weights: what each expert of a stack is given, whatever code runs the experts.

Experts are no modules that could be listened to: transformers stacks their matrices in one parameter, in several
layouts, with biases, bounds and activations in between. So every product of torch is looked at, and those with a matrix
of a stack tell the expert by where it lies in the parameter's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Products, and where the tokens and the matrix stand among their arguments.
_PRODUCTS: dict[Any, tuple[int, int]] = {
    nn.functional.linear: (0, 1),
    **dict.fromkeys(
        (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm), (0, 1)
    ),
    **dict.fromkeys((torch.addmm, torch.baddbmm), (1, 2)),
}


@dataclass(frozen=True)
class Product:
    """Tokens `x [tokens, in]` given to `expert` of the stack `name`, and what it gave, `out [tokens, out]`; transposed:
    its matrices are `[in, out]`."""

    name: str
    expert: int
    x: Tensor
    out: Tensor
    transposed: bool


class Products(TorchFunctionMode):
    """While it is on, `hear` is told every product of tokens with a matrix of `stacks`, parameters `[experts, …, …]` by
    name. Where all experts are multiplied at once, rows of zeros are no tokens of theirs. A product with part of a
    matrix, or with a copy of it, is not heard."""

    def __init__(self, stacks: Mapping[str, Tensor], hear: Callable[[Product], None]) -> None:
        super().__init__()
        self.hear = hear
        self.stacks = {p.untyped_storage().data_ptr(): (name, p) for name, p in stacks.items()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        places = _PRODUCTS.get(func)
        if places is not None and len(args) > max(places):
            self._look(args[places[0]], args[places[1]], out, func is nn.functional.linear)
        return out

    def _look(self, x: Any, matrix: Any, out: Any, linear: bool) -> None:
        if not isinstance(matrix, Tensor) or matrix.is_meta:
            return
        name, stack = self.stacks.get(matrix.untyped_storage().data_ptr(), ("", None))
        if stack is None or sorted(matrix.shape[-2:]) != sorted(stack.shape[-2:]):
            return
        straight = matrix.shape[-2:] == stack.shape[-2:] and matrix.stride()[-2:] == stack.stride()[-2:]
        # a linear multiplies with the matrix transposed, so one that lies as the stack does is `[out, in]`
        transposed = straight != linear
        if matrix.dim() == 2:
            expert = (matrix.storage_offset() - stack.storage_offset()) // stack.stride(0)
            self.hear(Product(name, expert, _flat(x), _flat(out), transposed))
        elif matrix.dim() == 3 and len(matrix) == len(stack):
            for expert, rows in enumerate(x):
                tokens = (rows != 0).any(-1)
                self.hear(Product(name, expert, rows[tokens], out[expert][tokens], transposed))


def _flat(x: Tensor) -> Tensor:
    """`[tokens, width]`; what is that already stays the very tensor that goes on, so that gradients reach its hooks."""
    return x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
