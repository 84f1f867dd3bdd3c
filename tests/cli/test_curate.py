"""`whet curate` on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from whet import starter


def test_the_command_tells_what_became_of_the_documents(tmp_path: Path, command: Callable[..., Any]) -> None:
    texts = ["".join(starter.documents(seed, 6)) for seed in (*range(6), 0)]
    file = tmp_path / "text.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    ended = command("curate", file, file, tmp_path / "out", "--redact")
    assert ended.code == 0 and "removed: exact duplicate" in ended.out and "100 %" in ended.err
    ended = command("curate", file, tmp_path / "json", "--json")
    assert json.loads(ended.out)["kept"]["documents"] == 6
    assert command("curate", file).code == 2
