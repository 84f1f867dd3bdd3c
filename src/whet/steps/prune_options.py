"""The options of the steps `prune` and `slice`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from whet.errors import UsageError
from whet.steps.option_kinds import EvalText, Opening, Options, Shown, Source, Text

SIZES = "90%, 80%, 70%, 60%, 50%"  # of the smaller models in an elastic folder
UNITS = "layers, channels, heads, attention, ffn, experts, hidden"
SHAPES = "uniform, free"
CHOSEN_BY = "obs, magnitude, activation, wanda, leverage, taylor, divergence, perplexity, influence, evolution, reap, "
CHOSEN_BY += "frequency, pca"


class Prune(Opening, Text):
    """Take blocks, channels, heads, experts or width out altogether, or tokens; the model stays of its family."""

    remove: Annotated[str | float | None, Shown(among="12.5%, 25%, 37.5%")] = Field(
        default=None, description="The share of the blocks' parameters to take: 25%, or 0.25"
    )
    units: Annotated[str | None, Shown(default="all but hidden; of experts those alone", among=UNITS)] = Field(
        default=None, description=f"With remove or elastic: what may go, with commas between: {UNITS}; shapes are tried"
    )
    importance: Annotated[str | None, Shown(default="obs, divergence or reap", among=CHOSEN_BY)] = Field(
        default=None,
        description=f"With remove or elastic: by what units are chosen, one for some or for all: {CHOSEN_BY}",
    )
    repair: bool = Field(
        default=True, description="Fit the weights that stay to make up for what goes; with elastic, only measure that"
    )
    merge: bool = Field(
        default=False, description="Merge experts that go into those that stay that are most like them (REAM)"
    )
    shapes: Annotated[str | None, Shown(default="uniform", among=SHAPES)] = Field(
        default=None,
        description="With remove: free takes of every block what costs least, attention and ffn whole too; the folder "
        "then has a modelling file (trust_remote_code)",
    )
    elastic: bool = Field(
        default=False, description="Take nothing: sort the model by what is worth most, so that whet slice can cut it"
    )
    sizes: Annotated[str | None, Shown(default="90% to 50%, in steps of 10%", among=SIZES)] = Field(
        default=None, description="With elastic: sizes to find shapes for, in shares of the blocks' parameters: 80%,60%"
    )
    protect: str | None = Field(
        default=None, description="Skills of the questions, and languages, that count as much as all other text"
    )
    skills: Source | None = Field(default=None, description="With protect: a .jsonl file of questions with answers")
    vocab: Source | None = Field(
        default=None, description="Take tokens instead: those stay that occur in this text, a file or a folder"
    )
    keep_languages: Annotated[str | None, Shown(among="ko, en")] = Field(
        default=None, description="Tokens of these languages' scripts stay too, with commas between: ko,en"
    )
    min_count: int = Field(default=1, ge=1, description="With vocab: how often a token has to occur to stay")
    eval_text: EvalText = None

    @property
    def of_tokens(self) -> bool:
        """Whether tokens go."""
        return self.vocab is not None or self.keep_languages is not None

    def check(self) -> None:
        """Raises UsageError unless it says what goes in one way."""
        if (self.remove is not None) + self.of_tokens + self.elastic != 1:
            raise UsageError(
                "Say what goes: remove (a share of the blocks' parameters, 25%), vocab and keep_languages (tokens), or "
                "elastic (nothing yet). Each is a step of its own, so give one, and another for what that makes."
            )
        if self.sizes is not None and not self.elastic:
            raise UsageError("sizes goes with elastic, which finds the smaller models in a folder. Leave it out.")
        if self.merge and (self.remove is None or self.shapes == "free"):
            raise UsageError("merge goes with remove, where experts go from every block alike. Leave it out.")
        if self.skills is not None and self.protect is None:
            raise UsageError("skills are the questions of what protect names. Give it too, or leave them out.")
        given = [name for name in ("units", "importance", "text", "protect") if getattr(self, name) is not None]
        if self.of_tokens and given:
            raise UsageError(
                "{given} goes with remove: tokens are chosen by vocab and keep_languages. Leave it out.", given=given[0]
            )


class Slice(Options):
    """Cut a smaller model from an elastic folder, without text and without moving a weight."""

    size: Annotated[str | float, Shown(among=SIZES)] = Field(
        description="The share of the blocks' parameters that stays, one of the folder's sizes: 60%, or 0.6"
    )
