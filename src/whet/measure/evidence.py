"""What a gate's figures are measured on, a part at a time: size, memory, text, questions, speed.

Each source has units (documents, groups of questions, rounds) that it takes in an order drawn with the seed. What was
measured is kept in the gate's folder as soon as it is there, so a gate that is killed goes on, and what the original
answered is kept for every later gate of the run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import numpy as np
from torch import Tensor

from whet.checkpoint import hashed_files, rows_between, sha256, write_json
from whet.checkpoint.gguf import is_gguf
from whet.engines import Engine
from whet.engines.opening import open_engine
from whet.errors import GateError, NotFiniteError
from whet.events import OnEvent, Stage
from whet.measure.common_tokens import alike_windows, ready_windows
from whet.measure.divergence import Sums, clusters_of, divergence, estimates, exp, sums
from whet.measure.items import Item, by_skill
from whet.measure.judging import Measured
from whet.measure.sequential import FEWEST
from whet.measure.sides import context_of, shared_tokenizer, size_of
from whet.measure.skills import Outcome, compare_skills, score
from whet.measure.speed import footprint, take_turns
from whet.measure.statistics import median_interval
from whet.messages import Message
from whet.paths import find_folder
from whet.text import located_windows

BATCH_TOKENS = 2048
ROUNDS = 48  # timed at most
_COLUMNS = ("tokens", "kl", "apart", "gap")


@dataclass(frozen=True)
class GateMaterial:
    """What was set aside for gates before the first step: nothing was solved on it, and nothing is reported on it.

    text: documents, or windows int64 [L] already cut, which count as a document each; None or [] for none. items:
    questions (`read_skills`). window, windows: tokens in a window, and how many are drawn of documents at most. chat:
    prompts of questions are a user's turn in the model's chat template. files: by aspect, material of its own.
    """

    text: Sequence[str] | Sequence[Tensor] | None = None
    items: Sequence[Item] = ()
    window: int = 512
    windows: int = 256
    chat: bool = False
    files: Mapping[str, str | Path] = field(default_factory=dict)


@dataclass
class Pair:
    """Both models, each opened when it is first asked."""

    paths: tuple[str | Path, str | Path]
    device: str
    dtype: str | None
    on_event: OnEvent

    @cached_property
    def original(self) -> Engine:
        return open_engine(self.paths[0], self.device, self.dtype)

    @cached_property
    def lighter(self) -> Engine:
        return open_engine(self.paths[1], self.device, self.dtype)

    @cached_property
    def rows(self) -> list[int] | None:
        """By token of the lighter its id in the original, where tokens were cut."""
        return rows_between(*self.paths)


@dataclass
class Kept:
    """What was measured so far, as JSON in two files of a folder: `answers` of the original by item, which any gate of
    the run may use, and of this gate alone the lighter's `answers`, `windows`, `rounds` and `memory`."""

    original_file: Path
    gate_file: Path
    original: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def opened(cls, folder: Path, original_mark: str, gate_mark: str) -> Kept:
        """What an earlier call kept under these marks, or nothing."""
        folder.mkdir(parents=True, exist_ok=True)
        files = folder / f"original-{original_mark[:16]}.json", folder / f"gate-{gate_mark[:16]}.json"
        found = [json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {} for file in files]
        return cls(*files, original=found[0], gate=found[1])

    def keep_original(self, answers: Mapping[str, Any]) -> None:
        """Add what the original answered."""
        self.original |= answers
        write_json(self.original_file, self.original)

    def keep(self, name: str, value: Any) -> None:
        """Set one entry of the gate's own."""
        self.gate[name] = value
        write_json(self.gate_file, self.gate)


class Size:
    """Bytes on disk."""

    fewest = 1

    def __init__(self, original: str | Path, lighter: str | Path) -> None:
        self.shrink = size_of(original)["total"] / size_of(lighter)["total"]

    def units(self, of: str) -> int:
        return 1

    def take(self, wanted: Mapping[str, int]) -> None:
        """It is known from the start."""

    def figure(self, name: str, of: str, low: float, high: float) -> Measured:
        return Measured(self.shrink, exact=True)

    def used(self) -> dict[str, int]:
        return {}


class Memory:
    """The most memory each model takes, in a process of its own that does nothing else: one run each."""

    fewest = 1

    def __init__(self, pair: Pair, prompt: Sequence[int], kept: Kept) -> None:
        self.pair, self.prompt, self.kept = pair, prompt, kept

    def units(self, of: str) -> int:
        return 1

    def take(self, wanted: Mapping[str, int]) -> None:
        if "memory" not in self.kept.gate:
            device, dtype = self.pair.device, self.pair.dtype
            found, stage = [], Stage(self.pair.on_event, "memory", len(self.pair.paths))
            for path in self.pair.paths:
                found.append(footprint(path, self.prompt, device=device, dtype=dtype))
                stage.step()
            self.kept.keep("memory", found)

    def figure(self, name: str, of: str, low: float, high: float) -> Measured:
        found = self.kept.gate["memory"]
        peaks = [each.get("peak_bytes") for each in found]
        if not all(peaks):
            missing = next(
                (each["error"] for each in found if "error" in each), Message("this system does not tell it")
            )
            return Measured(None, missing=missing)
        return Measured(peaks[1] / peaks[0], exact=True)

    def used(self) -> dict[str, int]:
        return {}


