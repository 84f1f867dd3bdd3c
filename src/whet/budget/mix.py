"""From scores to a plan: which scheme each part takes within a budget. Pure: no model, no text, no clock.

A part is a linear, or several that a runtime ties to one scheme. Losses are taken as additive.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from whet.budget.knapsack import Choice, Infeasible, Option, choose, fewest_bytes, frontier
from whet.budget.left_out import left_out, unsent
from whet.budget.offered import holds
from whet.budget.times import Budget as Budget
from whet.budget.times import Timed, time_of
from whet.errors import UsageError
from whet.grids import parse_scheme
from whet.messages import Message, to_json
from whet.targets import Target, tie

KEEP = "keep"
# safetensors writes a line of JSON a tensor; a quantized linear has at most four.
_HEADER = 160 * 4
_MUCH = 0.8  # of bytes or loss: what is worth saying


@dataclass(frozen=True)
class Mix:
    """A scheme for every address, with exact tensor bytes and predicted loss; `bound` and `gap` as in `Choice`."""

    schemes: dict[str, str]
    bytes: int
    kl: float
    bound: float
    gap: float
    exact: bool


class Offers:
    """The options of every part of a scored model for one target and one way of storing it.

    stock: only what stock containers hold mixed (symmetric linears, tables as they are). experts: whether the model has
    any; one_scheme: whether the target then holds but one scheme for everything.
    """

    def __init__(self, scores: Mapping[str, Any], target: Target, stock: bool) -> None:
        self.experts = any("expert" in part for part in scores["parts"])
        self.target, self.one_scheme = target, self.experts and not target.modelling_file
        # stock transformers leaves experts in the type of the stored scales, which is of 16 bits
        self.wide = any(part["bytes"] > 2 * math.prod(part["shape"]) for part in scores["parts"])
        self.fixed = int(scores["other"]["bytes"])
        self.parameters = int(scores["other"]["parameters"]) + sum(part["parameters"] for part in scores["parts"])
        self.tables = {part["address"] for part in scores["parts"] if part["block"] is None}
        together: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
        for part in scores["parts"]:
            together[_tie(part, target)].append(part)
        self.addresses = [[part["address"] for part in parts] for parts in together.values()]
        self.names: list[list[str]] = []
        self.options: list[list[Option]] = []
        for parts in together.values():
            table = parts[0]["block"] is None
            names = [n for n in parts[0]["schemes"] if all(_held(target, part, n) for part in parts)]
            names = [KEEP, *(n for n in names if not (stock and (table or parse_scheme(n).zero != "none")))]
            self.names.append(names)
            self.options.append(
                [
                    Option(sum(_bytes(part, name) for part in parts), sum(_loss(part, name) for part in parts))
                    for name in names
                ]
            )

    def best(self, limit: int, asked: str = "") -> Mix:
        """The least predicted loss with at most `limit` bytes of tensors. Raises Infeasible."""
        return self._mix(choose(self.options, limit - self.fixed, asked))

    def smallest(self, most: float, asked: str = "") -> Mix:
        """The fewest bytes with a predicted loss of at most `most`. Raises Infeasible."""
        return self._mix(fewest_bytes(self.options, most, asked))

    def timed(self, budget: Budget, most: float) -> Mix:
        """The least predicted loss within a time, or the least time with a loss of at most `most`. Raises
        Infeasible."""
        assert budget.costs is not None
        times = Timed.of(self.addresses, self.names, self.options, budget.costs)
        return self._mix(times.within(budget) if budget.kind == "time" else times.fastest(most, budget.asked))

    def least(self) -> int:
        """Bytes of the smallest mix there is."""
        if self.one_scheme:
            return min(mix.bytes for mix in self.throughout())
        return self.fixed + sum(min(option.bytes for option in options) for options in self.options)

    def frontier(self, points: int = 40) -> list[dict[str, float]]:
        """Predicted bytes, bits and KL along the hull of all mixes."""
        return [
            {"bytes": size + self.fixed, "bits": self.bits(size + self.fixed), "kl": loss}
            for size, loss in frontier(self.options, points)
        ]

    def bits(self, size: int) -> float:
        """Stored bits a parameter of the whole model."""
        return 8 * size / self.parameters

    def figures(self, mix: Mix) -> dict[str, float]:
        """Bytes, bits and KL of a mix."""
        return {"bytes": mix.bytes, "bits": self.bits(mix.bytes), "kl": mix.kl}

    def uniform(self) -> list[tuple[str, str, Mix]]:
        """Every (scheme, scheme of the tables or keep) that is one scheme throughout the blocks."""
        tables = [addresses[0] in self.tables for addresses in self.addresses]
        names = [n for n in dict.fromkeys(n for names in self.names for n in names) if n != KEEP]
        blocks = {name: self._all(name, [not table for table in tables]) for name in names}
        embeds = {name: self._all(name, tables) for name in (KEEP, *names)}
        return [
            (scheme, embed, self._mix_of(first, second))
            for scheme, first in blocks.items()
            for embed, second in embeds.items()
            if first is not None and second is not None
        ]

    def throughout(self) -> list[Mix]:
        """What stock transformers loads of one scheme throughout: it computes the weights then, of experts only where
        the scheme is symmetric and the weights have 16 bits."""
        zeros = {"none"} if self.experts else {"none", "int"}
        return [
            mix
            for scheme, embed, mix in self.uniform()
            if embed in (KEEP, scheme) and parse_scheme(scheme).zero in zeros and not (self.experts and self.wide)
        ]

    def _all(self, name: str, wanted: Sequence[bool]) -> tuple[int, float, dict[str, str]] | None:
        """Bytes, loss and schemes of the wanted groups with one scheme, or None where one of them is not offered it."""
        size, loss = 0, 0.0
        schemes: dict[str, str] = {}
        for addresses, names, options, take in zip(self.addresses, self.names, self.options, wanted, strict=True):
            if not take:
                continue
            if name not in names:
                return None
            option = options[names.index(name)]
            size, loss = size + option.bytes, loss + option.loss
            schemes |= dict.fromkeys(addresses, name)
        return size, loss, schemes

    def _mix_of(self, *several: tuple[int, float, dict[str, str]]) -> Mix:
        schemes = {address: name for _, _, part in several for address, name in part.items()}
        loss = math.fsum(loss for _, loss, _ in several)
        return Mix(schemes, self.fixed + sum(size for size, _, _ in several), loss, loss, 0.0, False)

    def _mix(self, choice: Choice) -> Mix:
        schemes = {
            address: names[pick]
            for addresses, names, pick in zip(self.addresses, self.names, choice.picks, strict=True)
            for address in addresses
        }
        picked = [options[pick] for options, pick in zip(self.options, choice.picks, strict=True)]
        size = sum(option.bytes for option in picked) + self.fixed
        return Mix(schemes, size, choice.loss, choice.bound, choice.gap, choice.exact)


def header_bytes(scores: Mapping[str, Any]) -> int:
    """At most so many bytes of a lighter model's weight files are not tensors."""
    return _HEADER * (len(scores["parts"]) + int(scores["other"]["tensors"]))


