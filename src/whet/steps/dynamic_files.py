"""What the step `dynamic` writes: the model's folder, with what decides beside it, proved and told of in its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from whet.checkpoint import Checkpoint, load_as_others, load_model, read_card, read_dynamic, write_bytes, write_dynamic
from whet.engines.chooser import Chooser, chosen, masked, read_prompts, sliced
from whet.engines.dynamic import model_parts
from whet.engines.exits import NEVER, Exits, Staged, Used
from whet.engines.torch import outputs
from whet.errors import GateError
from whet.events import OnEvent, Stage, note_event
from whet.messages import Message
from whet.pruning.soft_topk import hard_topk
from whet.steps.dynamic_plan import Plan
from whet.steps.dynamic_work import Work
from whet.steps.merged import Merged, write_merged
from whet.steps.options import RECIPE, recipe_text
from whet.steps.proof import PROVED
from whet.steps.prune_proof import agree

_AGAIN = "whet run recipe.yaml MODEL OUT"
_TOKENS = 32  # of the text that is proved by


def write_folder(
    out: Path,
    plan: Plan,
    work: Work,
    result: Mapping[str, Any],
    said: Mapping[str, Any],
    files: Mapping[str, str],
    on_event: OnEvent,
) -> dict[str, Any]:
    """Make the folder whole. May be repeated. result: of the training. said: what whet.json is to say. files: those
    that are copied, with their SHA-256. Returns what there is to tell."""
    held = dict(result["held_out"])
    notes = [*plan.notes, *_notes(plan, held, said)]
    for note in notes[len(plan.notes) :]:
        on_event(note_event(note))
    stage = Stage(on_event, "finish", 2)
    write_bytes(out / RECIPE, recipe_text(plan.recipe(), _AGAIN).encode())
    beside = write_dynamic(out, work.tensors())
    entry = {**said, "bytes": beside, "stored": plan.checkpoint.nbytes + beside}
    stage.step()
    merged = Merged.of_model(work.model) if plan.asked.joint else Merged({})
    made = write_merged(
        out,
        plan.checkpoint,
        merged,
        files,
        record=plan.record(),
        digest=plan.digest,
        card=_card(plan, entry, notes),
        notes=notes,
        verify={"kl_before": held["start"], "kl_after": held["best"] if held["helped"] else held["start"]},
        dynamic=entry,
        prove=lambda: _proved(out, plan, work),
    )
    stage.step()
    whole = {"whole": result["whole"]} if "whole" in result else {}
    told = {("active_sizes" if name == "sizes" else name): value for name, value in entry.items()}
    return {"held_out": held, "trained": plan.needs()["trained"], **told, **whole, **made, "notes": notes}


@torch.no_grad()
def _proved(out: Path, plan: Plan, work: Work) -> dict[str, Any]:
    """Raises GateError unless the folder, read as others read it, is the whole model, and what lies beside it decides
    as it was trained to."""
    written = Checkpoint(out)
    if plan.checkpoint.nbytes > PROVED:
        return {"decides": "not run: the model is too large to load beside this run"}
    model = load_as_others(written, torch.float32, plan.device)
    tokens = plan.solve[0][0][None, :_TOKENS].to(plan.device)
    whole = outputs(model, tokens).float()
    found: dict[str, Any] = {}
    if not plan.asked.joint:
        before = outputs(load_model(plan.checkpoint.path, torch.float32, plan.device), tokens).float()
        if not torch.equal(whole, before):
            raise GateError(
                "{out}: the whole model gives other logits than the original. This is a defect of whet.", out=out
            )
        found["whole model"] = "the original, bit for bit"
    again = read_dynamic(out)
    if not all(torch.equal(again[name], value) for name, value in work.tensors().items()):
        raise GateError(
            "{out}: what was written beside the model is not what was trained. This is a defect of whet.", out=out
        )
    if plan.kind == "channels":
        assert isinstance(work.beside, Chooser)
        found["sliced against masked"] = _sliced_gap(out, model, work.beside, tokens, min(plan.counts.values()))
    else:
        assert isinstance(work.beside, Exits)
        found["cached against uncached"] = _staged_gap(out, model, work.beside, tokens, whole)
    return found


def _sliced_gap(out: Path, model: Any, chooser: Chooser, tokens: Tensor, count: int) -> float:
    parts = model_parts(model)
    scores = chooser(read_prompts(model, parts, tokens))
    with masked(model, parts, hard_topk(scores, count)):
        one = outputs(model, tokens).float()
    other = outputs(sliced(model, parts, chosen(scores[0], count)), tokens).float()
    gap = (one - other).abs().max().item()
    agree(out, "the model with channels masked and with channels taken out", gap, one)
    return gap


def _staged_gap(out: Path, model: Any, exits: Exits, tokens: Tensor, whole: Tensor) -> float:
    """Tokens one by one, half of which leave at the first exit: the last one, which goes through, is as if all had."""
    parts = model_parts(model)
    staged = Staged(model, parts, exits, 0.0, Used.of(len(exits.after) + 1))
    for token in tokens[0, :-1]:
        staged.next(token[None, None])
    staged.threshold = NEVER
    last = staged.next(tokens[:, -1:]).float()
    gap = (last - whole[:, -1]).abs().max().item()
    agree(out, "tokens that left early and caught up, and the whole model", gap, whole)
    return gap


def _notes(plan: Plan, held: Mapping[str, Any], said: Mapping[str, Any]) -> list[Message]:
    notes = []
    if not held["helped"]:
        notes.append(
            Message(
                "nothing was gained on the held-out text by more than its standard error, so what was written is the "
                "start: give more text or steps, or another learning rate"
            )
        )
    for one in said.get("sizes", ()):
        if one["kl"] >= one["kl_static"]:
            notes.append(
                Message(
                    "at {share:.4g}% of the channels the prompt's choice loses {kl:.4f}, and one choice for all "
                    "prompts {static:.4f}: cut a model once with whet prune instead",
                    share=100 * one["active"],
                    kl=one["kl"],
                    static=one["kl_static"],
                )
            )
    report = said.get("report")
    if report is not None and report["reads"] >= 1:
        notes.append(
            Message(
                "looking at the exits reads the head each time, and costs more than the blocks that are left out: "
                "{share:.1%} of what the whole model reads for a token",
                share=report["reads"],
            )
        )
    if plan.kind == "exits" and report is not None and report["agreement"] < said["target"]:
        notes.append(
            Message(
                "on the text that the figures are of, {agreement:.2%} agree, fewer than the {target:.2%} that were "
                "calibrated for on other text",
                agreement=report["agreement"],
                target=said["target"],
            )
        )
    return notes


def _card(plan: Plan, entry: Mapping[str, Any], notes: Sequence[Message]) -> str:
    """README.md."""
    before = plan.checkpoint.whet or {}
    base = (before.get("base_model") or {}).get("name") or plan.name
    front = dict(read_card(plan.checkpoint.path / "README.md")) | {"base_model": base}
    tags = front.get("tags")
    front["tags"] = [*(tags if isinstance(tags, list) else []), "whet", "dynamic"]
    lines = ["---", yaml.safe_dump(front, allow_unicode=True, sort_keys=False).strip(), "---"]
    lines += [f"# {base}, dynamic by whet", "", *(_channels(plan, entry) if plan.kind == "channels" else _exits(entry))]
    lines += [
        "",
        "Whatever loads the original loads this folder, and runs the whole model. What is decided at run time is "
        "decided by whet alone.",
    ]
    if notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in notes)]
    return "\n".join([*lines, "", "`whet.json` holds every choice and the SHA-256 of every file.", ""])


def _channels(plan: Plan, entry: Mapping[str, Any]) -> list[str]:
    rows = ["| channels | bytes in use | KL | by another prompt | one choice for all |", "|---:|---:|---:|---:|---:|"]
    for one in entry["sizes"]:
        figures = (f"{one[name]:.5f}" for name in ("kl", "kl_other", "kl_static"))
        rows.append(f"| {100 * one['active']:.4g}% | {one['bytes']:,} | {' | '.join(figures)} |")
    trained = "It and what chooses were trained together." if plan.asked.joint else "Its weights are as they were."
    return [
        f"The model of `{plan.name}`, whose feed-forward channels are chosen for each prompt. {trained}",
        "",
        "```sh",
        f'whet generate THIS_FOLDER "Once upon a time" --active {100 * entry["sizes"][0]["active"]:.4g}%',
        "```",
        "",
        *rows,
        "",
        f"{entry['stored']:,} bytes are stored. KL is to the original, in nats per token, on held-out text behind the "
        "prompt.",
    ]


def _exits(entry: Mapping[str, Any]) -> list[str]:
    report = entry["report"]
    return [
        f"Tokens leave after {', '.join(map(str, entry['after']))} of {report['of']} blocks where the likeliest has a "
        f"probability of at least {entry['threshold']}.",
        "",
        "```sh",
        'whet generate THIS_FOLDER "Once upon a time" --early-exit',
        "```",
        "",
        f"On held-out text {report['agreement']:.2%} of tokens are those of the whole model (calibrated for "
        f"{entry['target']:.2%}), {report['layers']:.2f} blocks are read for a token, mean, and "
        f"{report['reads']:.1%} of the bytes that the whole model reads, with the head at every exit.",
    ]
