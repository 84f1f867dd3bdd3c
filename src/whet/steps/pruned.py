"""Pruning carried out: the shape chosen, blocks cut and written one by one, and the folder finished and proved."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import BLOCK_CONFIGS, Anatomy, Cut, Kept, anatomy, block_cuts, narrowed_rest, per_layer, resized
from whet.anatomy.surgery import READERS
from whet.apply.cut import Cutter, Cutting, Done
from whet.apply.job import Job
from whet.apply.run import Run
from whet.checkpoint import (
    MANIFEST,
    NAMED,
    Checkpoint,
    copy_beside,
    hashed_files,
    read_header,
    read_tensor,
    size_on_disk,
    write_bytes,
    write_json,
    write_tensors,
)
from whet.errors import UsageError
from whet.events import Stage, Way, note_event
from whet.formats.decilm import with_block_configs
from whet.messages import Message, to_json
from whet.steps.config import modelling_files
from whet.steps.lineage import next_manifest
from whet.steps.options import RECIPE, recipe_text
from whet.steps.prune_card import prune_card
from whet.steps.prune_proof import prove_pruned
from whet.steps.prune_shapes import whole_of
from whet.steps.prune_trials import Trials, agreement_at_end, kl_and_top1
from whet.walk import Journal, Untouched, Walk

Card = Callable[[Job, Mapping[str, Any], Mapping[str, Any], Sequence[Message], Mapping[str, int]], str]


def carried_out(
    run: Run,
    job: Job,
    began: Mapping[str, Any],
    way: Way,
    trials: type[Trials] = Trials,
    card: Card = prune_card,
) -> dict[str, Any]:
    """See a run through that is begun or gone on with. trials: what finds the shape. card: what writes README.md."""
    started = time.monotonic()
    for note in job.notes:
        way(note_event(note))
    work = _Work(run, job, way, trials, card)
    shape = work.trials.shape()
    kept, ended = work.cut(shape)
    result = work.finished(shape, kept, ended, began)
    run.close()
    return {**result, "seconds": {"this call": time.monotonic() - started}}


class _Work:
    """A run of the step, from the shape to the finished folder."""

    def __init__(self, run: Run, job: Job, way: Way, trials: type[Trials], card: Card) -> None:
        self.run, self.job, self.way = run, job, way
        self.parts, self.checkpoint = job.anatomy, job.checkpoint
        self.trials, self.card = trials(job, run.folder, way), card
        self.solve, self.judge = self.trials.proving()
        self.built, self.counts = self.trials.built, self.trials.counts
        self.journal = Journal(run.folder)

    def cut(self, shape: Mapping[str, Any]) -> tuple[Kept, Walk]:
        """Cut and write every block, then the rest; returns what stays and the walk at its end."""
        cutting = self.trials.planned(shape)
        model = self.trials.job_of(cutting)
        self.parts, self.checkpoint = model.anatomy, model.checkpoint
        stage = Stage(self.way, "prune", len(shape["layers"]))

        def write(index: int, done: Done) -> None:
            self._write(cutting, index, done)
            stage.step(unit=f"block {index}")

        cutter = Cutter(cutting, len(self.solve), lambda index: self._earlier(cutting, index), write)
        walk = self.trials.walked(cutter, self.solve, self.judge)
        if self.parts.task == "causal":
            self.heads = self.trials.heads(walk, cutter, len(self.solve))
        self._rest(cutting)
        return cutter.chosen(), walk

    def _file(self, number: int, of: int) -> Path:
        return self.run.out / f"model-{number + 1:05d}-of-{of:05d}.safetensors"

    def _write(self, cutting: Cutting, index: int, done: Done) -> None:
        """Write a block as it is without what goes."""
        kept = Kept(
            cutting.layers,
            **{unit: {index: mine} for unit, mine in done.kept.items()},
            experts={index: cutting.experts[index]} if index in cutting.experts else {},
            hidden=_directions(cutting),
        )
        cuts = block_cuts(self.parts, self.built, self.checkpoint.shapes, kept, index)
        weights = {**done.weights, **self.trials.merged(index)}
        changed = [x for x in self.parts.blocks[index] if x.address in weights]
        tensors = {}
        for name, cut in cuts.items():
            tensor = self.checkpoint.read(cut.stored)
            for linear in (x for x in changed if x.parameter == cut.stored):
                linear.view(tensor).copy_(weights[linear.address])
                _finite(linear.address, tensor)
            tensors[name] = cut.of(tensor).to(self.checkpoint.tensors[cut.stored].dtype)
        file = self._file(cutting.layers.index(index), len(cutting.layers) + 1)
        write_tensors(file, tensors)
        told = {unit: list(mine) for unit, mine in done.kept.items()}
        self.journal.record(_unit(index), file, kept=told, ridges=dict(done.ridges))

    def _earlier(self, cutting: Cutting, index: int) -> Done | None:
        """A block that an earlier run wrote, read back."""
        entry = self.journal.finished(_unit(index), self.run.out)
        if entry is None:
            return None
        kept = {unit: tuple(mine) for unit, mine in entry["kept"].items()}
        stored = read_header(self.run.out / entry["file"])
        weights = {}
        made = Kept(cutting.layers, **{unit: {index: mine} for unit, mine in kept.items()}, hidden=_directions(cutting))
        cuts = {cut.stored: (name, cut) for name, cut in self._cuts(made, index).items()}
        for linear in self.parts.blocks[index]:
            unit = next((unit for unit, role in READERS.items() if role == linear.role), None)
            if cutting.narrow is None and (unit is None or not (unit in kept or cutting.repair)):
                continue
            if linear.parameter not in cuts:  # its sub-block is gone
                weights[linear.address] = torch.zeros(linear.shape, device=self.job.device)
                continue
            name, cut = cuts[linear.parameter]
            whole = cut.back(read_tensor(stored[name]), self.checkpoint.shapes[linear.parameter])
            weights[linear.address] = linear.view(whole).to(self.job.device)
        return Done(kept, weights, entry["ridges"])

    def _cuts(self, kept: Kept, index: int) -> dict[str, Cut]:
        return block_cuts(self.parts, self.built, self.checkpoint.shapes, kept, index)

    def _rest(self, cutting: Cutting) -> None:
        blocks, narrow = len(cutting.layers), cutting.narrow
        file = self._file(blocks, blocks + 1)
        if self.journal.finished("rest", self.run.out) is None:
            names = [name for name in self.parts.other_tensors if name != self.parts.dropped]
            tensors = {name: self.checkpoint.read(name) for name in names}
            if narrow is not None:
                assert self.parts.head is not None
                tensors[self.parts.head.parameter] = self.heads[1].cpu()
                for name, found in narrowed_rest(self.parts, narrow.kept).items():
                    tensors[name] = Cut(name, *found).of(tensors[name]).to(self.checkpoint.tensors[name].dtype)
            write_tensors(file, tensors)
            self.journal.record("rest", file)

    def finished(self, shape: Mapping[str, Any], kept: Kept, ended: Walk, began: Mapping[str, Any]) -> dict[str, Any]:
        """Index, config, the original's other files, proof, card and manifest."""
        job, out = self.job, self.run.out
        count = len(kept.layers) + 1
        headers = {self._file(number, count).name: read_header(self._file(number, count)) for number in range(count)}
        mapping = {name: file for file, header in headers.items() for name in header}
        total = sum(info.nbytes for header in headers.values() for info in header.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(mapping.items()))}
        write_json(out / "model.safetensors.index.json", index)
        config, _ = resized(self.parts, self.checkpoint.config, self.built, self.checkpoint.shapes, kept)
        config = with_block_configs({key: value for key, value in config.items() if key != NAMED})
        write_json(out / "config.json", config)
        for name, code in modelling_files(config).items():
            write_bytes(out / name, code)
        copy_beside(job.original.path, out, began["files"])
        first = (self.solve[0], ended.lighter[0])
        found: dict[str, Any] = dict(shape.get("verified", {}))
        if self.judge and self.parts.task == "causal" and not kept.experts:
            found |= agreement_at_end(ended, self.judge, len(self.solve), *self.heads)
        head = self.heads[1] if self.parts.task == "causal" else None
        found["check"] = prove_pruned(out, job, ended.skeleton, *first, head, exact=not kept.experts)
        if self.judge and self.parts.task == "causal" and kept.experts:
            found |= measured(self.trials, self.checkpoint, self.parts, Checkpoint(out))
        notes = [*job.notes, *notes_of(job, shape)]
        for note in notes[len(job.notes) :]:
            self.way(note_event(note))
        write_bytes(out / RECIPE, recipe_text(began["recipe"], "whet run recipe.yaml").encode())
        told = {**shape, "unlike": bool(per_layer(config)), "block_configs": BLOCK_CONFIGS in config}
        write_bytes(out / "README.md", self.card(job, told, found, notes, whole_of(job).record()).encode())
        record = job.record()
        record["removal"]["importance"] |= shape.get("importance", {})
        manifest = next_manifest(
            job.original,
            {**record, "removed": shape["removed"], "amounts": shape["amounts"]},
            name=job.name,
            sha256=job.sha256,
            container="dense",
            target=job.target,
            kept=kept.record(),
            elastic=shape.get("elastic"),
            verify={key: found[key] for key in ("kl", "top1") if key in found},
            notes=to_json(notes),
            files=hashed_files(out),
        )
        write_json(out / MANIFEST, manifest.document())
        Stage(self.way, "finish", 1).step()
        return {
            **told_of(out, job, shape, kept, record["removal"]["importance"]),
            **({"repaired": shape["repair"]} if "repair" in shape else {}),
            **({"merged": shape["merged"]} if "merged" in shape else {}),
            **({"elastic": shape["elastic"]} if "elastic" in shape else {}),
            "loads_in": "modelling file" if per_layer(config) else "transformers",
            **found,
            "notes": notes,
        }


