"""A tiny random Llama and a tokenizer of the 256 bytes, built in memory, opened as engines."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import models
from whet.engines.torch import TorchEngine


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return models.tokenizer(leads=False)


@pytest.fixture(scope="session")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.3,  # large enough for predictions that differ from one another
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="session")
def original(model, tokenizer) -> TorchEngine:
    return TorchEngine(model, tokenizer, "original")


@pytest.fixture(scope="session")
def twin(model, tokenizer) -> TorchEngine:
    """The same model, opened a second time."""
    return TorchEngine(copy.deepcopy(model), tokenizer, "twin")


@pytest.fixture(scope="session")
def lighter(model, tokenizer) -> TorchEngine:
    """The same model with noise on one block."""
    changed = copy.deepcopy(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in changed.model.layers[1].parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return TorchEngine(changed, tokenizer, "lighter")
