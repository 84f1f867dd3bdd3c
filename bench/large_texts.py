"""What large texts take: seconds and peak memory of reading one and cutting windows from it, file by file.

    python bench/large_texts.py MODEL [--folder /tmp/large] [--only jsonl]

Files are made first, in `--folder`, from seeded words: 100 MB in one line, of blank lines, of lines, CSV and parquet,
1 GB of JSON lines, 5 GB of plain text, and a folder of ten thousand files. Each is read in a process of its own, whose
peak is what `getrusage` says; the row `nothing` is the same process without reading, libraries alone.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

MB = 1 << 20


def words(seed: int, size: int) -> str:
    """About so many letters of words from a vocabulary of a thousand, in sentences."""
    chance = random.Random(seed)
    known = ["".join(chance.choices("abcdefghijklmnoprstuwy", k=chance.randint(2, 9))) for _ in range(1000)]
    found = []
    while size > 0:
        sentence = " ".join(chance.choices(known, k=chance.randint(5, 20))).capitalize() + "."
        found.append(sentence)
        size -= len(sentence) + 1
    return " ".join(found)


def repeated(path: Path, size: int, piece: Callable[[int], bytes]) -> None:
    """A file of so many bytes: eight pieces made with different seeds, again and again."""
    pieces = [piece(seed) for seed in range(8)]
    with path.open("wb") as file:
        number = 0
        while size > 0:
            file.write(pieces[number % len(pieces)][:size] if size < MB else pieces[number % len(pieces)])
            size -= len(pieces[number % len(pieces)])
            number += 1


def lines(seed: int) -> bytes:
    """A megabyte of lines, a sentence each, no blank ones."""
    return words(seed, MB).replace(". ", ".\n").encode() + b"\n"


def stories(seed: int) -> bytes:
    """A megabyte of documents with a separator between."""
    parts = words(seed, MB).split(". ")
    found = [". ".join(parts[i : i + 30]) for i in range(0, len(parts), 30)]
    return "\n<|endoftext|>\n".join(found).encode() + b"\n<|endoftext|>\n"


def records(seed: int) -> bytes:
    """A megabyte of JSON lines."""
    parts = words(seed, MB).split(". ")
    return b"".join(
        json.dumps({"id": i, "text": ". ".join(parts[i : i + 10])}).encode() + b"\n" for i in range(0, len(parts), 10)
    )


def rows(seed: int) -> bytes:
    """A megabyte of rows of CSV."""
    return b"".join(f'{seed},"{one}, ""so"""\n'.encode() for one in words(seed, MB).split(". "))


def table(path: Path) -> None:
    """A parquet file of about 100 MB."""
    import pyarrow
    from pyarrow import parquet

    texts = [one for seed in range(60) for one in words(seed, 2 * MB).split(". ")]
    parquet.write_table(pyarrow.table({"id": list(range(len(texts))), "text": texts}), path, row_group_size=100_000)


def many(path: Path) -> None:
    """Ten thousand files of 10 KB."""
    path.mkdir()
    for number in range(10_000):
        (path / f"{number:05d}.txt").write_text(words(number % 100, 10_000))


FILES: dict[str, Callable[[Path], None]] = {
    "one line, 10 MB.txt": lambda path: repeated(path, 10 * MB, lambda seed: words(seed, MB).encode() + b" "),
    "one line, 100 MB.txt": lambda path: repeated(path, 100 * MB, lambda seed: words(seed, MB).encode() + b" "),
    "blank lines, 100 MB.txt": lambda path: repeated(path, 100 * MB, lambda seed: b"\n" * MB),
    "blank lines and words, 15 MB.txt": lambda path: repeated(
        path, 15 * MB, lambda seed: words(seed, 10_000).encode() + b"\n" * (MB - 10_000)
    ),
    "lines, 100 MB.txt": lambda path: repeated(path, 100 * MB, lines),
    "csv, 100 MB.csv": lambda path: repeated(path, 100 * MB, rows),
    "parquet.parquet": table,
    "jsonl, 1 GB.jsonl": lambda path: repeated(path, 1024 * MB, records),
    "stories, 5 GB.txt": lambda path: repeated(path, 5 * 1024 * MB, stories),
    "ten thousand files": many,
}


def measured(model: str, path: str) -> None:
    """In a process of its own: read, split, and cut as `compress` does without options."""
    from whet.errors import UsageError
    from whet.text.calibration import read_windows

    started, windows = time.monotonic(), 0
    said = ""
    if path:
        from whet.checkpoint import Checkpoint

        try:
            found = read_windows(
                Checkpoint(model), path, None, field="text", chat=False, samples=128, window=2048, seed=0
            )
            windows = len(found.solve)
        except UsageError as error:
            said = str(error)
    sys.stdout.write(
        json.dumps(
            {
                "seconds": time.monotonic() - started,
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "windows": windows,
                "said": said,
            }
        )
    )


def table_of(model: str, folder: Path, only: str) -> Iterator[str]:
    """The rows of the table, one after another."""
    yield "| text | MB | seconds | peak, MB | windows |"
    yield "|---|---:|---:|---:|---:|"
    for name, make in {"nothing": None, **FILES}.items():
        if only not in name:
            continue
        path = folder / name
        if make is not None and not path.exists():
            make(path)
        size = 0 if make is None else sum(f.stat().st_size for f in ([path] if path.is_file() else path.iterdir()))
        command = [sys.executable, __file__, model, "--measure", "" if make is None else str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            yield f"| {path.stem} | {size / 1e6:,.0f} | failed: {done.returncode} | | |"
            continue
        one = json.loads(done.stdout)
        yield (
            f"| {path.stem} | {size / 1e6:,.0f} | {one['seconds']:.1f} | {one['peak'] / 1e6:,.0f} "
            f"| {one['said'] or one['windows']} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/large-texts"))
    parser.add_argument("--only", default="")
    parser.add_argument("--measure")
    args = parser.parse_args()
    if args.measure is not None:
        measured(args.model, args.measure)
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    for row in table_of(args.model, args.folder, args.only):
        sys.stdout.write(row + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
