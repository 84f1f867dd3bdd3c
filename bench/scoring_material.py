"""What the scorers for study look at: a whole small model, text, and every part solved on every scheme beforehand.

For models that fit into memory with their gradients; what planning uses goes block by block (`whet.scores.sensitivity`)
and never holds a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Table = dict[str, dict[str, float]]  # by address, then by scheme


@dataclass(frozen=True)
class Material:
    """A model, text and solved parts.

    model: a causal language model of transformers, float32, in evaluation mode. batches: int64 `[b, L]`, no padding;
    every position with a next token counts. moments: by address, E[x xᵀ] `[in, in]` of the linear's inputs. rounded: by
    address and scheme, the weights `[out, in]` that are stored. blocks: by address, the module that is its block, in
    the order of the model; embedding and head have none.
    """

    model: nn.Module
    batches: Sequence[Tensor]
    moments: Mapping[str, Tensor]
    rounded: Mapping[str, Mapping[str, Tensor]]
    blocks: Mapping[str, str]

    @property
    def counted(self) -> int:
        """Positions with a next token."""
        return sum(batch.shape[0] * (batch.shape[1] - 1) for batch in self.batches)

    def weight(self, address: str) -> nn.Parameter:
        """The original weights `[out, in]`."""
        return self.model.get_submodule(address).get_parameter("weight")

    def table(self, loss: Callable[[str, Tensor], float]) -> Table:
        """`loss(address, error [out, in])` of every part and scheme, error = original − rounded."""
        return {
            address: {scheme: loss(address, self.weight(address).detach() - w) for scheme, w in schemes.items()}
            for address, schemes in self.rounded.items()
        }

    @contextmanager
    def changed(self, address: str, w: Tensor) -> Iterator[None]:
        """The model with `w` in the place of one part's weights."""
        parameter = self.weight(address)
        original = parameter.data
        parameter.data = w
        try:
            yield
        finally:
            parameter.data = original

    def outputs(self, batch: Tensor) -> dict[str, Tensor]:
        """What each block gives for `batch`, by its module's name: `[b, L, hidden]`."""
        with torch.no_grad(), _heard(self.model, list(dict.fromkeys(self.blocks.values()))) as heard:
            self.logits(batch)
        return {block: out for block, (_, out) in heard.items()}

    @contextmanager
    def from_block_of(self, address: str, outputs: Mapping[str, Tensor]) -> Iterator[None]:
        """The model with blocks before that of `address` not running: they give `outputs`, as they did before."""
        order = list(outputs)
        before = order[: order.index(self.blocks[address])] if address in self.blocks else []
        for block in before:
            self.model.get_submodule(block).forward = lambda *_args, out=outputs[block], **_kwargs: out
        try:
            yield
        finally:
            for block in before:
                del self.model.get_submodule(block).forward

    def logits(self, batch: Tensor) -> Tensor:
        """Logits `[b, L - 1, vocabulary]` at the counted positions."""
        return self.model(input_ids=batch, use_cache=False).logits[:, :-1]

    def loss(self) -> float:
        """Mean -log p of the text's own next tokens, nats a token."""
        with torch.no_grad():
            return sum(float(self._nll(batch)) for batch in self.batches) / self.counted

    def gradients(self) -> dict[str, Tensor]:
        """Gradient `[out, in]` of `loss` in each part's weights."""
        addresses = list(self.rounded)
        total = {address: torch.zeros_like(self.weight(address)) for address in addresses}
        for batch in self.batches:
            with torch.enable_grad():
                found = torch.autograd.grad(self._nll(batch), [self.weight(address) for address in addresses])
            for address, gradient in zip(addresses, found, strict=True):
                total[address] += gradient / self.counted
        return total

    def flows(self, seed: int = 0) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
        """Batch by batch and by address: inputs `[b, L, in]` and the gradient `[b, L, out]` of the outputs.

        Of the logits times noise of covariance diag(p) - p pᵀ at every counted position, p the model's own prediction:
        E[g gᵀ] is then the curvature of KL(original ‖ changed), as in `whet.walk.gradients`.
        """
        chance = torch.Generator().manual_seed(seed)
        for batch in self.batches:
            with torch.enable_grad(), _heard(self.model, self.rounded) as heard:
                logits = self.logits(batch)
                p = logits.detach().softmax(-1)
                noise = p.sqrt() * torch.empty_like(p).normal_(generator=chance)
                noise -= p * noise.sum(-1, keepdim=True)
                outputs = [out for _, out in heard.values()]
                found = torch.autograd.grad((logits * noise).sum(), outputs)
            yield {address: (x.detach(), g) for (address, (x, _)), g in zip(heard.items(), found, strict=True)}

    def _nll(self, batch: Tensor) -> Tensor:
        chances = self.logits(batch).log_softmax(-1)
        return -chances.gather(-1, batch[:, 1:, None]).sum()


def second_moments(model: nn.Module, addresses: Sequence[str], batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """E[x xᵀ] `[in, in]` of the inputs of the linears at `addresses`, over all positions of `batches`."""
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for batch in batches:
            with _heard(model, addresses) as heard:
                model(input_ids=batch, use_cache=False)
            for address, (x, _) in heard.items():
                flat = x.flatten(0, -2)
                found[address] = found.get(address, 0) + flat.t() @ flat
    tokens = sum(batch.numel() for batch in batches)
    return {address: h / tokens for address, h in found.items()}


def kl(original: Tensor, changed: Tensor) -> Tensor:
    """KL(original ‖ changed) in nats of logits `[…, vocabulary]`, exact for small differences too.

    With d the difference of the logits less its mean under p, KL = log Σ p exp(d): nothing large cancels.
    """
    p = original.softmax(-1)
    d = changed - original
    d = d - (p * d).sum(-1, keepdim=True)
    return (p * d.expm1()).sum(-1).log1p()


@contextmanager
def _heard(
    model: nn.Module, addresses: Mapping[str, object] | Sequence[str]
) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Input and output of each linear while the model runs."""
    heard: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(address: str):  # type: ignore[no-untyped-def]
        def hear(_module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            heard[address] = (args[0], out)

        return hear

    handles = [model.get_submodule(address).register_forward_hook(hook(address)) for address in addresses]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()
