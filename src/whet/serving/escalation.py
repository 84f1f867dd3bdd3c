"""The doubt at which answers go over to the original: chosen once for two models, kept in the server's folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from whet.child import run_python
from whet.errors import UsageError
from whet.messages import Message

FILE = "escalation.json"
_CHOOSE = "from whet.measure.escalation import main; main()"


def check_escalation(share: float, skills: Path | None, urls: bool) -> None:
    """Raises UsageError for what can be known at once."""
    if not 0 < share < 1:
        raise UsageError(
            "{share:.4g} is no share of harmful flips to stay below. Say a percentage above 0 and below 100, as "
            "--escalate 1%.",
            share=share,
        )
    if urls:
        raise UsageError(
            "Servers behind a URL do not say how sure they are, so nothing can be escalated there. Give two models on "
            "this machine, or leave --escalate out."
        )
    if skills is None:
        raise UsageError(
            "The threshold of --escalate is chosen on questions with known answers. Name a file of them with --skills, "
            "as whet compare takes it."
        )


def escalation_of(state: Path, models: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Fields of `measure.escalation.Choice` and `share`: as they were chosen before for the same models, questions and
    share, else now, by both models in a process of their own, which takes a while.

    models: their fingerprint; asked: what `measure.escalation.main` takes. Raises UsageError where nothing keeps the
    promise.
    """
    digest = hashlib.sha256(Path(asked["skills"]).read_bytes()).hexdigest()
    about = {"models": models, "skills": digest, "share": asked["share"], "dtype": asked["dtype"]}
    file = state / FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["about"] == about:
            return {**found["choice"], "share": asked["share"]}
    except (OSError, ValueError, LookupError, TypeError):
        pass
    done = run_python(_CHOOSE, json.dumps(asked))
    try:
        choice = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        why = done.stderr.strip().splitlines()[-1:] or [f"code {done.returncode}"]
        raise UsageError("The threshold of --escalate could not be chosen: {why}", why=why[0][:300]) from error
    if "refused" in choice:
        raise UsageError("{why}", why=Message.read(choice["refused"]))
    file.write_text(json.dumps({"about": about, "choice": choice}), encoding="utf-8")
    return {**choice, "share": asked["share"]}
