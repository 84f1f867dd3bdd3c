"""Statements that are true or false, as `whet compare --beliefs` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator

from whet.errors import UsageError
from whet.measure.probes import FOLDS
from whet.measure.records import Material, read_records
from whet.messages import Message
from whet.strict import Strict

FEWEST = 40  # statements; an eighth of them is what a probe's ridge is chosen on
EXAMPLE = (
    '{"statement": "Paris is the capital of France.", "negation": "Paris is not the capital of France.", "truth": true}'
)
GAP = "{statement}"
Kind = Literal["honest", "neutral", "deceptive"]
KINDS: tuple[Kind, ...] = ("honest", "neutral", "deceptive")


class Statement(Strict):
    """One statement and one that is true exactly where it is false.

    truth: whether the statement is true. paraphrases: other wordings of it. group: what it is about; statements about
    one thing are right or wrong together. language: a part of the report. ask: a prompt, or several wordings of it,
    after which a model says one of `answers`: the one that affirms the statement, and the one that denies it.
    `{statement}` in it stands for the statement. prefixes: what is put before a prompt, by kind, one of KINDS.
    """

    statement: str = Field(min_length=1)
    negation: str = Field(min_length=1)
    truth: bool
    paraphrases: list[str] = Field(default_factory=list)
    group: str | None = None
    language: str | None = None
    ask: str | list[str] | None = None
    answers: tuple[str, str] | None = None
    prefixes: dict[Kind, list[str]] | None = None

    @field_validator("answers")
    @classmethod
    def _differ(cls, value: tuple[str, str] | None) -> tuple[str, str] | None:
        if value is not None and (value[0] == value[1] or not all(value)):
            raise ValueError(Message("answers are two texts that differ, the one that affirms first"))
        return value

    @field_validator("prefixes")
    @classmethod
    def _all_kinds(cls, value: dict[Kind, list[str]] | None) -> dict[Kind, list[str]] | None:
        if value is not None and not all(value.get(kind) for kind in KINDS):
            raise ValueError(Message("prefixes have honest, neutral and deceptive ones, one of each or more"))
        return value

    @property
    def prompts(self) -> list[str]:
        """The wordings of `ask`."""
        return [self.ask] if isinstance(self.ask, str) else list(self.ask or ())


def read_statements(source: Material, fewest: int = FEWEST, things: int = 2 * FOLDS) -> list[Statement]:
    """Statements of a file or a list. Raises UsageError where they are too few, or nearly all true or false."""
    statements = read_records(Statement, source, EXAMPLE)
    where = source if not isinstance(source, Sequence) or isinstance(source, str) else Message("the list")
    if any((one.answers is None) != (one.ask is None) for one in statements):
        raise UsageError("{where}: ask and answers go together; a statement has only one of them.", where=where)
    groups = {group_of(number, one) for number, one in enumerate(statements)}
    if len(statements) < fewest or len(groups) < things:
        raise UsageError(
            "{where} has {count} statements about {groups} things. A probe needs {fewest} about {least} or more.",
            where=where,
            count=len(statements),
            groups=len(groups),
            fewest=fewest,
            least=things,
        )
    true = sum(one.truth for one in statements)
    if not 0.25 <= true / len(statements) <= 0.75:
        raise UsageError(
            "{where}: {true} of {count} statements are true. Make a quarter to three quarters of them true: swap a "
            "statement with its negation, and its truth. Else a probe learns how a negation is worded.",
            where=where,
            true=true,
            count=len(statements),
        )
    return statements


def group_of(number: int, one: Statement) -> str:
    """What a statement is about; itself where it does not say."""
    return f"#{number}" if one.group is None else one.group
