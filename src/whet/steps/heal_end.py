"""The end of the step `heal`: the folder that practised is adopted with its figures, or all is left as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whet.apply.run import Run
from whet.checkpoint import (
    MANIFEST,
    Checkpoint,
    hashed_files,
    move_into,
    size_on_disk,
    sync_folder,
    write_bytes,
    write_json,
)
from whet.messages import to_json
from whet.steps.options import RECIPE, Heal, recipe_text

_AGAIN = "whet run recipe.yaml MODEL OUT"
_FIGURES = ("skill", "practised", "questions", "before", "after", "change")


def adopt(
    run: Run, made: Path, source: Checkpoint, asked: Heal, told: Mapping[str, Any], original: str | None
) -> dict[str, Any]:
    """Move what was made into the run's `out`; whet.json comes last. May be repeated. Returns `sizes` and `lineage`."""
    out, kept = run.out, run.folder / MANIFEST
    if (made / MANIFEST).is_file():
        shutil.copyfile(made / MANIFEST, kept)
        move_into(out, made, but=MANIFEST)
        sync_folder(out)
    manifest = json.loads(kept.read_text(encoding="utf-8"))
    before = list((source.whet or {}).get("lineage", ()))
    inner = manifest["lineage"][len(before) :]
    record = {
        "step": "heal",
        "how": told["how"],
        "to": told["to"],
        "outcome": told["outcome"],
        "original_sha256": original,
        "model_sha256": inner[0].get("model_sha256"),
        "problems": told["problems"],
        "skills": [{name: entry[name] for name in _FIGURES} for entry in told["skills"]],
        "trained": inner,
        "versions": inner[-1].get("versions"),
    }
    write_bytes(out / RECIPE, recipe_text(_recipe(asked), _AGAIN).encode())
    card = (out / "README.md").read_text(encoding="utf-8") if (out / "README.md").is_file() else ""
    if _HEADING not in card.rpartition("\n## ")[2]:
        write_bytes(out / "README.md", f"{card.rstrip()}\n\n{_card(told)}".encode())
    notes = [*manifest.get("notes", ()), *to_json(list(told["notes"]))]
    manifest |= {"lineage": [*before, record], "notes": [one for i, one in enumerate(notes) if one not in notes[:i]]}
    manifest["files"] = hashed_files(out)
    write_json(out / MANIFEST, manifest)
    return {"sizes": {"original": size_on_disk(source.path), "lighter": size_on_disk(out)}, "trained": inner[0]}


def left_as_it_was(run: Run, source: Checkpoint, told: Mapping[str, Any], copied: bool) -> None:
    """Take away what was made; with `copied`, leave the folder that was read in `out`. May be repeated."""
    for name in ("made", "adapter"):
        shutil.rmtree(run.folder / name, ignore_errors=True)
    if not copied:
        return
    for file in sorted(source.path.iterdir()):
        if file.name in (".whet", MANIFEST):
            continue
        if file.is_dir():
            shutil.copytree(file, run.out / file.name, dirs_exist_ok=True)
        else:
            shutil.copyfile(file, run.out / file.name)
    if (source.path / MANIFEST).is_file():
        shutil.copyfile(source.path / MANIFEST, run.out / MANIFEST)
    sync_folder(run.out)


def _recipe(asked: Heal) -> dict[str, Any]:
    """What does the same again, of a recipe's original on its questions."""
    options = Heal.model_construct(**asked.model_dump(include=set(Heal.model_fields))).document()
    for name in ("original", "skills", "practice", "text"):
        if Path(str(options.get(name, ""))).is_absolute():
            del options[name]
    return {"version": 1, "steps": [{"heal": options}]}


_HEADING = "Skills given back"


def _card(told: Mapping[str, Any]) -> str:
    """What was given back, as a part of README.md."""
    rows = [
        f"| {entry['skill']} | {_share(entry['before'])} | {_share(entry['after'])} |"
        for entry in sorted(told["skills"], key=lambda entry: not entry["practised"])
    ]
    practised: Sequence[str] = [entry["skill"] for entry in told["skills"] if entry["practised"]]
    return "\n".join(
        [
            f"## {_HEADING}",
            "",
            f"Practised: {', '.join(practised)}. Scores above chance over the original's, with 95 % intervals, on the "
            "questions that gated.",
            "",
            "| skill | before | after |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _share(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "–"
    low, high = figure["interval"]
    return f"{figure['value']:.1%} ({low:.1%} – {high:.1%})"
