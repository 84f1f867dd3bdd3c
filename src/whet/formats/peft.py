"""`adapter_config.json` of a low-rank adapter, as PEFT reads it (checked with peft 0.21)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from whet.anatomy import Module

# What PEFT wraps a model as. For others a plain wrapper passes everything through: PEFT's own for classifiers trains
# the classifier anew, and that for an encoder and a decoder asks for what transformers 5.23 has no more.
_TASKS = {"causal": "CAUSAL_LM"}


def adapter_config(modules: Sequence[Module], rank: int, task: str) -> dict[str, Any]:
    """The config of an adapter of `rank` for `modules`, each by its whole name, with what it adds taken as it is.

    A module with fewer rows or columns than `rank` has as many. task: as `Anatomy.task`.
    """
    thin = {module.name: min(rank, *module.shape) for module in modules if min(module.shape) < rank}
    return {
        "peft_type": "LORA",
        "task_type": _TASKS.get(task),
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": [module.name for module in modules],
        "rank_pattern": thin,
        "alpha_pattern": thin,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(linear.transposed for module in modules for linear in module.linears),
        "modules_to_save": None,
    }
