"""Low-rank adapters as PEFT stores them (checked with peft 0.21): what is written of one, reading it, and running it
beside the linears of a loaded model.

`adapter/` in a lighter folder holds `adapter_model.safetensors`, with `base_model.model.NAME.lora_A.weight` `[r, in]`
and `….lora_B.weight` `[out, r]` for every module NAME, and `adapter_config.json`. What a module gives becomes
`W x + B (A x)`, the second term in float32, which is what `peft.PeftModel.from_pretrained` computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from whet.anatomy import Module
from whet.checkpoint.files import read_header, read_tensor
from whet.errors import UsageError

ADAPTER = "adapter"  # the folder in a lighter one
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
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


def adapter_tensors(module: str, b: Tensor, a: Tensor) -> dict[str, Tensor]:
    """The stored tensors of one module, for B `[out, r]` and A `[r, in]`."""
    return {f"{_PREFIX}{module}{_A}": a, f"{_PREFIX}{module}{_B}": b}


def read_factors(file: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Module -> (B `[out, r]`, A `[r, in]`) of a file of adapters, in their stored type."""
    stored = read_header(file)
    found = {}
    for name in stored:
        module = name.removeprefix(_PREFIX).removesuffix(_A)
        if name != f"{_PREFIX}{module}{_A}":
            continue
        other = stored.get(f"{_PREFIX}{module}{_B}")
        if other is None or len(other.shape) != 2 or other.shape[1:] != stored[name].shape[:1]:
            raise UsageError(
                "{file}: {module} has no pair of matrices that fit. Download the folder again.",
                file=file,
                module=module,
            )
        found[module] = (read_tensor(other), read_tensor(stored[name]))
    if 2 * len(found) != len(stored):
        raise UsageError("{file} holds other tensors than pairs of matrices. Download the folder again.", file=file)
    return found


def attach(model: nn.Module, factors: dict[str, tuple[Tensor, Tensor]], device: str) -> None:
    """Have the modules of `model` named in `factors` (module -> B, A) give what the adapter adds too.

    Raises UsageError for a module that the model does not have, or not in that shape.
    """
    modules = dict(model.named_modules())
    for name, (b, a) in factors.items():
        if name not in modules:
            raise UsageError(
                "The adapter names {name}, which the model does not have. Download the folder again.", name=name
            )
        if sorted(modules[name].weight.shape) != sorted((len(b), a.shape[1])):
            raise UsageError(
                "The adapter of {name} is for {rows} rows of {columns}, which the model's are not. Download the "
                "folder again.",
                name=name,
                rows=len(b),
                columns=a.shape[1],
            )
        modules[name].register_forward_hook(_hook(b.to(device).float(), a.to(device).float()))


def _hook(b: Tensor, a: Tensor) -> Any:
    def hook(_module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        more = nn.functional.linear(nn.functional.linear(args[0].float(), a), b)
        return (out + more).to(out.dtype)

    return hook
