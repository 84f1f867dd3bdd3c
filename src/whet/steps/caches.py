"""What a run asks of keys and values, checked against runtime, container and model before anything long."""

from __future__ import annotations

from whet.anatomy import Anatomy
from whet.checkpoint import Checkpoint, model_config
from whet.engines.cache import CacheShape
from whet.errors import UsageError
from whet.grids import CacheGrid, find_cache_grid
from whet.messages import Message, with_or
from whet.steps.options import Quantize
from whet.targets import TARGETS, Storage, Target


def kept_caches(
    asked: Quantize, target: Target, stored: Storage, parts: Anatomy, checkpoint: Checkpoint
) -> CacheGrid | None:
    """What keys and values are rounded to, None where nothing was asked. Raises UsageError for a runtime that reads no
    such scales, a container that holds none, and a model whose keys and values are something else."""
    if asked.kv is None:
        return None
    grid = find_cache_grid(asked.kv)
    if grid.name not in target.caches:
        known = with_or(target.caches) if target.caches else Message("none")
        others = with_or([name for name, other in TARGETS.items() if grid.name in other.caches])
        raise UsageError(
            "kv {kv}: {target} reads stored scales of {known} keys and values. Leave kv out, or use --for {others}.",
            kv=grid.name,
            target=target.name,
            known=known,
            others=others,
        )
    if stored.container != "compressed-tensors" or stored.dequantize:
        raise UsageError(
            "kv {kv}: compressed-tensors holds scales of keys and values beside symmetric schemes of the blocks alone "
            "({why}). Use symmetric schemes (int4s, int8s, FP8) without --embed and repair, or leave kv out and give "
            "--kv when the model runs.",
            kv=grid.name,
            why=stored.reason,
        )
    if parts.task != "causal" or not parts.family.known:
        raise UsageError(
            "kv {kv}: {family} is no decoder of a family that whet has a table of, so it does not know its keys and "
            "values. Leave kv out.",
            kv=grid.name,
            family=parts.model_type,
        )
    CacheShape.of(model_config(checkpoint))
    return grid
