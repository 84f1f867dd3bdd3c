"""What `auto` folds in: of what is proposed for each group of linears, only what keeps more of the whole, measured.

What a linear loses does not tell what the model loses: on a model of a million parameters, groups that took whatever
lost least linear by linear had 1.031 of the KL without any transform at 2 bits. So there are two judgements more.

1. Group by group: KL(original ‖ original with that group's linears rounded), under none and under each proposal, all of
   them followed in one pass. A proposal is kept where it lowers that by more than its standard error: the others are
   as likely to harm on other text.
2. The whole: the model rounded throughout with what was kept, and without any, on the verifying text. All of it stays
   where that lowers the KL by more than its standard error over windows, else none. A block that is rounded otherwise
   moves all that is solved after it: at 2 bits one group's transform moved the KL of that model by up to 6 % either
   way, whatever it did by itself, with a standard error of 2 to 4 % over 16 windows.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.apply.job import BATCH_TOKENS, Job
from whet.apply.marginal import ROOM, SOLVING, affordable
from whet.apply.passes import solve_through
from whet.apply.shards import Shards
from whet.checkpoint import write_json
from whet.events import Event, OnEvent, Stage, note_event
from whet.measure.divergence import score_tokens
from whet.messages import Message
from whet.quantize import TRANSFORMS
from whet.text import batches
from whet.train import noise, surely
from whet.transforms.folding import Fold
from whet.transforms.make import FOLDER, foldable, transformed
from whet.transforms.notes import judged_by_group, judged_whole
from whet.transforms.propose import NONE, Proposals, swap_name
from whet.walk import ORIGINAL, Swaps, not_followed

JUDGING = "judging"  # the folder in the run's own
TIMES = 4.0  # how long following all proposals may take, as a multiple of solving
# Transforms that may be proposed for a group: all that find factors, and a rotation of its heads.
PROPOSED = 1 + sum(row.find is not None for row in TRANSFORMS.values())
WHOLE = ("smooth", "rotate")  # tried on the whole where inputs are rounded too
_BOTH = ("with", "without")
_PIECE = 128  # tokens whose mean KL is one observation, where a standard error is taken


def with_transform(job: Job, run: Path, on_event: OnEvent) -> Job:
    """As `transformed`; of `auto`, about the original with what it keeps folded in, or the original itself."""
    if not job.folding.judged or job.transforms is not None:
        return transformed(job, run, on_event)
    folder = run / JUDGING
    folder.mkdir(exist_ok=True)
    if job.inputs:
        return _one_for_all(job, run, folder, on_event)
    proposals = Proposals(job, folder, on_event)
    proposals.make(run)
    judged = _kept(folder / "groups.json", lambda: _by_group(job, proposals, on_event))
    kept: dict[str, dict[str, Any]] = judged["groups"]
    helped = sum(one["transform"] != NONE for one in kept.values())
    notes = [judged_by_group(judged, helped)]
    made = dataclasses.replace(job, transforms={name: _nothing() for name in kept})
    if helped:
        quiet = _without_notes(on_event)
        folds = functools.partial(_folds, proposals, kept)
        kl = _kept(
            folder / "whole.json",
            lambda: _by_whole(job, transformed(job, run, quiet, folds), folder, on_event),
        )
        for name in _BOTH:
            shutil.rmtree(folder / name, ignore_errors=True)
        notes.append(judged_whole(kl, _without_training(job).solver))
        if kl["stays"]:
            made = transformed(job, run, quiet, folds)
            notes = [*made.notes[len(job.notes) :], *notes]
        else:
            shutil.rmtree(run / FOLDER, ignore_errors=True)
    for note in notes:
        on_event(note_event(note))
    return dataclasses.replace(made, notes=(*job.notes, *notes))


def _one_for_all(job: Job, run: Path, folder: Path, on_event: OnEvent) -> Job:
    """Of `WHOLE` the transform with which least is lost, weights and inputs rounded throughout, or none.

    What it does to inputs reaches all blocks after it, so groups are not judged one by one.
    """
    quiet = _without_notes(on_event)

    def found(kind: str) -> dict[str, Any]:
        (folder / kind).mkdir(exist_ok=True)
        plain = job if kind == NONE else transformed(_of(job, kind), folder / kind, quiet)
        return _kept(folder / f"{kind}.json", lambda: _rounded(plain, folder / kind / "rounded", on_event))

    kinds = [kind for kind in WHOLE if _folds_anywhere(_of(job, kind))]
    lost = {kind: found(kind) for kind in (NONE, *kinds)}
    best = min(lost, key=lambda kind: lost[kind]["kl"])
    gain = torch.tensor(lost[NONE]["windows"], dtype=torch.float64) - torch.tensor(lost[best]["windows"])
    if best != NONE and not surely(gain):
        best = NONE
    for kind in lost:
        shutil.rmtree(folder / kind, ignore_errors=True)
    note = Message(
        "transform auto, inputs rounded too: KL on the verifying text is {figures}; {kind} is kept",
        figures=", ".join(f"{kind} {one['kl']:.4g}" for kind, one in lost.items()),
        kind=best,
    )
    made = dataclasses.replace(job, transforms={}) if best == NONE else transformed(_of(job, best), run, quiet)
    on_event(note_event(note))
    return dataclasses.replace(made, transform=job.transform, notes=(*made.notes, note))


def _of(job: Job, kind: str) -> Job:
    return dataclasses.replace(job, transform=kind)


def _folds_anywhere(job: Job) -> bool:
    return any(foldable(job, index)[0] for index in range(len(job.anatomy.blocks)))


def judging_bytes(job: Job, lighter: int) -> int:
    """Bytes on the disk that `auto` takes beside the transformed original, at most: codes of every proposal, their
    parameters, and the model rounded twice. lighter: bytes of it."""
    if not job.folding.judged:
        return 0
    weights = sum(math.prod(linear.shape) for linear in job.chosen(job.anatomy.linears()))
    # a byte a code; what else is stored of a group of weights is less than half of that
    return (PROPOSED + 1) * weights * 3 // 2 + 2 * lighter


def judging_memory(job: Job, block: int) -> int:
    """Bytes of memory that following all proposals takes, at most. block: weights of the largest block."""
    if not job.folding.judged:
        return 0
    # a block as it runs, what it is put back from, and its linears under every proposal
    return 4 * block * (PROPOSED + 3) + min(ROOM, _followed_tokens(job) * 4 * job.anatomy.embedding.shape[1])


def judging_multiplications(job: Job, weights: int) -> float:
    """Multiplications and additions of following all proposals, at most. weights: of all blocks."""
    return TIMES * SOLVING * 2.0 * weights * job.tokens


def _followed_tokens(job: Job) -> int:
    """Tokens of all streams together, at most."""
    streams = 1 + sum(PROPOSED + 1 for linears in job.anatomy.blocks for _ in {x.reads for x in linears})
    return streams * (job.tokens + sum(map(len, job.verify)))


def _kept(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What an earlier run found, or what is found now."""
    if not file.is_file():
        write_json(file, make())
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _folds(proposals: Proposals, kept: Mapping[str, dict[str, Any]], index: int) -> dict[str, Fold]:
    """What the groups of block `index` take, those that take anything."""
    wanted = {name: kept[name] for name in proposals.told(index) if kept[name]["transform"] != NONE}
    return {
        name: dataclasses.replace(proposals.fold(index, name, told["transform"]), told=told)
        for name, told in wanted.items()
    }


