"""Everything that can be known before the long part: what will be done to which part, and whether it can be.

Nothing is written here. Every wrong input is an error of one paragraph; what remains is a `Decision` that the run
follows and a later `resume` reads back.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Anatomy, Linear, Module, Piece, anatomy
from whet.budget import adapted, check_plan, plan_hash, read_plan, tables
from whet.checkpoint import Checkpoint, model_config
from whet.engines.torch import resolve_device
from whet.errors import UsageError, did_you_mean
from whet.formats.gguf import plan_gguf
from whet.grids import Grid, parse_scheme
from whet.messages import Message, first_of, with_and
from whet.quantize import ASYMMETRIC, BEST, BLIND, BLOCKWISE, EFFORTS, SOLVERS, STEP_TOKENS, TRANSFORMS, WHOLE
from whet.recipe.memory import check_fits, lacking
from whet.recipe.reading import read_windows
from whet.recipe.stored import check_shapes, check_vocabulary, part, untie
from whet.targets import (
    TARGETS,
    Storage,
    Target,
    beside_adapter,
    check_family,
    find_target,
    no_file_yet,
    stand_in,
    storage,
    tied,
)
from whet.walk import not_followed

BATCH_TOKENS = 4096
# Tokens that training is given, at the least, where the original may write some (`whet.recipe.self_written`).
ENOUGH = 1 << 16
SCHEME, SOLVER, TARGET = "W4A16", "gptq", "transformers"  # where none is asked for


@dataclass
class Decision:
    """What a run does: the recipe as plain JSON, and the objects it stands for.

    `grids` is by address; what has none stays as it is. `plan` is where they came from, if not from one scheme.
    `solve` and `verify` are windows of tokens; `to_write` counts tokens the model will write itself, for want of
    text or beside it. `alone` asks what each part loses by itself, which the next plan is made from; nothing written
    depends on it. `asked` is the recipe with every default filled in (`whet.recipe.schema.resolved`), which goes into
    the folder. Once a transform is folded in, `checkpoint` and `anatomy` are those of the transformed original,
    `transforms` tells by group what was done, and `source` is the original itself. `parted`: whether the head is
    a tensor of its own for the transform's sake, although config.json ties it to the embedding.
    """

    recipe: dict[str, Any]
    checkpoint: Checkpoint
    anatomy: Anatomy
    grids: dict[str, Grid]
    storage: Storage
    dtype: torch.dtype
    device: str
    solve: list[Tensor]
    verify: list[Tensor]
    notes: list[Message]
    to_write: int = 0
    plan: dict[str, Any] | None = None
    alone: bool = False
    asked: dict[str, Any] | None = None
    transforms: dict[str, dict[str, Any]] | None = None
    source: Checkpoint | None = None
    parted: bool = False

    @property
    def original(self) -> Checkpoint:
        """The original, which `checkpoint` is too unless a transform is folded into that."""
        return self.source or self.checkpoint

    def chosen(self, linears: list[Linear]) -> list[Linear]:
        """Those of `linears` that have a grid."""
        return [linear for linear in linears if linear.address in self.grids]

    @functools.cached_property
    def pieces(self) -> list[Piece]:
        """What is stored by itself."""
        return self.anatomy.pieces(self.grids)

    @functools.cached_property
    def repaired(self) -> list[Module]:
        """The modules of the blocks that get a low-rank repair; none unless it is asked for."""
        return adapted(self.anatomy, self.grids) if self.recipe.get("repair") else []

    @property
    def adapter_dtype(self) -> torch.dtype:
        """The type of 16 bits that repairs are stored in."""
        return scale_dtype(self.dtype)

    @property
    def tokens(self) -> int:
        """Tokens the run solves on, those the model is still to write itself among them."""
        return self.to_write + sum(len(window) for window in self.solve)

    @property
    def blockwise(self) -> bool:
        """Whether the linears of a block are trained together once they were rounded one by one."""
        return self.recipe["solver"] in BLOCKWISE

    @property
    def asymmetric(self) -> bool:
        """Whether linears make up for what the blocks before them did to their inputs."""
        return self.recipe["solver"] in ASYMMETRIC

    @property
    def tuned(self) -> bool:
        """Whether scales are trained end to end once every block is solved."""
        return self.recipe["solver"] == "tuned" and not_followed(self.anatomy) is None

    @property
    def batch(self) -> int:
        """Tokens that go through a block together, at most, where something is solved on them."""
        return STEP_TOKENS if self.blockwise else BATCH_TOKENS

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything the result's bytes depend on."""
        digest = hashlib.sha256(repr(sorted((k, v) for k, v in self.recipe.items() if k != "model_path")).encode())
        for window in (*self.solve, *self.verify):
            digest.update(window.numpy().tobytes() + b"|")
        return digest.hexdigest()


