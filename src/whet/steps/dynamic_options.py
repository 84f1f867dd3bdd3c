"""The options of the step `dynamic`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from whet.errors import UsageError
from whet.steps.option_kinds import EvalText, Shown, Text

LEARNT = 4096  # windows of text to learn, at the most, where no number is asked for
HERE = "whet"  # the one runtime that decides anew for every prompt or token


class Dynamic(Text):
    """Decide at run time how much of the model is used: channels by the prompt, or blocks by the token."""

    active: Annotated[str | float | None, Shown(among="50%, 25%")] = Field(
        default=None,
        description="The shares of feed-forward channels that a prompt may use, with commas between: 50%,25%",
    )
    agreement: Annotated[str | float | None, Shown(among="98%, 95%, 99%")] = Field(
        default=None,
        description="Let tokens leave early, and agree with the whole model on at least this share of them: 98%",
    )
    exits: Annotated[str | None, Shown(default="half and three quarters of the blocks")] = Field(
        default=None, description="With agreement: after how many blocks a token may leave, with commas between: 3,4"
    )
    joint: bool = Field(
        default=False, description="With active: train the model too, and not only what chooses its channels"
    )
    target: Annotated[str, Shown(among=HERE)] = Field(
        default=HERE, alias="for", description="The runtime that decides: whet alone; others run the whole model"
    )
    mask: bool = Field(default=True, description="Of conversations learn the replies alone")
    steps: Annotated[int | None, Shown(default="twice through the text, at most 400")] = Field(
        default=None, ge=1, strict=True, description="Train for so many steps"
    )
    batch: int = Field(default=2048, ge=1, description="Tokens of a step")
    learning_rate: Annotated[
        float | None, Shown(default="0.01, of a joint model a hundredth of it; of exits 0.001")
    ] = Field(default=None, gt=0, description="The highest learning rate")
    samples: Annotated[int | None, Shown(default=f"{LEARNT}, or what the text holds")] = Field(
        default=None, ge=1, description="Windows of text to train on"
    )
    window: int = Field(default=256, ge=16, description="Tokens in a window of text")
    eval_text: EvalText = None

    @property
    def most_samples(self) -> int:
        """Windows to train on, at the most."""
        return LEARNT if self.samples is None else self.samples

    def check(self) -> None:
        """Raises UsageError for options that do not go together."""
        if (self.active is None) == (self.agreement is None):
            raise UsageError(
                "Say what is decided at run time: active (shares of channels for each prompt, 50%) or agreement "
                "(tokens leave early, 98%). Each is a folder of its own, so give one."
            )
        given = [name for name in ("exits",) if self.active is not None and getattr(self, name) is not None]
        given += ["joint"] * (self.agreement is not None and self.joint)
        if given:
            other = "agreement" if self.active is not None else "active"
            raise UsageError("{name} goes with {other}. Leave it out.", name=given[0], other=other)
        if self.target != HERE:
            raise UsageError(
                "{target} runs the whole model: nothing but whet decides at run time what of it is used. Leave --for "
                "out, or cut a smaller model that {target} runs with whet prune.",
                target=self.target,
            )
