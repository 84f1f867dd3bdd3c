"""The time that a dry run tells beside the processor seconds that the run then takes, on one thread, as a table.

Each run is a process of its own, which asks for the dry run first: what importing takes is in neither. Told times are
of a machine that does nothing else, so processor seconds are what they are held against.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from evaluation import table

BENCH = Path(__file__).resolve().parent
WIDE = "--hidden 512 --ffn 1408 --blocks 6 --heads 8 --kv-heads 4 --vocabulary 4096 --characters 600000"
WAYS = {
    "nearest": {"scheme": "int4-g32", "solver": "nearest", "target": "whet"},
    "gptq": {"scheme": "int4-g32", "solver": "gptq", "target": "whet"},
    "fit": {"fit": "30%", "target": "whet"},
}


def main() -> None:
    args = arguments()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in args.models:
        for way in args.ways:
            told, taken = timed(model_of(name, out), way, out)
            rows.append([Path(name).name, way, f"{told:.1f}", f"{taken:.1f}", f"{told / taken:.2f}"])
            print(*rows[-1], flush=True)
    print(table(["model", "way", "told, s", "taken, processor s", "told / taken"], rows))


def model_of(name: str, out: Path) -> str:
    """The folder of a model: `starter`, `wide` (a random one, made here) or a path."""
    if name != "wide":
        return name
    folder = out / "wide"
    if not (folder / "config.json").is_file():
        command = [sys.executable, str(BENCH / "random_model.py"), str(folder), "--text", str(out / "wide.txt")]
        subprocess.run([*command, *WIDE.split()], check=True)
    return str(folder)


def timed(model: str, way: str, out: Path) -> tuple[float, float]:
    """Seconds told and processor seconds taken of one run."""
    limits = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, __file__, "--one", model, way, str(out)]
    done = subprocess.run(command, check=True, env={**os.environ, **limits}, capture_output=True, text=True)
    told, taken = json.loads(done.stdout.splitlines()[-1])
    return told, taken


def one(model: str, way: str, out: Path) -> None:
    """In a process of its own: ask, do, and print both."""
    import tempfile

    import whet
    from whet import starter

    text = starter.documents(0, 3000)
    given = {} if way == "nearest" else {"text": text, "samples": 512, "window": 256}
    if model.endswith("wide") and given:
        given |= {"text": str(out / "wide.txt")}
    folder = starter.path() if model == "starter" else model
    with tempfile.TemporaryDirectory(dir=out) as place:
        asked = {**WAYS[way], **given}
        told = whet.compress(folder, Path(place) / "lighter", **asked, dry_run=True)["seconds"]
        before = time.process_time()
        whet.compress(folder, Path(place) / "lighter", **asked)
        print(json.dumps([told, time.process_time() - before]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["starter", "wide"], help="folders, `starter` or `wide`")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--out", default="bench-out/told-time")
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        main()
