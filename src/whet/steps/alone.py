"""What a folder for a runtime with a file of its own is left as: that file and what tells of it, without the Hugging
Face folder it came from.

That folder holds the same weights once more. It is needed while the file is made, measured and proved, and goes at the
very end, when the run is closed; `folder` keeps it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from whet.checkpoint import ADAPTER, MANIFEST, TIMES, is_alone, write_json
from whet.checkpoint.beside import is_paper, subfolders
from whet.checkpoint.model_files import model_file, size_of_file
from whet.steps.options import RECIPE

_TOLD = (RECIPE, TIMES, "plan.json", "scores.json", "run.json", "compare.json", "report.html")


def leave_file(result: dict[str, Any]) -> dict[str, Any]:
    """`result` of a finished run, whose folder is left with its runtime's file alone where that is all that was asked
    for.

    May be repeated; whet.json stops naming the other files before the first of them goes.
    """
    if "out" not in result or not (file := Path(result["out"]) / MANIFEST).is_file():
        return result
    out, manifest = file.parent, json.loads(file.read_text(encoding="utf-8"))
    if not is_alone(manifest):
        return result
    container, stays = ("gguf", _with_gguf) if "gguf" in manifest else (manifest["target"], _with_graph)
    kept = {name: about for name, about in manifest["files"].items() if stays(name)}
    write_json(file, manifest | {"container": container, "files": kept})
    folders = [name for name in (ADAPTER, *subfolders(out)) if (out / name).is_dir() and not stays(f"{name}/")]
    for other in out.iterdir():
        if other.is_file() and other != file and not stays(other.name):
            other.unlink()
    for name in folders:
        shutil.rmtree(out / name)
    if "sizes" not in result:
        return result
    sizes = {**result["sizes"], "lighter": size_of_file(model_file(out))}
    return {**result, "container": container, "sizes": sizes, "loads_in": container}


def _with_graph(name: str) -> bool:
    """Whether a file, or what lies in a `folder/`, stays beside a graph, which is read with config and tokenizer."""
    return not name.endswith((".safetensors", ".safetensors.index.json", ".py")) and not name.startswith(f"{ADAPTER}/")


def _with_gguf(name: str) -> bool:
    """The same of a .gguf, which has both in it."""
    return name.endswith(".gguf") or name in _TOLD or is_paper(name)
