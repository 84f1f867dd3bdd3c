"""Gates: what must hold for a step of a recipe to stand, judged on as much evidence as it takes.

    gate: {retention: 0.97, "retention.arithmetic_ko": 0.98, kl: 0.1, top1: 0.9, shrink: 2.0, decode.speedup: 1.5}

A gate looks at an eighth of its material, then at a quarter, a half and all of it, and stops when every limit is passed
or one is broken. A limit passes when the whole interval is on its good side and fails when the whole interval is on the
other. The error is that of the whole gate, over all looks and all limits (`whet.measure.sequential`): in at most 2.5 %
of cases does a gate pass whose true figures break a limit, and in at most 2.5 % does one fail whose true figures hold.
For the first each limit has the 2.5 %, as all of them must pass (Berger, Technometrics 24, 1982, 295-300); for the
second they share it (Bonferroni).
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whet.engines.torch import resolve_device
from whet.errors import UsageError, did_you_mean
from whet.events import OnEvent, Part, Way, ignore
from whet.measure.aspect_evidence import Aspects, gate_case
from whet.measure.aspects import KNOWN, Case
from whet.measure.evidence import (
    ROUNDS,
    Found,
    GateMaterial,
    Kept,
    Memory,
    Pair,
    Size,
    Skills,
    Speed,
    Text,
    find_windows,
    mark_of,
    mark_of_material,
)
from whet.measure.figures import ASPECTS, FIGURES, Source
from whet.measure.judging import SOURCES, Asked, Evidence, conclude, judgings, take_looks
from whet.measure.sequential import SHARES
from whet.measure.sides import (
    item_tokens,
    memory_of,
    must_be_runnable,
    must_have_room,
    must_say_tokens,
    seconds_a_token,
)
from whet.measure.speed import DECODE_TOKENS, PREFILL_TOKENS, prompt_of
from whet.messages import Message

__all__ = ["Gate", "GateMaterial", "check_gate", "gate_seconds", "measure_gate", "parse_gate"]


@dataclass(frozen=True)
class Gate:
    """`limits` as the recipe has them; `asked` one by one, those on skills skill by skill."""

    limits: Mapping[str, float]
    asked: tuple[Asked, ...]

    @property
    def sources(self) -> set[Source]:
        """What has to be measured."""
        return {each.about.source for each in self.asked}

    @property
    def aspects(self) -> list[str]:
        """The aspects that have to be measured."""
        names = {each.figure.partition(".")[0] for each in self.asked if each.about.source == "aspects"}
        return [name for name in KNOWN if name in names]


def parse_gate(
    limits: Any, skills: Sequence[str] = (), *, text: bool = True, source: str = Message("the gate")
) -> Gate:
    """The gate that a recipe asks for.

    limits: figure → limit, where `retention` is for every skill and `retention.SKILL` for one, which then has no other.
    skills: of the questions set aside for gates, in any number of copies. text: whether there is text set aside.
    source: what the gate is called in messages.

    Raises UsageError for no limits, an unknown figure or skill (did-you-mean), a limit that is no number or out of
    range, a figure on text or on questions where there are none.
    """
    if not isinstance(limits, Mapping) or not limits:
        raise UsageError(
            "{source} is no gate: a gate is figures with their limits, such as {{kl: 0.1, retention: 0.97}}, found "
            "{value!r}.",
            source=source,
            value=limits,
        )
    known = list(dict.fromkeys(skills))
    asked: list[Asked] = []
    for name, at in limits.items():
        figure, of = _split(str(name), source)
        about = (FIGURES | ASPECTS)[figure]
        if not about.allows(at):
            raise UsageError(
                "{source}: {name} is {value!r}; a limit on it is a number from {low:g} to {high:g} ({figure}).",
                source=source,
                name=name,
                value=at,
                low=about.low,
                high=about.high,
                figure=about.meaning,
            )
        if about.source == "text" and not text:
            raise UsageError(
                "{source}: {name} is measured on text, and none was set aside for gates. Give text.",
                source=source,
                name=name,
            )
        if about.source == "skills" and not known:
            raise UsageError(
                "{source}: {name} is measured on questions, and none were set aside for gates. Give skills.",
                source=source,
                name=name,
            )
        if about.source == "skills" and of and of not in known:
            raise UsageError(
                "{source}: no question set aside for gates is of skill {skill}.{near} The skills are: {known}.",
                source=source,
                skill=of,
                near=did_you_mean(of, known),
                known=", ".join(known),
            )
        if figure == "retention" and not of:
            asked += [Asked(figure, float(at), skill) for skill in known if f"retention.{skill}" not in limits]
        else:
            asked.append(Asked(figure, float(at), of, named=bool(of)))
    asked.sort(key=lambda each: SOURCES.index(each.about.source))
    return Gate({str(name): float(at) for name, at in limits.items()}, tuple(asked))


def _split(name: str, source: str) -> tuple[str, str]:
    """The figure that is meant, and of what: a skill, or a part of an aspect; '' for none."""
    known = FIGURES | ASPECTS
    figure, dot, skill = name.partition(".")
    aspect = ".".join(name.split(".")[:2])
    if name in known or (figure == "retention" and dot):
        return (name, "") if name in known else (figure, skill)
    if aspect in ASPECTS:
        return aspect, name.removeprefix(f"{aspect}.")
    raise UsageError(
        "{source}: there is no figure {name}.{near} The figures are: {known}, and retention.SKILL for one skill.",
        source=source,
        name=name,
        near=did_you_mean(name, known),
        known=", ".join(known),
    )


def check_gate(original: str | Path, gate: Gate, material: GateMaterial, seed: int = 0) -> None:
    """Raises UsageError, before there is a lighter model, for what `measure_gate` would refuse afterwards: a model that
    says no tokens, material that a figure lacks, text shorter than a window, a context too short to time."""
    _must_suffice(gate, material, original, original)
    found = _windows(gate, material, original, original, seed)
    windows = found.windows
    _must_be_measurable(gate, gate_case((original, original), material, found, seed))
    if gate.sources & {"memory", "speed"}:
        prompt_of(original, windows, seed)


def measure_gate(
    original: str | Path,
    lighter: str | Path,
    gate: Gate,
    material: GateMaterial,
    *,
    device: str = "auto",
    dtype: str | None = None,
    seed: int = 0,
    folder: str | Path,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """Whether the lighter model passes the gate against its original. Only what the gate asks for is measured.

    folder: where answers and sums are kept as they come, so that a gate that is killed goes on to the same result, and
    later gates of the run do not ask the original again. device, dtype: as for `compare`; seed: the order of material.

    The result is plain JSON:

        verdict     "pass" | "fail" | "undecided" (the evidence is too little and there is no more), `reason` in a
                    sentence
        judgements  one a limit: figure (as the recipe has it), of (its skill, or ''), at, value, interval, look that
                    decided (None: none), reason, verdict (also "not judged": a skill that the original does not have,
                    under `retention`)
        looks       one a look: questions, tokens and rounds so far, and the names of the limits that it decided
        questions, tokens, rounds: what was used; seconds: with those before it was killed; notes: on how
        gate        the limits; seed, device and dtype

    A lighter model that gives numbers that are not finite fails. Raises UsageError for material that a figure lacks or
    that does not fit the models, MachineError where there is too little memory for both.
    """
    started = time.monotonic()
    _must_suffice(gate, material, original, lighter)
    place = resolve_device(device)
    if gate.sources - {"size", "memory"}:
        must_have_room(memory_of(original, lighter, dtype), place)
    found = _windows(gate, material, original, lighter, seed)
    _must_be_measurable(gate, gate_case((original, lighter), material, found, seed))
    marks = mark_of(original), mark_of(lighter)
    ours = [marks[0], place, dtype, material.chat]
    whole = [*ours, marks[1], dict(gate.limits), mark_of_material(material, found.windows), seed]
    kept = Kept.opened(Path(folder), _hash(ours), _hash(whole))
    pair = Pair((original, lighter), place, dtype, Way(on_event, _stages(original, gate, material, dtype)))
    sources: dict[Source, Evidence] = {}
    for source in sorted(gate.sources, key=SOURCES.index):
        sources[source] = (
            Aspects(pair, gate_case(pair.paths, material, found, seed), gate.aspects, kept)
            if source == "aspects"
            else _source(source, pair, material, found, kept, seed, marks[0] == marks[1], sources)
        )
    judging, looks = judgings(gate.asked, lambda source: sources[source]), []
    before = kept.gate.get("seconds", 0.0)

    def on_look(number: int, decided: list[str]) -> None:
        kept.keep("seconds", before + time.monotonic() - started)
        looks.append({**_used(sources), "decided": decided})
        on_event({"event": "look", "look": number, "decided": decided})

    take_looks(judging, on_look)
    verdict, reason = conclude(judging)
    return {
        "verdict": verdict,
        "reason": reason,
        "judgements": [each.record() for each in judging],
        "looks": looks,
        **_used(sources),
        "seconds": kept.gate["seconds"],
        "notes": [*found.notes, *map(Message.read, kept.gate.get("notes", []))],
        "gate": dict(gate.limits),
        "seed": seed,
        "device": place,
        "dtype": dtype,
    }


def gate_seconds(original: str | Path, gate: Gate, material: GateMaterial, dtype: str | None = None) -> float:
    """About how long a gate takes that looks at all of its material."""
    return sum(stage.seconds for stage in _stages(original, gate, material, dtype))


def _stages(original: str | Path, gate: Gate, material: GateMaterial, dtype: str | None) -> list[Part]:
    """What each look measures, in this order, with about how long it takes. The last ones may not be needed."""
    each = seconds_a_token(original, dtype)
    given = sum(len(one.encode()) // 4 if isinstance(one, str) else len(one) for one in material.text or ())
    asking = each * item_tokens(material.items)
    takes: dict[Source, list[Part]] = {
        "text": [Part("divergence", 2 * each * min(given, material.windows * material.window))],
        "skills": [Part("skills, original", asking), Part("skills, lighter", asking)],
        "aspects": [Part("aspects", _ASPECTS * each * min(given, material.windows * material.window))],
        "speed": [Part("speed", 2 * each * ROUNDS * (PREFILL_TOKENS + 4 * DECODE_TOKENS))],
    }
    stages = [Part("memory", 12)] * ("memory" in gate.sources)
    for before, share in itertools.pairwise((0.0, *SHARES)):
        for source in SOURCES:
            if source in gate.sources:
                stages += [Part(name, (share - before) * seconds) for name, seconds in takes.get(source, [])]
    return stages


def _must_suffice(gate: Gate, material: GateMaterial, original: str | Path, lighter: str | Path) -> None:
    """Raises, before anything long, where the material or the models lack what a figure is measured on."""
    parse_gate(gate.limits, [item.skill for item in material.items], text=bool(material.text))
    must_be_runnable((original, lighter), None)
    must_say_tokens(original)


_ASPECTS = 4  # times as long as reading the text, about


def _must_be_measurable(gate: Gate, case: Case) -> None:
    """Raises UsageError where the models or the material do not allow an aspect that the gate is on."""
    for name in gate.aspects:
        why = KNOWN[name].lacking(dataclasses.replace(case, file=case.asked.files.get(name)))
        if why is not None:
            raise UsageError("The gate is on {name}, which cannot be measured: {why}.", name=name, why=why)


def _windows(gate: Gate, material: GateMaterial, original: str | Path, lighter: str | Path, seed: int) -> Found:
    """The windows that the figures are measured on, or that speed and memory take their prompt from."""
    if not material.text or not gate.sources & {"text", "aspects", "speed", "memory"}:
        return Found([], [], [], [])
    return find_windows(original, lighter, material, seed)


def _source(
    source: Source,
    pair: Pair,
    material: GateMaterial,
    found: Found,
    kept: Kept,
    seed: int,
    same: bool,
    others: Mapping[Source, Evidence],
) -> Evidence:
    """The evidence of one source. others: of those before it in SOURCES."""
    if source == "size":
        return Size(*pair.paths)
    if source == "text":
        return Text(pair, found, kept)
    if source == "skills":
        text = others.get("text")
        return Skills(pair, material, kept, seed, same, text if isinstance(text, Text) else None)
    prompt = prompt_of(pair.paths[0], found.windows, seed)
    return Memory(pair, prompt, kept) if source == "memory" else Speed(pair, prompt, kept)


def _used(sources: Mapping[Source, Evidence]) -> dict[str, int]:
    used = {"questions": 0, "tokens": 0, "rounds": 0}
    for evidence in sources.values():
        used |= evidence.used()
    return used


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
