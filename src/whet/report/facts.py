"""What the report page is told about a lighter folder: its plan and scores, a comparison, how to load it."""

from __future__ import annotations

import json
import resource
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whet.anatomy import auto_class, task_in
from whet.checkpoint import ADAPTER, MANIFEST, Checkpoint, is_alone, read_manifest
from whet.checkpoint.model_files import GRAPHS, is_finished, model_file
from whet.formats.export import FILE
from whet.measure.compare import environment
from whet.strict import parse_json
from whet.targets import TARGETS


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
    if is_finished(folder) and manifest:
        folder = folder.parent
    plan, own = _read(folder / "plan.json"), _read(folder / "scores.json")
    found: dict[str, Any] = {
        "compare": compare,
        "plan": plan,
        "scores": own or scores,
        "lighter": manifest or None,
        "run": None,
        "loading": loading(manifest, _read(folder / "config.json") or {}, folder),
        "name": name,
    }
    if seconds is not None:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        found["run"] = {"seconds": seconds, "memory": peak, "environment": environment()}
    return found


def _manifest(model: Path) -> dict[str, Any]:
    """The whet.json of a model folder, or of the folder that a finished file was made with; {} where there is none."""
    if not is_finished(model):
        return Checkpoint(model).whet or {}
    found = _read(model.parent / MANIFEST) or {}
    return read_manifest(found, model.parent / MANIFEST) if model.name in found.get("files", ()) else {}


def loading(manifest: Mapping[str, Any], config: Mapping[str, Any], folder: Path | None = None) -> list[dict[str, Any]]:
    """How a folder with this `whet.json` and config.json is loaded, by runtime, and whether that is tested.

    folder: where it is. Without it the code says FOLDER, for a page that lies in the folder and may move with it.
    """
    if not manifest:
        return []
    here = folder is None
    shell, python = ("FOLDER", "FOLDER") if folder is None else (shlex.quote(str(folder)), str(folder))
    found: list[dict[str, Any]] = []
    if manifest["target"] == "llama.cpp":
        how = f"llama-cli -m {_in(shell, folder, FILE)}"
        if "adapter" in manifest:
            how += f" --lora {_in(shell, folder, manifest['gguf']['adapter']['file'])}"
        found.append({"runtime": "llama.cpp", "checked": TARGETS["llama.cpp"].checked, "how": how})
    if "graph" in manifest:
        how, checked = _of_graph(shell, manifest), TARGETS[manifest["target"]].checked
        found.append({"runtime": manifest["target"], "checked": checked, "how": how})
    if not is_alone(manifest) and manifest["container"] not in GRAPHS:
        trust = ", trust_remote_code=True" if manifest["container"] == "whet" else ""
        kind = auto_class(config)
        how = f"from transformers import {kind}\n"
        how += f"model = {kind}.from_pretrained({_quoted(python)}{trust})"
        if "adapter" in manifest:
            adapter = _quoted(f"{python}/{ADAPTER}")
            how += f"\nfrom peft import PeftModel\nmodel = PeftModel.from_pretrained(model, {adapter})"
        found.append({"runtime": "transformers", "checked": TARGETS["transformers"].checked, "how": how})
    writes = task_in(config) in ("causal", "seq2seq")
    how = f'whet generate {shell} "PROMPT"' if writes else f"whet compare ORIGINAL {shell} --text FILE"
    found.append({"runtime": "whet", "checked": TARGETS["whet"].checked, "how": how})
    if manifest["target"] == "vllm":
        found.append({"runtime": "vllm", "checked": TARGETS["vllm"].checked, "how": f"vllm serve {shell}"})
    return [entry | {"here": here} for entry in found]


def _of_graph(shell: str, manifest: Mapping[str, Any]) -> str:
    """The lines that open a graph in its runtime."""
    file = manifest["graph"]["file"]
    if manifest["target"] == "onnx":
        return f"import onnxruntime\nsession = onnxruntime.InferenceSession({_quoted(f'{shell}/{file}')})"
    return f'import openvino\nmodel = openvino.compile_model({_quoted(f"{shell}/{file}")}, "CPU")'


def _in(shell: str, folder: Path | None, file: str) -> str:
    """A file of the folder, as a shell reads it."""
    return f"{shell}/{file}" if folder is None else shlex.quote(str(folder / file))


def _quoted(text: str) -> str:
    """`text` as a string of Python in double quotes, with everything that would end it escaped."""
    return json.dumps(text, ensure_ascii=False)


def _read(file: Path) -> dict[str, Any] | None:
    return parse_json(file.read_text(encoding="utf-8")) if file.is_file() else None
