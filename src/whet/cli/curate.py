"""`whet curate`: texts in, a folder of the documents that are worth training on out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import whet
from whet.cli.console import Console
from whet.cli.options import Debug, Json, takes
from whet.cli.phrases import say
from whet.cli.starter import resolve
from whet.cli.tables import Sheet
from whet.paths import check_text
from whet.steps.verbs import Curate

EXAMPLE = "Example: whet curate corpus.jsonl curated --languages en,ko --avoid report.jsonl"
Texts = Annotated[
    list[str],
    typer.Argument(
        metavar="TEXT...",
        help="A .txt, .jsonl, .json, .csv, .tsv or .parquet file, a folder of them, or a data set's name on the hub; "
        "one or several.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write, new or empty.", show_default=False)]


@takes(Curate)
def run(
    texts: Texts,
    out: Out,
    *,
    avoid: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Texts or questions that report: documents that hold one go; repeatable."),
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Texts or questions that gate: likewise, and none may report; repeatable."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
    **options: Any,
) -> int:
    """Write the documents of TEXT that are worth training on into OUT: no copies, no leaks, languages in proportion."""
    for file in (*texts, options["keep"], *(avoid or ()), *(gate or ())):
        if file is not None:
            check_text(file)
    for name in ("model", "lighter"):
        if options[name] is not None:
            options[name] = resolve(options[name])
    with Console(as_json) as console:
        result = whet.curate(texts, out, **options, avoid=avoid or (), gate=gate or (), on_event=console.on_event)
        console.show(counts(result).rich(), languages(result).rich())
        if result["private"]:
            console.show(private(result, options["redact"]).rich())
        console.show(say("wrote", files=out))
        console.result(result)
    return 0


def counts(result: dict[str, Any]) -> Sheet:
    """What came in, what each reason took, what is kept."""
    sheet = Sheet(say("curate.documents"), ["", say("curate.count")])
    sheet.rows = [
        [say("curate.read"), f"{result['read']['documents']:,}"],
        *([say(f"curate.{reason}"), f"{count:,}"] for reason, count in result["removed"].items()),
        [say("curate.kept"), f"{result['kept']['documents']:,}"],
    ]
    return sheet


def languages(result: dict[str, Any]) -> Sheet:
    """How many documents of each language came in and are kept, and its share of what is kept."""
    headings = [say("curate.spoken"), say("curate.read"), say("curate.kept"), say("curate.share")]
    sheet = Sheet(say("curate.languages"), headings)
    for one in result["languages"]:
        share = f"{100 * one['bytes'] / max(1, result['kept']['bytes']):.1f} %"
        sheet.rows.append([one["language"], f"{one['read']:,}", f"{one['documents']:,}", share])
    return sheet


def private(result: dict[str, Any], masked: bool) -> Sheet:
    """How much personal data of each kind is masked, or is not."""
    sheet = Sheet(say("curate.masked" if masked else "curate.private"), ["", say("curate.count")])
    sheet.rows = [[say(f"curate.{kind}"), f"{count:,}"] for kind, count in result["private"].items()]
    return sheet