def _by_whole(job: Job, folded: Job, folder: Path, on_event: OnEvent) -> dict[str, Any]:
    """KL in nats a token `with` and `without` transforms, the standard error of the difference over windows as
    `noise`, and whether they stay."""
    found = [_rounded(one, folder / name, on_event) for one, name in zip((folded, job), _BOTH, strict=True)]
    gain = torch.tensor(found[1]["windows"], dtype=torch.float64) - torch.tensor(found[0]["windows"])
    kl = dict(zip(_BOTH, (one["kl"] for one in found), strict=True))
    return {**kl, "noise": noise(gain), "stays": kl["with"] < kl["without"] and surely(gain)}


def _without_training(job: Job) -> Job:
    """What the whole is judged with: training it twice more would cost more than a transform is worth."""
    return dataclasses.replace(job, solver=job.effort.alone.name)


def _rounded(job: Job, folder: Path, on_event: OnEvent) -> dict[str, Any]:
    """The model rounded throughout into `folder`: its divergence on the verifying text, as `solve_through` says it."""

    def listen(event: Event) -> None:
        if event["event"] != "progress":
            on_event(event)
        elif event["stage"] == "compress":
            on_event(event | {"stage": "judge"})

    folder.mkdir(exist_ok=True)
    judged = dataclasses.replace(_without_training(job), marginal=0.0)
    return solve_through(judged, Shards(judged, folder, folder, listen))


