"""`whet pack`: a folder as one file that is smaller to send."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import whet
from whet.cli.console import Console
from whet.cli.options import Debug, Json
from whet.cli.phrases import say, size
from whet.cli.tables import Sheet

EXAMPLE = "Example: whet pack lighter lighter.whetpack"


def run(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to pack.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.", show_default=False)],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Pack FOLDER into one file, without loss, to send or keep it. `whet unpack` gives the same bytes back."""
    with Console(as_json) as console:
        result = whet.pack(folder, out, on_event=console.on_event)
        console.show(kinds(result).rich())
        console.show(
            say("packed", out=result["out"]), say("packed.next", command=f"whet unpack {result['out']} FOLDER")
        )
        console.result(result)
    return 0


def kinds(result: dict[str, Any]) -> Sheet:
    """What each kind of tensor took and takes."""
    sheet = Sheet(say("packed.title"), ["", say("packed.before"), say("packed.after"), say("ratio")])
    rows = [(say("packed.whole"), result["bytes"])]
    rows += [(say("packed.other") if kind == "other files" else kind, both) for kind, both in result["kinds"].items()]
    for name, both in rows:
        ratio = both["packed"] / max(1, both["original"])
        sheet.rows.append([name, size(both["original"]), size(both["packed"]), f"{ratio:.3f}"])
    return sheet
