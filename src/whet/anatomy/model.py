"""The parts of one model: its linears by block, embedding, head, ties, and the tensors no table names.

A linear is a *view* of a stored parameter: all of it, some of its rows, one expert of a stack, transposed or not. Code
that scores or rounds weights asks for `[out, in]` and never needs to know how they are stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from whet.anatomy.families import FAMILIES, Family, LinearName, architecture_of
from whet.anatomy.unknown import described
from whet.errors import UsageError, did_you_mean
from whet.messages import Message


@dataclass(frozen=True)
class View:
    """A matrix inside a parameter: all of it, `rows` (start, end) of it, one `expert` of a stack, stored `[in, out]` or
    `[out, in]`."""

    parameter: str
    rows: tuple[int, int] | None = None
    expert: int | None = None
    transposed: bool = False

    def place(self, address: str) -> dict[str, Any] | None:
        """The view as JSON, or None where it is all of `address`'s own weight."""
        said = {"rows": list(self.rows) if self.rows else None, "expert": self.expert, "transposed": self.transposed}
        told = {key: value for key, value in said.items() if value is not None and value is not False}
        if not told and self.parameter == f"{address}.weight":
            return None
        return {"parameter": self.parameter, **told}

    def of(self, parameter: Tensor) -> Tensor:
        """The `[out, in]` matrix; writing into it writes the parameter."""
        if self.expert is not None:
            parameter = parameter[self.expert]
        if self.transposed:
            parameter = parameter.t()
        return parameter if self.rows is None else parameter[self.rows[0] : self.rows[1]]


@dataclass(frozen=True)
class Linear:
    """One weight matrix, wherever it is stored.

    address: its name in the original, e.g. `model.layers.3.mlp.down_proj`; rows of a fused tensor add their role
    (`….qkv_proj.q`). parameter: the tensor that holds it. shape: `(out, in)`. reads: name of the input it shares with
    others of its block. rows: start and end in a fused parameter. expert: index into a stacked `[experts, …]`
    parameter. transposed: stored `[in, out]`. place: where the model that transformers builds holds it, which for
    experts is not where files do.
    """

    address: str
    parameter: str
    role: str
    shape: tuple[int, int]
    reads: str = ""
    rows: tuple[int, int] | None = None
    expert: int | None = None
    transposed: bool = False
    place: View | None = None

    @property
    def stored(self) -> View:
        """Where files hold it."""
        return View(self.parameter, self.rows, self.expert, self.transposed)

    @property
    def held(self) -> View:
        """Where the model holds it."""
        return self.place or self.stored

    @property
    def fused(self) -> bool:
        """Whether it is a part of its stored tensor only."""
        return self.rows is not None or self.expert is not None

    def view(self, parameter: Tensor) -> Tensor:
        """The `[out, in]` view of this linear in its stored parameter; writing into it writes the parameter."""
        return self.stored.of(parameter)


@dataclass(frozen=True)
class Piece:
    """A matrix of `shape` (out, in) that is stored by itself as `address`: one linear, or `linears` that are all rows
    of a tensor. `held` is where the model has it."""

    address: str
    linears: tuple[Linear, ...]
    shape: tuple[int, int]
    held: View


@dataclass(frozen=True)
class Module:
    """A module of the model's blocks called `name`, whose weight of `shape` (out, in) has `linears` for rows, in order;
    those that stay as they were among them."""

    name: str
    linears: tuple[Linear, ...]
    shape: tuple[int, int]