def choose_grids(parts: Anatomy, scheme: str, embed: str | None, dtype: torch.dtype) -> dict[str, Grid]:
    """Address → grid for every linear of the blocks, and for embedding and head where `embed` names a scheme."""
    scales = scale_dtype(dtype)
    grid = parse_scheme(scheme, scales)
    grids = {linear.address: grid for linear in parts.linears()}
    if embed is not None:
        table = parse_scheme(embed, scales)
        grids |= {linear.address: table for linear in tables(parts)}
    return grids


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


def check_asked(
    *,
    scheme: str | None,
    embed: str | None,
    plan: Any,
    fit: str | int | None,
    bits: float | None,
    quality: float | None,
    skills: Any,
    repair: int | None = None,
) -> None:
    """Raises UsageError unless at most one of the ways to say what to do was taken, and only with what goes with it."""
    ways = {"scheme": scheme, "plan": plan, "fit": fit, "bits": bits, "quality": quality}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise UsageError(
            "{ways} were given, and each alone says what to do. Give one: scheme (with embed) for one grid "
            "throughout, plan for what a file says, or a budget: fit, bits or quality.",
            ways=with_and(given),
        )
    if embed is not None and given not in ([], ["scheme"]):
        raise UsageError(
            "embed goes with scheme: {way} decides on embedding and head itself. Leave embed out.", way=given[0]
        )
    if skills is not None and not {"fit", "bits", "quality"} & set(given):
        raise UsageError(
            "skills tell what a budget is to keep: give fit, bits or quality with them, or leave them out."
        )
    if repair is not None and (not isinstance(repair, int) or isinstance(repair, bool) or repair < 1):
        raise UsageError(
            "repair {rank!r} is no rank: give a whole number from 1 on, such as 16, or leave it out.", rank=repair
        )
    if repair is not None and {"fit", "bits", "quality"} & set(given):
        raise UsageError(
            "repair goes with scheme and plan: what {way} plans does not know what a repair of rank {rank} wins back. "
            "Leave repair out, or make a plan for fewer bytes first (whet plan) and give it with --plan.",
            way=given[0],
            rank=repair,
        )
    if bits is not None and not 0 < bits <= 32:
        raise UsageError("bits {bits:g} is no budget: give the stored bits a parameter, such as 3.5.", bits=bits)
    if quality is not None and not 0 < quality <= 1:
        raise UsageError(
            "quality {quality:g} is no share of the original's: give one between 0 and 1, such as 0.98.",
            quality=quality,
        )


