"""The lighter model packed in memory, beside its decoded self that is judged: how much faster, how much less, how far
apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from whet.checkpoint.gguf import is_gguf
from whet.engines import Engine
from whet.engines.opening import open_engine
from whet.engines.packed import packing_of, tell_packing
from whet.errors import UsageError
from whet.events import OnEvent, without_plan
from whet.measure.divergence import divergence, summarize
from whet.measure.speed import side_by_side

_WINDOWS = 16  # that tell how far the two are apart


def must_be_packable(lighter: str | Path, speed: bool) -> None:
    """Raises UsageError where there is no packed lighter model to measure."""
    if is_gguf(lighter):
        raise UsageError("{path} runs in llama.cpp, which keeps it packed as it is. Leave --fast out.", path=lighter)
    if not speed:
        raise UsageError("--fast measures speed and memory, and --no-speed leaves them out. Leave one of them out.")


def measure_packed(
    engines: tuple[Engine, Engine],
    windows: Sequence[Tensor],
    prompt: Sequence[int],
    memory: dict[str, Any],
    batch_tokens: int,
    device: str,
    on_event: OnEvent,
) -> dict[str, Any]:
    """Of the lighter model's folder, the second of `engines`, opened with its weights packed:

    `kernels` and `without`: how many linears go through which kernel, and how many through none, by why. `kl` and
    `top1`: how far it is from `lighter`, its decoded self, on the first windows; `windows`: how many. `speed`: against
    the original, as `side_by_side` has it. `memory`: what `footprint` found.
    """
    original, lighter = engines
    packing = packing_of(fast=True, packed=False)
    assert packing is not None
    engine = open_engine(lighter.folder, device, packing=packing)
    tell_packing(packing, lighter.folder, on_event)
    some = list(windows[:_WINDOWS])
    scores = divergence(lighter, engine, some, batch_tokens, without_plan(on_event), None)
    found = summarize(scores, list(range(len(some))))
    return {
        "kernels": dict(packing.kept),
        "without": dict(packing.without),
        "windows": len(some),
        "kl": found["kl"]["mean"],
        "top1": found["top1"]["mean"],
        "dtype": engine.dtype,
        "speed": side_by_side(original, engine, prompt, on_event=on_event),
        "memory": memory,
    }
