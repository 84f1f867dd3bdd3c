"""What the report page is told about a lighter folder: its plan and scores, a comparison, how to load it."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whet.checkpoint import ADAPTER, MANIFEST, Checkpoint, is_alone, read_manifest
from whet.checkpoint.gguf import is_gguf, model_file
from whet.formats.export import FILE
from whet.measure.compare import environment
from whet.strict import parse_json
from whet.targets import TARGETS, no_file_yet


def facts(
    lighter: str | Path,
    *,
    compare: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    seconds: float | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Facts for `whet.report.page` and `card_section` about the folder `lighter`.

    compare: a result of `whet.compare`. scores: where the folder has none of its own. seconds: how long making it took;
    with it the page also shows this process's peak memory and the machine. name: what to call the original.
    """
    folder = Path(lighter)
    manifest = _manifest(model_file(folder))
    if is_gguf(folder) and manifest:
        folder = folder.parent
    plan, own = _read(folder / "plan.json"), _read(folder / "scores.json")
    found: dict[str, Any] = {
        "compare": compare,
        "plan": plan,
        "scores": own or scores,
        "lighter": manifest or None,
        "run": None,
        "loading": loading(manifest),
        "name": name,
    }
    if seconds is not None:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        found["run"] = {"seconds": seconds, "memory": peak, "environment": environment()}
    return found


def _manifest(model: Path) -> dict[str, Any]:
    """The whet.json of a model folder, or of the folder that a .gguf was made with; {} where there is none."""
    if not is_gguf(model):
        return Checkpoint(model).whet or {}
    found = _read(model.parent / MANIFEST) or {}
    return read_manifest(found, model.parent / MANIFEST) if model.name in found.get("files", ()) else {}


def loading(manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """How a folder with this `whet.json` is loaded, by runtime, and whether that is tested."""
    if not manifest:
        return []
    found: list[dict[str, Any]] = []
    if manifest["target"] == "llama.cpp":
        how = f"llama-cli -m FOLDER/{FILE}"
        if "adapter" in manifest:
            how += f" --lora FOLDER/{manifest['gguf']['adapter']['file']}"
        found.append({"runtime": "llama.cpp", "checked": TARGETS["llama.cpp"].checked, "how": how})
    if not is_alone(manifest):
        trust = ", trust_remote_code=True" if manifest["container"] == "whet" else ""
        how = "from transformers import AutoModelForCausalLM\n"
        how += f'model = AutoModelForCausalLM.from_pretrained("FOLDER"{trust})'
        if "adapter" in manifest:
            how += f'\nfrom peft import PeftModel\nmodel = PeftModel.from_pretrained(model, "FOLDER/{ADAPTER}")'
        found.append({"runtime": "transformers", "checked": TARGETS["transformers"].checked, "how": how})
    found.append({"runtime": "whet", "checked": TARGETS["whet"].checked, "how": 'whet generate FOLDER "PROMPT"'})
    if manifest["target"] == "vllm":
        found.append({"runtime": "vllm", "checked": TARGETS["vllm"].checked, "how": "vllm serve FOLDER"})
    if (target := TARGETS.get(manifest["target"])) is not None:
        for sentence in no_file_yet(target):
            found.append({"runtime": target.name, "checked": "unsupported", "how": sentence})
    return found


def _read(file: Path) -> dict[str, Any] | None:
    return parse_json(file.read_text(encoding="utf-8")) if file.is_file() else None
