"""Several precisions in one folder: each is made as it would be alone, then all are written as one (`formats.nested`).

A precision's run lies in the folder of the whole run, and resumes as any does; what is left of it in the end is its
part of the one folder. So every precision is, bit for bit, what `whet compress` with its scheme alone gives.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whet.apply.job import Job
from whet.apply.run import Run
from whet.checkpoint import MANIFEST, Manifest, hashed_files, size_on_disk, write_bytes, write_json
from whet.errors import UsageError
from whet.events import OnEvent, Part, Stage, Way, note_event
from whet.formats.nested import INDEX, nest, nested_table
from whet.grids import PRESETS, parse_scheme
from whet.messages import Message, to_json, with_and
from whet.report.numbers import figure
from whet.steps.course import course, reading
from whet.steps.decide import decide
from whet.steps.driver import carry_out, examined, job_of, request_of
from whet.steps.estimate import estimate
from whet.steps.material import Material, with_text
from whet.steps.option_kinds import parse_precisions
from whet.steps.options import Quantize
from whet.targets import find_target

TARGET = "whet"
_INTEGER = re.compile(r"int[2-8]([sz]?)(-g[1-9][0-9]*)?")
_PRESET = re.compile(r"w[2-8]a16")
_APART = ("plan", "fit", "bits", "quality", "latency", "speedup", "transform", "repair", "sparsity", "importance")


def scheme_at(scheme: str, bits: int) -> str:
    """`scheme` with other bits: int4-g32 at 8 is int8-g32, and W4A16 W8A16. Raises UsageError for one that has none."""
    parse_scheme(scheme)
    said = scheme.strip().lower()
    if _PRESET.fullmatch(said):
        return f"W{bits}A16" if f"W{bits}A16" in PRESETS else f"int{bits}s"
    if (match := _INTEGER.fullmatch(said)) is None:
        raise UsageError(
            "precisions are of integers, which may have more or fewer bits, and {scheme} is none. Give a scheme such "
            "as int4-g32 or W4A16.",
            scheme=scheme,
        )
    kind, group = match.groups()
    return f"int{bits}{kind}{group or ''}"


def check_precisions(asked: Quantize) -> tuple[int, ...]:
    """The bits that are asked for. Raises UsageError for what does not go with them."""
    assert asked.precisions is not None
    bits = parse_precisions(asked.precisions)
    given = [name for name in _APART if getattr(asked, name) is not None]
    if given:
        raise UsageError(
            "precisions go with scheme and embed alone, which every precision has with its bits. Leave out {names}.",
            names=with_and(given),
        )
    if asked.target not in (None, TARGET):
        find_target(asked.target)
        raise UsageError(
            "{target} reads one precision of a file. Give --for whet with --precisions, or one scheme for {target}.",
            target=asked.target,
        )
    scheme = asked.scheme or find_target(TARGET).usual
    for one in bits:
        scheme_at(scheme, one)
        if asked.embed is not None:
            scheme_at(asked.embed, one)
    return bits


def alone(asked: Quantize, bits: int) -> Quantize:
    """What is asked for of one precision by itself."""
    scheme = scheme_at(asked.scheme or find_target(TARGET).usual, bits)
    embed = None if asked.embed is None else scheme_at(asked.embed, bits)
    return asked.model_copy(update={"precisions": None, "scheme": scheme, "embed": embed, "target": TARGET})


def decide_all(model: str | Path, asked: Quantize, **more: Any) -> dict[int, Job]:
    """The job of every precision by its bits, the finest first, all on the same text. more: as for `decide`."""
    jobs: dict[int, Job] = {}
    for bits in check_precisions(asked):
        jobs[bits] = decide(model, alone(asked, bits), **more)
        first = next(iter(jobs.values()))
        material = Material(first.solve, first.verify, first.text, first.to_write, first.synthetic)
        more = {**more, "material": material, "compute": first.compute}
    notes = tuple(dict.fromkeys(note for job in jobs.values() for note in job.notes))
    return {bits: dataclasses.replace(job, notes=notes) for bits, job in jobs.items()}


def needs_of(jobs: Mapping[int, Job]) -> dict[str, Any]:
    """What the run will take, as `estimate` has it. Bytes after it are the most there can be."""
    every = {bits: estimate(job) for bits, job in jobs.items()}
    first = every[max(every)]
    before, after = first["bytes"]["before"], dict(first["bytes"]["after"])
    for bits, needs in every.items():
        if bits == max(every):
            continue
        for name, size in needs["bytes"]["after"].items():
            if name != "total" and size != before.get(name):
                after[name] += size
    after["total"] = sum(size for name, size in after.items() if name != "total")
    return first | {
        "bytes": {"before": before, "after": after, "ratio": after["total"] / before["total"]},
        "memory": max(needs["memory"] for needs in every.values()),
        "disk": sum(needs["disk"] for needs in every.values()) + after["total"],
        "seconds": sum(needs["seconds"] for needs in every.values()),
    }


def precisions_course(jobs: Mapping[int, Job]) -> list[Part]:
    """The stages of a run of several precisions."""
    first = next(iter(jobs.values()))
    each = [Part(_name(bits), sum(part.seconds for part in _own(job))) for bits, job in jobs.items()]
    return [reading(first.checkpoint), *(p for p in course(first) if p.name == "write"), *each, Part("nest", 1.0)]


def make_all(
    run: Run, jobs: Mapping[int, Job], recipe: Mapping[str, Any], precisions: str, on_event: OnEvent
) -> dict[str, Any]:
    """Begin the run or go on with it, and see it through; returns as `whet.compress`, with `levels`."""
    started = time.monotonic()
    way = Way(on_event, precisions_course(jobs))
    bits, first = next(iter(jobs.items()))
    first = with_text(examined(first, way), way)
    same = ("solve", "verify", "to_write", "text", "sha256")
    shared = {name: getattr(first, name) for name in same}
    jobs = {bits: first} | {b: dataclasses.replace(job, **shared) for b, job in jobs.items() if b != bits}
    request = request_of(first, recipe, precisions=precisions, budget=None, items=[])
    with run.opened(request, first.solve, first.verify) as began:
        folders = {b: run.folder / _name(b) for b in jobs}
        for b, job in jobs.items():
            _made(folders[b], job, began, Way(way.part(_name(b)), _own(job)))
        shards = len(first.anatomy.blocks) + 2
        tell = way.part("nest")
        adds = nest(folders, run.out, Stage(tell, "nest", shards))
        notes = [_finish(run, folders, jobs, adds)]
        on_event(note_event(notes[0]))
        manifest = json.loads((run.out / MANIFEST).read_text(encoding="utf-8"))
        run.close()
    return {
        "out": str(run.out),
        **first.choices(),
        "precisions": list(jobs),
        "sizes": {"original": size_on_disk(first.original.path), "lighter": size_on_disk(run.out)},
        "loads_in": "modelling file",
        **manifest["verify"],
        "levels": manifest["levels"],
        "linears": manifest["linears"],
        "check": {"stored": "decoded again, equal"},
        "seconds": {"this call": time.monotonic() - started},
        "notes": [Message.read(note) for note in manifest["notes"]],
    }


def resume_all(run: Run, request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Go on with a stopped run, from what it began with."""
    jobs: dict[int, Job] = {}

    def decide_first(model: str | Path, asked: Quantize, **more: Any) -> Job:
        jobs.update(decide_all(model, asked, **more))
        return next(iter(jobs.values()))

    first = job_of(run, request, Quantize, decide_first)
    jobs = {bits: dataclasses.replace(job, notes=first.notes) for bits, job in jobs.items()}
    return make_all(run, jobs, request["recipe"], request["precisions"], run.telling(on_event))


