"""What a runtime's graph is asked for while a model is written into it, operation by operation. A runtime is added as
one file with a class that has these methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from whet.formats.graphs.weights import Coded

ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "gelu_new", "relu")


@dataclass(frozen=True)
class Attention:
    """The attention of block `index`: heads and how wide each is; `rope` names its table of angles, None for positions
    that it is not told; `window` tokens that it looks back at, itself among them, 0 for all; softcap: c where scores z
    become c tanh(z / c), 0 for none."""

    index: int
    heads: int
    kv_heads: int
    width: int
    scale: float
    rope: str | None = None
    window: int = 0
    softcap: float = 0.0


class Graph(Protocol):
    """A graph that is written. Values `x` are of the graph, `[batch, tokens, channels]` float32; tensors are
    PyTorch's."""

    def embed(self, matrix: Coded | Tensor, name: str) -> Any:
        """Rows of `matrix` for the tokens given."""

    def linear(self, x: Any, matrix: Coded | Tensor | None, name: str, bias: Tensor | None = None) -> Any:
        """`x Wᵀ`, with `bias` added. matrix: None where `name` was embedded already (a tied head)."""

    def rms_norm(self, x: Any, weight: Tensor, epsilon: float, heads: int = 0) -> Any:
        """x over the root of its mean square, times `weight`; heads: of each of so many parts by itself."""

    def layer_norm(self, x: Any, weight: Tensor, bias: Tensor, epsilon: float) -> Any:
        """x less its mean over its deviation, times `weight`, with `bias` added."""

    def add(self, x: Any, y: Any) -> Any:
        """The sum."""

    def multiply(self, x: Any, y: Any) -> Any:
        """The product; y: of the graph, or a number."""

    def activate(self, x: Any, kind: str) -> Any:
        """One of ACTIVATIONS."""

    def softcap(self, x: Any, cap: float) -> Any:
        """cap · tanh(x / cap)."""

    def angles(self, name: str, cos: Tensor, sin: Tensor) -> None:
        """Have a table of rotary angles `[positions, width / 2]`."""

    def attend(self, q: Any, k: Any, v: Any, how: Attention) -> Any:
        """Causal attention over what is cached and these tokens, which are cached too; before heads are mixed."""

    def attend_both_ways(self, q: Any, k: Any, v: Any, how: Attention) -> Any:
        """Attention of all tokens that the mask lets through, with no cache."""

    def shift(self, x: Any, table: Tensor, name: str) -> Any:
        """Row t of `table` added to token t (learned positions)."""

    def first(self, x: Any) -> Any:
        """The first token's channels `[batch, channels]`."""

    def answer(self, x: Any, name: str) -> None:
        """Make it an output."""
