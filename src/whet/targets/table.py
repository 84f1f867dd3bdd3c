"""What each runtime stores and loads, as a table, and what it refuses.

Checked by running one linear at a time (`tests/targets`), on identities, against `grid.decode` in float32:

onnxruntime 1.31: MatMulNBits takes 2, 4 and 8 bits in groups of 16 to 256, a power of two, and equals it bit for bit,
symmetric (no zero point stands for the middle code; scales may be negative) and with integer zeros, padded last groups
too; GatherBlockQuantized does so for tables. A scale a row is a DequantizeLinear, which its optimizer turns into a
MatMulNBits by itself. Groups that are no power of two are decoded anew at every call. A real zero would have to be
stored as -m/s, which rounds again, and at 8 bits it is refused.

openvino 2026.4 (CPU): u4, i4, u8 and i8 constants, a group or a row to a scale, stay as they are and equal it bit for
bit, in a Gather too; groups are a dimension of the constant, so they must divide. u3 and u6 become float32 when a model
is loaded. u2 is right in float32 only: with the default settings of a processor that multiplies bfloat16, the output
has no rows at all or the model does not compile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from whet.anatomy import Anatomy
from whet.errors import UsageError, did_you_mean
from whet.grids import BLOCKS, CACHE_GRIDS, INTEGER, PLAIN, Grid, parse_scheme
from whet.messages import Message, listed, with_or
from whet.peers import refuse_peers_word


@dataclass(frozen=True)
class Target:
    """A runtime. `modelling_file`: it can load a folder's own modelling file. `bits`: widths its kernels take.

    `groups`: allowed group sizes, None for any. `real_zero`, `integer_zero`, `embedding`: whether it holds them at all.
    `divides`: groups must divide the row. `ties`: roles that it fuses, which must have one scheme; with `whole` also
    linears that are rows of one stored tensor. `schemes`: the only ones it holds, where they are types of its own;
    `formats`: kinds of grids that it holds beside integers, None for any; `inputs`: the grids of inputs that it rounds
    to, by the weights beside them (a kind, or bits of integers), None for any; `bytewise`: it reads codes beside these
    a byte each, whatever their bits; `simplest`: the scheme that holds any linear;
    `usual`: the one where none is asked for, or a mix; `instead`: what stands in for a scheme whose blocks do not
    divide a row, where something better does. `families`: the only ones it loads, None for any. `gguf`: it reads a
    file of that format, which is written into the lighter folder; `graph`: a graph, likewise. `adapters`: it runs
    low-rank adapters beside what it stores. `caches`: keys and values whose stored scales it reads.
    `head_multiple`: what the width of attention's heads must divide by.
    `checked`: `run in tests`, `accepted by its parser` or `unsupported`.
    """

    name: str
    modelling_file: bool
    bits: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    groups: tuple[int, ...] | None = None
    integer_zero: bool = True
    real_zero: bool = True
    embedding: bool = True
    divides: bool = False
    ties: tuple[tuple[str, ...], ...] = ()
    whole: bool = False
    schemes: tuple[str, ...] = ()
    formats: tuple[str, ...] | None = None
    inputs: Mapping[str, tuple[str, ...]] | None = field(default=None, hash=False)
    bytewise: bool = False
    simplest: str = "int8s"
    usual: str = "W4A16"
    instead: Mapping[str, str] = field(default_factory=dict, hash=False)
    families: tuple[str, ...] | None = None
    gguf: bool = False
    graph: bool = False
    adapters: bool = False
    head_multiple: int = 1
    caches: tuple[str, ...] = ()
    checked: str = "run in tests"


# What the exporter has a row for (`whet.formats.gguf.architectures`).
GGUF_FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "gpt2",
    "mixtral",
    "qwen3_moe",
    *("exaone4", "smollm3", "olmo2", "olmo3", "granite", "stablelm", "starcoder2", "glm4", "cohere2", "seed_oss"),
    *("qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text"),
    *("ernie4_5", "hunyuan_v1_dense", "falcon", "gpt_neox", "qwen2_moe"),
    *("olmoe", "gpt_oss", "deepseek_v2", "deepseek_v3", "glm4_moe", "dots1", "granitemoe", "ernie4_5_moe"),
    *("hunyuan_v1_moe", "minimax_m2", "lfm2", "lfm2_moe", "qwen3_next", "llama4_text", "qwen3_vl_moe_text"),
    *("gemma", "phi", "olmo", "cohere", "arcee", "nemotron", "glm"),
)

# What graphs are written of (`whet.formats.graphs`: `decoder`, `encoder`).
GRAPH_FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm3",
    "granite",
    "gemma2",
    "gemma3_text",
    "bert",
    "distilbert",
)

# Groups tried where a target takes any: powers of two, which the kernels of others take too (64 of 576, not 96).
_GROUPS = (256, 128, 64, 32, 16, 8)

TARGETS: dict[str, Target] = {
    "transformers": Target("transformers", modelling_file=True, divides=True, adapters=True, caches=tuple(CACHE_GRIDS)),
    "vllm": Target(
        "vllm",
        modelling_file=False,
        bits=(4, 8),
        groups=(0, 32, 64, 128),
        real_zero=False,
        embedding=False,
        divides=True,
        formats=("FP8", "fp8-tensor", "fp8-block", "NVFP4", "MXFP4"),
        inputs={
            "int8": ("int8", "int8-tensor"),
            "int4": ("int8",),
            "FP8": ("fp8", "fp8-tensor"),
            "fp8-tensor": ("fp8", "fp8-tensor"),
            "NVFP4": ("nvfp4",),
        },
        bytewise=True,
        ties=(("q", "k", "v"), ("gate", "up")),
        caches=("fp8", "fp8-head"),
        checked="accepted by its parser",
    ),
    "llama.cpp": Target(
        "llama.cpp",
        modelling_file=True,
        bits=(2, 3, 4, 5, 6, 8),
        groups=(32, 256),
        integer_zero=False,
        divides=True,
        ties=(("expert gate",), ("expert up",), ("expert down",)),
        whole=True,
        schemes=(*BLOCKS, "F16", "BF16"),
        inputs={},
        simplest="F16",
        usual="Q4_K_M",
        # llama-quantize's own choice (llama.cpp, `tensor_type_fallback`)
        instead={
            **{"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"},
            **{"TQ1_0": "Q4_0", "TQ2_0": "Q4_0"},
        },
        families=GGUF_FAMILIES,
        gguf=True,
        adapters=True,
    ),
    "onnx": Target(
        "onnx",
        modelling_file=True,
        bits=(2, 4, 8),
        groups=(0, 16, 32, 64, 128, 256),
        real_zero=False,
        formats=(),
        head_multiple=16,
        families=GRAPH_FAMILIES,
        graph=True,
        inputs={},
    ),
    "openvino": Target(
        "openvino",
        modelling_file=True,
        bits=(4, 8),
        real_zero=False,
        divides=True,
        formats=(),
        families=GRAPH_FAMILIES,
        graph=True,
        inputs={},
    ),
    "whet": Target("whet", modelling_file=True, adapters=True),
}


def stand_in(target: Target, scheme: str, columns: int) -> str:
    """What `target` takes for `scheme` on rows of `columns` weights: itself, if it divides them."""
    while (group := parse_scheme(scheme).group) and columns % group:
        scheme = target.instead.get(scheme, target.simplest)
    return scheme


def widest_group(target: Target, widths: Collection[int], most: int) -> int:
    """The largest group up to `most` that `target` takes and that divides every row of `widths`; 0 where none does."""
    sizes = _GROUPS if target.groups is None else target.groups
    return max((size for size in sizes if 0 < size <= most and not any(width % size for width in widths)), default=0)


def divided(target: Target, grid: Grid, widths: Collection[int]) -> Grid:
    """`grid` in groups that divide every row of `widths`, where `target` needs that: its own or the largest below, of
    integers else one scale a row. Itself where nothing fits."""
    if target.schemes or not target.divides or not grid.group or not any(width % grid.group for width in widths):
        return grid
    group = widest_group(target, widths, grid.group)
    per_row = grid.kind == INTEGER and (target.groups is None or 0 in target.groups)
    return (grid.regrouped(group) if group or per_row else None) or grid


def stored_for(target: Target, grid: Grid) -> Grid:
    """`grid` as `target` reads its codes."""
    return grid.unpacking() if target.bytewise else grid


def find_target(name: str) -> Target:
    """The row of `name`. Raises UsageError with a did-you-mean."""
    if name not in TARGETS:
        refuse_peers_word("target", name)
        raise UsageError(
            "Target {name!r} is not known.{near} Targets: {known}.",
            name=name,
            near=did_you_mean(name, TARGETS),
            known=", ".join(TARGETS),
        )
    return TARGETS[name]


def check_family(target: Target, family: str, source: str) -> None:
    """Raises UsageError where `target` does not load models of `family`, which is the name in `config.json`."""
    if target.families is not None and family not in target.families:
        raise UsageError(
            "{source} is of the family {family!r}, and whet writes no file of it that {target} loads. Families it "
            "writes: {known}. For another runtime give --for transformers.",
            source=source,
            family=family,
            target=target.name,
            known=", ".join(target.families),
        )


def tie(target: Target, address: str, role: str) -> str | None:
    """What a linear of a block must have one scheme with others for, or None. Rows of a fused tensor are called as it
    is and their role (`….qkv_proj.q`)."""
    fused = next((" ".join(roles) for roles in target.ties if role in roles), None)
    if fused is None and target.whole and address.endswith(f".{role}"):
        return address.removesuffix(f".{role}")
    return fused


def tied(target: Target, parts: Anatomy) -> list[list[str]]:
    """Addresses that `target` holds or fuses as one weight, group by group."""
    found: dict[tuple[int, str], list[str]] = {}
    for index, block in enumerate(parts.blocks):
        for linear in block:
            if (key := tie(target, linear.address, linear.role)) is not None:
                found.setdefault((index, key), []).append(linear.address)
    return [addresses for addresses in found.values() if len(addresses) > 1]


def check_grid(target: Target, address: str, grid: Grid, shape: tuple[int, int], table: bool, widths: set[int]) -> None:
    """Raises UsageError where `target` does not hold the weights `[out, in]` at `address` on `grid`. table: they are
    the embedding or the head. widths: of all rows that are rounded."""

    def refuse(template: str, /, **values: Any) -> UsageError:
        """`template`: what the target does not do, and what to do instead."""
        return UsageError(
            "{address} ({rows} x {columns}) as {grid}: {target} {why}",
            address=address,
            rows=shape[0],
            columns=shape[1],
            grid=grid.name,
            target=target.name,
            why=Message(template, **values),
        )

    if grid.inputs is not None:
        _check_inputs(target, grid, table, shape[1], refuse)
    if target.schemes and grid.name not in target.schemes:
        names = ", ".join(target.schemes)
        if same := next((name for name in target.schemes if parse_scheme(name) == grid), None):
            raise refuse("holds {names} and nothing else. Use {same}, which is the same.", names=names, same=same)
        raise refuse("holds {names} and nothing else. Use one of them, or --for whet.", names=names)
    if grid.kind == PLAIN:
        return
    usual = f"-g{widest}" if (widest := widest_group(target, widths, 128)) else ""
    if target.formats is not None and grid.kind not in (INTEGER, *target.formats):
        if grid.kind in BLOCKS:
            raise refuse("reads no block types of ggml. Use int4s{group} or the like, or --for llama.cpp.", group=usual)
        formats = listed((*target.formats, Message("integers")))
        raise refuse("holds {names}. Use one of them, or --for whet.", names=formats)
    if grid.kind == INTEGER and grid.bits not in target.bits:
        raise refuse(
            "has no {bits}-bit kernel. Use {allowed} bits, or --for whet.", bits=grid.bits, allowed=with_or(target.bits)
        )
    if grid.kind == INTEGER and grid.zero == "real" and not target.real_zero:
        raise refuse(
            "holds no real zeros. Use an integer zero (int4{group}) or a symmetric grid (int4s{group}).", group=usual
        )
    if table and not target.embedding:
        raise refuse("loads no quantized embedding or head. Leave out --embed (in a plan: keep).")
    if table and not grid.rows:
        raise refuse("is given tables some thousand rows at a time. Use FP8, which has one scale per row.")
    if target.ties and grid.rows > 1 and shape[0] % grid.rows:
        raise refuse(
            "fuses linears, and blocks of {size} rows do not divide {whole}. Use FP8, which has one scale per row.",
            size=grid.rows,
            whole=shape[0],
        )
    if grid.kind == INTEGER and target.groups is not None and grid.group not in target.groups:
        fits = [group for group in target.groups if group and not (target.divides and any(w % group for w in widths))]
        if not fits:
            raise refuse("takes no group of {group}. Use none (leave out -g: one scale per row).", group=grid.group)
        raise refuse(
            "takes no group of {group}. Use a group of {allowed}, or none (per channel).",
            group=grid.group,
            allowed=listed(fits),
        )
    if shape[1] % grid.multiple or (target.divides and grid.group and shape[1] % grid.group):
        raise _ragged(target, grid, shape[1], widths, refuse)


def _check_inputs(target: Target, grid: Grid, table: bool, columns: int, refuse: Callable[..., UsageError]) -> None:
    """Raises UsageError where `target` does not round the inputs of linears on `grid` as it says."""
    assert grid.inputs is not None
    weights, name = grid.name.rpartition("+")[0], grid.inputs.name
    if table:
        raise refuse("looks the embedding up and rounds no inputs of the head. Use {weights}.", weights=weights)
    if grid.inputs.group and columns % grid.inputs.group:
        raise refuse(
            "rounds inputs in groups of {group}, which {columns} channels do not divide by. Use {weights}.",
            group=grid.inputs.group,
            columns=columns,
            weights=weights,
        )
    if target.inputs is None:
        return
    kind = f"int{grid.bits}" if grid.kind == INTEGER else grid.kind
    known = target.inputs.get(kind, ())
    if not target.inputs:
        raise refuse(
            "is given no rounding of inputs: it multiplies in types of its own. Use {weights}, or --for vllm.",
            weights=weights,
        )
    if name not in known:
        raise refuse(
            "has no kernel for {inputs} inputs beside {kind} weights. Beside these it takes {known}.",
            inputs=name,
            kind=kind,
            known=with_or(known) if known else Message("none"),
        )
    if kind == "int8" and grid.group:
        raise refuse("multiplies int8 by int8 with one scale a row. Use int8s+{inputs}.", inputs=name)
    if grid.kind == INTEGER and grid.zero != "none":
        raise refuse("multiplies whole numbers without a zero. Use int{bits}s+{inputs}.", bits=grid.bits, inputs=name)


def _ragged(
    target: Target, grid: Grid, columns: int, widths: set[int], refuse: Callable[..., UsageError]
) -> UsageError:
    """Why `target` does not hold rows of `columns` weights on `grid`, and what to do. widths: of all rows there are."""
    if grid.multiple == 2 and columns % 2:
        return refuse("holds two weights in a byte, and the rows are odd. Use FP8 or nf4.")
    if target.schemes or columns % grid.multiple:
        return refuse(
            "needs rows that divide by {group}, and {width} does not. Give this part {scheme} (a plan names a scheme "
            "for each part; whet plan makes one).",
            group=grid.group,
            width=columns,
            scheme=stand_in(target, grid.name, columns),
        )
    group = widest_group(target, widths, grid.group)
    better = Message("one scale per row (leave out -g)")
    if grid.kind != INTEGER:
        better = Message("FP8, which has one scale per row")
    if group and grid.regrouped(group) is not None:
        better = Message("a group that divides every row, such as {group}", group=group)
    return refuse(
        "needs groups that divide the row, and {group} does not divide {width}. Use {better}, or --for whet, which "
        "keeps a shorter last group.",
        group=grid.group,
        width=columns,
        better=better,
    )
