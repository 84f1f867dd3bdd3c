"""`whet verify`: whether the files of a folder that whet wrote are those that were written."""

from __future__ import annotations

from typing import Annotated

import typer

import whet
from whet.cli.console import Console
from whet.cli.options import Debug, Json
from whet.cli.phrases import say, size
from whet.cli.tables import Sheet

EXAMPLE = "Example: whet verify lighter"


def run(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder that whet wrote.", show_default=False)],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Read every file that whet.json of FOLDER lists, and compare size and SHA-256.

    Ends with 0 when all are what was written, 5 when one is missing, changed or, of weights, not listed.
    """
    with Console(as_json) as console:
        found = whet.verify(folder, on_event=console.on_event)
        wrong = [file for file in found["files"] if file["state"] != "ok"]
        if wrong:
            headings = [say(f"verify.{name}") for name in ("file", "state", "listed", "found")]
            sheet = Sheet(say("verify.title"), headings, words=True)
            for file in wrong:
                sizes = ["–" if file[key] is None else size(file[key]) for key in ("listed", "bytes")]
                sheet.rows.append([file["name"], say(f"verify.{file['state']}"), *sizes])
            console.show(sheet.rich())
        console.show(say(f"verify.{found['verdict']}", count=len(wrong or found["files"]), of=len(found["files"])))
        console.result(found)
    return 5 if wrong else 0