def make_plan(
    scores: Mapping[str, Any],
    target: Target,
    budget: Budget,
    *,
    solver: str = "gptq",
    most_kl: float | None = None,
) -> dict[str, Any]:
    """The best mix for `budget` as a plan (`whet.budget.plan`); raises Infeasible with the smallest that is possible.

    most_kl: for a quality, a stricter limit on the mean KL.
    Stock containers are preferred where the target reads them: a mix that needs the modelling file is only taken when
    nothing else keeps the budget, and the plan says so.
    """
    whole = Offers(scores, target, stock=False)
    mix, among, free, notes = _chosen(whole, scores, target, budget, most_kl)
    limit = None if budget.kind in ("quality", "time") else _limit(whole, scores, budget)
    return {
        "format": "whet.plan",
        "version": 1,
        "model": dict(scores["model"]),
        "target": target.name,
        "solver": solver,
        "budget": {"kind": budget.kind, "asked": budget.asked, "bytes": limit, "value": budget.value},
        "schemes": {part["address"]: mix.schemes[part["address"]] for part in scores["parts"]},
        "predicted": {
            **whole.figures(mix),
            "by_part": {part["address"]: _loss(part, mix.schemes[part["address"]]) for part in scores["parts"]},
        },
        "measured": [],
        "gap": {"bound": mix.bound, "relative": mix.gap, "among": among, "free": free},
        "frontier": whole.frontier(),
        "uniform": _worth_showing(
            [{"scheme": scheme, "embed": embed, **whole.figures(one)} for scheme, embed, one in whole.uniform()]
        ),
        "left_out": to_json(left_out(scores, target)),
        "scorer": "gradient",
        "text": scores["text"],
        "notes": to_json([*unsent(scores), *notes]),
        **time_of(budget, mix.schemes),
    }


