"""Which linears of a model share factors for their input channels, and what is divided by them in return."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from whet.anatomy.family import Fold
from whet.anatomy.layers import config_of
from whet.anatomy.model import Anatomy, Linear
from whet.messages import Message, with_or


@dataclass(frozen=True)
class Group:
    """Readers of one input, and what gives its channels.

    name: address of what gives them. readers: linears whose columns are multiplied, one factor a channel. kept: stored
    matrices `[out, in]` beside them that are multiplied too. giver: the linear whose rows are divided, None where a
    norm gives the channels. vectors: stored names of what else is divided (a norm's weight and bias, a linear's bias)
    and the rows of it, None for all. adds: what is added to the first of them where it is used. heads: how many heads
    the giver has, and how many heads of the readers read each.
    """

    name: str
    readers: tuple[Linear, ...]
    kept: tuple[str, ...]
    giver: Linear | None
    vectors: tuple[tuple[str, tuple[int, int] | None], ...]
    adds: float = 0.0
    heads: tuple[int, int] = (1, 1)

    @property
    def given(self) -> int:
        """How many channels are given, each with a factor of its own."""
        return self.readers[0].shape[1] // self.heads[1]

    def source(self) -> list[int]:
        """For each channel `[in]` that is read, the number of the one given."""
        size = self.given // self.heads[0]
        return [
            head * size + place for head in range(self.heads[0]) for _ in range(self.heads[1]) for place in range(size)
        ]


@dataclass(frozen=True)
class Unfolded:
    """An input `reads` of the linear `address` that no factor folds into, and `why`."""

    address: str
    reads: str
    why: Message


@dataclass(frozen=True)
class Stream:
    """What of a block touches the residual stream. read: each norm with everything that reads it; writers: the linears
    whose outputs are added to the stream; biases: stored names of theirs."""

    read: tuple[Group, ...]
    writers: tuple[Linear, ...]
    biases: tuple[str, ...]


def stream(parts: Anatomy, index: int) -> Stream:
    """How block `index` touches the residual stream, for a family that says what `writes` onto it."""
    stored = {parts.name(name): name for name in parts.block_tensors[index]}
    writers = tuple(linear for linear in parts.blocks[index] if linear.role in parts.family.writes)
    biases = (f"{linear.held.parameter.removesuffix('.weight')}.bias" for linear in writers)
    read = tuple(group for group in fold_groups(parts, index)[0] if group.giver is None)
    return Stream(read, writers, tuple(stored[name] for name in biases if name in stored))


def fold_groups(parts: Anatomy, index: int) -> tuple[list[Group], list[Unfolded]]:
    """The groups of block `index`, and the inputs that are in none."""
    return _Block(parts, index).found()


class _Block:
    def __init__(self, parts: Anatomy, index: int) -> None:
        self.parts, self.config = parts, config_of(parts.config, index)
        self.linears = parts.blocks[index]
        self.prefix = parts.block_prefix(index)
        self.stored = {parts.name(n).removeprefix(self.prefix): n for n in parts.block_tensors[index]}

    def found(self) -> tuple[list[Group], list[Unfolded]]:
        groups: list[Group] = []
        left: list[Unfolded] = []
        known: set[str] = set()
        for fold in self.parts.family.folds:
            readers = [linear for linear in self.linears if _any_expert(linear.reads) in fold.reads]
            known |= {linear.reads for linear in readers}
            for together in self._apart(fold, readers):
                group = self._group(fold, together)
                if isinstance(group, Group):
                    groups.append(group)
                else:
                    left.append(Unfolded(together[0].address, _any_expert(together[0].reads), group))
        for linear in self.linears:
            if linear.reads not in known:
                known.add(linear.reads)
                left.append(Unfolded(linear.address, linear.reads, Message("whet has no table of what gives it")))
        return _joined(groups), left

    def _apart(self, fold: Fold, readers: list[Linear]) -> list[list[Linear]]:
        """A norm gives all its readers the same; linears give each input apart."""
        if fold.norm:
            return [readers] if readers else []
        by_input: dict[str, list[Linear]] = {}
        for linear in readers:
            by_input.setdefault(linear.reads, []).append(linear)
        return list(by_input.values())

    def _group(self, fold: Fold, readers: list[Linear]) -> Group | Message:
        """The group, or why there is none."""
        if fold.why:
            return fold.why
        if fold.only and self.config.get(fold.only) is False:
            return Message(
                "the norm comes after, so what is read is the residual stream ({entry} is false)", entry=fold.only
            )
        if fold.norm:
            return self._after_norm(fold, readers)
        gated = any(
            linear.role.endswith("gate") and linear.reads == self._giver(fold, readers).reads for linear in self.linears
        )
        act = self.config.get(fold.act, fold.usual) if fold.act and not gated else "relu"
        if act != "relu":
            return Message("{act} stands in between", act=act)
        return self._after_linear(fold, readers)

    def _after_norm(self, fold: Fold, readers: list[Linear]) -> Group | Message:
        norm = next((name for name in fold.norm if f"{name}.weight" in self.stored), None)
        if norm is None:
            return Message("its norm ({names}) has no weight", names=with_or(fold.norm))
        vectors = [self.stored[f"{norm}.{leaf}"] for leaf in ("weight", "bias") if f"{norm}.{leaf}" in self.stored]
        kept = [self.stored[f"{name}.weight"] for name in fold.kept if f"{name}.weight" in self.stored]
        return Group(
            f"{self.prefix}{norm}",
            tuple(readers),
            tuple(kept),
            None,
            tuple((name, None) for name in vectors),
            self.parts.family.norm_adds,
        )

    def _giver(self, fold: Fold, readers: list[Linear]) -> Linear:
        expert = readers[0].held.expert
        return next(linear for linear in self.linears if linear.role == fold.by and linear.held.expert == expert)

    def _after_linear(self, fold: Fold, readers: list[Linear]) -> Group | Message:
        giver = self._giver(fold, readers)
        given, read = giver.shape[0], readers[0].shape[1]
        heads = (1, 1)
        if fold.heads:
            # a config may leave the entry out where every head has keys and values of its own
            count = self.config.get(fold.heads)
            count = count if isinstance(count, int) and count > 0 else 1 if given == read else 0
            if not count or given % count or read % given:
                return Message(
                    "config.json says {key} = {value!r}, which {rows} rows are not of",
                    key=fold.heads,
                    value=self.config.get(fold.heads),
                    rows=given,
                )
            heads = (count, read // given)
        elif given != read:
            return Message(
                "{name} gives {given} channels and {read} are read", name=giver.address, given=given, read=read
            )
        bias = giver.held.parameter.removeprefix(self.prefix).removesuffix(".weight") + ".bias"
        vectors = ((self.stored[bias], giver.rows),) if bias in self.stored else ()
        return Group(giver.address, tuple(readers), (), giver, vectors, 0.0, heads)


def _joined(groups: list[Group]) -> list[Group]:
    """One group for a norm that several folds end at, as in blocks whose attention and feed-forward run in parallel."""
    found: dict[str, Group] = {}
    for group in groups:
        before = found.get(group.name)
        if before is None or group.giver is not None:
            found[group.name] = group
            continue
        kept = tuple(dict.fromkeys((*before.kept, *group.kept)))
        found[group.name] = replace(before, readers=(*before.readers, *group.readers), kept=kept)
    return list(found.values())


def _any_expert(reads: str) -> str:
    return re.sub(r"\d+", "{}", reads)
