"""The end of a recipe's run: what was kept is moved to where it was asked for, with its page and how it came to be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whet.apply.run import Run
from whet.checkpoint import MANIFEST, hashed_files, move_into, write_bytes, write_json
from whet.report import page
from whet.report.facts import loading
from whet.steps.crafts import CRAFTS
from whet.steps.options import RECIPE, recipe_text

# What tells of the run and is not a part of the model: its figures hold times.
_ABOUT = ("run.json", "compare.json", "report.html")


def adopt(
    run: Run,
    recipe: Mapping[str, Any],
    ended: Sequence[Mapping[str, Any]],
    last: Path | None,
    result: Mapping[str, Any],
) -> None:
    """Move the files of the last model that was kept, `last`, and of exports into the run's `out`; whet.json comes
    last. Where nothing was kept only run.json is written. May be repeated."""
    out = run.out
    for end in ended:
        made = run.folder / f"{end['step']:02d}-{end['craft']}"
        if end["outcome"] == "kept" and CRAFTS[end["craft"]].gives is None and made.is_dir():
            move_into(out, made, but=MANIFEST)
    write_json(out / "run.json", dict(result))
    if last is None:
        return
    manifest_file = run.folder / MANIFEST
    if (last / MANIFEST).is_file():
        shutil.copyfile(last / MANIFEST, manifest_file)
        move_into(out, last, but=MANIFEST)
        (last / MANIFEST).unlink()
    write_bytes(out / RECIPE, recipe_text(recipe, "whet run recipe.yaml MODEL OUT").encode())
    if result["report"] is not None:
        write_json(out / "compare.json", result["report"])
    manifest = json.loads(manifest_file.read_text(encoding="utf-8"))
    told = {
        "compare": result["report"],
        "plan": _found(out / "plan.json"),
        "scores": _found(out / "scores.json"),
        "lighter": manifest,
        "loading": loading(manifest, _found(out / "config.json") or {}),
        "name": manifest["base_model"]["name"],
        "steps": result["steps"],
    }
    write_bytes(out / "report.html", page(told).encode())
    manifest["files"] = {name: kept for name, kept in hashed_files(out).items() if name not in _ABOUT}
    write_json(out / MANIFEST, manifest)


def _found(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
