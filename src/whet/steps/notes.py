"""Notes on a model and its text, before anything is rounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whet.anatomy import Anatomy
from whet.messages import Message
from whet.quantize import Effort
from whet.steps.options import Quantize
from whet.walk import not_followed


def about_model(
    parts: Anatomy, untied: bool, effort: Effort, asked: Quantize, text: Mapping[str, Any] | None
) -> list[Message]:
    """What is unusual of the model, and what a solver makes of that. text: what is known of the windows."""
    notes = []
    if untied:
        notes.append(
            Message(
                "{head}.weight differs from the embedding although config.json ties the two: both are kept, as "
                "transformers does, and the lighter config says that they are not tied",
                head=parts.family.head,
            )
        )
    if text is not None and text.get("window", asked.window) < asked.window:
        notes.append(
            Message(
                "windows of {have} tokens instead of {asked}: the model's config allows no longer ones",
                have=text["window"],
                asked=asked.window,
            )
        )
    if parts.unnamed:
        notes.append(Message("copied unchanged, as no table names them: {names}", names=", ".join(parts.unnamed)))
    if parts.dropped:
        notes.append(
            Message("{name} left out: it is a copy of the embedding, to which config.json ties it", name=parts.dropped)
        )
    if effort.block and (why := not_followed(parts)) is not None:
        notes.append(
            Message(
                "blocks are trained with every error of their output weighed alike, and nothing after them: {why}",
                why=why,
            )
        )
    if effort.correct and any(linear.held.expert is not None for linear in parts.linears()):
        notes.append(
            Message("experts are rounded as by gptq: the original and the lighter model send them different tokens")
        )
    return notes


def about_text(asked: Quantize, effort: Effort, seen: int, verified: bool, parts: Anatomy) -> list[Message]:
    """Text that is too little. seen: tokens that are solved on, with those the model writes."""
    notes = []
    widest = max((linear.shape[1] for linear in parts.linears()), default=0)
    if effort.text and 0 < seen < widest:
        notes.append(
            Message(
                "solved on {tokens} tokens, fewer than the {widest} channels that its widest linear reads: give more "
                "text (--text, --samples, --synthetic)",
                tokens=seen,
                widest=widest,
            )
        )
    if asked.text is not None and not verified:
        notes.append(Message("no text was left for verifying, so the run reports no KL of its own; use whet compare"))
    return notes
