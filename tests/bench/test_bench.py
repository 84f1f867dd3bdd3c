"""The benchmarks measure what they say: A/A is zero, pairs stay paired, one shard at a time still makes one model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import models

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def evaluation():
    sys.path.insert(0, str(BENCH))
    try:
        import evaluation

        yield evaluation
    finally:
        sys.path.remove(str(BENCH))


@pytest.fixture(scope="module")
def frontier(evaluation):
    import frontier

    return frontier


@pytest.fixture(scope="module")
def random_model(tmp_path_factory, bench):
    folder = tmp_path_factory.mktemp("bench") / "random"
    sizes = {"hidden": 32, "ffn": 64, "blocks": 3, "heads": 4, "kv-heads": 2, "vocabulary": 600, "blocks-per-shard": 2}
    options = sizes | {"characters": 2000}
    given = [word for name, value in options.items() for word in (f"--{name}", value)]
    bench("random_model", folder, "--text", f"{folder}.txt", *given)
    return folder


def test_random_model_loads_whole_and_reads_any_text(random_model):
    model, info = AutoModelForCausalLM.from_pretrained(random_model, output_loading_info=True)
    assert not any(info.values()), info
    assert len(list(random_model.glob("*.safetensors"))) == 4  # embedding, two of blocks, head
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    for text in ["Plain words.", "마디 말 ∀x 🙂\n\ttabs", Path(f"{random_model}.txt").read_text()]:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert max(ids) < model.config.vocab_size
        assert tokenizer.decode(ids) == text


def test_a_model_against_itself_scores_zero(evaluation, random_model):
    model = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32).eval()
    windows = torch.randint(600, (5, 16), generator=torch.Generator().manual_seed(0))
    scores = evaluation.window_scores(model, model, windows, batch=2)
    assert np.all(scores["kl"] == 0)
    assert np.all(scores["top1"] == 1)
    expected = model(input_ids=windows, labels=windows).loss.item()
    assert scores["nll"].mean() == pytest.approx(expected, rel=1e-5)


def test_a_constant_ratio_has_no_spread_however_uneven_the_windows(evaluation):
    theirs = np.random.default_rng(0).lognormal(size=(5, 40))
    ratio = evaluation.paired_ratio(0.8 * theirs, theirs, resamples=500)
    assert ratio.value == pytest.approx(0.8)
    assert [*ratio.crossed, *ratio.draws] == pytest.approx([0.8] * 4)
    assert ratio.upper == pytest.approx(0.8)


def test_intervals_cover_the_ratio_about_as_often_as_they_say(evaluation):
    generator = np.random.default_rng(1)
    hits = np.zeros(2)
    rounds = 200
    for _ in range(rounds):
        window = generator.lognormal(sigma=0.5, size=(1, 60))
        ours, theirs = (
            window * generator.lognormal(sigma=0.1, size=(5, 1)) * generator.lognormal(sigma=0.3, size=(5, 60))
            for _ in range(2)
        )
        ratio = evaluation.paired_ratio(ours, theirs, resamples=200)
        hits += [low <= 1 <= high for low, high in (ratio.crossed, ratio.draws)]
    assert hits[0] / rounds > 0.8  # the bootstrap is known to be narrow with five draws
    assert hits[1] / rounds > 0.9


def test_the_frontier_is_what_nothing_is_faster_and_closer_than(frontier):
    dots = [frontier.Dot(name, seconds, kl, 0.0, 4.6, name == "a") for name, seconds, kl in [
        ("a", 10.0, 0.1), ("slower, further", 11.0, 0.2), ("fast & far", 1.0, 0.5), ("as fast, further", 10.0, 0.3),
        ("slow and closest", 100.0, 0.05),
    ]]  # fmt: skip
    assert [dot.name for dot in frontier.frontier(dots)] == ["fast & far", "a", "slow and closest"]
    drawn = ElementTree.fromstring(frontier.frontier_plot([frontier.Panel("4 bits", dots)] * 2))
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}circle"))) == 10
    assert {"a", "fast & far"} <= {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}


@pytest.fixture(scope="module")
def runners():
    sys.path.insert(0, str(BENCH / "runners"))
    try:
        import common

        yield common
    finally:
        sys.path.remove(str(BENCH / "runners"))


def test_what_was_not_rounded_is_no_result(runners, tmp_path):
    """Every linear rounded to four values in a group passes, those that are to stay aside; one left as it was fails."""
    folder = models.make(tmp_path / "model")
    original = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    args = argparse.Namespace(model=str(folder), out=str(tmp_path / "out"), bits=2, group=32, keep="mlp")
    rounded = {}
    for name, module in runners.linears(original, "mlp").items():
        groups = module.weight.detach().unflatten(1, (-1, 32))
        scale = groups.abs().amax(-1, keepdim=True) / 2
        rounded[name] = ((groups / scale).round().clamp(-2, 1) * scale).flatten(1)
    assert rounded and not any("mlp" in name for name in rounded)
    assert runners.save_dequantized(args, rounded) == len(rounded)
    name = next(iter(rounded))
    with pytest.raises(
        SystemExit, match=r"1 of 8 linears hold more than 4 values in a group, .* not rounded to 2 bits"
    ):
        runners.save_dequantized(args, {**rounded, name: original.get_submodule(name).weight.detach() * 1.001})
    with pytest.raises(SystemExit, match=f"1 of 8 linears were not rounded: {name}"):
        runners.save_dequantized(args, {k: v for k, v in rounded.items() if k != name})


def test_values_are_counted_within_groups(runners):
    w = torch.tensor([[0.0, 0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 6.0, 7.0]])
    assert runners.values(w, 2) == 2
    assert runners.values(w, 0) == 4