def decide(
    model: str | Path,
    *,
    scheme: str | None = None,
    embed: str | None = None,
    plan: str | Path | Mapping[str, Any] | None = None,
    solver: str | None = None,
    transform: str | None = None,
    repair: int | None = None,
    synthetic: int | None = None,
    target: str | None = None,
    text: Any,
    eval_text: Any,
    field: str,
    chat: bool,
    samples: int,
    window: int,
    seed: int,
    device: str,
) -> Decision:
    """Check every argument against the model and the target; raises UsageError or MachineError before anything runs.

    synthetic: tokens that the model is to write beside the text; None leaves it to the solver (`best` has some).
    scheme, embed: one grid throughout, `W4A16` and none unless given; or plan: a grid for each part, with the solver
    and the target that it names.
    """
    if plan is not None:
        said = read_plan(plan)
        solver, target = solver or said["solver"], _target_of(said, target)
    else:
        scheme = scheme or next(iter(find_target(target or TARGET).schemes), SCHEME)
        parse_scheme(scheme)
        if embed is not None:
            parse_scheme(embed)
    best = solver == BEST
    asked = EFFORTS.get(solver, solver) if solver else None
    solver = asked or SOLVER
    if solver not in SOLVERS:
        raise UsageError(
            "Solver {solver!r} is not known.{near} Solvers: {known}; or say {efforts}.",
            solver=solver,
            near=did_you_mean(solver, [*SOLVERS, *EFFORTS]),
            known=", ".join(SOLVERS),
            efforts=Message("fast for {fast}, good for {good}, best for {best}", **EFFORTS),
        )
    if transform is not None and transform not in TRANSFORMS:
        raise UsageError(
            "Transform {transform!r} is not known.{near} Transforms: {known}.",
            transform=transform,
            near=did_you_mean(transform, TRANSFORMS),
            known=", ".join(TRANSFORMS),
        )
    runtime = find_target(target or TARGET)
    if samples < 1 or window < 8:
        raise UsageError(
            "{samples} windows of {window} tokens is too little: give at least 1 window of 8 tokens.",
            samples=samples,
            window=window,
        )
    place = resolve_device(device)
    checkpoint = Checkpoint(model)
    untied = untie(checkpoint)
    parted = transform in WHOLE and part(checkpoint)
    parts = anatomy(checkpoint.config, checkpoint.shapes, str(checkpoint.path))
    check_family(runtime, parts.model_type, str(checkpoint.path))
    if runtime.gguf:
        plan_gguf(checkpoint.path)  # a config or tokenizer that cannot be written is found now, not after hours
    notes = no_file_yet(runtime)
    if not parts.family.known:
        notes.append(
            Message(
                "whet has no table of the family {family}: only the linears of its {count} blocks ({blocks}) are "
                "rounded, each to nearest and by itself, without a look at text{unused}",
                family=parts.model_type,
                count=len(parts.blocks),
                blocks=parts.family.blocks,
                unused=Message(" (the solver and text that were given have no use here)")
                if asked not in (None, "nearest") or text is not None
                else "",
            )
        )
        solver, text, eval_text = "nearest", None, None
        if transform is not None:
            raise UsageError(
                "whet has no table of the family {family}, so it does not know where --transform {transform} folds "
                "in. Leave it out.",
                family=parts.model_type,
                transform=transform,
            )
    check_shapes(checkpoint, parts)
    dtype = model_config(checkpoint).dtype or checkpoint.dtype
    checked = None
    if plan is not None:
        found = check_plan(plan, parts, checkpoint.tensors, scale_dtype=scale_dtype(dtype))
        checked, grids, stored = found.plan, found.grids, found.storage
        notes += found.notes
    else:
        assert scheme is not None
        grids = choose_grids(parts, scheme, embed, dtype)
        every = {linear.address: linear.shape for linear in (*parts.linears(), *tables(parts))}
        among = frozenset(linear.address for linear in tables(parts))
        if embed is not None and not parts.family.known:
            raise UsageError(
                "whet has no table of the family {family}, so it does not know who reads its embedding. Leave out "
                "--embed.",
                family=parts.model_type,
            )
        notes += _without_ragged(runtime, grids, every)
        stored = storage(runtime, grids, every, among, tied(runtime, parts), parts, dtype)
    if repair is not None:
        stored = beside_adapter(stored, grids)
        if checked is not None and checked["predicted"] is not None:
            notes.append(
                Message("the plan's prediction is of its schemes alone, without what repair adds in bytes and wins")
            )
    writes_itself = text is None and (solver != "nearest" or transform not in (None, *BLIND))
    if writes_itself and parts.task != "causal":
        raise UsageError(
            "No text was given, and {model} does not write any by itself. Give --text FILE of the kind the model is "
            "used for, or --solver nearest{without}, which needs none.",
            model=checkpoint.path.name,
            without="" if transform is None else Message(" without --transform {transform}", transform=transform),
        )
    if writes_itself:
        check_fits(checkpoint)
        window = min(window, int(checkpoint.config.get("max_position_embeddings") or window))
    solve: list[Tensor] = []
    verify: list[Tensor] = []
    about: dict[str, Any] | None = (
        {"source": "written by the model itself", "window": window} if writes_itself else None
    )
    if text is not None:
        solve, verify, about = read_windows(
            checkpoint, text, eval_text, field=field, chat=chat, samples=samples, window=window, seed=seed
        )
        check_vocabulary(checkpoint, parts, (*solve, *verify))
    if transform == "auto" and not writes_itself and not verify:
        raise UsageError(
            "--transform auto keeps what helps on text that solves nothing, and none is left for that: give more text, "
            "or --eval FILE."
        )
    if untied:
        notes.append(
            Message(
                "{head}.weight differs from the embedding although config.json ties the two: both are kept, as "
                "transformers does, and the lighter config says that they are not tied",
                head=parts.family.head,
            )
        )
    if about is not None and about.get("window", window) < window:
        notes.append(
            Message(
                "windows of {have} tokens instead of {asked}: the model's config allows no longer ones",
                have=about["window"],
                asked=window,
            )
        )
    if parts.unnamed:
        notes.append(Message("copied unchanged, as no table names them: {names}", names=", ".join(parts.unnamed)))
    if parts.dropped:
        notes.append(
            Message("{name} left out: it is a copy of the embedding, to which config.json ties it", name=parts.dropped)
        )
    if solver in BLOCKWISE and (why := not_followed(parts)) is not None:
        notes.append(
            Message(
                "blocks are trained with every error of their output weighed alike, and nothing after them: {why}",
                why=why,
            )
        )
    if solver in ASYMMETRIC and any(linear.held.expert is not None for linear in parts.linears()):
        notes.append(
            Message("experts are rounded as by gptq: the original and the lighter model send them different tokens")
        )
    beside, alone = _beside(checkpoint, parts, solve, synthetic, best and solver == EFFORTS[BEST])
    notes += alone
    seen, widest = sum(map(len, solve)) + beside, max((linear.shape[1] for linear in parts.linears()), default=0)
    if solve and solver != "nearest" and seen < widest:
        notes.append(
            Message(
                "solved on {tokens} tokens, fewer than the {widest} channels that its widest linear reads: give more "
                "text (--text, --samples, --synthetic)",
                tokens=seen,
                widest=widest,
            )
        )
    if text is not None and not verify:
        notes.append(Message("no text was left for verifying, so the run reports no KL of its own; use whet compare"))
    recipe = {
        "step": "quantize",
        "model": model_name(checkpoint.path.resolve()),
        "model_path": str(checkpoint.path.resolve()),
        "scheme": scheme,
        "embed": embed,
        "plan": None if checked is None else plan_hash(checked),
        "solver": solver,
        "transform": transform,
        "repair": repair,
        "synthetic": beside,
        "target": runtime.name,
        "container": stored.container,
        "seed": seed,
        "device": torch.device(place).type,
        "threads": torch.get_num_threads(),
        "compute": str(compute_type(dtype, place)).removeprefix("torch."),
        "text": about,
    }
    decision = Decision(
        recipe,
        checkpoint,
        parts,
        grids,
        stored,
        dtype,
        place,
        solve,
        verify,
        notes,
        samples * window if writes_itself else beside,
        checked,
        parted=parted,
    )
    if repair is not None:
        _check_repair(decision, runtime)
    return decision