@dataclass(frozen=True)
class Anatomy:
    """A model's parts.

    `blocks[i]` are the linears of block i and `block_tensors[i]` every tensor stored for it, `prefixes[i]` the name of
    its module with a final dot; `head` is None where it is tied to the embedding, or where the model ends in something
    else than a table. `unnamed` tensors are in no table and are copied; `dropped` is a stored copy of a tied head,
    which nobody reads. `names` are the model's names of stored tensors that it calls otherwise, and `experts` how many
    each block's feed-forward has.
    """

    family: Family
    model_type: str
    blocks: list[list[Linear]]
    embedding: Linear
    head: Linear | None
    block_tensors: list[list[str]]
    other_tensors: list[str]
    unnamed: list[str]
    dropped: str | None = None
    task: str = "causal"
    prefixes: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def tied(self) -> bool:
        """Whether embedding and head are one tensor."""
        return self.head is None and self.task == "causal"

    def linears(self) -> list[Linear]:
        """Every linear of every block, in the order of the model."""
        return [linear for block in self.blocks for linear in block]

    def block_prefix(self, index: int) -> str:
        """Module name of block `index`, with a final dot."""
        return self.prefixes[index]

    def name(self, stored: str) -> str:
        """What the model calls a stored tensor."""
        return self.names.get(stored, stored)

    def pieces(self, schemes: Mapping[str, Any]) -> list[Piece]:
        """What is stored apart from the original's tensors when linears have `schemes` (by address; others are kept).

        Rows of one tensor that have one scheme are stored together. Where some have another, each is stored by itself,
        those that are kept too.
        """
        tables = [linear for linear in (self.embedding, self.head) if linear is not None]
        sharing: dict[str, list[Linear]] = {}
        for linear in (*self.linears(), *tables):
            sharing.setdefault(linear.parameter, []).append(linear)
        found: list[Piece] = []
        for linears in sharing.values():
            mine = {schemes.get(linear.address) for linear in linears}
            if mine == {None}:
                continue
            if len(linears) > 1 and len(mine) == 1 and linears[0].expert is None:
                first = linears[0]
                shape = (sum(linear.shape[0] for linear in linears), first.shape[1])
                held = View(first.held.parameter, None, None, first.transposed)
                found.append(Piece(first.parameter.removesuffix(".weight"), tuple(linears), shape, held))
            else:
                found += [Piece(linear.address, (linear,), linear.shape, linear.held) for linear in linears]
        return found

    def modules(self, schemes: Mapping[str, Any]) -> list[Module]:
        """The modules of the blocks, in order, in which some linear has one of `schemes` (by address).

        Stacked experts are parameters and no modules: nothing of theirs is among them.
        """
        sharing: dict[str, list[Linear]] = {}
        for linear in self.linears():
            if linear.held.expert is None:
                sharing.setdefault(linear.held.parameter, []).append(linear)
        return [
            Module(name.removesuffix(".weight"), tuple(rows), (sum(x.shape[0] for x in rows), rows[0].shape[1]))
            for name, rows in sharing.items()
            if any(linear.address in schemes for linear in rows)
        ]

    def moved(self) -> dict[str, View]:
        """Linears that the model does not hold as a whole tensor of its own although files do, such as experts."""
        return {
            linear.address: linear.held
            for linear in self.linears()
            if not linear.fused and (linear.held.rows is not None or linear.held.expert is not None)
        }


