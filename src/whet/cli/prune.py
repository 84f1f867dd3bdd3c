"""`whet prune`: a model folder in, a smaller model of the same family out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import whet
from whet.cli.compress import made, plan
from whet.cli.console import Console
from whet.cli.options import Debug, Json, Model, Out, Trust, takes
from whet.cli.phrases import say, sentence
from whet.cli.starter import prepared
from whet.cli.tables import Sheet, by_part, elastic, needs
from whet.report.numbers import written_size
from whet.steps.verbs import PruneVerb

EXAMPLE = "Example: whet prune MODEL smaller --remove 25% --text corpus.jsonl --field text"


@takes(PruneVerb)
def run(
    model: Model,
    out: Out,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, tell memory, disk and time; write nothing.")
    ] = False,
    trust_remote_code: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
    **options: Any,
) -> int:
    """Write a smaller copy of MODEL to OUT, without some blocks, channels, heads, experts or tokens."""
    tokens = options["vocab"] is not None or options["keep_languages"] is not None
    folder = prepared(model, trust_remote_code, options, reads=not tokens)
    with Console(as_json, resume=out) as console:
        result = whet.prune(folder, out, **options, dry_run=dry_run, on_event=console.on_event)
        if tokens:
            _fewer_tokens(console, result)
        elif dry_run:
            plan(console, result)
        elif "elastic" in result:
            made(console, result, folder)
            _sizes(console, result, out)
        else:
            console.show(say("pruned", share=f"{100 * result['removed']:.1f} %", what=_what(result)))
            made(console, result, folder)
        console.result(result)
    return 0


def _sizes(console: Console, result: dict[str, Any], out: Any) -> None:
    """The sizes that an elastic folder can be cut to, what each loses, and what to type."""
    sizes = result["elastic"]["sizes"]
    console.show(elastic(sizes).rich())
    command = f"whet slice {out} smaller --size {written_size(sizes[len(sizes) // 2]['size'])}"
    console.show(say("elastic.next", command=command))


def _what(result: dict[str, Any]) -> str:
    """How many of each unit stay."""
    told = [say("stays.layers", count=len(result["kept"]["layers"]))]
    for unit, by_block in result["kept"].items():
        if unit == "layers":
            continue
        counts = sorted({len(mine) for mine in by_block.values()} - {0})
        if counts:
            told.append(say(f"stays.{unit}", count="–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))))
        if gone := sum(not mine for mine in by_block.values()):
            told.append(say(f"gone.{unit}", count=gone))
    return ", ".join(told)


def _fewer_tokens(console: Console, result: dict[str, Any]) -> None:
    """What a cut of the vocabulary saves, and how much longer texts become."""
    original, lighter = result["sizes"]["original"], result["sizes"]["lighter"]
    console.show(say("planned") if result.get("dry_run") else say("made", out=result["out"]))
    console.show(by_part(original, lighter, "size").rich())
    tokens = result["tokens"]
    console.show(say("tokens.kept", count=tokens["lighter"], of=tokens["original"]))
    lengths = Sheet(say("lengths"), ["", say("original"), say("lighter"), say("ratio")])
    lengths.rows = [
        [one["of"], str(one["before"]), str(one["after"]), f"{one['ratio']:.3f}"] for one in result["lengths"]
    ]
    console.show(lengths.rich())
    if result.get("dry_run"):
        console.show(needs(result).rich())
        for note in result["notes"]:
            console.show(f"{say('note')}: {sentence(note)}")
