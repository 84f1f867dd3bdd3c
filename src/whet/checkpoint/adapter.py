"""Low-rank adapters as PEFT stores them (checked with peft 0.21): reading and writing them, and running one beside the
linears of a loaded model.

A folder of one holds `adapter_model.safetensors`, with `base_model.model.NAME.lora_A.weight` `[r, in]` and
`….lora_B.weight` `[out, r]` for every module NAME (DoRA's have `….lora_magnitude_vector` `[out]` too), and
`adapter_config.json`. What a module gives becomes `W x + scale · B (A x)`, the second term in float32, and with
magnitudes each row of that is brought to the length that they say. The operations are those of
`peft.PeftModel.from_pretrained`, in its order, so that the logits are equal to the bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whet.anatomy import Module
from whet.checkpoint.files import read_header, read_tensor
from whet.errors import UsageError
from whet.strict import parse_json

ADAPTER = "adapter"  # the folder in a lighter one
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
_MAGNITUDE = ".lora_magnitude_vector"
# What PEFT wraps a model as. For others a plain wrapper passes everything through: PEFT's own for classifiers trains
# the classifier anew, and that for an encoder and a decoder asks for what transformers 5.23 has no more.
_TASKS = {"causal": "CAUSAL_LM"}
# Entries of another's config that change what is computed, and are neither factors nor magnitudes.
_OTHER = ("modules_to_save", "target_parameters", "trainable_token_indices", "alora_invocation_tokens", "use_qalora",
          "lora_bias")  # fmt: skip
# Ways to begin that also change the base, of which the stored factors then hold only half.
_MOVES_BASE = ("pissa", "olora", "corda")


@dataclass(frozen=True)
class Factors:
    """What an adapter makes of the weight W `[out, in]` of one module: W + scale · B A, and with `magnitude` `[out]`
    (DoRA) its rows at these lengths. b `[out, r]`, a `[r, in]`."""

    b: Tensor
    a: Tensor
    scale: float = 1.0
    magnitude: Tensor | None = None

    def delta(self) -> Tensor:
        """scale · B A `[out, in]`, float32."""
        return self.scale * (self.b.float() @ self.a.float())

    def weight(self, w: Tensor) -> Tensor:
        """The weight `[out, in]` that a module of weight `w` has with the adapter, float32."""
        changed = w.float() + self.delta()
        if self.magnitude is None:
            return changed
        return changed * (self.magnitude.float() / torch.linalg.norm(changed, dim=1))[:, None]

    def on(self, device: str) -> Factors:
        """Them in float32 on a device, as they are computed with."""
        size = None if self.magnitude is None else self.magnitude.to(device).float()
        return Factors(self.b.to(device).float(), self.a.to(device).float(), self.scale, size)


@dataclass(frozen=True)
class Adapter:
    """An adapter as its folder has it: `factors` by module, and its `config`."""

    folder: Path
    config: Mapping[str, Any]
    factors: dict[str, Factors]

    @property
    def sized(self) -> bool:
        """Whether it has magnitudes: a DoRA."""
        return any(one.magnitude is not None for one in self.factors.values())


def adapter_config(
    modules: Sequence[Module],
    rank: int,
    task: str,
    alpha: float | None = None,
    base: str | None = None,
    rooted: bool = False,
    sized: bool = False,
) -> dict[str, Any]:
    """The config of an adapter of `rank` for `modules`, each by its whole name.

    A module with fewer rows or columns than `rank` has as many. task: as `Anatomy.task`. alpha: over the rank, what
    factors are scaled by; None takes them as they are. base: the model it was trained on. rooted: scaled by alpha over
    the root of the rank (rsLoRA). sized: it has magnitudes (DoRA).
    """
    thin = {module.name: min(rank, *module.shape) for module in modules if min(module.shape) < rank}
    alphas = thin if alpha is None else {name: alpha * small / rank for name, small in thin.items()}
    alphas = {} if rooted else alphas
    return {
        "peft_type": "LORA",
        "task_type": _TASKS.get(task),
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank if alpha is None else alpha,
        "target_modules": [module.name for module in modules],
        "rank_pattern": thin,
        "alpha_pattern": alphas,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(linear.transposed for module in modules for linear in module.linears),
        "modules_to_save": None,
        **({"use_rslora": True} if rooted else {}),
        **({"use_dora": True} if sized else {}),
    }


def adapter_tensors(module: str, b: Tensor, a: Tensor, magnitude: Tensor | None = None) -> dict[str, Tensor]:
    """The stored tensors of one module, for B `[out, r]`, A `[r, in]` and magnitudes `[out]`."""
    more = {} if magnitude is None else {f"{_PREFIX}{module}{_MAGNITUDE}": magnitude}
    return {f"{_PREFIX}{module}{_A}": a, f"{_PREFIX}{module}{_B}": b, **more}


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (Path(folder) / CONFIG).is_file() and not (Path(folder) / "config.json").is_file()


def read_adapter(folder: str | Path) -> Adapter:
    """The adapter in a folder, whet's or another's. Raises UsageError for what is none, is damaged, or computes
    something else than factors and magnitudes tell."""
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise UsageError(
            "{folder} holds no adapter ({file} is missing). Give the folder that whet tune or PEFT wrote.",
            folder=folder,
            file=CONFIG,
        )
    try:
        config = parse_json((folder / CONFIG).read_text(encoding="utf-8"))
        assert isinstance(config, dict)
    except (ValueError, AssertionError) as error:
        raise UsageError("{file} is no JSON object. Download it again.", file=folder / CONFIG) from error
    _refuse_others(folder, config)
    if not (folder / WEIGHTS).is_file():
        raise UsageError(
            "{folder} has no {file}. Adapters in pickles (.bin) are not read: load it with PEFT and save it again.",
            folder=folder,
            file=WEIGHTS,
        )
    found = _read(folder / WEIGHTS)
    return Adapter(folder, config, {name: _scaled(config, name, *parts) for name, parts in found.items()})


def _refuse_others(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises UsageError for an adapter of another kind."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UsageError(
            "{folder} holds an adapter of the kind {kind}. whet reads LoRA and what is built on it (rsLoRA, DoRA).",
            folder=folder,
            kind=kind,
        )
    more = [key for key in _OTHER if config.get(key)]
    more += ["bias"] if config.get("bias", "none") != "none" else []
    if more:
        raise UsageError(
            "{folder}: {file} has {key}, which changes more than linears by factors. Merge it with PEFT "
            "(merge_and_unload) and give the model.",
            folder=folder,
            file=CONFIG,
            key=more[0],
        )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(_MOVES_BASE):
        raise UsageError(
            "{folder}: its factors began as a part of the base ({start}), which PEFT takes out of the base again at "
            "every start. Save it with path_initial_model_for_weight_conversion of PEFT, which makes it an adapter of "
            "the base as it is.",
            folder=folder,
            start=start,
        )


def _scaled(config: Mapping[str, Any], name: str, b: Tensor, a: Tensor, magnitude: Tensor | None) -> Factors:
    """A module's factors with the scale that the config says."""
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if pattern == name or re.fullmatch(rf"(.*\.)?({re.escape(pattern)})", name):
            alpha = value
            break
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise UsageError("{file} is damaged at {place}. Download it again.", file=CONFIG, place="lora_alpha")
    return Factors(b, a, alpha / (math.sqrt(len(a)) if config.get("use_rslora") else len(a)), magnitude)


