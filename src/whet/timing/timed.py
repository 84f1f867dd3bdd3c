"""What runs in a process of its own to time llama.cpp: twins in many types, each in turns with one that stays open.

A line of JSON on stdout for each twin. Turns, and times as ratios to the one that stays, because a machine that others
use too slows down for seconds; what takes its turn right beside it is slowed down alike.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from whet.engines.engine import Timing
from whet.engines.llamacpp import LlamaEngine, open_gguf
from whet.timing.twin import Twin, twin_of, write_twin


def answer(order_path: str) -> None:
    """Time every variant of the order. An order has `model`, `depth` (blocks of a twin), `threads`, `rounds`, `prompt`
    and `decode` (tokens), `scratch` (a folder), `base` (types by class) and `variants`, each with `types`, or `file`,
    and maybe `depth` (blocks) or `threads`."""
    order = json.loads(Path(order_path).read_text(encoding="utf-8"))
    twin = twin_of(order["model"], depth=order["depth"])
    with tempfile.TemporaryDirectory(dir=order["scratch"]) as folder:
        base = _opened(twin, order["base"], Path(folder) / "base.gguf", order["threads"])
        for variant in order["variants"]:
            _say({"begin": variant["name"]})
            _say({"name": variant["name"], **_variant(twin, base, variant, order, Path(folder))})


def _variant(
    twin: Twin, base: LlamaEngine, variant: Mapping[str, Any], order: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Seconds a token of the variant and of the base, round by round, for `decode` and `prefill`."""
    own, threads = folder / "variant.gguf", variant.get("threads", order["threads"])
    if "file" in variant:
        engine = open_gguf(variant["file"], threads, alone=True)
    else:
        engine = _opened(twin, variant["types"], own, threads, variant.get("depth"))
    prompt = Random(0).choices(range(min(64, engine.vocabulary)), k=order["prompt"])
    found: dict[str, list[list[float]]] = {"decode": [[], []], "prefill": [[], []]}
    pair = (engine, base)
    for number in range(order["rounds"] + 1):
        timings: list[Timing | None] = [None, None]
        for which in (0, 1) if number % 2 else (1, 0):
            timings[which] = pair[which].time(prompt, order["decode"])
        for which, timing in enumerate(timings):
            if number and timing is not None:  # the first round warms up
                found["decode"][which].append(timing.decode_seconds / timing.decoded_tokens)
                found["prefill"][which].append(timing.prefill_seconds / timing.prompt_tokens)
    del engine, pair
    own.unlink(missing_ok=True)
    return {name: {"own": values[0], "base": values[1]} for name, values in found.items()}


def _opened(twin: Twin, types: Mapping[str, str], path: Path, threads: int, depth: int | None = None) -> LlamaEngine:
    write_twin(twin, types, path, depth)
    return open_gguf(path, threads, alone=True)


def _say(value: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
