"""Models with a class head: classes, decisions and scores are compared as what they are, and with what the models say.

The figures are computed anew here from what stock transformers gives.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

import models
import whet
from whet.apply.run import Run
from whet.checkpoint import load_model
from whet.cli.compare import drawn
from whet.cli.tables import answered, comparison
from whet.errors import GateError, UsageError
from whet.measure.classes import Answers, gathered, kind_of, summarize_answers

CASES = {
    "llama classes": ("llama", "SequenceClassification", {"num_labels": 3, "pad_token_id": 1}, "classes"),
    "qwen3 reward": ("qwen3", "SequenceClassification", {"num_labels": 1, "pad_token_id": 1}, "scores"),
    "llama decisions": (
        "llama",
        "SequenceClassification",
        {"num_labels": 3, "pad_token_id": 1, "problem_type": "multi_label_classification"},
        "decisions",
    ),
    "bert classes": ("bert", "SequenceClassification", {"num_labels": 3, "pad_token_id": 1}, "classes"),
    "bert regression": ("bert", "SequenceClassification", {"num_labels": 1, "pad_token_id": 1}, "scores"),
    "llama token classes": ("llama", "TokenClassification", {"num_labels": 4, "pad_token_id": 1}, "classes"),
    "bert token classes": ("bert", "TokenClassification", {"num_labels": 4, "pad_token_id": 1}, "classes"),
}
TEXT = models.documents(40, 20, seed=3)


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """Folders of both models, the result of compressing, the windows that verified it, and what it answers."""
    family, head, more, kind = CASES[request.param]
    root = tmp_path_factory.mktemp("classes")
    original = models.make(root / "original", family, architecture=f"AutoModelFor{head}", **more)
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        begin = Run._begin
        patch.setattr(Run, "_begin", lambda run, *given: kept.extend(given[2]) or begin(run, *given))
        made = whet.compress(original, root / "lighter", scheme="int2s-g32", text=models.documents(90), window=16)
    return root, made, kept, kind


def stock(folder, windows):
    """Logits of every answer, float64, from stock transformers."""
    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    model = getattr(transformers, name).from_pretrained(folder).eval()
    with torch.no_grad():
        logits = [model(input_ids=window[None]).logits.double()[0] for window in windows]
    return torch.cat([one if one.dim() == 2 else one[None] for one in logits]).numpy()


def by_hand(before, after, kind):
    """The two figures of a kind."""
    if kind == "scores":
        a, b = before[:, 0], after[:, 0]
        i, j = np.triu_indices(len(a), 1)
        agree = np.sign(a[i] - a[j]) == np.sign(b[i] - b[j])
        return {"difference": np.abs(b - a).mean() / a.std(ddof=1), "order": agree.mean()}
    if kind == "decisions":
        p, q = 1 / (1 + np.exp(-before)), 1 / (1 + np.exp(-after))
        kl = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(1)
        return {"kl": kl.mean(), "top1": ((before > 0) == (after > 0)).all(1).mean()}
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (before, after))
    kl = (p * np.log(p / q)).sum(1)
    return {"kl": kl.mean(), "top1": (before.argmax(1) == after.argmax(1)).mean()}


def means(told):
    return {name: told[name]["mean"] for name in ("kl", "top1", "difference", "order") if told[name] is not None}


def test_compress_tells_what_stock_transformers_computes(case):
    root, made, verify, kind = case
    assert verify
    expected = by_hand(stock(root / "original", verify), stock(root / "lighter", verify), kind)
    assert means(made["answers"]) == pytest.approx(expected, rel=2e-3, abs=1e-6)
    assert next(iter(expected.values())) > 1e-5  # int2 moves every one of them
    assert ("kl" in made) == (kind != "scores")
    written = json.loads((root / "lighter" / "whet.json").read_text())["verify"]
    assert written == pytest.approx(means(made["answers"]))
    card = (root / "lighter" / "README.md").read_text()
    assert "per token" not in card
    assert ("in the same order" in card) == (kind == "scores")
    assert "per token" not in answered(made["answers"])


def test_compare_tells_it_with_error_bars(case, tmp_path):
    root, _, _, kind = case
    found = whet.compare(root / "original", root / "lighter", text=TEXT, window=16)
    told = found["divergence"]
    assert told["kind"] == kind
    for name, value in means(told).items():
        low, high = told[name]["interval"]
        assert low <= value <= high and high - low > 0
    assert told["clusters"] == len(TEXT)
    limits = {entry["limit"] for entry in found["judgements"]}
    of_text = {"max_difference", "min_order"} if kind == "scores" else {"max_kl", "min_top1"}
    assert limits == {*of_text, "folder.differences"}
    shown = "\n".join(cell for sheet in comparison(found) for row in sheet.rows for cell in row)
    assert "perplexity" not in shown and "per token" not in shown
    for language in ("en", "ko"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WHET_LANG", language)
            page = drawn(root / "lighter", found, root / "original")
        assert "Perplexity" not in page and "nats a token" not in page


def test_a_model_is_its_original_exactly(case):
    root, _, _, kind = case
    found = whet.compare(root / "original", root / "original", text=TEXT, window=16)
    assert found["verdict"] == "pass"
    assert means(found["divergence"]) == ({"difference": 0, "order": 1} if kind == "scores" else {"kl": 0, "top1": 1})


@pytest.mark.parametrize("asked", ["skills", "tasks", "limit"])
def test_what_only_writers_can_answer_is_refused(case, asked):
    root, *_ = case
    more = {
        "skills": {"skills": [{"skill": "s", "prompt": "a", "answer": "b"}]},
        "tasks": {"tasks": ["arc_easy"]},
        "limit": {"limits": {"max_ppl_ratio": 1.1}},
    }[asked]
    with pytest.raises(UsageError, match=r"answers no questions|does not go with a model that gives|lm-eval"):
        whet.compare(root / "original", root / "lighter", text=TEXT, window=16, **more)


def test_a_head_that_no_file_holds_is_not_made_up(tmp_path):
    original = models.make(tmp_path / "m", architecture="AutoModelForCausalLM", pad_token_id=1)
    models.edit_config(original, architectures=["LlamaForSequenceClassification"])
    with pytest.raises(UsageError, match=r"score\.weight"):
        load_model(original)
    with pytest.raises(UsageError, match=r"score\.weight"):
        whet.compress(original, tmp_path / "out", scheme="int8s", text=TEXT, window=16)


# figures by themselves


def answers(before, after):
    return Answers(np.array(before, float), np.array(after, float), np.arange(len(before)))


def test_scores_that_are_all_the_same_tell_nothing():
    told = summarize_answers(answers([[1.0]] * 5, [[1.1]] * 5), "scores", "texts", range(5))
    assert told["difference"] is None and told["order"] is None and told["kl"] is None


def test_order_covers_what_it_should():
    """Of many draws the interval of the order holds the share of all pairs about as often as it says."""
    chance = np.random.default_rng(0)
    whole = chance.normal(size=(4000, 2)) @ np.array([[1.0, 0.9], [0.0, 0.45]])
    i, j = np.triu_indices(2000, 1)
    truth = (np.sign(whole[i, 0] - whole[j, 0]) == np.sign(whole[i, 1] - whole[j, 1])).mean()
    held = 0
    for _ in range(200):
        rows = whole[chance.integers(0, len(whole), 60)]
        told = summarize_answers(answers(rows[:, :1], rows[:, 1:]), "scores", "texts", range(60))
        low, high = told["order"]["interval"]
        held += low <= truth <= high
    assert held >= 180


def test_no_pair_turned_round_is_not_certainty():
    told = summarize_answers(
        answers([[1], [2], [3], [4], [5.0]], [[2], [3], [4], [5], [6.0]]), "scores", "texts", range(5)
    )
    assert told["order"]["mean"] == 1 and told["order"]["interval"][0] < 0.6


def test_what_a_config_means():
    assert [kind_of("classification", {}, n) for n in (1, 2)] == ["scores", "classes"]
    assert kind_of("classification", {"problem_type": "regression"}, 3) == "scores"
    assert kind_of("classification", {"problem_type": "multi_label_classification"}, 3) == "decisions"
    assert kind_of("states", {}, 2) == "vectors" and kind_of("spans", {}, 2) == "classes"


def test_answers_that_are_not_finite_are_named():
    fine, broken = torch.zeros(1, 2), torch.full((1, 2), float("nan"))
    with pytest.raises(GateError):
        gathered([(fine, broken)], [[0]])
    with pytest.raises(UsageError):
        gathered([(broken, fine)], [[0]])


def test_scores_judge_no_transform(tmp_path):
    original = models.make(
        tmp_path / "m", architecture="AutoModelForSequenceClassification", num_labels=1, pad_token_id=1
    )
    with pytest.raises(UsageError, match="is judged by the KL of predictions"):
        whet.compress(original, tmp_path / "out", scheme="int8s", transform="auto", text=TEXT, window=16)


def test_budgets_on_classes_are_refused(tmp_path):
    original = models.make(
        tmp_path / "m", architecture="AutoModelForSequenceClassification", num_labels=1, pad_token_id=1
    )
    with pytest.raises(UsageError):
        whet.compress(original, tmp_path / "out", bits=5, text=TEXT, window=16)
