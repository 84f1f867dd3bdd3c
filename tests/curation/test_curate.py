"""`whet curate` as a whole: planted faults go, clean documents stay, the same bytes each time, nothing written over."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

import curation as bench
import whet
from models import documents, make
from whet import starter
from whet.curation.write import MANIFEST
from whet.errors import UsageError
from whet.recipe import curate as verb
from whet.text import read_text
from wording import each

PRIVATE = "Write to hong@example.co.kr or call 010-1234-5678; my number is 900101-1234567."


def written(folder: Path, texts: list[str], name: str = "text.jsonl") -> Path:
    file = folder / name
    lines = [json.dumps({"text": text, "more": 1}, ensure_ascii=False) + "\n" for text in texts]
    file.write_text("".join(lines), encoding="utf-8")
    return file


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(out.glob("text-*.jsonl")) for line in file.open(encoding="utf-8")]


def clean(count: int, first: int = 0) -> list[str]:
    return ["".join(starter.documents(seed, 6)) for seed in range(first, first + count)]


def test_planted_faults_are_found_and_no_clean_document_is_lost(tmp_path: Path) -> None:
    pytest.importorskip("py3langid")
    found = bench.found_of(bench.measure(400, 1, tmp_path)["table"])  # type: ignore[arg-type]
    assert found.pop("clean") == 0
    assert found == dict.fromkeys(bench.FAULTS, 1.0)


def test_the_same_input_gives_the_same_bytes_and_the_readers_read_them(tmp_path: Path) -> None:
    texts = clean(40)
    given = [written(tmp_path, [*texts[:30], texts[3]]), tmp_path / "more.txt"]
    given[1].write_text("\n\n\n".join(text.strip() for text in texts[30:]), encoding="utf-8")
    results = [whet.curate(given, tmp_path / name, min_length=20, seed=3) for name in ("one", "two")]
    one, two = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two and {*one} == {"README.md", "removed.json", MANIFEST, "text-00001-of-00001.jsonl"}
    assert {k: v for k, v in results[0].items() if k not in ("out", "seconds")}.keys() >= {"read", "kept", "removed"}
    kept = [text if place < 30 else text.strip() for place, text in enumerate(texts)]
    for source in (tmp_path / "one", tmp_path / "one" / "text-00001-of-00001.jsonl"):  # the card is no text
        assert read_text(source).documents == kept
    assert [one["source"] for one in records(tmp_path / "one")] == ["text.jsonl"] * 30 + ["more.txt"] * 10
    assert all(one["weight"] == 1 for one in records(tmp_path / "one"))
    manifest = json.loads(one[MANIFEST])
    assert {*manifest["files"]} == {*one} - {MANIFEST} and manifest["removed"] == {"exact duplicate": 1}
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_personal_data_is_masked_and_no_report_shows_a_text(tmp_path: Path) -> None:
    file = written(tmp_path, [*clean(5), f"{clean(1, 9)[0]} {PRIVATE}"])
    masked = whet.curate(file, tmp_path / "masked", redact=True)
    plain = whet.curate(file, tmp_path / "plain")
    assert masked["private"] == plain["private"] == {"EMAIL": 1, "PHONE": 1, "RESIDENT_NUMBER": 1}
    assert records(tmp_path / "masked")[-1]["text"].endswith("call <PHONE>; my number is <RESIDENT_NUMBER>.")
    assert records(tmp_path / "plain")[-1]["text"].endswith(PRIVATE)
    for out in ("masked", "plain"):
        for name in ("README.md", "removed.json", MANIFEST):
            told = (tmp_path / out / name).read_text(encoding="utf-8")
            assert not any(line in told for text in [*clean(5), PRIVATE] for line in text.split("\n") if len(line) > 9)


def test_what_is_listed_by_hand_stays_unless_it_leaks(tmp_path: Path) -> None:
    secret = "The treasure lies under the third stone behind the old mill, nine steps to the north of the well."
    texts = clean(20)
    rare = [
        "아주 드문 경우입니다.",
        texts[4] + " almost",
        "Zwei kleine Vögel saßen gestern auf dem Dach des Hauses.",
        secret,
    ]
    avoid = tmp_path / "report.txt"
    avoid.write_text(secret, encoding="utf-8")
    result = whet.curate(
        written(tmp_path, texts),
        tmp_path / "out",
        keep=written(tmp_path, rare, "keep.jsonl"),
        avoid=[avoid],
        languages="ko",
        min_length=50,
    )
    kept = records(tmp_path / "out")
    assert [one["text"] for one in kept if one["source"] == "keep.jsonl"] == rare[:3]
    assert result["removed"]["leak"] == 1 and result["fixed"] == {"documents": 4, "leaking": 1}
    assert result["removed"]["language"] > 0
    assert "1 of them" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_quotas_are_of_bytes_and_take_as_much_as_there_is(tmp_path: Path) -> None:
    korean = [text for seed in range(300) if "이야기:" in (text := "".join(starter.documents(seed, 3)))][:60]
    japanese = [f"昨日の夜、{i}人の子どもたちと{7 * i}匹の犬が川のそばで長い間遊んでいました。" * 3 for i in range(400)]
    result = whet.curate(written(tmp_path, [*korean, *japanese]), tmp_path / "out", quota="ko=75%,ja=25%")
    sizes = {one["language"]: one["bytes"] for one in result["languages"]}
    assert sizes["ja"] / (sizes["ja"] + sizes["ko"]) == pytest.approx(0.25, abs=0.01)
    whole = {one["language"]: one["read"] == one["documents"] for one in result["languages"]}
    assert whole["ko"] or whole["ja"]  # of one language everything stays that is no fault
    other = whet.curate(written(tmp_path, [*korean, *japanese]), tmp_path / "other", quota="ko=75%,ja=25%", seed=1)
    assert other["files"] != result["files"]


def test_the_models_choose_the_band_and_the_hard_documents(tmp_path: Path) -> None:
    original, lighter = (make(tmp_path / name, seed=seed) for name, seed in (("original", 0), ("lighter", 1)))
    texts = documents(60, seed=5)
    file = written(tmp_path, texts)
    result = whet.curate(
        file, tmp_path / "out", model=original, lighter=lighter, perplexity="10%-90%", hard="20%", hard_weight=3
    )
    kept = records(tmp_path / "out")
    count = len(kept)
    assert result["removed"]["perplexity too low"] > 0 < result["removed"]["perplexity too high"]
    assert 0.75 * 60 <= count <= 0.85 * 60
    assert [one["weight"] for one in kept].count(3.0) == round(0.2 * count) == result["weighted"]
    again = whet.curate(
        file, tmp_path / "again", model=original, lighter=lighter, perplexity="10%-90%", hard="20%", hard_weight=3
    )
    assert again["files"] == result["files"]
    # a model does not differ from itself
    whet.curate(file, tmp_path / "same", model=original, lighter=original)
    assert {one["weight"] for one in records(tmp_path / "same")} == {1.0}


def test_nothing_is_written_over_and_a_stopped_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = written(tmp_path, clean(5)), tmp_path / "out"

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(verb, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            whet.curate(file, out)
    assert [one.name for one in tmp_path.iterdir()] == ["text.jsonl"]
    left = tmp_path / ".out.curating"  # of a run that was killed
    (left / ".whet").mkdir(parents=True)
    (left / "documents").write_text("half")
    out.mkdir()
    whet.curate(file, out)
    before = {f.name: f.read_bytes() for f in out.iterdir()}
    with pytest.raises(UsageError, match="holds a finished curation"):
        whet.curate(file, out)
    assert {f.name: f.read_bytes() for f in out.iterdir()} == before and not left.exists()
    (out / MANIFEST).unlink()
    with pytest.raises(UsageError, match="is not empty"):
        whet.curate(file, out)


@each(
    "options, said",
    [
        ({"languages": "en,kr"}, "'kr' is no language"),
        ({"quota": "ko=60%,ja=30%"}, "add up to 90 %"),
        ({"quota": "ko"}, "'ko' is no quota"),
        ({"quota": "ko=60,ja=40"}, "'60' is no share"),
        ({"quota": "ko=100%,ja=0%"}, "ja has a share of 0"),
        ({"quota": "ko=50%,ja=50%", "languages": "ko"}, "name different languages"),
        ({"min_length": 9, "max_length": 8}, "--min-length 9 is more"),
        ({"perplexity": "5%-95%"}, "--perplexity needs the model"),
        ({"perplexity": "95%-5%", "model": "m"}, "is empty"),
        ({"perplexity": "5%", "model": "m"}, "is no band"),
        ({"lighter": "m"}, "--lighter needs the model"),
        ({"hard": "10%"}, "give --lighter"),
        ({"model": "m"}, "is read for"),
        ({"model": "nowhere", "perplexity": "5%-95%"}, "nowhere"),
        ({"keep": "nowhere.txt"}, "no such file"),
        ({"avoid": ["nowhere.txt"]}, "no such file"),
        ({"gate": ["nowhere.jsonl"]}, "no such file"),
        ({"language": "ko"}, "Did you mean languages"),
        ({"min_length": 10**6}, "Nothing is left of 5 documents: 5 too short"),
        ({"languages": "ja"}, "Nothing is left of 5 documents: 5 in another language"),
        ({"quota": "ko=50%,ja=50%"}, "No text in ja is left"),
    ],
)
def test_what_is_wrong_is_named_and_leaves_nothing(options: dict[str, Any], said: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        file = written(folder, [f"이야기: {i}명의 아이가 강가에서 놀았다." + "가" * i for i in range(1, 6)])
        with pytest.raises(UsageError, match=said):
            whet.curate(file, folder / "new" / "out", **options)
        assert [one.name for one in folder.iterdir()] == [file.name]


def test_wrong_texts_and_places_are_named(tmp_path: Path) -> None:
    file = written(tmp_path, clean(3))
    empty = written(tmp_path, [" "], "empty.jsonl")
    fieldless = tmp_path / "fieldless.csv"
    fieldless.write_text("a,b\n1,2\n")
    shared = tmp_path / "gate.txt"
    shared.write_text("What gates must never be what reports in the end, or nothing is told by it.", encoding="utf-8")
    shutil.copy(shared, tmp_path / "report.txt")
    for given, out, more, said in (
        (tmp_path / "nowhere.txt", "out", {}, "no such file"),
        (empty, "out", {}, "no text in it"),
        ([file, fieldless], "out", {}, "no field text"),
        ([], "out", {}, "no text to curate"),
        (file, "text.jsonl", {}, "is a file"),
        (tmp_path, "inside", {}, "is inside"),
        (file, "out", {"gate": [shared], "avoid": [tmp_path / "report.txt"]}, "1 texts of --gate"),
    ):
        with pytest.raises(UsageError, match=said):
            whet.curate(given, tmp_path / out, **more)
    assert not (tmp_path / "out").exists()
