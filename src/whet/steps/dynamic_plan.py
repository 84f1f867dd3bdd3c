"""What a run of the step `dynamic` does, decided before anything long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Anatomy, per_layer
from whet.apply.job import compute_type, model_name
from whet.checkpoint import Checkpoint, empty_model, model_config, refuse_unfinished
from whet.engines.chooser import INNER, why_not_chosen
from whet.engines.exits import RANK, why_no_exits
from whet.engines.torch import resolve_device
from whet.errors import UsageError
from whet.measure.exiting import fewest
from whet.measure.sides import seconds_a_token
from whet.messages import Message
from whet.pruning.patterns import SHARE
from whet.report.numbers import written_size
from whet.steps.dynamic_options import Dynamic
from whet.steps.material import Material, windows_of
from whet.steps.original import open_original
from whet.steps.trained_run import options_of, recipe_of, record_of, request_of
from whet.steps.tune_text import AT_ONCE, Batches, marked, read_learnt
from whet.targets import find_target

STEP = "dynamic"
HELD = 1024  # windows that are kept from training where exits are calibrated on them
_BASE_MEMORY = 800 * 2**20  # Python, torch and transformers
_TIMES = 5.0  # a step of training over reading its tokens: the whole model, and the masked one there and back
_EPOCHS, _FEWEST, _MOST = 2, 20, 400  # times through the text, and steps, where nothing is said
JUDGED = 6  # times that the held-out text is read on the way
_RATES = {"channels": 1e-2, "exits": 1e-3}
MODEL_SHARE = 0.01  # of that rate, of a model that is trained jointly


@dataclass(frozen=True)
class Plan:
    """A run. counts: by share how many channels a prompt uses, the most first. after: numbers of blocks after which a
    token may leave; agreement: with the whole model, at least. windows int64 `[2, L]`: tokens, and which are learnt.
    digest: SHA-256 of the model."""

    asked: Dynamic
    checkpoint: Checkpoint
    parts: Anatomy
    counts: Mapping[float, int]
    after: tuple[int, ...]
    agreement: float | None
    rate: float
    steps: int
    seed: int
    device: str
    dtype: torch.dtype
    solve: Sequence[Tensor]
    verify: Sequence[Tensor]
    text: Mapping[str, Any] | None
    notes: tuple[Message, ...]
    threads: int
    base: str
    digest: str | None = None

    @property
    def name(self) -> str:
        """The base's."""
        return model_name(self.checkpoint.path.resolve())

    @property
    def kind(self) -> str:
        """What is decided at run time: `channels` or `exits`."""
        return "channels" if self.agreement is None else "exits"

    @property
    def judged_every(self) -> int:
        """Steps between looks at the held-out text."""
        return max(1, self.steps // JUDGED)

    @property
    def channels(self) -> int:
        """Of the feed-forward of a block."""
        return next(x.shape[1] for x in self.parts.blocks[0] if x.role == "down")

    @property
    def held(self) -> dict[str, Sequence[Tensor]]:
        """The held-out windows: those that tell which iterate is best, those that a threshold is calibrated on, and
        those that the figures are of."""
        if self.kind == "channels":
            return {"judge": self.verify[::2], "calibrate": [], "report": self.verify[1::2]}
        judge, rest = self.verify[::8], [one for at, one in enumerate(self.verify) if at % 8]
        return {"judge": judge, "calibrate": rest[::2], "report": rest[1::2]}

    def record(self) -> dict[str, Any]:
        """What the lineage says of it."""
        channels = {"active": list(self.counts), "joint": self.asked.joint}
        exits = {"exits": list(self.after), "agreement": self.agreement}
        return record_of(self, STEP, channels if self.kind == "channels" else exits)

    def options(self) -> Dynamic:
        """Those of the step alone."""
        return options_of(self.asked, Dynamic)

    def recipe(self) -> dict[str, Any]:
        """What does the same again."""
        return recipe_of(self, STEP, self.options())

    def request(self) -> dict[str, Any]:
        """What the run depends on, as it is kept beside it."""
        return request_of(self, STEP, self.options())

    def trained(self) -> int:
        """Parameters that are trained beside the model."""
        width, blocks = self.parts.embedding.shape[1], len(self.parts.blocks)
        if self.kind == "exits":
            return 2 * min(RANK, width) * width * len(self.after)
        return INNER * (width + 1) + (INNER + 1) * blocks * self.channels

    def needs(self) -> dict[str, Any]:
        """Seconds, and bytes of memory and disk, that a run takes."""
        weights = sum(p.numel() for p in empty_model(self.checkpoint, self.dtype).parameters())
        beside = self.trained()
        trained = beside + (weights if self.asked.joint else 0)
        window = max(window.shape[1] for window in self.solve)
        outputs = sum(linear.shape[0] + linear.shape[1] for linear in self.parts.blocks[0])
        activations = 2 * self.dtype.itemsize * max(AT_ONCE, window) * outputs * len(self.parts.blocks)
        models = weights * self.dtype.itemsize * (2 if self.asked.joint else 1)
        tokens = self.steps * self.asked.batch + JUDGED * sum(one.shape[1] for one in self.verify)
        return {
            "memory": int(_BASE_MEMORY + models + 16 * trained + activations),
            "disk": int(self.checkpoint.nbytes + 16 * trained + 4 * beside + 2**20),
            "seconds": 2 + _TIMES * tokens * seconds_a_token(self.checkpoint.path),
            "trained": trained,
        }


def decide(
    model: str | Path, asked: Dynamic, *, seed: int = 0, device: str = "auto", material: Material | None = None
) -> Plan:
    """What a run does. Raises UsageError for what cannot be, with what can. material: of a stopped run."""
    asked.check()
    shares = () if asked.active is None else parse_active(asked.active)
    target = None if asked.agreement is None else parse_agreement(asked.agreement)
    place = resolve_device(device)
    checkpoint = Checkpoint(model)
    refuse_unfinished(checkpoint.path)
    parts = open_original(checkpoint.path, find_target("transformers")).parts
    counts: dict[float, int] = {}
    after: tuple[int, ...] = ()
    if target is None:
        counts = counts_of(shares, parts, checkpoint)
    else:
        after = exits_of(asked.exits, parts, checkpoint)
    material = material or _read(checkpoint, asked, seed, target)
    dtype = model_config(checkpoint).dtype or checkpoint.dtype
    epoch = Batches(material.solve, asked.batch, seed).epoch
    kind = "channels" if target is None else "exits"
    plan = Plan(
        asked=asked,
        checkpoint=checkpoint,
        parts=parts,
        counts=counts,
        after=after,
        agreement=target,
        rate=asked.learning_rate or _RATES[kind],
        steps=asked.steps or max(_FEWEST, min(_MOST, _EPOCHS * epoch)),
        seed=seed,
        device=place,
        dtype=torch.float32 if asked.joint else compute_type(dtype, place),
        solve=material.solve,
        verify=material.verify,
        text=material.about,
        notes=material.notes,
        threads=torch.get_num_threads(),
        base=str(model),
    )
    _check_held(plan)
    return plan


def _read(checkpoint: Checkpoint, asked: Dynamic, seed: int, target: float | None) -> Material:
    """The text: of conversations the replies where channels are chosen; where tokens leave early, all of it, and more
    that is held out."""
    if target is None or asked.text is None:
        return read_learnt(checkpoint, asked, seed)
    found = windows_of(asked, checkpoint, seed, verify=HELD)
    return Material(marked(found.solve), marked(found.verify), found.about, notes=found.notes)


def _check_held(plan: Plan) -> None:
    """Raises UsageError where too little text is held out to say anything."""
    held = plan.held
    if not plan.solve or not held["judge"] or not held["report"]:
        raise UsageError(
            "The text is too short to train on and to check it by: {train} windows to train on, {verify} to check. "
            "Give more text, a smaller --window, or --eval FILE.",
            train=len(plan.solve),
            verify=len(plan.verify),
        )
    if plan.agreement is not None and len(held["calibrate"]) < fewest(plan.agreement):
        raise UsageError(
            "{count} windows of held-out text cannot show an agreement of {target:.2%}: at least {fewest} are needed "
            "to calibrate on, and as many again beside them. Give more text, a smaller --window, --eval FILE, or a "
            "lower agreement.",
            count=len(held["calibrate"]),
            target=plan.agreement,
            fewest=fewest(plan.agreement),
        )


def parse_active(text: str | float) -> tuple[float, ...]:
    """`50%,25%` or `0.5`: shares of the channels, the largest first. Raises UsageError for anything else."""
    found = []
    for part in str(text).split(","):
        match = SHARE.fullmatch(part.strip())
        share = None if match is None else Fraction(match[1]) / (100 if match[2] else 1)
        if share is None or not 0 < share < 1:
            raise UsageError(
                "active: {text} is no share of the channels between 0 and all. Give some with commas between: 50%,25%, "
                "or 0.5.",
                text=part.strip() or text,
            )
        found.append(float(share))
    return tuple(sorted(set(found), reverse=True))


def parse_agreement(text: str | float) -> float:
    """`98%` or `0.98`. Raises UsageError for what is no share between a half and all."""
    match = SHARE.fullmatch(str(text).strip())
    share = None if match is None else float(Fraction(match[1]) / (100 if match[2] else 1))
    if share is None or not 0.5 <= share < 1:
        raise UsageError(
            "agreement: {text} is no share of tokens from 50% to below 100%, which no text can show. Give 98%, or "
            "0.98.",
            text=text,
        )
    return share


def counts_of(shares: Sequence[float], parts: Anatomy, checkpoint: Checkpoint) -> dict[float, int]:
    """How many channels each share is. Raises UsageError for a model whose channels cannot be chosen by the prompt."""
    if why := why_not_chosen(parts, model_config(checkpoint).to_dict()):
        raise UsageError(
            "{folder}: channels of its feed-forward cannot be chosen by the prompt: {why}. Tokens may leave it early "
            "(agreement), or whet prune makes a smaller model.",
            folder=checkpoint.path,
            why=why,
        )
    channels = next(x.shape[1] for x in parts.blocks[0] if x.role == "down")
    found = {share: round(share * channels) for share in shares}
    if wrong := [share for share, count in found.items() if not 0 < count < channels]:
        raise UsageError(
            "active: {share} of {channels} channels is none, or all of them. Give another share.",
            share=written_size(wrong[0]),
            channels=channels,
        )
    return found


def exits_of(text: str | None, parts: Anatomy, checkpoint: Checkpoint) -> tuple[int, ...]:
    """After how many blocks tokens may leave. Raises UsageError for a model that none can leave, and for numbers that
    are none of its blocks'."""
    model = empty_model(checkpoint, torch.float32)
    unlike = Message("its blocks differ in shape already") if per_layer(checkpoint.config) else None
    if why := unlike or why_no_exits(model, parts):
        raise UsageError(
            "{folder}: tokens cannot leave it early: {why}. Channels may be chosen by the prompt (active), or whet "
            "prune makes a smaller model.",
            folder=checkpoint.path,
            why=why,
        )
    blocks = len(parts.blocks)
    if text is None:
        return tuple(sorted({max(1, blocks // 2), max(1, 3 * blocks // 4)}))
    found = set()
    for part in text.split(","):
        if not part.strip().isdecimal() or not 0 < int(part) < blocks:
            raise UsageError(
                "exits: {text} is no number of blocks after which a token may leave. {folder} has {blocks}: give some "
                "from 1 to {last}, with commas between.",
                text=part.strip() or text,
                folder=checkpoint.path,
                blocks=blocks,
                last=blocks - 1,
            )
        found.add(int(part))
    return tuple(sorted(found))