def _chosen(
    whole: Offers, scores: Mapping[str, Any], target: Target, budget: Budget, most_kl: float | None
) -> tuple[Mix, str, dict[str, float] | None, list[Message]]:
    """The mix, among which (`all`, `stock`) it is the best, the best of all where that is better, and notes."""
    if target.name == "whet" or target.schemes or target.graph:
        return _solve(whole, scores, budget, most_kl), "all", None, []
    held = whole if whole.experts else Offers(scores, target, stock=True)
    mix = _stock(held, whole, target, scores, budget, most_kl)
    if mix is not None and not target.modelling_file:
        return mix, "stock", None, []
    best = _solve(whole, scores, budget, most_kl)
    if mix is None:
        why = Message(
            "no mix that stock containers hold keeps this budget, so the folder carries its own modelling file "
            "(trust_remote_code=True)"
        )
        return best, "all", None, [why]
    if whole.experts and _much_better(best, mix, budget):
        why = Message(
            "stock transformers loads experts of one scheme alone, with which much more would be lost, so the folder "
            "carries its own modelling file (trust_remote_code=True)"
        )
        return best, "all", None, [why]
    free = whole.figures(best) if _worth(best, budget) < _worth(mix, budget) else None
    return mix, "stock", free, _weigh(best, mix, budget)


