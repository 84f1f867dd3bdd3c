"""Leaks: a document that holds a text of evaluation is found, whatever stands around it; a pattern alone is none."""

from __future__ import annotations

import numpy as np

from whet import starter
from whet.curation.material import wordings
from whet.curation.overlap import Evaluation
from whet.curation.units import units_of

LONG = " ".join(f"word{i}" for i in range(40))
KOREAN = "민지는 어제 도서관에서 빌린 책을 강가의 오래된 나무 아래에 앉아 해가 질 때까지 천천히 읽었다."


def leaks(texts: list[list[str]], documents: list[str]) -> list[bool]:
    evaluation = Evaluation()
    evaluation.add("test", texts)
    return (evaluation.shared(units_of(documents)).source >= 0).tolist()


def test_a_text_is_found_within_another_in_other_case_and_spacing() -> None:
    around = "before {} after " + " ".join(f"other{i}" for i in range(200))
    for text in (LONG, KOREAN, "Who wrote the first book of all?", "가장 먼저 쓴 책은 무엇인가요?"):
        said = [around.format(text), around.format(text.upper().replace(" ", "\n")), around.format("")]
        assert leaks([[text]], said) == [True, True, False], text


def test_half_of_a_long_text_is_a_leak_and_a_sentence_of_it_is_none() -> None:
    words = LONG.split()
    half, sentence = " ".join(words[:30]), " ".join(words[:14])
    beside = " ".join(f"other{i}" for i in range(100))
    evaluation = Evaluation()
    evaluation.add("test", [[LONG]])
    shared = evaluation.shared(units_of([f"{half} {beside}", f"{sentence} {beside}", beside]))
    assert (shared.source >= 0).tolist() == [True, False, False]
    assert shared.touches.tolist() == [True, True, False]


def test_a_short_document_out_of_a_long_text_is_a_leak() -> None:
    assert leaks([[LONG]], [" ".join(LONG.split()[5:20])]) == [True]


def test_a_short_text_leaks_as_a_whole_alone() -> None:
    """Questions of one pattern differ in a name: that of another is no leak."""
    asked = "{} is taller than Emma. Emma is taller than Anna. Who is the tallest?"
    assert leaks([[asked.format("Rosa")]], [asked.format("Minho"), "So. " + asked.format("Rosa")]) == [False, True]


def test_a_short_text_is_not_found_within_words() -> None:
    king = "왕이 큰 농장에서 춤을 추었다."
    assert leaks([[king]], [f"여{king}", f"그때 {king}"]) == [False, True]


def test_what_is_too_short_is_counted_and_any_wording_counts() -> None:
    evaluation = Evaluation()
    evaluation.add("test", [["Why?"], ["2 + 2"], ["Story:", "The wolf is faster than the rabbit."], [""]])
    assert (evaluation.counts, evaluation.unchecked) == ([4], [3])
    found = evaluation.shared(units_of(["Why? 2 + 2", "I know: the wolf is faster than the rabbit, is it?"]))
    assert found.source.tolist() == [-1, 0]


def test_a_passage_of_many_questions_is_found() -> None:
    """Runs that stand in more texts than are looked at still count."""
    assert leaks([[f"{LONG} Question {i}"] for i in range(200)], [LONG + " and more"]) == [True]


def test_what_gates_and_what_reports_are_apart() -> None:
    gate, report, both = Evaluation(), Evaluation(), Evaluation()
    gate.add("gate", [[LONG], ["What is the name of the river here?"]])
    report.add("report", [[KOREAN], ["What is the name of the mountain here?"]])
    both.add("both", [[KOREAN], [f"{LONG} again"], ["What is the name of the river here?"]])
    assert report.overlaps(gate) == 0 and both.overlaps(gate) == 2 and both.overlaps(report) == 1


def test_the_embedded_models_questions_are_all_found_and_its_training_holds_none() -> None:
    evaluation = Evaluation()
    items = starter.skills("report", 40)
    evaluation.add("questions", wordings(items))
    asked = [f"{item['prompt']} {item['answer']}" for item in items if "choices" not in item]
    clean = ["".join(starter.documents(seed, 6)) for seed in range(len(asked))]
    planted = [f"{text}\n{question}\n{text[:99]}" for text, question in zip(clean, asked, strict=True)]
    assert evaluation.unchecked == [0]
    assert (evaluation.shared(units_of(planted)).source >= 0).all()
    assert not (evaluation.shared(units_of(clean)).source >= 0).any()
    assert np.array_equal(evaluation.shared(units_of([""])).touches, [False])
