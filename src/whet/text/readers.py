"""Documents from files: plain text, JSON lines, parquet, or a dataset of the Hugging Face hub.

A document is what a window never leaves and what a split never cuts when there are enough of them, so where one
document ends matters. In plain text it ends at a line `<|endoftext|>`, at a form feed, or at two or more blank lines; a
file with none of these is one document. In the other formats each record is a document.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from whet.errors import MachineError, UsageError, did_you_mean
from whet.messages import Message
from whet.paths import TEXT_ON_HUB, no_text
from whet.strict import parse_json
from whet.text.chat import render_chat

SEPARATOR = re.compile(r"^<\|endoftext\|>[ \t]*$|\f|\n(?:[ \t]*\n){2,}", re.MULTILINE)
READ = (".txt", ".md", ".jsonl", ".ndjson", ".parquet")
JSON_LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv", ".json", ".xlsx", ".gz", ".zip", ".zst")


def read_documents(
    source: str | Path,
    field: str = "text",
    *,
    chat: bool = False,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> list[str]:
    """All documents of `source`, in order; those of only white space are left out.

    `source` is a path, read by its suffix (`.jsonl`, `.ndjson`, `.parquet`, anything else as plain UTF-8 text with or
    without a byte order mark), a folder, whose files of these kinds are read in the order of their names, or a hub
    dataset `owner/name[:config]`, of which the `train` split is read. `field` is the column that holds the text. With
    `chat` it holds a list of messages (`messages` unless another field than `text` is named) and is rendered with the
    chat template of `tokenizer`.

    Raises UsageError for a missing file, bytes that are not UTF-8, a record that does not parse, a field that is not
    there, a file with no text; MachineError when the package that reads the format is not installed.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in READ and p.is_file())
        if not files:
            raise UsageError(
                "{path} is a folder with no {kinds} file in it. Name a text file.", path=path, kinds=", ".join(READ)
            )
        return [d for file in files for d in read_documents(file, field, chat=chat, tokenizer=tokenizer)]
    if chat and field == "text":
        field = "messages"
    is_records = True
    records: Iterable[tuple[str, dict[str, Any]]]
    if path.is_file():
        if suffix in TABLES:
            raise UsageError(
                "{path}: whet reads plain text, .jsonl and .parquet, not {suffix}. Write one JSON object a line, "
                '{{"{field}": "..."}}, to a .jsonl file.',
                path=path,
                suffix=suffix,
                field=field,
            )
        if suffix in JSON_LINES:
            records = _json_lines(path)
        elif suffix == ".parquet":
            records = _parquet(path, field)
        else:
            records, is_records = (), False
    elif TEXT_ON_HUB.fullmatch(str(source)) and suffix not in (*READ, *TABLES):
        records = _hub(str(source), field)
    else:
        raise no_text(source)

    if is_records:
        documents = [_document(where, record, field, chat, tokenizer) for where, record in records]
    elif chat:
        raise UsageError(
            "{path}: conversations are read from .jsonl or .parquet, not from plain text. Drop chat.", path=path
        )
    else:
        documents = [part.strip("\n") for part in SEPARATOR.split(_utf8(path))]
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise UsageError(
            "{source}: there is no text in it. Give a file with text, or name another field.", source=source
        )
    return documents


def fingerprint(documents: Sequence[str]) -> str:
    """SHA-256 (hex) of the documents in their order; each goes in with its length, so boundaries count too."""
    digest = hashlib.sha256()
    for document in documents:
        data = document.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def _utf8(path: Path) -> str:
    """The file as text with `\\n` line ends, or a UsageError that says at which byte and line it is not UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MachineError(
            "{path}: cannot be read ({error}). Check its permissions.", path=path, error=error.strerror
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        encoding = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "CP949"
        raise UsageError(
            "{path}: not UTF-8 at byte {at} (line {line}: byte 0x{byte:02x}). If it is {encoding}, convert it: iconv "
            "-f {encoding} -t UTF-8 {name} > {made}",
            path=path,
            at=error.start,
            line=line,
            byte=data[error.start],
            encoding=encoding,
            name=path.name,
            made=f"{path.stem}.utf8{path.suffix}",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    # not str.splitlines: JSON allows a bare U+2028 inside a string
    for number, line in enumerate(_utf8(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except json.JSONDecodeError as error:
            raise UsageError(
                "{path}, line {line}: not JSON ({error} at column {column}). Each line holds one object.",
                path=path,
                line=number,
                error=error.msg,
                column=error.colno,
            ) from error
        if not isinstance(record, dict):
            raise UsageError(
                '{path}, line {line}: a JSON object was expected, found {kind}. Write each line as {{"text": "..."}}.',
                path=path,
                line=number,
                kind=type(record).__name__,
            )
        yield Message("{path}, line {line}", path=path, line=number), record


def _parquet(path: Path, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow.lib
        import pyarrow.parquet
    except ImportError as error:
        raise MachineError(
            '{path}: reading parquet needs pyarrow. Install it with: pip install "whet[parquet]"', path=path
        ) from error
    try:
        table = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise UsageError(
            "{path}: not a readable parquet file ({error}). Write or download it again.", path=path, error=error
        ) from error
    names = table.schema_arrow.names
    if field not in names:
        raise _missing_field(str(path), field, names)
    number = 0
    for batch in table.iter_batches(columns=[field]):
        for value in batch.column(0).to_pylist():
            number += 1
            yield Message("{path}, row {row}", path=path, row=number), {field: value}


def _hub(name: str, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import datasets
    except ImportError as error:
        raise MachineError(
            "{name}: there is no such file, and reading it as a dataset of the Hugging Face hub needs the package "
            'datasets. Check the path, or install it with: pip install "whet[hub]"',
            name=name,
        ) from error
    repository, _, config = name.partition(":")
    try:
        table = datasets.load_dataset(repository, config or None, split="train")
    except Exception as error:  # datasets raises its own and those of the network libraries under it
        raise MachineError(
            "{name}: the dataset could not be loaded from the hub ({error}). Check the name and the network, or give a "
            "file.",
            name=name,
            error=f"{type(error).__name__}: {error}",
        ) from error
    if field not in table.column_names:
        raise _missing_field(name, field, table.column_names)
    for number, value in enumerate(table[field], start=1):
        yield Message("{path}, row {row}", path=name, row=number), {field: value}


def _document(
    where: str, record: dict[str, Any], field: str, chat: bool, tokenizer: PreTrainedTokenizerBase | None
) -> str:
    if field not in record:
        raise _missing_field(where, field, list(record))
    value = record[field]
    if chat:
        return render_chat(value, tokenizer, where)
    if not isinstance(value, str):
        hint = Message(" To read conversations, ask for chat.") if isinstance(value, list) else ""
        raise UsageError(
            "{where}: field {field} holds {kind}, not text.{hint} Name a field of text, or mend the record.",
            where=where,
            field=field,
            kind=type(value).__name__,
            hint=hint,
        )
    return value


def _missing_field(where: str, field: str, names: Sequence[str]) -> UsageError:
    return UsageError(
        "{where}: there is no field {field}; the fields are: {known}.{near} Name the one that holds the text "
        "(--field).",
        where=where,
        field=field,
        known=", ".join(names) or Message("none"),
        near=did_you_mean(field, names),
    )
