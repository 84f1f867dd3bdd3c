"""What a plan's time is made of: every class of shapes on every type that is worth it, timed in llama.cpp; and whole
files, timed beside the same base, which say how good the sum is."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from whet.anatomy import Linear
from whet.budget.times import KEEP, Costs, of_all_blocks, over_base
from whet.engines.llamacpp import available
from whet.errors import MachineError
from whet.events import OnEvent, Stage
from whet.formats.gguf.blocks import FLOAT_TYPES
from whet.timing.machine import cache_file, keep, kept
from whet.timing.order import (
    BASE,
    PART_PROMPT,
    PART_ROUNDS,
    PASSIVE,
    SIXTEEN,
    error_of,
    fitting_twin,
    order_of,
    ratio,
)
from whet.timing.pairs import overview
from whet.timing.running import time_variants
from whet.timing.twin import LOOKUP, RUNTIME, Twin, parts_of, write_twin

# A format that was slower than one of more bits by this much is no choice of a plan that counts time.
_SLOWER = 1.05
_FILE = {"rounds": 9, "prompt": 64, "decode": 32}  # of a whole file: more turns than of a format, as one figure decides


def costs(model: Path, linears: Iterable[Linear], fresh: bool, on_event: OnEvent) -> Costs:
    """Seconds of every class on every type in llama.cpp, from the cache or measured now. Raises MachineError where
    llama.cpp is not installed."""
    if not available():
        raise MachineError(
            "Time is measured in llama.cpp, which is not installed here. Install it (pip install 'whet[llamacpp]'), or "
            "ask for bytes instead (fit, bits)."
        )
    linears = list(linears)
    twin = fitting_twin(model)
    seen = overview(model, fresh, on_event)
    file = cache_file("costs", {**twin.about, "threads": seen["threads"]})
    found = None if fresh else kept(file)
    if found is None:
        found = _measured_costs(model, twin, seen, on_event)
        keep(file, found)
    sixteen = min((kind for kind in SIXTEEN if kind in seen["uniform"]), key=lambda kind: seen["uniform"][kind])
    stored = twin.layout.source.checkpoint.tensors
    return Costs(
        runtime=RUNTIME,
        threads=seen["threads"],
        base=found["base"],
        sixteen=found["sixteen"],
        over=found["over"],
        parts=parts_of(twin, linears),
        kept={linear.address: FLOAT_TYPES[stored[linear.parameter].dtype] for linear in linears},
        sixteen_type=sixteen,
        twin_sixteen=seen["uniform"][sixteen],
        beside=BASE,
        beside_seconds=found["twin_base"],
    )


def timed_file(costs: Costs, model: Path, file: Path) -> dict[str, float]:
    """Seconds of a decoded token of a .gguf `file`, in turns with a twin of `model`: `now`, and `then`, as it would
    be while the costs were measured."""
    twin = fitting_twin(model)
    order = {**order_of(model, twin, costs.threads, costs.beside), **_FILE}
    timed = time_variants(order, [{"name": "file", "file": str(file)}], PASSIVE, lambda line: None)["file"]
    if "error" in timed:
        raise MachineError("{file} could not be timed in llama.cpp: {why}.", file=file, why=timed["error"])
    then = ratio(timed) * costs.beside_seconds
    return {"now": median(timed["decode"]["own"]), "then": then}


def timed_types(costs: Costs, model: Path, schemes: Mapping[str, str], scratch: Path) -> float | None:
    """Seconds of a decoded token, as while the costs were measured, of a file of the whole model with random weights on
    `schemes`; None where that is too large to write, or the linears of a tensor differ."""
    twin = fitting_twin(model)
    if twin.depth < twin.blocks:
        return None
    by_tensor = types_by_tensor(twin, costs, schemes)
    if by_tensor is None:
        return None
    path = scratch / "twin.gguf"
    try:
        write_twin(twin.by_tensor(), by_tensor, path)
        return timed_file(costs, model, path)["then"]
    finally:
        path.unlink(missing_ok=True)


def types_by_tensor(twin: Twin, costs: Costs, schemes: Mapping[str, str]) -> dict[str, str] | None:
    """The type of every matrix of the file, by its name; None where the linears of one differ."""
    types = {f"{address}.weight": costs.kept[address] if s == KEEP else s for address, s in schemes.items()}
    found: dict[str, str] = {}
    for tensor in twin.layout.tensors:
        if tensor.name not in twin.classes:
            continue
        own = {types.get(s.partition(" of expert ")[0].removesuffix(" as in llama.cpp")) for s in tensor.sources}
        kind = own.pop()
        if own or kind is None:
            return None
        found[tensor.name] = kind
    return found


def _measured_costs(model: Path, twin: Twin, seen: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Files in which one class of shapes has another type, timed; with the uniform ones, what each class takes."""
    pairs = {pair["format"]: pair for pair in seen["pairs"] if pair["runtime"] == RUNTIME}
    base = seen["base"]
    uniform = {**seen["uniform"], BASE: base}
    kinds = _worth_timing(pairs)
    classes = [name for name in twin.columns if name != LOOKUP]
    variants: list[dict[str, Any]] = [
        {"name": f"{name}|{kind}", "types": {**twin.types(BASE), name: kind}}
        for kind in kinds
        for name in classes
        if twin.holds(kind, name) and twin.types(BASE)[name] != kind
    ]
    halved = max(1, twin.depth // 2)
    if twin.depth < twin.blocks:
        variants.append({"name": "half", "types": twin.types(BASE), "depth": halved})
    stage = Stage(on_event, "shapes", len(variants))
    order = {**order_of(model, twin, seen["threads"]), "rounds": PART_ROUNDS, "prompt": PART_PROMPT}
    started = time.monotonic()
    timed = time_variants(order, variants, PASSIVE, lambda line: stage.step())
    single: dict[str, dict[str, tuple[float, float]]] = {
        name: {twin.types(BASE)[name]: (base, 0.0)} for name in classes
    }
    for name, one in timed.items():
        if name != "half" and "error" not in one:
            at, _, kind = name.partition("|")
            single[at][kind] = (ratio(one) * base, error_of(one) * base)
    half = ratio(timed["half"]) * base if "half" in timed else base

    def whole(seconds: float) -> float:
        return of_all_blocks(seconds, half * seconds / base, twin.depth, halved, twin.blocks)

    return {
        "base": whole(base),
        "twin_base": base,
        "sixteen": min(whole(uniform[name]) for name in SIXTEEN if name in uniform),
        "over": over_base(uniform, single, base, twin.shares(), twin.counts(twin.depth)),
        "seconds": time.monotonic() - started,
    }


def _worth_timing(pairs: Mapping[str, Mapping[str, Any]]) -> Collection[str]:
    """Types that no other beats in both bits and time, and those of 16 bits."""

    def beaten(name: str) -> bool:
        own = pairs[name]
        return any(o["bits"] >= own["bits"] and o["decode"] > _SLOWER * own["decode"] for o in pairs.values())

    return [name for name in pairs if name in SIXTEEN or not beaten(name)]
