"""The parts of one model: its linears by block, embedding, head, ties, and the tensors no table names.

A linear is a *view* of a stored parameter: all of it, some of its rows, one expert of a stack, transposed or not. Code
that scores or rounds weights asks for `[out, in]` and never needs to know how they are stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from whet.anatomy.families import FAMILIES, Family
from whet.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Linear:
    """One weight matrix, wherever it is stored.

    address: its name in the original, e.g. `model.layers.3.mlp.down_proj`. parameter: the tensor that holds it.
    shape: `(out, in)`. reads: name of the input it shares with others of its block. rows: start and end in a fused
    parameter. expert: index into a stacked `[experts, …]` parameter. transposed: stored `[in, out]`.
    """

    address: str
    parameter: str
    role: str
    shape: tuple[int, int]
    reads: str = ""
    rows: tuple[int, int] | None = None
    expert: int | None = None
    transposed: bool = False

    def view(self, parameter: Tensor) -> Tensor:
        """The `[out, in]` view of this linear in its stored parameter; writing into it writes the parameter."""
        if self.expert is not None:
            parameter = parameter[self.expert]
        if self.transposed:
            parameter = parameter.t()
        return parameter if self.rows is None else parameter[self.rows[0] : self.rows[1]]


@dataclass(frozen=True)
class Anatomy:
    """A model's parts.

    `blocks[i]` are the linears of block i and `block_tensors[i]` every tensor stored for it; `head` is None where it is
    tied to the embedding. `unnamed` tensors are in no table and are copied; `dropped` is a stored copy of a tied head,
    which nobody reads.
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

    @property
    def tied(self) -> bool:
        """Whether embedding and head are one tensor."""
        return self.head is None

    def linears(self) -> list[Linear]:
        """Every linear of every block, in the order of the model."""
        return [linear for block in self.blocks for linear in block]

    def block_prefix(self, index: int) -> str:
        """Module name of block `index`, with a final dot."""
        return f"{self.family.blocks}.{index}."


def anatomy(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], source: str = "the model") -> Anatomy:
    """Read the parts off a model's `config` and the `shapes` of its stored tensors.

    Raises UsageError for a family that is not in the table, for an already quantized model, and where config and
    tensors disagree about what there is.
    """
    if config.get("quantization_config") or config.get("whet"):
        settings = config.get("quantization_config") or {}
        method = settings.get("quant_method", "whet") if isinstance(settings, dict) else "whet"
        raise UsageError(
            f"{source} is already quantized ({method}), so its weights are not the original's any more. Give whet the "
            "original (unquantized) checkpoint; it is usually named in the model card as base_model."
        )
    model_type = str(config.get("model_type", ""))
    family = FAMILIES.get(model_type)
    if family is None:
        raise UsageError(
            f"{source} is of the family {model_type or '(none named)'!r}, which whet does not know."
            f"{did_you_mean(model_type, FAMILIES) if model_type else ''} Families: {', '.join(FAMILIES)}."
        )
    count = config.get("num_hidden_layers")
    if not isinstance(count, int) or count < 1:
        raise UsageError(
            f"{source}: config.json says num_hidden_layers = {count!r}, not a number of blocks. Download it again."
        )
    pattern = re.compile(re.escape(family.blocks) + r"\.(\d+)\.")
    found: dict[int, list[str]] = {}
    other: list[str] = []
    for name in shapes:
        match = pattern.match(name)
        if match and not name.endswith(family.computed):
            found.setdefault(int(match.group(1)), []).append(name)
        else:
            other.append(name)
    if sorted(found) != list(range(count)):
        raise UsageError(
            f"{source}: config.json says num_hidden_layers = {count}, the weight files hold {len(found)} blocks named "
            f"{family.blocks}.<n>. One of the two is from another model; download the folder again."
        )
    blocks = []
    for index in range(count):
        prefix = f"{family.blocks}.{index}."
        blocks.append([_linear(prefix + name.path, name.role, name.reads, shapes, source) for name in family.linears])
    embedding = _linear(family.embedding, "embedding", "tokens", shapes, source)
    head_name = f"{family.head}.weight"
    tied = bool(config.get("tie_word_embeddings", False))
    if not tied and head_name not in shapes:
        raise UsageError(
            f"{source}: tensor {head_name} is missing, and config.json does not tie it to the embedding. The folder "
            "is incomplete: download it again (or set tie_word_embeddings to true, if the model was trained so)."
        )
    head = None if tied else _linear(family.head, "head", "final hidden states", shapes, source)
    named = {f"{family.embedding}.weight", f"{family.norm}.weight", head_name}
    return Anatomy(
        family=family,
        model_type=model_type,
        blocks=blocks,
        embedding=embedding,
        head=head,
        block_tensors=[found[i] for i in range(count)],
        other_tensors=other,
        unnamed=[name for name in other if name not in named],
        dropped=head_name if tied and head_name in shapes else None,
    )


def _linear(address: str, role: str, reads: str, shapes: Mapping[str, tuple[int, ...]], source: str) -> Linear:
    parameter = f"{address}.weight"
    shape = shapes.get(parameter)
    if shape is None or len(shape) != 2:
        what = "is missing" if shape is None else f"has shape {list(shape)} instead of two dimensions"
        raise UsageError(
            f"{source}: tensor {parameter} {what}. The folder is incomplete or config.json names another family; "
            "download it again."
        )
    return Linear(address, parameter, role, (shape[0], shape[1]), reads)
