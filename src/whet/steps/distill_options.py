"""The options of the step `distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from whet.errors import UsageError
from whet.messages import with_and
from whet.steps.option_kinds import EvalText, Shown, Source, Text

LEARNT = "all, scales"  # of a quantized student
SCALES = "coupled, lsq"
DIVERGENCES = "forward, reverse, js, skewed, skewed-reverse, adaptive, cakld, todi"
WRITERS = "student, switch"
OWN_LOSSES = "mixed, dpkd"
TRACKERS = "tensorboard, trackio, wandb"
SCHEDULES = "wsd, cosine"
TRAINED_TOKENS = 2_000_000  # that a student is trained on where nothing is said
WINDOWS = 4096  # of text to train on, at the most, where no number is asked for


class Distill(Text):
    """Train a model to predict what its original predicts."""

    teacher: Source | None = Field(
        default=None, description="The model to learn from, a dense folder with the same tokenizer: the original"
    )
    more_teachers: Annotated[str | None, Shown(metavar="FOLDERS")] = Field(
        default=None,
        description="More teachers, with commas between: a mixture of all teaches, of each text most who knows it best",
    )
    samples: Annotated[int | None, Shown(default="4096, or what the text holds")] = Field(
        default=None, ge=1, description="Windows of text to train on"
    )
    synthetic: Annotated[int | None, Shown(metavar="TOKENS")] = Field(
        default=None, ge=1, description="Tokens of text that the teacher writes beside yours"
    )
    rewrite: bool = Field(
        default=False, description="Train on what the teacher writes after pieces of the text, in place of the text"
    )
    eval_text: EvalText = None
    steps: int | None = Field(default=None, ge=1, description="Train for so many steps")
    minutes: float | None = Field(default=None, gt=0, description="Train for about so long on this machine")
    tokens: Annotated[int | None, Shown(default="2,000,000")] = Field(
        default=None, ge=1, description="Train on so many tokens, the same text again where it is less"
    )
    batch: int = Field(default=4096, ge=1, description="Tokens of a step")
    at_once: int | None = Field(
        default=None, ge=1, description="Tokens that go through the models together; fewer take less memory"
    )
    rate: Annotated[float | None, Shown(default="by the model's width; 0.007 of a quantized one")] = Field(
        default=None, gt=0, description="The highest learning rate; of a quantized student in gaps between levels"
    )
    schedule: Annotated[str, Shown(among=SCHEDULES)] = Field(
        default="cosine", description=f"How the learning rate falls: {SCHEDULES}"
    )
    loss: Annotated[str, Shown(among=DIVERGENCES)] = Field(
        default="forward", description=f"By what predictions are compared: {DIVERGENCES}"
    )
    mix: float | None = Field(
        default=None, ge=0, le=1, description="The parameter of js, skewed, skewed-reverse, adaptive and cakld"
    )
    temperature: float = Field(default=1.0, gt=0, description="What logits of both are divided by")
    hidden: float = Field(default=0.0, ge=0, description="Weight of the difference of hidden states beside that")
    relations: float = Field(default=0.0, ge=0, description="Weight of the difference of attention in the last block")
    targets: Annotated[str | Path | None, Shown(metavar="FOLDER")] = Field(
        default=None,
        description="A folder for what the teacher predicts: it runs once, and later runs need neither it nor the text",
    )
    draws: Annotated[int | None, Shown(default="12")] = Field(
        default=None, ge=1, le=128, description="With targets: tokens that are drawn at each position"
    )
    own_text: Annotated[str | float | None, Shown(among="15%")] = Field(
        default=None,
        description="The share of the steps, the last ones, in which it also learns from text that it writes: 15%",
    )
    writer: Annotated[str | None, Shown(default="student", among=WRITERS)] = Field(
        default=None, description="With own-text: student, or switch, where the teacher steps in"
    )
    own_loss: Annotated[str | None, Shown(default="mixed", among=OWN_LOSSES)] = Field(
        default=None,
        description="With own-text: mixed (forward and reverse KL), or dpkd (prefer what the teacher writes instead)",
    )
    track: Annotated[str | None, Shown(among=TRACKERS)] = Field(
        default=None, description=f"Tell the metrics of each step to a tracker too: {TRACKERS}"
    )
    learn: Annotated[str | None, Shown(default="all", among=LEARNT)] = Field(
        default=None, description="Of a quantized student: all, or scales alone with the codes as they are"
    )
    scales: Annotated[str | None, Shown(default="coupled", among=SCALES)] = Field(
        default=None, description="Of a quantized student: coupled (weights move with their scale) or lsq"
    )
    checkpointing: bool = Field(
        default=False, description="Compute blocks again on the way back: less memory, a third more time"
    )

    @property
    def most_samples(self) -> int:
        """Windows to train on, at the most."""
        return WINDOWS if self.samples is None else self.samples

    def check(self) -> None:
        """Raises UsageError unless it says at most once how long to train."""
        given = [name for name in ("steps", "minutes", "tokens") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError("{ways} were given: each says how long to train. Give one of them.", ways=with_and(given))
        if self.at_once is not None and self.at_once > self.batch:
            raise UsageError(
                "at-once is {at_once} tokens and a step has {batch}. Give at most as many, or a larger batch.",
                at_once=self.at_once,
                batch=self.batch,
            )
