"""The options of the step `tune` and of the verb `merge`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from whet.errors import UsageError, did_you_mean
from whet.messages import with_and
from whet.steps.option_kinds import CHAT, FIELD, EvalText, Options, Shown, Source, Text

ADAPTERS = "lora, rslora, dora, pissa, sharelora, qalora, full"
RANK = 16  # of an adapter where none is asked for
LEARNT = 4096  # windows of text to learn, at the most, where no number is asked for
HOWS = "exact, beside, round, dense"


class Tune(Text):
    """Train the model on text: by an adapter beside its linears, or all of it."""

    adapter: Annotated[str, Shown(among=ADAPTERS)] = Field(
        default="lora", description=f"What is trained: {ADAPTERS} (every parameter)"
    )
    rank: Annotated[int | None, Shown(default=str(RANK))] = Field(
        default=None, ge=1, strict=True, description="The rank of the adapter"
    )
    lora: Annotated[int | None, Shown(metavar="RANK")] = Field(
        default=None, ge=1, strict=True, description="The same as adapter lora with this rank"
    )
    alpha: Annotated[float | None, Shown(default="twice the rank, or what the kind takes")] = Field(
        default=None, gt=0, description="What the adapter is scaled by, over its rank"
    )
    targets: Annotated[str, Shown(among="all, q, k, v, o, gate, up, down")] = Field(
        default="all", description="Roles of the linears that get an adapter, with commas between: q,v; or all"
    )
    teacher: Source | None = Field(
        default=None, description="The folder of a model whose predictions are learnt, instead of the text's next token"
    )
    original: Source | None = Field(
        default=None, description="Of a quantized MODEL, the original: the adapter begins as what rounding lost"
    )
    mask: bool = Field(default=True, description="Of conversations learn the replies alone")
    steps: Annotated[int | None, Shown(default="three times through the text, at most 1000")] = Field(
        default=None, ge=1, strict=True, description="Train for so many steps"
    )
    minutes: float | None = Field(default=None, gt=0, description="Train for about so long on this machine")
    batch: int = Field(default=2048, ge=1, description="Tokens of a step")
    learning_rate: Annotated[float | None, Shown(default="0.001, of full 0.0001")] = Field(
        default=None, gt=0, description="The highest learning rate"
    )
    samples: Annotated[int | None, Shown(default=f"{LEARNT}, or what the text holds")] = Field(
        default=None, ge=1, description="Windows of text to train on"
    )
    window: int = Field(default=512, ge=8, description="Tokens in a window of text")
    checkpointing: bool = Field(
        default=False, description="Compute blocks again on the way back: less memory, a third more time"
    )
    merge: bool = Field(default=False, description="Write the whole model with the adapter merged into it")
    eval_text: EvalText = None

    @property
    def most_samples(self) -> int:
        """Windows to train on, at the most."""
        return LEARNT if self.samples is None else self.samples

    @property
    def size(self) -> int:
        """The rank."""
        return self.lora or self.rank or RANK

    def check(self) -> None:
        """Raises UsageError for options that do not go together."""
        if self.lora is not None and (self.rank is not None or self.adapter != "lora"):
            raise UsageError(
                "lora {lora} says both what is trained and its rank. Leave {other} out, or give adapter and rank.",
                lora=self.lora,
                other="adapter" if self.adapter != "lora" else "rank",
            )
        if self.steps is not None and self.minutes is not None:
            raise UsageError(
                "{ways} were given, and each alone says how long to train. Give one.",
                ways=with_and(["steps", "minutes"]),
            )
        given = [n for n in ("rank", "alpha", "original") if self.adapter == "full" and getattr(self, n) is not None]
        given += ["targets"] * (self.adapter == "full" and self.targets != "all")
        if given:
            raise UsageError("{given} is of adapters, and full trains every parameter. Leave it out.", given=given[0])
        if self.original is not None and self.adapter in ("pissa", "sharelora", "qalora"):
            raise UsageError(
                "original says what the adapter begins as, and so does {adapter}. Leave one out.", adapter=self.adapter
            )


class Merge(Options):
    """Make an adapter a part of the model it is for."""

    how: Annotated[str | None, Shown(default="exact where that can be, else beside", among=HOWS)] = Field(
        default=None,
        description="Into a quantized model: exact (into the zeros of its codes), beside (as a part of the folder), "
        "round (weights rounded again) or dense (weights that are not quantized)",
    )
    undo: bool = Field(default=False, description="Take an adapter out again that was merged exactly into codes")
    solver: Annotated[str | None, Shown(default="good with text, else nearest")] = Field(
        default=None, description="With round: how hard it is tried"
    )
    text: Source | None = Field(default=None, description="With round: the text to calibrate and to verify on")
    field: str = Field(default="text", description=FIELD)
    chat: bool = Field(default=False, description=CHAT)

    def check(self) -> None:
        """Raises UsageError for options that do not go together."""
        if self.how is not None and self.how not in HOWS.split(", "):
            raise UsageError(
                "how {how} is not known.{near} Ways: {known}.",
                how=self.how,
                near=did_you_mean(self.how, HOWS.split(", ")),
                known=HOWS,
            )
        if self.undo and self.how not in (None, "exact"):
            raise UsageError("undo takes out what was merged exactly. Leave how out.")
        given = [name for name in ("solver", "text") if getattr(self, name) is not None]
        if given and self.how != "round":
            raise UsageError("{given} goes with --how round. Leave it out, or give that.", given=given[0])
