"""The end of a step, in order: index, config, the original's other files, the proof, the card, the manifest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from whet.apply.job import Job
from whet.apply.shards import Shards
from whet.budget import write_plan
from whet.checkpoint import (
    ADAPTER,
    CONFIG,
    WEIGHTS,
    Manifest,
    adapter_config,
    adapter_size,
    adapter_tensors,
    copy_beside,
    hashed_files,
    modeling_whet,
    replace,
    write_bytes,
    write_json,
    write_tensors,
)
from whet.events import Stage
from whet.formats import linear_table
from whet.formats.export import FILE, write_verified
from whet.formats.gguf import plan_gguf
from whet.formats.graph_export import about_graph, write_verified_graph
from whet.formats.graphs.write import files_of_graph, plan_graph, stock
from whet.messages import Message, first_of, to_json
from whet.steps.config import modelling_files, read_how, write_config, write_index
from whet.steps.lineage import next_manifest
from whet.steps.options import RECIPE, recipe_text
from whet.steps.proof import prove
from whet.steps.readme import readme
from whet.strict import Note
from whet.targets import find_target
from whet.walk import STARVED, Journal

# What a folder carries that stock transformers cannot hold; the latter two only where it stays packed in memory.
MODELLING = (
    *("modeling_whet.py", "beside_whet.py", "codes_whet.py", "switch_whet.py"),
    *("packing_whet.py", "packed_whet.py"),
)
# Figures on text of models that give scores or hidden states.
_ANSWERED = ("difference", "order", "error", "cosine", "neighbours")


def finish(
    job: Job, shards: Shards, verified: dict[str, Any], recipe: Mapping[str, Any], files: Mapping[str, str]
) -> dict[str, Any]:
    """Make the folder whole; returns the report per linear and what the proof found. Every part may be repeated.

    recipe: what does the same again, for recipe.yaml. files: those of the original that go in as they are, with their
    SHA-256.
    """
    out, journal = shards.out, shards.journal
    report = {a: line for unit in shards.units() for a, line in journal.entries[unit]["linears"].items()}
    notes = [*job.notes, *starved(job, report), *untrained(job, journal)]
    write_index(out, shards, "model" if job.storage.stock else "whet")
    write_config(out, job)
    if job.repaired:
        _write_adapter(out, job, shards)
    copy_beside(job.original.path, out, files)
    if job.plan is not None:
        write_plan(out / "plan.json", job.plan)
    again = {} if job.step == "quantize" else {"again": "whet run recipe.yaml MODEL OUT"}
    write_bytes(out / RECIPE, recipe_text(recipe, **again).encode())
    if not job.storage.stock:
        for name in MODELLING:
            write_bytes(out / name, (Path(modeling_whet.__file__).parent / name).read_bytes())
    for name, code in modelling_files(job.checkpoint.config).items():
        write_bytes(out / name, code)
    stage = Stage(shards.on_event, "finish", 3)
    check = prove(out, job)
    stage.step()
    manifest = _manifest(job, report, verified, notes)
    if job.repaired:
        manifest.adapter = {"rank": job.repair, "modules": len(job.repaired), "bytes": adapter_size(out)}
    if job.storage.finished:
        kind = "gguf" if job.storage.blocks else "graph"
        write = _write_gguf if job.storage.blocks else _write_graph
        check[kind] = write(out, job, manifest.document(), notes)
        setattr(manifest, kind, check[kind] | ({"alone": True} if job.alone else {}))
        manifest.notes = [Note(**to_json(note)) for note in notes]
    stage.step()
    write_bytes(out / "README.md", readme(job, report, verified, notes).encode())
    manifest.files = hashed_files(out)
    write_json(out / "whet.json", manifest.document())
    stage.step()
    return {"report": report, "check": check, "notes": notes}


def _manifest(job: Job, report: dict[str, Any], verified: Mapping[str, Any], notes: list[Message]) -> Manifest:
    table = linear_table(job.apart, job.storage.decode)
    return next_manifest(
        job.original,
        job.record(),
        name=job.name,
        sha256=job.sha256,
        container=job.storage.container,
        target=job.target,
        dequantize=job.storage.dequantize,
        linears={address: {**entry, **_without_mask(report[address])} for address, entry in table.items()},
        masks=_masks(job, report),
        **read_how(job),
        kv=None if job.kv is None else {"kind": job.kv.name},
        transforms=None if job.transforms is None else dict(job.transforms),
        copied=list(job.anatomy.unnamed),
        dropped=job.anatomy.dropped,
        verify=_verified(verified),
        notes=to_json(notes),
    )


def _verified(verified: Mapping[str, Any]) -> dict[str, float]:
    """What was measured on the verifying text, a figure each; of scores and states theirs."""
    found = {name: verified[name] for name in ("kl", "top1") if name in verified}
    scores = verified.get("answers") or {}
    return found | {name: scores[name]["mean"] for name in _ANSWERED if scores.get(name)}


def _without_mask(line: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != "mask"}


def _masks(job: Job, report: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]] | None:
    """What is told of every mask: of those made now, and of those before in linears that stayed as they were."""
    before = (job.original.whet or {}).get("masks") or {}
    found = {}
    for linear in job.anatomy.linears():
        line = report.get(linear.address)
        if line is None and linear.address in before:
            found[linear.address] = before[linear.address]
        elif line is not None and "mask" in line:
            lost = {"error": line["error"]} if job.storage.dense else {}
            found[linear.address] = {**line["mask"], **lost}
    return found or None


def _write_adapter(out: Path, job: Job, shards: Shards) -> None:
    """The adapters of all blocks as one that PEFT loads."""
    assert job.repair is not None
    modules, tensors = job.repaired, dict[str, torch.Tensor]()
    for index in range(len(job.anatomy.blocks)):
        for name, (b, a) in shards.factors(index).items():
            tensors |= adapter_tensors(name, b, a)
    (out / ADAPTER).mkdir(exist_ok=True)
    write_tensors(out / ADAPTER / WEIGHTS, tensors)
    write_json(out / ADAPTER / CONFIG, adapter_config(modules, job.repair, job.anatomy.task))


def untrained(job: Job, journal: Journal) -> list[Message]:
    """Notes on blocks that training did not make better, and on scales that tuning did not."""
    notes = []
    trained = {unit: entry["trained"] for unit, entry in journal.entries.items() if "trained" in entry}
    stayed = [unit for unit, (before, after) in trained.items() if not after < before]
    if stayed:
        notes.append(
            Message(
                "{names} of {count} blocks stay as GPTQ left them: training lost more than it won on the verifying "
                "text. More text (--samples) may help.",
                names=first_of(stayed, 5),
                count=len(trained),
            )
        )
    if trained and job.tuned and not any("tuned" in entry for entry in journal.entries.values()):
        notes.append(Message("scales stay as they were: tuning them lost more than it won on the verifying text"))
    return notes


def starved(job: Job, report: dict[str, Any]) -> list[Message]:
    """A note for each block on the experts that saw too few tokens for a second moment of their own."""
    notes = []
    for index, linears in enumerate(job.anatomy.blocks):
        few = {
            linear.held.expert: report[linear.address]["starved"]
            for linear in linears
            if "starved" in report.get(linear.address, {})
        }
        if few:
            told = ", ".join(f"{expert} ({share:.2%})" for expert, share in few.items())
            notes.append(
                Message(
                    "block {index}: experts {experts} saw fewer than {share:.1%} of the tokens and were rounded with "
                    "the mean importance of their block; more text, or other text, may reach them",
                    index=index,
                    experts=told,
                    share=STARVED,
                )
            )
    return notes


def _write_gguf(out: Path, job: Job, manifest: dict[str, Any], notes: list[Message]) -> dict[str, Any]:
    """Write the file that llama.cpp reads into the folder, and prove it; returns what it holds and what was found."""
    layout = plan_gguf(out, manifest=manifest)
    made = write_verified(layout, out / FILE, out, manifest)
    notes += [note for note in layout.notes if note not in notes]
    return {key: made[key] for key in ("architecture", "types", "bytes", "check", "adapter") if key in made}


def _write_graph(out: Path, job: Job, manifest: dict[str, Any], notes: list[Message]) -> dict[str, Any]:
    """Write the graph that the target's runtime reads into the folder, and prove it; as `_write_gguf`."""
    target, place = find_target(job.target), out / ".graph"
    shutil.rmtree(place, ignore_errors=True)  # of a run that was killed
    made = write_verified_graph(plan_graph(out, target, manifest=manifest), place, out, manifest)
    for name in files_of_graph(target):
        if not (place / name).is_file():
            continue  # an encoder has no genai_config.json
        replace(place / name, out / name)
    shutil.rmtree(place)
    if job.alone:
        write_json(out / "config.json", stock(job.checkpoint.config))
    notes += [note for note in made["notes"] if note not in notes]
    return about_graph(made)
