"""The text that a step calibrates on: cut into windows, or to be written by the original for want of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from whet.anatomy import Anatomy
from whet.apply.opening import check_vocabulary
from whet.checkpoint import Checkpoint
from whet.checkpoint.memory import check_fits
from whet.errors import UsageError
from whet.messages import Message
from whet.steps.options import Masks, Quantize
from whet.text.calibration import read_windows


@dataclass(frozen=True)
class Material:
    """Windows of tokens, int64, to solve and verify on; what the lineage tells of them; and tokens that the original
    is still to write (`to_write`), `synthetic` of them beside the text."""

    solve: Sequence[Tensor] = ()
    verify: Sequence[Tensor] = ()
    about: Mapping[str, Any] | None = None
    to_write: int = 0
    synthetic: int = 0


def read_material(
    asked: Quantize | Masks, checkpoint: Checkpoint, parts: Anatomy, seed: int, *, needed: bool, instead: str
) -> Material:
    """The windows of the text. Without any, nothing, or where some is `needed` as much as the original is to write.

    instead: the options that need no text. Raises UsageError where there is none and the original cannot write.
    """
    if asked.text is None:
        if not needed:
            return Material()
        if parts.task != "causal":
            raise UsageError(
                "No text was given, and {checkpoint} does not write any by itself. Give --text FILE of the kind the "
                "model is used for, or {instead}, which needs none.",
                checkpoint=checkpoint.path.name,
                instead=instead,
            )
        check_fits(checkpoint)
        window = min(asked.window, int(checkpoint.config.get("max_position_embeddings") or asked.window))
        about = {"source": "written by the model itself", "window": window}
        return Material(about=about, to_write=asked.samples * window)
    solve, verify, about = read_windows(
        checkpoint,
        asked.text,
        asked.eval_text,
        field=asked.field,
        chat=asked.chat,
        samples=asked.samples,
        window=asked.window,
        seed=seed,
    )
    check_vocabulary(checkpoint, parts, (*solve, *verify))
    return Material(solve, verify, about)


def about_text(asked: Quantize | Masks, material: Material, parts: Anatomy, *, solved: bool) -> list[Message]:
    """Notes on text that is too little. solved: whether second moments of it are solved with."""
    notes = []
    seen = sum(map(len, material.solve)) + material.synthetic
    widest = max((linear.shape[1] for linear in parts.linears()), default=0)
    if material.solve and solved and seen < widest:
        notes.append(
            Message(
                "solved on {tokens} tokens, fewer than the {widest} channels that its widest linear reads: give more "
                "text (--text, --samples, --synthetic)",
                tokens=seen,
                widest=widest,
            )
        )
    if asked.text is not None and not material.verify:
        notes.append(Message("no text was left for verifying, so the run reports no KL of its own; use whet compare"))
    return notes
