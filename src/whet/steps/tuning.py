"""What a run of the step `tune` does, decided before anything long: which modules, of which rank, on which text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.adapt import FULL, FULL_RATE, Kind, adapted_modules, check_rank, find_kind, parse_targets
from whet.anatomy import Anatomy, Module, anatomy
from whet.apply.job import compute_type, model_name
from whet.checkpoint import Checkpoint, empty_model, model_config, refuse_unfinished
from whet.engines.torch import resolve_device
from whet.errors import UsageError
from whet.measure.sides import seconds_a_token
from whet.messages import Message
from whet.steps.coded import Coded, coded_modules
from whet.steps.material import Material
from whet.steps.options import Tune
from whet.steps.original import open_original
from whet.steps.trained_run import options_of, recipe_of, record_of, request_of
from whet.steps.tune_text import AT_ONCE, Batches, read_learnt
from whet.targets import find_target

STEP = "tune"
_BASE_MEMORY = 800 * 2**20  # Python, torch and transformers
_TIMES = 3.0  # a step of training over reading its tokens
_EPOCHS, _FEWEST, _MOST = 3, 20, 1000  # times through the text, and steps, where nothing is said
_JUDGED = 8  # times that the held-out text is read on the way


@dataclass(frozen=True)
class Tuning:
    """A run. kind: of the adapter, None where every parameter is trained. windows int64 `[2, L]`: tokens, and which
    are learnt. steps: None where they are still to be measured. coded: what is quantized of the base, by module.
    digest: SHA-256 of the model."""

    asked: Tune
    checkpoint: Checkpoint
    parts: Anatomy
    modules: Sequence[Module]
    kind: Kind | None
    alpha: float
    rate: float
    seed: int
    device: str
    dtype: torch.dtype
    solve: Sequence[Tensor]
    verify: Sequence[Tensor]
    text: Mapping[str, Any] | None
    notes: tuple[Message, ...]
    coded: Mapping[str, Sequence[Coded]]
    steps: int | None
    threads: int
    base: str
    digest: str | None = None

    @property
    def rank(self) -> int:
        """Of the adapter as it is trained."""
        return self.asked.size

    @property
    def name(self) -> str:
        """The base's."""
        return model_name(self.checkpoint.path.resolve())

    @property
    def whole(self) -> bool:
        """Whether a model is written and not an adapter."""
        return self.kind is None or self.asked.merge

    @property
    def judged_every(self) -> int:
        """Steps between looks at the held-out text."""
        return max(1, (self.steps or 1) // _JUDGED)

    def groups(self) -> dict[str, int]:
        """Columns that share an offset, by module, of a base with real zeros. Raises UsageError for another base."""
        found = {}
        for module in self.modules:
            sizes = {one.group or module.shape[1] for one in self.coded.get(module.name, ()) if one.real}
            if len(sizes) != 1 or not all(one.real for one in self.coded[module.name]):
                raise UsageError(
                    "qalora is for codes whose zeros are real numbers, and {module} of {folder} has none. Quantize "
                    "with such a scheme (int4z-g64) first, or give another adapter.",
                    module=module.name,
                    folder=self.checkpoint.path,
                )
            found[module.name] = sizes.pop()
        return found

    def record(self) -> dict[str, Any]:
        """What the lineage says of it."""
        kind = {} if self.kind is None else {"rank": self.rank, "alpha": self.alpha, "targets": self.asked.targets}
        taught = {name: _named(getattr(self.asked, name)) for name in ("teacher", "original")}
        known = {name: value for name, value in taught.items() if value is not None}
        return record_of(self, STEP, {"adapter": self.asked.adapter, **kind, **known})

    def options(self) -> Tune:
        """Those of the step alone."""
        return options_of(self.asked, Tune)

    def recipe(self) -> dict[str, Any]:
        """What does the same again."""
        return recipe_of(self, STEP, self.options())

    def request(self) -> dict[str, Any]:
        """What the run depends on, as it is kept beside it."""
        return request_of(self, STEP, self.options(), self.asked.merge, self.asked.checkpointing)

    def needs(self) -> dict[str, Any]:
        """Seconds, and bytes of memory and disk, that a run takes."""
        weights = sum(_count(shape) for shape in self.shapes.values())
        trained = weights if self.kind is None else sum(self.rank * sum(module.shape) for module in self.modules)
        wide = self.dtype.itemsize
        window = max(window.shape[1] for window in self.solve)
        kept = 1 if self.asked.checkpointing else len(self.parts.blocks)
        outputs = sum(linear.shape[0] + linear.shape[1] for linear in self.parts.blocks[0])
        activations = 2 * wide * max(AT_ONCE, window) * outputs * kept
        others = weights * wide * (bool(self.asked.teacher) + bool(self.asked.original))
        memory = _BASE_MEMORY + weights * wide + 16 * trained + others + activations
        seconds = 60 * (self.asked.minutes or 0)
        if self.steps is not None:
            tokens = self.steps * self.asked.batch + _JUDGED * sum(one.shape[1] for one in self.verify)
            seconds = _TIMES * tokens * seconds_a_token(self.checkpoint.path) * (2 if self.asked.teacher else 1)
        disk = 4 * trained * (4 if not self.whole else 3) + (self.checkpoint.nbytes if self.whole else 0) + 2**20
        return {"memory": int(memory), "disk": int(disk), "seconds": 2 + seconds, "trained": trained}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the model's parameters, by its names."""
        return {name: tuple(p.shape) for name, p in empty_model(self.checkpoint, self.dtype).named_parameters()}


def decide_tune(
    model: str | Path,
    asked: Tune,
    *,
    seed: int = 0,
    device: str = "auto",
    material: Material | None = None,
    steps: int | None = None,
) -> Tuning:
    """What a run does. Raises UsageError for what cannot be, with what can. material, steps: of a stopped run."""
    asked.check()
    kind = find_kind(asked.adapter)
    place = resolve_device(device)
    checkpoint = Checkpoint(model)
    refuse_unfinished(checkpoint.path)
    if kind is None and not checkpoint.dense:
        raise UsageError(
            "{folder} is quantized, and full trains weights. Give an adapter, which leaves the codes as they are.",
            folder=checkpoint.path,
        )
    if asked.original is not None and checkpoint.dense:
        raise UsageError(
            "{folder} is not quantized, so no rounding lost anything that --original could tell of. Leave it out.",
            folder=checkpoint.path,
        )
    parts = _parts(checkpoint)
    if parts.task != "causal":
        raise UsageError(
            "{folder} predicts no next token, which is what is learnt. tune is for models that go on with text.",
            folder=checkpoint.path,
        )
    modules = [] if kind is None else adapted_modules(parts, parse_targets(asked.targets), str(checkpoint.path))
    if kind is not None:
        check_rank(modules, asked.size, str(checkpoint.path))
    material = material or read_learnt(checkpoint, asked, seed)
    dtype = model_config(checkpoint).dtype or checkpoint.dtype
    usual = FULL_RATE if kind is None else kind.rate
    plan = Tuning(
        asked=asked,
        checkpoint=checkpoint,
        parts=parts,
        modules=modules,
        kind=kind,
        alpha=asked.alpha or (kind.alpha * asked.size if kind is not None else 0.0),
        rate=asked.learning_rate or usual,
        seed=seed,
        device=place,
        dtype=torch.float32 if asked.adapter == FULL else compute_type(dtype, place),
        solve=material.solve,
        verify=material.verify,
        text=material.about,
        notes=(*material.notes, *_about_experts(parts, kind)),
        coded=coded_modules(checkpoint),
        steps=steps or asked.steps,
        threads=torch.get_num_threads(),
        base=str(model),
    )
    if kind is not None and kind.grouped:
        plan.groups()
    if plan.steps is None and asked.minutes is None:
        epoch = Batches(plan.solve, asked.batch, seed).epoch
        plan = dataclasses.replace(plan, steps=max(_FEWEST, min(_MOST, _EPOCHS * epoch)))
    return plan


def _parts(checkpoint: Checkpoint) -> Anatomy:
    """The parts of the model, by the names that it has for them."""
    if checkpoint.dense:
        return open_original(checkpoint.path, find_target("transformers")).parts
    model = empty_model(checkpoint, torch.float32)
    shapes = {name: tuple(param.shape) for name, param in model.named_parameters()}
    return anatomy(model.config.to_dict(), shapes, str(checkpoint.path))  # type: ignore[no-untyped-call]


def _about_experts(parts: Anatomy, kind: Kind | None) -> list[Message]:
    """A note on experts that no adapter is for."""
    stacked = [linear for linear in parts.linears() if linear.held.expert is not None]
    if kind is None or not stacked:
        return []
    return [
        Message(
            "{count} linears of experts are stacked into parameters, and no adapter of PEFT's form is for those: they "
            "stay as they are",
            count=len(stacked),
        )
    ]


def _named(value: Any) -> str | None:
    return None if value is None else Path(str(value)).name


def _count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