def _beside(
    checkpoint: Checkpoint, parts: Anatomy, solve: list[Tensor], asked: int | None, best: bool
) -> tuple[int, list[Message]]:
    """Tokens that the model is to write beside the text `solve`, and what to say. Raises UsageError where it cannot."""
    if asked is not None and asked < 0:
        raise UsageError(
            "synthetic {tokens} is no number of tokens. Give 0 for none, or how many, such as {enough}.",
            tokens=asked,
            enough=ENOUGH,
        )
    if not solve:
        if asked:
            raise UsageError(
                "synthetic {tokens} asks for text beside yours, and none is solved on. Give --text FILE too, or leave "
                "synthetic out: without any text the model writes all of it, where the solver needs some.",
                tokens=asked,
            )
        return 0, []
    tokens = (max(0, ENOUGH - sum(map(len, solve))) if best else 0) if asked is None else asked
    if not tokens:
        return 0, []
    why = Message("does not write any") if parts.task != "causal" else lacking(checkpoint)
    if not why:
        return tokens, []
    if asked:
        raise UsageError(
            "synthetic {tokens} asks for text that the original writes, but {model} {why}. Leave it out and give more "
            "text (--text, --samples).",
            tokens=asked,
            model=checkpoint.path.name,
            why=why,
        )
    return 0, [
        Message(
            "solved on the text given alone, of which `best` would have more from the original, but it {why}", why=why
        )
    ]