class Text:
    """Windows of text, document by document, through both models side by side."""

    fewest = FEWEST

    def __init__(self, pair: Pair, found: Found, kept: Kept) -> None:
        self.pair, self.kept, self.found, self.taken = pair, kept, found, 0

    def units(self, of: str) -> int:
        return len(self.found.ends)

    def take(self, wanted: Mapping[str, int]) -> None:
        rows: list[list[float]] = self.kept.gate.get("windows", [])
        self.taken = self.found.ends[max(wanted.values()) - 1]
        if more := self.found.windows[len(rows) : self.taken]:
            pair = self.pair
            scores = divergence(pair.original, pair.lighter, more, BATCH_TOKENS, pair.on_event, pair.rows)
            new = sums(scores)
            self.kept.gate["notes"] = scores.notes
            self.kept.keep("windows", rows + np.stack([getattr(new, name) for name in _COLUMNS], axis=1).tolist())

    def figure(self, name: str, of: str, low: float, high: float) -> Measured:
        found, clusters = self.sums(), self.found.clusters[: self.taken]
        key = "log_ratio" if name == "perplexity" else name
        lower, upper = (estimates(found, clusters, 1 - 2 * error)[key] for error in (low, high))
        value = lower.value
        ends = None if lower.interval is None or upper.interval is None else (lower.interval[0], upper.interval[1])
        if name == "perplexity":
            value, ends = exp(value), None if ends is None else (exp(ends[0]), exp(ends[1]))
        if found.identical:
            return Measured(value, (value, value), exact=True)
        return Measured(value, ends, missing=Message("one document tells nothing of how documents differ"))

    def used(self) -> dict[str, int]:
        return {"tokens": int(self.sums().tokens.sum())}

    def sums(self) -> Sums:
        """Of the windows that are in."""
        rows = self.kept.gate.get("windows", [])[: self.taken]
        return Sums(*np.array(rows, dtype=np.float64).reshape(-1, len(_COLUMNS)).T)

    @property
    def identical(self) -> bool:
        """Whether both models said the same of all that was read so far."""
        return self.taken > 0 and self.sums().identical


class Skills:
    """Questions, group by group, skill by skill; the original is asked once in a run."""

    fewest = FEWEST

    def __init__(
        self, pair: Pair, material: GateMaterial, kept: Kept, seed: int, same: bool, text: Text | None = None
    ) -> None:
        """same: both models are the same bytes. text: what else tells that they say the same."""
        self.pair, self.kept, self.chat, self.same, self.text = pair, kept, material.chat, same, text
        self.groups = grouped(material.items, seed)
        self.keys = {item: key_of(item) for item in material.items}
        self.taken = dict.fromkeys(self.groups, 0)

    def units(self, of: str) -> int:
        return len(self.groups.get(of, ()))

    def take(self, wanted: Mapping[str, int]) -> None:
        self.taken.update(wanted)
        asked = {self.keys[item]: item for skill in wanted for item in self.items(skill)}
        answers: dict[str, Any] = self.kept.gate.get("answers", {})
        if open_ := {key: item for key, item in asked.items() if key not in self.kept.original}:
            self.kept.keep_original(self._answers(self.pair.original, open_, "skills, original"))
        if open_ := {key: item for key, item in asked.items() if key not in answers}:
            try:
                new = self._answers(self.pair.lighter, open_, "skills, lighter")
            except NotFiniteError as error:
                raise GateError(
                    "{model}, the lighter one, gives numbers that are not finite where it answers. Its weights are "
                    "broken, or its type overflows: make it again, or in another type.",
                    model=self.pair.paths[1],
                ) from error
            self.kept.keep("answers", answers | new)

    def figure(self, name: str, of: str, low: float, high: float) -> Measured:
        items = self.items(of)
        original, lighter = (
            [Outcome(**answers[self.keys[item]]) for item in items]
            for answers in (self.kept.original, self.kept.gate["answers"])
        )
        if original == lighter and (self.same or (self.text is not None and self.text.identical)):
            return Measured(1.0, (1.0, 1.0), exact=True)
        if self.units(of) == 1 and len(items) > 1:
            missing = Message("its questions are all of one group, and nothing tells how groups differ")
            return Measured(None, missing=missing)
        lower, upper = (
            compare_skills(items, original, lighter, examples=0, confidence=1 - 2 * error)[0]["retention"]
            for error in (low, high)
        )
        if lower["value"] is None:
            missing = Message(
                "there is nothing to keep as far as {count} questions tell: {reason}",
                count=len(items),
                reason=lower["reason"],
            )
            return Measured(None, missing=missing)
        return Measured(lower["value"], (lower["interval"][0], upper["interval"][1]))

    def used(self) -> dict[str, int]:
        return {"questions": sum(len(self.items(skill)) for skill in self.groups)}

    def items(self, of: str) -> list[Item]:
        """The questions of a skill that are in."""
        return [item for group in self.groups[of][: self.taken[of]] for item in group]

    def _answers(self, engine: Engine, items: Mapping[str, Item], stage: str) -> dict[str, Any]:
        found = score(engine, list(items.values()), chat=self.chat, on_event=self.pair.on_event, stage=stage)
        return {key: asdict(outcome) for key, outcome in zip(items, found, strict=True)}


