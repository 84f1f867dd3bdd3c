"""Documents from files: plain text, JSON lines, a JSON array, CSV, TSV, parquet, or a data set of the Hugging Face hub.

A document is what a window never leaves and what a split never cuts when there are enough of them, so where one
document ends matters: `whet.text.plain` says it of plain text; in the other formats each record is a document
(`whet.text.fields` says what of it). A text of more than 16 MB is read at places that are spread over it
(`whet.text.places`).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as field_of
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from whet.errors import UsageError, did_you_mean
from whet.messages import Message
from whet.paths import TEXT_ON_HUB, no_text
from whet.text.chat import ChatTemplate, template_of
from whet.text.fields import TEXT, Form, form_of, text_of, told, turns_of
from whet.text.places import Amount, Span, Where, in_words, places
from whet.text.plain import plain_documents, streamed_documents
from whet.text.records import Record, hub, json_array, json_lines, parquet, parquet_size, table

PLAIN = (".txt", ".md")
JSON_LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv")
READ = (*PLAIN, *JSON_LINES, *TABLES, ".parquet")  # of a folder; a .json there is more often about the data
OTHER = (".xlsx", ".gz", ".zip", ".zst", ".bz2", ".xz")
_FIRST = 20  # records by which a source tells how it holds text


@dataclass(frozen=True)
class Found:
    """What was read: `documents` in their order, what a person should know of it, and for the lineage how much was
    read where that was not all (`{}` where it was)."""

    documents: list[str]
    notes: tuple[Message, ...] = ()
    read: dict[str, int] | None = None


def read_text(
    source: str | Path,
    field: str = TEXT,
    *,
    chat: bool = False,
    tokenizer: PreTrainedTokenizerBase | None = None,
    skip_bad: bool = False,
    amount: Amount | None = None,
    replies: bool = False,
    classes: str = "",
) -> Found:
    """All documents of `source`, in order, or some from all over it; those of only white space are left out.

    `source` is a path, read by its suffix (`.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv`, `.parquet`, anything else as
    plain UTF-8 text with or without a byte order mark), a folder, whose files of these kinds but `.json` are read in
    the order of their names, or a hub dataset `owner/name[:config]`, of which the `train` split is read. `field` is
    the field that holds the text; where none is named, the only one that does. Conversations are rendered with the
    chat template of `tokenizer`; with `chat` nothing else is read. skip_bad: records that cannot be read are left
    out, counted and told of. amount: how much is read, 16 MB unless given. replies: those documents that the chat
    template wrote are a `Conversation` each. classes: a field that says what kind of document each record is; documents
    are then `Classed`.

    Raises UsageError for a missing file, bytes that are not UTF-8, a record that does not parse, a field that is not
    there, a file with no text; MachineError when the package that reads the format is not installed.
    """
    amount = amount or Amount()
    path = Path(source)
    with ChatTemplate(tokenizer) as template:
        reader = _Reader(field, chat, skip_bad, template, replies=replies, classes=classes)
        if path.exists():
            found = _files(path, amount, reader)
        elif _is_on_hub(source):
            name = str(source)
            found = list(reader.documents(name, lambda _: hub(name, amount.most))), None
        else:
            raise no_text(source)
    documents = [document for document in found[0] if document.strip()]
    if not documents:
        raise reader.first or _no_text_in(source, found[1])
    return Found(documents, tuple(reader.told(str(source), found[1], amount)), found[1])


class Stream:
    """All documents of a source, one after another, with the file each is from: for what is too large for a list.

    Read as by `read_text`, whole; what was left out, and what a person should know, is in `notes` once all are read.
    `bytes`: of its files; 0 of a data set of the hub. Raises UsageError for a source without a document.
    """

    def __init__(
        self,
        source: str | Path,
        field: str = TEXT,
        *,
        chat: bool = False,
        tokenizer: PreTrainedTokenizerBase | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.source = source
        self.notes: tuple[Message, ...] = ()
        self._how = (field, chat, skip_bad, tokenizer)
        path = Path(source)
        self.files = _listed(path) if path.exists() else []
        self.bytes = sum(_size(file) for file in self.files)
        if not self.files and not _is_on_hub(source):
            raise no_text(source)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        field, chat, skip_bad, tokenizer = self._how
        empty = True
        with ChatTemplate(tokenizer) as template:
            reader = _Reader(field, chat, skip_bad, template)
            name = str(self.source)
            parts = [(file.name, _file(file, 1, None, reader)) for file in self.files]
            for file, documents in parts or [(name, reader.documents(name, lambda _: hub(name, 1 << 62)))]:
                for document in documents:
                    if document.strip():
                        empty = False
                        yield document, file
        if empty:
            raise reader.first or _no_text_in(self.source, None)
        self.notes = tuple(reader.told(str(self.source), None, Amount()))


def _is_on_hub(source: str | Path) -> bool:
    suffix = Path(source).suffix.lower()
    return bool(TEXT_ON_HUB.fullmatch(str(source))) and suffix not in (*READ, *OTHER, ".json")


def _no_text_in(source: str | Path, read: dict[str, int] | None) -> UsageError:
    if read is None:
        return UsageError(
            "{source}: there is no text in it. Give a file with text, or name another field.", source=source
        )
    return UsageError(
        "{source} has {size:,.0f} MB, and no text at {count} places that are spread over it. Give a file with text.",
        source=source,
        size=read["bytes"] / 1e6,
        count=read["most"] // read["piece"],
    )


def fingerprint(documents: Sequence[str]) -> str:
    """SHA-256 (hex) of the documents in their order; each goes in with its length, so boundaries count too."""
    digest = hashlib.sha256()
    for document in documents:
        data = document.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


class Conversation(str):
    """A conversation as the chat template writes it; replies: where those of the assistant are in it, start and end."""

    replies: tuple[tuple[int, int], ...] = ()


class Classed(str):
    """A document, and of which class it is, as its record says; '' where it does not."""

    of: str

    def __new__(cls, text: str, of: Any) -> Classed:
        made = super().__new__(cls, text)
        made.of = "" if of is None else str(of).strip()
        return made


def written_out(template: ChatTemplate, turns: Any, place: Where, replies: bool = False) -> str:
    """A conversation as its template writes it, with where its replies are if they are wanted: each from where the
    template begins a reply to where the next turn begins. Raises UsageError where what comes before a reply depends
    on it."""
    text = template.render(turns, place)
    if not replies:
        return text
    found = []
    for number, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        before = template.render(turns[:number], place, reply_next=True) if number else ""
        after = template.render(turns[: number + 1], place)
        if not (after.startswith(before) and text.startswith(after)):
            raise UsageError(
                "{where}: the chat template writes turns otherwise once a reply follows, so what is prompt and what is "
                "reply cannot be told apart. Train on all of it with --no-mask.",
                where=in_words(place),
            )
        found.append((len(before), len(after)))
    told = Conversation(text)
    told.replies = tuple(found)
    return told


@dataclass
class _Reader:
    """How records become documents, and what happened on the way. replies: conversations know where these are.
    classes: documents know what this field says."""

    field: str
    chat: bool
    skip_bad: bool
    template: ChatTemplate
    replies: bool = False
    classes: str = ""
    notes: list[Message] = field_of(default_factory=list)
    skipped: int = 0
    first: UsageError | None = None

    def documents(self, source: str, every: Callable[[Sequence[str] | None], Iterator[Record]]) -> Iterator[str]:
        """Texts of the records of a source. every: its records from the first, with these fields or with all."""
        form, written = self._form(source, list(itertools.islice(every(None), _FIRST)))
        for place, record in every((*form.fields, self.classes) if self.classes else form.fields):
            try:
                if not isinstance(record, dict):
                    raise record()
                if written:
                    document = written_out(self.template, turns_of(record, form, place), place, self.replies)
                else:
                    document = text_of(record, form, place)
                yield Classed(document, record.get(self.classes)) if self.classes else document
            except UsageError as error:
                if not self.skip_bad:
                    raise
                self.skipped, self.first = self.skipped + 1, self.first or error

    def _form(self, source: str, first: Sequence[Record]) -> tuple[Form, bool]:
        """How the records hold text, and whether the chat template writes it."""
        good = [(place, record) for place, record in first if isinstance(record, dict)]
        if not good:
            return Form("text", (self.field,)), False
        place = good[0][0]
        if self.classes and not any(self.classes in record for _, record in good):
            names = list(good[0][1])
            raise UsageError(
                "{where}: there is no field {field} to tell classes of documents by; the fields are: {known}.{near}",
                where=place.told(),
                field=self.classes,
                known=", ".join(names),
                near=did_you_mean(self.classes, names),
            )
        form = form_of([record for _, record in good], self.field, self.chat, place)
        has_template = self.template.tokenizer is not None and template_of(self.template.tokenizer) is not None
        if form.kind == "turns" and not self.chat and not has_template:
            raise UsageError(
                "{where}: field {field} holds conversations. To read conversations, ask for chat (--chat), with a "
                "model that has a chat template; or name a field of text (--field).",
                where=place.told(),
                field=form.fields[0],
            )
        written = form.asks and (self.chat or has_template)
        if (note := told(form, source, written)) is not None and not self.chat and note not in self.notes:
            self.notes.append(note)
        return form, written

    def told(self, source: str, read: dict[str, int] | None, amount: Amount) -> Iterator[Message]:
        """What a person should know of what was read."""
        if read is not None:
            yield Message(
                "{source} has {size:,.0f} MB: {most:,.0f} MB are read, at places that are spread over all of it",
                source=source,
                size=read["bytes"] / 1e6,
                most=amount.most / 1e6,
            )
        yield from self.notes
        if self.skipped:
            yield Message(
                "{source}: {count} record(s) could not be read and were left out; the first: {error}",
                source=source,
                count=self.skipped,
                error=self.first.message if self.first else "",
            )


def _files(path: Path, amount: Amount, reader: _Reader) -> tuple[list[str], dict[str, int] | None]:
    """Documents of a file or of the files of a folder, and how much of them was read where that was not all."""
    files = _listed(path)
    sizes = [_size(file) for file in files]
    found = places(sizes, amount)
    documents: list[str] = []
    for number, file in enumerate(files):
        spans = None if found is None else found[number]
        if spans is None or spans:
            documents += _file(file, sizes[number], spans, reader)
    return documents, None if found is None else {"bytes": sum(sizes), "most": amount.most, "piece": amount.piece}


def _listed(path: Path) -> list[Path]:
    """A file, or the files of a folder; beside files of records README.md is about them."""
    if not path.is_dir():
        return [path]
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in READ and p.is_file())
    if not files:
        raise UsageError(
            "{path} is a folder with no {kinds} file in it. Name a text file.", path=path, kinds=", ".join(READ)
        )
    if any(file.suffix.lower() not in PLAIN for file in files):
        files = [file for file in files if file.name != "README.md"]
    return files


def _size(file: Path) -> int:
    return parquet_size(file) if file.suffix.lower() == ".parquet" else file.stat().st_size


def _file(path: Path, size: int, spans: list[Span] | None, reader: _Reader) -> Iterator[str]:
    """Documents of one file. spans: where it is read, None: whole."""
    suffix = path.suffix.lower()
    if suffix in OTHER:
        raise UsageError(
            "{path}: whet reads plain text, .jsonl, .json, .csv, .tsv and .parquet, not {suffix}. Unpack it, or write "
            'one JSON object a line, {{"text": "..."}}, to a .jsonl file.',
            path=path,
            suffix=suffix,
        )
    share = 1.0 if spans is None else sum(span.end - span.start for span in spans) / size
    if suffix in JSON_LINES:
        return reader.documents(str(path), lambda _: json_lines(path, spans))
    if suffix == ".json":
        return reader.documents(str(path), lambda _: json_array(path, share))
    if suffix in TABLES:
        return reader.documents(str(path), lambda _: table(path, share))
    if suffix == ".parquet":
        return reader.documents(str(path), lambda columns: parquet(path, spans, columns))
    if reader.classes:
        raise UsageError(
            "{path}: plain text has no field {field} to tell classes of documents by. Give a file of records, such as "
            ".jsonl.",
            path=path,
            field=reader.classes,
        )
    if reader.chat:
        raise UsageError(
            "{path}: conversations are read from .jsonl, .json, .csv, .tsv or .parquet, not from plain text. Drop "
            "chat.",
            path=path,
        )
    return streamed_documents(path) if spans is None else plain_documents(path, spans)
