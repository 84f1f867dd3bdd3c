"""`curate`: texts in, a folder of the documents that are worth training on out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from whet import starter
from whet.curation.card import facts_of
from whet.curation.curate import Input, Wanted
from whet.curation.curate import curate as judge
from whet.curation.languages import parse_languages
from whet.curation.material import wordings
from whet.curation.models import Judges
from whet.curation.overlap import Evaluation
from whet.curation.quotas import parse_band, parse_quota, parse_share
from whet.curation.write import check_free, workplace, write
from whet.errors import MachineError, UsageError, verb
from whet.events import OnEvent, ignore, note_event
from whet.messages import Message
from whet.paths import check_out, check_text
from whet.steps.verbs import Curate, takes
from whet.text import Stream

HARD, WEIGHT = "10%", 2.0
_OWN = 2000  # held-out documents of the embedded model that are looked for, as many as `compare` uses
_DISK = 2.5  # times the bytes of the text: looked up, and written


@verb
@takes(Curate)
def curate(
    texts: str | Path | Sequence[Any],
    out: str | Path,
    *,
    avoid: Sequence[Any] = (),
    gate: Sequence[Any] = (),
    on_event: OnEvent = ignore,
    **options: Any,
) -> dict[str, Any]:
    """Write the documents of `texts` that are worth training on into the new folder `out`, as JSON lines with a card.

    texts: a path or the name of a data set on the hub, as `compress` takes it, or several; one of several may also be a
    list of documents. What goes, in this order: copies; documents of other languages; too short or too long ones; those
    that hold texts of evaluation; near duplicates (a Jaccard similarity of 0.8 of their shingles); those outside the
    band of perplexity; what is over a quota. keep: documents that nothing but a leak removes.

    avoid: texts and questions that report, gate: those that gate, each a list of files (or of documents, or of items of
    skills). The embedded model's own held-out text and questions are always among them. Raises UsageError where the two
    share a text.

    Returns a JSON-able dict: `out`, `read` and `kept` (documents, letters, bytes), `removed` (by reason), `languages`,
    `lengths`, `evaluation`, `private`, `files` with their hashes, `seconds`, `notes`. The same input and options give
    the same bytes. Raises UsageError for wrong input and MachineError for lack of disk, before the long part.
    """
    started = time.monotonic()
    asked = Curate.of("curate", **options)
    wanted = _wanted(asked)
    sources = [texts] if isinstance(texts, (str, Path)) else list(texts)
    if not sources:
        raise UsageError("There is no text to curate. Name a file, a folder or a data set.")
    _check_out(Path(out), sources)
    _check_files(asked, avoid, gate)
    notes: list[Message] = []
    judges = None if asked.model is None else Judges(asked.model, asked.lighter, asked.device)
    tokenizer = None if judges is None else getattr(judges.original, "tokenizer", None)
    how: dict[str, Any] = {"chat": asked.chat, "tokenizer": tokenizer, "skip_bad": asked.skip_bad}
    fixed = [] if asked.keep is None else [asked.keep]
    streams = [
        Stream(one, asked.field, **how) if isinstance(one, (str, Path)) else list(one) for one in (*fixed, *sources)
    ]
    inputs = [_input(one, fixed=place < len(fixed)) for place, one in enumerate(streams)]
    for stream in streams:
        next(iter(stream), None)  # a wrong field is told now, and not when others have been read
    _check_disk(Path(out), sum(one.bytes for one in inputs))
    evaluation = _evaluation(avoid, gate)
    settings = _settings(asked, wanted)
    with workplace(Path(out)) as work:
        found = judge(inputs, evaluation, wanted, judges if wanted.band or asked.lighter else None, work, on_event)
        for stream in streams:
            notes += stream.notes if isinstance(stream, Stream) else ()
        for note in notes:
            on_event(note_event(note))
        manifest = write(found, settings, facts_of(found, evaluation), work, Path(out), on_event)
        found.store.close()
    seconds = round(time.monotonic() - started, 1)
    return {"out": str(out), **manifest, "seconds": seconds, "notes": list(notes)}


def _wanted(asked: Curate) -> Wanted:
    """What is asked for. Raises UsageError for values that are none, or that do not go together."""
    languages = parse_languages(asked.languages) if asked.languages is not None else []
    quota = parse_quota(asked.quota) if asked.quota is not None else {}
    if quota and languages and {*quota} != {*languages}:
        raise UsageError(
            "--quota and --languages name different languages ({quota}; {languages}). Name the same ones, or leave "
            "--languages out.",
            quota=", ".join(quota),
            languages=", ".join(languages),
        )
    if asked.min_length and asked.max_length and asked.min_length > asked.max_length:
        raise UsageError(
            "--min-length {least} is more than --max-length {most}: nothing would be left.",
            least=asked.min_length,
            most=asked.max_length,
        )
    band = parse_band(asked.perplexity) if asked.perplexity is not None else None
    if band and asked.model is None:
        raise UsageError("--perplexity needs the model that reads the text: give --model ORIGINAL.")
    if asked.lighter is not None and asked.model is None:
        raise UsageError("--lighter needs the model it was made from: give --model ORIGINAL.")
    if asked.lighter is None and (asked.hard is not None or asked.hard_weight is not None):
        raise UsageError(
            "--hard and --hard-weight are about where a lighter model differs: give --lighter FOLDER, or leave them "
            "out."
        )
    if asked.model is not None and band is None and asked.lighter is None and not asked.chat:
        raise UsageError("--model is read for --perplexity, --lighter or --chat. Give one of them, or leave it out.")
    return Wanted(
        languages=tuple(quota or languages),
        quota=quota,
        shortest=asked.min_length,
        longest=asked.max_length,
        band=band,
        hard=None if asked.lighter is None else parse_share(asked.hard or HARD, "--hard"),
        weight=asked.hard_weight if asked.hard_weight is not None else WEIGHT,
        redact=asked.redact,
        seed=asked.seed,
    )


def _settings(asked: Curate, wanted: Wanted) -> dict[str, Any]:
    """What the manifest says was asked for; of folders and files their names."""
    found = {name: getattr(asked, name) for name in type(asked).model_fields if name != "device"}
    for name in ("model", "lighter", "keep"):
        if found[name] is not None:
            found[name] = Path(found[name]).name if isinstance(found[name], (str, Path)) else "documents given"
    return found | {"hard": wanted.hard, "hard_weight": wanted.weight}


def _check_out(out: Path, sources: Sequence[Any]) -> None:
    """Raises UsageError or MachineError where `out` cannot be made, or is not free."""
    if out.is_file():
        raise UsageError("{out} is a file. Name a folder for the curated text.", out=out)
    for source in sources:
        folder = Path(source) if isinstance(source, (str, Path)) else None
        if folder is not None and folder.is_dir() and folder.resolve() in (out.resolve(), *out.resolve().parents):
            raise UsageError("{out} is inside {source}, which is read. Name another folder.", out=out, source=source)
    check_out(out, out)
    check_free(out)


def _check_files(asked: Curate, avoid: Sequence[Any], gate: Sequence[Any]) -> None:
    """Raises UsageError for a file that is not there, before a model is opened."""
    for source in (asked.keep, *avoid, *gate):
        if isinstance(source, (str, Path)):
            check_text(source)


def _input(source: Stream | list[str], fixed: bool) -> Input:
    if isinstance(source, Stream):
        return Input(Path(str(source.source)).name, source, source.bytes, fixed)
    name = "documents given"
    return Input(name, ((text, name) for text in source if text.strip()), sum(map(len, source)), fixed)


def _check_disk(out: Path, size: int) -> None:
    """Raises MachineError where there is no room for it."""
    there = next(place for place in (out, *out.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(there).free
    if free < _DISK * size:
        raise MachineError(
            "The disk of {out} has {free:.3g} GB free, and curating {size:.3g} GB of text takes {need:.3g} GB. Free "
            "some space, or name a folder on another disk.",
            out=out,
            free=free / 1e9,
            size=size / 1e9,
            need=_DISK * size / 1e9,
        )


def _evaluation(avoid: Sequence[Any], gate: Sequence[Any]) -> Evaluation:
    """All texts of evaluation. Raises UsageError where what gates and what reports share one."""
    every, apart = Evaluation(), (Evaluation(), Evaluation())
    own: list[tuple[str, Iterable[Any]]] = [
        ("whet's own held-out text", starter.held_out(0, _OWN)),
        ("whet's own questions (verify)", starter.skills("verify")),
        ("whet's own questions (report)", starter.skills("report")),
    ]
    for name, texts in own:
        every.add(name, wordings(list(texts)))
    for part, sources in zip(apart, (gate, avoid), strict=True):
        for source in sources:
            name = Path(source).name if isinstance(source, (str, Path)) else "documents given"
            texts = list(wordings(source))
            every.add(name, texts)
            part.add(name, texts)
    shared = apart[1].overlaps(apart[0])
    if shared:
        raise UsageError(
            "{count} texts of --gate are in those of --avoid too, so that what gates would have seen what reports. "
            "Take them out of one.",
            count=shared,
        )
    return every
