"""The parts of one model: its linears by block, embedding, head, ties, and the tensors no table names.

A linear is a *view* of a stored parameter: all of it, some of its rows, one expert of a stack, transposed or not. Code
that scores or rounds weights asks for `[out, in]` and never needs to know how they are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from whet.anatomy.families import Family


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
    which nobody reads. `names` are the model's names of stored tensors that it calls otherwise. `config` are the
    entries of config.json that are about these parts: of a text model inside a larger one, its own.
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
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tied(self) -> bool:
        """Whether embedding and head are one tensor."""
        return self.head is None and self.task == "causal"

    def linears(self) -> list[Linear]:
        """Every linear of every block, in the order of the model."""
        return [linear for block in self.blocks for linear in block]

    @property
    def widest(self) -> int:
        """Columns of the widest linear of the blocks."""
        return max((linear.shape[1] for linear in self.linears()), default=0)

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