def _by_group(job: Job, proposals: Proposals, on_event: OnEvent) -> dict[str, Any]:
    """What each group takes, as `{"groups": {name: told}, "tokens": n, "share": s, "why": None}`.

    tokens: on how many it was judged. share: KL of the groups that take anything over their KL without, summed. Where
    they cannot be followed, `why` says so and each group takes what loses least linear by linear.
    """
    told = {name: shares for index in range(proposals.count) for name, shares in proposals.told(index).items()}
    best = {name: min(shares, key=shares.__getitem__) for name, shares in told.items() if shares}
    why = not_followed(job.anatomy)
    if why is None:
        for offered in (
            {name: [NONE, *shares] for name, shares in told.items() if shares},
            {name: [NONE, one] for name, one in best.items()},
        ):
            if not offered:
                return {"groups": {name: _nothing() for name in told}, "tokens": 0, "share": 1.0, "why": None}
            swaps = {
                swap_name(name, transform): linears
                for index in range(proposals.count)
                for name, linears in proposals.linears(index).items()
                for transform in offered[name]
            }
            if windows := affordable(job, swaps, TIMES):
                kl = _followed(job, proposals, swaps, windows, on_event)
                return _lowest(told, offered, kl) | {"tokens": sum(len(window) - 1 for window in windows)}
        why = Message("too few tokens could be followed in the time and memory of a run")
    groups = {
        name: {"transform": best[name], "loss": shares[best[name]]} if shares else _nothing()
        for name, shares in told.items()
    }
    return {"groups": groups, "tokens": 0, "share": None, "why": why}


def _nothing() -> dict[str, Any]:
    return {"transform": NONE, "loss": 1.0}


def _lowest(
    told: Mapping[str, Mapping[str, float]], offered: Mapping[str, Sequence[str]], kl: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Of each group the transform of the lowest KL, where it is lower than without by more than its standard error.

    kl: by swap the KL of every piece of text `[pieces]`, float64.
    """
    groups = {}
    before = after = 0.0
    for name, shares in told.items():
        groups[name] = _nothing()
        without = kl.get(swap_name(name, NONE))
        lowest = math.inf
        for transform in offered.get(name, [])[1:]:
            assert without is not None
            with_it = kl[swap_name(name, transform)]
            gain = without - with_it
            if surely(gain) and with_it.mean().item() < lowest:
                lowest = with_it.mean().item()
                share = lowest / without.mean().item()
                groups[name] = {"transform": transform, "loss": shares[transform], "kl": share}
        if without is not None and math.isfinite(lowest):
            before, after = before + without.mean().item(), after + lowest
    return {"groups": groups, "share": after / before if before else 1.0, "why": None}


def _followed(
    job: Job,
    proposals: Proposals,
    swaps: Mapping[str, Sequence[Any]],
    windows: Sequence[Tensor],
    on_event: OnEvent,
) -> dict[str, Tensor]:
    """KL(original ‖ one swap) in nats a token by swap, of each piece of text `[pieces]`, float64."""
    parts, taken = job.anatomy, batches(windows, BATCH_TOKENS)
    # in float32 whatever the run computes in, as in `marginal_losses`
    walk = Swaps(job.checkpoint, parts, taken, swaps, job.device)
    stage = Stage(on_event, "follow", proposals.count + len(taken))
    walk.go(proposals.weights, on_block=stage.step)
    head = job.checkpoint.read((parts.head or parts.embedding).parameter).to(job.device).float()
    found: dict[str, list[Tensor]] = {name: [] for name in swaps}
    for number, batch in enumerate(taken):
        for row in range(len(batch)):  # rows of vocabulary width exist for one window at a time
            before = walk.skeleton.next_logits(walk.final(ORIGINAL, number, row), head)
            for name in swaps:
                after = walk.skeleton.next_logits(walk.final(name, number, row), head)
                kl = score_tokens(before, after, batch[row, 1:][None])[0].double().flatten()
                found[name] += [piece.mean() for piece in kl.split(_PIECE)]
        stage.step()
    return {name: torch.stack(pieces) for name, pieces in found.items()}


def _without_notes(on_event: OnEvent) -> OnEvent:
    """Passes on everything but notes, which are told once it is known what stands."""
    return lambda event: None if event["event"] == "note" else on_event(event)
