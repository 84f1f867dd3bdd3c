"""What every part of a model is worth: one backward pass a sample, on text and skill by skill.

A visitor of the walk in reverse. For each linear and each kind of sample it sums squared gradients and squared outputs;
for samples of text also the inputs' second moments, with which the cost of every grid is predicted as soon as a block
is done, so that no more than one block's second moments are ever held.

An expert is judged on the tokens that were sent to it. Its squared gradients are divided by all counted tokens, as
those of any linear are, so it is worth less the more seldom it is used; its second moments and the energy of its
outputs are means over its own tokens, which is what its errors go by. Of one that was sent none nothing is known but
that it is seldom used: it is taken for the least of its role and block. That a changed block sends tokens to other
experts is in no gradient, so what comes before a router costs more than this says.

A kind is `<what>/<language>`: `text/en`, `facts/ko`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from whet.anatomy import Anatomy, Linear
from whet.grids import Grid
from whet.scores.gains import Seen, gains
from whet.scores.outliers import Outliers
from whet.scores.prediction import Tried, losses, pivots
from whet.walk import Flow, Sample, SecondMoments

TEXT = "text/"
# Share of an output's energy that is taken to be lost where parts are compared: 1 %, an error of a tenth in norm.
LOST = 0.01


@dataclass
class Use:
    """Sums over one kind of sample at one linear: squared gradients and squared outputs, each `[out]`, and of how many
    real tokens the outputs were."""

    gradient: Tensor
    energy: Tensor
    tokens: int = 0


@dataclass
class PartScore:
    """One linear: its `sensitivity` on text and, in `kinds`, on each kind of sample (KL a counted token when LOST of
    its output's energy is noise), the mean squared gradient of its outputs on text in `rows [out]`, what its KL is over
    what its second moment and `rows` say (`scale`, over the grids of `gains`), the predicted KL by scheme, its
    spectrum's figure where asked for, and of an expert the share of the text's tokens that was `sent` to it."""

    linear: Linear
    block: int | None
    sensitivity: float = 0.0
    kinds: dict[str, float] = field(default_factory=dict)
    rows: Tensor = field(default_factory=lambda: torch.zeros(0))
    schemes: dict[str, float] = field(default_factory=dict)
    spectrum: float | None = None
    sent: float | None = None


class Sensitivity:
    """Sums up what the walk in reverse shows.

    grids: schemes to predict, by linear. solving: tokens of text that the run will solve on; as many as are scored if
    not said. apart: share of the last walk's text that `gains` looks at. passes: walks that will be made; all but the
    last only add to the squared gradients, which a few tokens make the most of, and hold nothing. spectrum: a function
    of weights `[out, in]` and second moment that gives a number for the report; None leaves it out. After the walks:
    `parts` in the model's order, `influence` of each block (1 − mean cosine of the hidden states before and after it,
    on text), `outliers`, and at both ends of the model the sums and the positions (`final` states, `lookups` with
    their gradients) that embedding and head are judged by.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        grids: Callable[[Linear], Sequence[Grid]],
        spectrum: Callable[[Tensor, Tensor], float] | None = None,
        *,
        solving: int | None = None,
        apart: float = 0.5,
        passes: int = 1,
    ) -> None:
        self.anatomy, self.grids, self.spectrum = anatomy, grids, spectrum
        self.solving, self.apart, self.passes = solving, apart, passes
        self._passed = 0
        self.parts: dict[str, PartScore] = {}
        self.influence = [0.0] * len(anatomy.blocks)
        self.outliers = Outliers()
        self.counted: dict[str, int] = defaultdict(int)
        vocabulary, hidden = anatomy.embedding.shape
        self.looked = torch.zeros(vocabulary, dtype=torch.float64)
        self.read = torch.zeros(vocabulary, dtype=torch.float64)
        self.embedding_gradient = torch.zeros(hidden, hidden)
        self.head_hidden = torch.zeros(hidden, hidden)
        self.final: list[Tensor] = []
        self.lookups: list[tuple[Tensor, Tensor]] = []
        self._cosine = [0.0] * len(anatomy.blocks)
        self._use: dict[tuple[str, str], Use] = {}
        self._moments: tuple[SecondMoments, SecondMoments] | None = None
        self._inputs: dict[str, list[Tensor]] = defaultdict(list)
        self._gradients: dict[str, list[Tensor]] = defaultdict(list)
        self._tried: dict[str, Tried] = {}  # a few rows a linear, priced together after the last

    # -- the visitor ----------------------------------------------------------------------------------------------

    def head(self, sample: Sample, hidden: Tensor, chance: Tensor, slope: Tensor | None, position: slice) -> None:
        """Curvature of the prediction in each logit, and what the head reads."""
        self.counted[sample.name] += len(hidden)
        if sample.name.startswith(TEXT):
            bend = chance * (1 - chance)
            self.read += (bend if slope is None else bend * slope.square()).sum(0).double().cpu()
            self.head_hidden += (hidden.t() @ hidden).cpu()
            self.final.append(hidden[:: self.passes].cpu())

    def flow(self, index: int, linears: list[Linear], flow: Flow) -> None:
        """Add one sample at one block."""
        name = flow.sample.name
        real = flow.sample.real.to(flow.before.device)
        every = int(real.sum())
        for linear in linears:
            if linear.address not in flow.gradients:
                continue  # an expert that was sent nothing
            sent = flow.sent.get(linear.reads)
            mine = real if sent is None else real.flatten()[sent]
            among = tuple(range(mine.dim()))
            gradient = flow.gradients[linear.address].float().square().sum(among)
            energy = (flow.outputs[linear.address].float().square() * mine[..., None]).sum(among)
            use = self._use.setdefault((linear.address, name), Use(gradient * 0, energy * 0))
            use.gradient += gradient
            use.energy += energy
            use.tokens += every if sent is None else int(mine.sum())
        if not name.startswith(TEXT) or not self._last:
            return
        if self._moments is None:
            prefix = self.anatomy.block_prefix(index)
            self._moments = SecondMoments(linears, prefix), SecondMoments(linears, prefix)
        seen, others = self._moments
        tokens = flow.sample.tokens.numel()
        first = round(self.apart * tokens)
        for reads, x in flow.inputs.items():
            rows = x.reshape(-1, x.shape[-1])
            here, there = _divided(rows, flow.sent.get(reads), first)
            seen.add(reads, here)
            others.add(reads, there)
            self._inputs[reads].append(here.clone())
            self.outliers.add(seen.first[reads].address, rows, flow.sample.tokens, flow.sent.get(reads))
        for linear in linears:
            if linear.address in flow.gradients:
                gradient = flow.gradients[linear.address]
                rows = gradient.reshape(-1, gradient.shape[-1])
                here, _ = _divided(rows, flow.sent.get(linear.reads), first)
                self._gradients[linear.address].append(here.clone())
        seen.tokens += first
        others.tokens += tokens - first
        cosine = torch.cosine_similarity(flow.before.float(), flow.after.float(), dim=-1)
        self._cosine[index] += float(cosine.sum())

    def leave(self, index: int, linears: list[Linear], module: nn.Module, prefix: str) -> None:
        """Turn sums into scores while the weights are here, and let the second moments go."""
        if not self._last:
            self._passed += index == 0
            return
        moments, self._moments = self._moments, None
        for linear in linears:
            part = self.parts[linear.address] = PartScore(linear, index)
            nothing = Use(none := torch.zeros(linear.shape[0], device=next(module.parameters()).device), none)
            uses = {name: self._use.pop((linear.address, name), nothing) for name in self.counted}
            for name, use in uses.items():
                part.kinds[name] = self._lost(use, [name])
            text = [name for name in uses if name.startswith(TEXT)]
            if text:
                use = Use(
                    sum(uses[n].gradient for n in text),  # type: ignore[arg-type]
                    sum(uses[n].energy for n in text),  # type: ignore[arg-type]
                    sum(uses[n].tokens for n in text),
                )
                part.sensitivity = self._lost(use, text)
                part.rows = use.gradient / self._count(text)
        if moments is None:
            return
        seen, others = moments
        tokens = seen.tokens + others.tokens
        self.influence[index] = 1 - self._cosine[index] / tokens
        by_input: dict[str, list[Linear]] = defaultdict(list)
        for linear in linears:
            by_input[linear.reads].append(linear)
        for reads, together in by_input.items():
            if reads not in seen.sums:
                continue  # of an expert that was sent nothing, which `_least` prices
            before, after = seen.counts[reads], others.counts[reads]
            mine = before + after
            apart = others.mean(reads)
            h = (seen.mean(reads) * before + apart * after) / mine
            del seen.sums[reads], others.sums[reads]
            d = pivots(h)
            scored = [self.parts[linear.address] for linear in together]
            weights = [x.held.of(module.get_parameter(x.held.parameter.removeprefix(prefix)).data) for x in together]
            there = None
            if before and after:
                there = Seen(
                    torch.cat(self._inputs.pop(reads)),
                    [torch.cat(self._gradients.pop(linear.address)) for linear in together],
                    apart,
                    after,
                    (self.solving or tokens) * mine // tokens,
                )
            factors = gains(weights, h, d, [part.rows for part in scored], there)
            for part, w, gain in zip(scored, weights, factors, strict=True):
                if part.linear.held.expert is not None:
                    part.sent = mine / tokens
                self._tried[part.linear.address] = Tried.of(w, d, part.rows, self.grids(part.linear), gain)
                if self.spectrum is not None:
                    part.spectrum = self.spectrum(w, h)
        if index == 0:
            for (address, tried), found in zip(self._tried.items(), losses(list(self._tried.values())), strict=True):
                self.parts[address].schemes |= {g.name: loss for g, loss in zip(tried.grids, found, strict=True)}
            self._tried.clear()
            self._least()

    def _least(self) -> None:
        """Experts that were sent nothing take the least of what those of their role and block are worth, and lose."""
        alike: dict[tuple[int | None, str], list[PartScore]] = defaultdict(list)
        for part in self.parts.values():
            if part.linear.held.expert is not None:
                alike[part.block, part.linear.role].append(part)
        for some in alike.values():
            used = [part for part in some if part.sent]
            for part in some:
                if not part.sent and used:
                    part.sent = 0.0
                    part.sensitivity = part.sensitivity or min(other.sensitivity for other in used)
                    part.schemes = {
                        name: min(other.schemes[name] for other in used if name in other.schemes)
                        for name in used[0].schemes
                    }

    @property
    def _last(self) -> bool:
        """Whether this is the last of the walks."""
        return self._passed == self.passes - 1

    def _count(self, names: Sequence[str]) -> int:
        return max(1, sum(self.counted[name] for name in names))

    def _lost(self, use: Use, names: Sequence[str]) -> float:
        return 0.5 * LOST * float((use.gradient / self._count(names) * (use.energy / max(1, use.tokens))).sum())

    def embedding(self, sample: Sample, gradient: Tensor) -> None:
        """Gradients of looked-up rows, and how often each row was."""
        if sample.name.startswith(TEXT):
            g = gradient.reshape(-1, gradient.shape[-1])
            self.lookups.append((sample.tokens.flatten().cpu(), g.cpu()))
            self.embedding_gradient += (g.t() @ g).cpu()
            self.looked += torch.bincount(sample.tokens.flatten().cpu(), minlength=len(self.looked)).double()

    # -- what came out --------------------------------------------------------------------------------------------

    @property
    def text_tokens(self) -> int:
        """Counted positions of text."""
        return self._count([name for name in self.counted if name.startswith(TEXT)])

    def by_kind(self, index: int) -> dict[str, float]:
        """What block `index` is worth to each kind of sample: the sum over its linears."""
        total: dict[str, float] = defaultdict(float)
        for linear in self.anatomy.blocks[index]:
            for name, value in self.parts[linear.address].kinds.items():
                total[name] += value
        return dict(total)


def _divided(rows: Tensor, sent: Tensor | None, first: int) -> tuple[Tensor, Tensor]:
    """`rows [n, width]` of a sample's first tokens and of the others; `sent [n]`: the places of an expert's tokens."""
    if sent is None:
        return rows[:first], rows[first:]
    early = sent < first
    return rows[early], rows[~early]
