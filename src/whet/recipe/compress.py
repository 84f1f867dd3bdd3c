"""`compress` and `resume`: a model folder in, a lighter folder out.

The order is: decide and check everything, read the whole model once (finite? which model is it?), then embedding,
blocks and the rest, each written and journalled as it is finished, then config, card and manifest. `whet.json` comes
last: a folder that has it is complete.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from whet.checkpoint import read_header, read_tensor
from whet.errors import UsageError
from whet.events import OnEvent, ignore
from whet.recipe.decide import SOLVER, TARGET, check_asked, decide
from whet.recipe.planning import budgeted, resume_budgeted
from whet.recipe.room import check_room, estimate
from whet.recipe.running import PLAN, RUN, carry_out, choices, examine, go, refuse_other_files, same_run
from whet.recipe.schema import resolved
from whet.recipe.self_written import write_text
from whet.recipe.transforming import check_transform


def compress(
    model: str | Path,
    out: str | Path,
    *,
    scheme: str | None = None,
    embed: str | None = None,
    plan: str | Path | Mapping[str, Any] | None = None,
    fit: str | int | None = None,
    bits: float | None = None,
    quality: float | None = None,
    skills: Any = None,
    solver: str | None = None,
    transform: str | None = None,
    repair: int | None = None,
    synthetic: int | None = None,
    target: str | None = None,
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
    """Write a lighter copy of `model` into the folder `out`.

    What to do is said in one of five ways. scheme: grid of the blocks' linears (`W4A16`, the default; `int4-g32`, …),
    with embed: of embedding and head, None leaves them. plan: a grid for each part, a file or a dict as
    `whet.budget.read_plan` takes it. fit: the most bytes of the weight files (`400MB`, `25%` of the original). bits:
    the most stored bits a parameter, everything counted. quality: the share of the original's to keep, at the fewest
    bytes; skills: items it is to hold for, a path or a list (with fit, bits and quality, which make a plan first).

    solver: `gptq` (the default; or say `good`), `nearest` (`fast`), which needs no text, `gptaq`, which makes up for
    what the blocks before a linear did to its inputs, `block`, which goes on from `gptq` and trains the linears of each
    block together, or `tuned`, which tunes all scales on top of that; `best` is `tuned` with text from the original
    beside yours, where yours is little. synthetic: tokens of such text; with any solver, 0 for none. transform: what
    is folded into the original first, so that it computes the same and rounds otherwise: `smooth`, `awq`, `rotate`,
    `quarot`, `spinquant`, or `auto`, which keeps of the first three what loses less of the whole on the verifying text.
    repair: with scheme and plan, the rank of an adapter that puts back what rounding lost of the blocks' linears, in
    `out`/adapter. target: the runtime that is to load it (`transformers` unless given; a plan names its own).
    text: a path or hub name, a list of documents, or int64 windows `[n, L]`; eval_text: text that verifies instead of a
    tenth of `text`. samples, window: windows solved on and their tokens. dry_run: check and estimate, write nothing.

    Returns a JSON-able dict: `out`, the choices, `sizes`, `kl` on verifying text (nats per token), `linears` with their
    relative errors, `seconds`, `notes`. Raises UsageError for wrong input and MachineError for lack of disk or memory,
    before the long part. A run that was stopped goes on with `resume(out)`, or by the same call again.
    """
    out = Path(out)
    check_asked(
        scheme=scheme, embed=embed, plan=plan, fit=fit, bits=bits, quality=quality, skills=skills, repair=repair
    )
    if fit is not None or bits is not None or quality is not None:
        return budgeted(
            model,
            out,
            fit=fit,
            bits=bits,
            quality=quality,
            skills=skills,
            target=target or TARGET,
            solver=solver or SOLVER,
            transform=transform,
            synthetic=synthetic,
            text=text,
            eval_text=eval_text,
            field=field,
            chat=chat,
            samples=samples,
            window=window,
            seed=seed,
            device=device,
            dry_run=dry_run,
            on_event=on_event,
        )
    decision = decide(
        model,
        scheme=scheme,
        embed=embed,
        plan=plan,
        solver=solver,
        transform=transform,
        repair=repair,
        synthetic=synthetic,
        target=target,
        text=text,
        eval_text=eval_text,
        field=field,
        chat=chat,
        samples=samples,
        window=window,
        seed=seed,
        device=device,
    )
    decision.asked = resolved(
        model,
        {
            "scheme": decision.recipe["scheme"],
            "embed": embed,
            "plan": plan,
            "solver": decision.recipe["solver"],
            "transform": transform,
            "repair": repair,
            "synthetic": decision.recipe["synthetic"],
            "target": decision.recipe["target"],
            "text": text,
            "eval_text": eval_text,
            "field": field,
            "chat": chat,
            "samples": samples,
            "window": window,
            "seed": seed,
        },
    )
    refuse_other_files(out, decision)
    check_transform(decision)
    needs = estimate(decision)
    on_event({"event": "plan", **needs})
    check_room(out, needs)
    if dry_run:
        return {"dry_run": True, "out": str(out), **choices(decision), **needs, "notes": decision.notes}
    examine(decision)
    write_text(decision, samples, on_event)
    return carry_out(out, decision, on_event)


def resume(out: str | Path, *, on_event: OnEvent = ignore) -> dict[str, Any]:
    """Go on with the run that was stopped in `out`; the result has the bytes an undisturbed run would have had.

    Raises UsageError where there is no run to go on with, or where the model it began with has changed.
    """
    out = Path(out)
    run = out / RUN
    if (run / "budget.json").is_file():
        return resume_budgeted(out, on_event)
    if not (run / "recipe.json").is_file():
        if (out / "whet.json").is_file():
            shutil.rmtree(run, ignore_errors=True)
            raise UsageError("{out} is finished: there is nothing to resume.", out=out)
        raise UsageError("{out} holds no stopped run. Give the folder that whet compress was writing to.", out=out)
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    stored = read_header(run / "windows.safetensors")
    solve, verify = (
        [read_tensor(stored[n]) for n in sorted(stored) if n.startswith(kind)] for kind in ("solve", "verify")
    )
    torch.set_num_threads(recipe["threads"])
    decision = decide(
        recipe["model_path"],
        scheme=recipe["scheme"],
        embed=recipe["embed"],
        plan=run / PLAN if recipe["plan"] else None,
        solver=recipe["solver"],
        transform=recipe["transform"],
        repair=recipe["repair"],
        target=recipe["target"],
        text=solve or None,
        eval_text=verify or None,
        field="text",
        chat=False,
        samples=max(1, len(solve)),
        window=8,
        seed=recipe["seed"],
        device=recipe["device"],
    )
    decision.verify = verify
    decision.recipe |= {k: recipe[k] for k in ("text", "compute", "synthetic")}
    decision.notes = recipe["notes"]
    examine(decision)
    decision.asked = same_run(run, decision)["asked"]
    return go(out, decision, on_event)
