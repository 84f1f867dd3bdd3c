"""Every pair of runtime and format that can be timed here, on a model's shapes: decoding, prefill, and how close each
comes to what memory gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from whet.checkpoint.memory import available_memory
from whet.engines.llamacpp import available
from whet.events import OnEvent, Stage
from whet.messages import Message, to_json
from whet.timing.kernels import FORMATS, WHOLE
from whet.timing.machine import bandwidth, cache_file, keep, kept, machine, thread_limit
from whet.timing.order import (
    ACTIVE,
    BASE,
    PART_PROMPT,
    PART_ROUNDS,
    PASSIVE,
    SIXTEEN,
    TYPES,
    fitting_twin,
    order_of,
    ratio,
    ratios,
)
from whet.timing.running import DECODE, PROMPT, ROUNDS, time_torch, time_variants
from whet.timing.twin import RUNTIME, Twin

# What an estimate of the measuring itself goes by: bytes that decoding reads a second, weights that a prompt multiplies
# a second, bytes that are written a second.
_READ, _MULTIPLIED, _WRITTEN = 6e9, 4e10, 2e8
_BYTES = {"float32": 4, "bfloat16": 2}
_LARGEST_WHOLE = 4 << 30  # bytes of a model that PyTorch opens whole to be timed


def overview(model: Path, fresh: bool, on_event: OnEvent) -> dict[str, Any]:
    """What was measured of every pair, from the cache or now: `machine`, `bandwidth`, `settings`, `threads`, `pairs`
    and `left_out`."""
    twin = fitting_twin(model)
    file = cache_file("pairs", twin.about)
    if not fresh and (found := kept(file)) is not None:
        return {**found, "cached": str(file)}
    llama = available()
    stage = Stage(on_event, "hardware", 1 + len(TYPES) * llama + 2 * llama + len(FORMATS) + len(WHOLE))
    limit = thread_limit()
    memory = {str(count): bandwidth(count) for count in sorted({1, limit})}
    stage.step()
    found = {"machine": machine(), "bandwidth": memory, "twin": {"blocks": twin.blocks, "depth": twin.depth}}
    settings = _settings(model, twin, limit) if llama else []
    stage.step()
    threads = min(
        (s for s in settings if s["policy"] == PASSIVE), key=lambda s: s["ratio"], default={"threads": limit}
    )["threads"]
    read = memory.get(str(threads), memory["1"])["read"]
    pairs, left_out = [], []
    if llama:
        timed = _uniform(model, twin, threads, stage)
        base = {what: _base(timed, what) for what in ("decode", "prefill")}
        found["base"] = base["decode"]
        found["uniform"] = {k: ratio(v) * base["decode"] for k, v in timed.items() if "error" not in v}
        pairs += _llama_pairs(twin, timed, base, read)
        left_out += [{"pair": f"{RUNTIME} {k}", "why": v["error"]} for k, v in timed.items() if "error" in v]
    more, without = _torch_pairs(model, twin, threads, read, stage)
    found |= {"settings": settings, "threads": threads, "pairs": pairs + more, "left_out": left_out + without}
    found["left_out"] += to_json(_missing(llama))
    stage.reach(stage.of)
    found["kept"] = keep(file, found)
    return {**found, "cached": None}


def seconds_of(model: Path) -> float:
    """About how long `overview` takes."""
    twin = fitting_twin(model)
    runs = 2 * (ROUNDS + 1) * len(TYPES) if available() else 0
    read, whole = (twin.bytes_read(twin.types("F16"), depth) for depth in (twin.depth, twin.blocks))
    once = 0.4 * DECODE * read / _READ + PROMPT * read / 2 / _MULTIPLIED
    writing = len(TYPES) * read / _WRITTEN if runs else 0.0
    torch_part = (PART_ROUNDS + 1) * (4 * PROMPT * whole / 2 / _MULTIPLIED + 5 * DECODE * whole / _READ)
    return 5 + runs * once + writing + torch_part


def _settings(model: Path, twin: Twin, limit: int) -> list[dict[str, Any]]:
    """What a token takes with more threads, and with threads that spin while they wait, over one thread."""
    found = [{"threads": 1, "policy": PASSIVE, "ratio": 1.0}]
    counts = sorted({count for count in (2, limit // 2, limit) if 1 < count <= limit})
    order = {**order_of(model, twin, 1), "rounds": 3, "prompt": PART_PROMPT, "decode": 16}
    for policy in (PASSIVE, ACTIVE) if counts else ():
        variants = [{"name": str(count), "types": twin.types(BASE), "threads": count} for count in counts]
        for name, timed in time_variants(order, variants, policy, lambda line: None).items():
            if "error" not in timed:
                found.append({"threads": int(name), "policy": policy, "ratio": ratio(timed)})
    return found


def _uniform(model: Path, twin: Twin, threads: int, stage: Stage) -> dict[str, dict[str, Any]]:
    """Whole files in one type, timed."""
    variants = [{"name": kind, "types": twin.types(kind)} for kind in TYPES]
    return time_variants(order_of(model, twin, threads), variants, PASSIVE, lambda line: stage.step())


def _base(timed: Mapping[str, Mapping[str, Any]], what: str) -> float:
    """Seconds of the base's twin, the middle of all its turns."""
    return median(t for one in timed.values() if "error" not in one for t in one[what]["base"])


