"""A quantized student: its rounded matrices put into the model to be trained, and written as a folder again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import anatomy
from whet.apply.job import Job
from whet.checkpoint import (
    Checkpoint,
    TensorInfo,
    empty_model,
    is_alone,
    model_config,
    precisions_in,
    refuse_unfinished,
    write_tensors,
)
from whet.distillation import Distillation
from whet.errors import UsageError
from whet.messages import Message
from whet.steps.coded import refuse_kept, table_of
from whet.steps.coded_parts import rounded_parts, stored_again
from whet.steps.original import Original
from whet.targets import Storage
from whet.train.rounded import NAME, Installed

GAP_RATE = 0.007  # gaps between levels that a weight moves in a step, at the most
_SCALE_SHARE = 0.2  # of that, what a scale moves of itself
_DENSE_SHARE = 0.3  # what is stored as it is: of the rate at which a dense student is trained
LATENT, SCALES, DENSE = "latent weights", "scales", "dense"


def open_coded(folder: str | Path) -> Original:
    """A quantized folder as it is trained. Raises UsageError for one that another tool made or that rounds
    inputs, with what can be."""
    checkpoint = Checkpoint(folder)
    refuse_unfinished(checkpoint.path)
    manifest = checkpoint.whet
    if manifest is None:
        raise UsageError(
            "{folder} was quantized by another tool, and whet trains originals and its own folders. Quantize the "
            "original (whet compress) and train that.",
            folder=checkpoint.path,
        )
    if (manifest.get("reading") or {}).get("convert") or is_alone(manifest):
        raise UsageError(
            "{folder} cannot be trained: {why}. Train the model that it was made from, and quantize that.",
            folder=checkpoint.path,
            why=Message("it holds a .gguf alone (whet compress --folder keeps the weights beside it)")
            if is_alone(manifest)
            else Message("no table tells which of the model's parameters its codes are"),
        )
    if precisions_in(checkpoint):
        raise UsageError(
            "{folder} has several precisions, and training moves one. Quantize the original to that one (whet compress "
            "without --precisions) and train that.",
            folder=checkpoint.path,
        )
    if any("inputs" in entry for entry in table_of(checkpoint).values()):
        raise UsageError(
            "{folder} rounds the inputs of its linears too, and whet distill trains through rounded weights alone. "
            "Quantize the original with a scheme of weights alone (such as W8A16 or int4s-g32) and train that.",
            folder=checkpoint.path,
        )
    refuse_kept(checkpoint)
    model = empty_model(checkpoint, torch.float32)
    shapes = {name: tuple(param.shape) for name, param in model.named_parameters()}
    parts = anatomy(model.config.to_dict(), shapes, str(checkpoint.path))  # type: ignore[no-untyped-call]
    dtype = model_config(checkpoint).dtype or checkpoint.dtype
    return Original(checkpoint, parts, dtype, untied=False, parted=False, card={})


def stored_as(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a job tells of how a quantized folder is stored."""
    manifest = checkpoint.whet or {}
    stored = Storage(manifest["container"], manifest.get("dequantize", False), "as the student is")
    return {"storage": stored, "target": manifest["target"]}


def about_latent(job: Job, weights: int) -> Message:
    """What training holds beside the codes, said beforehand."""
    assert job.distillation is not None
    if job.distillation.rounded == "scales":
        return Message("codes stay as they are; scales are trained in float32")
    return Message(
        "{count:,} weights are trained in float32: latent weights, gradients and optimiser state take {size:.3g} GB, "
        "where the folder takes {stored:.3g} GB",
        count=weights,
        size=16 * weights / 1e9,
        stored=job.checkpoint.nbytes / 1e9,
    )


class CodedStudent:
    """The model of a quantized folder, trained through its grids.

    student: the model, whose parameters with codes are computed from what is trained from here on. of: what is trained,
    and how scales are. dense_rate: the learning rate of a dense student.
    """

    def __init__(self, checkpoint: Checkpoint, student: Any, of: Distillation, dense_rate: float) -> None:
        self.checkpoint, self.student = checkpoint, student
        frozen = of.rounded == "scales"
        rounded, places = rounded_parts(checkpoint, str(student.device), frozen=frozen, coupled=of.coupled)
        self.installed = Installed(student, rounded, places)
        self.dense = {} if frozen else self._dense()
        for parameter in self.dense.values():
            parameter.requires_grad_(True)
        self.shares = {LATENT: 1.0, SCALES: _SCALE_SHARE, DENSE: _DENSE_SHARE * dense_rate / of.rate}

    def roles(self) -> dict[str, str]:
        """What each parameter is, by name: the learning rate goes by it."""
        inside = {True: LATENT, False: SCALES}
        return {
            name: inside[name.endswith(".latent")] if f"{NAME}_" in name else DENSE
            for name, _ in self.student.named_parameters()
        }

    def write(self, out: Path) -> None:
        """Write every tensor of the folder as it was trained into files of the same names, with the other files as they
        are. The student is as it was written from then on."""
        made = stored_again(self.installed.rounded)
        self.installed.taken_out()
        for file in sorted({info.file for info in self.checkpoint.stored.values()}):
            infos = {name: info for name, info in self.checkpoint.stored.items() if info.file == file}
            write_tensors(out / file.name, {name: self._tensor(name, info, made) for name, info in infos.items()})

    @torch.no_grad()
    def _tensor(self, name: str, info: TensorInfo, made: Mapping[str, Tensor]) -> Tensor:
        if name in made:
            return made[name]
        if name not in self.dense:
            return self.checkpoint.read(name)
        parameter = self.dense[name]
        tensor = parameter.to(info.dtype)
        if not torch.isfinite(tensor).all():
            raise UsageError(
                "{name}: trained weights exceed what {dtype} holds. Convert the model to bfloat16 or float32 first.",
                name=name,
                dtype=info.dtype,
            )
        parameter.copy_(tensor)
        return tensor.cpu().contiguous()

    def _dense(self) -> dict[str, Any]:
        """Parameters that are stored as they are, by their stored names."""
        names = ((self.checkpoint.whet or {}).get("reading") or {}).get("names") or {}
        table, own = table_of(self.checkpoint), dict(self.student.named_parameters(remove_duplicate=False))
        moved = {f"{address}.weight" for address, entry in table.items() if entry.get("into") is not None}
        found = {name: own.get(names.get(name, name)) for name in self.checkpoint.stored if name not in moved}
        return {name: parameter for name, parameter in found.items() if parameter is not None}


def copy_beside_codes(source: Path, out: Path) -> list[Message]:
    """Copy what a quantized folder has beside its weights, and tell what is left out: a .gguf of the weights as they
    were."""
    gone = {"whet.json", "run.json", "report.html", "times.json", "recipe.yaml", "compare.json", "README.md"}
    notes = []
    for file in sorted(source.iterdir()):
        if file.suffix == ".gguf":
            notes.append(
                Message(
                    "{file} is left out, as it holds the weights as they were: whet export writes it", file=file.name
                )
            )
        elif file.is_dir() and file.name != ".whet":
            shutil.copytree(file, out / file.name, dirs_exist_ok=True)
        elif file.is_file() and file.name not in gone and file.suffix != ".safetensors":
            shutil.copyfile(file, out / file.name)
    return notes
