"""Tables as values: the template gives each a caption and scopes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

RAN = ("run in tests", "run here")  # what is known of a runtime that was tried
_SIGNS = {"pass": "✓", "fail": "✗", "inconclusive": "?", "not judged": "–"}


@dataclass
class Row:
    """A row's header and its cells. mark: CSS class of a colour swatch before the header."""

    name: str
    cells: Sequence[str]
    mark: str = ""


@dataclass
class Table:
    """head: one heading a column, the first over the row headers. words: the cells are text, set to the left.

    wide: on a phone each row becomes a block of its own.
    """

    caption: str
    head: Sequence[str]
    rows: list[Row] = field(default_factory=list)
    words: bool = False
    wide: bool = False


def two_lines(first: str, second: str, wraps: bool = False) -> Markup | str:
    """`first` with `second` small under it, on one line unless it `wraps`; escaped."""
    if not second:
        return first
    return Markup("{} <small{}>{}</small>").format(first, Markup(' class="wraps"') if wraps else "", second)


def verdict_badge(verdict: str, word: str) -> Markup:
    """A verdict as sign, word and colour, so that none of them is needed alone."""
    name = verdict.replace(" ", "-")
    return Markup('<span class="badge {}"><span aria-hidden="true">{}</span> {}</span>').format(
        name, _SIGNS[verdict], word
    )