def anatomy(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], source: str = "the model") -> Anatomy:
    """Read the parts off a model's `config` and the `shapes` of its stored tensors.

    A family that is not in the table is described by the model that transformers builds: only the linears in its
    longest list of blocks. Raises UsageError for one that transformers does not know either, for an already quantized
    model, and where config and tensors disagree about what there is.
    """
    if config.get("quantization_config") or config.get("whet"):
        settings = config.get("quantization_config") or {}
        method = settings.get("quant_method", "whet") if isinstance(settings, dict) else "whet"
        raise UsageError(
            "{source} is already quantized ({method}), so its weights are not the original's any more. Give whet the "
            "original (unquantized) checkpoint; it is usually named in the model card as base_model.",
            source=source,
            method=method,
        )
    model_type = str(config.get("model_type", ""))
    family = FAMILIES.get(model_type) or described(config, len(shapes))
    if family is None:
        raise UsageError(
            "{source} is of the family {family!r}, which neither whet nor transformers knows.{near} Families: {known}.",
            source=source,
            family=model_type or Message("(none named)"),
            near=did_you_mean(model_type, FAMILIES) if model_type else "",
            known=", ".join(FAMILIES),
        )
    counts: list[Any] = []
    for key in family.count:
        # a config that was made by hand may name the blocks as most others do, and only those of the first stack
        count = config.get(key, counts[0] if counts else config.get("num_hidden_layers"))
        if family.known and (not isinstance(count, int) or count < 1):
            raise UsageError(
                "{source}: config.json says {key} = {count!r}, not a number of blocks. Download it again.",
                source=source,
                key=key,
                count=count,
            )
        counts.append(count)
    names = {stored: family.module_name(stored) for stored in shapes}
    stored_as = {name: stored for stored, name in names.items()}
    if len(stored_as) != len(names):
        twice = next(n for n in names if stored_as[names[n]] != n)
        raise UsageError(
            "{source}: {name} and {other} are the same tensor under two names. The folder is a mix of two downloads; "
            "download it again.",
            source=source,
            name=twice,
            other=stored_as[names[twice]],
        )
    found: dict[str, list[str]] = {}
    other: list[str] = []
    pattern = re.compile("(" + "|".join(re.escape(stack) for stack in family.stacks) + r")\.(\d+)\.")
    for stored, name in names.items():
        match = pattern.match(name)
        if match and not name.endswith(family.computed):
            found.setdefault(match.group(), []).append(stored)
        else:
            other.append(stored)
    prefixes: list[str] = []
    for stack, key, count in zip(family.stacks, family.count, counts, strict=True):
        mine = {int(prefix[len(stack) + 1 : -1]) for prefix in found if prefix.startswith(f"{stack}.")}
        if not family.known:
            count = len(mine)
        if not mine or len(mine) != count or max(mine) != count - 1:
            raise UsageError(
                "{source}: config.json says {key} = {count}, the weight files hold {blocks} blocks named {stack}.<n>. "
                "One of the two is from another model; download the folder again.",
                source=source,
                key=key,
                count=count,
                blocks=len(mine),
                stack=stack,
            )
        prefixes += [f"{stack}.{index}." for index in range(count)]
    where = _Stored(config, shapes, stored_as, source)
    blocks = [_block(family, prefix, where) for prefix in prefixes]
    embedding = where.table(family.embedding, "embedding", "tokens")
    width = blocks[0][0].shape[1]
    if family.known and embedding.shape[1] != width:
        raise UsageError(
            "{source}: its embedding is {embedding} wide and its blocks are {width}, with a projection in between. No "
            "{family} that whet knows has one; use a checkpoint where the two are alike.",
            source=source,
            embedding=embedding.shape[1],
            width=width,
            family=family.title,
        )
    task = family.task(architecture_of(config))
    head_name = stored_as.get(f"{family.head}.weight", f"{family.head}.weight")
    tied = bool(config.get("tie_word_embeddings", family.ties))
    whole = task == "causal" and family.known
    if whole and not tied and head_name not in shapes:
        raise UsageError(
            "{source}: tensor {name} is missing, and config.json does not tie it to the embedding. The folder is "
            "incomplete: download it again (or set tie_word_embeddings to true, if the model was trained so).",
            source=source,
            name=head_name,
        )
    head = where.table(family.head, "head", "final hidden states") if whole and not tied else None
    named = {embedding.parameter, *((head.parameter,) if head else ())}
    beside = tuple(f"{name}." for name in (family.norm, family.head, *family.beside) if name)
    return Anatomy(
        family=family,
        model_type=model_type,
        blocks=blocks,
        embedding=embedding,
        head=head,
        block_tensors=[found[prefix] for prefix in prefixes],
        other_tensors=other,
        unnamed=[n for n in other if n not in named and not names[n].startswith(beside)],
        dropped=head_name if tied and family.known and head_name in shapes else None,
        task=task,
        prefixes=prefixes,
        names={stored: name for stored, name in names.items() if stored != name},
    )


