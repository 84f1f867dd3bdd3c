"""The model that a step works on, opened and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from whet.anatomy import Anatomy, anatomy
from whet.apply.opening import check_shapes, part, untie
from whet.checkpoint import Checkpoint, model_config
from whet.formats.gguf import plan_gguf
from whet.steps.material import Material
from whet.targets import Target, check_family


@dataclass(frozen=True)
class Original:
    """The original as it is worked on. `untied`: its config ties tensors that differ; `parted`: as in `Job`."""

    checkpoint: Checkpoint
    parts: Anatomy
    dtype: torch.dtype
    untied: bool
    parted: bool


def open_original(model: str | Path, target: Target, *, turned: bool = False) -> Original:
    """The original, for a target that has its family. turned: its residual stream will be, for which the head has to
    be a tensor of its own."""
    checkpoint = Checkpoint(model)
    untied = untie(checkpoint)
    parted = turned and part(checkpoint)
    parts = anatomy(checkpoint.config, checkpoint.shapes, str(checkpoint.path))
    check_family(target, parts.model_type, str(checkpoint.path))
    if target.gguf:
        plan_gguf(checkpoint.path)  # a config or tokenizer that cannot be written is found now, not after hours
    check_shapes(checkpoint, parts)
    dtype = model_config(checkpoint).dtype or checkpoint.dtype
    return Original(checkpoint, parts, dtype, untied, parted)


def about_original(opened: Original, window: int, material: Material) -> list[str]:
    """Notes on what is unusual of the model. window: tokens in a window of text, as asked for."""
    parts, notes = opened.parts, []
    if opened.untied:
        notes.append(
            f"{parts.family.head}.weight differs from the embedding although config.json ties the two: both are kept, "
            "as transformers does, and the lighter config says that they are not tied"
        )
    if material.about is not None and material.about.get("window", window) < window:
        notes.append(
            f"windows of {material.about['window']} tokens instead of {window}: the model's config allows no "
            "longer ones"
        )
    if parts.unnamed:
        notes.append(f"copied unchanged, as no table names them: {', '.join(parts.unnamed)}")
    if parts.dropped:
        notes.append(f"{parts.dropped} left out: it is a copy of the embedding, to which config.json ties it")
    return notes
