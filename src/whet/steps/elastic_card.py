"""README.md of an elastic folder, and of a model that was cut from one: model cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from whet.apply.job import Job
from whet.messages import Message
from whet.report.numbers import written_size
from whet.steps.prune_card import UNITS
from whet.steps.readme import front_matter, loading

ELASTIC = "elastic"


def elastic_card(
    job: Job, shape: Mapping[str, Any], found: Mapping[str, Any], notes: Sequence[Message], whole: Mapping[str, int]
) -> str:
    """As `prune_card`, of a folder that is sorted and has every unit."""
    base, _ = front_matter(job, ELASTIC)
    sizes = shape["elastic"]["sizes"]
    repaired = job.removal is not None and job.removal.repair
    last = " KL, with repair |" if repaired else ""
    rows = [f"| size | what it has | KL |{last}", "|---:|---|---:|" + ("---:|" if repaired else "")]
    for one in sizes:
        more = f" {one['kl_repaired']:.5f} |" if repaired else ""
        rows.append(f"| {written_size(one['size'])} | {_what(one['amounts'], whole)} | {one['kl']:.5f} |{more}")
    lines = [
        f"# {base}, elastic by whet",
        "",
        f"The model of `{job.name}`, of the same size and function: channels and heads are in order of what they are "
        "worth. Smaller models are cut from it in seconds, without text:",
        "",
        "```sh",
        f"whet slice THIS_FOLDER smaller --size {written_size(sizes[len(sizes) // 2]['size'])}",
        "```",
        "",
        *rows,
        "",
        "Sizes are shares of the blocks' parameters; KL is to this model, in nats per token, on text that was kept out "
        "of calibration." + (" With repair: weights that stay were fitted anew." if repaired else ""),
    ]
    return _card(job, ELASTIC, lines, notes)


def slice_card(
    job: Job, shape: Mapping[str, Any], found: Mapping[str, Any], notes: Sequence[Message], whole: Mapping[str, int]
) -> str:
    """As `prune_card`, of a model that was cut from an elastic folder."""
    base, _ = front_matter(job, "pruned")
    stays = 1 - shape["removed"]
    lines = [
        f"# {base}, cut to {stays:.1%} by whet",
        "",
        f"Of the parameters of the blocks of `{job.name}` {stays:.1%} are here: "
        f"{_what(shape['amounts'], whole)}. No weight was moved.",
    ]
    if "kl" in found:
        lines += [
            "",
            f"KL to `{job.name}` {found['kl']:.5f} nats per token, measured when that was made, on text that was kept "
            "out of its calibration.",
        ]
    return _card(job, "pruned", lines, notes)


def _what(amounts: Mapping[str, int], whole: Mapping[str, int]) -> str:
    """How many there are of units of which some go; of nothing else, `all of it`."""
    fewer = {unit: number for unit, number in amounts.items() if number < whole[unit]}
    return ", ".join(f"{number} of {whole[unit]} {UNITS[unit]}" for unit, number in fewer.items()) or "all of it"


def _card(job: Job, tag: str, lines: Sequence[str], notes: Sequence[Message]) -> str:
    """A card of those lines: what the original's says before them, how to load it and the notes after them."""
    front = front_matter(job, tag)[1]
    front["tags"] = [one for one in front["tags"] if one == tag or one != ELASTIC]  # what was cut is not
    before = yaml.safe_dump(front, allow_unicode=True, sort_keys=False).strip()
    after = ["## Loading", "", "Whatever loads the original loads it:", *loading(job)]
    if notes:
        after += ["", "## Notes", "", *(f"- {note}" for note in notes)]
    after += ["", "`whet.json` holds what stayed, by the original's numbers, and the SHA-256 of every file.", ""]
    return "\n".join(["---", before, "---", *lines, "", *after])
