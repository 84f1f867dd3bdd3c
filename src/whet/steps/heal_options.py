"""The options of the step `heal`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from whet.errors import UsageError, did_you_mean
from whet.messages import with_and
from whet.steps.option_kinds import Shown, Source, Text

WAYS = "scales, weights, adapter"
HEALED = 0.98  # of the original's score, where nothing is said
MINUTES = 8.0
PROBLEMS = 3000  # of each skill that is healed, at the most
TEXTS = 512  # windows of ordinary text, at the most


class Heal(Text):
    """Give back skills that a lighter model has lost, and nothing of the others away."""

    original: Source | None = Field(
        default=None, description="The model that it was made from, a dense folder with the same tokenizer"
    )
    skills: Source | None = Field(
        default=None,
        description="A .jsonl file of questions with answers: half of each skill is practised on, half gates; with "
        "practice all gate",
    )
    practice: Source | None = Field(
        default=None, description="A .jsonl file of more questions to practise on, none of which gates or reports"
    )
    skill: Annotated[str | None, Shown(default="every skill that a comparison found hurt")] = Field(
        default=None, description="The skills to give back, with commas between"
    )
    how: Annotated[str | None, Shown(default="weights", among=WAYS)] = Field(
        default=None,
        description="What is trained: scales (of a quantized model, whose codes stay), weights (through its grids), or "
        "an adapter, merged into zeros of codes that are real, else kept beside them",
    )
    to: float = Field(default=HEALED, gt=0, le=1, description="The share of the original's score that counts as healed")
    problems: int = Field(default=PROBLEMS, ge=1, description="Problems of each skill, at the most")
    steps: int | None = Field(default=None, ge=1, description="Train for so many steps")
    minutes: Annotated[float | None, Shown(default=f"{MINUTES:g}")] = Field(
        default=None, gt=0, description="Train for about so long on this machine"
    )
    batch: int = Field(default=2048, ge=1, description="Tokens of a step")
    rate: Annotated[float | None, Shown(default="as whet distill and whet tune have it")] = Field(
        default=None, gt=0, description="The highest learning rate"
    )
    rank: Annotated[int | None, Shown(default="16")] = Field(
        default=None, ge=1, strict=True, description="With adapter: its rank"
    )
    samples: Annotated[int | None, Shown(default=f"{TEXTS}, or what the text holds")] = Field(
        default=None, ge=1, description="Windows of ordinary text that hold the rest in place"
    )
    window: int = Field(default=256, ge=8, description="Tokens in a window of text")
    checkpointing: bool = Field(
        default=False, description="Compute blocks again on the way back: less memory, a third more time"
    )

    @property
    def most_samples(self) -> int:
        """Windows of text, at the most."""
        return TEXTS if self.samples is None else self.samples

    @property
    def budgeted(self) -> bool:
        """Whether a recipe keeps questions for the step itself."""
        return True

    @property
    def named(self) -> list[str]:
        """The skills that were named."""
        return [name.strip() for name in (self.skill or "").split(",") if name.strip()]

    def check(self) -> None:
        """Raises UsageError for options that do not go together."""
        if self.how is not None and self.how not in WAYS.split(", "):
            raise UsageError(
                "how {how} is not known.{near} Ways: {known}.",
                how=self.how,
                near=did_you_mean(self.how, WAYS.split(", ")),
                known=WAYS,
            )
        if self.steps is not None and self.minutes is not None:
            raise UsageError(
                "{ways} were given: each says how long to train. Give one of them.",
                ways=with_and(["steps", "minutes"]),
            )
        if self.rank is not None and self.how != "adapter":
            raise UsageError("rank is that of an adapter: give --how adapter with it, or leave it out.")
        if self.skill is not None and not self.named:
            raise UsageError("skill {skill!r} names none. Name one, or leave it out.", skill=self.skill)
