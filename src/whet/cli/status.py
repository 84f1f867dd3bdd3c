"""`whet status`: what was done in a folder, what is running, and how long it will still take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import whet
from whet.cli.console import Console
from whet.cli.options import Debug, Json
from whet.cli.phrases import doing, duration, percent, say
from whet.cli.tables import Sheet

EXAMPLE = "Example: whet status lighter"


def run(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder a run writes to.", show_default=False)],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Tell how far the run in OUT is, running or stopped, without touching it."""
    with Console(as_json) as console:
        found = whet.status(out)
        console.show(say(f"status.{found['state']}", out=found["out"]))
        if found["steps"]:
            sheet = Sheet(say("run.steps"), [say("run.step"), say("run.outcome"), say("run.tries")], words=True)
            for step in found["steps"]:
                sheet.rows.append([step["step"], say(f"outcome.{step['outcome']}"), str(step["tries"])])
            console.show(sheet.rich())
        if (now := found["now"]) is not None:
            line = f"{percent(now['whole'])}, {now['step']}: {doing(now)}"
            left = now["seconds_left"]
            console.show(line if left is None else f"{line}, {say('left', time=duration(left))}")
        if found["state"] == "stopped":
            console.show(say("stopped_resume", command=f"whet resume {out}"))
        console.result(found)
    return 0
