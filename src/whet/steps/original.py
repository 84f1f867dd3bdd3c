"""The model that a step works on, opened and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from whet.anatomy import Anatomy, anatomy
from whet.apply.opening import check_shapes, part, untie
from whet.checkpoint import Checkpoint, model_config
from whet.formats.gguf import plan_gguf
from whet.messages import Message
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


def about_original(opened: Original, window: int, material: Material) -> list[Message]:
    """Notes on what is unusual of the model. window: tokens in a window of text, as asked for."""
    parts, notes = opened.parts, []
    if opened.untied:
        notes.append(
            Message(
                "{head}.weight differs from the embedding although config.json ties the two: both are kept, as "
                "transformers does, and the lighter config says that they are not tied",
                head=parts.family.head,
            )
        )
    if material.about is not None and material.about.get("window", window) < window:
        notes.append(
            Message(
                "windows of {have} tokens instead of {asked}: the model's config allows no longer ones",
                have=material.about["window"],
                asked=window,
            )
        )
    if parts.unnamed:
        notes.append(Message("copied unchanged, as no table names them: {names}", names=", ".join(parts.unnamed)))
    if parts.dropped:
        notes.append(
            Message("{name} left out: it is a copy of the embedding, to which config.json ties it", name=parts.dropped)
        )
    return notes
