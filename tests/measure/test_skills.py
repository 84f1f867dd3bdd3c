"""Skills: strict reading, likelihoods by brute force, outcomes free of batching, flips counted both ways."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from whet.errors import UsageError
from whet.measure import skills
from whet.measure.evidence import grouped
from whet.measure.items import Item, is_right, last_number, read_skills
from whet.measure.skills import Outcome, choice_rows, compare_skills, score
from whet.recipe.texts import _divided
from wording import each

SUM = {"skill": "sums", "prompt": "2 + 2 =", "answer": "4", "check": "number"}
PAIR = {"skill": "grammar", "prompt": "", "choices": ["나는 간다.", "나는 가는다."], "label": 0}


def test_items_read_the_same_from_a_file_and_from_a_list(tmp_path):
    path = tmp_path / "s.jsonl"
    lines = [json.dumps(SUM), "", json.dumps(PAIR, ensure_ascii=False)]
    path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    items = read_skills(path)
    assert items == read_skills([SUM, PAIR])
    assert items[0] == Item("sums", "2 + 2 =", answer="4", check="number") and items[0].chance == 0
    assert items[1].choices == ("나는 간다.", "나는 가는다.") and items[1].chance == 0.5
    assert read_skills([{**SUM, "answer": 4}])[0].answer == "4"
    assert read_skills([{"skill": "a", "prompt": "b", "answer": "c"}])[0].check == "exact"


@each(
    "change, message",
    [
        ({"anwser": "4"}, r"line 2: unknown key anwser\. Did you mean answer\?"),
        ({"answer": None}, r"answer must be text that is not blank, found None"),
        ({"answer": "four"}, r"the check is number, but the answer 'four' has none"),
        ({"check": "exakt"}, r"check 'exakt' is not known\. Did you mean exact\?"),
        ({"prompt": 3}, r"prompt must be there and be text, found 3"),
        ({"prompt": ""}, r"the prompt is empty"),
        ({"skill": " "}, r"skill is blank"),
        ({"choices": ["a", "b"]}, r"either answer .* or choices .*, found both"),
        ({"label": 0}, r"label goes with choices"),
    ],
)
def test_a_wrong_answer_item_is_refused_with_its_line(tmp_path, change, message):
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(SUM) + "\n" + json.dumps({**SUM, **change}))
    with pytest.raises(UsageError, match=message):
        read_skills(path)


@each(
    "change, message",
    [
        ({"label": 2}, r"label must be the position of the right choice, 0 to 1, found 2"),
        ({"label": "0"}, r"found '0'"),
        ({"label": None}, r"found None"),
        ({"choices": ["a"]}, r"two texts or more"),
        ({"choices": ["a", ""]}, r"none empty"),
        ({"choices": ["a", "a"]}, r"a choice comes twice"),
        ({"check": "number"}, r"check 'number' goes with answer"),
    ],
)
def test_a_wrong_choice_item_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        read_skills([{**PAIR, **change}])


def test_files_that_are_no_items_are_refused(tmp_path):
    path = tmp_path / "s.jsonl"
    for content, message in (("{'a'", "line 1: not JSON"), ("[1]", "an item is a JSON object"), ("\n", "is empty")):
        path.write_text(content)
        with pytest.raises(UsageError, match=message):
            read_skills(path)
    with pytest.raises(UsageError, match=r"no such file of skills\. Did you mean s\.jsonl\?"):
        read_skills(tmp_path / "s.json")
    with pytest.raises(UsageError, match="neither"):
        read_skills([{"skill": "a", "prompt": "b"}])


@each(
    "answer, expected, check, right",
    [
        (" 사과 ", "사과", "exact", True),
        ("사과는", "사과", "exact", False),
        ("사과", "\u1109\u1161\u1100\u116a", "exact", True),  # the same word in single letters
        ("답은 사과.", "사과", "contains", True),
        ("2 + 2 = 4.", "4", "number", True),
        ("4 or 5", "4", "number", False),
        ("total 1,234.50", "1234.5", "number", True),
        ("5-3", "3", "number", True),
        ("is -3", "-3", "number", True),
        ("42개", "42", "number", True),
        ("none", "4", "number", False),
    ],
)
def test_checks(answer, expected, check, right):
    assert is_right(answer, expected, check) is right


def test_the_last_number_reads_lists_and_thousands_apart():
    assert [last_number(t) for t in ("1,2,3", "1,234", "12,", "a", "−7", "3.25 kg")] == [3, 1234, 12, None, -7, 3.25]


def items_of(engine):
    """Free answers the random model itself gives (so some are right), wrong ones, and choices."""
    prompts = ["가나다", "abc", "abd", "xyzw", "hello there", "12 + 7 =", "12 + 8 ="]
    own = score(engine, [Item("own", p, answer="?") for p in prompts])
    right = [Item("own", p, answer=o.answer or "?") for p, o in zip(prompts, own, strict=True)]
    choices = [Item("pick", p, choices=("a", "bcd", "가"), label=i % 3) for i, p in enumerate(["", *prompts])]
    return [*right, *(Item("other", p, answer="zz", check="contains") for p in prompts), *choices]


def test_a_model_against_itself_has_no_flips(original, twin):
    items = items_of(original)
    a, b = score(original, items), score(twin, items)
    assert a == b and any(o.right for o in a)
    for entry in compare_skills(items, a, b):
        assert entry["flips"]["lost"] == entry["flips"]["gained"] == 0 and entry["mcnemar_p"] == entry["holm_p"] == 1.0
        assert entry["retention"]["value"] in (None, 1.0)


def test_outcomes_do_not_depend_on_what_is_batched_together_or_on_order(original, monkeypatch):
    items = items_of(original)
    together = score(original, items)
    assert score(original, items[::-1])[::-1] == together
    assert [score(original, [item])[0] for item in items] == together
    monkeypatch.setattr(skills, "PROMPTS_AT_ONCE", 1)
    monkeypatch.setattr(skills, "CHOICE_TOKENS", 7)
    assert score(original, items) == together


def test_answers_are_what_greedy_generation_of_transformers_gives(original):
    prompts = ["가나다", "abc", "hello there"]
    for prompt, outcome in zip(prompts, score(original, [Item("s", p, answer="?") for p in prompts]), strict=True):
        ids = torch.tensor([original.encode(prompt)])
        new = original.model.generate(ids, max_new_tokens=skills.LONGEST_ANSWER, do_sample=False)[0, ids.shape[1] :]
        assert outcome.answer == original.decode(new.tolist()).split("\n")[0].strip()


def test_choices_are_scored_by_the_log_likelihood_after_the_prompt(original):
    for prompt in ("", "abc ", "안녕"):
        item = Item("pick", prompt, choices=("a b", "longer choice", "가"), label=0)
        sums = []
        for choice in item.choices:
            ids = torch.tensor([original.encode(prompt + choice)])
            with torch.no_grad():
                shares = torch.log_softmax(original.model(ids).logits.double(), -1)[0]
            start = max(1, len(original.encode(prompt)))
            sums.append(sum(float(shares[t - 1, ids[0, t]]) for t in range(start, ids.shape[1])))
        best = max(range(3), key=lambda i: sums[i])
        per_byte = max(range(3), key=lambda i: sums[i] / len(item.choices[i].encode()))
        (outcome,) = score(original, [item])
        assert (outcome.answer, outcome.right, outcome.right_normalized) == (
            item.choices[best],
            best == 0,
            per_byte == 0,
        )


class Merging:
    """A tokenizer that merges `a` and `b` across the end of the prompt, as BPE may."""

    context = None

    def encode(self, text, chat=False):
        return [ord(c) for c in text.replace("ab", "\x07")]


def test_a_token_merged_over_the_border_is_scored_for_every_choice():
    rows, start = choice_rows(Merging(), Item("s", "a", choices=("b", "c"), label=0))
    assert start == 1  # nothing before the first token, so that is the least
    rows, start = choice_rows(Merging(), Item("s", "xya", choices=("b", "c"), label=0))
    assert start == 2 and rows == [[120, 121, 7], [120, 121, 97, 99]]
    rows, start = choice_rows(Merging(), Item("s", "xya", choices=("c", "d"), label=0))
    assert start == 3 and rows == [[120, 121, 97, 99], [120, 121, 97, 100]]


def test_a_prompt_longer_than_the_context_names_the_skill(original):
    for item in (Item("long", "a" * 200, answer="b"), Item("long", "a" * 200, choices=("b", "c"), label=0)):
        with pytest.raises(UsageError, match=r"skill long takes 20[01] tokens, more than the context of 128"):
            score(original, [item])
    # one that leaves little room gets a shorter answer instead of an error
    assert len(score(original, [Item("long", "a" * 120, answer="b")])) == 1


def outcomes(flags):
    return [Outcome("yes" if flag else "no", flag) for flag in flags]


def test_the_table_counts_flips_and_retention_above_chance():
    items = [Item("pick", f"q{i}", choices=("a", "b"), label=0) for i in range(100)]
    items += [Item("facts", f"f{i}", answer="x") for i in range(50)]
    original = outcomes([i < 90 for i in range(100)] + [True] * 50)
    lighter = outcomes([5 <= i < 91 for i in range(100)] + [i >= 40 for i in range(50)])
    pick, facts = compare_skills(items, original, lighter, examples=2)
    assert (pick["flips"]["lost"], pick["flips"]["gained"], pick["flips"]["share"]) == (5, 1, 0.06)
    assert pick["retention"]["value"] == pytest.approx((0.86 - 0.5) / (0.9 - 0.5))
    low, high = pick["retention"]["interval"]
    assert low < pick["retention"]["value"] < high < 1.1
    assert pick["mcnemar_p"] == pytest.approx(2 * 7 / 64) and pick["holm_p"] == pick["mcnemar_p"]
    assert facts["mcnemar_p"] == pytest.approx(2 / 2**40) and facts["holm_p"] == pytest.approx(4 / 2**40)
    assert facts["retention"]["value"] == 0.2 and facts["retention"]["interval"][1] < 0.4
    assert pick["flips"]["lost_examples"] == [
        {"prompt": f"q{i}", "expected": "a", "original": "yes", "lighter": "no"} for i in range(2)
    ]
    json.dumps([pick, facts])


def test_items_of_a_group_that_flip_together_widen_intervals_and_p():
    items = [Item("sums", f"q{i}", answer="x", group=str(i // 4)) for i in range(200)]
    original = outcomes([True] * 200)
    lighter = outcomes([i // 4 not in (3, 17, 30) for i in range(200)])
    alone = [dataclasses.replace(item, group=None) for item in items]
    (by_groups,), (by_items,) = (compare_skills(some, original, lighter) for some in (items, alone))
    assert (by_groups["groups"], by_items["groups"]) == (50, 200)
    assert by_groups["retention"]["value"] == by_items["retention"]["value"] == 0.94
    assert by_groups["mcnemar_p"] == 2 / 2**3 and by_items["mcnemar_p"] == 2 / 2**12
    for who in ("retention", "lighter"):
        (low, high), (inner_low, inner_high) = by_groups[who]["interval"], by_items[who]["interval"]
        assert low < inner_low < inner_high < high
    # where they flip each by itself, groups change little
    scattered = outcomes([i % 17 != 0 for i in range(200)])
    (by_groups,), (by_items,) = (compare_skills(some, original, scattered) for some in (items, alone))
    assert by_groups["retention"]["interval"] == pytest.approx(by_items["retention"]["interval"], abs=3e-3)


def test_groups_are_text_or_whole_numbers_and_more_than_one():
    record = {"skill": "sums", "prompt": "1 + 1 =", "answer": "2"}
    groups = [item.group for item in read_skills([{**record, "group": group} for group in ("a", 7)] + [record])]
    assert groups == ["a", "7", None]
    for bad in ("", " ", True, 1.5, ["a"]):
        with pytest.raises(UsageError, match="item 0: group must be text that is not blank or a whole number"):
            read_skills([{**record, "group": bad}])
    with pytest.raises(UsageError, match="all 2 items of skill sums are of group a, and nothing tells"):
        read_skills([{**record, "group": "a"}] * 2)
    assert len(read_skills([{**record, "group": "a"}])) == 1


def test_retention_is_not_given_where_the_original_only_guesses():
    items = [Item("pick", f"q{i}", choices=("a", "b"), label=0) for i in range(40)]
    guesses = outcomes([i % 2 == 0 for i in range(40)])
    (entry,) = compare_skills(items, guesses, guesses)
    assert entry["retention"]["value"] is None and "not above chance 0.500" in entry["retention"]["reason"]


class Counted(str):
    """A name that counts how often it is compared with another."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Counted.compared += 1
        return str.__eq__(self, other)


def test_many_skills_are_not_compared_with_one_another(monkeypatch):
    monkeypatch.setattr(Counted, "compared", 0)
    count = 400
    records = [{"skill": Counted(f"skill {n % count}"), "prompt": f"{n}", "answer": "a"} for n in range(2 * count)]
    items = read_skills(records)
    outcomes = [Outcome("a", n % 3 > 0) for n in range(len(items))]
    assert [entry["items"] for entry in compare_skills(items, outcomes, outcomes)] == [2] * count
    assert len(grouped(items, 0)) == count
    assert sum(map(len, _divided(items, 0, 0.5).values())) == len(items)
    assert 0 < Counted.compared < 20 * len(items)
