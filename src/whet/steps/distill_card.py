"""The README.md of a distilled folder, a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from whet.apply.job import Job
from whet.messages import Message
from whet.report.numbers import with_error
from whet.steps.readme import front_matter, loading


def distill_card(job: Job, trained: Mapping[str, Any], found: Mapping[str, Any], notes: Sequence[Message]) -> str:
    """The folder's README.md. trained: what the training loop told. found: KL to the teacher on held-out text."""
    assert job.distillation is not None
    one = job.distillation
    base, front = front_matter(job, "distilled")
    beside = [name for name in ("hidden", "relations") if getattr(one.objective, name)]
    also = f", with {' and '.join(beside)} beside it" if beside else ""
    lines = [
        "---",
        yaml.safe_dump(front, allow_unicode=True, sort_keys=False).strip(),
        "---",
        f"# {base}, distilled by whet",
        "",
        f"`{job.name}` was trained for {trained['steps']:,} steps of about {one.batch:,} tokens to predict what "
        f"`{one.name}` predicts (loss `{one.objective.loss}`{also}).",
    ]
    if "kl" in found:
        before = f", {trained['held_out']['start']:.5f} before" if "held_out" in trained else ""
        kl = with_error(found["kl"], found["kl_error"])
        lines += ["", f"On text that was kept out of training: KL to `{one.name}` {kl} nats per token{before}."]
    lines += ["", "## Loading", "", "Whatever loads the original loads it:", *loading(job)]
    if notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in notes)]
    lines += ["", "`whet.json` holds every choice, the lineage and the SHA-256 of every file.", ""]
    return "\n".join(lines)
