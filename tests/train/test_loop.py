"""The training loop: a run that was stopped and resumed ends in the same weights as one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from whet.errors import MachineError, UsageError
from whet.train import Schedule, needed_bytes, token_loss, train
from whet.train.loop import STATE_FILE


def _model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
    )


def _batch(step: int) -> dict[str, torch.Tensor]:
    """Sequences that repeat with period 5: learnable in a few steps."""
    rng = torch.Generator().manual_seed(step)
    ids = torch.randint(3, 64, (8, 5), generator=rng).repeat(1, 5)[:, :21]
    weights = torch.ones(8, 20)
    weights[:, :4] = 0
    return {"input_ids": ids, "weights": weights}


SCHEDULE = Schedule(5e-3, 12, warmup=3)


@pytest.mark.parametrize("muon", [False, True])
def test_resumed_weights_are_those_of_an_undisturbed_run(tmp_path: Path, muon: bool) -> None:
    whole, parts = _model(), _model()
    train(whole, _batch, SCHEDULE, muon=muon)
    train(parts, _batch, SCHEDULE, muon=muon, folder=tmp_path, stop_after=5)
    again = _model()
    result = train(again, _batch, SCHEDULE, muon=muon, folder=tmp_path)
    assert result["steps"] == 12
    for (name, one), other in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert not torch.equal(parts.model.norm.weight, again.model.norm.weight)


def test_killed_between_saves_it_goes_on_from_the_last_one(tmp_path: Path) -> None:
    whole, killed = _model(), _model()
    train(whole, _batch, SCHEDULE)

    def kill(event: dict[str, Any]) -> None:
        if event.get("done") == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(killed, _batch, SCHEDULE, folder=tmp_path, save_seconds=0.0, on_event=kill)
    again = _model()
    train(again, _batch, SCHEDULE, folder=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("muon", [False, True])
def test_the_loss_falls(muon: bool) -> None:
    model = _model()
    before = float(token_loss(model, _batch(99)).detach())
    train(model, _batch, Schedule(1e-2, 60, warmup=5), muon=muon)
    assert float(token_loss(model, _batch(99)).detach()) < before - 0.05


def test_token_loss_is_the_weighted_mean_over_counted_tokens() -> None:
    model, batch = _model(), _batch(0)
    batch["weights"][:, 10:] = 0.5
    logits = model(input_ids=batch["input_ids"][:, :-1]).logits.log_softmax(-1)
    losses = -logits.gather(2, batch["input_ids"][:, 1:, None])[..., 0]
    expected = (losses * batch["weights"]).sum() / batch["weights"].sum()
    assert torch.allclose(token_loss(model, batch), expected, atol=1e-5)


def test_memory_is_said_before_the_first_step() -> None:
    model, events = _model(), []
    train(model, _batch, Schedule(1e-3, 1), on_event=events.append)
    assert events[0]["event"] == "plan"
    assert events[0]["memory"] == needed_bytes(model) == 16 * sum(p.numel() for p in model.parameters())
    assert events[1]["done"] == 1


def test_schedules() -> None:
    cosine = Schedule(1.0, 100, warmup=10, kind="cosine", floor=0.1)
    assert cosine(0) == pytest.approx(0.1) and cosine(10) == pytest.approx(1.0)
    assert cosine(55) == pytest.approx(0.55) and cosine(100) == pytest.approx(0.1)
    wsd = Schedule(1.0, 100, warmup=10, decay=0.4)
    assert wsd(9) == wsd(30) == wsd(60) == 1.0
    assert wsd(80) == pytest.approx(0.5) and wsd(100) == 0.0
    with pytest.raises(UsageError, match="cosine or wsd"):
        Schedule(1.0, 10, warmup=0, kind="linear")(3)


def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    train(_model(), _batch, SCHEDULE, folder=tmp_path, stop_after=2)
    with pytest.raises(UsageError, match="another model, schedule or settings"):
        train(_model(), _batch, Schedule(1e-3, 12, warmup=3), folder=tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    model = _model()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(UsageError, match="step 0 is nan"):
        train(model, _batch, SCHEDULE, folder=tmp_path)
    assert not (tmp_path / STATE_FILE).exists()


def test_a_state_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(MachineError, match="No space left"):
        train(_model(), _batch, Schedule(1e-3, 1), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