def _name(bits: int) -> str:
    return f"{bits} bits"


def _own(job: Job) -> list[Part]:
    return [part for part in course(job) if part.name not in ("read", "write")]


def _made(folder: Path, job: Job, began: Mapping[str, Any], on_event: OnEvent) -> None:
    """Make the folder of one precision, unless an earlier run finished it."""
    run = Run(folder)
    if (folder / MANIFEST).is_file() and not run.begun:
        return
    carry_out(run, job, began["recipe"], on_event, files=began["files"], budget=None, items=[])


def _finish(run: Run, folders: Mapping[int, Path], jobs: Mapping[int, Job], adds: Mapping[int, int]) -> Message:
    """Write what else the folder has, the manifest last; returns what there is to say of its size. May be repeated."""
    out, finest = run.out, folders[max(folders)]
    every = {b: json.loads((folder / MANIFEST).read_text(encoding="utf-8")) for b, folder in folders.items()}
    config = json.loads((finest / "config.json").read_text(encoding="utf-8"))
    config["whet"]["linears"] = nested_table({b: _config_table(folder) for b, folder in folders.items()})
    manifest = every[max(every)]
    manifest["linears"] = nested_table({b: one["linears"] for b, one in every.items()})
    if manifest.get("reading"):
        manifest["reading"]["linears"] = config["whet"]["linears"]
    sizes = {b: size_on_disk(folder)["weights"] for b, folder in folders.items()}
    manifest["levels"] = {
        str(b): {
            "scheme": jobs[b].scheme,
            "embed": jobs[b].embed,
            **{name: every[b]["verify"][name] for name in ("kl", "top1") if name in every[b]["verify"]},
            "bytes": adds[b],
            "alone": sizes[b],
        }
        for b in sorted(folders, reverse=True)
    }
    manifest["lineage"][-1]["precisions"] = list(manifest["levels"])
    note = Message(
        "one file holds {names} bits in {bytes:,} bytes of weights; files of each alone take {alone:,}",
        names=with_and(list(manifest["levels"])),
        bytes=sum(adds.values()),
        alone=sum(sizes.values()),
    )
    manifest["notes"] = [*manifest["notes"], to_json(note)]
    card = (finest / "README.md").read_text(encoding="utf-8")
    for file in sorted(finest.iterdir()):
        if file.is_file() and file.suffix != ".safetensors" and file.name not in (INDEX, MANIFEST, "README.md"):
            shutil.copyfile(file, out / file.name)
    write_json(out / "config.json", config)
    write_bytes(out / "README.md", f"{card}\n{_section(manifest['levels'])}".encode())
    made = Manifest.model_validate(manifest)
    made.files = hashed_files(out)
    write_json(out / MANIFEST, made.document())
    return note


def _config_table(folder: Path) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = json.loads((folder / "config.json").read_text(encoding="utf-8"))["whet"][
        "linears"
    ]
    return table


def _section(levels: Mapping[str, Mapping[str, Any]]) -> str:
    """What the card says of the precisions."""
    lines = ["## Precisions", "", "Each precision is, bit for bit, the model that is quantized to it alone.", ""]
    lines += ["| bits | scheme | KL, nats a token | same first token | bytes it adds | bytes alone |"]
    lines += ["|---:|---|---:|---:|---:|---:|"]
    for bits, level in levels.items():
        kept = [figure(level["kl"]), f"{level['top1']:.2%}"] if "kl" in level else ["", ""]
        lines.append(
            f"| {bits} | {level['scheme']} | {kept[0]} | {kept[1]} | {level['bytes']:,} | {level['alone']:,} |"
        )
    named = min(levels, key=int)
    lines += ["", "```python", 'model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER", trust_remote_code=True, ']
    lines[-1] += f"precision={named})"
    lines += [f"model.set_precision({max(levels, key=int)})", "```", ""]
    return "\n".join(lines)
