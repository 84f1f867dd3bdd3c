"""The training loop: a run that was stopped and resumed ends in the same weights as one that was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from whet.errors import MachineError, UsageError
from whet.train import Schedule, Settings, needed_bytes, roles_of, token_loss, train
from whet.train.state import METRICS_FILE, STATE_FILE


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


def _mean(model: LlamaForCausalLM) -> float:
    total, count = token_loss(model, _batch(99))
    return float(total.detach() / count)


SCHEDULE = Schedule(5e-3, 12, warmup=3)


@pytest.mark.parametrize("muon", [False, True])
def test_resumed_weights_are_those_of_an_undisturbed_run(tmp_path: Path, muon: bool) -> None:
    whole, parts = _model(), _model()
    train(whole, _batch, SCHEDULE, settings=Settings(muon=muon))
    train(parts, _batch, SCHEDULE, settings=Settings(muon=muon), folder=tmp_path, stop_after=5)
    again = _model()
    result = train(again, _batch, SCHEDULE, settings=Settings(muon=muon), folder=tmp_path)
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
    before = _mean(model)
    train(model, _batch, Schedule(1e-2, 60, warmup=5), settings=Settings(muon=muon))
    assert _mean(model) < before - 0.05


def test_token_loss_is_the_weighted_mean_over_counted_tokens() -> None:
    model, batch = _model(), _batch(0)
    batch["weights"][:, 10:] = 0.5
    logits = model(input_ids=batch["input_ids"][:, :-1]).logits.log_softmax(-1)
    losses = -logits.gather(2, batch["input_ids"][:, 1:, None])[..., 0]
    expected = (losses * batch["weights"]).sum() / batch["weights"].sum()
    total, count = token_loss(model, batch)
    assert torch.allclose(total / count, expected, atol=1e-5)


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


# -- several batches a step -------------------------------------------------------------------------------------------


def _same(one: nn.Module, other: nn.Module, **how: float) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.allclose(a, b, **how) if how else torch.equal(a, b), name


def test_batches_of_a_step_are_one_batch_in_parts_whatever_each_counts() -> None:
    """The law of trl's issue 4719: gradients are divided by what all batches count, not by each one's own count."""

    def parts(step: int) -> list[dict[str, torch.Tensor]]:
        batch = _batch(step)
        batch["weights"][:3, 8:] = 0
        cuts = [slice(0, 3), slice(3, 4), slice(4, 8)]
        return [{name: tensor[cut] for name, tensor in batch.items()} for cut in cuts]

    def whole(step: int) -> dict[str, torch.Tensor]:
        return {name: torch.cat([part[name] for part in parts(step)]) for name in ("input_ids", "weights")}

    one, other = _model(), _model()
    a, b = train(one, whole, SCHEDULE), train(other, parts, SCHEDULE)
    assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    _same(one, other, atol=1e-4)


def test_a_step_on_which_nothing_counts_is_told() -> None:
    empty = {**_batch(0), "weights": torch.zeros(8, 20)}
    with pytest.raises(UsageError, match="no token of its text counts"):
        train(_model(), lambda step: empty, SCHEDULE)


# -- what is trained, and how -----------------------------------------------------------------------------------------


def test_only_what_asks_for_a_gradient_is_moved_kept_and_counted(tmp_path: Path) -> None:
    model, start = _model(), _model()
    for name, param in model.named_parameters():
        param.requires_grad_("norm" in name)
    train(model, _batch, SCHEDULE, folder=tmp_path)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, start.get_parameter(name))}
    assert moved == {name for name, _ in model.named_parameters() if "norm" in name}
    assert set(torch.load(tmp_path / STATE_FILE)["weights"]) == moved
    norms = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert needed_bytes(model) == 4 * sum(p.numel() for p in model.parameters()) + 12 * norms


def test_roles_have_rates_of_their_own() -> None:
    model, start = _model(), _model()
    roles = roles_of(model)
    assert roles["model.embed_tokens.weight"] == "embedding" and roles["model.norm.weight"] == "vector"
    assert [r for n, r in roles.items() if n.endswith("proj.weight")] == ["linear"] * 14
    train(model, _batch, SCHEDULE, settings=Settings(shares={"embedding": 0.0, "vector": 0.1}))
    assert torch.equal(model.model.embed_tokens.weight, start.model.embed_tokens.weight)

    def moved(name: str) -> float:
        return float((model.get_parameter(name) - start.get_parameter(name)).detach().abs().max())

    assert 0 < moved("model.norm.weight") < 0.2 * moved("model.layers.0.mlp.up_proj.weight")


def test_blocks_computed_again_end_in_the_same_weights() -> None:
    one, other = _model(), _model()
    train(one, _batch, SCHEDULE)
    train(other, _batch, SCHEDULE, settings=Settings(checkpointing=True))
    _same(one, other)
    assert not other.is_activation_checkpointing and not other.training


# -- held-out loss ----------------------------------------------------------------------------------------------------


def _held_out(model: Any) -> torch.Tensor:
    batch = _batch(99)
    logits = model(input_ids=batch["input_ids"][:, :-1]).logits.log_softmax(-1)
    return -logits.gather(2, batch["input_ids"][:, 1:, None])[..., 4:, 0].mean(-1)


def _dropping() -> GPT2LMHeadModel:
    torch.manual_seed(1)
    config = {"n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 1}
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, resid_pdrop=0.3, attn_pdrop=0.3, embd_pdrop=0.3, **config))


@pytest.mark.parametrize("stop", [3, 5, 8])
def test_resumed_with_dropout_and_a_judge_all_is_as_in_an_undisturbed_run(tmp_path: Path, stop: int) -> None:
    how: dict[str, Any] = {"judge": _held_out, "judge_every": 4, "good_every": 5}
    whole, parts, again = _dropping(), _dropping(), _dropping()
    one = train(whole, _batch, SCHEDULE, folder=tmp_path / "whole", **how)
    train(parts, _batch, SCHEDULE, folder=tmp_path / "parts", stop_after=stop, **how)
    other = train(again, _batch, SCHEDULE, folder=tmp_path / "parts", **how)
    _same(whole, again)
    assert one["held_out"] == other["held_out"] and one["held_out"]["helped"]

    def lines(folder: str) -> list[dict[str, Any]]:
        told = [json.loads(line) for line in (tmp_path / folder / METRICS_FILE).read_text().splitlines()]
        return [{name: value for name, value in line.items() if name != "seconds"} for line in told]

    assert lines("whole") == lines("parts")
    assert [line["step"] for line in lines("whole") if "held_out" in line] == [0, 4, 8, 12]
    assert [line["step"] for line in lines("whole") if "rate" in line] == list(range(1, 13))


def test_the_model_ends_where_it_was_best_or_as_it_started() -> None:
    model, start = _model(), _model()

    def ruined(step: int) -> dict[str, torch.Tensor]:
        batch = _batch(step)
        if step >= 30:
            batch["input_ids"] = batch["input_ids"].flip(1) * 0 + 7
        return batch

    result = train(model, ruined, Schedule(1e-2, 60, warmup=5), judge=_held_out, judge_every=10)
    held_out = result["held_out"]
    assert held_out["step"] == 30 and held_out["best"] < held_out["start"] - held_out["error"]
    with torch.no_grad():
        assert float(_held_out(model).mean()) == pytest.approx(held_out["best"], rel=1e-5)
    model = _model()
    result = train(model, lambda step: ruined(99), SCHEDULE, judge=_held_out, judge_every=4)
    assert not result["held_out"]["helped"]
    _same(model, start)


# -- not finite -------------------------------------------------------------------------------------------------------


def _narrow(model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Falls as the weight rises to 2, and is no number beyond."""
    return torch.log(2 - model.weight).sum(), torch.ones(())


