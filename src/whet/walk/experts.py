"""What is seen of a block of a family without a row while it runs: its linears' inputs, its experts', its routers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from whet.anatomy import LinearName
from whet.walk.products import Product, Products
from whet.walk.skeleton import hooked

_ALIKE = 1e-4  # of directions of inputs, one less their cosine


@dataclass
class Seen:
    """Inputs of modules by their path, in the order of calls, and of the experts of each stack; how often each module
    was called."""

    inputs: list[tuple[str, Tensor]] = field(default_factory=list)
    products: dict[str, list[Product]] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)

    def named(self, names: Sequence[LinearName]) -> list[LinearName]:
        """Those of `names` that were heard, with what each reads: the same where the same tensor was given."""
        found = []
        for path, given in self.inputs:
            first = next(other for other, tensor in self.inputs if tensor is given)
            (name,) = (name for name in names if name.path == path)
            found.append(dataclasses.replace(name, reads=f"input of {first}"))
        for held, reads in self._experts().items():
            transposed = self.products[held][0].transposed
            found += [
                dataclasses.replace(name, reads=reads, transposed=transposed) for name in names if name.held == held
            ]
        return found

    def _experts(self) -> dict[str, str]:
        """By stack what its experts read: a token as it came, or what an earlier stack made of it.

        A stack is the end of an earlier one that gives as much as it takes and that no other is the end of yet."""
        reads: dict[str, str] = {}
        open_ends: list[str] = []
        for held, products in self.products.items():
            first = products[0]
            same = next((other for other in reads if self.products[other][0].x is first.x), None)
            if same is not None:
                reads[held] = reads[same]
                continue
            if open_ends:
                reads[held] = f"{open_ends.pop()} {{}} middle"
                open_ends.clear()
            else:
                reads[held] = f"{held} {{}} input"
                open_ends.append(held)
        return reads


@contextlib.contextmanager
def watched(block: nn.Module, names: Sequence[LinearName]) -> Iterator[Seen]:
    """What the linears and the experts in `names` are given while the block runs."""
    seen = Seen()

    def hear(path: str, given: Tensor) -> None:
        seen.times[path] = seen.times.get(path, 0) + 1
        seen.inputs.append((path, given))

    held = {name.held for name in names if name.held}
    handles = [
        block.get_submodule(name.path).register_forward_pre_hook(
            lambda _m, args, path=name.path: hear(path, args[0])  # type: ignore[misc]
        )
        for name in names
        if not name.held
    ]
    products = Products(
        {name: block.get_parameter(name) for name in held},
        lambda product: seen.products.setdefault(product.name, []).append(product),
    )
    with hooked(handles), products:
        yield seen


def routers(block: nn.Module, names: Sequence[LinearName], seen: Seen, again: Callable[[], Seen]) -> set[str]:
    """Paths of linears whose outputs decide which experts a token goes to, and of gates with a single output.

    A router has an output for every expert, and with those turned to their negative the same tokens go to other
    experts. again: what is seen when the block runs once more.
    """
    experts = {len(block.get_parameter(held)) for held in seen.products}
    found = set[str]()
    for path, _ in seen.inputs:
        module = block.get_submodule(path)
        outputs = len(block.get_parameter(f"{path}.weight"))
        if outputs == 1:
            found.add(path)
        elif outputs in experts:
            with _turned(module):
                if _sent_elsewhere(seen, again()):
                    found.add(path)
    return found


@contextlib.contextmanager
def _turned(module: nn.Module) -> Iterator[None]:
    """Everything the linear multiplies and adds, turned to its negative."""
    for parameter in module.parameters(recurse=False):
        parameter.data.neg_()
    try:
        yield
    finally:
        for parameter in module.parameters(recurse=False):
            parameter.data.neg_()


def _sent_elsewhere(before: Seen, after: Seen) -> bool:
    """Whether the same tokens go to other experts in the first stack that is given anything else than before."""
    for held, products in before.products.items():
        mine, theirs = _directions(products), _directions(after.products.get(held, []))
        if mine.keys() == theirs.keys() and all(
            mine[e].shape == theirs[e].shape and torch.allclose(mine[e], theirs[e], atol=_ALIKE) for e in mine
        ):
            continue
        whole, other = torch.cat(list(mine.values())), torch.cat(list(theirs.values()))
        return bool(((other @ whole.t()).amax(1) > 1 - _ALIKE).all())
    return False


def _directions(products: Sequence[Product]) -> dict[int, Tensor]:
    """Inputs of each expert, each of length 1: some families weigh them before."""
    return {product.expert: nn.functional.normalize(product.x, dim=-1) for product in products if len(product.x)}


def expert_names(
    held: Sequence[str], prefix: str, there: Collection[str], listed: Mapping[str, tuple[str, ...]]
) -> list[LinearName]:
    """Names of the experts in the stacks `held` of the block whose module is `prefix`: one by one where files list them
    so (`listed`, as `Conversion.experts`), else each a matrix of the stack."""
    found: list[LinearName] = []
    for name in held:
        if prefix + name in there:
            parent, _, leaf = name.removesuffix(".weight").rpartition(".")
            path = f"{parent}.{{}}.{leaf}" if not name.endswith(".weight") else f"{parent}.{leaf}.{{}}"
            found.append(LinearName(path, f"expert {leaf}", "", held=name))
            continue
        for path in listed.get(prefix + name, ()):
            own = path.removeprefix(prefix)
            found.append(LinearName(own, f"expert {own.rpartition('.')[2]}", "", held=name))
    roles = [name.role for name in found]
    return [name if roles.count(name.role) == 1 else dataclasses.replace(name, role=name.path) for name in found]
