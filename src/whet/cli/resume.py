"""`whet resume`: finish what was interrupted."""

from __future__ import annotations

from pathlib import Path

import whet
from whet.cli.compress import made
from whet.cli.console import Console
from whet.cli.heal import EXIT_CODES as HEALED
from whet.cli.heal import healed
from whet.cli.merge import merged
from whet.cli.options import Debug, Json, Trust, Unfinished, trusted
from whet.cli.run import EXIT_CODES, report
from whet.cli.tune import tuned

EXAMPLE = "Example: whet resume lighter"


def run(out: Unfinished, trust_remote_code: Trust = False, as_json: Json = False, debug: Debug = False) -> int:
    """Go on with an interrupted `whet compress` or `whet run`, to the same bytes as if it had not been interrupted."""
    if trust_remote_code:
        from whet.apply.run import Run

        trusted(Path(Run(out).request()["model"]), trust_remote_code)
    with Console(as_json, resume=out) as console:
        result = whet.resume(out, on_event=console.on_event)
        recipe = result.get("format") == "whet.run"
        if recipe:
            report(console, result)
        elif "outcome" in result:
            healed(console, result)
        elif "held_out" in result:
            tuned(console, result)
        elif "how" in result:
            merged(console, result)
        else:
            made(console, result)
        console.result(result)
    return EXIT_CODES[result["verdict"]] if recipe else HEALED.get(result.get("outcome", ""), 0)