def told_of(out: Path, job: Job, shape: Mapping[str, Any], kept: Kept, importance: Any) -> dict[str, Any]:
    """What is told of every pruned folder: what went, by what it was chosen, and what both weigh."""
    return {
        "out": str(out),
        **job.choices(),
        "removed": shape["removed"],
        "amounts": shape["amounts"],
        "kept": kept.record(),
        "trials": shape["trials"],
        "importance": importance,
        "sizes": {"original": size_on_disk(job.original.path), "lighter": size_on_disk(out)},
    }


def measured(trials: Trials, checkpoint: Checkpoint, parts: Anatomy, written: Checkpoint) -> dict[str, float]:
    """As `agreement_at_end`, of the folder that was `written` of the model of `checkpoint` and `parts`."""
    row = None if parts.family.entries else parts.family  # whose numbers are those of the larger one
    after = anatomy(written.config, written.shapes, str(written.path), row)
    table, device = written.read(after.embedding.parameter), trials.job.device
    walks = [
        Walk(checkpoint, parts, trials.judge, [], trials.table, trials.table, device),
        Walk(written, after, trials.judge, [], table, table, device),
    ]
    for walk in walks:
        walk.go(Untouched())
    head = checkpoint.read((parts.head or parts.embedding).parameter).to(device).float()
    return kl_and_top1(walks[0], trials.judge, zip(*(walk.final() for walk in walks), strict=True), head, head)


