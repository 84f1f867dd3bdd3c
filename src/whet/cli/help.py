"""`--help` in the user's language: what typer shows is looked up in the catalogue of messages when it is shown.

Help strings stay where they are written (docstrings of verbs, options of the steps), in English; `bench/messages.py`
finds them through `texts`. A command that runs never looks anything up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from whet.cli.phrases import language, say
from whet.messages import catalogue

# Titles and marks of typer's own, by the name of its constant: the phrase that stands for each.
_FRAME = {
    "ARGUMENTS_PANEL_TITLE": "help.arguments",
    "OPTIONS_PANEL_TITLE": "help.options",
    "COMMANDS_PANEL_TITLE": "help.commands",
    "DEFAULT_STRING": "help.default",
    "REQUIRED_LONG_STRING": "help.required",
}


class _Told:
    """A command that says its help in the user's language."""

    def format_help(self: Any, context: Any, formatter: Any) -> None:
        if language() == "en":
            return super().format_help(context, formatter)  # type: ignore[misc]
        known = catalogue(language())
        for holder, name, text in _shown(self, context):
            setattr(holder, name, known.get(text, text))
        if self.epilog:
            self.epilog = self.epilog.replace("Example:", say("help.example"), 1)
        with _framed():
            return super().format_help(context, formatter)  # type: ignore[misc]

    def format_usage(self: Any, context: Any, formatter: Any) -> None:
        pieces = " ".join(self.collect_usage_pieces(context))
        formatter.write_usage(context.command_path, pieces, prefix=say("help.usage"))


class Verb(_Told, TyperCommand):
    """One verb."""


class Verbs(_Told, TyperGroup):
    """All of them."""


@contextlib.contextmanager
def _framed() -> Iterator[None]:
    """Typer's titles in the user's language, as long as one help is printed."""
    from rich.text import Text
    from typer import rich_utils

    make_text, columns, names = rich_utils._make_rich_text, rich_utils.Columns, rich_utils.highlighter

    def folded(text: Any) -> Any:
        # rich leaves the blank at the end of a line of wide letters, and a column that is to end in an ellipsis then
        # cuts the last letter off: "이어서" became "이어 …"
        if isinstance(text, Text):
            text.overflow = "fold"
        return text

    changed: dict[str, Any] = {name: say(key) for name, key in _FRAME.items()}
    changed["_make_rich_text"] = lambda **given: folded(make_text(**given))
    changed["highlighter"] = lambda text: folded(names(text))
    changed["Columns"] = lambda items: columns([folded(item) for item in items])
    before = {name: getattr(rich_utils, name) for name in changed}
    try:
        for name, value in changed.items():
            setattr(rich_utils, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(rich_utils, name, value)


def texts(app: typer.Typer) -> set[str]:
    """Every help string of `app`, in English, as it is looked up."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    commands = [group, *group.commands.values()]
    return {text for command in commands for *_, text in _shown(command, command.context_class(command))}


def _shown(command: Any, context: Any) -> Iterator[tuple[Any, str, str]]:
    """What holds each help string of a command, under what name, and the string."""
    holders = [command, *command.get_params(context), *getattr(command, "commands", {}).values()]
    for holder in holders:
        for name in ("help", "short_help", "show_default"):
            text = getattr(holder, name, None)
            if isinstance(text, str) and text and (name != "show_default" or " " in text):  # not `good`, which is typed
                yield holder, name, text
