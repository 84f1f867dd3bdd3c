"""Records of files that hold them: JSON lines, a JSON array, CSV and TSV, parquet, data sets of the hub.

Each source gives records, dicts, with where they stand, one after another; what is wrong with one is given in its place
as the error to raise, so that a reader may go on to the next. Nothing is read whole that need not be.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from whet.errors import MachineError, UsageError
from whet.messages import Message
from whet.strict import parse_json
from whet.text.places import Line, Row, Span
from whet.text.plain import not_utf8, unreadable

# What is wrong with a record: the error is made when it is raised, since finding its line can take a while.
Bad = Callable[[], UsageError]
Record = tuple[Line | Row, "dict[str, Any] | Bad"]
LONGEST = 64 << 20  # bytes of one record
_AT_ONCE = 1 << 16  # letters of a JSON array
_ROWS = 1024  # of a parquet file or a data set
_DECODER = json.JSONDecoder()
_BETWEEN = re.compile(r"[\s,]*")


def json_lines(path: Path, spans: Sequence[Span] | None) -> Iterator[Record]:
    """Records of a file with one JSON object a line, or of those lines that begin in its `spans`."""
    try:
        with path.open("rb") as file:
            if spans is None:
                number = 0
                while line := file.readline(LONGEST + 1):
                    number += 1
                    yield from _line(Line(path, number), line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
                return
            read = 0
            for number, span in enumerate(spans):
                if read > number * (span.end - span.start) or not _at_line(file, span):
                    continue  # records were longer than their places: others are left out for them
                first = file.tell()
                while ((at := file.tell()) < span.end or at == first) and (line := file.readline(LONGEST + 1)):
                    yield from _line(Line(path, None, at), line.removeprefix(b"\xef\xbb\xbf") if at == 0 else line)
                    read += len(line)
    except OSError as error:
        raise unreadable(path, error) from error


def json_array(path: Path, share: float) -> Iterator[Record]:
    """That share of the records of a file that is one JSON array of objects, spread over it."""
    taken = _Share(share)
    with _opened(path) as file:
        for number, text in enumerate(_elements(path, file), start=1):
            if taken.next():
                place = Row(path, number)
                try:
                    yield place, _checked(place, parse_json(text))
                except json.JSONDecodeError as error:
                    yield place, partial(_not_an_object, place, error)


def _elements(path: Path, file: TextIO) -> Iterator[str]:
    """The elements of a JSON array as they are written."""
    text, at = file.read(_AT_ONCE), 0
    if not text.lstrip().startswith("["):
        raise UsageError(
            "{path}: a list of objects was expected. Write [{{...}}, ...], or one object a line to a .jsonl file.",
            path=path,
        )
    at, number = text.index("[") + 1, 1
    while True:
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        size = _AT_ONCE
        while at == len(text) or text[at] != "]":
            try:
                end = _DECODER.raw_decode(text, at)[1]
            except json.JSONDecodeError as error:
                failed: Exception = error
            except RecursionError as error:
                raise _not_an_object(Row(path, number), error) from error
            else:
                if end < len(text) or text[at] in '{["':  # else a number might go on
                    yield text[at:end]
                    at, number = end, number + 1
                    break
                failed = json.JSONDecodeError(Message("the list does not end"), "", 0)
            more = file.read(size) if len(text) - at < LONGEST else ""
            if not more:
                raise _not_an_object(Row(path, number), failed) from failed
            text, at, size = text[at:] + more, 0, 2 * size
            at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        else:
            return


def table(path: Path, share: float) -> Iterator[Record]:
    """That share of the rows of a .csv or .tsv file, spread over it, by the names in its first line.

    A .csv has commas, or semicolons where its first line has no comma, and quotes around what holds them. In a .tsv
    a tab separates and nothing else; a whole field in quotes is taken out of them.
    """
    tabs = path.suffix.lower() == ".tsv"
    before = csv.field_size_limit(LONGEST)
    try:
        with _opened(path, newline="") as file:
            head = file.readline(LONGEST)
            file.seek(0)
            comma = "\t" if tabs else ";" if ";" in head and "," not in head else ","
            rows = csv.reader(file, delimiter=comma, quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL)
            names = [name.strip() for name in next(rows, [])]
            taken = _Share(share)
            while True:
                place = Line(path, rows.line_num + 1)
                try:
                    row = next(rows, None)
                except csv.Error as error:
                    yield place, partial(_no_row, place, error)
                    continue
                if row is None:
                    return
                if row and taken.next():
                    yield place, _row(place, names, [_unquoted(one) for one in row] if tabs else row)
    finally:
        csv.field_size_limit(before)


def parquet(path: Path, spans: Sequence[Span] | None, columns: Sequence[str] | None) -> Iterator[Record]:
    """Rows of a parquet file, these columns of them; where it is read at places, those at the same shares of its rows.

    Places are in bytes of `parquet_size`.
    """
    with _parquet(path) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        rows, size = sum(groups), parquet_size(path) if spans else 1
        wanted = [(0, rows)]
        if spans is not None:
            wanted = [(one.start * rows // size, -(-one.end * rows // size)) for one in spans]
        first = 0
        for group, count in enumerate(groups):
            if any(a < first + count and b > first for a, b in wanted):
                yield from _rows(path, file.iter_batches(_ROWS, row_groups=[group], columns=columns), first, wanted)
            first += count


def parquet_size(path: Path) -> int:
    """Bytes of a parquet file, as they are without compression."""
    with _parquet(path) as file:
        return max(
            path.stat().st_size,
            sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)),
        )


def _rows(path: Path, batches: Iterable[Any], first: int, wanted: Sequence[tuple[int, int]]) -> Iterator[Record]:
    for batch in batches:
        last = first + len(batch)
        some = sorted({i for a, b in wanted if a < last and b > first for i in range(max(a, first), min(b, last))})
        for i, row in zip(some, batch.take([i - first for i in some]).to_pylist() if some else (), strict=True):
            yield Row(path, i + 1), row
        first = last


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    try:
        import pyarrow.lib
        import pyarrow.parquet
    except ImportError as error:
        raise MachineError(
            '{path}: reading parquet needs pyarrow. Install it with: pip install "whet[parquet]"', path=path
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20) as file:
            yield file
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise UsageError(
            "{path}: not a readable parquet file ({error}). Write or download it again.", path=path, error=error
        ) from error


def hub(name: str, most: int) -> Iterator[Record]:
    """Rows of the train split of a data set of the hub; those that hold about `most` bytes, spread over it."""
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
        found = datasets.load_dataset(repository, config or None, split="train")
    except Exception as error:  # datasets raises its own and those of the network libraries under it
        raise MachineError(
            "{name}: the dataset could not be loaded from the hub ({error}). Check the name and the network, or give a "
            "file.",
            name=name,
            error=f"{type(error).__name__}: {error}",
        ) from error
    taken = _Share(min(1.0, most / max(1, found.info.dataset_size or 1)))
    for first in range(0, len(found), _ROWS):
        rows = [i for i in range(first, min(first + _ROWS, len(found))) if taken.next()]
        columns = found[rows] if rows else {}
        for place, i in enumerate(rows):
            yield Row(name, i + 1), {column: values[place] for column, values in columns.items()}


class _Share:
    """Which of records that come one after another are among a share of them, evenly."""

    def __init__(self, share: float) -> None:
        self.share, self.sum = share, 0.0

    def next(self) -> bool:
        self.sum += self.share
        if self.sum < 1 - 1e-9:
            return False
        self.sum -= 1
        return True


def _at_line(file: BinaryIO, span: Span) -> bool:
    """Go to the first line that begins in a place, or after it and before the next one; False where none does."""
    file.seek(max(0, span.start - 1))
    if span.start == 0:
        return True
    while (left := span.after - file.tell()) > 0 and (line := file.readline(min(left, 1 << 20))):
        if line.endswith(b"\n"):
            return file.tell() < span.after
    return False


def _line(place: Line, line: bytes) -> Iterable[Record]:
    if len(line) > LONGEST:
        # What follows would be read as other lines: the file is none of records.
        raise UsageError(
            "{where}: a record of more than {most} MB. Write each record on a line of its own.",
            where=place.told(),
            most=LONGEST >> 20,
        )
    if not line.strip():
        return ()
    try:
        # JSON allows a bare U+2028 inside a string, which str.splitlines would cut at
        text = line.decode()
    except UnicodeDecodeError:
        return [(place, partial(not_utf8, place.path))]
    try:
        return [(place, _checked(place, parse_json(text)))]
    except json.JSONDecodeError as error:
        return [(place, partial(_not_json, place, error))]


def _not_json(place: Line, error: json.JSONDecodeError) -> UsageError:
    return UsageError(
        "{path}, line {line}: not JSON ({error} at column {column}). Each line holds one object.",
        path=place.path,
        line=place.told().values["line"],
        error=error.msg,
        column=error.colno,
    )


def _not_an_object(place: Row, error: Exception) -> UsageError:
    return UsageError(
        "{path}: record {number} is not JSON ({error}). Write [{{...}}, ...], or one object a line to a .jsonl file.",
        path=place.path,
        number=place.row,
        error=error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__,
    )


def _checked(place: Line | Row, value: Any) -> dict[str, Any] | Bad:
    """The record, if it is one."""
    return value if isinstance(value, dict) else partial(_no_record, place, value)


def _no_record(place: Line | Row, value: Any) -> UsageError:
    return UsageError(
        '{where}: a JSON object was expected, found {kind}. Write each record as {{"text": "..."}}.',
        where=place.told(),
        kind=type(value).__name__,
    )


def _no_row(place: Line, error: csv.Error) -> UsageError:
    return UsageError(
        "{where}: not a row of a table ({error}). Mend the quotes around its fields.", where=place.told(), error=error
    )


def _row(place: Line, names: Sequence[str], row: Sequence[str]) -> dict[str, Any] | Bad:
    return dict(zip(names, row, strict=True)) if len(row) == len(names) else partial(_ragged, place, names, row)


def _ragged(place: Line, names: Sequence[str], row: Sequence[str]) -> UsageError:
    return UsageError(
        "{where}: {count} fields, and the first line names {names}. Put quotes around fields that hold separators.",
        where=place.told(),
        count=len(row),
        names=len(names),
    )


def _unquoted(field: str) -> str:
    quoted = len(field) > 1 and field[0] == field[-1] == '"' and '"' not in field[1:-1].replace('""', "")
    return field[1:-1].replace('""', '"') if quoted else field


class _opened:
    """A text file in UTF-8, with or without a byte order mark; errors of reading it as whet's."""

    def __init__(self, path: Path, newline: str | None = None) -> None:
        self.path, self.newline = path, newline

    def __enter__(self) -> Any:
        try:
            self.file = self.path.open(encoding="utf-8-sig", newline=self.newline)
        except OSError as error:
            raise unreadable(self.path, error) from error
        return self.file

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.file.close()
        if isinstance(error, UnicodeDecodeError):
            raise not_utf8(self.path) from error
        if isinstance(error, OSError):
            raise unreadable(self.path, error) from error
