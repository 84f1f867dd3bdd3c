"""What every grid is. Solvers, formats and targets ask for nothing else, and for no grid's class.

`Grid` is where numbers may land, plain floats among them. `CodedGrid` is one whose values have codes that a solver
chooses: `Grid.coded` gives it, or None.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from whet.checkpoint.codes_whet import codes_of
from whet.errors import UsageError
from whet.grids.inputs import InputGrid
from whet.grids.levels import Levels
from whet.grids.packing import unpack_columns
from whet.grids.relaxed import Relaxed

Params = dict[str, Tensor]
Zero = Literal["none", "int", "real"]
INTEGER, PLAIN = "integer", "plain"


class Grid(ABC):
    """Where a linear's weights may land.

    name: the scheme a user would type. bits: of a code. group: weights along a row that share parameters, 0 for the
    whole row. rows: how many rows share them too, 0 for all. zero: `none` (no parameter tells where zero is), `int` or
    `real`. scale_dtype: stored type of scales. inputs: where the linear's inputs land while the model runs; None leaves
    them as they are.
    """

    group: int
    rows: int = 1
    inputs: InputGrid | None = None

    if TYPE_CHECKING:  # fields of some grids, properties of others

        @property
        def name(self) -> str: ...

        @property
        def bits(self) -> int: ...

        @property
        def zero(self) -> Zero: ...

        @property
        def scale_dtype(self) -> torch.dtype: ...

    @property
    def multiple(self) -> int:
        """What must divide a row, wherever it is stored."""
        return 1

    # -- facts ----------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def kind(self) -> str:
        """What targets call it, whatever its group: INTEGER, PLAIN (a type that weights are merely cast to), or the
        name of its format (`FP8`, `nf4`, `Q4_K`)."""

    @property
    def coded(self) -> CodedGrid | None:
        """Itself, where its values have codes that a solver chooses."""
        return None

    @property
    def compressed(self) -> dict[str, Any] | None:
        """How compressed-tensors calls it: a `format` and the `weights` of a config group; None where it has no such
        grid."""
        return None

    @property
    def uncompressed(self) -> str:
        """Why compressed-tensors has nothing of its kind; empty where it has."""
        return ""

    @abstractmethod
    def groups(self, columns: int) -> list[tuple[int, int]]:
        """Start and end column of every group of a row of `columns` weights."""

    @abstractmethod
    def nbytes(self, rows: int, columns: int) -> int:
        """Exact bytes of codes and parameters of a `[rows, columns]` matrix as `stored_parts` has them, its shape left
        out."""

    # -- its like -------------------------------------------------------------------------------------------------

    def suited(self, w: Tensor) -> Grid:
        """The grid with what all of the tensor `w [out, in]` shares."""
        return self

    def safe(self, w: Tensor) -> Grid:
        """The grid with scales of a type that holds those of `w [out, in]`."""
        return self

    def regrouped(self, group: int) -> Grid | None:
        """The grid with another group; None where the group belongs to it."""
        return None

    def unpacking(self) -> Grid:
        """The grid with codes a byte each, where it has that beside rounded inputs."""
        return self

    def with_inputs(self, inputs: InputGrid | None) -> Grid:
        """The grid for linears whose inputs are rounded to `inputs`. Raises UsageError where no runtime has that."""
        if inputs is None:
            return self
        raise UsageError(
            "{scheme} has weights alone: inputs are rounded beside int2 to int8, FP8, NVFP4 and MXFP4.",
            scheme=self.name,
        )

    # -- values ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def fit(self, w: Tensor, importance: Tensor | None = None) -> Params:
        """Parameters, as stored, that bring nearest rounding of `w [out, in]` closest, in importance-weighted squares.

        importance: `[in]` (a diagonal second moment) or `[out, in]`, non-negative; None weighs all columns alike.
        """

    @abstractmethod
    def encode(self, w: Tensor, params: Params) -> Tensor:
        """Nearest codes of `w [out, in]` given its params."""

    @abstractmethod
    def decode(self, codes: Tensor, params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix `[out, in]` that `codes` and `params` stand for, computed in `dtype`."""

    # -- files ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def table_entry(self, decode: str) -> dict[str, Any]:
        """How a linear on it is read: an entry of a form that `checkpoint.modeling_whet` has, whose `decode` gives what
        this grid's does.

        decode: the type its weights are multiplied out in, where the grid leaves that open: the model's (`model`), that
        of the stored scales (`scale`, as compressed-tensors does when it dequantizes) or `float32` (as ggml does).
        """

    @abstractmethod
    def stored_parts(self, codes: Tensor, params: Params) -> dict[str, Tensor]:
        """The tensors of one linear, by the names in `checkpoint.modeling_whet`, for codes `[out, in]`."""


