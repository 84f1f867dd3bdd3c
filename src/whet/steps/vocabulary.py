"""The part of the step `prune` that cuts tokens: a dense folder in, a dense folder out, with fewer rows in everything
that the vocabulary sizes.

The tokens that stay are read as before, and the model computes the same of them: embedding, head and head bias are
rows of the original's, every other tensor is its own. Which tokens stay is `whet.pruning.vocabulary`'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whet import __version__
from whet.apply.run import Run
from whet.checkpoint import (
    MANIFEST,
    check_files,
    hashed_files,
    sha256,
    size_on_disk,
    write_bytes,
    write_json,
    write_rows,
)
from whet.errors import UsageError
from whet.events import OnEvent, Part, Stage, Way, ignore, note_event
from whet.messages import to_json
from whet.paths import check_out
from whet.steps.estimate import check_room
from whet.steps.vocabulary_plan import Cut, plan_cut
from whet.steps.vocabulary_proof import prove_cut
from whet.walk import Journal

_DOCUMENTS = "documents.json"  # in the run's folder: a corpus that is no file
_READ, _TOKENS = 3e-9, 2e-6  # seconds a byte of weights that are read and written, and a letter that is tokenized
_MEMORY = 600_000_000
STEP = "prune"


def cut_vocabulary(
    source: str | Path,
    out: str | Path,
    *,
    vocab: str | Path | Sequence[str] | None = None,
    keep_languages: Sequence[str] = (),
    min_count: int = 1,
    eval_text: str | Path | Sequence[str] | None = None,
    field: str = "text",
    skip_bad: bool = False,
    recipe: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """Write a copy of the model `source` with fewer tokens into the folder `out`; a stopped run in it is gone on with.

    Args:
        vocab: the corpus, a path or hub name (as `whet.text.read_text` reads it, all of it) or documents: tokens that
            it has `min_count` times stay.
        keep_languages: codes such as ko or en, or names of scripts: tokens of their scripts stay too, and those that
            are of none (digits, signs, spaces, parts of letters). At least one of the two has to be given.
        eval_text: other text, to tell how much longer it becomes.
        recipe: what does the same again, for recipe.yaml; None writes none.
        dry_run: say what it would save and which text becomes how much longer, and write nothing.

    Returns plain JSON: `out`; `tokens` (`original`, `lighter` and why they stay); `sizes` (by part; of a dry run
    `lighter` has `total` alone, to the byte); `lengths`, by text or language tokens before and after and their `ratio`;
    `notes`; and `check`, what was proved. A dry run has `seconds`, `memory` and `disk`.

    Raises UsageError for a tokenizer or model that cannot be cut, and where nothing would be; GateError where a proof
    fails, which no cut model should.
    """
    check_out(out, source)
    run = Run(out)
    on_event = run.telling(on_event)
    cut = plan_cut(
        source,
        vocab=vocab,
        keep_languages=keep_languages,
        min_count=min_count,
        eval_text=eval_text,
        field=field,
        skip_bad=skip_bad,
        recipe=recipe,
    )
    run.check_free(cut.checkpoint.path)
    needs = _needs(cut)
    on_event({"event": "plan", **needs})
    check_room(run.out, dict(needs))
    if dry_run:
        sizes = {"original": size_on_disk(cut.checkpoint.path), "lighter": {"total": cut.nbytes}}
        return {"dry_run": True, "out": str(run.out), **cut.told(), "sizes": sizes, **needs, "notes": list(cut.notes)}
    return _carry_out(run, cut, on_event)


def resume_vocabulary(run: Run, request: Mapping[str, Any], on_event: OnEvent = ignore) -> dict[str, Any]:
    """Go on with a stopped run, from what it began with."""
    asked = dict(request["asked"])
    if asked["vocab"] is None and asked.pop("documents", False):
        file = run.folder / _DOCUMENTS
        if not file.is_file():
            raise UsageError(
                "{out}: the text of the stopped run is missing or damaged ({file}), so it cannot go on. Remove {out} "
                "and give the first command again.",
                out=run.out,
                file=f"{run.folder.name}/{_DOCUMENTS}",
            )
        asked["vocab"] = json.loads(file.read_text(encoding="utf-8"))
    asked.pop("documents", None)
    return _carry_out(run, plan_cut(request["model"], **asked, recipe=request["recipe"]), run.telling(on_event))


def _needs(cut: Cut) -> dict[str, Any]:
    """Seconds, and bytes of memory and disk, that a run takes."""
    dense = cut.checkpoint.nbytes
    largest = max(info.nbytes for info in cut.checkpoint.tensors.values())
    seconds = 2 + 3 * _READ * dense + 3 * _TOKENS * sum(map(len, cut.documents))
    return {"seconds": seconds, "memory": _MEMORY + max(2 * largest, 2 * dense if cut.small else 0), "disk": cut.nbytes}


def _request(cut: Cut) -> dict[str, Any]:
    """What the run depends on, kept beside it."""
    files = {name: sha256(file) for name, file in cut.copied.items()}
    record = {**cut.record(), "model_sha256": cut.sha256}
    whole = [record, files, hashlib.sha256("".join(sorted(cut.files)).encode()).hexdigest()]
    return {
        "whet": __version__,
        "step": STEP,
        "unit": "vocabulary",
        "model": str(cut.checkpoint.path.resolve()),
        "asked": cut.asked,
        "record": record,
        "recipe": cut.recipe,
        "notes": to_json(cut.notes),
        "files": files,
        "fingerprint": hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest(),
    }


def _carry_out(run: Run, cut: Cut, on_event: OnEvent) -> dict[str, Any]:
    """Begin the run or go on with it, and see it through."""
    size = sum(map(len, cut.documents))
    reading = _READ * cut.checkpoint.nbytes
    way = Way(on_event, [Part("read", reading), Part("cut", reading), Part("prove", 1 + 2 * _TOKENS * size)])
    check_files(cut.checkpoint.path, way)
    stage = Stage(way, "read", len(cut.checkpoint.stored))
    cut = cut.of_model(cut.checkpoint.examine(lambda _: stage.step()))
    with run.opened(_request(cut)):
        if cut.asked.get("documents"):
            write_json(run.folder / _DOCUMENTS, cut.documents)
        for note in cut.notes:
            way(note_event(note))
        _write(run, cut, way)
        check = prove_cut(run.out, cut, way)
        write_json(run.out / MANIFEST, cut.manifest(hashed_files(run.out)))
        run.close()
    return {
        "out": str(run.out),
        **cut.told(),
        "sizes": {"original": size_on_disk(cut.checkpoint.path), "lighter": size_on_disk(run.out)},
        "check": check,
        "notes": list(cut.notes),
    }


def _write(run: Run, cut: Cut, on_event: OnEvent) -> None:
    """Weights file by file, and everything beside them. May be repeated."""
    journal = Journal(run.folder)
    weights = cut.weights
    stage = Stage(on_event, "cut", len(weights) + 1)
    for file in weights:
        if journal.finished(file.name, run.out) is None:
            write_rows(file, run.out / file.name, cut.rows)
            journal.record(file.name, run.out / file.name)
        stage.step(unit=file.name)
    for name, data in cut.files.items():
        write_bytes(run.out / name, data)
    cut.copy_into(run.out)
    stage.step()
