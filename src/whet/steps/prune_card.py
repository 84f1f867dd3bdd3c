"""The README.md of a pruned folder, a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from whet.apply.job import Job
from whet.messages import Message
from whet.steps.readme import front_matter, loading

UNITS = {
    "layers": "blocks",
    "channels": "channels",
    "heads": "key and value heads",
    "experts": "experts",
    "hidden": "directions of the residual stream",
}


_AS_BEFORE = "Whatever loads the original loads it:"
_VLLM = (
    "vLLM: config.json says the same once more as its `DeciLMForCausalLM` reads it (`block_configs`; vLLM's source was "
    "read, it was not run in vLLM by whet)."
)


def prune_card(
    job: Job, shape: Mapping[str, Any], found: Mapping[str, Any], notes: Sequence[Message], whole: Mapping[str, int]
) -> str:
    """The folder's README.md. whole: how many of each unit there were."""
    assert job.removal is not None
    base, front = front_matter(job, "pruned")
    free = bool(shape.get("unlike"))
    if job.removal.free:
        what, used = _unlike(shape, whole), {**job.removal.importance, "blocks": "divergence"}
    else:
        amounts = {unit: number for unit, number in shape["amounts"].items() if number < whole[unit]}
        what = ", ".join(f"{number} of {whole[unit]} {UNITS[unit]}" for unit, number in amounts.items())
        importance = {**job.removal.importance, **shape.get("importance", {})}
        used = {unit: importance.get(unit, "") for unit in amounts}
    chosen = ", ".join(dict.fromkeys(f"`{name}`" for name in used.values()))
    merged = " Experts that went were merged into those that stay." if shape.get("merged") else ""
    moved = "Weights that stay were fitted anew to make up for it." if shape["repair"] else "Weights were not moved."
    lines = [
        "---",
        yaml.safe_dump(front, allow_unicode=True, sort_keys=False).strip(),
        "---",
        f"# {base}, pruned by whet",
        "",
        f"{shape['removed']:.1%} of the parameters of the blocks of `{job.name}` are gone: there are {what}, chosen by "
        f"{chosen}. {moved}{merged}",
    ]
    if "kl" in found:
        before = "the original" if job.original.whet is None else f"`{job.name}`, the step before it,"
        lines += ["", f"On text that was kept out of calibration: KL to {before} {found['kl']:.5f} nats per token."]
    lines += ["", "## Loading", "", *(_by_file(job, shape) if free else _alike(job))]
    if notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in notes)]
    lines += ["", "`whet.json` holds what stayed, by the original's numbers, and the SHA-256 of every file.", ""]
    return "\n".join(lines)


def _alike(job: Job) -> list[str]:
    """How a folder is loaded that is one of its family."""
    if job.storage.container != "whet":
        return [_AS_BEFORE, *loading(job)]
    code = "The folder carries `modeling_whet.py`, which computes the weights and hands back the stock architecture:"
    return [f"Its codes are those of `{job.name}`. {code}", *loading(job, ", trust_remote_code=True")]


def _unlike(shape: Mapping[str, Any], whole: Mapping[str, int]) -> str:
    """What stays where blocks differ."""
    layers, told = shape["layers"], [f"{len(shape['layers'])} of {whole['layers']} blocks"]
    for unit, part in (("channels", "feed-forward"), ("heads", "attention")):
        mine = [shape["amounts"].get(unit, {}).get(str(index), whole[unit]) for index in layers]
        some = [number for number in mine if number]
        if len(some) < len(mine):
            told.append(f"{len(mine) - len(some)} of them without {part}")
        if some and min(some) < whole[unit]:
            span = f"{min(some)} to {max(some)}" if min(some) < max(some) else f"{min(some)}"
            told.append(f"{span} of {whole[unit]} {UNITS[unit]} in each")
    return ", ".join(told)


def _by_file(job: Job, shape: Mapping[str, Any]) -> list[str]:
    """How a folder is loaded whose blocks differ."""
    return [
        "Blocks differ in shape (`per_layer_config` in `config.json`), which stock transformers does not build. The "
        "folder carries `modeling_per_layer.py`, which does; without `trust_remote_code` the folder is refused:",
        *loading(job, ", trust_remote_code=True"),
        "",
        "whet reads the folder without running that file. llama.cpp runs it as the architecture `deci`, where the "
        "family is a Llama: `whet export THIS_FOLDER`.",
        *(("", _VLLM) if shape.get("block_configs") else ()),
    ]