class CodedGrid(Grid):
    """A grid whose values have codes, uint8, next to each other where the values are."""

    @property
    def coded(self) -> CodedGrid:
        """Itself."""
        return self

    # -- values ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def bind(self, params: Params) -> Levels:
        """The grid's levels under `params`, float32, ready to round many tensors that `params` broadcast against."""

    @abstractmethod
    def dequantize(self, codes: Tensor, params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values of `codes`, in the type the target computes in; `params` broadcast against `codes`."""

    @abstractmethod
    def zero_value(self, params: Params) -> Tensor | None:
        """The code whose value is exactly 0 (broadcastable like `params`), or None where the grid has none."""

    @abstractmethod
    def stored(self, x: Tensor) -> Tensor:
        """Scales, or real zeros, as they will be stored."""

    def read_parts(self, parts: dict[str, Tensor]) -> tuple[Tensor, Params]:
        """Codes uint8 `[out, in]` and parameters of one linear from its stored tensors, the other way round."""
        entry = self.table_entry("float32")
        rows, columns = (int(n) for n in parts["weight_shape"])
        params = {"scale": parts["weight_scale"]}
        if "weight_zero_point" in parts:
            params["zero"] = unpack_columns(parts["weight_zero_point"], entry["bits"], rows)
        if "weight_offset" in parts:
            params["offset"] = parts["weight_offset"]
        if "part_bits" in entry:  # whole numbers of each part: of scales, and then of offsets
            numbers = unpack_columns(parts["weight_parts"], entry["part_bits"], rows)
            names = ("part_scale", "part_offset")[: len(params)]
            params |= dict(zip(names, numbers.chunk(len(names), 1), strict=True))
        return codes_of(parts["weight_packed"], entry, columns), params

    def spread(self, params: Params, count: int) -> Params:
        """Parameters of each of `count` groups, `[out, groups]`: its own, and what it shares with others."""
        return {k: v.repeat_interleave(count // v.shape[1], 1) for k, v in params.items()}

    def relax(self, codes: Tensor, params: Params, pull: Tensor) -> Relaxed:
        """The rounded linear `codes [out, in]` as something that gradients reach, each weight moved a little the way of
        its `pull [out, in]`, short of another code."""
        return Relaxed(self, codes, params, pull)

    # -- solving, group by group ----------------------------------------------------------------------------------

    @abstractmethod
    def candidates(self, w: Tensor, importance: Tensor | None, keep: int, shared: Params | None = None) -> Params:
        """The `keep` best parameter sets `[keep, n]` of each row of `w [n, group]` under nearest rounding, best first.

        importance: `[group]`, `[n, group]` or None. shared: what groups share (`shared`), as of this group.
        """

    @abstractmethod
    def refit(self, codes: Tensor, gradient: Tensor, h: Tensor, params: Params) -> tuple[Params, Tensor] | None:
        """The best parameters `[out]` of one group for its `codes [group, out]`, and by how much they lower the loss.

        h: second moment of the group's inputs. gradient: h's product with what rounding leaves, all columns counted.
        None where no row gains.
        """

    def shared(self, w: Tensor, importance: Tensor | None = None) -> Params:
        """Parameters that several groups share, which are chosen before those of a group: there are none."""
        return {}

    def blocks(self, columns: int) -> dict[int, tuple[int, int, int]]:
        """Columns whose groups share parameters that are refitted (index, start, end), by the last of these groups:
        there are none."""
        return {}

    def group_params(self, params: Params, index: int) -> Params:
        """Those of group `index`, of `params` that have groups along their first dimension."""
        return {k: v[index] for k, v in params.items()}

    def refit_shared(
        self, codes: Tensor, gradient: Tensor, h: Tensor, params: Params, index: int
    ) -> tuple[Params, Tensor] | None:
        """The best of what block `index` shares for its `codes [columns, out]`, and what it saves: nothing that is
        shared is refitted, so nothing gains."""
        return None
