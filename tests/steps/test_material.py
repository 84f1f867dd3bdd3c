"""Text the original writes beside the user's: pieces of that text gone on with, as much as asked, the same again."""

from __future__ import annotations

import pytest
import torch
import yaml

import models
from whet.checkpoint import Checkpoint, memory
from whet.errors import UsageError
from whet.events import ignore
from whet.recipe.compress import compress
from whet.steps import material
from whet.steps.material import continued

TEXT = [torch.randint(2, 258, (length,), generator=torch.Generator().manual_seed(length)) for length in (40, 33, 12)]
SETTINGS = {"scheme": "int3-g32", "text": models.documents(40), "samples": 8, "window": 32}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("written") / "model")


def pieces(text, length=10):
    return {tuple(window[at : at + length].tolist()) for window in text for at in range(len(window))}


def test_windows_go_on_from_pieces_of_the_text_until_there_are_enough(original):
    said = []
    found = continued(Checkpoint(original), TEXT, 300, 7, "cpu", said.append)
    assert sum(map(len, found)) >= 300 and all(8 <= len(window) <= 40 for window in found)
    starts = pieces(TEXT)
    assert all(tuple(window[:10].tolist()) in starts for window in found)
    assert len({tuple(window.tolist()) for window in found}) == len(found)
    assert [event["message"] for event in said if event["event"] == "note"] == [
        "the original writes 300 tokens beside the text, going on from pieces of it"
    ]
    assert {event["stage"] for event in said if event["event"] == "progress"} == {"write"}
    again, other = (continued(Checkpoint(original), TEXT, 300, seed, "cpu", ignore) for seed in (7, 8))
    assert [w.tolist() for w in again] == [w.tolist() for w in found] != [w.tolist() for w in other]


def test_what_begins_with_the_first_token_does_so_again(original):
    text = [torch.cat([torch.tensor([0]), window]) for window in TEXT]
    found = continued(Checkpoint(original), text, 300, 7, "cpu", ignore)
    assert all(window[0] == 0 for window in found)
    assert len({tuple(window[1:6].tolist()) for window in found}) > len(text)  # and not only from their beginnings


def test_where_the_text_ends_inside_its_windows_what_is_written_may_too(original, monkeypatch):
    """A model whose every second token ends a text."""
    import whet.engines.torch as engines

    ends = set(range(2, 258, 2))
    monkeypatch.setattr(engines, "_end_tokens", lambda *_: ends)
    packed = continued(Checkpoint(original), TEXT, 300, 7, "cpu", ignore)
    assert {len(window) for window in packed} == {40}
    odd = [window | 1 for window in TEXT]
    apart = continued(Checkpoint(original), odd, 300, 7, "cpu", ignore)
    assert all(int(token) not in ends for window in apart for token in window)
    assert len(apart) > 300 / 40  # they are shorter, so there are more of them


def test_a_run_solves_on_it_says_so_and_its_recipe_asks_for_it_again(original, tmp_path):
    plain = compress(original, tmp_path / "plain", **SETTINGS)
    result = compress(original, tmp_path / "out", synthetic=200, **SETTINGS)
    assert "written" not in plain["text"]
    assert result["text"]["written"]["tokens"] >= 200
    assert result["text"]["tokens"] == plain["text"]["tokens"]  # those of the text
    assert models.contents(tmp_path / "out") != models.contents(tmp_path / "plain")
    asked = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["steps"][0]["quantize"]
    assert asked["synthetic"] == 200


def test_best_fills_up_little_text_and_tuned_goes_by_the_text_alone(original, tmp_path, monkeypatch):
    def dry(**choices):
        return compress(original, tmp_path / "out", dry_run=True, **{**SETTINGS, **choices})

    tuned, best, none = dry(solver="tuned"), dry(solver="best"), dry(solver="best", synthetic=0)
    assert tuned["memory"] == none["memory"] < best["memory"]
    assert tuned["efforts"]["best"] > tuned["seconds"]  # which is without what it would write
    events = []
    monkeypatch.setattr("whet.steps.decide.ENOUGH", 400)
    monkeypatch.setattr("whet.train.steps._EPOCHS", 5)
    result = compress(original, tmp_path / "out", solver="best", on_event=events.append, **SETTINGS)
    given, written = result["text"]["tokens"], result["text"]["written"]["tokens"]
    assert 400 <= given + written < 400 + 32
    much = {**SETTINGS, "text": torch.randint(2, 258, (13, 32)), "samples": 13}
    assert "written" not in compress(original, tmp_path / "other", solver="best", **much)["text"]


def test_what_cannot_be_written_is_an_error_where_asked_for_and_a_note_where_not(original, tmp_path, monkeypatch):
    bert = models.make(tmp_path / "bert", "bert", architecture="AutoModelForMaskedLM")
    with pytest.raises(UsageError, match="synthetic 99 asks for text that the original writes, but bert does not"):
        compress(bert, tmp_path / "out", synthetic=99, **SETTINGS)
    assert "alone" in compress(bert, tmp_path / "b", solver="best", dry_run=True, **SETTINGS)["notes"][-1]
    with pytest.raises(UsageError, match=r"synthetic is -1: input should be greater than or equal to 0"):
        compress(original, tmp_path / "out", synthetic=-1, **SETTINGS)
    with pytest.raises(UsageError, match="synthetic 99 asks for text beside yours, and none is calibrated on"):
        compress(original, tmp_path / "out", synthetic=99, scheme="int3-g32", solver="nearest")
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    with pytest.raises(UsageError, match=r"but model needs about .* GB of memory for that and"):
        compress(original, tmp_path / "out", synthetic=99, **SETTINGS)
    told = compress(original, tmp_path / "out", solver="best", dry_run=True, **SETTINGS)
    assert any("needs about" in note and "text given alone" in note for note in told["notes"])
    assert not (tmp_path / "out").exists()


def test_a_budget_plans_and_solves_with_it(original, tmp_path):
    settings = {**SETTINGS, "text": models.documents(200), "samples": 40}
    del settings["scheme"]
    result = compress(original, tmp_path / "out", bits=5, synthetic=100, **settings)
    assert result["text"]["written"]["tokens"] >= 100


def test_no_more_text_than_helps_is_taken_unless_a_number_is_asked_for(original, tmp_path, monkeypatch):
    monkeypatch.setattr(material, "_HELPFUL", 200)
    monkeypatch.setattr(material, "_A_COLUMN", 0)

    def tokens(name, **options):
        asked = {"scheme": "int4s-g32", "text": models.documents(80), "window": 32, **options}
        return compress(original, tmp_path / name, **asked, dry_run=True)["text"]["tokens"]

    few, many = tokens("few"), tokens("many", samples=40)
    assert 200 <= few < 232 and many > 1000
    monkeypatch.setattr(material, "_A_COLUMN", 10)
    assert tokens("wide") >= 10 * 32
