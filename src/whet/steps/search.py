"""To a budget: score, plan, compress, measure, plan again from what was measured; the best that was measured stays.

Everything lies in the run's folder as it is finished: scores, what the original answers, and each round's lighter
folder with what was measured on it. A round is a whole compression in a folder of its own; the last step moves the best
round's files to where they were asked for.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whet.apply.job import Job
from whet.apply.run import Run
from whet.budget import write_plan
from whet.budget.mix import Budget
from whet.checkpoint import TIMES, move_into, sha256, size_on_disk, write_bytes, write_json
from whet.errors import GateError
from whet.events import OnEvent, Stage, note_event
from whet.measure.items import Item
from whet.messages import Message, listed
from whet.report import card_section, page
from whet.report.facts import loading
from whet.steps.budget import offers, typical_grids
from whet.steps.in_time import corrected, measured_time
from whet.steps.rounds import Compress, Round, best_of, figures, rounds_of, worst
from whet.steps.score import score
from whet.transforms.judge import with_transform

CARD = "## What was planned"


def search(
    run: Run, job: Job, budget: Budget, items: Sequence[Item], compress: Compress, on_event: OnEvent
) -> dict[str, Any]:
    """See a run to a budget through, in a run that is open; closes it.

    compress: makes a lighter folder by a job with a plan. items: questions that a quality also has to keep, each
    skill's retention at least that share by one standard error. Returns as `whet.compress`, with `plan`. Raises
    GateError where no mix that was tried keeps a quality.
    """
    started = time.monotonic()
    for note in job.notes:
        on_event(note_event(note))
    # whatever grids it is judged on, whet's own container holds them
    storage = dataclasses.replace(job.storage, container="whet", dequantize=False)
    typical = dataclasses.replace(job, grids=typical_grids(job, budget), storage=storage)
    folded = with_transform(typical, run.folder, on_event)
    job = dataclasses.replace(folded, grids=job.grids, storage=job.storage)
    scores = _scored(run.folder, job, items, on_event)
    budget = corrected(run.folder, job, budget, scores)
    rounds = rounds_of(run.folder, job, budget, scores, items, compress, on_event)
    best = best_of(rounds, budget, scores)
    if best is None:
        tried = [
            Message("{bytes:,} bytes: KL {kl:.4f}{worst}", bytes=one.bytes, kl=one.kl, worst=worst(one))
            for one in rounds
        ]
        raise GateError(
            "{budget} was not kept by any of the {count} mixes that were made and measured ({tried}). The limit on KL "
            "is {limit:.4f}. Ask for less, give more items of the skill that falls short, or compress with a larger "
            "scheme. What was measured stays for whet resume.",
            budget=budget.asked,
            count=len(rounds),
            tried=listed(tried, "; "),
            limit=-math.log(budget.value),
        )
    summary = _adopt(run, job, budget, scores, rounds, best)
    Stage(on_event, "finish", 1).step()
    run.close()
    return {**summary, "seconds": {**summary["seconds"], "this call": time.monotonic() - started}}


def _scored(folder: Path, job: Job, items: Sequence[Item], on_event: OnEvent) -> dict[str, Any]:
    """Scores from the run's folder, or made and kept there."""
    file = folder / "scores.json"
    if not file.is_file():
        write_json(file, score(job, offers(job), items=items, folder=folder, seed=job.seed, on_event=on_event))
    scores: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return scores


def _adopt(
    run: Run,
    job: Job,
    budget: Budget,
    scores: dict[str, Any],
    rounds: Sequence[Round],
    best: Round,
) -> dict[str, Any]:
    """Move the best round's folder to `out`, with its plan, scores and every round's figures; whet.json comes last."""
    out, folder = run.out, run.folder / f"round {rounds.index(best)}"
    whole = {**best.plan, "measured": [figures(one) for one in rounds]}
    whole["model"] = {"name": job.name, "sha256": job.sha256}
    manifest_file = out / "whet.json"
    if (folder / "whet.json").is_file():
        shutil.copyfile(folder / "whet.json", run.folder / "whet.json")
        move_into(out, folder, but="whet.json")
        (folder / "whet.json").unlink()
    write_plan(out / "plan.json", whole)
    times = {"scoring": scores.pop("seconds")}
    write_json(out / "scores.json", scores)
    decoded = measured_time(job, budget, out / "model.gguf")
    decoding = {} if decoded is None else {"decode": decoded}
    write_json(out / TIMES, {"format": "whet.times", "version": 1, "seconds": times, **decoding})
    manifest = json.loads((run.folder / "whet.json").read_text(encoding="utf-8"))
    for address, kl in _alone(rounds, best).items():
        manifest["linears"][address]["kl"] = kl
    told = {"plan": whole, "scores": scores, "lighter": manifest, "loading": loading(manifest, job.checkpoint.config)}
    told["name"] = job.name
    write_bytes(out / "report.html", page(told).encode())
    card = out / "README.md"
    if CARD not in card.read_text(encoding="utf-8"):
        write_bytes(card, f"{card.read_text(encoding='utf-8')}\n{CARD}\n\n{card_section(told)}".encode())
    for name in ("plan.json", "scores.json", "report.html", "README.md"):
        manifest["files"][name] = {"bytes": (out / name).stat().st_size, "sha256": sha256(out / name)}
    manifest["files"][TIMES] = {}
    write_json(manifest_file, manifest)
    return {
        "out": str(out),
        **job.choices(),
        "container": manifest["container"],
        "sizes": {"original": size_on_disk(job.original.path), "lighter": size_on_disk(out)},
        "loads_in": "modelling file" if manifest["container"] == "whet" else "transformers",
        "kl": best.kl,
        "top1": best.top1,
        "retention": best.retention,
        "plan": whole,
        **({} if decoded is None else {"time": {**whole["time"], "measured": decoded}}),
        "linears": manifest["linears"],
        **({"check": written} if (written := {k: manifest[k] for k in ("gguf", "graph") if k in manifest}) else {}),
        "notes": [Message.read(note) for note in manifest["notes"]],
        "seconds": times,
    }


def _alone(rounds: Sequence[Round], best: Round) -> dict[str, float]:
    """What parts of the best round lose by themselves, in nats a token, by address: as measured in the last round that
    had them on the same scheme."""
    return {
        address: part["kl"]
        for one in rounds
        for part in one.marginal.get("parts", [])
        if len(part["addresses"]) == 1
        for address in part["addresses"]
        if one.plan["schemes"][address] == best.plan["schemes"][address]
    }