def _llama_pairs(
    twin: Twin, timed: Mapping[str, Mapping[str, Any]], bases: Mapping[str, float], read: float
) -> list[dict[str, Any]]:
    """Rows of llama.cpp. Times of a twin with fewer blocks are multiplied by what its bytes lack."""
    fine = {name: one for name, one in timed.items() if "error" not in one}

    def whole(name: str, what: str) -> float:
        sizes = [twin.bytes_read(twin.types(name), depth) for depth in (twin.blocks, twin.depth)]
        return ratio(fine[name], what) * bases[what] * sizes[0] / sizes[1]

    seconds = {name: {what: whole(name, what) for what in bases} for name in fine}
    sixteen = min((seconds[name]["decode"] for name in SIXTEEN if name in seconds), default=None)
    pairs = []
    for name, one in seconds.items():
        turns = ratios(fine[name], "decode")
        spread = [ratio(fine[name]) / (one["decode"] * end(turns)) for end in (max, min)]
        nbytes = twin.bytes_read(twin.types(name), twin.blocks)
        pairs.append(_pair(RUNTIME, name, twin, nbytes, one, sixteen, read) | {"spread": spread})
    return pairs


def _pair(
    runtime: str,
    name: str,
    twin: Twin,
    nbytes: float,
    seconds: Mapping[str, float],
    sixteen: float | None,
    read: float,
) -> dict[str, Any]:
    """One row: tokens a second, `bytes` of weights that a token reads, and what that is of the memory's speed.

    speedup: over the runtime's own 16-bit. spread: of decode. measured: `whole`, or from matrix `kernels`.
    """
    return {
        "runtime": runtime,
        "format": name,
        "bits": 16 * nbytes / twin.bytes_read(twin.types("F16"), twin.blocks),
        "decode": 1 / seconds["decode"],
        "prefill": 1 / seconds["prefill"],
        "spread": None,
        "bytes": nbytes,
        "bandwidth": nbytes / seconds["decode"],
        "share": nbytes / seconds["decode"] / read,
        "speedup": None if sixteen is None else sixteen / seconds["decode"],
        "measured": "whole",
    }


def _torch_pairs(
    model: Path, twin: Twin, threads: int, read: float, stage: Stage
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """PyTorch: the model whole in 32 and 16 bits, and with its matrices' time replaced by that of packed kernels."""
    counts = {name: count for name, count in twin.counts(twin.blocks).items() if name.count(" x ") == 1}
    shapes = [[*map(int, name.split(" x ")), count] for name, count in counts.items()]
    weights = twin.bytes_read(twin.types("F16"), twin.blocks) // 2
    room = available_memory() or 1 << 33
    whole = [dtype for dtype in WHOLE if weights * _BYTES[dtype] < min(room / 3, _LARGEST_WHOLE)]
    order = {"model": str(model), "threads": threads, "rounds": PART_ROUNDS, "prompt": PROMPT, "decode": 16}
    kernels: dict[str, dict[str, Any]] = {}
    models: dict[str, dict[str, Any]] = {}

    def line(told: dict[str, Any]) -> None:
        if "format" in told:
            kernels[told["format"]] = told
        if "whole" in told:
            models[told["whole"]] = told
        if "shape" not in told:
            stage.step()

    why = time_torch({**order, "shapes": shapes, "whole": whole}, PASSIVE, line)
    left_out = [{"pair": f"torch {name}", "why": one["error"]} for name, one in kernels.items() if "error" in one]
    left_out += [{"pair": "torch", "why": why}] if why else []
    sixteen = models.get("bfloat16")
    own = None if sixteen is None else float(sixteen["decode"])
    pairs = [_pair("torch", name, twin, weights * _BYTES[name], one, own, read) for name, one in models.items()]
    if sixteen is None or "decode" not in kernels.get("bfloat16", {}):
        return pairs, left_out
    for name, one in kernels.items():
        if name in WHOLE or "error" in one:
            continue
        group = int(name.partition("-g")[2] or 0)
        nbytes = weights * (0.5 + 4 / group if group else 1.0)
        seconds = {
            what: max(sixteen[what] - kernels["bfloat16"][what], 0.0) + one[what] for what in ("decode", "prefill")
        }
        pairs.append(_pair("torch", name, twin, nbytes, seconds, own, read) | {"measured": "kernels"})
    return pairs, left_out


def _missing(llama: bool) -> list[dict[str, Any]]:
    """What is not measured, and why."""
    packages = machine()["packages"]
    found: list[dict[str, Any]] = []
    if not llama:
        found.append({"pair": RUNTIME, "why": Message("not installed: pip install 'whet[llamacpp]'")})
    for name in ("onnxruntime", "openvino"):
        why = (
            Message("it is not timed here; whet compare times its files")
            if packages[name]
            else Message("it is not installed here")
        )
        found.append({"pair": name, "why": why})
    return found
