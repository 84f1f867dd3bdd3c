"""The size of a folder on disk, by part."""

from __future__ import annotations

import re
from pathlib import Path

from whet.anatomy import Family, family_of
from whet.checkpoint.folder import Checkpoint
from whet.checkpoint.loading import adapter_file, adapter_size

_VOCABULARY = ("vocab.json", "merges.txt", "chat_template.jinja")


def size_on_disk(folder: str | Path) -> dict[str, int]:
    """Bytes by part: `linears`, `embedding`, `head`, `other` (tensor data with scales and zeros), `adapter` if it has
    one, `weights` (the weight files whole, headers too), `tokenizer`, and `total` of the folder."""
    checkpoint = Checkpoint(folder)
    family = family_of(checkpoint.config, checkpoint.tensors)
    parts = dict.fromkeys(("linears", "embedding", "head", "other"), 0)
    for name, info in checkpoint.tensors.items():
        parts[_part_of(name, family)] += info.on_disk
    files = {info.file for info in checkpoint.tensors.values()}
    if checkpoint.whet is not None and "adapter" in checkpoint.whet:
        files.add(adapter_file(checkpoint.path))
        parts["adapter"] = adapter_size(checkpoint.path)
    found = (p for p in checkpoint.path.rglob("*") if p.is_file())
    everything = [p for p in found if ".whet" not in p.relative_to(checkpoint.path).parts]
    return {
        **parts,
        "weights": sum(f.stat().st_size for f in files),
        "tokenizer": sum(p.stat().st_size for p in everything if "token" in p.name or p.name in _VOCABULARY),
        "total": sum(p.stat().st_size for p in everything),
    }


def _part_of(name: str, family: Family | None) -> str:
    module, _, leaf = name.rpartition(".")
    if family is not None and leaf.startswith("weight"):
        module = family.module_name(f"{module}.weight").removesuffix(".weight")
        if module == family.embedding:
            return "embedding"
        if module == family.head:
            return "head"
        if any(path.search(module) for path in _paths(family)):
            return "linears"
    return "linears" if family is not None and any(path.search(name) for path in _paths(family)) else "other"


def _paths(family: Family) -> list[re.Pattern[str]]:
    """What modules and stacked parameters with linears are called, rows of a fused tensor (`….qkv_proj.q`) too."""
    said = {(name.path, name.role) for name in family.every} | {(name.held, "") for name in family.every if name.held}
    return [
        re.compile(r"\." + re.escape(path).replace(r"\{\}", r"\d+") + (rf"(\.{role})?$" if role else "$"))
        for path, role in said
    ]