def read_factors(file: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Module -> (B `[out, r]`, A `[r, in]`) of a file of adapters that are taken as they are, in their stored type."""
    found = _read(file)
    if any(magnitude is not None for _, _, magnitude in found.values()):
        raise UsageError("{file} holds magnitudes, and this adapter has none. Download the folder again.", file=file)
    return {name: (b, a) for name, (b, a, _) in found.items()}


def _read(file: Path) -> dict[str, tuple[Tensor, Tensor, Tensor | None]]:
    """Module -> (B `[out, r]`, A `[r, in]`, magnitudes `[out]` or None) of a file, in their stored type."""
    stored = read_header(file)
    found: dict[str, tuple[Tensor, Tensor, Tensor | None]] = {}
    known: set[str] = set()
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
        size = stored.get(f"{_PREFIX}{module}{_MAGNITUDE}")
        if size is not None and size.shape != other.shape[:1]:
            raise UsageError(
                "{file}: {module} has no pair of matrices that fit. Download the folder again.",
                file=file,
                module=module,
            )
        known |= {name, f"{_PREFIX}{module}{_B}", *([] if size is None else [f"{_PREFIX}{module}{_MAGNITUDE}"])}
        found[module] = (read_tensor(other), read_tensor(stored[name]), None if size is None else read_tensor(size))
    if more := sorted(stored.keys() - known):
        raise UsageError(
            "{file} holds other tensors than pairs of matrices and magnitudes: {name}. Save it without them "
            "(save_embedding_layers=False of PEFT), or download the folder again.",
            file=file,
            name=more[0],
        )
    return found


def attach(model: nn.Module, factors: Mapping[str, Factors], device: str) -> None:
    """Have the modules of `model` named in `factors` give what the adapter adds too.

    Raises UsageError for a module that the model does not have, or not in that shape.
    """
    modules = dict(model.named_modules())
    for name, one in factors.items():
        check_shape(name, one, None if name not in modules else tuple(modules[name].weight.shape))
        modules[name].register_forward_hook(_hook(one.on(device)))


def check_shape(name: str, one: Factors, shape: tuple[int, ...] | None) -> None:
    """Raises UsageError unless the weight of the module `name` (None: it has none) is of a shape that factors fit."""
    if shape is None:
        raise UsageError(
            "The adapter names {name}, which the model does not have. Download the folder again.", name=name
        )
    if sorted(shape) != sorted((len(one.b), one.a.shape[1])):
        raise UsageError(
            "The adapter of {name} is for {rows} rows of {columns}, which the model's are not. Download the "
            "folder again.",
            name=name,
            rows=len(one.b),
            columns=one.a.shape[1],
        )


def _hook(one: Factors) -> Any:
    def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return adapted(module, args[0], out, one)

    return hook


def adapted(module: Any, x: Tensor, out: Tensor, one: Factors) -> Tensor:
    """What a module that makes `out` of `x` gives with the adapter `one`; gradients reach its tensors.

    The lengths of rows are taken as constants, as DoRA's authors do (Liu et al. 2024, arXiv 2402.09353, section 4.3).
    """
    more = nn.functional.linear(nn.functional.linear(x.float(), one.a), one.b)
    if one.magnitude is None:
        return (out + (more if one.scale == 1 else more * one.scale)).to(out.dtype)
    with torch.no_grad():
        eye = torch.eye(one.a.shape[1], device=one.a.device)
        changed = nn.functional.linear(nn.functional.linear(eye, one.a), one.b).T
        lengths = torch.linalg.norm(rows_of(module).float() + one.scale * changed, dim=1)
    ratio = (one.magnitude / lengths).view(1, -1)
    plain = out if module.bias is None else out - module.bias
    return (out + ((ratio - 1) * plain + ratio * more * one.scale)).to(out.dtype)


def rows_of(module: Any) -> Tensor:
    """The weight `[out, in]` of a linear, or of one that stores it the other way round (GPT-2's Conv1D)."""
    weight: Tensor = module.weight
    return weight if isinstance(module, nn.Linear) else weight.t()
