"""Other tools' words are answered with what to type here, and that is something whet takes."""

from __future__ import annotations

import re

import pytest

from whet.errors import UsageError
from whet.grids import find_mix, parse_scheme
from whet.peers import _WORDS
from whet.quantize import find_solver, find_transform
from whet.targets import find_target

FIND = {"scheme": parse_scheme, "solver": find_solver, "transform": find_transform, "target": find_target}
ANSWERS = [
    ("solver", "awq", "--transform awq"),
    ("solver", "SmoothQuant", "--transform smooth"),
    ("solver", "rtn", "--solver nearest"),
    ("transform", "gptq", "--solver gptq"),
    ("scheme", "awq", "--scheme W4A16 --transform awq"),
    ("scheme", "gptq", "--scheme W4A16 --solver gptq"),
    ("scheme", "q4", "--scheme W4A16, or Q4_K_M with --for llama.cpp"),
    ("scheme", "4bit", "--scheme W4A16, or Q4_K_M with --for llama.cpp"),
    ("scheme", "4", "--scheme W4A16, or Q4_K_M with --for llama.cpp"),
    ("scheme", "w4", "--scheme W4A16, or Q4_K_M with --for llama.cpp"),
    ("scheme", "8-bit", "--scheme W8A16, or Q8_0 with --for llama.cpp"),
    ("scheme", "6bit", "--scheme int6-g32, or Q6_K with --for llama.cpp"),
    ("scheme", "gguf", "--for llama.cpp --scheme Q4_K_M"),
    ("scheme", "bitsandbytes", "--scheme nf4"),
    ("scheme", "FP8_DYNAMIC", "--scheme FP8A8"),
    ("scheme", "fp8-static", "--scheme FP8A8-static"),
    ("scheme", "W4A16_ASYM", "--scheme int4-g128"),
    ("scheme", "W8A8_INT8", "--scheme W8A8"),
    ("scheme", "W3A8", "--scheme int3s-g128+int8"),
    ("scheme", "NVFP4_W4A4", "--scheme W4A4"),
    ("scheme", "balanced", "--recipe balanced"),
    ("target", "gguf", "--for llama.cpp"),
    ("target", "Ollama", "--for llama.cpp"),
    ("target", "hf", "--for transformers"),
]


@pytest.mark.parametrize(("option", "word", "typed"), ANSWERS)
def test_a_word_of_another_tool_is_answered_with_what_to_type(option: str, word: str, typed: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"{typed}.")):
        FIND[option](word)


def test_what_is_to_be_typed_is_taken() -> None:
    answers = [typed for words in _WORDS.values() for typed in words.values()] + [typed for *_, typed in ANSWERS]
    flags = {"--scheme": "scheme", "--solver": "solver", "--transform": "transform", "--for": "target"}
    for flag, value in re.findall(r"(--[a-z]+) ([^\s,]+)", " ".join(answers)):
        if flag in flags and "\\" not in value and not find_mix(value):
            FIND[flags[flag]](value)


@pytest.mark.parametrize("option", FIND)
def test_a_misspelling_is_still_answered_with_the_nearest_name(option: str) -> None:
    with pytest.raises(UsageError, match="is not known"):
        FIND[option]("nothing like it")
