"""The three sensitivities of CPTQuant (Nanda, Balija, Sahoo 2024, arXiv 2412.03599), for study.

The paper ranks layers by them and gives the sensitive ones more bits; it tells nothing of what a scheme costs. So PMPQ
and TDMPQ are one number a part here, to be compared as they are or times the rounding error (`study.priced`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from scoring_material import Material, Table

PRUNED = 0.5  # share of a part's weights that PMPQ removes
_RIDGE = 1e-9  # of the mean variance, so that dead directions can be whitened


def cmpq(material: Material) -> Table:
    """1 − mean canonical correlation of a block's outputs before and after one of its linears is on a scheme.

    Outputs of the block, not of the linear: canonical correlations do not change under invertible maps, so those of
    w x and q x are exactly 1 for every linear with at least as many outputs as inputs. The score alone, as it sees the
    scheme itself.
    """
    outputs = [material.outputs(batch) for batch in material.batches]
    before = {block: torch.cat([some[block].flatten(0, -2) for some in outputs]) for block in outputs[0]}
    found: Table = {}
    for address, schemes in material.rounded.items():
        found[address] = {}
        block = material.blocks[address]
        for scheme, w in schemes.items():
            with material.changed(address, w):
                after = _outputs(material, address, outputs)
            found[address][scheme] = 1.0 - canonical_correlation(before[block], after)
    return found


def pmpq(material: Material) -> dict[str, float]:
    """How much the text's own loss (nats a token) grows when the smallest half of one part's weights are set to 0.

    The paper's drop of accuracy under layer-wise pruning, with the loss in the place of accuracy, because a language
    model's text has no labels to be right about. A score a part.
    """
    base = material.loss()
    found = {}
    for address in material.rounded:
        w = material.weight(address).detach()
        small = w.abs().flatten().kthvalue(max(1, int(PRUNED * w.numel()))).values
        with material.changed(address, w * (w.abs() > small)):
            found[address] = material.loss() - base
    return found


def tdmpq(material: Material) -> dict[str, float]:
    """Σ |w · ∂L/∂w|, L the text's own mean next-token loss: the first order of removing each weight. A score a part."""
    gradients = material.gradients()
    return {a: float((material.weight(a).detach() * g).abs().sum()) for a, g in gradients.items()}


def canonical_correlation(x: Tensor, y: Tensor) -> float:
    """Mean of the canonical correlations of `x [n, p]` and `y [n, q]`, in double precision (Hotelling 1936)."""
    x, y = x.double() - x.double().mean(0), y.double() - y.double().mean(0)
    both = torch.linalg.solve_triangular(_root(x), x.t() @ y, upper=False)
    both = torch.linalg.solve_triangular(_root(y), both.t(), upper=False)
    return float(torch.linalg.svdvals(both).clamp(max=1.0).mean())


def _root(x: Tensor) -> Tensor:
    """Lower L with L Lᵀ = xᵀ x, nearly."""
    h = x.t() @ x
    h.diagonal().add_(_RIDGE * h.diagonal().mean())
    return torch.linalg.cholesky(h)


class _Enough(Exception):
    """What was to be heard was heard."""


def _outputs(material: Material, address: str, outputs: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """What the block of `address` gives over all of the text, `[tokens, width]`, from what those before it gave."""
    heard: list[Tensor] = []

    def hear(_module: nn.Module, _args: object, out: Tensor) -> None:
        heard.append(out.flatten(0, -2))
        raise _Enough

    handle = material.model.get_submodule(material.blocks[address]).register_forward_hook(hear)
    try:
        for batch, known in zip(material.batches, outputs, strict=True):
            with torch.no_grad(), suppress(_Enough), material.from_block_of(address, known):
                material.logits(batch)
    finally:
        handle.remove()
    return torch.cat(heard)
