"""Shows that a change of whet's source did not change a byte of what whet writes.

    python bench/same_bytes.py --write bench-out/before.json      # with the source as it was
    python bench/same_bytes.py --against bench-out/before.json    # with the source as it is now

The runs (`same_bytes_runs.py`) cover every scheme, solver, transform and target on tiny random models; a few are of the
embedded model. Each prints its name and a SHA-256 of the weight files and config.json it wrote, names and contents.
`--against` lists runs whose bytes differ, runs that failed, and runs that only the file has, and exits with 1 if there
are any. A run called `resume/…` is made twice, undisturbed and stopped twice on the way, and fails unless both wrote
the same bytes. Runs that wrote the same bytes as each other are listed too: training that was not kept shows nothing.

Of whet only `compress`, `resume`, `plan`, `export` and `starter.path` are used, so PYTHONPATH=OTHER/src runs another
version. Hashes hold for one processor and one version of torch and transformers: do not commit the file, but write it
anew from the commit to compare with. Takes about five minutes of one core.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

import whet
from same_bytes_runs import STARTER, Run, runs
from tiny_models import make
from whet import starter

LONGEST = 400  # characters of why a run failed
WEIGHTS = (".safetensors", ".gguf")
STOPS = 2


class Stopped(Exception):
    """Raised in the middle of a run, to stop it."""


class Broken(Exception):
    """A run did not do what it is to show."""


def hash_of(run: Run, model: Path, folder: Path) -> str:
    """The hash of what `run` writes into `folder`, which is made. Raises Broken where stops change it."""
    folder.mkdir()
    out = folder / "out"
    if run.to is not None:
        out.mkdir()
        whet.export(model, to=run.to, out=out / f"model.{run.to}")
        return digest(out)
    options = {**run.options, "device": "cpu"}
    if run.given is not None:
        options |= run.given(model, folder)
    events: list[dict[str, Any]] = []
    whet.compress(model, out, **options, on_event=events.append)
    found = digest(out)
    if run.stopped:
        progress = sum(map(kept, events))
        compress_with_stops(model, folder / "stopped", options, max(1, progress // (STOPS + 1)))
        if digest(folder / "stopped") != found:
            raise Broken("stopped and resumed, it wrote other bytes than undisturbed")
    return found


def compress_with_stops(model: Path, out: Path, options: dict[str, Any], after: int) -> None:
    """Compress, stopping each call after so many `kept` events; go on by the same call, and last by `resume`."""
    for _ in range(STOPS):
        left = after

        def stop(event: dict[str, Any]) -> None:
            nonlocal left
            left -= kept(event)
            if left == 0:
                raise Stopped

        try:
            whet.compress(model, out, **options, on_event=stop)
        except Stopped:
            continue
        raise Broken(f"it was over before {after} progress events, so it was not stopped")
    whet.resume(out)


def kept(event: dict[str, Any]) -> bool:
    """Whether it tells of progress that a stopped run keeps: every call reads the original and writes its text anew."""
    return event["event"] == "progress" and event["stage"] not in ("read", "write")


def digest(folder: Path) -> str:
    """SHA-256 of the names and contents of all weight files and config.json below `folder`, in order of names."""
    files = [p for p in folder.rglob("*") if p.suffix in WEIGHTS or p.name == "config.json"]
    if not any(file.suffix in WEIGHTS for file in files):
        raise Broken("no weights were written")
    found = hashlib.sha256()
    for name, file in sorted((file.relative_to(folder).as_posix(), file) for file in files):
        found.update(f"{name}\0{file.stat().st_size}\0".encode())
        found.update(file.read_bytes())
    return found.hexdigest()


def make_all(chosen: list[Run]) -> tuple[dict[str, str], dict[str, str]]:
    """The hashes of runs by name, and of those that failed why; each is printed as it is known."""
    hashes: dict[str, str] = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as temporary:
        root = Path(temporary)

        @functools.cache
        def model(name: str) -> Path:
            return starter.path() if name == STARTER else make(name, root / "models" / name)

        for run in chosen:
            try:
                hashes[run.name] = hash_of(run, model(run.model), root / "run")
                print(run.name, hashes[run.name], flush=True)
            except Exception as error:  # one of hundreds: the others are still worth their time
                failed[run.name] = f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST]}"
                print(run.name, "failed", flush=True)
            shutil.rmtree(root / "run", ignore_errors=True)
    return hashes, failed


def alike(hashes: dict[str, str]) -> list[list[str]]:
    """Names of runs that wrote the same bytes as others, group by group."""
    names = defaultdict(list)
    for name, found in hashes.items():
        names[found].append(name)
    return [group for group in names.values() if len(group) > 1]


def read(file: Path, only: str) -> dict[str, str]:
    """The hashes in `file` of runs with the pattern `only` in their names."""
    return {name: found for name, found in json.loads(file.read_text("utf-8")).items() if re.search(only, name)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, metavar="FILE.json", help="run, and keep the hashes in this file")
    action.add_argument("--against", type=Path, metavar="FILE.json", help="run, and compare with the hashes kept there")
    parser.add_argument("--only", default="", metavar="PATTERN", help="runs that this regular expression is found in")
    args = parser.parse_args(arguments)
    chosen = [run for run in runs() if re.search(args.only, run.name)]
    before = read(args.against, args.only) if args.against else {}
    if not chosen or (args.against and not before):
        parser.error(f"{args.only!r} is in no run's name{' in that file' if chosen else ''}, so nothing can be shown")
    torch.set_num_threads(1)
    print(f"whet {whet.__version__} in {Path(whet.__file__).parent}, torch {torch.__version__}", flush=True)
    started, processor = time.perf_counter(), time.process_time()
    hashes, failed = make_all(chosen)
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    print(f"{len(chosen)} runs in {seconds:.0f} s, {processor:.0f} s of them the processor's")
    for group in alike(hashes):
        print(f"same bytes as each other: {', '.join(group)}")
    wrong = [f"failed: {name}: {why}" for name, why in failed.items()]
    if args.write:
        args.write.parent.mkdir(parents=True, exist_ok=True)
        args.write.write_text(json.dumps(hashes, indent=1, ensure_ascii=False) + "\n", "utf-8")
    else:
        wrong += [f"differs: {name}" for name, found in hashes.items() if before.get(name, found) != found]
        names = {run.name for run in chosen}
        wrong += [f"missing: {name} is in {args.against} only" for name in before if name not in names]
        if new := [name for name in hashes if name not in before]:
            print(f"not in {args.against}, so compared with nothing: {', '.join(new)}")
        print(f"{sum(before.get(name) == found for name, found in hashes.items())} of {len(before)} are the same")
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
