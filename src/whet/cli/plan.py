"""`whet plan`: the best mix of schemes for a budget, as a file to read, edit and replay."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

import whet
from whet.cli.compress import timed
from whet.cli.console import Console
from whet.cli.options import Debug, Json, Model, Trust, takes, trusted
from whet.cli.phrases import say, sentence, size
from whet.cli.starter import calibration, check_material, is_starter, resolve
from whet.cli.tables import Sheet
from whet.paths import check_output
from whet.report.numbers import figure
from whet.steps.options import SAMPLES
from whet.steps.verbs import Plan

EXAMPLE = "Example: whet plan MODEL plan.json --fit 25% --text corpus.txt"


@takes(Plan)
def run(
    model: Model,
    out: Annotated[
        Path, typer.Argument(metavar="PLAN", help="The .json file to write the plan to.", show_default=False)
    ],
    *,
    trust_remote_code: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
    **options: Any,
) -> int:
    """Plan which scheme each part of MODEL takes within a budget. Then: `whet compress MODEL OUT --plan PLAN`."""
    folder = resolve(model)
    trusted(folder, trust_remote_code)
    check_material(options["text"])
    check_output(out, folder, options["text"])
    if options["text"] is None and is_starter(folder):
        options["text"] = calibration(options["samples"] or SAMPLES, options["seed"])
    with Console(as_json) as console:
        plan = whet.plan(folder, out, **options, on_event=console.on_event)
        console.show(by_role(plan).rich(), beside(plan).rich())
        timed(console, plan)
        for line in (*plan["left_out"], *plan["notes"]):
            console.show(f"{say('note')}: {sentence(line)}")
        console.show(say("gap", gap=f"{100 * plan['gap']['relative']:.2g} %"), say("wrote", files=out))
        console.show(say("replay", command=f"whet compress {model} OUT --plan {out}"))
        console.result(plan)
    return 0


def by_role(plan: dict[str, Any]) -> Sheet:
    """How many parts of each kind have each scheme."""
    found: dict[str, Counter[str]] = {}
    for address, scheme in plan["schemes"].items():
        found.setdefault(address.rpartition(".")[2], Counter())[scheme] += 1
    sheet = Sheet(say("plan.schemes"), [say("plan.part"), say("plan.scheme")], words=True)
    for name, schemes in found.items():
        sheet.rows.append([name, ", ".join(f"{count} × {scheme}" for scheme, count in sorted(schemes.items()))])
    return sheet


def beside(plan: dict[str, Any]) -> Sheet:
    """The plan beside the best uniform schemes of no more and of about its bytes."""
    sheet = Sheet(say("plan.predicted"), ["", say("plan.bits"), say("plan.bytes"), say("kl")])
    told = plan["predicted"]
    rows = [(say("plan.this"), told)]
    fits = [point for point in plan["uniform"] if point["bytes"] <= told["bytes"]]
    if fits:
        best = min(fits, key=lambda point: point["kl"])
        rows.append((say("plan.uniform", scheme=best["scheme"], embed=best["embed"]), best))
    equals = [point for point in plan["uniform"] if point["kl"] <= told["kl"]]
    if equals:
        best = min(equals, key=lambda point: point["bytes"])
        rows.append((say("plan.equal", scheme=best["scheme"], embed=best["embed"]), best))
    sheet.rows = [[name, f"{p['bits']:.2f}", size(p["bytes"]), figure(p["kl"])] for name, p in rows]
    return sheet
