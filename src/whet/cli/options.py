"""What verbs share: options made from the models in `whet.steps.options`, and those of the command line alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic.fields import FieldInfo

from whet.cli.completion import among, models
from whet.steps.options import CHAT, DEQUANTIZE, DEVICES, FIELD, SKIP_BAD, Options, Shown

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run the Python code in MODEL's folder that builds it. It may do anything on this machine.",
    ),
]
Seed = Annotated[int, typer.Option(help="Random seed.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", autocompletion=among(DEVICES))]
Kv = Annotated[
    str | None,
    typer.Option(
        "--kv",
        help="What keys and values are kept in: int8, int4, q4_0 or fp8; of a .gguf int8 or q4_0. With 16 they stay as "
        "they are where a folder says otherwise.",
        autocompletion=among("int8, int4, q4_0, fp8, 16"),
    ),
]
Precision = Annotated[
    int | None,
    typer.Option(
        "--precision",
        help="Of a folder of several precisions (whet compress --precisions), the bits to use.",
        autocompletion=among("8, 4, 2"),
    ),
]
Field = Annotated[str, typer.Option(help=f"{FIELD}.")]
Chat = Annotated[bool, typer.Option("--chat", help=f"{CHAT}.")]
Dequantize = Annotated[bool, typer.Option("--dequantize", help=f"{DEQUANTIZE}.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help=f"{SKIP_BAD}.")]
Text = Annotated[
    str | None,
    typer.Option(
        help="A .txt, .jsonl, .json, .csv, .tsv or .parquet file, a folder of them, or a data set's name on the hub."
    ),
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write, new or empty.", show_default=False)]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A Hugging Face folder, or `starter`: the embedded one.",
        show_default=False,
        autocompletion=models,
    ),
]
Fast = Annotated[
    bool,
    typer.Option("--fast", help="Keep a lighter folder packed in memory, where PyTorch has a kernel for its codes."),
]
Packed = Annotated[
    bool,
    typer.Option("--packed", help="Keep all of it packed: what has no kernel is decoded at each use, which is slow."),
]
Unfinished = Annotated[
    Path, typer.Argument(metavar="OUT", help="The folder that was being written.", show_default=False)
]


def trusted(model: Path, said: bool) -> None:
    """Let the code in the folder of `model` run, if the user said so."""
    if said:
        import whet

        whet.trust_remote_code(model)


V = TypeVar("V", bound=Callable[..., Any])


def takes(kind: type[Options]) -> Callable[[V], V]:
    """A verb whose `**options` are those of `kind`, each as an option of the command line."""

    def with_options(run: V) -> V:
        signature = inspect.signature(run, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        made = [_parameter(name, field) for name, field in kind.model_fields.items()]
        last = [p for p in own if p.kind is p.KEYWORD_ONLY]
        first = [p for p in own if p.kind is not p.KEYWORD_ONLY]
        parameters = [
            p.replace(kind=p.KEYWORD_ONLY) if p.kind is p.POSITIONAL_OR_KEYWORD else p for p in (*first, *made, *last)
        ]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": int}
        return run

    return with_options


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """A field as a parameter that typer reads."""
    shown = next((one for one in field.metadata if isinstance(one, Shown)), Shown())
    least = next((one.ge for one in field.metadata if hasattr(one, "ge")), None)
    flag = "--" + (field.alias or name).replace("_", "-")
    default = None if field.is_required() else field.default
    names = [flag] if default is not True else [f"{flag}/--no-{flag[2:]}"]
    option = typer.Option(
        *names,
        help=f"{field.description}.",
        metavar=shown.metavar,
        min=least,
        show_default=shown.default or True,
        autocompletion=among(shown.among) if shown.among else None,
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[_plain(field.annotation), option]
    )


def _plain(annotation: Any) -> Any:
    """The type as typer takes it: text where Python takes more."""
    kinds = getattr(annotation, "__args__", (annotation,))
    optional = type(None) in kinds
    known = [kind for kind in (bool, int, float) if kind in kinds]
    kind = known[0] if len(known) == 1 and str not in kinds else str
    return kind | None if optional else kind
