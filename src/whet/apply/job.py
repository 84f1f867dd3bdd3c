"""What one pass through a model does, decided and checked: everything the written bytes depend on, and nothing else."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Anatomy, Linear, Module, Piece
from whet.budget import adapted, plan_hash
from whet.checkpoint import Checkpoint
from whet.distillation import Distillation
from whet.grids import CacheGrid, Grid, InputGrid
from whet.messages import Message
from whet.pruning import Removal, Sparsity
from whet.quantize import SOLVERS, Effort, Solution, Transform, find_transform
from whet.targets import Storage
from whet.train import STEP_TOKENS
from whet.walk import not_followed

BATCH_TOKENS = 4096  # that go through a block together, at most


@dataclass(frozen=True)
class Job:
    """One pass: a model, where its parts may land, how they get there, and on which text.

    checkpoint, anatomy: the model that is worked on. Once a transform is folded in, these are of the transformed
    original, `source` is the original itself, and `transforms` tells by group what was done. parted: whether the head
    is a tensor of its own for the transform's sake, although config.json ties it to the embedding.
    name, sha256: what the original is called, and its hash once it was read whole.
    grids: by address; what has none stays as it is. scheme, embed: what they came from, or else plan: the plan.
    storage: how they are stored for the runtime `target`.
    dtype: the model's type. compute: the type in which a block's products are computed, on `device`.
    solver, transform, repair (rank of an adapter), synthetic (tokens that the original writes beside the text), seed.
    solve, verify: windows of tokens, int64. to_write: tokens that the original is still to write, for want of text or
    beside it. text: what the lineage tells of the text. notes: what a reader of the result has to know.
    marginal: what measuring what each part loses by itself, which the next plan is made from, may take, as a multiple
    of solving; 0 does not.
    card: what the front matter of the original's README.md hands on (`read_card`).
    step: which step's work it is. sparsity: which weights are 0, where any are by rule. removal: what goes altogether.
    distillation: from whom it learns, and how.
    folder: whether the folder that a runtime's file was made in stays beside it.
    kv: what keys and values are rounded to.
    """

    checkpoint: Checkpoint
    anatomy: Anatomy
    name: str
    grids: Mapping[str, Grid]
    storage: Storage
    target: str
    dtype: torch.dtype
    compute: torch.dtype
    device: str
    solver: str
    seed: int
    scheme: str | None = None
    embed: str | None = None
    plan: Mapping[str, Any] | None = None
    transform: str | None = None
    repair: int | None = None
    synthetic: int = 0
    solve: Sequence[Tensor] = ()
    verify: Sequence[Tensor] = ()
    to_write: int = 0
    text: Mapping[str, Any] | None = None
    notes: tuple[Message, ...] = ()
    sha256: str | None = None
    marginal: float = 0.0
    transforms: Mapping[str, dict[str, Any]] | None = None
    source: Checkpoint | None = None
    parted: bool = False
    card: Mapping[str, Any] = field(default_factory=dict)
    step: str = "quantize"
    sparsity: Sparsity | None = None
    folder: bool = False
    removal: Removal | None = None
    distillation: Distillation | None = None
    kv: CacheGrid | None = None

    @property
    def alone(self) -> bool:
        """Whether the folder is left with its runtime's file alone."""
        return self.storage.finished and not self.folder

    @property
    def original(self) -> Checkpoint:
        """The original, which `checkpoint` is too unless a transform is folded into that."""
        return self.source or self.checkpoint

    def chosen(self, linears: Sequence[Linear]) -> list[Linear]:
        """Those of `linears` that have a grid."""
        return [linear for linear in linears if linear.address in self.grids]

    @property
    def inputs(self) -> dict[str, InputGrid]:
        """What inputs are rounded to while the model runs, by address of the linears that read them."""
        return {address: grid.inputs for address, grid in self.grids.items() if grid.inputs is not None}

    @property
    def apart(self) -> Mapping[str, Grid]:
        """The grids, by address, of what is stored apart from the original's tensors."""
        return {} if self.storage.dense else self.grids

    @functools.cached_property
    def pieces(self) -> list[Piece]:
        """What is stored by itself."""
        return self.anatomy.pieces(self.apart)

    @functools.cached_property
    def repaired(self) -> list[Module]:
        """The modules of the blocks that get a low-rank repair; none unless it is asked for."""
        return adapted(self.anatomy, self.grids) if self.repair else []

    @property
    def adapter_dtype(self) -> torch.dtype:
        """The type of 16 bits that repairs are stored in."""
        return scale_dtype(self.dtype)

    @property
    def tokens(self) -> int:
        """Tokens the pass calibrates on, those the model is still to write itself among them."""
        return self.to_write + sum(len(window) for window in self.solve)

    @property
    def effort(self) -> Effort:
        """What the solver does, as its row says."""
        return SOLVERS[self.solver]

    @property
    def folding(self) -> Transform:
        """What the transform folds in, as its row says."""
        return find_transform(self.transform)

    @property
    def blockwise(self) -> bool:
        """Whether the linears of a block are trained together once they were rounded one by one."""
        return self.effort.block

    @property
    def asymmetric(self) -> bool:
        """Whether linears make up for what the blocks before them did to their inputs."""
        return self.effort.correct

    @property
    def tuned(self) -> bool:
        """Whether scales are trained end to end once every block is solved."""
        return self.effort.tune and not_followed(self.anatomy) is None

    @property
    def batch(self) -> int:
        """Tokens that go through a block together, at most, where something is solved on them."""
        return STEP_TOKENS if self.blockwise else BATCH_TOKENS

    def entry(self, grid: Grid) -> dict[str, Any]:
        """How a linear on `grid` is read."""
        return grid.table_entry(self.storage.decode)

    def values(self, solution: Solution, grid: Grid) -> Tensor:
        """The weights `[out, in]` as readers of the container will compute them, in the model's type."""
        computed = {"scale": grid.scale_dtype, "float32": torch.float32}
        dtype = computed.get(self.entry(grid)["decode"], self.dtype)
        return grid.decode(solution.codes, solution.params, dtype).to(self.dtype)

    def record(self) -> dict[str, Any]:
        """What the lineage keeps of it, as plain JSON."""
        rule: dict[str, Any] = {} if self.sparsity is None else {"sparsity": self.sparsity.record()}
        if self.removal is not None:
            rule["removal"] = self.removal.record()
        if self.distillation is not None:
            rule["distillation"] = self.distillation.record()
        if self.folder:
            rule["folder"] = True
        if self.kv is not None:
            rule["kv"] = self.kv.name
        rounding: dict[str, Any] = (
            {}
            if self.removal is not None or self.distillation is not None
            else {
                "scheme": self.scheme,
                "embed": self.embed,
                "plan": None if self.plan is None else plan_hash(self.plan),
                "solver": self.solver,
                "transform": self.transform,
                "repair": self.repair,
                "synthetic": self.synthetic,
            }
        )
        return {
            "step": self.step,
            "model": self.name,
            **({"update": self.effort.text} if self.sparsity is not None and self.storage.dense else rounding),
            "target": self.target,
            "container": self.storage.container,
            "seed": self.seed,
            "device": torch.device(self.device).type,
            "threads": torch.get_num_threads(),
            "compute": str(self.compute).removeprefix("torch."),
            "text": None if self.text is None else dict(self.text),
            "model_sha256": self.sha256,
            **rule,
        }

    def fingerprint(self) -> str:
        """SHA-256 of everything the result's bytes depend on."""
        digest = hashlib.sha256(repr(sorted(self.record().items())).encode())
        for window in (*self.solve, *self.verify):
            digest.update(window.numpy().tobytes() + b"|")
        return digest.hexdigest()

    def choices(self) -> dict[str, Any]:
        """What was chosen, as a result tells it."""
        keys = ("scheme", "embed", "solver", "transform", "repair", "update", "target", "container", "seed", "text")
        record = self.record()
        chosen = {k: record[k] for k in (*keys, "sparsity", "kv") if k in record}
        if not self.storage.dense:
            chosen |= {"plan": self.plan, "dequantize": self.storage.dequantize}
        return chosen if self.transforms is None else chosen | {"transforms": self.transforms}


def scale_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type that scales and real zeros of a model of type `dtype` are stored in."""
    return torch.bfloat16 if dtype == torch.bfloat16 else torch.float16


def model_name(path: Path) -> str:
    """What a model is called in cards: the folder's name, or `organisation/model` for a snapshot of the hub's cache."""
    cached = path.parent.parent.name
    if path.parent.name == "snapshots" and cached.startswith("models--"):
        return cached.removeprefix("models--").replace("--", "/")
    return path.name


def compute_type(dtype: torch.dtype, device: str) -> torch.dtype:
    """The type a block's products are computed in: the model's own where the processor multiplies it fast, as the
    runtimes that serve it do; else float32."""
    if torch.device(device).type == "cuda":
        return dtype
    fast = dtype == torch.bfloat16 and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return dtype if fast else torch.float32
