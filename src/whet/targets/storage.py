"""The one decision that follows from the table of runtimes: the container that a plan is stored in.

Checked by running (transformers 5.23, compressed-tensors 0.20): symmetric grids load mixed, layer by layer. Integer
zeros and quantized embeddings load only as one scheme with `dequantize: true`; mixed with that flag they load
*silently wrong* (every layer is read with the first group's bits), so such combinations never reach that container.
Groups that do not divide a row fail at the first forward.

FP8, NVFP4 and MXFP4 load like symmetric grids, mixed with each other and with those, to the very weights that whet
decodes. But weights of FP4 come out as bfloat16: in a model of another type the first forward fails, unless there is
one scheme with `dequantize: true`. An FP8 weight is computed in the type of the module's scale, which is the model's;
with that flag in that of the stored scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from whet.anatomy import Anatomy
from whet.errors import UsageError
from whet.grids import INTEGER, PLAIN, Grid
from whet.messages import Message
from whet.targets.table import Target, check_grid


@dataclass(frozen=True)
class Storage:
    """How a plan is stored: the container, whether transformers must compute weights at load, and why.

    container: `dense` (tensors as the original has them), `compressed-tensors`, or `whet`, which comes with a modelling
    file. blocks: as ggml's block types, whose scales are float16. graph: as a graph of onnxruntime or OpenVINO, beside
    which this is a step on the way.
    """

    container: str
    dequantize: bool
    reason: str
    blocks: bool = False
    graph: bool = False

    @property
    def finished(self) -> bool:
        """Whether a runtime's own file is written beside it, in which weights are computed in float32."""
        return self.blocks or self.graph

    @property
    def decode(self) -> str:
        """The type weights are computed in, as `Grid.table_entry` says it."""
        return "scale" if self.dequantize else "float32" if self.finished else "model"

    @property
    def dense(self) -> bool:
        """Whether every tensor has the name, type and shape that it has in the original."""
        return self.container == "dense"

    @property
    def stock(self) -> bool:
        """Whether transformers loads it with no modelling file."""
        return self.container != "whet"