def _without_ragged(target: Target, grids: dict[str, Grid], shapes: Mapping[str, tuple[int, int]]) -> list[Message]:
    """Gives parts whose rows a target's own types do not divide one that does; returns what to say."""
    found: dict[tuple[str, str], list[str]] = {}
    for address, grid in grids.items():
        if grid.name in target.schemes and (other := stand_in(target, grid.name, shapes[address][1])) != grid.name:
            found.setdefault((grid.name, other), []).append(address)
    for (_, other), addresses in found.items():
        grids |= dict.fromkeys(addresses, parse_scheme(other))
    return [
        Message(
            "{other} instead of {scheme}, because their rows do not divide by {group}: {names}",
            other=other,
            scheme=scheme,
            group=parse_scheme(scheme).group,
            names=first_of(some),
        )
        for (scheme, other), some in found.items()
    ]


def _target_of(plan: Mapping[str, Any], target: str | None) -> str:
    """The plan's target, which nobody may contradict: what one runtime holds another may not."""
    if target is not None and target != plan["target"]:
        raise UsageError(
            "The plan is for {target}, {other} is asked for. Leave out --for, or make a plan for {other}: what one "
            "runtime holds another may not.",
            target=plan["target"],
            other=target,
        )
    return str(plan["target"])


def _check_repair(decision: Decision, target: Target) -> None:
    """Raises UsageError where no adapter can name what is to be repaired, or the target takes none."""
    parts = decision.anatomy
    if not target.adapters:
        takes = ", ".join(name for name, other in TARGETS.items() if other.adapters)
        raise UsageError(
            "repair makes an adapter, and with {target} whet has run none. Leave repair out, or give a runtime that "
            "takes it: {known}.",
            target=target.name,
            known=takes,
        )
    if not parts.family.known:
        raise UsageError(
            "whet has no table of the family {family}, so it does not know its modules, which an adapter has to name. "
            "Leave repair out.",
            family=parts.model_type,
        )
    if any(linear.held.expert is not None for linear in decision.chosen(parts.linears())):
        raise UsageError(
            "{family} stacks its experts in one parameter, which is no module that an adapter could name. Leave "
            "repair out, or give a plan that keeps the experts as they are.",
            family=parts.family.title,
        )
    if not decision.repaired:
        raise UsageError("repair has nothing to repair: no linear of the blocks is rounded to codes. Leave repair out.")
