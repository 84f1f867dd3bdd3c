"""Budgets: score, plan, compress, measure, plan again from what was measured; the best that was measured stays.

Everything lies in the run's folder as it is finished: scores, what the original answers, and each round's lighter
folder with what was measured on it. So a budget's run resumes like any other. A round is a whole `compress` in a folder
of its own; the last step moves the best round's files to where they were asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from whet import __version__
from whet.anatomy import Linear
from whet.budget import parse_size, tables, tensor_bytes, write_plan
from whet.budget.mix import Budget, Offers, make_plan, must_be_possible, offered
from whet.checkpoint import (
    Checkpoint,
    read_header,
    read_tensor,
    sha256,
    size_on_disk,
    sync_folder,
    write_bytes,
    write_json,
    write_tensors,
)
from whet.errors import GateError, UsageError
from whet.events import OnEvent, ignore, note_event
from whet.grids import Grid
from whet.measure.skills import Item, parse_item, read_skills
from whet.messages import Message, listed
from whet.recipe.decide import Decision, decide, scale_dtype
from whet.recipe.judging import judging_bytes, with_transform
from whet.recipe.page import loading
from whet.recipe.room import check_room, estimate
from whet.recipe.rounds import QUALITY_ROUNDS, ROUNDS, Round, best_of, figures, search, worst
from whet.recipe.running import RUN, choices, refuse_other_files
from whet.recipe.schema import resolved
from whet.recipe.scoring import score, unscored
from whet.recipe.self_written import write_text
from whet.recipe.transforming import check_transform, transformed_bytes
from whet.report import card_section, page
from whet.targets import find_target
from whet.walk import alone

CARD = "## What was planned"
_TYPICAL = 4  # bits of a quality's mix, before there is one


def plan(
    model: str | Path,
    out: str | Path | None = None,
    *,
    fit: str | int | None = None,
    bits: float | None = None,
    quality: float | None = None,
    target: str = "transformers",
    solver: str = "gptq",
    text: Any = None,
    field: str = "text",
    chat: bool = False,
    samples: int = 128,
    window: int = 2048,
    seed: int = 0,
    device: str = "auto",
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """The best mix of schemes for a budget, as predicted (`whet.budget.plan`); written to the file `out` if given.

    Exactly one of fit (bytes of the weight files, `400MB`, or `25%` of the original's), bits (stored bits a parameter,
    everything counted) and quality (a share q of the original's: predicted KL at most −ln q). Nothing is compressed:
    `compress` with the same budget also measures and plans again. Raises UsageError with the smallest possible budget
    where this one cannot be met.
    """
    started = time.monotonic()
    decision = _material(model, target, solver, text, None, field, chat, samples, window, seed, device)
    budget = budget_of(decision.checkpoint, fit, bits, quality)
    _must_be_possible(decision, budget)
    decision.recipe["model_sha256"] = decision.checkpoint.examine()
    scores = _score(decision, [], None, seed, on_event)
    found = make_plan(scores, find_target(target), budget, solver=decision.recipe["solver"])
    found["model"]["sha256"] = decision.recipe["model_sha256"]
    if out is not None:
        write_plan(out, found)
    return {**found, "seconds": time.monotonic() - started}


def budget_of(checkpoint: Checkpoint, fit: str | int | None, bits: float | None, quality: float | None) -> Budget:
    """The one budget that was given. Raises UsageError for none, or several."""
    given = [name for name, value in (("fit", fit), ("bits", bits), ("quality", quality)) if value is not None]
    if len(given) != 1:
        raise UsageError(
            "A plan needs one budget, {count} were given. Give one of fit (400MB, 25%), bits (3.5) and quality (0.98).",
            count=len(given),
        )
    if fit is not None:
        whole = size_on_disk(checkpoint.path)["weights"]
        return Budget("bytes", float(parse_size(fit, whole)), f"--fit {fit}")
    if bits is not None:
        return Budget("bits", float(bits), f"--bits {bits:g}")
    assert quality is not None
    return Budget("quality", float(quality), f"--quality {quality:g}")


def budgeted(
    model: str | Path,
    out: str | Path,
    *,
    fit: str | int | None = None,
    bits: float | None = None,
    quality: float | None = None,
    skills: str | Path | Sequence[Mapping[str, Any]] | None = None,
    target: str = "transformers",
    solver: str = "gptq",
    transform: str | None = None,
    synthetic: int | None = None,
    text: Any = None,
    eval_text: Any = None,
    field: str = "text",
    chat: bool = False,
    samples: int = 128,
    window: int = 2048,
    seed: int = 0,
    device: str = "auto",
    dry_run: bool = False,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """`compress` to a budget: as there, with `plan`, the `rounds` that were measured, and the best of them in `out`.

    skills: questions that a quality also has to keep, each skill's retention at least that share by one standard error.
    Raises GateError where no mix that was tried keeps a quality.
    """
    out = Path(out)
    items = read_skills(skills) if skills is not None else []
    decision = _material(
        model,
        target,
        solver,
        text,
        eval_text,
        field,
        chat,
        samples,
        window,
        seed,
        device,
        transform,
        synthetic,
    )
    budget = budget_of(decision.checkpoint, fit, bits, quality)
    if budget.kind == "quality" and not decision.verify:
        raise UsageError(
            "{budget} is measured on text that solves nothing, and too little is left for that: give more text, or "
            "--eval FILE.",
            budget=budget.asked,
        )
    if budget.kind == "bytes" and budget.value >= size_on_disk(decision.checkpoint.path)["weights"]:
        raise UsageError(
            "{budget} is no less than the original takes already: nothing has to be made lighter.", budget=budget.asked
        )
    _must_be_possible(decision, budget)
    begun = refuse_other_files(out, decision, "budget.json")
    check_transform(decision)
    needs = _needs(decision, budget)
    on_event({"event": "plan", **needs})
    check_room(out, needs)
    if dry_run:
        return {"dry_run": True, "out": str(out), **choices(decision), **needs, "notes": decision.notes}
    decision.recipe["model_sha256"] = decision.checkpoint.examine()
    write_text(decision, samples, on_event)
    run = out / RUN
    mark = _mark(decision, budget, items)
    if begun:
        kept = json.loads((run / "budget.json").read_text(encoding="utf-8"))
        decision.asked = kept["asked"]
        if (kept["mark"], kept["whet"]) != (mark, __version__):
            raise UsageError(
                "{out} holds a stopped run of another budget, model, text or version of whet. Give what it began "
                "with, or start in a new folder.",
                out=out,
            )
    else:
        decision.asked = resolved(
            model,
            {
                "fit": fit,
                "bits": bits,
                "quality": quality,
                "skills": skills,
                "solver": decision.recipe["solver"],
                "transform": transform,
                "synthetic": decision.recipe["synthetic"],
                "target": target,
                "text": text,
                "eval_text": eval_text,
                "field": field,
                "chat": chat,
                "samples": samples,
                "window": window,
                "seed": seed,
            },
        )
        _begin(run, decision, budget, items, mark)
    return _go(out, decision, budget, items, on_event)


def resume_budgeted(out: Path, on_event: OnEvent) -> dict[str, Any]:
    """Go on with a budget's run that was stopped in `out`."""
    run = out / RUN
    kept = json.loads((run / "budget.json").read_text(encoding="utf-8"))
    recipe = kept["recipe"]
    torch.set_num_threads(recipe["threads"])
    stored = read_header(run / "windows.safetensors")
    solve, verify = (
        [read_tensor(stored[n]) for n in sorted(stored) if n.startswith(kind)] for kind in ("solve", "verify")
    )
    decision = _material(
        recipe["model_path"], recipe["target"], recipe["solver"], solve, verify or None, "text", False, len(solve), 8,
        recipe["seed"], recipe["device"], recipe["transform"],
    )  # fmt: skip
    decision.verify, decision.asked = verify, kept["asked"]
    decision.notes = [Message.read(note) for note in kept["notes"]]
    decision.recipe |= {key: recipe[key] for key in ("text", "compute", "synthetic")}
    decision.recipe["model_sha256"] = decision.checkpoint.examine()
    items = [parse_item(record, Message("skill item {number}", number=i)) for i, record in enumerate(kept["items"])]
    budget = Budget(**kept["budget"])
    if _mark(decision, budget, items) != kept["mark"] or kept["whet"] != __version__:
        raise UsageError(
            "{out} holds a stopped run of another model or version of whet than this. Give what it began with, or "
            "start in a new folder.",
            out=out,
        )
    return _go(out, decision, budget, items, on_event)


def _go(out: Path, decision: Decision, budget: Budget, items: Sequence[Item], on_event: OnEvent) -> dict[str, Any]:
    started = time.monotonic()
    run = out / RUN
    for note in decision.notes:
        on_event(note_event(note))
    with alone(run):
        # whatever grids it is, whet's own container holds them
        storage = dataclasses.replace(decision.storage, container="whet", dequantize=False)
        typical = dataclasses.replace(decision, grids=_typical(decision, budget), storage=storage)
        made = with_transform(typical, run, on_event)
        decision = dataclasses.replace(made, grids=decision.grids, storage=decision.storage)
        scores = _scored(run, decision, items, on_event)
        decision = dataclasses.replace(decision, alone=True)
        rounds = search(run, decision, budget, scores, items, on_event)
        best = best_of(rounds, budget, scores)
        if best is None:
            raise GateError(
                "{budget} was not kept by any of the {count} mixes that were made and measured ({tried}). The limit "
                "on KL is {limit:.4f}. Ask for less, give more items of the skill that falls short, or compress with "
                "a larger scheme. What was measured stays for whet resume.",
                budget=budget.asked,
                count=len(rounds),
                tried=listed([_tried(one) for one in rounds], "; "),
                limit=-math.log(budget.value),
            )
        summary = _adopt(out, run, decision, scores, rounds, best)
    (run / "budget.json").unlink()  # first: without it there is no run, so half a removal is no run either
    sync_folder(run)
    shutil.rmtree(run)
    return {**summary, "seconds": {**summary["seconds"], "this call": time.monotonic() - started}}


def _tried(one: Round) -> Message:
    return Message("{bytes:,} bytes: KL {kl:.4f}{worst}", bytes=one.bytes, kl=one.kl, worst=worst(one))


def _material(
    model: Any,
    target: str,
    solver: str,
    text: Any,
    eval_text: Any,
    field: str,
    chat: bool,
    samples: int,
    window: int,
    seed: int,
    device: str,
    transform: str | None = None,
    synthetic: int | None = None,
) -> Decision:
    """The model and the text, checked, with nothing planned yet."""
    if text is None:
        raise UsageError(
            "A budget is planned from what the model does on text: give --text FILE, of the kind it is used for."
        )
    decision = decide(
        model, scheme=find_target(target).simplest, solver=solver, transform=transform, synthetic=synthetic,
        target=target, text=text, eval_text=eval_text, field=field, chat=chat, samples=samples, window=window,
        seed=seed, device=device,
    )  # fmt: skip
    decision.recipe |= {"scheme": None}
    return decision


def _typical(decision: Decision, budget: Budget) -> dict[str, Grid]:
    """For each linear of the blocks the scheme that the target offers with about the bits of the budget: what a
    transform is judged on before there is a plan."""
    every = sum(math.prod(info.shape) for info in decision.checkpoint.stored.values())
    bits = {"bits": budget.value, "bytes": 8 * budget.value / every}.get(budget.kind, _TYPICAL)
    schemes = _schemes(decision)
    return {
        linear.address: min(schemes(linear), key=lambda grid: abs(grid.bits - bits))
        for linear in decision.anatomy.linears()
    }


def _must_be_possible(decision: Decision, budget: Budget) -> None:
    """Refuse a size that nothing fits into before anything is scored."""
    bare = unscored(decision, _schemes(decision))
    must_be_possible(Offers(bare, find_target(decision.recipe["target"]), stock=False), bare, budget)


def _score(
    decision: Decision, items: Sequence[Item], folder: Path | None, seed: int, on_event: OnEvent
) -> dict[str, Any]:
    return score(decision, _schemes(decision), items=items, folder=folder, seed=seed, on_event=on_event)


def _schemes(decision: Decision) -> Callable[[Linear], list[Grid]]:
    """What the target is offered, by linear."""
    own = {linear.address for linear in tables(decision.anatomy)}
    target, scales = find_target(decision.recipe["target"]), scale_dtype(decision.dtype)
    return lambda linear: offered(target, linear.shape, linear.address in own, scales)


def _scored(run: Path, decision: Decision, items: Sequence[Item], on_event: OnEvent) -> dict[str, Any]:
    """Scores from the run's folder, or made and kept there."""
    file = run / "scores.json"
    if not file.is_file():
        write_json(file, _score(decision, items, run, decision.recipe["seed"], on_event))
    scores: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return scores


def _needs(decision: Decision, budget: Budget) -> dict[str, Any]:
    """What a budget's run will take: a round is a whole compression, and rounds lie side by side on the disk."""
    needs = estimate(decision)
    rounds = QUALITY_ROUNDS if budget.kind == "quality" else ROUNDS
    before = tensor_bytes(decision.anatomy, decision.checkpoint.stored, {})
    whole = before["total"]
    if budget.kind == "bytes":
        after = int(budget.value)
    else:
        every = sum(math.prod(info.shape) for info in decision.checkpoint.stored.values())
        after = int(every * (budget.value if budget.kind == "bits" else 8) / 8)
    after = min(after, whole)
    return needs | {
        "bytes": {"before": before, "after": {"total": after}, "ratio": after / whole},
        "disk": rounds * after + 2**20 + transformed_bytes(decision) + judging_bytes(decision, after),
        "seconds": needs["seconds"] * (2 * rounds + 1),  # what parts lose alone takes about what solving does
    }


def _mark(decision: Decision, budget: Budget, items: Sequence[Item]) -> str:
    whole = [decision.fingerprint, dataclasses.asdict(budget), [dataclasses.asdict(item) for item in items]]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _begin(run: Path, decision: Decision, budget: Budget, items: Sequence[Item], mark: str) -> None:
    made = next((p for p in (*reversed(run.parents), run) if not p.exists()), None)
    windows = {f"solve {i:06d}": w for i, w in enumerate(decision.solve)}
    windows |= {f"verify {i:06d}": w for i, w in enumerate(decision.verify)}
    try:
        run.mkdir(parents=True, exist_ok=True)
        write_tensors(run / "windows.safetensors", windows)
        write_json(
            run / "budget.json",
            {
                "budget": dataclasses.asdict(budget),
                "recipe": decision.recipe,
                "notes": decision.notes,
                "items": [_record(item) for item in items],
                "asked": decision.asked,
                "mark": mark,
                "whet": __version__,
            },
        )
    except BaseException:
        shutil.rmtree(made or run, ignore_errors=True)
        raise


def _record(item: Item) -> dict[str, Any]:
    base: dict[str, Any] = {"skill": item.skill, "prompt": item.prompt}
    if item.choices:
        return base | {"choices": list(item.choices), "label": item.label}
    return base | {"answer": item.answer, "check": item.check}


def _adopt(
    out: Path,
    run: Path,
    decision: Decision,
    scores: dict[str, Any],
    rounds: Sequence[Round],
    best: Round,
) -> dict[str, Any]:
    """Move the best round's folder to `out`, with its plan, scores and every round's figures; whet.json comes last."""
    folder = run / f"round {rounds.index(best)}"
    whole = {**best.plan, "measured": [figures(one) for one in rounds]}
    whole["model"] = {"name": decision.recipe["model"], "sha256": decision.recipe["model_sha256"]}
    manifest_file = out / "whet.json"
    if (folder / "whet.json").is_file():
        shutil.copyfile(folder / "whet.json", run / "whet.json")
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name != "whet.json":
                file.replace(out / file.name)
        sync_folder(out)
        (folder / "whet.json").unlink()
    write_plan(out / "plan.json", whole)
    write_json(out / "scores.json", scores)
    manifest = json.loads((run / "whet.json").read_text(encoding="utf-8"))
    for part in best.alone.get("parts", []):
        if len(part["addresses"]) == 1:
            manifest["linears"][part["addresses"][0]]["kl"] = part["kl"]
    told = {"plan": whole, "scores": scores, "lighter": manifest, "loading": loading(manifest)}
    told["name"] = decision.recipe["model"]
    write_bytes(out / "report.html", page(told).encode())
    card = out / "README.md"
    if CARD not in card.read_text(encoding="utf-8"):
        write_bytes(card, f"{card.read_text(encoding='utf-8')}\n{CARD}\n\n{card_section(told)}".encode())
    for name in ("plan.json", "scores.json", "report.html", "README.md"):
        manifest["files"][name] = {"bytes": (out / name).stat().st_size, "sha256": sha256(out / name)}
    write_json(manifest_file, manifest)
    return {
        "out": str(out),
        **choices(decision),
        "container": manifest["container"],
        "sizes": {"original": size_on_disk(decision.original.path), "lighter": size_on_disk(out)},
        "loads_in": "transformers" if manifest["container"] == "compressed-tensors" else "modelling file",
        "kl": best.kl,
        "top1": best.top1,
        "retention": best.retention,
        "plan": whole,
        "linears": manifest["linears"],
        **({"check": {"gguf": manifest["gguf"]}} if "gguf" in manifest else {}),
        "notes": [Message.read(note) for note in manifest["notes"]],
        "seconds": {"scoring": scores["seconds"]},
    }
