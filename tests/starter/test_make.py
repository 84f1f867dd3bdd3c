"""The shipped model is what the generator and the tokenizer of this version make, and knows what its card says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from covering import WHOLE
from whet import starter
from whet.errors import UsageError
from whet.starter import make


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(starter.path())


@pytest.fixture(scope="module")
def model() -> Any:
    return LlamaForCausalLM.from_pretrained(starter.path())


def test_stock_transformers_loads_it_as_it_was_trained(model: Any) -> None:
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(param.numel() for param in model.parameters()) == 4_590_848
    assert isinstance(AutoModelForCausalLM.from_pretrained(starter.path()), LlamaForCausalLM)


def test_two_bf16_shards_with_index() -> None:
    shards = sorted(starter.path().glob("*.safetensors"))
    index = json.loads((starter.path() / "model.safetensors.index.json").read_text())
    assert len(shards) == 2 and set(index["weight_map"].values()) == {shard.name for shard in shards}
    names = set()
    for shard in shards:
        with safe_open(shard, "pt") as file:
            names |= set(file.keys())
            assert all(file.get_slice(name).get_dtype() == "BF16" for name in file.keys())  # noqa: SIM118
    assert names == set(index["weight_map"])


def test_text_survives_the_tokenizer(tokenizer: Any) -> None:
    for text in [*starter.documents(3, 200), *starter.held_out(3, 50), "처음 보는 말: 뷁 🙂 naïve\t  x\n\n"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_are_never_merged(tokenizer: Any) -> None:
    vocabulary = tokenizer.get_vocab()
    assert len(vocabulary) == 4096
    assert {token for token in vocabulary if re.search(r"\d", token)} == set("0123456789")


def test_no_token_is_added_to_the_text(tokenizer: Any) -> None:
    assert tokenizer("Story:")["input_ids"] == tokenizer("Story:", add_special_tokens=False)["input_ids"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)


def test_a_prompt_and_its_answer_are_cut_where_they_meet(tokenizer: Any) -> None:
    """Otherwise the answer the model was taught would not be the one it is asked for."""
    for item in starter.skills("verify", 30):
        for answer in item.get("choices", [f" {item.get('answer')}\n"]):
            whole = tokenizer(item["prompt"] + answer)["input_ids"]
            assert whole == tokenizer(item["prompt"])["input_ids"] + tokenizer(answer)["input_ids"]


def test_the_tokenizer_can_be_made_again(tokenizer: Any) -> None:
    assert make.make_tokenizer().backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_batches_hold_whole_documents_and_depend_on_the_step_alone(tokenizer: Any) -> None:
    one, other = make.batches(tokenizer, 0), make.batches(tokenizer, 0)
    other(5)
    for step in (0, 3, make.STEPS - 1):
        batch = one(step)
        assert all(torch.equal(batch[name], other(step)[name]) for name in batch)
        assert batch["weights"].shape == (batch["input_ids"].shape[0], batch["input_ids"].shape[1] - 1)
        assert ((batch["input_ids"] != 2).sum(1) > 0).all()
        for row in batch["input_ids"].tolist():
            assert next(token for token in reversed(row) if token != 2) == 1
        assert (batch["weights"][batch["input_ids"][:, 1:] == 2] == 0).all()


def test_it_knows_what_the_card_says(model: Any, tokenizer: Any) -> None:
    card = (starter.path() / "README.md").read_text(encoding="utf-8")
    claimed = {skill: float(share) / 100 for skill, share in re.findall(r"\| (\w+) \| ([\d.]+) % \|", card)}
    assert set(claimed) == set(starter.SKILLS)
    measured = make.accuracies(model, tokenizer, starter.skills("verify", 60))
    for skill, share in claimed.items():
        slack = 0.03 + 3 * (share * (1 - share) / 60) ** 0.5
        assert measured[skill] >= share - slack, skill


def test_making_resumes_and_writes_a_whole_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not WHOLE:  # that it is made as it was is asked above, and takes seconds each time
        monkeypatch.setattr(make, "make_tokenizer", lambda: AutoTokenizer.from_pretrained(starter.path()))
    monkeypatch.setattr(make, "STEPS", 3)
    monkeypatch.setattr(make, "ROWS", 2)

    def kill(event: dict[str, Any]) -> None:
        if event.get("done") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make.make(tmp_path, per_skill=1, on_event=kill)
    with pytest.raises(UsageError, match="--resume"):
        make.make(tmp_path, per_skill=1)
    result = make.make(tmp_path, resume=True, per_skill=1)
    assert result["steps"] == 3 and set(result["accuracies"]) == set(starter.SKILLS)
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in starter.path().iterdir()}
    LlamaForCausalLM.from_pretrained(tmp_path)


@pytest.mark.long
def test_another_size_is_a_smaller_model_and_no_other_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "STEPS", 2)
    monkeypatch.setattr(make, "ROWS", 2)
    full = sum(param.numel() for param in make.make_model(0).parameters())
    for name, share in (("half", 0.5), ("quarter", 0.25)):
        small = sum(param.numel() for param in make.make_model(0, make.SIZES[name]).parameters())
        assert abs(small / full - share) < 0.01

    def kill(event: dict[str, Any]) -> None:
        if event.get("done") == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make.make(tmp_path, size="quarter", per_skill=1, on_event=kill)
    with pytest.raises(UsageError, match="size quarter, not full"):
        make.make(tmp_path, resume=True, per_skill=1)
    make.make(tmp_path, size="quarter", resume=True, per_skill=1)
    assert LlamaForCausalLM.from_pretrained(tmp_path).config.hidden_size == 112
    assert "--size quarter" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_the_shipped_card_is_the_one_that_is_written() -> None:
    card = (starter.path() / "README.md").read_text(encoding="utf-8")
    claimed = {skill: float(share) / 100 for skill, share in re.findall(r"\| (\w+) \| ([\d.]+) % \|", card)}
    assert make._card(claimed, make.STEPS, 400, "full") == card
