"""How what was made is run: the line of its runtime, or the lines of Python that load it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from whet.cli.phrases import say


def run_lines(result: dict[str, Any]) -> list[str]:
    """What to type to run the folder that `result` of compress or masks tells of, for the runtime it was made for."""
    from whet.anatomy import auto_class  # slow to import, and here by now

    out = Path(result["out"])
    if (file := out / "model.gguf").is_file():
        return [say("run_it", command=f"llama-server -m {shlex.quote(str(file))}")]
    if "graph" in (result.get("check") or {}):
        return [say("run_it", command=f'whet generate {shlex.quote(str(out))} "PROMPT"')]
    if result.get("target") == "vllm" and result["loads_in"] == "transformers":
        return [say("run_it", command=f"vllm serve {shlex.quote(str(out))}")]
    if not (out / "config.json").is_file():
        return []
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    own = "per_layer_config" in config or (
        result.get("container") != "dense" and result["loads_in"] == "modelling file"
    )
    kind, more = auto_class(config), ", trust_remote_code=True" if own else ""
    return [
        say("load_it"),
        f"  from transformers import AutoTokenizer, {kind}",
        f"  model = {kind}.from_pretrained({str(out)!r}{more})",
        f"  tokenizer = AutoTokenizer.from_pretrained({str(out)!r})",
    ]
