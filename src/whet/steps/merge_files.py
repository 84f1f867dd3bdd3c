"""The card of a folder with an adapter merged into it."""

from __future__ import annotations

from pathlib import Path

import yaml

from whet.apply.job import model_name
from whet.checkpoint import Checkpoint, inside, read_card


def merge_card(checkpoint: Checkpoint, adapter: Path | None, text: str = "") -> str:
    """README.md of a dense folder. adapter: its folder. text: what there is to say beside."""
    name = model_name(checkpoint.path.resolve())
    about = checkpoint.path / "README.md"
    base = ((checkpoint.whet or {}).get("base_model") or {}).get("name") or name
    front = dict(read_card(about) if inside(checkpoint.path, about) else {}) | {"base_model": base}
    tags = front.get("tags")
    front["tags"] = list(dict.fromkeys([*(tags if isinstance(tags, list) else []), "whet", "merged"]))
    what = "an adapter" if adapter is None else f"the adapter `{model_name(adapter.resolve())}`"
    lines = [
        "---",
        yaml.safe_dump(front, allow_unicode=True, sort_keys=False).strip(),
        "---",
        f"# {base}, with an adapter merged by whet",
        "",
        f"`{name}` with {what} added to its weights.{text} Whatever loads the original loads it.",
        "",
        "`whet.json` holds the lineage and the SHA-256 of every file.",
        "",
    ]
    return "\n".join(lines)
