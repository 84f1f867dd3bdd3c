"""From options to a `Job`: everything that can be known before the long part, checked against model, target and text.

Nothing is written here, and every wrong input is an error of one paragraph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Anatomy
from whet.apply.job import Job, compute_type, model_name, scale_dtype
from whet.budget import check_plan, read_plan, tables
from whet.checkpoint import Checkpoint
from whet.checkpoint.memory import lacking
from whet.engines.torch import resolve_device
from whet.errors import UsageError
from whet.formats.gguf.mixes import mixed_types
from whet.formats.gguf.source import text_model
from whet.grids import Grid, find_cache_grid, find_mix, leaves_group, parse_scheme
from whet.messages import Message, first_of, listed
from whet.pruning import Sparsity
from whet.quantize import SOLVERS, Effort, find_solver, find_transform
from whet.steps.caches import kept_caches
from whet.steps.material import Material, about_text, read_material
from whet.steps.options import TARGET, Quantize
from whet.steps.original import Original, about_original, check_code, open_original
from whet.steps.sparsity import check_sparsity, rule_of
from whet.targets import (
    TARGETS,
    Storage,
    Target,
    beside_adapter,
    divided,
    find_target,
    stand_in,
    storage,
    stored_for,
    tied,
)
from whet.walk import not_followed

# Tokens that training is given, at the least, where the original may write some (`whet.steps.material`).
ENOUGH = 1 << 16
SOLVER = "gptq"  # where none is asked for


@dataclass(frozen=True)
class _Method:
    """How it is done."""

    effort: Effort
    target: Target
    scheme: str | None
    plan: dict[str, Any] | None


def decide(
    model: str | Path,
    asked: Quantize,
    *,
    seed: int = 0,
    device: str = "auto",
    material: Material | None = None,
    compute: torch.dtype | None = None,
) -> Job:
    """What a run does. Raises UsageError or MachineError before anything runs.

    material: windows that were read already, which a resumed run has; `asked` names the text otherwise. compute: the
    type a block's products are computed in; the one that is fast here unless given. A budget is decided on its target's
    simplest scheme, which every plan then takes the place of.
    """
    if asked.budgeted and asked.text is None and material is None:
        raise UsageError(
            "A budget is planned from what the model does on text: give --text FILE, of the kind it is used for."
        )
    method = _method(asked)
    place = resolve_device(device)
    opened = open_original(model, method.target, asked.dequantize, turned=find_transform(asked.transform).stream)
    parts, checkpoint, notes = opened.parts, opened.checkpoint, list[Message]()
    if not parts.family.known:
        notes.append(_about_unknown(asked, method, opened))
        method = dataclasses.replace(method, effort=SOLVERS["nearest"])
        asked = asked.model_copy(update={"text": None, "eval_text": None})
    sparsity = rule_of(asked, method.effort, opened)
    grids, stored, plan, more = _grids(asked, method, opened)
    notes += more
    if asked.repair is not None:
        stored = beside_adapter(stored, grids)
        if plan is not None and plan["predicted"] is not None:
            notes.append(
                Message("the plan's prediction is of its schemes alone, without what repair adds in bytes and wins")
            )
    given = material
    if material is None:
        material, more = _material(asked, method, opened, sparsity, seed, grids)
    if find_transform(asked.transform).judged and not material.to_write and not material.verify:
        raise UsageError(
            "--transform auto keeps what helps on text that is not calibrated on, and none is left for that: give more "
            "text, or --eval FILE."
        )
    notes += about_original(opened, asked.window, material) + _about_solver(method, parts)
    if given is None:
        notes += more + about_text(asked, material, parts, solved=method.effort.text)
    job = Job(
        checkpoint=checkpoint,
        anatomy=parts,
        name=model_name(checkpoint.path.resolve()),
        grids=grids,
        storage=stored,
        target=method.target.name,
        dtype=opened.dtype,
        compute=compute or compute_type(opened.dtype, place),
        device=place,
        solver=method.effort.name,
        seed=seed,
        scheme=None if asked.budgeted else method.scheme,
        embed=asked.embed,
        plan=plan,
        transform=asked.transform,
        repair=asked.repair,
        synthetic=material.synthetic,
        solve=material.solve,
        verify=material.verify,
        to_write=material.to_write,
        text=material.about,
        notes=tuple(notes),
        parted=opened.parted,
        card=opened.card,
        sparsity=sparsity,
        folder=asked.folder,
        kv=kept_caches(asked, method.target, stored, parts, checkpoint),
    )
    check_sparsity(job)
    if asked.repair is not None:
        _check_repair(job, method.target)
    return job


def _method(asked: Quantize) -> _Method:
    """The solver, the target and the scheme or plan, each known by name."""
    plan, solver, target = None, asked.solver, asked.target
    if asked.plan is not None:
        plan = read_plan(asked.plan)
        solver, target = solver or plan["solver"], _target_of(plan, target)
    runtime = find_target(target or TARGET)
    scheme = None
    if plan is None:
        scheme = asked.scheme or (runtime.simplest if asked.budgeted else runtime.usual)
        mix = find_mix(scheme) if runtime.gguf else None
        scheme = mix or scheme
        if mix is None:
            parse_scheme(scheme)
        if asked.embed is not None:
            parse_scheme(asked.embed)
    effort = find_solver(solver or SOLVER)
    find_transform(asked.transform)
    if asked.kv is not None:
        find_cache_grid(asked.kv)
    if asked.folder and not (runtime.gguf or runtime.graph):
        raise UsageError(
            "folder keeps the Hugging Face folder beside a runtime's own file, and {target} reads the folder "
            "itself. Leave it "
            "out.",
            target=runtime.name,
        )
    return _Method(effort, runtime, scheme, plan)


def _about_unknown(asked: Quantize, method: _Method, opened: Original) -> Message:
    """What becomes of a family that no table has, and whose parts were not found. Raises UsageError for what needs a
    table."""
    parts = opened.parts
    if asked.transform is not None:
        raise UsageError(
            "whet has no table of the family {family}, so it does not know where --transform {transform} folds in. "
            "Leave it out.",
            family=parts.model_type,
            transform=asked.transform,
        )
    if asked.embed is not None:
        raise UsageError(
            "whet has no table of the family {family}, so it does not know who reads its embedding. Leave out --embed.",
            family=parts.model_type,
        )
    named = asked.solver is not None or method.plan is not None
    useless = (named and method.effort.text) or asked.text is not None
    return Message(
        "whet has no table of the family {family}, and did not find its parts by running it ({why}): only the linears "
        "of its {count} blocks ({blocks}) are rounded, each to nearest and by itself, without a look at text{unused}",
        family=parts.model_type,
        count=len(parts.blocks),
        blocks=parts.family.blocks,
        why=opened.unfound,
        unused=Message(" (the solver and text that were given have no use here)") if useless else "",
    )


def _grids(
    asked: Quantize, method: _Method, opened: Original
) -> tuple[dict[str, Grid], Storage, dict[str, Any] | None, list[Message]]:
    """A grid for every part that has one, how they are stored, the plan they are of, and notes."""
    parts, checkpoint, dtype = opened.parts, opened.checkpoint, opened.dtype
    if method.plan is not None:
        found = check_plan(method.plan, parts, checkpoint.tensors, scale_dtype=scale_dtype(dtype))
        check_code(checkpoint, found.storage, method.target, asked.folder)
        return found.grids, found.storage, found.plan, found.notes
    assert method.scheme is not None
    chosen = choose_grids(opened, method.scheme, asked.embed)
    grids = {address: stored_for(method.target, grid) for address, grid in chosen.items()}
    shapes = {linear.address: linear.shape for linear in (*parts.linears(), *tables(parts))}
    own = frozenset(linear.address for linear in tables(parts))
    notes = _without_ragged(method.target, grids, shapes)
    open_groups = {a for a in grids if leaves_group((asked.embed if a in own else None) or method.scheme)}
    experts = any(linear.held.expert is not None for linear in parts.linears())
    notes += _with_dividing(method.target, grids, shapes, open_groups, alike=experts or asked.repair is not None)
    stored = storage(method.target, grids, shapes, own, tied(method.target, parts), parts, dtype)
    check_code(checkpoint, stored, method.target, asked.folder)
    return grids, stored, None, notes


def _material(
    asked: Quantize,
    method: _Method,
    opened: Original,
    sparsity: Sparsity | None,
    seed: int,
    grids: Mapping[str, Grid],
) -> tuple[Material, list[Message]]:
    """The windows of the text, how many tokens the original is to write for want of text or beside it, and notes."""
    checkpoint, parts = opened.checkpoint, opened.parts
    needed = method.effort.text or find_transform(asked.transform).text
    without = "" if asked.transform is None else f" without --transform {asked.transform}"
    if any(grid.inputs and grid.inputs.scale_part for grid in grids.values()):
        needed, without = True, f" with inputs that are scaled while the model runs (+int8, +fp8){without}"
    if asked.kv is not None:
        needed, without = True, f"{without} and without --kv"
    if sparsity is not None and sparsity.inputs:
        needed, without = True, f" with --importance magnitude{without}"
    instead = f"--solver nearest{without}"
    found = read_material(asked, checkpoint, parts, seed, needed=needed, instead=instead)
    beside, notes = _beside(checkpoint, parts, found.solve, asked.synthetic, method.effort.writes)
    return dataclasses.replace(found, to_write=found.to_write or beside, synthetic=beside), notes


def _about_solver(method: _Method, parts: Anatomy) -> list[Message]:
    """Notes on what a solver makes of the model."""
    notes = []
    if method.effort.block and (why := not_followed(parts)) is not None:
        notes.append(
            Message(
                "blocks are trained with every error of their output weighed alike, and nothing after them: {why}",
                why=why,
            )
        )
    if method.effort.correct and any(linear.held.expert is not None for linear in parts.linears()):
        notes.append(
            Message("experts are rounded as by gptq: the original and the lighter model send them different tokens")
        )
    return notes


def choose_grids(opened: Original, scheme: str, embed: str | None) -> dict[str, Grid]:
    """Address → grid for every linear of the blocks, and for embedding and head where `embed` names a scheme or
    `scheme` is a mix of llama.cpp's."""
    parts, scales = opened.parts, scale_dtype(opened.dtype)
    if (mix := find_mix(scheme)) is not None:
        named = mixed_types(mix, parts, text_model(opened.checkpoint).config)
    else:
        named = dict.fromkeys((linear.address for linear in parts.linears()), scheme)
    if embed is not None:
        named |= {linear.address: embed for linear in tables(parts)}
    grids = {name: parse_scheme(name, scales) for name in set(named.values())}
    return {address: grids[name] for address, name in named.items()}


