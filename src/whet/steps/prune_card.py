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


def prune_card(
    job: Job, shape: Mapping[str, Any], found: Mapping[str, Any], notes: Sequence[Message], whole: Mapping[str, int]
) -> str:
    """The folder's README.md. whole: how many of each unit there were."""
    assert job.removal is not None
    base, front = front_matter(job, "pruned")
    amounts = {unit: number for unit, number in shape["amounts"].items() if number < whole[unit]}
    what = ", ".join(f"{number} of {whole[unit]} {UNITS[unit]}" for unit, number in amounts.items())
    used = {unit: job.removal.importance.get(unit, "") for unit in amounts}
    chosen = ", ".join(dict.fromkeys(f"`{name}`" for name in used.values()))
    moved = "Weights that stay were fitted anew to make up for it." if shape["repair"] else "Weights were not moved."
    lines = [
        "---",
        yaml.safe_dump(front, allow_unicode=True, sort_keys=False).strip(),
        "---",
        f"# {base}, pruned by whet",
        "",
        f"{shape['removed']:.1%} of the parameters of the blocks of `{job.name}` are gone: there are {what}, chosen by "
        f"{chosen}. {moved}",
    ]
    if "kl" in found:
        before = "the original" if job.original.whet is None else f"`{job.name}`, the step before it,"
        lines += ["", f"On text that was kept out of calibration: KL to {before} {found['kl']:.5f} nats per token."]
    lines += ["", "## Loading", "", "Whatever loads the original loads it:", *loading(job)]
    if notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in notes)]
    lines += ["", "`whet.json` holds what stayed, by the original's numbers, and the SHA-256 of every file.", ""]
    return "\n".join(lines)
