"""The damage suite: every kind of damage to the embedded model is caught by the measure that is for it, with default
limits on little text, and the same model under another number of threads raises no alarm."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from whet import starter
from whet.engines.torch import TorchEngine, open_model
from whet.measure.compare import compare
from whet.text.scripts import main_script

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("no_process")]
STARTER = Path(starter.__file__).parent / "whet-starter"
TEXT = starter.held_out(seed=0, count=400)
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
module = sys.modules["whet.measure.compare"]


@pytest.fixture(scope="module")
def items() -> list[dict[str, Any]]:
    return starter.skills("report", per_skill=40)


@dataclass(frozen=True)
class Damage:
    """weights: what is done to the model, its output layer apart from the embedding. files: what is done to a JSON file
    of the folder. caught: the limit that must be broken, of what it must be; by: the aspect, or `skills` or `text`."""

    caught: str
    weights: Callable[[Any], None] | None = None
    files: tuple[str, Callable[[Any], None]] | None = None
    of: str = ""

    @property
    def by(self) -> str:
        return self.caught.partition(".")[0] if "." in self.caught else "none"


def block(model: Any, number: int) -> Any:
    return model.model.layers[number]


def zero(*parameters: Tensor) -> None:
    for parameter in parameters:
        parameter.zero_()


def tokens_in(script: str) -> list[int]:
    """Tokens whose letters are of a script; of Korean those of three bytes and more."""
    tokenizer = open_model(STARTER).tokenizer
    return [i for i in range(len(tokenizer)) if main_script(tokenizer.decode([i])) == script]


def noised(script: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        rows = tokens_in(script)
        embedding = model.get_input_embeddings().weight
        embedding[rows] += 1.5 * embedding.std() * torch.randn(len(rows), embedding.shape[1])

    return change


def one_too_high(model: Any) -> None:
    """Every digit is said one too high."""
    digits = [model.tokens[str(digit)] for digit in range(10)]
    head = model.lm_head.weight
    head[digits] = head[digits[-1:] + digits[:-1]].clone()


def unsaid(rows: Callable[[Any], list[int]]) -> Callable[[Any], None]:
    """Tokens that are hardly said: their logits are 0, where those of what comes next are 10 and more."""

    def change(model: Any) -> None:
        model.lm_head.weight[rows(model)] = 0

    return change


def swapped_blocks(model: Any) -> None:
    layers = model.model.layers
    layers[1], layers[5] = layers[5], layers[1]


def scaled(by: float) -> Callable[[Any], None]:
    return lambda model: model.model.norm.weight.mul_(by)


def noise(model: Any) -> None:
    """What the middle of the model knows is rounded far too coarsely."""
    for number in (2, 3, 4):
        weight = block(model, number).mlp.down_proj.weight
        weight += 1.5 * weight.std() * torch.randn_like(weight)


def edited(**changes: Any) -> Callable[[Any], None]:
    return lambda held: held.update(changes)


def halved(held: Any) -> None:
    held["model"]["merges"] = held["model"]["merges"][: len(held["model"]["merges"]) // 2]


def lowered(held: Any) -> None:
    first = [held["normalizer"]] if held["normalizer"] else []
    held["normalizer"] = {"type": "Sequence", "normalizers": [*first, {"type": "Lowercase"}]}


DAMAGES = {
    "a layer zeroed": Damage(
        "max_kl", lambda m: zero(block(m, 3).self_attn.o_proj.weight, block(m, 3).mlp.down_proj.weight)
    ),
    "a matrix zeroed": Damage("max_kl", lambda m: zero(block(m, 4).mlp.down_proj.weight)),
    "a matrix zeroed that text hardly shows": Damage(
        "folder.differences", lambda m: zero(block(m, 3).self_attn.q_proj.weight)
    ),
    "late attention removed": Damage(
        "max_kl", lambda m: zero(block(m, 4).self_attn.o_proj.weight, block(m, 5).self_attn.o_proj.weight)
    ),
    "blocks swapped": Damage("max_kl", swapped_blocks),
    "a norm lost": Damage("max_kl", lambda m: block(m, 0).post_attention_layernorm.weight.fill_(1.0)),
    "confidence doubled": Damage("max_kl", scaled(2.0)),
    "confidence halved": Damage("max_ppl_ratio", scaled(0.5)),
    "Korean embeddings noised": Damage("languages.kl", noised("HANGUL"), of="ko"),
    "English embeddings noised": Damage("languages.kl", noised("LATIN"), of="latin"),
    "sums off by one": Damage("min_retention", one_too_high, of="arithmetic"),
    "facts rounded away": Damage("knowledge.lost", noise),
    "the end is never said": Damage("generation.ends", unsaid(lambda m: [m.config.eos_token_id])),
    "Korean is never said": Damage("generation.language", unsaid(lambda m: tokens_in("HANGUL")), of="hangul"),
    "positions of another base": Damage(
        "context.kl", files=("config.json", edited(rope_parameters={"rope_theta": 100.0, "rope_type": "default"}))
    ),
    "end token of another number": Damage(
        "folder.differences", files=("generation_config.json", edited(eos_token_id=7))
    ),
    "special tokens swapped": Damage(
        "folder.differences", files=("tokenizer_config.json", edited(bos_token="</s>", eos_token="<s>"))
    ),
    "merges halved": Damage("folder.differences", files=("tokenizer.json", halved)),
    "lower case": Damage("folder.differences", files=("tokenizer.json", lowered)),
    "generation settings changed": Damage(
        "folder.differences", files=("generation_config.json", edited(do_sample=True, temperature=1.7))
    ),
    "context cut": Damage("folder.differences", files=("config.json", edited(max_position_embeddings=128))),
}


def made(damage: Damage, folder: Path) -> Path:
    """The embedded model with a damage."""
    shutil.copytree(STARTER, folder)
    if damage.weights is not None:
        config = json.loads((STARTER / "config.json").read_text())
        other = AutoModelForCausalLM.from_pretrained(STARTER, dtype=torch.float32)
        other.lm_head.weight = nn.Parameter(other.lm_head.weight.detach().clone())
        tied = damage.weights.__qualname__.startswith("noised")
        if tied:
            other.tie_weights()
        other.tokens = open_model(STARTER).tokenizer.get_vocab()
        torch.manual_seed(0)
        with torch.no_grad():
            damage.weights(other)
        del other.tokens
        for file in folder.glob("*.safetensors*"):
            file.unlink()
        other.config.tie_word_embeddings = tied
        other.to(torch.bfloat16).save_pretrained(folder)
        (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": tied}))
        shutil.copy(STARTER / "generation_config.json", folder)
    if damage.files is not None:
        file = folder / damage.files[0]
        held = json.loads(file.read_text(encoding="utf-8"))
        damage.files[1](held)
        file.write_text(json.dumps(held, ensure_ascii=False), encoding="utf-8")
    return folder


def measured(original: Path, lighter: Path, by: str, items: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return compare(
        original,
        lighter,
        text=TEXT,
        skills=items,
        windows=64,
        window=128,
        speed=False,
        measure=by.split(","),
        examples=0,
    )


def alarms(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(entry["limit"], entry["of"]) for entry in result["judgements"] if entry["verdict"] == "fail"]


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_damage_is_caught_by_what_is_for_it(kind: str, items: Any, tmp_path: Path) -> None:
    damage = DAMAGES[kind]
    asked = items if damage.caught in ("min_retention", "knowledge.lost") else None
    result = measured(STARTER, made(damage, tmp_path / "lighter"), damage.by, asked)
    found = alarms(result)
    assert result["verdict"] == "fail" and any(
        limit == damage.caught and of.startswith(damage.of) for limit, of in found
    ), result["judgements"]


def test_a_lost_chat_template_is_caught(tmp_path: Path) -> None:
    original, lighter = (shutil.copytree(STARTER, tmp_path / name) for name in ("original", "lighter"))
    (original / "chat_template.jinja").write_text(TEMPLATE)
    assert alarms(measured(original, lighter, "folder")) == [("folder.differences", "")]


class Forgets(TorchEngine):
    """An engine whose cache holds nothing of what comes after the first 64 tokens."""

    def advance(self, ids: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        logits, cache = super().advance(ids, cache)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys.clone(), layer.values.clone()
            layer.keys[:, :, 64:] = layer.values[:, :, 64:] = 0
        return logits, cache


class Threaded(TorchEngine):
    """An engine that computes with another number of threads."""

    def logit_chunks(self, batch: Tensor, tokens_at_once: int) -> Iterator[Tensor]:
        with _threads(3):
            chunks = list(super().logit_chunks(batch, tokens_at_once))
        yield from chunks

    def _step(self, ids: Tensor, cache: Any, given: dict[str, Any]) -> tuple[Tensor, Any]:
        with _threads(3):
            return super()._step(ids, cache, given)


class _threads:
    def __init__(self, count: int) -> None:
        self.count, self.before = count, torch.get_num_threads()

    def __enter__(self) -> None:
        torch.set_num_threads(self.count)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)


def second_as(kind: type[TorchEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    """`compare` opens the second model as a `kind`."""
    opened: list[Any] = []

    def open_as(folder: Any, device: str = "auto", dtype: Any = None, **_: Any) -> Any:
        engine = open_model(folder, device, dtype)
        opened.append(engine)
        return engine if len(opened) == 1 else kind(engine.model, engine.tokenizer, engine.folder)

    monkeypatch.setattr(module, "open_engine", open_as)


def test_a_cache_that_forgets_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    second_as(Forgets, monkeypatch)
    assert alarms(measured(STARTER, STARTER, "context")) == [("context.cache", "")]


def test_the_same_model_raises_no_alarm_whatever_the_threads(
    items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    second_as(Threaded, monkeypatch)
    result = measured(STARTER, STARTER, "all", items)
    assert {entry["limit"] for entry in result["judgements"] if entry["verdict"] not in ("pass", "not judged")} <= {
        "knowledge.lost",  # so few facts cannot exclude a loss of a hundredth
        "min_retention",  # nor so few questions one of a twentieth
    }
    assert not alarms(result)
