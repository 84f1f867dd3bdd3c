"""Several teachers are their mixture, weighted by sequence; tables of logits may be padded, each otherwise."""

from __future__ import annotations

import pytest
import torch

import models
from whet import distill
from whet.checkpoint import Checkpoint, load_model
from whet.distillation import Objective, Panel, Teaching
from whet.errors import UsageError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panel")
    return [
        models.make(folder / "one", "llama", blocks=2, seed=1),
        models.make(folder / "two", "qwen3", blocks=1, seed=2, hidden_size=48, vocab_size=300),  # padded further
        models.make(folder / "student", "llama", blocks=1, seed=3, vocab_size=280),
    ]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_loss_is_the_kl_to_the_mixture_and_padding_does_not_count(folders, temperature):
    one, two, student = (load_model(folder, torch.float32) for folder in folders)
    ids = torch.randint(3, 200, (3, 9), generator=torch.Generator().manual_seed(0))
    weights = torch.ones(3, 9)
    weights[1, 5:] = 0
    size = one.config.vocab_size
    teaching = Teaching(Panel([one, two], temperature), student, Objective("forward", temperature=temperature))
    assert teaching.vocabulary == size
    total, count = teaching(student, {"input_ids": ids, "weights": weights})
    with torch.no_grad():
        logits = [model(ids).logits[..., :size] for model in (one, two, student)]
        said = [x.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0] * weights[:, 1:] for x in logits[:2]]
        shares = torch.stack([x.sum(-1) / weights[:, 1:].sum(-1) for x in said], -1).div(0.25).softmax(-1)
        p, other, q = ((x / temperature).softmax(-1) for x in logits)
        p = shares[:, 0, None, None] * p + shares[:, 1, None, None] * other
        expected = ((p * (p / q).log()).sum(-1) * weights).sum() * temperature**2
    assert shares.std(0).max() > 1e-3  # of each sequence otherwise
    assert total.item() == pytest.approx(expected.item(), rel=1e-4) and count == 23
    total.backward()


def test_two_teachers_teach_with_targets_and_own_text_too(tmp_path, folders):
    one, two, student = folders
    how = {"teacher": one, "more_teachers": str(two), "window": 24, "samples": 40, "steps": 6, "batch": 96}
    how |= {"text": models.documents(60, 30), "rate": 1e-3}
    made = distill(student, tmp_path / "out", **how, own_text=0.5)
    told = made["distillation"]
    assert told["others"] == ["two"] and len(told["others_sha256"][0]) == 64 and made["training"]["steps"] == 6
    kl = distill(student, tmp_path / "drawn", **how, targets=tmp_path / "targets")["training"]["held_out"]["start"]
    assert kl == pytest.approx(made["training"]["held_out"]["start"], rel=0.05)
    assert Checkpoint(tmp_path / "drawn").config["vocab_size"] == 280
    for options, words in [
        ({"hidden": 1.0}, "hidden compares with one teacher"),
        ({"own_text": 0.5, "writer": "switch"}, "switch has one teacher"),
        ({"more_teachers": str(tmp_path / "on")}, "does not exist"),
        ({"more_teachers": None, "targets": tmp_path / "targets"}, "and .*one is another"),
    ]:
        with pytest.raises(UsageError, match=words):
            distill(student, tmp_path / "not", **how | options)
