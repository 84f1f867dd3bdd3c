"""Second moments of linears' inputs, H = E[x xᵀ], gathered while a block runs. One per distinct input, in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from whet.anatomy import Linear
from whet.errors import UsageError
from whet.walk.products import Product, Products
from whet.walk.skeleton import hooked

# Squares on the diagonal of H up to this wide are computed whole; of larger ones only the lower triangle, which saves
# almost half of the work.
_WHOLE = 192
# Channels for a token of what is believed before any was seen, how many times as strongly that is tried, and tokens a
# channel from which it makes no difference.
_PRIOR, _STRONGER, _TIMES, _ENOUGH = 20, 4, 7, 10
_DAMP = 0.01
OTHERS, _TELL = 512, 64  # tokens of other text, about, that tell it, and how many at least
# Experts that see a smaller share of the tokens have no second moment worth the name.
STARVED = 0.005
MIDDLE = "middle"  # how the inputs of experts' last linears end


class HeardEnough(Exception):
    """Raised inside a block's forward when every input was seen: what comes after it is not needed."""


class SecondMoments:
    """`mean(reads)` is `[in, in]`, over tokens; linears that read the same input share one.

    Only the lower triangle is summed up; `mean` mirrors it. Experts have one each, over the tokens that were sent to
    them; after `settle`, `starved` tells by input the share of the tokens of experts that saw too few for one.
    `largest` has the largest absolute value of each channel `[in]`, by input, where `ranges` are asked for. `others`
    has inputs `[tokens, in]` of other text, by input, which tell how far those that were summed up are believed.
    products: whether experts are listened to by what is multiplied with them, and not as one family's code runs them.
    """

    def __init__(self, linears: list[Linear], prefix: str, ranges: bool = False, *, products: bool = False) -> None:
        self.prefix, self.ranges, self.products = prefix, ranges, products
        self.largest: dict[str, Tensor] = {}
        self.others: dict[str, list[Tensor]] = {}
        self.aside = False
        self.drifts: dict[str, Tensor] = {}  # sums of (x̃ − x) xᵀ, x̃ the original's inputs, where they were heard
        self.before: dict[str, Tensor] = {}  # of the batch at hand
        self.first: dict[str, Linear] = {}
        for linear in linears:
            self.first.setdefault(linear.reads, linear)
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.starved: dict[str, float] = {}
        self.pooled: dict[str, int] = {}  # of inputs that took the mean of several, the tokens of all
        self.tokens = 0
        self.heard = 0

    @contextlib.contextmanager
    def listening(self, block: nn.Module) -> Iterator[None]:
        """Add what flows into the linears of `block`; a forward ends with `HeardEnough` after the last of them."""
        alone = {self._module(x): reads for reads, x in self.first.items() if x.held.expert is None}
        stacks = self._stacks()
        ears = len(alone) + len(stacks)
        handles = [
            block.get_submodule(module).register_forward_pre_hook(self._hook(reads, ears))
            for module, reads in alone.items()
        ]
        # transformers' experts are one module with stacked weights, whatever runs them: no linear of theirs is called
        if self.products:
            handles += [
                block.get_submodule(name).register_forward_hook(lambda *_: self._heard(ears)) for name in stacks
            ]
            listening: contextlib.AbstractContextManager[Any] = self._multiplied(block, stacks)
        else:
            handles += [
                block.get_submodule(module).register_forward_pre_hook(self._experts(experts, ears), with_kwargs=True)
                for module, experts in stacks.items()
            ]
            listening = contextlib.nullcontext()
        with hooked(handles), listening:
            yield

    def _multiplied(self, block: nn.Module, stacks: dict[str, dict[int, list[Linear]]]) -> Products:
        """Adds what the experts' matrices are multiplied with."""
        linears = [one for experts in stacks.values() for several in experts.values() for one in several]
        names = {linear: linear.held.parameter.removeprefix(self.prefix) for linear in linears}
        reads = {(names[linear], linear.held.expert): linear.reads for linear in linears}

        def hear(product: Product) -> None:
            if (product.name, product.expert) in reads:
                self.add(reads[product.name, product.expert], product.x)

        return Products({name: block.get_parameter(name) for name in set(names.values())}, hear)

    @contextlib.contextmanager
    def listening_aside(self, block: nn.Module) -> Iterator[None]:
        """Keep what flows into the linears of `block` as `others`."""
        self.aside = True
        try:
            with self.listening(block):
                yield
        finally:
            self.aside = False

    @property
    def few(self) -> bool:
        """Whether some input was summed over so few tokens that other text is to tell how far they are believed."""
        return any(self._tokens(reads) < _ENOUGH * len(h) for reads, h in self.sums.items())

    @contextlib.contextmanager
    def listening_before(self, block: nn.Module) -> Iterator[None]:
        """Keep what flows into the linears of `block` (x̃) for the same batch of the lighter model, which comes next.

        Not for experts: the two streams do not send the same tokens to them.
        """

        def hook(reads: str):  # type: ignore[no-untyped-def]
            def keep(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
                # a copy: without a norm before it this is the stream itself, which goes on
                self.before[reads] = args[0].reshape(-1, args[0].shape[-1]).to(torch.float32, copy=True)

            return keep

        handles = [
            block.get_submodule(self._module(x)).register_forward_pre_hook(hook(reads))
            for reads, x in self.first.items()
            if x.held.expert is None
        ]
        with hooked(handles):
            yield

    def take(self, reads: str) -> tuple[Tensor, Tensor | None]:
        """H of one input, steadied, and E[(x̃ − x) xᵀ] `[in, in]`, x̃ the original's (None where that was not heard), in
        place of the sums, which are let go: those of a wide input are the largest things in memory."""
        seen, drift = self._seen(reads), self.drifts.pop(reads, None)
        h = self._steadied(reads, _mirror(self.sums.pop(reads).div_(seen)))
        return h, None if drift is None else drift.div_(seen)

    def steady(self, reads: str) -> Tensor:
        """What `take` gives as H, with the sums left where they are."""
        return self._steadied(reads, self.mean(reads))

    def _steadied(self, reads: str, h: Tensor) -> Tensor:
        return steadied(h, self._tokens(reads), torch.cat(self.others[reads]) if reads in self.others else None)

    def _tokens(self, reads: str) -> int:
        """Tokens that what is known of one input comes from, of all that were pooled."""
        return self.pooled.get(reads, self._seen(reads))

    def settle(self) -> None:
        """Experts that saw too few of the tokens take the mean of their block, and are named in `starved`.

        What goes into an expert is alike in all of them, so a second moment over all tokens serves; what is in the
        middle is every expert's own, so of that only the mean square does, the same in every channel.
        """
        for module in self._stacks().values():
            reads = [linear.reads for linears in module.values() for linear in linears]
            few = [name for name in reads if self.counts.get(name, 0) < STARVED * self.tokens]
            if not few:
                continue
            for ending in dict.fromkeys(name.rpartition(" ")[2] for name in reads):
                alike = [name for name in reads if name.rpartition(" ")[2] == ending and name in self.sums]
                total = torch.stack([self.sums[name].diagonal().mean() for name in alike]).sum()
                size = max(1, sum(self.counts[name] for name in alike))
                if ending == MIDDLE:
                    mean = torch.eye(len(self.sums[alike[0]]), device=total.device) * total / size
                else:
                    mean = self.sums[alike[0]].clone()
                    for name in alike[1:]:
                        mean += self.sums[name]
                    mean /= size
                for name in few:
                    if name.rpartition(" ")[2] == ending:
                        self.starved[name] = self.counts.get(name, 0) / max(1, self.tokens)
                        self.sums[name], self.counts[name] = mean.clone(), 1
                        self.pooled[name] = size

    def _stacks(self) -> dict[str, dict[int, list[Linear]]]:
        """By module of stacked experts and by expert, the first linear that reads each of its inputs."""
        found: dict[str, dict[int, list[Linear]]] = {}
        for linear in self.first.values():
            if linear.held.expert is not None:
                found.setdefault(self._module(linear), {}).setdefault(linear.held.expert, []).append(linear)
        return found

    def _module(self, linear: Linear) -> str:
        """The module inside the block whose inputs are those of `linear`."""
        return linear.held.parameter.removeprefix(self.prefix).rpartition(".")[0]

    def add(self, reads: str, x: Tensor) -> None:
        """Add inputs `[tokens, in]`. Raises UsageError naming the linear at the first input that is not finite."""
        x = x.float()
        if self.aside:
            self.others.setdefault(reads, []).append(x.clone())  # without a norm before it this is the stream itself
            return
        self.counts[reads] = self.counts.get(reads, 0) + len(x)
        if reads not in self.sums:
            self.sums[reads] = x.new_zeros(x.shape[1], x.shape[1])
        # thirty times faster than a look at every number, and a sum is not finite if one of its terms is not
        if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
            bad = ~torch.isfinite(x)
            token = int(bad.any(1).nonzero()[0])
            raise UsageError(
                "{address}: {count} inputs are NaN or infinite, first at token {token}. The original overflows on "
                "this text, in float32: its weights are damaged or the config is not its own. Try other text "
                "(--text), then another download.",
                address=self.first[reads].address,
                count=int(bad.sum()),
                token=self.tokens + token,
            )
        _add_lower(self.sums[reads], x)
        if self.ranges and len(x):
            most = x.abs().amax(0)
            self.largest[reads] = torch.maximum(self.largest.get(reads, most), most)

    def mean(self, reads: str) -> Tensor:
        """H of one input."""
        return _mirror(self.sums[reads] / self._seen(reads))

    def _seen(self, reads: str) -> int:
        """Tokens that one input was summed over, at least 1."""
        return max(self.counts.get(reads, self.tokens), 1)

    def _hook(self, reads: str, ears: int):  # type: ignore[no-untyped-def]
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].reshape(-1, args[0].shape[-1])
            self.add(reads, x)
            if reads in self.before:
                x = x.float()
                total = self.drifts.setdefault(reads, x.new_zeros(x.shape[1], x.shape[1]))
                total.addmm_((self.before.pop(reads) - x).t(), x)
            self._heard(ears)

        return hook

    def _experts(self, experts: dict[int, list[Linear]], ears: int):  # type: ignore[no-untyped-def]
        def hook(module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            hidden, chosen = (*args, *kwargs.values())[:2]
            for expert, linears in experts.items():
                mine = hidden[(chosen == expert).any(-1)]
                for linear in linears:
                    x = mine
                    if linear.reads.endswith(MIDDLE):
                        gate, up = torch.nn.functional.linear(mine, module.gate_up_proj[expert]).chunk(2, dim=-1)
                        x = module.act_fn(gate) * up
                    self.add(linear.reads, x)
            self._heard(ears)

        return hook

    def _heard(self, ears: int) -> None:
        self.heard += 1
        if self.heard % ears == 0:
            raise HeardEnough


def steadied(h: Tensor, tokens: int, others: Tensor | None = None) -> Tensor:
    """A second moment `h [in, in]` over so many tokens, in place, with what it says of pairs of channels shrunk where
    those are few beside its width.

    Of fewer tokens than channels a moment is singular, and a solver that takes it at its word hides errors in what
    happened not to be seen. What lies off the diagonal is multiplied by n / (n + p) for n tokens, as if p more had been
    seen in which channels have nothing to do with each other; the diagonal, which few tokens tell well, stays. p is a
    twentieth of the channels, and under ten tokens a channel, where there are `others`, inputs `[tokens, in]` of other
    text, that or 4, 16, ... times as much, with which errors fed forward by GPTQ would lose the least on those: with
    M D Mᵀ the factors of h and errors of rounding alike in all columns, they lose |M⁻¹ x|² of an input x.
    """
    prior = len(h) / _PRIOR
    best = tokens / (tokens + prior)
    if others is not None and len(others) >= _TELL and tokens < _ENOUGH * len(h):
        shares = [tokens / (tokens + prior * _STRONGER**times) for times in range(_TIMES)]
        lost = list[float]()
        for share in shares:
            lost.append(_fed_forward(h, share, others))
            if len(lost) > 2 and min(lost[-2:]) >= min(lost[:-2]):  # twice in a row no better than before
                break
        best = shares[lost.index(min(lost))]
    return _shrink(h, best)


def _fed_forward(h: Tensor, share: float, others: Tensor) -> float:
    """What errors fed forward by the factors of `h`, shrunk to `share` and damped, lose on the inputs `others`."""
    lower = _shrink(h.clone(), share)
    lower.diagonal().add_(_DAMP * lower.diagonal().mean())
    info = torch.zeros((), dtype=torch.int32, device=h.device)
    lower = lower.t()  # symmetric, and laid out as LAPACK takes it
    torch.linalg.cholesky_ex(lower, out=(lower, info))
    if info.item():
        return torch.inf
    fed = torch.linalg.solve_triangular(lower, others.t(), upper=False)
    return fed.mul_(lower.diagonal()[:, None]).square_().sum().item()


def _shrink(h: Tensor, share: float) -> Tensor:
    """`h` with everything off its diagonal times `share`, in place."""
    diagonal = h.diagonal().clone()
    h *= share
    h.diagonal().copy_(diagonal)
    return h


def _add_lower(h: Tensor, x: Tensor) -> None:
    """Add xᵀ x of `x [tokens, in]` to `h [in, in]`, right on and below the diagonal, anything above it."""
    width = len(h)
    if width <= _WHOLE:
        h.addmm_(x.t(), x)
        return
    half = width // 2
    h[half:, :half].addmm_(x[:, half:].t(), x[:, :half])
    _add_lower(h[:half, :half], x[:, :half])
    _add_lower(h[half:, half:], x[:, half:])


def _mirror(h: Tensor) -> Tensor:
    """`h [in, in]` with its lower triangle copied to the upper one, in place."""
    width = len(h)
    if width <= _WHOLE:
        return h.tril_().add_(h.tril(-1).t())
    half = width // 2
    h[:half, half:] = h[half:, :half].t()
    _mirror(h[:half, :half])
    _mirror(h[half:, half:])
    return h
