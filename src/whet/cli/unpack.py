"""`whet unpack`: the folder of a pack, the same bytes as before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import whet
from whet.cli.console import Console
from whet.cli.options import Debug, Json
from whet.cli.phrases import say, size

EXAMPLE = "Example: whet unpack lighter.whetpack lighter"


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What whet pack wrote.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write, new or empty.", show_default=False)],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Write the folder that FILE is a pack of to OUT, each file checked by its hash."""
    with Console(as_json) as console:
        result = whet.unpack(file, out, on_event=console.on_event)
        console.show(say("unpacked", out=result["out"], files=result["files"], size=size(result["bytes"]["original"])))
        console.result(result)
    return 0