def _directions(cutting: Cutting) -> int | None:
    """How many of the residual stream's directions stay, where it is turned."""
    return None if cutting.narrow is None else cutting.narrow.kept


def notes_of(job: Job, shape: Mapping[str, Any]) -> list[Message]:
    """Notes on what came out otherwise than it was asked for."""
    assert job.removal is not None
    notes = []
    if shape["amounts"].get("hidden", 0) not in (0, whole_of(job).hidden) and job.anatomy.tied:
        embedding = job.anatomy.embedding
        size = embedding.shape[0] * shape["amounts"]["hidden"] * job.dtype.itemsize
        notes.append(
            Message(
                "the head is stored apart from the embedding, to which config.json ties it, and {takes}: the last "
                "norm's weights are folded into it",
                takes=Message("takes {size:,} bytes more", size=size),
            )
        )
    if abs(shape["removed"] - float(job.removal.share)) > 0.02:
        notes.append(
            Message(
                "{removed:.1%} of the blocks' parameters went, not {share:.1%}: whole units come no nearer",
                removed=shape["removed"],
                share=float(job.removal.share),
            )
        )
    amounts, whole = shape["amounts"], whole_of(job).record()
    if "importance" in shape and any(amounts[unit] < whole[unit] for unit in READERS):
        rivals = {
            x["importance"]: x["kl"] for x in shape["trials"] if all(x[unit] == amounts[unit] for unit in amounts)
        }
        notes.append(
            Message(
                "channels and heads were chosen by {name}: without repair it lost least on the verifying text "
                "({rivals} nats a token)",
                name=min(rivals, key=lambda name: rivals[name]),
                rivals=", ".join(f"{name} {kl:.4g}" for name, kl in rivals.items()),
            )
        )
    if shape.get("repair", job.removal.repair) != job.removal.repair:
        fitted, plain = shape["kl"]["repair"], shape["kl"]["no repair"]
        notes.append(
            Message(
                "weights stay as they were: fitting them to what goes lost more on the verifying text ({fitted:.4g} "
                "against {plain:.4g} nats a token). More text (--samples) may help.",
                fitted=fitted,
                plain=plain,
            )
        )
    return notes


def _finite(address: str, tensor: Tensor) -> None:
    if not torch.isfinite(tensor).all():
        raise UsageError(
            "{linear}: weights that make up for others exceed what {dtype} holds. Convert the original to bfloat16 or "
            "float32 first.",
            linear=address,
            dtype=tensor.dtype,
        )


def _unit(index: int) -> str:
    return f"block {index}"
