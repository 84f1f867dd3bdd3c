"""The README.md of a lighter folder, a model card: the original's licence and tags, what was done, how to load it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from whet.anatomy import auto_class, per_layer
from whet.apply.job import Job
from whet.budget import tables
from whet.checkpoint import ADAPTER
from whet.checkpoint.model_files import GRAPHS
from whet.formats.export import FILE, adapter_beside
from whet.messages import Message
from whet.report.numbers import with_error


def readme(job: Job, report: dict[str, Any], verified: dict[str, Any], notes: list[Message]) -> str:
    """The folder's README.md: the original's licence and tags, what was done, and how to load it."""
    base, front = front_matter(job, "sparse" if job.storage.dense else "quantized")
    errors = sorted(report.items(), key=lambda item: -item[1]["error"])[:5]
    lines = [
        "---",
        yaml.safe_dump(front, allow_unicode=True, sort_keys=False).strip(),
        "---",
        f"# {base}, made {'sparse' if job.storage.dense else 'lighter'} by whet",
        "",
        _what(job, report),
    ]
    if job.plan is not None:
        lines += ["", "`plan.json` holds the scheme of every part; `whet compress --plan` replays it."]
    if verified:
        before = "the original" if job.original.whet is None else f"`{job.name}`, the step before it,"
        lines += ["", f"On text that was kept out of calibration: {_kept(verified, before)}"]
    if job.repaired:
        place = adapter_beside(Path(FILE)).name if job.alone else f"{ADAPTER}/"
        lines += [
            "",
            f"Beside its linears runs an adapter of rank {job.repair}, in `{place}`, which puts back a part "
            "of what rounding lost. It is a part of the model that was measured: load it too.",
        ]
    lines += ["", "## Loading", "", *_loading(job)]
    lines += ["", "## Largest relative errors of linears", "", "| linear | grid | error |", "|---|---|---:|"]
    lines += [f"| {a} | {line['grid']} | {line['error']:.2e} |" for a, line in errors]
    if notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in notes)]
    lines += ["", "`whet.json` holds every choice, the lineage and the SHA-256 of every file.", ""]
    return "\n".join(lines)


def front_matter(job: Job, tag: str) -> tuple[str, dict[str, Any]]:
    """The name of the first original, and a card's front matter: what the original's says, and a tag of the step."""
    base = ((job.original.whet or {}).get("base_model") or {}).get("name") or job.name
    front = dict(job.card) | {"base_model": base}
    if not job.storage.dense:
        front["base_model_relation"] = "quantized"
    front["tags"] = list(dict.fromkeys([*_listed(job.card.get("tags")), "whet", tag]))
    return str(base), front


def _what(job: Job, report: Mapping[str, dict[str, Any]]) -> str:
    """What was done to the weights, in a sentence or two."""
    rule = job.sparsity
    chosen = "" if rule is None or rule.pattern is None else f"{rule.pattern.name}, chosen by `{rule.importance}`"
    zeros = sum(line["mask"]["share"] * math.prod(line["shape"]) for line in report.values() if "mask" in line)
    share = zeros / sum(math.prod(line["shape"]) for line in report.values() if "mask" in line) if zeros else 0.0
    if job.storage.dense:
        moved = "the others moved to make up for them" if job.effort.text else "the others as they were"
        return (
            f"Of the weights of {len(report)} linears of `{job.name}` {share:.1%} are exactly 0 ({chosen}), {moved}. "
            "Every tensor has the name, type and size that it had: zeros alone make nothing smaller or faster."
        )
    takes = any(told["transform"] != "none" for told in (job.transforms or {}).values())
    folded = f" after `{job.transform}` was folded in" if takes else ""
    said = f"Quantized from `{job.name}` with `{job.solver}`{folded}: {_done(job, report)}."
    said += f" {_rounded(job, report):.1%} of the model's weights were rounded."
    if zeros:
        how = f"{chosen}, while quantizing" if chosen else "as they were before"
        said += f" Of the weights of linears with masks {share:.1%} are exactly 0 ({how})."
    return said


def _loading(job: Job) -> list[str]:
    """How each runtime loads the folder."""
    lines: list[str] = []
    beside = f" --lora THIS_FOLDER/{adapter_beside(Path(FILE)).name}" if job.repaired else ""
    if job.storage.blocks:
        lines += [
            f"`{FILE}` is the file for llama.cpp and what is built on it (Ollama, LM Studio):",
            "",
            "```sh",
            f"llama-cli -m THIS_FOLDER/{FILE}" + beside,
            "```",
            "",
        ]
    if job.storage.graph:
        runtime, word = {"onnx": ("onnxruntime", "onnxruntime"), "openvino": ("OpenVINO", "openvino")}[job.target]
        lines += [
            f"`{GRAPHS[job.target][0]}` is the graph for {runtime}, with its numbers beside it:",
            "",
            "```sh",
            f'pip install "whet[{job.target}]"  # or {word} alone',
            'whet generate THIS_FOLDER "PROMPT"',
            "```",
            "",
        ]
    if job.alone:
        return lines[:-1]
    if job.storage.dense:
        lines += ["Whatever loads the original loads it:", *loading(job)]
    elif job.storage.stock:
        lines += [
            "Stock transformers (with `compressed-tensors>=0.18` installed) loads it; whet is not needed:",
            *loading(job, ", trust_remote_code=True" if per_layer(job.checkpoint.config) else ""),
        ]
        if job.target == "vllm":
            lines += ["", "vLLM: the format is one its parser accepts; it was not run in vLLM by whet."]
    else:
        lines += [
            f"Why not stock transformers alone: {job.storage.reason}. The folder carries `modeling_whet.py`, "
            "which computes the weights and hands back the stock architecture:",
            *loading(job, ", trust_remote_code=True"),
        ]
    if job.repaired:
        lines += [
            "",
            "The adapter goes with it (`pip install peft`):",
            "",
            "```python",
            "from peft import PeftModel",
            f'model = PeftModel.from_pretrained(model, "THIS_FOLDER/{ADAPTER}")',
            "```",
        ]
    return lines


def _kept(verified: Mapping[str, Any], before: str) -> str:
    """What the verifying text says, in a sentence."""
    answers = verified.get("answers")
    if answers is None:
        return (
            f"KL to {before} {verified['kl']:.5f} nats per token, the same first token at {verified['top1']:.2%} of "
            "positions."
        )
    count = f"{answers['answers']} {answers['of']}"
    if answers["kind"] == "vectors":
        error, cosine, near = answers["error"], answers["cosine"], answers["neighbours"]
        kept = "" if near is None else f", and {near['mean']:.2%} of {count} have the same nearest one"
        return (
            f"hidden states differ from {before} by {with_error(error['mean'], error['standard_error'])} of their "
            f"size; the vectors of a text ({answers['pooling']} pooling) have a cosine of {cosine['mean']:.5f}{kept}."
        )
    if answers["kind"] != "scores":
        kl, top1 = answers["kl"], answers["top1"]
        return (
            f"KL of the classes to {before} {with_error(kl['mean'], kl['standard_error'])} nats, the same class at "
            f"{top1['mean']:.2%} of {count}."
        )
    if answers["difference"] is None or answers["order"] is None:
        return f"on {count} the scores of {before} do not differ, so they tell nothing."
    difference, order = answers["difference"], answers["order"]
    return (
        f"scores differ from {before} by {with_error(difference['mean'], difference['standard_error'])} of their "
        f"standard deviation, and {order['mean']:.2%} of pairs of {count} are in the same order."
    )


def loading(job: Job, more: str = "") -> list[str]:
    """The lines that load it in transformers, with `more` arguments."""
    kind = auto_class(job.checkpoint.config)
    return [
        "",
        "```python",
        f"from transformers import {kind}",
        f'model = {kind}.from_pretrained("THIS_FOLDER"{more})',
        "```",
    ]


def _done(job: Job, report: Mapping[str, dict[str, Any]]) -> str:
    """How many linears became what, and what was kept."""
    schemes: dict[str, int] = {}
    for line in report.values():
        schemes[line["grid"]] = schemes.get(line["grid"], 0) + 1
    told = ", ".join(f"{n} linears as {grid}" for grid, n in schemes.items())
    among = [t.role for t in tables(job.anatomy) if t.address in job.grids]
    kept = len(job.anatomy.linears()) - len(job.chosen(job.anatomy.linears()))
    left = [f"{kept} linears of the blocks"] if kept else []
    left += [t.role for t in tables(job.anatomy) if t.address not in job.grids]
    told += f", among them {' and '.join(among)}" if among else ""
    return told + (f"; as they were: {', '.join(left)}" if left else "")


def _rounded(job: Job, report: Mapping[str, dict[str, Any]]) -> float:
    """The share of all weights that were rounded."""
    every = sum(math.prod(info.shape) for name, info in job.checkpoint.tensors.items() if name != job.anatomy.dropped)
    return sum(math.prod(line["shape"]) for line in report.values()) / every


def _listed(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else [str(value)] if value else []
