"""Many wordings in one case: a test of messages, names or phrases is a loop, and every fault is told by itself."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any


def each(names: str, values: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """As `pytest.mark.parametrize`, but one case that goes through all `values`, with the same fixtures for each.

    For what takes no time and differs in words alone; a thousand cases of it hide the few hundred that matter.
    """
    arguments = [name.strip() for name in names.split(",")]
    rows = [dict(zip(arguments, value if arguments[1:] else (value,), strict=True)) for value in values]
    assert rows, "nothing to go through"

    def one_case(test: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(test)
        fixtures = [p for name, p in signature.parameters.items() if name not in arguments]
        own = inspect.Parameter("subtests", inspect.Parameter.KEYWORD_ONLY)

        @functools.wraps(test)
        def through(*, subtests: Any, **given: Any) -> None:
            for row in rows:
                with subtests.test(**row):
                    test(**given, **row)

        through.__signature__ = signature.replace(parameters=[*fixtures, own])  # type: ignore[attr-defined]
        return through

    return one_case
