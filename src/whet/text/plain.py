"""Documents of plain text.

A document ends at a line `<|endoftext|>`, at a form feed, or at two or more blank lines; a file with none of these is
one document. Where a file is read at places, a document begins after the first such end in the place and is read to its
own end or to the end of the place; a place without any gives a piece of a longer document.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from whet.errors import MachineError, UsageError
from whet.text.places import Span

# Possessive: a hundred million blank lines are one end, and nothing of them is kept to go back to.
SEPARATOR = re.compile(r"^<\|endoftext\|>[ \t]*$|\f|\n(?:[ \t]*+\n){2,}+", re.MULTILINE)
_NEAR = 0.25  # share of a piece in which it may begin or end at a line end, or else between words


def plain_documents(path: Path, spans: Sequence[Span] | None) -> Iterator[str]:
    """Documents of a file, or of its `spans`, blank ones too."""
    if spans is None:
        yield from (part.strip("\n") for part in SEPARATOR.split(utf8(path)))
        return
    try:
        with path.open("rb") as file:
            for span in spans:
                file.seek(span.start)
                data = file.read(span.until - span.start)
                last = not file.read(1)
                yield from _documents(_decoded(path, data, span.start, last), span, last)
    except OSError as error:
        raise unreadable(path, error) from error


def streamed_documents(path: Path, at_once: int = 1 << 20) -> Iterator[str]:
    """Documents of a file as `plain_documents` gives them, without holding more of it than one of them."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    text, held, begin, looked = "", "", 0, 0  # the document that is not over begins at `begin` of the text
    try:
        with path.open("rb") as file:
            while data := file.read(at_once):
                more = held + decoder.decode(data)
                held = more[len(more.rstrip("\r")) :]  # a line end may go on
                text += more[: len(more) - len(held)].replace("\r\n", "\n").replace("\r", "\n")
                solid = len(text.rstrip())  # what is blank up to the end of what was read may go on as well
                for found in SEPARATOR.finditer(text, looked):
                    if found.end() >= solid:
                        break
                    yield text[begin : found.start()].strip("\n")
                    begin = found.end()
                cut = max(0, begin - 1)  # whether a line begins is told by what stands before it
                looked = max(begin, text.rfind("\n", 0, solid)) - cut
                text, begin = text[cut:], begin - cut
            text += (held + decoder.decode(b"", final=True)).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise not_utf8(path) from error
    except OSError as error:
        raise unreadable(path, error) from error
    for found in SEPARATOR.finditer(text, begin):
        yield text[begin : found.start()].strip("\n")
        begin = found.end()
    yield text[begin:].strip("\n")


def utf8(path: Path) -> str:
    """The file as text with `\\n` line ends, or a UsageError that says at which byte and line it is not UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(path) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def not_utf8(path: Path) -> UsageError:
    """The error of a file that is not UTF-8; finds the byte and line that are not."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    at, line, byte, begin = 0, 1, 0, b""
    with path.open("rb") as file:
        while True:
            data = file.read(1 << 20)
            begin = begin or data[:2]
            held = len(decoder.getstate()[0])
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                whole: bytes = error.object
                line += whole.count(b"\n", 0, error.start)
                at, byte = at - held + error.start, whole[error.start]
                break
            if not data:
                break
            at, line = at + len(data), line + text.count("\n")
    encoding = "UTF-16" if begin in (b"\xff\xfe", b"\xfe\xff") else "CP949"
    return UsageError(
        "{path}: not UTF-8 at byte {at} (line {line}: byte 0x{byte:02x}). If it is {encoding}, convert it: iconv "
        "-f {encoding} -t UTF-8 {name} > {made}",
        path=path,
        at=at,
        line=line,
        byte=byte,
        encoding=encoding,
        name=path.name,
        made=f"{path.stem}.utf8{path.suffix}",
    )


def unreadable(path: Path, error: OSError) -> MachineError:
    """The error of a file that cannot be read."""
    return MachineError("{path}: cannot be read ({error}). Check its permissions.", path=path, error=error.strerror)


def _decoded(path: Path, data: bytes, start: int, last: bool) -> str:
    """Bytes from the middle of a file as text with `\\n` line ends, without the ends of letters cut in two."""
    if start:
        cut = next((i for i, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)  # 10xxxxxx goes on with a letter
        data = data[cut:]
    elif data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data, final=last)
    except UnicodeDecodeError as error:
        raise not_utf8(path) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _documents(text: str, span: Span, last: bool) -> Iterator[str]:
    """Documents that begin in the first part of a place, up to `span.end`; or the piece of a longer one that it is."""
    own = len(text) * (span.end - span.start) // max(1, span.until - span.start)  # letters that are in that part
    begin = 0
    if span.start:
        first = SEPARATOR.search(text, 0, own)
        if first is None:
            begin = _after(text, 0, int(_NEAR * own))
            yield text[begin : own if own == len(text) and last else _before(text, own)]
            return
        begin = first.end()
    for found in SEPARATOR.finditer(text, begin):
        yield text[begin : found.start()].strip("\n")
        begin = found.end()
        if begin >= own:
            return
    yield text[begin : len(text) if last else _before(text, len(text))].strip("\n")


def _after(text: str, low: int, high: int) -> int:
    """Where the first line in `low` … `high` begins, or else the first word, or else `low`."""
    for pattern in (r"\n+", r"\s+"):
        if found := re.compile(pattern).search(text, low, high):
            return found.end()
    return low


def _before(text: str, end: int) -> int:
    """Where the last line before `end` ends, or else the last word, or else `end`."""
    low = int((1 - _NEAR) * end)
    for mark in ("\n", " "):
        if (place := text.rfind(mark, low, end)) >= 0:
            return place + 1
    return end
