"""The command line: one short module per verb that parses, calls and prints.

Only this room prints and exits. Exit codes: 0 pass, 1 internal error, 2 usage, 3 environment, 4 inconclusive,
5 gate failed, 130 interrupted. An error is one paragraph on stderr; `--debug` adds the traceback.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

import whet
from whet.cli import (
    choose,
    compare,
    compress,
    curate,
    demo,
    distill,
    dynamic,
    export,
    fit_context,
    generate,
    hardware,
    heal,
    inspect,
    masks,
    merge,
    pack,
    plan,
    prune,
    resume,
    rollout,
    run,
    schema,
    serve,
    slice,
    status,
    tune,
    unpack,
    verify,
)
from whet.cli.console import escaped
from whet.cli.help import Verb, Verbs
from whet.cli.phrases import say, sentence
from whet.errors import WhetError, machine_error
from whet.foreign import recognized

app = typer.Typer(
    name="whet",
    cls=Verbs,
    help="Make a language model lighter and see, skill by skill, what it kept.",
    epilog="Example: whet compress MODEL lighter --scheme W4A16 --text corpus.txt",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"whet {whet.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


for _verb in (
    demo, inspect, hardware, plan, compress, prune, slice, masks, distill, tune, heal, merge, dynamic, curate, run,
    status, export, pack, unpack, compare, choose, verify, generate, fit_context, serve, rollout, resume, schema,
):  # fmt: skip
    app.command(_verb.__name__.rpartition(".")[2].replace("_", "-"), cls=Verb, epilog=_verb.EXAMPLE)(_verb.run)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and leave with its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Read when torch is imported, which is later. Threads that spin while they wait take the cores from those that
    # work: a plan of a model of 260,000 parameters took 28.6 s, and 7.8 so.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a stream that a test put there
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="whet", standalone_mode=False)
    except TyperException as error:
        code = _usage(error)
    except WhetError as error:
        code = _failed(error, sentence(error.message), error.exit_code, "--debug" in arguments)
    except Exception as error:
        if (refused := machine_error(error)) is not None:
            sys.exit(_failed(error, sentence(refused.message), refused.exit_code, "--debug" in arguments))
        message = say("internal", kind=type(error).__name__, message=" ".join(str(error).split()))
        code = _failed(error, message, 1, "--debug" in arguments)
    sys.exit(code if isinstance(code, int) else 0)


def _failed(error: Exception, message: str, code: int, debug: bool) -> int:
    if debug:
        print(escaped("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    print(escaped(f"{say('error')}: {message}"), file=sys.stderr)
    return code


def _usage(error: TyperException) -> int:
    """A wrong command, option or value, in one paragraph with the nearest right name and where to look."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "whet"
    near = getattr(error, "possibilities", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    message = " ".join((error.message if near else error.format_message()).split())
    if not message.endswith("?"):
        message = message.rstrip(".") + "."
    words = [f"{say('error')}: {sentence(recognized(message))}"]
    if near:
        words.append(say("did_you_mean", names=", ".join(near)))
    print(escaped(" ".join([*words, say("try_help", command=path)])), file=sys.stderr)
    return error.exit_code