def _worth_showing(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the uniform points those that no other beats in bytes and KL, and those with one scheme or dense tables."""
    found, least = [], math.inf
    for point in sorted(points, key=lambda point: (point["bytes"], point["kl"])):
        if point["kl"] < least or point["embed"] in (KEEP, point["scheme"]):
            found.append(point)
        least = min(least, point["kl"])
    return found


def _stock(
    stock: Offers,
    whole: Offers,
    target: Target,
    scores: Mapping[str, Any],
    budget: Budget,
    most_kl: float | None,
) -> Mix | None:
    """The best of what stock containers hold: symmetric linears mixed, or one scheme throughout. None where neither
    keeps the budget and the target can load something else; else raises Infeasible. With experts one scheme alone."""
    if whole.experts:
        must_be_possible(whole, scores, budget)
    mixed: Mix | None = None
    problem: Infeasible | None = None
    try:
        mixed = None if whole.experts else _solve(stock, scores, budget, most_kl)
    except Infeasible as error:
        problem = error
    uniform: list[Mix] = []
    if not target.ties or whole.experts:
        every = whole.throughout()
        if budget.kind == "quality":
            most = _most(budget, most_kl)
            uniform = sorted((m for m in every if m.kl <= most), key=lambda m: m.bytes)[:1]
        else:
            limit = _limit(whole, scores, budget)
            uniform = sorted((m for m in every if m.bytes <= limit), key=lambda m: m.kl)[:1]
    if mixed is None:
        if not uniform and not target.modelling_file:
            raise problem or Infeasible(
                "{budget} cannot be kept: {target} holds experts only where everything has one scheme, and the best of "
                "those is predicted to lose {smallest:.2g} nats a token. Use --for transformers, which loads mixes.",
                smallest=min(mix.kl for mix in every),
                budget=budget.asked,
                target=target.name,
            )
        return uniform[0] if uniform else None
    if not uniform or _worth(mixed, budget) <= _worth(uniform[0], budget):
        return mixed
    one = uniform[0]
    least = _worth(one, budget)[0]
    bound = least if mixed.exact else min(least, mixed.bound)
    return replace(one, bound=bound, gap=(least - bound) / least if least else 0.0, exact=mixed.exact)


def _worth(mix: Mix, budget: Budget) -> tuple[float, float]:
    """What the budget asks to be least, first."""
    return (mix.bytes, mix.kl) if budget.kind == "quality" else (mix.kl, mix.bytes)


def _weigh(best: Mix, mix: Mix, budget: Budget) -> list[Message]:
    """Says what loading in stock transformers costs, where that is much. best: of all mixes. mix: of those it loads."""
    if not _much_better(best, mix, budget):
        return []
    if budget.kind == "quality":
        return [
            Message(
                "Stock transformers loads symmetric linears mixed, or one scheme throughout. A free mix would take "
                "{best:,} bytes instead of {mix:,}: add --for whet to make one, which loads through the folder's own "
                "modelling file.",
                best=best.bytes,
                mix=mix.bytes,
            )
        ]
    return [
        Message(
            "Stock transformers loads symmetric linears mixed, or one scheme throughout. A free mix is predicted "
            "to lose {best:.2g} instead of {mix:.2g} nats a token: add --for whet to make one, which loads "
            "through the folder's own modelling file.",
            best=best.kl,
            mix=mix.kl,
        )
    ]


def _much_better(best: Mix, mix: Mix, budget: Budget) -> bool:
    """Whether `best` is better by what is worth saying in what the budget asks to be least."""
    return _worth(best, budget)[0] < _MUCH * _worth(mix, budget)[0]


def _solve(offers: Offers, scores: Mapping[str, Any], budget: Budget, most_kl: float | None) -> Mix:
    if budget.costs is not None:
        return offers.timed(budget, _most(budget, most_kl))
    if budget.kind == "quality":
        return offers.smallest(_most(budget, most_kl), budget.asked)
    must_be_possible(offers, scores, budget)
    return offers.best(_limit(offers, scores, budget), budget.asked)


def must_be_possible(offers: Offers, scores: Mapping[str, Any], budget: Budget) -> None:
    """Raises Infeasible, with the smallest that is possible, where bytes or bits are too few; needs no losses. Raises
    UsageError where the target holds no mix of the model at all."""
    if offers.one_scheme and not offers.throughout():
        raise UsageError(
            "{target} cannot hold this: {why}. Use --for transformers.",
            target=offers.target.name,
            why=Message(
                "transformers leaves experts in the type of the stored scales, which is not the model's float32"
            ),
        )
    if budget.kind == "time" and budget.costs is not None:
        Timed.of(offers.addresses, offers.names, offers.options, budget.costs).must_be_possible(budget)
    if budget.kind in ("quality", "time") or offers.least() <= _limit(offers, scores, budget):
        return
    rest = header_bytes(scores) if budget.kind == "bytes" else 0
    raise Infeasible(
        "{budget} cannot be met: everything at its smallest takes {smallest:,} bytes ({bits:.2f} bits a parameter), "
        "the budget has room for {room:,}. Give at least {smallest:,} bytes, or a target that holds smaller schemes "
        "(--for whet holds the most).",
        smallest=offers.least() + rest,
        budget=budget.asked,
        bits=offers.bits(offers.least()),
        room=_limit(offers, scores, budget) + rest,
    )


def _limit(offers: Offers, scores: Mapping[str, Any], budget: Budget) -> int:
    """Bytes of tensors within a budget of bytes or bits."""
    if budget.kind == "bits":
        return int(budget.value * offers.parameters / 8)
    return int(budget.value) - header_bytes(scores)


def _most(budget: Budget, most_kl: float | None) -> float:
    if budget.kind != "quality":
        return math.inf
    most = -math.log(budget.value)
    return most if most_kl is None else min(most, most_kl)


def _tie(part: Mapping[str, Any], target: Target) -> tuple[Any, ...]:
    """What a part is tied by: the tensor it is rows of, its block and fused roles or role of experts, or itself."""
    if "tensor" in part:
        return (part["tensor"],)
    if "expert" in part:  # runtimes run the experts of a block together
        return (part["block"], part["role"])
    key = None if part["block"] is None else tie(target, part["address"], part["role"])
    return (part["address"],) if key is None else (part["block"], key)


def _held(target: Target, part: Mapping[str, Any], scheme: str) -> bool:
    """Whether the target holds a part on a scheme that it was priced on."""
    return scheme in part["schemes"] and holds(target, parse_scheme(scheme), part["shape"][1], part["block"] is None)


def _bytes(part: Mapping[str, Any], scheme: str) -> int:
    return int(part["bytes"] if scheme == KEEP else part["schemes"][scheme]["bytes"])


def _loss(part: Mapping[str, Any], scheme: str) -> float:
    return 0.0 if scheme == KEEP else float(part["schemes"][scheme]["kl"])
