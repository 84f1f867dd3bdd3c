"""Measured time as a cost of a plan: what each matrix takes on each type. Pure: no model, no clock.

Of a file in one type and of files in which one class of shapes has another type, whole models were timed. A type's time
of a class is the difference, so that what is no matrix (attention, norms, the loop) is in `base` and nowhere else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from whet.budget.knapsack import Choice, Infeasible, Option, choose, fewest_bytes
from whet.errors import UsageError

KEEP = "keep"
# A correction by a whole file's time is at most so large: beyond it the machine changed, and not the estimate.
_MOST = 2.0
_ALIKE = 0.3  # of the base's time of a class: how far a type may be from taking as long a weight there as elsewhere
_GRAIN = 1e-8  # seconds that a plan counts in: a thousandth of what a small matrix takes
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(ms|s|us|µs)")
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}


@dataclass(frozen=True)
class Costs:
    """Seconds of a decoded token, batch 1, in a runtime on the machine that measured them.

    base: with every matrix of the base's type. over: what one matrix of a class takes over that, by class and type; it
    may be below 0. sixteen: seconds of the runtime's faster 16-bit file. parts: what share of which class's matrix a
    linear is, by address; kept: the type of one that stays as it is. factor: whole files took so many times what was
    added up. threads: of the processor. sixteen_type: of that file. beside: the type of the twin that files
    are timed beside, and `beside_seconds` what that took; twin_sixteen: what the 16-bit twin took. (A twin of a large
    model has fewer blocks.)
    """

    runtime: str
    threads: int
    base: float
    sixteen: float
    over: Mapping[str, Mapping[str, float]]
    parts: Mapping[str, Mapping[str, float]]
    kept: Mapping[str, str]
    sixteen_type: str
    twin_sixteen: float
    beside: str
    beside_seconds: float
    factor: float = 1.0

    def of(self, address: str, scheme: str) -> float:
        """Seconds that a linear takes on a scheme over what it takes on the base's type; infinite where that was not
        measured."""
        kind = self.kept[address] if scheme == KEEP else scheme
        return math.fsum(
            share * self.over[name].get(kind, math.inf)
            for name, share in self.parts[address].items()
            if name in self.over
        )

    def seconds(self, schemes: Mapping[str, str]) -> float:
        """What a token is predicted to take with a scheme for every linear, embedding and head."""
        return self.factor * (self.base + math.fsum(self.of(address, scheme) for address, scheme in schemes.items()))

    def beside_sixteen(self) -> Costs:
        """The same, for a limit that is a share of what 16 bits take: files are timed beside those."""
        return replace(self, beside=self.sixteen_type, beside_seconds=self.twin_sixteen)

    def corrected(self, schemes: Mapping[str, str], measured: float, weight: float = 1.0) -> Costs:
        """The same, so that `schemes` take what was `measured` of a whole file. weight: of this file among all that
        were timed so far, whose errors are averaged."""
        factor = self.factor * (measured / self.seconds(schemes)) ** weight
        return replace(self, factor=min(_MOST, max(1 / _MOST, factor)))


def over_base(
    uniform: Mapping[str, float],
    single: Mapping[str, Mapping[str, tuple[float, float]]],
    base: float,
    shares: Mapping[str, float],
    counts: Mapping[str, int],
) -> dict[str, dict[str, float]]:
    """What a matrix of each class takes over the base's type, by type.

    uniform: seconds of a file with everything on a type. single: of one with a class on it and the rest on the base's,
    with their standard error, by class and type. shares: of all weights, by class; counts: matrices of each class.

    A weight of a type takes about as long in every class, so that is where a class's time is looked for: `_ALIKE` of
    its share of the base around its share of the uniform file's. What was measured counts as its error allows, and what
    the classes then miss of the uniform file goes to those that are least certain.
    """
    found: dict[str, dict[str, float]] = {name: {} for name in single}
    for kind in {kind for kinds in single.values() for kind in kinds}:
        among = {name: kinds[kind] for name, kinds in single.items() if kind in kinds}
        whole = uniform.get(kind)
        likely: dict[str, tuple[float, float]] = {}
        for name, (seconds, error) in among.items():
            looked = seconds - base if whole is None else (whole - base) * shares[name]
            variance = (_ALIKE * base * shares[name]) ** 2
            trust = variance / (variance + error**2) if error else 1.0
            likely[name] = (looked + trust * (seconds - base - looked), variance * (1 - trust))
        missed = 0.0
        if whole is not None and len(among) == len(single):
            missed = whole - base - math.fsum(value for value, _ in likely.values())
        unsure = math.fsum(variance for _, variance in likely.values()) + max(error for _, error in among.values()) ** 2
        for name, (value, variance) in likely.items():
            found[name][kind] = (value + (missed * variance / unsure if unsure else 0.0)) / counts[name]
    return found


def of_all_blocks(whole: float, half: float, depth: int, halved: int, blocks: int) -> float:
    """Seconds of a model of `blocks` blocks, of which twins of `depth` and `halved` blocks were timed."""
    if depth in (blocks, halved):
        return whole
    return whole + max(whole - half, 0.0) / (depth - halved) * (blocks - depth)


@dataclass(frozen=True)
class Budget:
    """What must not be exceeded, as it was `asked` for.

    kind: `bytes` (of the weight files), `bits` (stored bits a parameter, everything counted), `quality` (a share q of
    the original's: mean KL at most −ln q) or `time` (seconds of a decoded token). value: the number. costs: of a time;
    and of a quality that is to be kept in the least time instead of the fewest bytes.
    """

    kind: str
    value: float
    asked: str
    costs: Costs | None = None

    def record(self) -> dict[str, Any]:
        """As JSON; what no time was measured for says nothing of it."""
        return {key: value for key, value in asdict(self).items() if key != "costs" or value is not None}

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Budget:
        """From `record`."""
        known = record.get("costs")
        return cls(**{**record, "costs": None if known is None else Costs(**known)})


def parse_time(text: str | float) -> float:
    """Seconds that `30ms`, `0.03s` or `800us` mean. Raises UsageError that says what to write."""
    match = _TIME.fullmatch(str(text).strip())
    seconds = 0.0 if match is None else float(match[1]) * _UNITS[match[2]]
    if match is None or seconds <= 0:
        raise UsageError(
            "{time!r} is no time of a decoded token. Write a number above 0 with a unit, such as 30ms or 0.03s.",
            time=str(text),
        )
    return seconds


def time_of(budget: Budget, schemes: Mapping[str, str]) -> dict[str, Any]:
    """What a plan says of time, where it was counted: an entry `time`."""
    if (costs := budget.costs) is None:
        return {}
    limit = budget.value if budget.kind == "time" else None
    told = {"runtime": costs.runtime, "threads": costs.threads, "sixteen": costs.sixteen}
    return {"time": {**told, "limit": limit, "predicted": costs.seconds(schemes)}}


@dataclass(frozen=True)
class Timed:
    """Options of groups with time where others have bytes, in steps of `_GRAIN` above what a group takes at the least.

    picks: the index of each option among the group's own. fixed: seconds of everything at its fastest.
    """

    options: list[list[Option]]
    picks: list[list[int]]
    fixed: float

    @classmethod
    def of(
        cls,
        addresses: Sequence[Sequence[str]],
        names: Sequence[Sequence[str]],
        options: Sequence[Sequence[Option]],
        costs: Costs,
    ) -> Timed:
        """Of groups of linears with their schemes' names and options in bytes. Schemes that were not timed, because
        others are faster with more bits, are left out."""
        found: list[list[Option]] = []
        picks: list[list[int]] = []
        least = costs.base
        for own, schemes, group in zip(addresses, names, options, strict=True):
            seconds = [math.fsum(costs.of(address, scheme) for address in own) for scheme in schemes]
            kept = [index for index, value in enumerate(seconds) if math.isfinite(value)]
            low = min(seconds[index] for index in kept)
            least += low
            found.append([Option(round(costs.factor * (seconds[i] - low) / _GRAIN), group[i].loss) for i in kept])
            picks.append(kept)
        return cls(found, picks, costs.factor * least)

    def within(self, budget: Budget) -> Choice:
        """The least loss within a time. Raises Infeasible with the fastest there is."""
        self.must_be_possible(budget)
        room = round((budget.value - self.fixed) / _GRAIN)
        return self._own(choose(self.options, room, budget.asked))

    def must_be_possible(self, budget: Budget) -> None:
        """Raises Infeasible where not even the fastest of every part keeps the time."""
        if self.fixed <= budget.value:
            return
        assert budget.costs is not None
        raise Infeasible(
            "{budget} cannot be kept in {runtime} on this machine: with everything at its fastest a token is predicted "
            "to take {smallest:.3g} ms ({speedup:.2f} times as fast as in 16 bits), and {limit:.3g} ms were asked for. "
            "Give at least that, or take blocks or channels out first (whet prune).",
            smallest=1e3 * self.fixed,
            budget=budget.asked,
            runtime=budget.costs.runtime,
            speedup=budget.costs.sixteen / self.fixed,
            limit=1e3 * budget.value,
        )

    def fastest(self, most: float, asked: str) -> Choice:
        """The least time with at most so much loss. Raises Infeasible."""
        return self._own(fewest_bytes(self.options, most, asked))

    def _own(self, choice: Choice) -> Choice:
        picks = [kept[pick] for kept, pick in zip(self.picks, choice.picks, strict=True)]
        return replace(choice, picks=picks)
