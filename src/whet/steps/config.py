"""config.json and the index of a lighter folder, and how its tensors are read."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from whet.anatomy import MODULE, Piece, auto_class, own_code, per_layer
from whet.apply.job import Job
from whet.apply.shards import Shards
from whet.checkpoint import NAMED, atomic, empty_model, modeling_per_layer, read_header, write_json
from whet.formats import linear_table, quantization_config, reading, whet_config


def write_index(out: Path, shards: Shards, stem: str) -> None:
    mapping, total = {}, 0
    for unit in shards.units():
        file = shards.file_of(unit)
        for name, info in read_header(file).items():
            mapping[name] = file.name
            total += info.nbytes
    write_json(
        out / f"{stem}.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(mapping.items()))},
    )


def write_config(out: Path, job: Job) -> None:
    decoded = job.original.stored_in is not None
    if job.storage.dense and NAMED not in job.original.config and not decoded:
        with atomic(out / "config.json") as temporary:
            shutil.copyfile(job.original.path / "config.json", temporary)
        return
    keeps = own_code(job.checkpoint.config) or per_layer(job.checkpoint.config)
    left = (NAMED,) if job.storage.dense else (NAMED, *(() if keeps else ("auto_map",)), "_name_or_path")
    config = {k: v for k, v in job.checkpoint.config.items() if k not in left}
    if decoded:
        config.setdefault("dtype", str(job.dtype).removeprefix("torch."))
    if job.storage.dense:
        write_json(out / "config.json", config)
        return
    if job.storage.stock:
        config["quantization_config"] = quantization_config(
            {_module(piece): job.grids[piece.linears[0].address] for piece in job.pieces},
            _dense(job),
            job.anatomy.family.embedding,
            job.storage.dequantize,
            job.kv,
        )
    else:
        made = whet_config(job.anatomy, job.grids, auto_class(config), job.storage.decode)
        config |= {key: value for key, value in made.items() if key != "auto_map" or not per_layer(config)}
    config.setdefault("dtype", str(job.dtype).removeprefix("torch."))
    write_json(out / "config.json", config)


def modelling_files(config: Mapping[str, Any]) -> dict[str, bytes]:
    """The file by which transformers builds a model of `config`, where its blocks differ in shape."""
    return {f"{MODULE}.py": Path(modeling_per_layer.__file__).read_bytes()} if per_layer(config) else {}


def read_how(job: Job) -> dict[str, Any]:
    """How the tensors are read where it is not each by its address and name."""
    how = reading(job.anatomy, job.apart, job.storage.decode)
    plain = linear_table(job.apart, job.storage.decode)
    return {} if how == {"linears": plain} else {"reading": how}


def _module(piece: Piece) -> str:
    """What the model calls the module that a piece is in; experts, which it stacks, by their addresses."""
    return piece.address if piece.held.expert is not None else piece.held.parameter.removesuffix(".weight")


def _dense(job: Job) -> list[str]:
    """Modules of the type Linear that stay as they are, the head among them."""
    parts = job.anatomy
    lighter = {_module(piece) for piece in job.pieces}
    if parts.head is None and parts.embedding.address in job.grids:
        lighter.add(parts.family.head)
    model = empty_model(job.checkpoint, torch.float32)
    linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return [name for name in linears if name not in lighter]
