"""The lighter model against its original: divergence, skills, size, speed and memory on the same material, one verdict.

The result is plain JSON (`"format": "whet.compare"`, `"version": 1`); a change that renames or removes a key raises the
version. Its keys:

    verdict     "pass" | "fail" | "inconclusive" by `limits`, the limits judged by
    judgements  a list, one entry a limit (min_retention: one a skill): limit, at, of, value, interval, verdict, reason
    text        source, part ("all" | "report"), fingerprint, documents, documents_used, split_by, windows,
                window (tokens), tokens, clusters, clustered_by ("documents" | "windows")
    divergence  kl {mean, standard_error, interval, percentiles} in nats a token, top1, perplexity {original, lighter,
                ratio, log_ratio}, confidence: `whet.measure.divergence.summarize`. Intervals: None with one cluster;
                of a model with a class head its classes or scores: `whet.measure.classes.summarize_answers`
    skills      a list, one entry a skill; see `whet.measure.skills.compare_skills`. [] when none were given
    tasks       a list, one entry a task of the evaluation harness, paired item by item; see
                `whet.measure.tasks.run_tasks`. [] when none were asked for
    aspects     by name what was measured of it: readings (figure, of, value, interval, original, lighter, exact),
                examples, notes, and what it tells besides; see `whet.measure.aspects`
    size        original, lighter: bytes by part; shrink: total of the original over total of the lighter
    speed       prefill, decode side by side; see `whet.measure.speed.side_by_side`. None when not asked for
    memory      original, lighter: load_seconds, peak_bytes, before_bytes, or error. None when not asked for
    notes       sentences a reader of the figures has to know
    options     what it was asked with; environment: machine and versions; seconds: how long it took
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from numpy.typing import NDArray

import whet
from whet.checkpoint import check_files, rows_between
from whet.checkpoint.model_files import model_file
from whet.engines.cache import find_cache
from whet.engines.opening import keep, must_have_precision, open_engine
from whet.engines.streamed import StreamedEngine
from whet.engines.torch import open_model
from whet.errors import UsageError, verb
from whet.events import OnEvent, Part, Stage, Way, ignore
from whet.measure.asked import Asked, Given, read_given
from whet.measure.aspects import Aspect, Case, Sides, check_files_of_aspects, chosen
from whet.measure.classes import TASKS, ask_both, kind_of, summarize_answers
from whet.measure.costs import Costs
from whet.measure.divergence import by_token, divergence, summarize, sums
from whet.measure.items import Item, read_skills
from whet.measure.limits import judgements, overall, resolve_limits
from whet.measure.positions import by_position
from whet.measure.records import Material
from whet.measure.sides import (
    answers_of,
    config_of,
    folder_of,
    item_tokens,
    memory_of,
    must_be_askable,
    must_be_streamable,
    must_be_this_way_round,
    must_have_disk,
    must_have_room,
    seconds_a_token,
    size_of,
    stored_blocks,
)
from whet.measure.skills import compare_skills, score
from whet.measure.speed import footprint, side_by_side
from whet.measure.tasks import named_tasks, run_tasks
from whet.measure.vectors import ask_both as vectors_of_both
from whet.measure.vectors import pooling, summarize_vectors
from whet.messages import Message

VERSION = 1


@verb
def compare(
    original: str | Path,
    lighter: str | Path,
    *,
    text: str | Path | Sequence[str] | None = None,
    skills: str | Path | Sequence[Mapping[str, Any]] | None = None,
    field: str = "text",
    classes: str = "",
    chat: bool = False,
    skip_bad: bool = False,
    windows: int | None = 256,
    window: int = 512,
    batch_tokens: int = 2048,
    limits: Mapping[str, float | None] | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: str | None = None,
    kv: str | None = None,
    precision: int | None = None,
    streamed: bool = False,
    speed: bool = True,
    tasks: Sequence[str] | None = None,
    use_report_split: bool | None = None,
    measure: Sequence[str] | None = None,
    files: Mapping[str, Material] | None = None,
    costs: Costs | None = None,
    examples: int = 3,
    dry_run: bool = False,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """Compare two models; the result is described at the top of this file.

    Args:
        original, lighter: model folders, or finished files, which their own runtimes run; they must share a tokenizer.
        text: a path or hub name (see `whet.text.read_text`, also for `field`, `chat` and `skip_bad`), or documents,
            which are used as they are.
        classes: a field of the text's records that says what kind of document each is (law, chat, edge): the aspect
            languages then tells of each kind by itself.
        skills: a path to items, or items (see `whet.measure.skills.read_skills`).
        windows: how many windows of `window` tokens to sample with `seed`; None takes all of the text, in order.
        batch_tokens: tokens run through a model at once.
        limits: over the defaults max_kl 0.05, min_top1 0.85, max_ppl_ratio 1.1, min_retention 0.95 (every skill);
            min_shrink (original bytes over lighter) is judged only when given. None as a value turns one off.
        dtype: the type both models compute in; None: the one each folder names.
        kv: what the lighter model keeps keys and values in (`whet.engines.cache`): int8, int4, q4_0 or fp8. The result
            then says KL by position too, as `divergence.positions`.
        precision: of a lighter folder of several, the bits that it computes with; the most unless given.
        streamed: keep the lighter model's blocks on disk (`whet.engines.streamed`), in the folder for temporary files:
            memory for the original and one block is enough. Speed and memory are then not measured.
        speed: also time both and measure memory, which opens each model once more in a process of its own.
        tasks: names of tasks of lm-evaluation-harness (extra `tasks`).
        use_report_split: None: only the report part is used when this text also compressed the model (its fingerprint
            is in whet.json), otherwise all. True, False: insist.
        measure: names of aspects (`whet.measure.aspects.chosen`: also all, standard, none, and a name with `-` before
            it to leave it out). None: the standard ones. Of these, those that the models or the material do not
            allow are left out; one that was asked for by name raises UsageError instead.
        files: by aspect, material of its own: a path, or records as its file has them.
        costs: of the machine, for the aspect energy.
        examples: at most so many flips are shown for each skill and direction.
        dry_run: check everything that can be checked, and say what it would take: `seconds` (a rough guess), `memory`
            and `disk` in bytes, beside `text`, `items`, `size` and `notes`. No model is opened.

    Raises UsageError for no text, an unknown limit, folders or tokenizers that do not fit each other, text that cannot
    be read or is too short; GateError when the lighter model gives logits that are not finite; MachineError for a
    missing device or package.
    """
    for kind in () if kv is None else kv.split(","):
        find_cache(kind)
    original, lighter = model_file(original), model_file(lighter)
    must_have_precision(lighter, precision)
    asked = Asked(original, lighter, field, chat, skip_bad, windows, window, batch_tokens, seed, device, dtype,
                   speed and not streamed, tuple(tasks or ()), use_report_split, examples, dict(files or {}),
                   costs or Costs(), kv, precision, streamed, classes)  # fmt: skip
    return _compared(asked, text, skills, limits, measure, dry_run, on_event)


def _compared(
    asked: Asked,
    text: str | Path | Sequence[str] | None,
    skills: str | Path | Sequence[Mapping[str, Any]] | None,
    limits: Mapping[str, float | None] | None,
    measure: Sequence[str] | None,
    dry_run: bool,
    on_event: OnEvent,
) -> dict[str, Any]:
    """`compare`, whose arguments are gathered."""
    original, lighter = asked.original, asked.lighter
    started = time.monotonic()
    answers, task = answers_of(original, lighter)
    taken = chosen(measure)
    resolve_limits(limits, skills is not None, answers, [aspect.name for aspect in taken])
    given_text, items = _material(asked, task, text, skills, on_event)
    size = {"original": size_of(original), "lighter": size_of(lighter)}
    must_be_this_way_round(original, lighter, size)
    if asked.streamed:
        must_be_streamable(original, lighter)
    given = read_given(asked, given_text, task)
    aspects, left_out = _measurable(taken, Case(asked, given, items, task), measure or ())
    limits_used = resolve_limits(limits, skills is not None, answers, [aspect.name for aspect, _ in aspects])
    stages = _stages(asked, given, items, aspects)
    needs: dict[str, Any] = {
        "seconds": sum(stage.seconds for stage in stages),
        "memory": memory_of(original, lighter, asked.dtype, asked.streamed),
        "disk": stored_blocks(original, asked.dtype) if asked.streamed else 0,
    }
    on_event({"event": "plan", **needs})
    if dry_run:
        about = {"format": "whet.compare", "version": VERSION, "dry_run": True, **needs}
        return {**about, "text": given.described, "items": len(items), "size": size, "notes": given.notes}
    must_have_room(needs["memory"], asked.device)
    with tempfile.TemporaryDirectory(prefix="whet-") as scratch:
        must_have_disk(needs["disk"], scratch)
        way = Way(on_event, stages)
        result = _measured(asked, given, items, size, limits_used, aspects, Path(scratch), way)
    result["notes"] += left_out
    return result | {"seconds": time.monotonic() - started}


def _material(
    asked: Asked,
    task: str,
    text: str | Path | Sequence[str] | None,
    skills: str | Path | Sequence[Mapping[str, Any]] | None,
    on_event: OnEvent,
) -> tuple[str | Path | Sequence[str], list[Item]]:
    """The text and the items, checked against what the models can be asked, and the files of the models checked."""
    check_files_of_aspects(asked.files)
    must_be_askable(asked.original, task, skills, asked.tasks)
    if text is None:
        raise UsageError(
            "There is no text to compare on. Give a text that neither model was made with (--text FILE), of the kind "
            "the model is used for."
        )
    if asked.tasks:
        named_tasks(asked.tasks)
    items = [] if skills is None else read_skills(skills)
    for model in (asked.original, asked.lighter):
        check_files(model, on_event)
    return text, items


def _measured(
    asked: Asked,
    given: Given,
    items: Sequence[Item],
    size: Mapping[str, Mapping[str, int]],
    limits: Mapping[str, float],
    aspects: Sequence[tuple[Aspect, Case]],
    scratch: Path,
    on_event: OnEvent,
) -> dict[str, Any]:
    """All figures and their verdict. scratch: for blocks that lie on disk."""
    sides = {"original": asked.original, "lighter": asked.lighter}
    prompt, memory = given.prompt, dict[str, Any]()
    stage = Stage(on_event, "memory", len(sides))
    for name, model in sides.items() if prompt else ():
        # before the models are opened here, so that the two processes do not have to find room beside them
        bits = asked.precision if name == "lighter" else None
        memory[name] = footprint(model, prompt, device=asked.device, dtype=asked.dtype, precision=bits)
        stage.step()
    engines = _opened(asked, scratch)
    if asked.kv is not None:
        keep(engines[1], asked.kv)
    measured = _divergence(engines, asked, given, [aspect for aspect, _ in aspects], on_event)
    outcomes = [
        score(engine, items, chat=asked.chat, on_event=on_event, stage=f"skills, {name}") if items else []
        for name, engine in zip(sides, engines, strict=True)
    ]
    both = Sides(engines[0], engines[1], measured.collected, outcomes if items else ())
    result: dict[str, Any] = {
        "format": "whet.compare",
        "version": VERSION,
        "verdict": None,
        "judgements": [],
        "limits": limits,
        **{name: str(model) for name, model in sides.items()},
        "text": given.described,
        "divergence": measured.figures,
        "skills": compare_skills(items, outcomes[0], outcomes[1], asked.examples),
        "aspects": {aspect.name: aspect.measure(case, both, on_event) for aspect, case in aspects},
        "size": {**size, "shrink": size["original"]["total"] / size["lighter"]["total"]},
        "speed": side_by_side(engines[0], engines[1], prompt, on_event=on_event) if prompt else None,
        "memory": memory or None,
        "tasks": run_tasks(engines[0], engines[1], asked.tasks, asked.seed, on_event) if asked.tasks else [],
        "notes": [*given.notes, *measured.notes],
        "options": {
            "field": asked.field,
            **({"classes": asked.classes} if asked.classes else {}),
            "chat": asked.chat,
            "skip_bad": asked.skip_bad,
            "windows": asked.windows,
            "window": asked.window,
            "seed": asked.seed,
            "device": str(engines[0].device),
            "dtype": [engine.dtype for engine in engines],
            "batch_tokens": asked.batch_tokens,
            **({} if (kv := _kept(asked, engines[1])) is None else {"kv": kv}),
            **({} if asked.precision is None else {"precision": asked.precision}),
            **({"streamed": True} if asked.streamed else {}),
        },
        "environment": environment(),
    }
    result["judgements"] = judgements(result, identical=measured.identical and outcomes[0] == outcomes[1])
    result["verdict"] = overall(result["judgements"])
    return result


def _kept(asked: Asked, lighter: Any) -> str | None:
    """What the lighter model keeps keys and values in: what was asked for, or what its folder says."""
    return asked.kv or getattr(lighter, "own", None)


def _opened(asked: Asked, scratch: Path) -> list[Any]:
    """Both models; of one whose blocks are to lie on disk these are there before the other is opened."""
    device, dtype, bits = asked.device, asked.dtype, asked.precision
    if not asked.streamed:
        return [open_engine(asked.original, device, dtype), open_engine(asked.lighter, device, dtype, precision=bits)]
    lighter = StreamedEngine(open_model(asked.lighter, device, dtype, precision=bits), scratch)
    return [open_model(asked.original, device, dtype), lighter]


class _Divergence(NamedTuple):
    """The figures on text, whether both models said the same of all of it, what a reader has to know, and what was
    collected of every token."""

    figures: dict[str, Any]
    identical: bool
    notes: list[Message]
    collected: Mapping[str, NDArray[Any]] = {}


def _divergence(
    engines: Sequence[Any], asked: Asked, given: Given, aspects: Sequence[Aspect], on_event: OnEvent
) -> _Divergence:
    """Both models on the windows: what they predict, or the classes or scores that they give."""
    original, lighter = engines
    if (task := engines[0].task) == "states":
        pooled = pooling(folder_of(asked.original))
        vectors = vectors_of_both(original.model, lighter.model, given.windows, asked.batch_tokens, pooled, on_event)
        return _Divergence(summarize_vectors(vectors, given.clusters), vectors.identical, [])
    if task in TASKS:
        found = ask_both(original.model, lighter.model, given.windows, asked.batch_tokens, on_event)
        kind = kind_of(task, config_of(asked.original), found.original.shape[1])
        return _Divergence(summarize_answers(found, kind, TASKS[task], given.clusters), found.identical, [])
    rows = rows_between(asked.original, asked.lighter)
    collect = [each.collect for each in aspects if each.collect is not None]
    scores = divergence(original, lighter, given.windows, asked.batch_tokens, on_event, rows, collect)
    figures = summarize(scores, given.clusters)
    if _kept(asked, lighter) is not None:
        figures["positions"] = by_position(scores.kl, given.windows)
    return _Divergence(figures, sums(scores).identical, scores.notes, by_token(scores))


def _measurable(
    taken: Sequence[Aspect], case: Case, named: Sequence[str]
) -> tuple[list[tuple[Aspect, Case]], list[Message]]:
    """The aspects that can be measured, each with its case, and a note on each that was asked for with others and
    cannot."""
    known = {aspect.name for aspect in taken}
    if case.asked.classes and "languages" not in known:
        raise UsageError("Classes of documents are told by the aspect languages. Measure it too: --measure languages.")
    for name in case.asked.files:
        if name not in known:
            raise UsageError(
                "Material was given for {name}, which is not measured. Measure it too: --measure {name}.", name=name
            )
    aspects, left_out = [], []
    for aspect in taken:
        mine = replace(case, file=case.asked.files.get(aspect.name))
        why = aspect.lacking(mine)
        if why is None:
            aspects.append((aspect, mine))
        elif aspect.name in named:
            raise UsageError("{name} cannot be measured: {why}.", name=aspect.name, why=why)
        elif "all" in named:
            left_out.append(Message("{name} was not measured: {why}.", name=aspect.name, why=why))
    return aspects, left_out


def _stages(asked: Asked, given: Given, items: Sequence[Item], aspects: Sequence[tuple[Aspect, Case]]) -> list[Part]:
    """What is done, in this order, with about how long it takes."""
    each = seconds_a_token(asked.original, asked.dtype)
    stages = [Part("divergence", 2 * each * given.described["tokens"])]
    stages += [Part(f"skills, {name}", each * item_tokens(items)) for name in ("original", "lighter") if items]
    stages += [Part(aspect.name, took) for aspect, case in aspects if (took := aspect.seconds(case, each))]
    if given.prompt:
        stages = [Part("memory", 12), *stages, Part("speed", 8)]
    return [*stages, Part("tasks", 120 * len(asked.tasks))] if asked.tasks else stages


def environment() -> dict[str, Any]:
    """The machine and the versions the figures hold for."""
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "whet": whet.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
