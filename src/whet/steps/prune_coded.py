"""The part of the step `prune` that cuts a quantized folder: experts and whole blocks go, and codes stay as they are.

What its codes stand for is looked at as a dense model is (`whet.checkpoint.decoded`). What stays is then copied: codes
and scales under new numbers, and the router's rows that are left. Nothing is rounded again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Cut, Kept, renumbered, resized
from whet.apply.job import Job
from whet.apply.run import Run
from whet.checkpoint import (
    ADAPTER,
    MANIFEST,
    QUANTIZED,
    Checkpoint,
    Decoded,
    adapter_size,
    copy_beside,
    hashed_files,
    is_alone,
    load_lighter,
    read_header,
    read_tensor,
    reading_of,
    write_bytes,
    write_json,
    write_tensors,
)
from whet.engines.torch import cached_outputs, outputs
from whet.errors import GateError, UsageError
from whet.events import Stage, Way, note_event
from whet.messages import Message, to_json
from whet.steps.finish import MODELLING
from whet.steps.lineage import next_manifest
from whet.steps.options import RECIPE, Options, Prune, Quantize, recipe_text
from whet.steps.original import Original
from whet.steps.proof import PROVED
from whet.steps.prune_card import prune_card
from whet.steps.prune_proof import agree, streamed
from whet.steps.prune_shapes import whole_of
from whet.steps.prune_trials import Trials
from whet.steps.pruned import measured, notes_of, told_of
from whet.walk import Journal

CODED = ("layers", "experts")  # what codes can be cut by
_WHY = Message("its codes share scales along rows, so a part of a matrix cannot go without rounding the rest again")
_INDEX = ".safetensors.index.json"


def is_coded(checkpoint: Checkpoint) -> bool:
    """Whether a folder holds codes that whet wrote."""
    return checkpoint.whet is not None and not checkpoint.dense


def open_codes(folder: Path) -> Decoded:
    """A quantized folder as the weights that its codes stand for. Raises UsageError where they cannot be cut."""
    checkpoint = Checkpoint(folder)
    manifest = checkpoint.whet or {}
    why = None
    if is_alone(manifest):
        why = Message("it holds a runtime's file alone (whet compress --folder keeps the weights beside it)")
    elif (manifest.get("reading") or {}).get("convert"):
        why = Message("no table tells which of the model's parameters its codes are")
    elif any("inputs" in entry for entry in (manifest.get("reading") or manifest)["linears"].values()):
        why = Message("it rounds the inputs of its linears too, which a dense model does not compute")
    if why is not None:
        raise UsageError(
            "{folder} cannot be pruned: {why}. Prune the model that it was made from, and quantize that.",
            folder=checkpoint.path,
            why=why,
        )
    return Decoded(checkpoint.path)


def check_codes(asked: Prune, folder: Path) -> None:
    """Raises UsageError for options that would move or mix weights that are codes."""
    for name, given in (("elastic", asked.elastic), ("merge", asked.merge), ("shapes free", asked.shapes == "free")):
        if given:
            raise UsageError(
                "{folder} is quantized, and {name} would round it again. Leave it out, or prune the model that it was "
                "made from and quantize that.",
                folder=folder,
                name=name,
            )


def units_of_codes(counts: Mapping[str, int | Message], opened: Original) -> dict[str, int | Message]:
    """How many of each unit can be taken of a quantized folder, or why none of it can."""
    found = {unit: count if unit in CODED or isinstance(count, Message) else _WHY for unit, count in counts.items()}
    if "adapter" in (opened.checkpoint.whet or {}) and isinstance(found["layers"], int):
        found["layers"] = Message("its adapter is of all of them")
    return found


def after_codes(asked: Any, before: Options | None, original: Path) -> None:
    """Raises UsageError where a recipe prunes what the step before it quantized, and not by experts or blocks."""
    if not isinstance(before, Quantize):
        return
    units = {name.strip() for name in (asked.units or "").split(",")} - {""}
    if asked.of_tokens or asked.elastic or asked.merge or asked.shapes == "free" or units - set(CODED):
        raise UsageError(
            "of a quantized model only {units} can be taken: {why}. Move the step before quantize.",
            units=", ".join(CODED),
            why=_WHY,
        )


def carried_out_coded(run: Run, job: Job, began: Mapping[str, Any], way: Way) -> dict[str, Any]:
    """See a run through that is begun or gone on with."""
    started = time.monotonic()
    for note in job.notes:
        way(note_event(note))
    trials = Trials(job, run.folder, way)
    shape = trials.shape()
    experts = {int(index): tuple(mine) for index, mine in shape["experts"].items()}
    kept = Kept(tuple(shape["layers"]), experts={i: mine for i, mine in experts.items() if i in shape["layers"]})
    result = _Codes(run, job, trials, kept, way).finished(shape, began)
    run.close()
    return {**result, "seconds": {"this call": time.monotonic() - started}}


class _Codes:
    """What stays of a quantized folder, by new names, and how it is written."""

    def __init__(self, run: Run, job: Job, trials: Trials, kept: Kept, way: Way) -> None:
        assert isinstance(job.checkpoint, Decoded)
        self.run, self.job, self.trials, self.kept, self.way = run, job, trials, kept, way
        self.checkpoint, self.parts = job.checkpoint, job.anatomy
        self.manifest: dict[str, Any] = dict(self.checkpoint.whet or {})
        shapes = self.checkpoint.shapes
        self.config, self.cuts = resized(self.parts, self.checkpoint.config, trials.built, shapes, kept)
        self.addresses = self._addresses()
        self.reading = self._read_by(reading_of(self.manifest))

    def _addresses(self) -> dict[str, str]:
        """By address what each matrix that stays is called then."""
        found = {}
        for new, cut in self.cuts.items():
            old = cut.stored.removesuffix(".weight")
            for one in self.checkpoint.sources.get(cut.stored, ()):
                found[one.address] = new.removesuffix(".weight") + one.address.removeprefix(old)
        table = self.checkpoint.table
        dense = {cut.stored.removesuffix(".weight"): new.removesuffix(".weight") for new, cut in self.cuts.items()}
        return found | {address: dense[address] for address in table if address in dense}

    def table(self, before: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """A table of matrices, by their new addresses and places."""
        made = {}
        for address, entry in before.items():
            if (new := self._row(address)) is not None:
                made[new] = {**entry, **({"into": self._into(entry["into"])} if "into" in entry else {})}
        return made

    def _row(self, address: str) -> str | None:
        """The new address of a matrix, or of rows of one that are stored together."""
        if address in self.addresses:
            return self.addresses[address]
        whole, _, role = address.rpartition(".")
        return f"{self.addresses[whole]}.{role}" if whole in self.addresses else None

    def _into(self, into: Mapping[str, Any]) -> dict[str, Any]:
        made, index = dict(into), self._block(into["parameter"])
        if index is not None:
            made["parameter"] = renumbered(self.parts, into["parameter"], index, self.kept.layers.index(index))
            if "expert" in into and index in self.kept.experts:
                made["expert"] = self.kept.experts[index].index(into["expert"])
        return made

    def _block(self, name: str) -> int | None:
        """The block of what the model calls `name`; None outside of blocks."""
        every = range(len(self.parts.blocks))
        return next((index for index in every if name.startswith(self.parts.block_prefix(index))), None)

    def write(self) -> None:
        """Every file: a block each, then the rest."""
        by_block: dict[int, dict[str, Cut]] = {new: {} for new in range(len(self.kept.layers))}
        blocks = [self.parts.block_tensors[index] for index in self.kept.layers]
        places = {stored: new for new, names in enumerate(blocks) for stored in names}
        rest = len(by_block)
        by_block[rest] = {}
        for name, cut in self.cuts.items():
            by_block[places.get(cut.stored, rest)][name] = cut
        journal, stage = Journal(self.run.folder), Stage(self.way, "prune", len(by_block))
        mapping: dict[str, str] = {}
        total = 0
        for number, cuts in by_block.items():
            file = self.run.out / f"{self._stem}-{number + 1:05d}-of-{len(by_block):05d}.safetensors"
            if journal.finished(file.name, self.run.out) is None:
                write_tensors(file, self._tensors(cuts))
                journal.record(file.name, file)
            header = read_header(file)
            mapping |= dict.fromkeys(header, file.name)
            total += sum(info.nbytes for info in header.values())
            stage.step()
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(mapping.items()))}
        write_json(self.run.out / f"{self._stem}{_INDEX}", index)

    @property
    def _stem(self) -> str:
        return "whet" if self.manifest["container"] == "whet" else "model"

    def _tensors(self, cuts: Mapping[str, Cut]) -> dict[str, Tensor]:
        """What is stored of some tensors that stay: parts of codes as they are, others without what goes."""
        found = {}
        for name, cut in cuts.items():
            sources = self.checkpoint.sources.get(cut.stored)
            if sources is None:
                found[name] = cut.of(self.checkpoint.read(cut.stored))
                continue
            assert not cut.places  # `units_of_codes` offers nothing that cuts a matrix
            for one in sources:
                new = self.addresses[one.address]
                found |= {f"{new}.{part}": read_tensor(info) for part, info in one.parts.items()}
        return found

    def finished(self, shape: Mapping[str, Any], began: Mapping[str, Any]) -> dict[str, Any]:
        """Weights, config, the folder's other files, proof, card and manifest."""
        job, out = self.job, self.run.out
        self.write()
        write_json(out / "config.json", self._config())
        copy_beside(job.original.path, out, began["files"])
        self._copy_own()
        found: dict[str, Any] = {"check": self._proved()}
        if self.trials.judge and self.parts.task == "causal":
            found |= measured(self.trials, self.checkpoint, self.parts, Decoded(out, reading=self.reading))
        notes = [*job.notes, *notes_of(job, shape)]
        for note in notes[len(job.notes) :]:
            self.way(note_event(note))
        write_bytes(out / RECIPE, recipe_text(began["recipe"], "whet run recipe.yaml").encode())
        write_bytes(out / "README.md", prune_card(job, shape, found, notes, whole_of(job).record()).encode())
        record = {**job.record(), "removed": shape["removed"], "amounts": shape["amounts"]}
        manifest = next_manifest(
            job.original,
            record,
            name=job.name,
            sha256=job.sha256,
            container=self.manifest["container"],
            target=self.manifest["target"],
            dequantize=self.manifest.get("dequantize", False),
            kept=self.kept.record(),
            verify={key: found[key] for key in ("kl", "top1") if key in found},
            notes=to_json(notes),
            files=hashed_files(out),
            **self._tables(),
        )
        write_json(out / MANIFEST, manifest.document())
        Stage(self.way, "finish", 1).step()
        return {
            **told_of(out, job, shape, self.kept, record["removal"]["importance"]),
            "codes": "untouched",
            "loads_in": "modelling file" if self.manifest["container"] == "whet" else "transformers",
            **found,
            "notes": notes,
        }

    def _config(self) -> dict[str, Any]:
        """config.json, with how weights are stored told of what stays."""
        raw = self.checkpoint.raw
        made = self.config | {key: raw[key] for key in (*QUANTIZED, "auto_map") if key in raw}
        if "whet" in raw:
            made["whet"] = {**raw["whet"], **self._read_by(raw["whet"])}
        if "quantization_config" in raw:
            made["quantization_config"] = self._stock(raw["quantization_config"])
        return made

    def _stock(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """compressed-tensors' settings, with the modules they name by their new names."""
        groups = {
            name: {**group, "targets": self._modules(group["targets"])}
            for name, group in settings.get("config_groups", {}).items()
        }
        return {**settings, "config_groups": groups, "ignore": self._modules(settings.get("ignore", ()))}

    def _modules(self, names: Any) -> list[str]:
        found = []
        for name in names:
            index = self._block(f"{name}.")
            if index is None:
                found.append(name)
            elif index in self.kept.layers:
                found.append(renumbered(self.parts, f"{name}.", index, self.kept.layers.index(index))[:-1])
        return found

    def _read_by(self, reading: Mapping[str, Any]) -> dict[str, Any]:
        """How tensors are read: the table, and what the model calls those that stay."""
        made: dict[str, Any] = {**reading, "linears": self.table(reading["linears"])}
        if "names" in reading:
            called = {name: self.parts.family.module_name(name) for name in self.cuts}
            made["names"] = {name: model for name, model in called.items() if name != model}
        return made

    def _tables(self) -> dict[str, Any]:
        """The manifest's keys that are about what is stored, of what stays."""
        before = self.manifest
        stays = {cut.stored: new for new, cut in self.cuts.items()}
        more: dict[str, Any] = {"copied": [stays[name] for name in before.get("copied", ()) if name in stays]}
        if before.get("reading") is not None:
            more["reading"] = self.reading
        if "adapter" in before:
            more["adapter"] = {**before["adapter"], "bytes": adapter_size(self.run.out)}
        if "transforms" in before:
            more["transforms"] = before["transforms"]
        return {**more, "linears": self.table(before["linears"]), "dropped": before.get("dropped")}

    def _copy_own(self) -> None:
        """The modelling files and the adapter of the folder, as they are."""
        source, out = self.checkpoint.path, self.run.out
        for name in MODELLING:
            if (source / name).is_file():
                write_bytes(out / name, (source / name).read_bytes())
        if "adapter" in self.manifest:
            shutil.copytree(source / ADAPTER, out / ADAPTER, dirs_exist_ok=True)

    @torch.no_grad()
    def _proved(self) -> dict[str, Any]:
        """Raises GateError unless what was written decodes to what stays of the folder that was read, bit for bit, and
        the model that is loaded of it computes with that."""
        out, written = self.run.out, Decoded(self.run.out, reading=self.reading)
        for name, cut in self.cuts.items():
            if not torch.equal(written.read(name), cut.of(self.checkpoint.read(cut.stored))):
                raise GateError(
                    "{out}: {name} does not decode to what it did. This is a defect of whet.", out=out, name=name
                )
        found: dict[str, Any] = {"stored": "decoded again, equal"}
        if written.nbytes * 4 // self.job.dtype.itemsize > PROVED or "adapter" in self.manifest:
            return found
        tokens = self.trials.solve[0][:1]
        table, names = dict(self.reading["linears"]), self.reading.get("names")
        model = load_lighter(Checkpoint(out), table, torch.float32, self.job.device, names)
        logits = outputs(model, tokens).float()
        if not torch.isfinite(logits).all():
            raise GateError("{out}: the smaller model computes values that are not finite on its own text.", out=out)
        found["loaded"] = "whole"
        cached = cached_outputs(model, tokens) if self.parts.task == "causal" else None
        if cached is None:
            return found
        found["cached against uncached"] = (cached[:, -1].float() - logits[:, -1]).abs().max().item()
        agree(out, "generation with a cache and without", found["cached against uncached"], logits)
        by_block = streamed(Decoded(out, torch.float32, self.reading), self.job, tokens)
        found["loaded against block by block"] = (by_block.cpu() - logits.cpu()).abs().max().item()
        agree(out, "the model that is loaded and its blocks one by one", found["loaded against block by block"], logits)
        return found