class Speed:
    """Rounds in which both models take turns. The median of their ratios is judged: a busy machine spoils some."""

    fewest = 12

    def __init__(self, pair: Pair, prompt: Sequence[int], kept: Kept) -> None:
        self.pair, self.prompt, self.kept, self.taken = pair, prompt, kept, 0

    def units(self, of: str) -> int:
        return ROUNDS

    def take(self, wanted: Mapping[str, int]) -> None:
        ratios: dict[str, list[float]] = self.kept.gate.get("rounds", {"prefill": [], "decode": []})
        self.taken = max(wanted.values())
        more = self.taken - len(ratios["prefill"])
        if more > 0:
            models = self.pair.original, self.pair.lighter
            speeds = take_turns(*models, self.prompt, rounds=more, on_event=self.pair.on_event)
            for what, both in speeds.items():
                ratios[what] += [b / a for a, b in zip(both["original"], both["lighter"], strict=True)]
            self.kept.keep("rounds", ratios)

    def figure(self, name: str, of: str, low: float, high: float) -> Measured:
        ratios = self.kept.gate["rounds"][name.partition(".")[0]][: self.taken]
        lower, upper = (median_interval(ratios, 1 - 2 * error) for error in (low, high))
        ends = None if lower is None or upper is None else (lower[0], upper[1])
        return Measured(median(ratios), ends, missing=Message("{count} rounds are too few for one", count=len(ratios)))

    def used(self) -> dict[str, int]:
        return {"rounds": self.taken}


@dataclass(frozen=True)
class Found:
    """Windows of one document behind the other: `clusters` of each, where each document `ends` among them,
    and the `documents` that they are cut from, where these are known."""

    windows: list[Tensor]
    clusters: list[int]
    ends: list[int]
    notes: list[Message]
    documents: list[str] = field(default_factory=list)


def find_windows(original: str | Path, lighter: str | Path, material: GateMaterial, seed: int) -> Found:
    """The windows of a gate in the order in which it takes them; none where there is no text.

    Raises UsageError where the tokenizers differ, or where there is too little text for a window.
    """
    notes: list[Message] = []
    texts: list[str] = []
    tokenizer = shared_tokenizer(original, lighter)
    windows = ready_windows(material.text or (), tokenizer)
    documents = [document for document in material.text or () if isinstance(document, str)]
    if documents:
        contexts = [n for n in map(context_of, (original, lighter)) if n is not None]
        length = min([material.window, *contexts])
        located = located_windows(
            documents, tokenizer, material.windows, length, seed, Message("The text set aside for gates")
        )
        located = alike_windows(located, tokenizer, notes)
        labels, _ = clusters_of(located, notes)
        places: dict[int, list[int]] = {}
        for i, label in enumerate(labels):  # in the order they were drawn in, each document's together
            places.setdefault(label, []).append(i)
        order = [i for some in places.values() for i in some]
        windows, clusters = [located[i].tokens for i in order], [labels[i] for i in order]
        texts = [documents[located[i].document] for i in order]
    else:
        clusters = list(range(len(windows)))
        Random(seed).shuffle(clusters)
        windows = [windows[i] for i in clusters]
    ends = [i + 1 for i in range(len(clusters)) if i + 1 == len(clusters) or clusters[i + 1] != clusters[i]]
    return Found(windows, clusters, ends, notes, texts)


def grouped(items: Sequence[Item], seed: int) -> dict[str, list[list[Item]]]:
    """Of each skill its groups of questions in the order in which they are asked."""
    found: dict[str, list[list[Item]]] = {}
    for skill, places in by_skill(items).items():
        groups: dict[Any, list[Item]] = {}
        for number, item in enumerate(items[place] for place in places):
            groups.setdefault((number,) if item.group is None else item.group, []).append(item)
        found[skill] = list(groups.values())
        Random(f"{seed} {skill}").shuffle(found[skill])
    return found


def key_of(item: Item) -> str:
    """What a question's answers are kept under."""
    return _digest(item.record())[:24]


def mark_of(model: str | Path) -> str:
    """SHA-256 of a model's files."""
    if is_gguf(model):
        return sha256(Path(model))
    return _digest({name: about.get("sha256") for name, about in hashed_files(find_folder(model)).items()})


def mark_of_material(material: GateMaterial, windows: Sequence[Tensor]) -> str:
    """SHA-256 of all that may be asked."""
    files = {name: sha256(Path(file)) for name, file in material.files.items()}
    asked = [[window.tolist() for window in windows], [key_of(item) for item in material.items], material.chat]
    return _digest([*asked, files] if files else asked)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
