"""What runs in a process of its own to time PyTorch: its matrix kernels on a model's shapes, and the model whole.

A format's time of a model is the sum over its matrices. Each shape has as many matrices as the model, up to what caches
cannot hold, used one after the other, so that weights come from memory as they do in decoding. Formats take turns,
round by round. The whole model in 16 and 32 bits tells what is not matrices (attention, norms, Python).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import torch
from torch import Tensor

from whet.engines.torch import open_model

FORMATS = ("float32", "bfloat16", "int8", "int4-g32", "int4-g64", "int4-g128", "int4-g256")
WHOLE = ("float32", "bfloat16")
_SPREAD = 1 << 26  # bytes of one shape's matrices in one format, at the most: twice what caches hold
_MULTIPLE = 16  # rows that the int4 kernel takes at a time

Product = Callable[[Tensor], Any]


def answer(order_path: str) -> None:
    """Time what the order says: `shapes` (rows, columns, how many), `threads`, `rounds`, `prompt`, `decode`, `model`
    (a folder) and `whole` (the types it is opened in)."""
    order = json.loads(Path(order_path).read_text(encoding="utf-8"))
    torch.set_num_threads(order["threads"])
    found: dict[str, dict[str, float]] = {name: {"decode": 0.0, "prefill": 0.0} for name in FORMATS}
    left_out: dict[str, str] = {}
    for rows, columns, count in order["shapes"]:
        for name, seconds in _shape(rows, columns, count, order, left_out).items():
            for what in ("decode", "prefill"):
                found[name][what] += count * seconds[what]
        _say({"shape": [rows, columns]})
    for name, seconds in found.items():
        _say({"format": name, **({"error": left_out[name]} if name in left_out else seconds)})
    for dtype in order["whole"]:
        _say({"whole": dtype, **_whole(order, dtype)})


def _shape(
    rows: int, columns: int, count: int, order: Mapping[str, Any], left_out: dict[str, str]
) -> dict[str, dict[str, float]]:
    """Seconds of one product with a matrix of a shape, by format, for one token and for each token of a prompt."""
    made: dict[str, list[Product]] = {}
    for name in FORMATS:
        if name in left_out:
            continue
        size = rows * columns * {"float32": 4, "bfloat16": 2, "int8": 1}.get(name, 0.5)
        copies = max(1, min(count, int(_SPREAD / size)))
        try:
            made[name] = [kernel(name, rows, columns) for _ in range(copies)]
            for wide in (1, order["prompt"]):
                made[name][0](torch.ones(wide, columns))
        except (RuntimeError, NotImplementedError, AttributeError, ValueError) as error:
            made.pop(name, None)
            left_out[name] = str(error).splitlines()[0][:160]
    seconds: dict[str, dict[str, list[float]]] = {name: {"decode": [], "prefill": []} for name in made}
    for number in range(order["rounds"] + 1):
        for name, several in made.items():
            for what, wide in (("decode", 1), ("prefill", order["prompt"])):
                spent = _seconds(several if what == "decode" else several[:2], torch.ones(wide, columns))
                if number:
                    seconds[name][what].append(spent / wide)
    return {name: {what: median(values) for what, values in both.items()} for name, both in seconds.items()}


def _seconds(several: Sequence[Product], x: Tensor) -> float:
    """Seconds of one product, over all of `several`."""
    started = time.perf_counter()
    for product in several:
        product(x)
    return (time.perf_counter() - started) / len(several)


def kernel(name: str, rows: int, columns: int) -> Product:
    """The product with a random matrix `[rows, columns]` in a format. Raises where PyTorch has no kernel for it."""
    w = torch.randn(rows, columns) * 0.02
    if name in WHOLE:
        dtype = getattr(torch, name)
        typed = w.to(dtype)
        return lambda x: torch.nn.functional.linear(x.to(dtype), typed)
    if name == "int8":
        scales = (w.abs().amax(1) / 127).bfloat16()
        codes = (w / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        return lambda x: torch._weight_int8pack_mm(x.bfloat16(), codes, scales)
    group = int(name.partition("-g")[2])
    if columns % group or rows % _MULTIPLE:
        raise ValueError(f"rows of {columns} weights in groups of {group}, {rows} rows in sixteens")
    codes4 = torch.randint(0, 16, (rows, columns), dtype=torch.int32)
    packed = torch._convert_weight_to_int4pack_for_cpu(codes4, 1)
    scales4 = torch.stack([torch.full((columns // group, rows), 0.01), torch.zeros(columns // group, rows)], -1)
    both = scales4.bfloat16().contiguous()
    return lambda x: torch._weight_int4pack_mm_for_cpu(x.bfloat16(), packed, group, both)


def _whole(order: Mapping[str, Any], dtype: str) -> dict[str, float]:
    """Seconds a token of the whole model, decoding and reading a prompt."""
    engine = open_model(order["model"], "cpu", dtype)
    prompt = Random(0).choices(range(min(64, engine.vocabulary)), k=order["prompt"])
    timings = [engine.time(prompt, order["decode"]) for _ in range(order["rounds"] + 1)][1:]
    return {
        "decode": median(t.decode_seconds / t.decoded_tokens for t in timings),
        "prefill": median(t.prefill_seconds / t.prompt_tokens for t in timings),
    }


def _say(value: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
