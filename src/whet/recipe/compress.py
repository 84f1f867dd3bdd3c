"""`compress` and `resume`: a model folder in, a lighter folder out.

The order is: decide and check everything, read the whole model once (finite? which model is it?), then embedding,
blocks and the rest, each written and journalled as it is finished, then config, card and manifest. `whet.json` comes
last: a folder that has it is complete.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet import __version__
from whet.checkpoint import disk_errors, read_header, read_tensor, size_on_disk, sync_folder, write_json, write_tensors
from whet.errors import UsageError
from whet.events import OnEvent, ignore
from whet.measure.divergence import score_tokens
from whet.recipe.decide import BATCH_TOKENS, Decision, decide, verify_count
from whet.recipe.finish import finish
from whet.recipe.room import check_room, estimate
from whet.recipe.self_written import self_written
from whet.recipe.solving import Solver
from whet.text import batches
from whet.walk import Journal, Walk, alone

RUN = ".whet"


def compress(
    model: str | Path,
    out: str | Path,
    *,
    scheme: str = "W4A16",
    embed: str | None = None,
    solver: str = "gptq",
    target: str = "transformers",
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

    scheme: grid of the blocks' linears (`W4A16`, `int4-g32`, …); embed: of embedding and head, None leaves them.
    solver: `gptq`, or `nearest`, which needs no text. target: the runtime that is to load it.
    text: a path or hub name, a list of documents, or int64 windows `[n, L]`; eval_text: text that verifies instead of a
    tenth of `text`. samples, window: windows solved on and their tokens. dry_run: check and estimate, write nothing.

    Returns a JSON-able dict: `out`, the choices, `sizes`, `kl` on verifying text (nats per token), `linears` with their
    relative errors, `seconds`, `notes`. Raises UsageError for wrong input and MachineError for lack of disk or memory,
    before the long part. A run that was stopped goes on with `resume(out)`, or by the same call again.
    """
    out = Path(out)
    decision = decide(
        model,
        scheme=scheme,
        embed=embed,
        solver=solver,
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
    started_before = _check_out(out, decision)
    needs = estimate(decision)
    on_event({"event": "plan", **needs})
    check_room(out, needs)
    if dry_run:
        return {"dry_run": True, "out": str(out), **_choices(decision), **needs, "notes": decision.notes}
    decision.recipe["model_sha256"] = decision.checkpoint.examine()
    if decision.to_write:
        count = samples + verify_count(samples)
        own = self_written(
            decision.checkpoint, count, decision.recipe["text"]["window"], seed, decision.device, on_event
        )
        decision.solve, decision.verify, decision.to_write = own[:samples], own[samples:], 0
    run = out / RUN
    if started_before:
        _same_run(run, decision)
    else:
        _begin(run, decision)
    return _go(out, decision, on_event)


def resume(out: str | Path, *, on_event: OnEvent = ignore) -> dict[str, Any]:
    """Go on with the run that was stopped in `out`; the result has the bytes an undisturbed run would have had.

    Raises UsageError where there is no run to go on with, or where the model it began with has changed.
    """
    out = Path(out)
    run = out / RUN
    if not (run / "recipe.json").is_file():
        if (out / "whet.json").is_file():
            shutil.rmtree(run, ignore_errors=True)
            raise UsageError(f"{out} is finished: there is nothing to resume.")
        raise UsageError(f"{out} holds no stopped run. Give the folder that whet compress was writing to.")
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
        solver=recipe["solver"],
        target=recipe["target"],
        text=solve or None,
        eval_text=None,
        field="text",
        chat=False,
        samples=max(1, len(solve)),
        window=8,
        seed=recipe["seed"],
        device=recipe["device"],
    )
    decision.verify = verify
    decision.recipe |= {k: recipe[k] for k in ("text", "compute")}
    decision.notes = recipe["notes"]
    decision.recipe["model_sha256"] = decision.checkpoint.examine()
    _same_run(run, decision)
    return _go(out, decision, on_event)


