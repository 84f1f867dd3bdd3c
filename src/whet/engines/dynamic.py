"""A folder that decides at run time how much of the model is used (`whet dynamic`), opened to write."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from whet.anatomy import Anatomy, anatomy
from whet.checkpoint import Checkpoint, read_dynamic
from whet.engines.chooser import Chooser, chosen, read_prompts, sliced
from whet.engines.exits import Exits, Staged, Used, stages
from whet.engines.sampling import check_request
from whet.engines.texts import Texts
from whet.engines.torch import TorchEngine, open_model
from whet.errors import UsageError
from whet.events import OnEvent, Stage, ignore

SLICES = 8  # sliced models that are kept, of tasks used last


def model_parts(model: Any) -> Anatomy:
    """The parts of a model in memory, by its names."""
    shapes = {name: tuple(param.shape) for name, param in model.named_parameters()}
    return anatomy(model.config.to_dict(), shapes, type(model).__name__)


def find_dynamic(folder: str | Path, kind: str) -> Mapping[str, Any]:
    """What whet.json says of what is decided at run time. kind: `channels` or `exits`. Raises UsageError for a folder
    that does not decide that."""
    found: Mapping[str, Any] = (Checkpoint(folder).whet or {}).get("dynamic") or {}
    if found.get("kind") != kind:
        asked, make = ("active", "--active 50%") if kind == "channels" else ("early_exit", "--agreement 98%")
        raise UsageError(
            "{folder} decides nothing of that kind at run time, so {asked} says nothing. Make a folder that does with "
            "`whet dynamic {folder} OUT {make}`.",
            folder=folder,
            asked=asked,
            make=make,
        )
    return found


def check_asked(active: str | float | None, task: str | None, early_exit: bool, others: Mapping[str, Any]) -> None:
    """Raises UsageError for options that do not go together. others: those of engines that decide nothing, by name."""
    if active is not None and early_exit:
        raise UsageError("A folder chooses channels or lets tokens leave early. Leave active or early_exit out.")
    if active is None and task is not None:
        raise UsageError("task is the text that channels are chosen by. Give active too, the share of them: 50%.")
    if given := [name for name, value in others.items() if value]:
        raise UsageError(
            "{given} does not go with {asked}, which computes with weights as they are. Leave one out.",
            given=given[0],
            asked="early_exit" if early_exit else "active",
        )


def size_of(folder: str | Path, active: str | float) -> Mapping[str, Any] | None:
    """What whet.json says of a share of the channels; None of all of them. Raises UsageError for one that the folder
    was not made for."""
    found = find_dynamic(folder, "channels")
    text = str(active).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if share == 1:
        return None
    for one in found["sizes"]:
        if abs(one["active"] - share) < 1e-6:
            return one  # type: ignore[no-any-return]
    raise UsageError(
        "active: {folder} was not made for {active}. It has {known}, and 100%. For others make it anew with --active.",
        folder=folder,
        active=text,
        known=", ".join(f"{100 * one['active']:.6g}%" for one in found["sizes"]),
    )


def read_chooser(folder: str | Path, device: Any) -> Chooser:
    """Who chooses the channels of a folder."""
    tensors = read_dynamic(Path(folder))
    inner, width = tensors["read.weight"].shape
    blocks, channels = tensors["base"].shape
    made = Chooser(width, blocks, channels, inner)
    made.load_state_dict(tensors)
    return made.requires_grad_(False).eval().to(device)


def read_exits(folder: str | Path, after: Sequence[int], device: Any) -> Exits:
    """The maps at the exits of a folder."""
    tensors = read_dynamic(Path(folder))
    rank, width = tensors["down.0"].shape
    made = Exits(width, after, rank)
    made.load_state_dict(tensors)
    return made.requires_grad_(False).eval().to(device)


class ChoosingEngine(Texts):
    """A model that writes with the channels that a prompt, or a task, chooses.

    size: what whet.json says of the share of channels; None: all of them. whole: bytes of all. task: the text by which
    channels are chosen for every prompt alike. Sliced models are kept by what they were chosen for, the last SLICES of
    them.
    """

    def __init__(
        self, engine: TorchEngine, chooser: Chooser, size: Mapping[str, Any] | None, whole: int, task: str | None = None
    ) -> None:
        super().__init__(engine.tokenizer, engine.folder)
        self.engine, self.chooser, self.size, self.whole = engine, chooser, size, whole
        self.count = None if size is None else int(size["channels"])
        self.parts = model_parts(engine.model)
        self.task, self.context, self.ends, self.device = engine.task, engine.context, engine.ends, engine.device
        self.by_task = None if task is None else tuple(engine.encode(task))
        self.slices: OrderedDict[tuple[int, ...], TorchEngine] = OrderedDict()

    def told(self) -> dict[str, Any]:
        """What is used: `channels` of how many in a block (`of`), and the bytes in use and stored."""
        of = self.chooser.base.shape[1]
        used = self.whole if self.size is None else self.size["bytes"]
        return {"channels": self.count or of, "of": of, "bytes": used, "stored": self.whole}

    def kept(self, ids: Sequence[int]) -> list[tuple[int, ...]]:
        """The channels, ascending, that every block keeps for a prompt."""
        channels = self.chooser.base.shape[1]
        tokens = torch.tensor([list(ids)], device=self.device)
        (scores,) = self.chooser(read_prompts(self.engine.model, self.parts, tokens))
        return chosen(scores, channels if self.count is None else self.count)

    def sliced(self, ids: Sequence[int]) -> TorchEngine:
        """The engine of the model that has those channels alone, cut for this prompt or found."""
        key = self.by_task or tuple(ids)
        if key not in self.slices:
            model = self.engine.model if self.count is None else sliced(self.engine.model, self.parts, self.kept(key))
            self.slices[key] = TorchEngine(model, self.tokenizer, self.folder, "torch, sliced")
            if len(self.slices) > SLICES:
                self.slices.popitem(last=False)
        self.slices.move_to_end(key)
        return self.slices[key]

    def continue_ids(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, **how: Any) -> list[list[int]]:
        """As `TorchEngine.continue_ids`, every prompt by the model that was sliced for it."""
        seed = how.pop("seed", 0)
        if self.by_task is not None:
            return self.sliced(()).continue_ids(prompts, max_new_tokens, seed=seed, **how)
        check_request(
            prompts, max_new_tokens, how.get("temperature", 0.0), how.get("top_p", 1.0), self.context, self.folder
        )
        found = []
        for number, prompt in enumerate(prompts):
            found += self.sliced(prompt).continue_ids([prompt], max_new_tokens, seed=seed + number, **how)
        return found


class LeavingEngine(TorchEngine):
    """A model whose tokens leave early, where an exit is as sure as the folder was calibrated for. used: since it was
    opened."""

    def __init__(self, engine: TorchEngine, exits: Exits, threshold: float) -> None:
        super().__init__(engine.model, engine.tokenizer, engine.folder, "torch, early exit")
        self.exits, self.threshold, self.parts = exits, threshold, model_parts(engine.model)
        self.ending = stages(exits, len(self.parts.blocks))
        self.used = Used.of(len(self.ending))

    def continue_ids(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        stop_at_newline: bool = False,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        past_ends: bool = False,
        on_event: OnEvent = ignore,
    ) -> list[list[int]]:
        """As `TorchEngine.continue_ids`, one prompt after another: tokens of several would leave at different exits."""
        check_request(prompts, max_new_tokens, temperature, top_p, self.context, self.folder)
        answers = []
        stage = Stage(on_event, "write", len(prompts))
        for number, prompt in enumerate(prompts):
            staged = Staged(self.model, self.parts, self.exits, self.threshold, self.used)
            samplers = [torch.Generator().manual_seed(seed + number)] if temperature > 0 else []
            ids, answer = torch.tensor([list(prompt)], device=self.device), list[int]()
            self._must_know(ids)
            for _ in range(max_new_tokens):
                logits = staged.next(ids)
                token = int(self._chosen(logits, temperature, top_p, samplers))
                if token in self.ends and not past_ends:
                    break
                answer.append(token)
                if stop_at_newline and self._ends_a_line(token):
                    break
                ids = torch.tensor([[token]], device=self.device)
            answers.append(answer)
            stage.step()
        return answers

    def told(self) -> dict[str, Any]:
        """What was used: blocks that were `read` for a token, mean, and those that it went through (`computed`), of how
        many (`of`)."""
        read, computed = self.used.layers(self.ending)
        return {"read": read, "computed": computed, "of": self.ending[-1], "tokens": self.used.tokens}


def open_choosing(
    folder: str | Path, active: str | float, task: str | None = None, device: str = "auto", dtype: Any = None
) -> ChoosingEngine:
    """A folder of `whet dynamic --active`, opened with a share of its channels. task: a text to choose by."""
    size, whole = size_of(folder, active), find_dynamic(folder, "channels")["stored"]
    engine = open_model(folder, device, dtype)
    return ChoosingEngine(engine, read_chooser(folder, engine.device), size, whole, task)


def open_leaving(
    folder: str | Path, device: str = "auto", dtype: Any = None, threshold: float | None = None
) -> LeavingEngine:
    """A folder of `whet dynamic --agreement`, opened. threshold: another than it was calibrated for; `NEVER` has no
    token leave."""
    found = find_dynamic(folder, "exits")
    engine = open_model(folder, device, dtype)
    exits = read_exits(folder, found["after"], engine.device)
    return LeavingEngine(engine, exits, found["threshold"] if threshold is None else threshold)
