"""Which kind of cache each layer takes, so that a context fits: bytes exact, losses of single layers added up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whet.engines.cache import FULL, GROUP, CacheShape

Losses = Mapping[str, Mapping[int, float]]  # KL by kind and layer, that layer alone


@dataclass(frozen=True)
class Runtime:
    """What a runtime keeps keys and values in. kinds: from most bits to fewest. mixed: whether layers may differ.
    flags: what tells it so, of kinds by layer and a number of tokens."""

    name: str
    kinds: tuple[str, ...]
    mixed: bool
    flags: Callable[[Sequence[str], int], str]


@dataclass(frozen=True)
class Choice:
    """kinds: by layer. loss: KL of single layers added up."""

    kinds: tuple[str, ...]
    loss: float


def runtimes(config: Any) -> list[Runtime]:
    """Those that keep keys and values of heads such as the config's."""
    width = CacheShape.of(config).width[0]
    found = [Runtime("vllm", (FULL, "fp8"), True, _vllm)]
    if width % GROUP == 0:
        found.append(Runtime("llama.cpp", (FULL, "int8", "q4_0"), False, _llama))
    kinds = (FULL, "int8", "int4") if width % GROUP == 0 else (FULL, "fp8")
    return [*found, Runtime("whet", kinds, True, _whet)]


def _vllm(kinds: Sequence[str], tokens: int) -> str:
    flags = f"--max-model-len {tokens}"
    if "fp8" not in kinds:
        return flags
    left = ",".join(str(i) for i, kind in enumerate(kinds) if kind == FULL)
    return f"{flags} --kv-cache-dtype fp8" + (f" --kv-cache-dtype-skip-layers {left}" if left else "")


def _llama(kinds: Sequence[str], tokens: int) -> str:
    kind = next((kind for kind in kinds if kind != FULL), FULL)
    name = {FULL: "f16", "int8": "q8_0", "q4_0": "q4_0"}[kind]
    fused = "" if kind == FULL else " --flash-attn on"
    return f"--ctx-size {tokens} --cache-type-k {name} --cache-type-v {name}{fused}"


def _whet(kinds: Sequence[str], tokens: int) -> str:
    return f"--kv {kinds[0] if len(set(kinds)) == 1 else ','.join(kinds)}"


def uniform(kind: str, shape: CacheShape) -> tuple[str, ...]:
    """`kind` in every layer that keeps all tokens."""
    return tuple(kind if full else FULL for full in shape.full)


def cheapest(runtime: Runtime, shape: CacheShape) -> tuple[str, ...]:
    """The fewest bits that a runtime has."""
    return uniform(runtime.kinds[-1], shape)


def fitted(
    runtime: Runtime, shape: CacheShape, losses: Losses, tokens: int, sequences: int, room: int
) -> Choice | None:
    """The kinds with the least loss whose cache fits into `room` bytes; None where none does.

    Where layers may differ, from the most bits on that layer goes down a step which loses least for the bytes that it
    saves, until all fits; what was taken more than needed is then given back where room is left.
    """

    def size(kinds: Sequence[str]) -> int:
        return sequences * shape.nbytes(kinds, tokens)

    def loss(kinds: Sequence[str]) -> float:
        return sum(losses[kind][i] for i, kind in enumerate(kinds) if kind != FULL)

    if not runtime.mixed:
        every = [uniform(kind, shape) for kind in runtime.kinds]
        found = next((kinds for kinds in every if size(kinds) <= room), None)
        return None if found is None else Choice(found, loss(found))
    kinds = list(uniform(runtime.kinds[0], shape))
    while size(kinds) > room:
        steps = []
        for i, kind in enumerate(kinds):
            if not shape.full[i]:
                continue
            for lower in runtime.kinds[runtime.kinds.index(kind) + 1 :]:
                tried = [*kinds[:i], lower, *kinds[i + 1 :]]
                saved = size(kinds) - size(tried)
                if saved > 0:
                    steps.append((max(0.0, loss(tried) - loss(kinds)) / saved, i, lower))
        if not steps:
            return None
        _, i, lower = min(steps)
        kinds[i] = lower
    for i in sorted(range(len(kinds)), key=lambda i: -loss([FULL] * i + [kinds[i]])):
        for higher in runtime.kinds[: runtime.kinds.index(kinds[i])]:
            tried = [*kinds[:i], higher, *kinds[i + 1 :]]
            if size(tried) <= room:
                kinds = tried
                break
    return Choice(tuple(kinds), loss(kinds))


def most_tokens(shape: CacheShape, kinds: Sequence[str], sequences: int, room: int) -> int:
    """The longest context that fits into `room` bytes with these kinds."""
    low, high = 0, 1
    while sequences * shape.nbytes(kinds, high) <= room and high < 1 << 40:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sequences * shape.nbytes(kinds, middle) <= room else (low, middle)
    return low
