"""A tiny model that was taught which statements are true: training it takes seconds, so all tests share one."""

from __future__ import annotations

import pytest
from transformers import LlamaForCausalLM

import taught


@pytest.fixture(scope="session")
def honest() -> LlamaForCausalLM:
    return taught.honest()
