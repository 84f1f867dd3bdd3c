"""What a new user does with a model of common widths, command by command as README has them, and what comes of it.

Models are random Llamas in bfloat16 (`random_model.py`): sizes, speed and memory do not depend on what weights say, and
quality is measured elsewhere, on trained models. Each is compressed for llama.cpp with every default, its original is
exported, and the two files are compared in llama.cpp, side by side in one process. Needs the extra `llamacpp`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from evaluation import table

BENCH = Path(__file__).resolve().parent
MODELS = {
    576: "--hidden 576 --ffn 1536 --blocks 30 --heads 9 --kv-heads 3 --vocabulary 24576",
    704: "--hidden 704 --ffn 1920 --blocks 12 --heads 11 --kv-heads 11 --vocabulary 16384",
    2048: "--hidden 2048 --ffn 5632 --blocks 6 --heads 32 --kv-heads 4 --vocabulary 32000",
}
COMMANDS = (
    "whet compress MODEL lighter --for llama.cpp --text corpus.txt",
    "whet export MODEL --out original.gguf",
    "whet compare original.gguf lighter --text held-out.txt --report report.html",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="bench-out/new-user")
    parser.add_argument("--widths", type=int, nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--characters", type=int, default=200_000, help="of text to calibrate on")
    parser.add_argument("--paste", action="store_true", help="put the last model's figures into both READMEs")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    rows, took = [], []
    for width in args.widths:
        folder = Path(args.out) / str(width)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder, width, args.characters)
        seconds, found = as_a_user(folder, args.threads)
        took.append([str(width), *(f"{second:.0f}" for second in seconds)])
        rows.append(told(width, found))
        print(f"{width}: done in {sum(seconds):.0f} s", flush=True)
    print(table(["width", *COMMANDS], took))
    print("Seconds of each command.\n")
    heads = ["width", "file", "decode, tokens/s", "prefill, tokens/s", "peak memory", "KL, nats a token"]
    print(table(heads, rows))
    if args.paste:
        paste(found)


def paste(found: dict[str, Any]) -> None:
    """The table of what is gained, between README's markers, in both languages."""
    size, speed, memory = found["size"], found["speed"], found["memory"]
    both = [
        (size["original"]["total"] / 1e6, size["lighter"]["total"] / 1e6, "{:.0f} MB"),
        *((speed[kind]["original"], speed[kind]["lighter"], "{:.1f}") for kind in ("decode", "prefill")),
        *((memory["original"]["peak_bytes"] / 1e6, memory["lighter"]["peak_bytes"] / 1e6, "{:.0f} MB"),),
    ]
    words = {
        "": (["", "original", "lighter", "ratio"], ["file", "decode, tokens/s", "prefill, tokens/s", "peak memory"]),
        ".ko": (["", "원본", "경량본", "비율"], ["파일", "디코드 (토큰/초)", "프리필 (토큰/초)", "최대 메모리"]),
    }
    for ending, (heads, names) in words.items():
        lines = [f"| {' | '.join(heads)} |", "| --- | ---: | ---: | ---: |"]
        for name, (before, after, shape) in zip(names, both, strict=True):
            lines.append(f"| {name} | {shape.format(before)} | {shape.format(after)} | {after / before:.2f} |")
        readme = BENCH.parent / f"README{ending}.md"
        text = readme.read_text(encoding="utf-8")
        between = re.compile("(<!-- gain table -->\n).*?(<!-- /gain table -->)", re.DOTALL)
        made = "\n".join(lines)
        readme.write_text(between.sub(lambda m, made=made: f"{m[1]}{made}\n{m[2]}", text), encoding="utf-8")


def make(folder: Path, width: int, characters: int) -> None:
    """The model and two texts, as a user has them."""
    script = [sys.executable, str(BENCH / "random_model.py")]
    text = ["--text", str(folder / "corpus.txt"), "--characters", str(characters)]
    subprocess.run([*script, str(folder / "MODEL"), *text, *MODELS[width].split()], check=True)
    whole = (folder / "corpus.txt").read_text(encoding="utf-8")
    (folder / "held-out.txt").write_text(whole[: len(whole) // 10], encoding="utf-8")
    (folder / "corpus.txt").write_text(whole[len(whole) // 10 :], encoding="utf-8")


def as_a_user(folder: Path, threads: int) -> tuple[list[float], dict[str, Any]]:
    """Seconds of every command, and the comparison."""
    here = str(Path(sys.executable).with_name("whet"))
    known = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    seconds, said = [], ""
    for command in COMMANDS:
        started = time.monotonic()
        words = [here, *shlex.split(command)[1:], *(["--json"] if "compare" in command else [])]
        done = subprocess.run(words, cwd=folder, env=known, capture_output=True, text=True)
        seconds.append(time.monotonic() - started)
        if done.returncode not in ((0, 4, 5) if "compare" in command else (0,)):
            raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stderr[-2000:]}")
        said = done.stdout
    found: dict[str, Any] = json.loads(said)
    return seconds, found


def told(width: int, found: dict[str, Any]) -> list[str]:
    """A row: each figure of the original, the lighter one, and their ratio."""
    size, speed, memory = found["size"], found["speed"], found["memory"]

    def pair(before: float, after: float, unit: str, scale: float = 1.0) -> str:
        return f"{before / scale:.1f} → {after / scale:.1f}{unit} ({after / before:.2f})"

    return [
        str(width),
        pair(size["original"]["total"], size["lighter"]["total"], " MB", 1e6),
        *(pair(speed[kind]["original"], speed[kind]["lighter"], "") for kind in ("decode", "prefill")),
        pair(memory["original"]["peak_bytes"], memory["lighter"]["peak_bytes"], " MB", 1e6),
        f"{found['divergence']['kl']['mean']:.4f}",
    ]


if __name__ == "__main__":
    main()