def _go(out: Path, decision: Decision, on_event: OnEvent) -> dict[str, Any]:
    started = time.monotonic()
    run = out / RUN
    for note in decision.notes:
        on_event({"event": "note", "message": note})
    with alone(run):
        journal = Journal(run)
        solver = Solver(decision, out, journal, on_event)
        verified = _solve(decision, solver, run) if decision.solve else _round_only(decision, solver)
        summary = finish(out, decision, journal, solver, verified)
        _close(run)
    return {
        "out": str(out),
        **_choices(decision),
        "sizes": {"original": size_on_disk(decision.checkpoint.path), "lighter": size_on_disk(out)},
        "loads_in": "transformers" if decision.storage.container == "compressed-tensors" else "modelling file",
        **verified,
        "linears": summary["report"],
        "check": summary["check"],
        "seconds": {
            "solving": sum(entry["seconds"] for entry in journal.entries.values()),
            "this call": time.monotonic() - started,
        },
        "notes": decision.notes,
    }


def _solve(decision: Decision, solver: Solver, run: Path) -> dict[str, Any]:
    """Embedding, blocks, rest, with hidden states flowing; returns the divergence on the verifying windows."""
    parts, checkpoint, device = decision.anatomy, decision.checkpoint, decision.device
    compute = getattr(torch, decision.recipe["compute"])
    solve, verify = batches(decision.solve, BATCH_TOKENS), batches(decision.verify, BATCH_TOKENS)
    table = checkpoint.read(parts.embedding.parameter)
    moment = None
    if parts.tied and parts.embedding.address in decision.grids and not solver.finished("embedding"):
        before = Walk(checkpoint, parts, solve, [], table, table, device, run, compute)
        before.go(_Untouched())
        moment = _head_moment(before)
        # Looking a row up spreads its error over all columns alike, reading it as the head weighs them by H; both count
        # the same here. On babyllama at 3 bits this loses 17 % less KL than nearest, at 4 bits the same.
        moment = moment / moment.diagonal().mean() + torch.eye(len(moment), device=device)
    lighter = solver.solve_table("embedding", parts.embedding, [], moment)
    decoded = table if lighter is None else lighter
    walk = Walk(checkpoint, parts, solve, verify, table, decoded, device, run, compute)
    walk.go(solver)
    rest = [n for n in parts.other_tensors if n not in (parts.embedding.parameter, parts.dropped)]
    head: Tensor | None
    if parts.head is None:
        solver.copy_rest("rest", rest)
        head = lighter
    else:
        moment = None
        if parts.head.address in decision.grids and not solver.finished("rest"):
            moment = _head_moment(walk)
        head = solver.solve_table("rest", parts.head, [n for n in rest if n != parts.head.parameter], moment)
    return _divergence(walk, verify, checkpoint.read((parts.head or parts.embedding).parameter), head, device)


def _round_only(decision: Decision, solver: Solver) -> dict[str, Any]:
    """Nearest rounding without text: no forward pass, one part in memory at a time."""
    parts = decision.anatomy
    solver.solve_table("embedding", parts.embedding, [], None)
    for index, linears in enumerate(parts.blocks):
        solver.round_block(index, linears)
    rest = [n for n in parts.other_tensors if n not in (parts.embedding.parameter, parts.dropped)]
    if parts.head is None:
        solver.copy_rest("rest", rest)
    else:
        solver.solve_table("rest", parts.head, [n for n in rest if n != parts.head.parameter], None)
    return {}


def _head_moment(walk: Walk) -> Tensor:
    """Second moment `[hidden, hidden]` of what the head reads, over the solving windows."""
    width = walk.lighter[0].shape[-1]
    total = torch.zeros(width, width, device=walk.lighter[0].device)
    tokens = 0
    for hidden in walk.final():
        x = hidden.reshape(-1, width)
        total.addmm_(x.t(), x)
        tokens += len(x)
    return total / tokens