def storage(
    target: Target,
    grids: Mapping[str, Grid],
    shapes: Mapping[str, tuple[int, int]],
    tables: frozenset[str],
    ties: Sequence[Sequence[str]] = (),
    parts: Anatomy | None = None,
    dtype: torch.dtype | None = None,
) -> Storage:
    """The container that holds `grids` (by address) for `target`, or a UsageError that says what it cannot hold.

    What has no grid stays as it is. shapes: `(out, in)` by address. tables: addresses of embedding and head, which
    compressed-tensors treats apart. ties: addresses that must have one scheme, as `tied` finds them. parts, dtype: of
    which model, and the type of its weights.
    """
    widths = {shapes[address][1] for address in grids}
    for address, grid in grids.items():
        check_grid(target, address, grid, shapes[address], address in tables, widths)
    _check_ties(target, grids, ties)
    if parts is not None:
        _check_inputs(parts, grids)
    if target.name == "whet":
        return Storage("whet", False, "the target is whet itself")
    if target.gguf:
        return Storage("whet", False, f"{target.name} reads the .gguf, which holds the same weights", blocks=True)
    if target.graph:
        return Storage("whet", False, f"{target.name} reads the graph, which holds the same weights", graph=True)
    if any(grid.kind == PLAIN for grid in grids.values()):
        raise UsageError(
            "F16 and BF16 are for llama.cpp: {target} reads what is not quantized in the model's own type. Leave "
            "those parts as they are (keep), or use --for llama.cpp.",
            target=target.name,
        )
    if lacking := [grid.uncompressed for grid in grids.values() if grid.uncompressed]:
        return Storage("whet", False, lacking[0])
    if any(grid.group and shapes[address][1] % grid.group for address, grid in grids.items()):
        return Storage("whet", False, "stock transformers needs groups that divide the row")
    beyond = None if parts is None else _beyond_stock(parts, grids, dtype)
    if beyond is not None:
        if not target.modelling_file:
            raise UsageError(
                "{target} cannot hold this: {why}. Use --for transformers.", target=target.name, why=beyond
            )
        return Storage("whet", False, beyond)
    if any(grid.zero == "real" for grid in grids.values()):
        return Storage("whet", False, "compressed-tensors has no real zeros")
    if any(grid.inputs for grid in grids.values()):
        return _rounding_inputs(target, grids, tables, dtype)
    kinds = set(grids.values())
    if len(kinds) > 1 and dtype not in (None, torch.bfloat16) and any(_fp4(grid) for grid in kinds):
        beyond = Message(
            "stock transformers computes NVFP4 and MXFP4 in bfloat16, which beside others fails in {type} models",
            type=str(dtype).removeprefix("torch."),
        )
        if not target.modelling_file:
            raise UsageError(
                "{target} cannot hold this: {why}. Convert the original to bfloat16 first.",
                target=target.name,
                why=beyond,
            )
        return Storage("whet", False, beyond)
    plain = all(grid.zero == "none" for grid in kinds) and not tables & set(grids)
    plain = plain and (len(kinds) > 1 or not any(_fp4(grid) for grid in kinds))
    if plain and not (parts is not None and _experts(parts)):
        return Storage("compressed-tensors", False, "symmetric linears load in stock transformers, mixed or not")
    if len(kinds) == 1:
        # vLLM reads integer zeros itself and ignores the flag; transformers needs it (compressed-tensors >= 0.18). It
        # stacks experts when it loads them and computes their weights in the type of the scales then, flag or not.
        return Storage("compressed-tensors", True, "one scheme: stock transformers computes the weights at load")
    if not target.modelling_file:
        raise UsageError(
            "{target} cannot hold different schemes ({schemes}) when one has integer zeros. Use symmetric schemes "
            "(int4s, int8s), or one scheme throughout.",
            target=target.name,
            schemes=", ".join(sorted(g.name for g in kinds)),
        )
    return Storage("whet", False, "stock transformers would load this mix of schemes silently wrong")


def _rounding_inputs(
    target: Target, grids: Mapping[str, Grid], tables: frozenset[str], dtype: torch.dtype | None
) -> Storage:
    """The container where inputs are rounded: transformers leaves them as they are once it computes weights at load."""
    beyond = None
    if any(grid.zero != "none" for grid in grids.values()) or tables & set(grids):
        beyond = Message(
            "stock transformers computes weights with zeros, and tables, at load, and rounds no inputs then"
        )
    elif dtype not in (None, torch.bfloat16) and any(_fp4(grid) for grid in grids.values()):
        beyond = Message("stock transformers computes NVFP4 and MXFP4 in bfloat16, and rounds no inputs otherwise")
    if beyond is None:
        return Storage("compressed-tensors", False, "symmetric linears load in stock transformers, mixed or not")
    if not target.modelling_file:
        raise UsageError(
            "{target} cannot hold this: {why}. Use symmetric schemes, bfloat16, and leave --embed out.",
            target=target.name,
            why=beyond,
        )
    return Storage("whet", False, beyond)


def _check_ties(target: Target, grids: Mapping[str, Grid], ties: Sequence[Sequence[str]]) -> None:
    """Raises UsageError where linears that `target` fuses have several schemes."""
    for addresses in ties:
        names = {address: grids[address].name if address in grids else "keep" for address in addresses}
        if len(set(names.values())) > 1:
            said = ", ".join(f"{address.rpartition('.')[2]} {name}" for address, name in names.items())
            raise UsageError(
                "{part}: {target} fuses these linears into one and reads them with one scheme, but they have several "
                "({said}). Give them the same.",
                part=addresses[0].rpartition(".")[0],
                target=target.name,
                said=said,
            )


