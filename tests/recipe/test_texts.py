"""Text as people have it, through the verbs: conversations, tables, large files and bad records; what was read of them
is told, kept with the folder and found again."""

from __future__ import annotations

import json

import pytest
import yaml

import models
import whet
from whet.errors import UsageError
from whet.text import Amount

CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
CHOICES = {"scheme": "int4s-g32", "target": "whet", "samples": 4, "window": 32, "device": "cpu"}
TALKS = [
    {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": text}]}
    for text in models.documents(40)
]


def jsonl(path, records):
    path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = models.make(tmp_path_factory.mktemp("texts") / "model")
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder


def text_of(folder):
    (step,) = json.loads((folder / "whet.json").read_text(encoding="utf-8"))["lineage"]
    return step["text"]


def test_conversations_calibrate_and_are_found_again_by_compare(original, tmp_path):
    path = jsonl(tmp_path / "talks.jsonl", [*TALKS, {"conversations": None}])
    with pytest.raises(UsageError, match=r"talks\.jsonl, line 41: expected a non-empty list"):
        whet.compress(original, tmp_path / "out", text=path, **CHOICES)
    assert not (tmp_path / "out").exists()
    told = whet.compress(original, tmp_path / "out", text=path, skip_bad=True, **CHOICES)["notes"]
    assert any("holds conversations (conversations)" in note for note in told)
    assert any("1 record(s) could not be read" in note for note in told)
    recipe = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["steps"][0]["quantize"]["skip_bad"] is True
    result = whet.compare(original, tmp_path / "out", text=path, skip_bad=True, window=32, windows=4, speed=False)
    assert result["text"]["part"] == "report" and result["text"]["documents"] == 40
    assert any("left out" in note for note in result["notes"]) and "read" not in result["text"]


def test_a_recipe_reads_a_table_and_tells_what_it_found(original, tmp_path):
    path = tmp_path / "table.csv"
    rows = "".join(f'{i},"{text}"\n' for i, text in enumerate(models.documents(120)))
    path.write_text(f"id,story\n{rows}broken\n", encoding="utf-8")
    steps = [{"quantize": {"scheme": "int4s-g32", "for": "whet", "samples": 4, "window": 32}}]
    recipe = {"version": 1, "steps": steps, "text": str(path), "skip_bad": True}
    result = whet.run(recipe, original, tmp_path / "out", device="cpu")
    assert any("story is read, the only one" in note for note in result["notes"])
    assert any("line 122: 1 fields" in note for note in result["notes"])


def test_a_large_text_is_read_at_places_and_its_parts_are_found_again(original, tmp_path, monkeypatch):
    """Kilobytes for megabytes. What was read is in the lineage, with which compare reads the same."""
    low = classmethod(lambda cls, count, length: cls(20_000, 1000))
    monkeypatch.setattr(Amount, "enough", low)
    path = jsonl(tmp_path / "large.jsonl", [{"text": text} for text in models.documents(1000)])
    told = whet.compress(original, tmp_path / "out", text=path, **CHOICES)["notes"]
    assert any("MB are read, at places" in note for note in told)
    about = text_of(tmp_path / "out")
    assert about["read"] == {"bytes": path.stat().st_size, "most": 20_000, "piece": 1000}
    monkeypatch.setattr(Amount, "enough", classmethod(lambda cls, count, length: cls(9000, 700)))
    result = whet.compare(original, tmp_path / "out", text=path, window=32, windows=4, speed=False)
    assert result["text"]["fingerprint"] == about["fingerprint"] and result["text"]["part"] == "report"
    assert result["text"]["read"] == about["read"]