class _Untouched:
    """A visitor that leaves every block as it is."""

    def visit(self, step: Any) -> dict[str, Tensor]:
        """Nothing is replaced."""
        return {}


def _divergence(
    walk: Walk, verify: list[Tensor], original: Tensor, lighter: Tensor | None, device: str
) -> dict[str, Any]:
    """KL(original ‖ lighter) in nats per token and top-1 agreement on the verifying windows; {} when there are none."""
    if not verify:
        return {}
    total = agree = 0.0
    count = 0
    first = original.to(device).float()
    second = first if lighter is None else lighter.to(device)
    for batch, (mine, theirs) in zip(verify, walk.verified(), strict=True):
        for row in range(len(batch)):
            kl, same, _, _ = score_tokens(
                (mine[row, :-1] @ first.t())[None], (theirs[row, :-1] @ second.t())[None], batch[row, 1:][None]
            )
            total, agree, count = total + kl.double().sum().item(), agree + same.sum().item(), count + kl.numel()
    return {"kl": total / count, "top1": agree / count, "drift": walk.drift}


def _choices(decision: Decision) -> dict[str, Any]:
    keys = ("scheme", "embed", "solver", "target", "container", "seed", "text")
    return {k: decision.recipe[k] for k in keys} | {"dequantize": decision.storage.dequantize}


def _check_out(out: Path, decision: Decision) -> bool:
    """Whether `out` holds a stopped run; refuses a folder with anything else in it."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise UsageError(f"{out} is a file. Name a folder for the lighter model.")
    if out.resolve() == decision.checkpoint.path.resolve():
        raise UsageError(f"{out} is the original's own folder, which is never changed. Name another folder.")
    if (out / RUN / "recipe.json").is_file():
        return True
    left = [p for p in out.iterdir() if p.name != RUN]
    if left:
        raise UsageError(f"{out} is not empty (it holds {left[0].name}). Name a new folder, or empty this one.")
    return False


def _begin(run: Path, decision: Decision) -> None:
    """Make the run's folder; where that fails, nothing is left of it, as there is nothing to resume yet."""
    made = next((p for p in (*reversed(run.parents), run) if not p.exists()), None)
    windows = {f"solve {i:06d}": w for i, w in enumerate(decision.solve)}
    windows |= {f"verify {i:06d}": w for i, w in enumerate(decision.verify)}
    try:
        with disk_errors(run):
            run.mkdir(parents=True, exist_ok=True)
        write_tensors(run / "windows.safetensors", windows)
        write_json(
            run / "recipe.json",
            {**decision.recipe, "notes": decision.notes, "fingerprint": decision.fingerprint, "whet": __version__},
        )
    except BaseException:
        shutil.rmtree(made or run, ignore_errors=True)
        raise


def _close(run: Path) -> None:
    """Remove the run's folder, the recipe first: without it there is no run, so half a removal is no run either."""
    (run / "recipe.json").unlink()
    sync_folder(run)
    shutil.rmtree(run)


def _same_run(run: Path, decision: Decision) -> None:
    """Refuse to go on with another model, text, recipe, thread count or version of whet than the run began with."""
    began = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    out = run.parent
    if began["whet"] != __version__:
        raise UsageError(
            f"{out} was begun by whet {began['whet']}, this is {__version__}. Install that, or start anew elsewhere."
        )
    if began["fingerprint"] == decision.fingerprint:
        return
    now = decision.recipe
    if began["model_sha256"] != now["model_sha256"]:
        what = f"the model {now['model_path']} is not the one it began with (or has changed since)"
    else:
        named = {k: (began.get(k), now.get(k)) for k in now if k != "model_path" and began.get(k) != now.get(k)}
        what = "; ".join(f"{k} was {a!r} and is {b!r}" for k, (a, b) in named.items()) or "its text is another"
    raise UsageError(
        f"{out} holds a stopped run that cannot go on: {what}. Give what it began with, or start in a new folder."
    )