def _check_inputs(parts: Anatomy, grids: Mapping[str, Grid]) -> None:
    """Raises UsageError where inputs are to be rounded that no hook reaches, or linears that read one input differ."""
    if not parts.family.known and any(grid.inputs for grid in grids.values()):
        raise UsageError(
            "whet has no table of the family {family}, so it does not know where inputs are read. Give a scheme of "
            "weights alone.",
            family=parts.model_type,
        )
    for index, block in enumerate(parts.blocks):
        by_input: dict[str, dict[str, str]] = {}
        for linear in block:
            grid = grids.get(linear.address)
            inputs = None if grid is None else grid.inputs
            if inputs is not None and linear.held.expert is not None:
                raise UsageError(
                    "{address}: {family} stacks its experts in one parameter, whose inputs are not rounded. Give the "
                    "experts a scheme of weights alone.",
                    address=linear.address,
                    family=parts.family.title,
                )
            by_input.setdefault(linear.reads, {})[linear.address] = "keep" if inputs is None else inputs.name
        for reads, names in by_input.items():
            if len(set(names.values())) > 1:
                raise UsageError(
                    "block {index}: linears that read one input ({reads}) round it in several ways ({said}). Give them "
                    "the same after the plus.",
                    index=index,
                    reads=reads,
                    said=", ".join(f"{address} {name}" for address, name in names.items()),
                )


def beside_adapter(stored: Storage, grids: Mapping[str, Grid]) -> Storage:
    """`stored`, or what takes its place where an adapter goes with it: PEFT (0.21) puts none beside packed linears, so
    transformers has to compute the weights at load, which it does right for one scheme only."""
    if stored.container != "compressed-tensors" or stored.dequantize:
        return stored
    if len(set(grids.values())) == 1 and not any(grid.inputs for grid in grids.values()):
        return Storage("compressed-tensors", True, "PEFT adapts no packed linears: weights are computed at load")
    return Storage(
        "whet", False, "PEFT adapts no packed linears, and transformers computes weights for one scheme only"
    )


def _beyond_stock(parts: Anatomy, grids: Mapping[str, Grid], dtype: torch.dtype | None) -> Message | None:
    """Why compressed-tensors cannot hold `grids` of this model, or None. Checked by running, family by family."""
    if parts.family.packed:
        return parts.family.packed
    if parts.task != "causal" and parts.embedding.address in grids:
        return Message("a quantized embedding loads in stock transformers only where the head is a table too")
    chosen = [linear for linear in parts.linears() if linear.address in grids]
    if any(linear.transposed for linear in chosen):
        return Message(
            "{family} stores its linears transposed, and compressed-tensors groups along their outputs",
            family=parts.family.title,
        )
    if any(len(piece.linears) == 1 and piece.linears[0].rows for piece in parts.pieces(grids)):
        return Message(
            "compressed-tensors has one scheme for linears that are stored as one tensor, and these have several"
        )
    if not _experts(parts):
        return None
    kinds = set(grids.values())
    if any(grid.kind != INTEGER for grid in kinds):
        return Message("transformers reads stacked experts of FP8 and FP4 in another type, or not at all")
    if dtype not in (None, *(grid.scale_dtype for grid in kinds)):
        return Message("transformers leaves experts in the type of the stored scales, which is not the model's float32")
    if (
        len(kinds) > 1
        or any(grid.zero != "none" for grid in kinds)
        or any(linear.held.expert is not None and linear.address not in grids for linear in parts.linears())
    ):
        return Message("transformers reads experts right only if all of them, and all else, have one symmetric scheme")
    return None


def _fp4(grid: Grid) -> bool:
    """Whether stock transformers computes the weights in bfloat16."""
    return grid.kind != INTEGER and grid.bits == 4


def _experts(parts: Anatomy) -> bool:
    """Whether the model stacks experts."""
    return any(linear.held.expert is not None for linear in parts.linears())
