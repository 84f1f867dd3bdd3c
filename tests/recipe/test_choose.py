"""`choose`: models of different tokenizers at the same bytes, one left out that cannot be, and which is taken."""

from __future__ import annotations

import json

import pytest

import models
from whet.errors import UsageError
from whet.recipe.choose import choose
from whet.recipe.takes import takes_rounding

DOCUMENTS = [f"{i} 가나 ab {i * i} cd 마바 e {i * 7 % 13}. " * 3 for i in range(60)]
SKILLS = [{"skill": "pick", "prompt": f"q{i} ", "choices": ["ab", "마바"], "label": i % 2} for i in range(24)]


def test_models_are_brought_to_the_same_bytes_and_judged(tmp_path, folder_of):
    big, small = folder_of("big", intermediate_size=128), folder_of("small", hidden_size=16, intermediate_size=32)
    result = choose([big, small], tmp_path / "out", budget="40kB", text=DOCUMENTS, skills=SKILLS, solver="fast")
    assert json.loads((tmp_path / "out" / "choice.json").read_text())["take"] == result["take"]
    made = {one["name"]: one for one in result["models"]}
    assert made["big"]["made"] and made["big"]["bytes"] <= 40_000 < made["big"]["original_bytes"]
    assert not made["small"]["made"] and made["small"]["takes"] == {} and made["big"]["takes"]["kurtosis"] > 1
    assert {result["best"], result["take"]} <= set(made) and set(result["tied"]) <= set(made)
    assert any(one["frontier"]["bytes"] for one in result["models"])
    again = choose([big, small], tmp_path / "again", budget="40kB", text=DOCUMENTS, skills=SKILLS, solver="fast")
    timed = ("milliseconds", "folder", "frontier")
    told, retold = ([{k: one[k] for k in one if k not in timed} for one in each["models"]] for each in (result, again))
    assert told == retold


def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path, folder_of):
    one, other = folder_of("one"), folder_of("other")
    for models_, options, said in (
        ([one], {"budget": "40kB", "text": DOCUMENTS}, "two models or more"),
        ([one, one], {"budget": "40kB", "text": DOCUMENTS}, "each once"),
        ([one, other], {"text": DOCUMENTS}, "--budget"),
        ([one, other], {"budget": "40kB"}, "--text"),
        ([one, other], {"budget": "40kX", "text": DOCUMENTS}, "unit"),
        ([one, other], {"budget": "1kB", "text": DOCUMENTS}, "Fewer than two"),
    ):
        with pytest.raises(UsageError, match=said):
            choose(models_, tmp_path / "out", **options)


def test_spikes_are_seen_in_the_weights(folder_of):
    calm, spiky = folder_of("calm"), folder_of("spiky", spike=400.0)
    told = takes_rounding(calm), takes_rounding(spiky)
    assert told[0]["spikes"] == 0 < told[1]["spikes"] and told[0]["kurtosis"] == pytest.approx(3, abs=0.5)


@pytest.fixture
def folder_of(tmp_path):
    """A tiny Llama in a folder of a name."""

    def make(name: str, spike: float = 0.0, **shape: int):
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(len(name))
        given = {"hidden_size": 32, "intermediate_size": 48, **shape}
        config = LlamaConfig(
            vocab_size=258, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, **given,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        if spike:
            with torch.no_grad():
                model.model.layers[0].mlp.down_proj.weight[0, 0] = (
                    spike * model.model.layers[0].mlp.down_proj.weight.std()
                )
        model.save_pretrained(tmp_path / name)
        models.tokenizer(leads=False).save_pretrained(tmp_path / name)
        return tmp_path / name

    return make
