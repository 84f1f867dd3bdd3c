"""A student beside its teacher: of every family the halves are the whole, and each loss teaches."""

from __future__ import annotations

import pytest
import torch

import models
from covering import some
from whet.checkpoint import load_model
from whet.distillation import Halves, Objective, Teaching
from whet.train import Schedule, Settings, train

FAMILIES = ["llama", "gemma2", "granite", "cohere2", "gpt2", "phi3", "falcon", "mixtral", "qwen3", "gpt_neox"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def get(family, **more):
        key = (family, *sorted(more.items()))
        if key not in made:
            made[key] = models.make(tmp_path_factory.mktemp(family) / "m", family, **more)
        return made[key]

    return get


def batch(step):
    rng = torch.Generator().manual_seed(step)
    weights = torch.ones(3, 9)
    weights[1, 5:] = 0
    return {"input_ids": torch.randint(3, 200, (3, 9), generator=rng), "weights": weights}


@pytest.mark.parametrize("family", some(FAMILIES, 5))
def test_halves_give_what_the_model_gives(folders, family):
    model = load_model(folders(family), torch.float32)
    halves, ids = Halves.of(model), batch(0)["input_ids"]
    with torch.no_grad():
        assert torch.allclose(halves.logits(halves.states(ids).last_hidden_state), model(ids).logits, atol=1e-5)


def test_what_a_student_loses_is_the_kl_of_counted_positions(folders):
    teacher, student = (load_model(folders("llama", seed=seed), torch.float32) for seed in (1, 2))
    given = batch(0)
    total, count = Teaching(teacher, student, Objective())(student, given)
    p, q = (model(given["input_ids"]).logits.log_softmax(-1) for model in (teacher, student))
    each = (p.exp() * (p - q)).sum(-1)
    assert total.item() == pytest.approx((each * given["weights"]).sum().item(), rel=1e-4) and count == 23
    found = Teaching(teacher, student, Objective("reverse")).divergences(given)
    assert torch.allclose(found, each, atol=1e-5)


@pytest.mark.parametrize(
    "objective",
    [
        Objective("js", 0.3, temperature=2.0),
        Objective("todi", hidden=1.0),
        Objective("forward", relations=1.0),
        Objective("adaptive", hidden=0.5, relations=0.5),
    ],
)
def test_each_loss_teaches_and_moves_the_student_alone(folders, objective):
    teacher = load_model(folders("llama", blocks=4, seed=1), torch.float32)
    student = load_model(folders("qwen3", blocks=2, seed=2, hidden_size=48), torch.float32)
    teaching = Teaching(teacher, student, objective)
    before = {name: param.clone() for name, param in teacher.named_parameters()}
    start, _ = teaching(student, batch(99))
    model = teaching.trained()
    train(model, batch, Schedule(5e-3, 30, warmup=3), loss=teaching, settings=Settings(checkpointing=True))
    assert all(torch.equal(before[name], param) for name, param in teacher.named_parameters())
    with torch.no_grad():
        assert teaching(student, batch(99))[0] < 0.9 * start
    wide = any(name.startswith("projections") for name, _ in model.named_parameters())
    assert wide == bool(objective.hidden)
