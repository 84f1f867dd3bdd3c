"""What a folder for llama.cpp is left as: the .gguf and what tells of it, without the Hugging Face folder it came from.

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
from whet.checkpoint.gguf import read_gguf
from whet.formats.export import FILE
from whet.steps.options import RECIPE

CONTAINER = "gguf"
_TOLD = (RECIPE, TIMES, "plan.json", "scores.json", "run.json", "compare.json", "report.html")


def leave_file(result: dict[str, Any]) -> dict[str, Any]:
    """`result` of a finished run, whose folder is left with its .gguf alone where that is all that was asked for.

    May be repeated; whet.json stops naming the other files before the first of them goes.
    """
    if "out" not in result or not (file := Path(result["out"]) / MANIFEST).is_file():
        return result
    out, manifest = file.parent, json.loads(file.read_text(encoding="utf-8"))
    if not is_alone(manifest):
        return result
    kept = {name: about for name, about in manifest["files"].items() if _stays(name)}
    write_json(file, manifest | {"container": CONTAINER, "files": kept})
    folders = [name for name in (ADAPTER, *subfolders(out)) if (out / name).is_dir()]
    for other in out.iterdir():
        if other.is_file() and other != file and not _stays(other.name):
            other.unlink()
    for name in folders:
        shutil.rmtree(out / name)
    if "sizes" not in result:
        return result
    sizes = {**result["sizes"], "lighter": read_gguf(out / FILE).size()}
    return {**result, "container": CONTAINER, "sizes": sizes, "loads_in": CONTAINER}


def _stays(name: str) -> bool:
    return name.endswith(".gguf") or name in _TOLD or is_paper(name)
