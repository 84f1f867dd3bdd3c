"""Scorers side by side, for study: what each says a scheme on one part costs, against the KL that it does cost.

Planning uses one of them, gradient-output in the streamed form of `whet.scores.sensitivity`, which prices schemes
without solving them. Here every scorer is shown the solved weights (`Material.rounded`), on a whole model in memory.
`bench/scoring.py` prints their rank correlations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from cptquant import cmpq, pmpq, tdmpq
from scoring_material import Material, Table, kl


def measured_kl(material: Material) -> Table:
    """The truth: KL(original ‖ changed) in nats a token with one part on one scheme and all others as they were.

    Exact, and parts times schemes forward passes.
    """
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    with torch.no_grad():
        for batch in material.batches:
            reference, outputs = material.logits(batch), material.outputs(batch)
            for address, schemes in material.rounded.items():
                for scheme, w in schemes.items():
                    with material.changed(address, w), material.from_block_of(address, outputs):
                        found[address][scheme] += float(kl(reference, material.logits(batch)).sum()) / material.counted
    return {address: dict(schemes) for address, schemes in found.items()}


def gradient_output(material: Material, seed: int = 0) -> Table:
    """½ Σ_r s_r e_r H e_rᵀ in nats a token, e the error of row r and s_r = E[g_r²] of its output's gradient.

    The second order of KL, with outputs taken as independent of each other, of the inputs and between positions. (The
    diagonal of the output Fisher, as in NVIDIA's ModelOpt `gradient` scores, with noise instead of the text's labels.)
    """
    rows: dict[str, Tensor] = {}
    for flow in material.flows(seed):
        for address, (_, g) in flow.items():
            rows[address] = rows.get(address, 0) + g.square().sum((0, 1)) / material.counted
    return material.table(lambda a, e: 0.5 * float((((e @ material.moments[a]) * e).sum(1) * rows[a]).sum()))


def fisher_position(material: Material, seed: int = 0) -> Table:
    """½ E[(g · e x)²] in nats a token: as `gradient_output`, but outputs and inputs may depend on each other.

    Positions still count one by one. What this says more or less than `gradient_output` is due to that independence.
    """
    return _fisher(material, seed, lambda v: v.square().sum())


def fisher_window(material: Material, seed: int = 0) -> Table:
    """½ E[(Σ_t g_t · e x_t)²] in nats a token, summed over a window: the whole second order of KL, nothing left out.

    One number a window and draw of the noise, so it is noisy (√(2 / windows) of a part); sums over parts are less so.
    (Martens 2020, arXiv 1412.1193, §5.)
    """
    return _fisher(material, seed, lambda v: v.sum(1).square().sum())


def _fisher(material: Material, seed: int, gather: Callable[[Tensor], Tensor], draws: int = 2) -> Table:
    """½ gather(g · e x `[b, L]`), summed over batches and averaged over draws of the noise."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    with torch.no_grad():
        for draw in range(draws):
            for flow in material.flows(seed + draw):
                for address, (x, g) in flow.items():
                    for scheme, w in material.rounded[address].items():
                        v = ((x @ (material.weight(address) - w).t()) * g).sum(-1)
                        found[address][scheme] += 0.5 * float(gather(v)) / material.counted / draws
    return {address: dict(schemes) for address, schemes in found.items()}


def taylor(material: Material) -> Table:
    """Σ |∂L/∂w · (w − q)|, L the text's own mean next-token loss: the first order, weight by weight.

    Linear in the error, where KL is quadratic. (Intel auto-round's DeltaLoss, without its term for activations.)
    """
    gradients = material.gradients()
    return material.table(lambda address, e: float((gradients[address] * e).abs().sum()))


def second_moment(material: Material) -> Table:
    """tr(e H eᵀ): the output's squared error a token, which GPTQ minimises; blind to what the output is for."""
    return material.table(lambda address, e: float(((e @ material.moments[address]) * e).sum()))


def relative_second_moment(material: Material) -> Table:
    """tr(e H eᵀ) / tr(w H wᵀ): the share of the output's energy that is lost."""
    errors = second_moment(material)
    sizes = {a: float(((w @ h) * w).sum()) for a, h in material.moments.items() for w in [material.weight(a).detach()]}
    return {a: {s: e / sizes[a] if sizes[a] else 0.0 for s, e in schemes.items()} for a, schemes in errors.items()}


def relative_error(material: Material) -> Table:
    """‖w − q‖² / ‖w‖²: the rounding error itself, without text."""
    return material.table(lambda a, e: float(e.square().sum() / material.weight(a).detach().square().sum()))


def priced(material: Material, scores: Mapping[str, float]) -> Table:
    """A score a part made a loss a scheme: times `relative_error`."""
    return {
        address: {scheme: scores[address] * error for scheme, error in schemes.items()}
        for address, schemes in relative_error(material).items()
    }


# What gives one number a part says nothing of schemes: compared as it is, and `priced`.
SCORERS: dict[str, Callable[[Material], Table | dict[str, float]]] = {
    "measured KL": measured_kl,
    "gradient-output, solved": gradient_output,
    "Fisher by position": fisher_position,
    "Fisher by window": fisher_window,
    "Taylor": taylor,
    "second-moment error": second_moment,
    "second-moment error, relative": relative_second_moment,
    "rounding error, relative": relative_error,
    "CMPQ": cmpq,
    "PMPQ": pmpq,
    "TDMPQ": tdmpq,
}
