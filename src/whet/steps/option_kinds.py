"""What options are made of: how each is shown, and the text that a step works on. `whet.steps.options` has them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationInfo, WithJsonSchema

from whet.errors import UsageError
from whet.messages import Message
from whet.strict import Strict, checked

FIELD = "The field of records that holds the text; where there is no field text, the only one that does"
CHAT = "Records are conversations: apply the model's chat template"
SKIP_BAD = "Leave out records of the text that cannot be read, and tell how many they were"
DEQUANTIZE = "Take what an original stored in FP8 or MXFP4 decodes to for its weights"
SAMPLES = 128  # windows of text, at the most, where no number is asked for


@dataclass(frozen=True)
class Shown:
    """How the command line shows an option: what stands for its value, and its default where that is not `None`.

    among: the values, or the usual ones, that a shell completes, with commas between.
    """

    metavar: str | None = None
    default: str | None = None
    among: str = ""


def _named_in_a_document(value: Any, info: ValidationInfo) -> Any:
    """In a recipe what is a file in Python too is a file or a name, never the thing itself."""
    if isinstance(info.context, dict) and info.context.get("document") and not isinstance(value, str):
        raise ValueError(Message("it must be a string, the name of a file or of a data set"))
    return value


# A path or name; from Python also what such a file holds.
Source = Annotated[Any, AfterValidator(_named_in_a_document), WithJsonSchema({"type": "string"})]


class Options(Strict):
    """Options of a step or verb."""

    @classmethod
    def of(cls, verb: str, **options: Any) -> Self:
        """From Python arguments. Raises UsageError that names the argument, and the nearest known one."""
        return checked(cls, options, verb, by_name=True)

    def document(self) -> dict[str, Any]:
        """As a recipe spells it; what was no file (text, questions) is left out, and a plan that was none is named."""
        found = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Path):
                value = str(value)
            if name == "plan" and isinstance(value, Mapping):
                value = "plan.json"
            if isinstance(value, str | int | float | dict) and value != {}:
                found[field.alias or name] = value
        return found


class Opening(Options):
    """How the original is read."""

    dequantize: bool = Field(default=False, description=DEQUANTIZE)


class Text(Options):
    """The text a step calibrates on."""

    text: Source | None = Field(
        default=None,
        description="A .txt, .jsonl, .json, .csv, .tsv or .parquet file, a folder of them, or a data set on the hub",
    )
    field: str = Field(default="text", description=FIELD)
    chat: bool = Field(default=False, description=CHAT)
    skip_bad: bool = Field(default=False, description=SKIP_BAD)
    samples: Annotated[int | None, Shown(default="128, or fewer where more do not help")] = Field(
        default=None, ge=1, description="Windows of text to calibrate on"
    )
    window: int = Field(default=2048, ge=8, description="Tokens in a window of text")

    @property
    def most_samples(self) -> int:
        """Windows to calibrate on, at the most."""
        return SAMPLES if self.samples is None else self.samples


EvalText = Annotated[
    Source | None,
    Field(alias="eval", description="Text to verify on; without it a tenth of the text is kept for that"),
]


def parse_precisions(text: str) -> tuple[int, ...]:
    """The bits that `8,4,2` names. Raises UsageError for what is no falling list of 2 to 8."""
    said = [part.strip() for part in str(text).split(",")]
    bits = tuple(int(part) for part in said if part.isascii() and part.isdigit())
    falling = all(first > second for first, second in pairwise(bits))
    if len(bits) != len(said) or len(bits) < 2 or not falling or bits[0] > 8 or bits[-1] < 2:
        raise UsageError(
            "precisions {text!r} is no falling list of two or more from 8 to 2. Give bits with commas between: 8,4,2.",
            text=text,
        )
    return bits