def _beside(
    checkpoint: Checkpoint, parts: Anatomy, solve: Sequence[Tensor], asked: int | None, best: bool
) -> tuple[int, list[Message]]:
    """Tokens that the model is to write beside the text `solve`, and what to say. Raises UsageError where it cannot."""
    if not solve:
        if asked:
            raise UsageError(
                "synthetic {tokens} asks for text beside yours, and none is calibrated on. Give --text FILE too, or "
                "leave synthetic out: without any text the model writes all of it, where the solver needs some.",
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
            "calibrated on the text given alone, of which `best` would have more from the original, but it {why}",
            why=why,
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


def _with_dividing(
    target: Target, grids: dict[str, Grid], shapes: Mapping[str, tuple[int, int]], addresses: set[str], *, alike: bool
) -> list[Message]:
    """Gives each of `addresses`, whose group nobody chose, one that divides its rows; returns what to say.

    alike: all of a scheme the same, since stock transformers reads stacked experts, and weights beside an adapter, of
    one scheme only.
    """
    widths = {grids[address]: {shapes[a][1] for a in addresses if grids[a] == grids[address]} for address in addresses}
    found: dict[Grid, dict[Grid, list[str]]] = {}
    for address, grid in [(a, grid) for a, grid in grids.items() if a in addresses]:
        other = divided(target, grid, widths[grid] if alike else {shapes[address][1]})
        if other != grid:
            grids[address] = other
            found.setdefault(grid, {}).setdefault(other, []).append(address)
    return [
        Message(
            "{others} instead of {scheme}, because {group} does not divide every row",
            others=listed([Message("{other} ({names})", other=o.name, names=first_of(a)) for o, a in some.items()]),
            scheme=grid.name,
            group=grid.group,
        )
        for grid, some in found.items()
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


def _check_repair(job: Job, target: Target) -> None:
    """Raises UsageError where no adapter can name what is to be repaired, or the target takes none."""
    parts = job.anatomy
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
    if any(linear.held.expert is not None for linear in job.chosen(parts.linears())):
        raise UsageError(
            "{family} stacks its experts in one parameter, which is no module that an adapter could name. Leave "
            "repair out, or give a plan that keeps the experts as they are.",
            family=parts.family.title,
        )
    if not job.repaired:
        raise UsageError("repair has nothing to repair: no linear of the blocks is rounded to codes. Leave repair out.")