def _climb(rate: float, folder: Path | None, **more: Any) -> tuple[nn.Module, dict[str, Any], list[dict[str, Any]]]:
    model, events = nn.Linear(1, 1, bias=False), []
    nn.init.zeros_(model.weight)
    schedule = Schedule(rate, 10, warmup=0, decay=0.1)
    result = train(
        model, lambda step: {}, schedule, loss=_narrow, folder=folder, good_every=4, on_event=events.append, **more
    )
    return model, result, events


@pytest.mark.parametrize("kept", [False, True])
def test_a_run_that_leaves_the_numbers_goes_back_and_on_at_half_the_rate(tmp_path: Path, kept: bool) -> None:
    model, result, events = _climb(0.3, tmp_path if kept else None)
    assert result["rewinds"] == 1 and result["steps"] == 10 and model.weight.item() == pytest.approx(2.1, abs=0.05)
    notes = [str(event["message"]) for event in events if event["event"] == "note"]
    assert len(notes) == 1 and "goes on from step 4, at 50% of the learning rate" in notes[0]


def test_a_run_that_goes_back_is_stopped_and_resumed_to_the_same_weights(tmp_path: Path) -> None:
    whole = _climb(0.3, None)[0]
    for stop in (3, 6, 9):
        _climb(0.3, tmp_path, stop_after=stop)
    assert torch.equal(whole.weight, _climb(0.3, tmp_path)[0].weight)


def test_where_no_rate_helps_it_says_so() -> None:
    with pytest.raises(UsageError, match="Lower the learning rate"):
        _climb(40.0, None)
