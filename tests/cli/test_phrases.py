"""The law: everything the command line says exists in both languages, with the same values filled in."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

from whet.anatomy import UNITS
from whet.anatomy.layers import SUB_BLOCKS
from whet.checkpoint.model_files import GRAPHS
from whet.cli import phrases, tables
from whet.cli.heal import EXIT_CODES
from whet.curation.curate import NEAR, READ, WRITE
from whet.curation.models import MODELS
from whet.curation.private import KINDS
from whet.curation.store import REASONS
from whet.measure.classes import TASKS
from whet.steps.tune_options import HOWS
from wording import each


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@each("key", sorted(phrases.PHRASES))
def test_every_phrase_is_complete_in_both_languages(key: str) -> None:
    english, korean = phrases.PHRASES[key]
    assert english.strip() and korean.strip()
    assert fields(english) == fields(korean)


def test_korean_phrases_are_korean() -> None:
    hangul = [key for key, (_, korean) in phrases.PHRASES.items() if any("가" <= c <= "힣" for c in korean)]
    # Names of the field (KL, VRAM) and bare patterns may stay as they are.
    assert len(hangul) >= 0.9 * len(phrases.PHRASES)


@each(
    "variables, expected",
    [
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "WHET_LANG": "ko"}, "ko"),
        ({"LANG": "ko_KR.UTF-8", "WHET_LANG": "en"}, "en"),
        ({}, "en"),
    ],
)
def test_language_follows_whet_lang_then_the_locale(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("WHET_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert phrases.language() == expected


@each(
    "seconds, english, korean",
    [(0.2, "0 s", "0초"), (59.4, "59 s", "59초"), (185, "3 min 5 s", "3분 5초"), (7800, "2 h 10 min", "2시간 10분")],
)
def test_durations(monkeypatch: pytest.MonkeyPatch, seconds: float, english: str, korean: str) -> None:
    monkeypatch.setenv("WHET_LANG", "en")
    assert phrases.duration(seconds) == english
    monkeypatch.setenv("WHET_LANG", "ko")
    assert phrases.duration(seconds) == korean


@each("count, text", [(0, "0 B"), (999, "999 B"), (9_240_000, "9.2 MB"), (3e12, "3.0 TB")])
def test_sizes_are_in_units_of_a_thousand(count: float, text: str) -> None:
    assert phrases.size(count) == text


CLI = Path(phrases.__file__).parent
SPOKEN = "\n".join(path.read_text(encoding="utf-8") for path in CLI.rglob("*.py"))
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in CLI.parent.rglob("*.py"))


@each("key", sorted(phrases.PHRASES))
def test_every_phrase_is_said_somewhere(key: str) -> None:
    told = {f"stage.{stage}" for stage in STAGES} | {f"size.{part}" for part in tables.PARTS}
    told |= {f"unit.{unit}" for unit in ("embedding", "head", "rest", "block", "block forward", "block backward")}
    told |= {f"stays.{unit}" for unit in UNITS} | {f"gone.{unit}" for unit in SUB_BLOCKS}
    told |= {f"elastic.{column}" for column in ("size", *UNITS)}
    told |= {f"merged.{how}" for how in ("weights", *HOWS.split(", "))}
    told |= {f"verdict.{verdict}" for verdict in ("pass", "fail", "inconclusive")}
    told |= {f"loads.{container}" for container in ("transformers", "modelling file", "dense", "gguf", *GRAPHS)}
    told |= {f"run.{verdict}" for verdict in ("pass", "fail", "inconclusive")}
    told |= {f"verify.{what}" for what in ("file", "state", "listed", "found", "pass", "fail")}
    told |= {f"verify.{state}" for state in ("missing", "outside", "size", "changed", "unlisted")}
    told |= {f"answers.{what}" for what in (*TASKS.values(), "tokens")}
    told |= {f"curate.{word}" for word in (*REASONS, *KINDS)} | {
        f"stage.{name}" for name in (READ, NEAR, MODELS, WRITE)
    }
    told |= {f"status.{state}" for state in ("running", "stopped", "finished")}
    outcomes = ("kept", "skipped", "stopped", "undecided", "not reached", "stopped run", "waiting", "running")
    told |= {f"outcome.{outcome}" for outcome in outcomes}
    told |= {f"healed.{what}" for what in (*EXIT_CODES, "skill", "before", "after", "change")}
    assert key in told or len(re.findall(f"[\"']{re.escape(key)}[\"']", SPOKEN)) > 1


# Stages named by a literal, and those that are put together.
STAGES = {
    *re.findall(r'\bStage\([^,"]+, "([^"]+)"', SOURCE),
    *re.findall(r'stage\(\d, on_event, "([^"]+)"', SOURCE),
    *re.findall(r'"stage": "([^"]+)"', SOURCE),
}
STAGES |= {"skills", "skills, original", "skills, lighter", "skills, healed", "solve", "fail", "judge", "score"}


@each("stage", sorted(STAGES))
def test_every_stage_of_progress_has_a_phrase(stage: str) -> None:
    assert f"stage.{stage}" in phrases.PHRASES


@each(
    "unit,said",
    [
        ("embedding", "compressing 1/4 (embedding)"),
        ("block 10", "compressing 1/4 (block 10)"),
        ("block 10 backward", "compressing 1/4 (block 10, backward)"),
        ("something new", "compressing 1/4"),
        (None, "compressing 1/4"),
    ],
)
def test_what_is_going_on_has_its_unit(unit: str | None, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHET_LANG", "en")
    assert phrases.doing({"stage": "compress", "done": 1, "of": 4, "unit": unit}) == said


def test_a_whole_is_not_said_to_be_done_before_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHET_LANG", "en")
    assert [phrases.percent(share) for share in (0.0, 0.999, 1.0)] == ["0 %", "99 %", "100 %"]
