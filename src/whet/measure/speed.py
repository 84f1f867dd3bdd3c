"""Speed side by side, and what memory each model takes.

A speed is a ratio of two models in one process on one machine: they take turns, round by round, so that a machine that
slows down slows both, and each round gives its own ratio. Memory cannot be told apart in one process, where what one
model freed serves the other: each model is opened once more in a process of its own, which also times a first load.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import torch
from torch import Tensor

from whet.checkpoint.model_files import files_of
from whet.child import run_python
from whet.engines import Engine, Timing
from whet.engines.opening import open_engine
from whet.engines.packed import packing_of
from whet.errors import UsageError
from whet.events import OnEvent, Stage, ignore
from whet.measure.sides import context_of

ROUNDS = 5
PREFILL_TOKENS = 128
DECODE_TOKENS = 32


def side_by_side(
    original: Engine,
    lighter: Engine,
    prompt: Sequence[int],
    *,
    rounds: int = ROUNDS,
    new_tokens: int = DECODE_TOKENS,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """Prefill and decode of both in tokens a second, batch 1, on the token ids `prompt`.

    For each of prefill and decode, over the rounds of `take_turns`: the median of both, the median of the rounds'
    ratios lighter / original, and the lowest and highest as `spread`. Above 1 the lighter is faster.
    """
    speeds = take_turns(original, lighter, prompt, rounds=rounds, new_tokens=new_tokens, on_event=on_event)
    return {
        "runtime": original.name if original.name == lighter.name else f"{original.name} / {lighter.name}",
        "rounds": rounds,
        "prompt_tokens": len(prompt),
        "decoded_tokens": new_tokens,
        **{what: _paired(both["original"], both["lighter"]) for what, both in speeds.items()},
    }


def take_turns(
    original: Engine,
    lighter: Engine,
    prompt: Sequence[int],
    *,
    rounds: int,
    new_tokens: int = DECODE_TOKENS,
    on_event: OnEvent = ignore,
) -> dict[str, dict[str, list[float]]]:
    """Tokens a second of each round: `{"prefill" | "decode": {"original" | "lighter": [rounds]}}`.

    One round that is thrown away warms both up; then `rounds` rounds, the first to go changing from round to round.
    """
    timings: dict[str, list[Timing]] = {"original": [], "lighter": []}
    engines = {"original": original, "lighter": lighter}
    progress = Stage(on_event, "speed", rounds + 1)
    for number in range(rounds + 1):
        for name in ("original", "lighter") if number % 2 else ("lighter", "original"):
            timings[name].append(engines[name].time(prompt, new_tokens))
        progress.step()
    return {
        "prefill": {n: [t.prompt_tokens / t.prefill_seconds for t in row[1:]] for n, row in timings.items()},
        "decode": {n: [t.decoded_tokens / t.decode_seconds for t in row[1:]] for n, row in timings.items()},
    }


def _paired(original: Sequence[float], lighter: Sequence[float]) -> dict[str, Any]:
    ratios = [b / a for a, b in zip(original, lighter, strict=True)]
    return {
        "unit": "tokens/s",
        "original": median(original),
        "lighter": median(lighter),
        "ratio": {"value": median(ratios), "spread": [min(ratios), max(ratios)]},
    }


def footprint(
    folder: str | Path,
    prompt: Sequence[int],
    new_tokens: int = DECODE_TOKENS,
    device: str = "cpu",
    dtype: str | None = None,
    fast: bool = False,
    precision: int | None = None,
) -> dict[str, Any]:
    """Load time and peak memory of a model folder, found by opening it and generating in a process of its own.

    fast: its weights stay packed in memory. precision: of several, the bits that it computes with.
    `load_seconds`: from the folder to a model that can be asked, imports not counted, files read once before.
    `peak_bytes`: the most resident memory of that process (on a GPU: the most allocated there), `before_bytes` what it
    held before the model was opened; None where the system does not say (Linux does). If the process fails, a dict
    with `error` alone: the rest of a report is worth having without it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        order = Path(scratch) / "order.json"
        what = {"folder": str(folder), "prompt": list(prompt), "new_tokens": new_tokens, "device": device}
        how = {"dtype": dtype, "threads": torch.get_num_threads(), "fast": fast, "precision": precision}
        order.write_text(json.dumps(what | how))
        answer = Path(scratch) / "answer.json"
        done = run_python("from whet.measure.speed import _child; _child(*sys.argv[1:])", str(order), str(answer))
        if done.returncode or not answer.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return {"error": f"the measuring process ended with code {done.returncode}: {last[:300]}"}
        found: dict[str, Any] = json.loads(answer.read_text())
        return found


def _child(order_path: str, answer_path: str) -> None:
    """What runs in the process of its own: open, generate, write down what it took."""
    order = json.loads(Path(order_path).read_text())
    on_gpu = str(order["device"]).startswith("cuda")
    if on_gpu:
        torch.zeros(1, device=order["device"])  # the context is there before the model is
    before = 0 if on_gpu else _resident("VmRSS")
    # or the first model pays for the disk, the second does not
    for file in files_of(order["folder"]):
        with file.open("rb") as stream:
            while stream.read(1 << 22):
                pass
    started = time.perf_counter()
    packing = packing_of(order["fast"], packed=False)
    engine = open_engine(
        order["folder"], order["device"], order["dtype"], order["threads"], packing, order["precision"]
    )
    loaded = time.perf_counter() - started
    engine.time(order["prompt"], order["new_tokens"])
    peak = torch.cuda.max_memory_allocated(order["device"]) if on_gpu else _resident("VmHWM")
    Path(answer_path).write_text(json.dumps({"load_seconds": loaded, "peak_bytes": peak, "before_bytes": before}))


def _resident(field: str) -> int | None:
    """VmRSS (resident now) or VmHWM (at its most) of this process in bytes; Linux only.

    Not getrusage: its maximum is inherited from the parent, whose models would be counted.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(field + ":")]
    return int(found[0]) * 1024 if found else None


def prompt_of(original: str | Path, windows: Sequence[Tensor], seed: int) -> list[int]:
    """Token ids to time both models on: of the text, or drawn where there is none."""
    context = context_of(original)
    length = min(PREFILL_TOKENS, (context or 1 << 30) - DECODE_TOKENS - 1)
    if length < 1:
        raise UsageError(
            "{model} has a context of {context} tokens: too few to time it. Leave speed and memory out.",
            model=original,
            context=context,
        )
    if windows:
        return [int(token) for token in torch.cat(list(windows))[:length]]
    return Random(seed).choices(range(64), k=length)