class _Stored:
    """Linears by their modules' names, found among stored tensors of `shapes`."""

    def __init__(
        self,
        config: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        stored_as: Mapping[str, str],
        source: str,
    ) -> None:
        self.config, self.shapes, self.stored_as, self.source = config, shapes, stored_as, source

    def has(self, parameter: str) -> bool:
        """Whether the files hold the model's `parameter`."""
        return parameter in self.stored_as

    def matrix(self, parameter: str, dimensions: int = 2) -> tuple[str, tuple[int, ...]]:
        """Stored name and shape of the model's `parameter`."""
        stored = self.stored_as.get(parameter, parameter)
        shape = self.shapes.get(stored)
        if shape is None:
            raise UsageError(
                "{source}: tensor {name} is missing. The folder is incomplete or config.json names another family; "
                "download it again.",
                source=self.source,
                name=stored,
            )
        if len(shape) != dimensions:
            raise UsageError(
                "{source}: tensor {name} has shape {shape} instead of two dimensions. The folder is incomplete or "
                "config.json names another family; download it again.",
                source=self.source,
                name=stored,
                shape=list(shape),
            )
        return stored, shape

    def table(self, module: str, role: str, reads: str) -> Linear:
        """Embedding or head."""
        stored, shape = self.matrix(f"{module}.weight")
        place = View(f"{module}.weight")
        return Linear(stored.removesuffix(".weight"), stored, role, (shape[0], shape[1]), reads, place=place)

    def rows(self, names: list[LinearName], whole: int, what: str) -> list[tuple[int, int]]:
        """Which rows of `whole` each of `names` has."""
        shares = []
        for name in names:
            share = self.config.get(name.share, 1) if name.share else 1
            if not isinstance(share, int) or share < 1:
                raise UsageError(
                    "{source}: config.json says {key} = {value!r}. Download it again.",
                    source=self.source,
                    key=name.share,
                    value=share,
                )
            shares.append(share)
        if whole % sum(shares):
            raise UsageError(
                "{source}: the {rows} rows of {name} are not {shares} equal parts, as config.json says. Weights and "
                "config are of different models; download the folder again.",
                source=self.source,
                rows=whole,
                name=what,
                shares=" + ".join(map(str, shares)),
            )
        unit, start, found = whole // sum(shares), 0, []
        for share in shares:
            found.append((start, start + share * unit))
            start += share * unit
        return found


def _block(family: Family, prefix: str, where: _Stored) -> list[Linear]:
    """The linears of the block whose module is `prefix`."""
    names = list(family.linears)
    if family.alternatives:
        names += next(
            (kind for kind in family.alternatives if _present(kind[0], prefix, where)), family.alternatives[0]
        )
    found: list[Linear] = []
    for name in names:
        if name.held:
            found += _experts(name, [n for n in names if n.held == name.held], prefix, where)
            continue
        parameter = f"{prefix}{name.path}.weight"
        stored, shape = where.matrix(parameter)
        columns, rows = shape if name.transposed else shape[::-1]
        together = [n for n in names if n.path == name.path]
        address, part = stored.removesuffix(".weight"), None
        if len(together) > 1:
            part = where.rows(together, rows, stored)[together.index(name)]
            address, rows = f"{address}.{name.role}", part[1] - part[0]
        found.append(
            Linear(
                address,
                stored,
                name.role,
                (rows, columns),
                name.reads,
                part,
                None,
                name.transposed,
                View(parameter, part, None, name.transposed),
            )
        )
    return found


def _present(name: LinearName, prefix: str, where: _Stored) -> bool:
    return where.has(f"{prefix}{name.path.format(0)}.weight") or (bool(name.held) and where.has(prefix + name.held))


def _experts(name: LinearName, together: list[LinearName], prefix: str, where: _Stored) -> list[Linear]:
    """One linear for every expert, stored by itself or in the stack that the model has."""
    place = together.index(name)
    found: list[Linear] = []
    if where.has(prefix + name.held):
        stored, (count, whole, columns) = where.matrix(prefix + name.held, 3)
        start, end = where.rows(together, whole, stored)[place]
        rows = (start, end) if len(together) > 1 else None
        for expert in range(count):
            address = prefix + name.path.format(expert)
            reads = name.reads.format(expert)
            found.append(Linear(address, stored, name.role, (end - start, columns), reads, rows, expert,
                                place=View(prefix + name.held, rows, expert)))  # fmt: skip
        return found
    expert = 0
    while expert == 0 or where.has(f"{prefix}{name.path.format(expert)}.weight"):
        stored, (height, columns) = where.matrix(f"{prefix}{name.path.format(expert)}.weight")
        rows = (place * height, (place + 1) * height) if len(together) > 1 else None
        found.append(
            Linear(
                stored.removesuffix(".weight"),
                stored,
                name.role,
                (height, columns),
                name.reads.format(expert),
                place=View(prefix + name.held, rows, expert),
            )
        )
        expert += 1
    return found
