"""A context in so much memory: what is chosen fits, costs what was measured, and no cheaper choice loses less."""

from __future__ import annotations

import itertools

import pytest

import models
from whet.engines.cache import FULL, CacheShape
from whet.errors import UsageError
from whet.measure.fitting import cheapest, fitted, most_tokens, runtimes
from whet.recipe.fit_context import fit_context, tokens_of

CONFIG = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "blocks": 4}
SHAPE = CacheShape.of(models.config(**CONFIG))
LOSSES = {
    "int8": {0: 1e-4, 1: 2e-4, 2: 1e-5, 3: 3e-4},
    "fp8": {0: 3e-4, 1: 1e-4, 2: 2e-5, 3: 3e-4},
    "int4": {0: 2e-3, 1: 9e-3, 2: 1e-3, 3: 4e-3},
    "q4_0": {0: 4e-3, 1: 1e-2, 2: 2e-3, 3: 5e-3},
}
RUNTIMES = {one.name: one for one in runtimes(models.config(**CONFIG))}


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("share", [0.2, 0.3, 0.45, 0.6, 0.8, 1.0])
def test_what_is_chosen_fits_and_is_near_the_best(name, share):
    runtime, tokens = RUNTIMES[name], 1024
    room = int(share * SHAPE.nbytes([FULL] * 4, tokens))
    every = [
        (sum(LOSSES[kind][i] for i, kind in enumerate(kinds) if kind != FULL), kinds)
        for kinds in itertools.product(runtime.kinds, repeat=4)
        if SHAPE.nbytes(kinds, tokens) <= room and (runtime.mixed or len(set(kinds)) == 1)
    ]
    found = fitted(runtime, SHAPE, LOSSES, tokens, 1, room)
    if not every:
        assert found is None
        return
    assert found is not None and SHAPE.nbytes(found.kinds, tokens) <= room
    assert min(every)[0] <= found.loss <= 2 * min(every)[0] + 1e-9


def test_the_longest_context_fits_and_one_token_more_does_not():
    for runtime in RUNTIMES.values():
        kinds = cheapest(runtime, SHAPE)
        most = most_tokens(SHAPE, kinds, 2, 1_000_000)
        assert 2 * SHAPE.nbytes(kinds, most) <= 1_000_000 < 2 * SHAPE.nbytes(kinds, most + 1)
    assert most_tokens(SHAPE, [FULL] * 4, 1, 0) == 0


def test_windows_stay_and_take_no_more_than_they_look_back_on():
    kinds = ["sliding_attention", "full_attention"] * 2
    shape = CacheShape.of(models.config("gemma3_text", blocks=4, head_dim=32, layer_types=kinds, sliding_window=6))
    assert shape.full == (False, True, False, True) and shape.window == 6
    assert shape.nbytes(["int8"] * 4, 100) < shape.nbytes([FULL] * 4, 100)
    assert shape.nbytes([FULL] * 4, 101) - shape.nbytes([FULL] * 4, 100) == 2 * 2 * shape.heads[0] * 32 * 2


def test_flags_say_what_was_chosen():
    mixed = ("fp8", FULL, "fp8", FULL)
    assert RUNTIMES["vllm"].flags(mixed, 4096) == (
        "--max-model-len 4096 --kv-cache-dtype fp8 --kv-cache-dtype-skip-layers 1,3"
    )
    assert RUNTIMES["vllm"].flags([FULL] * 4, 64) == "--max-model-len 64"
    assert "--cache-type-k q8_0 --cache-type-v q8_0 --flash-attn on" in RUNTIMES["llama.cpp"].flags(["int8"] * 4, 64)
    assert RUNTIMES["whet"].flags(("16", "int4", "int8", "16"), 64) == "--kv 16,int4,int8,16"
    assert RUNTIMES["whet"].flags(["int8"] * 4, 64) == "--kv int8"


def test_a_context_is_fitted_and_measured(tmp_path):
    folder = models.make(tmp_path / "model", **{**CONFIG, "blocks": 2})
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    shape = CacheShape.of(models.config(**{**CONFIG, "blocks": 2}))
    memory = size + shape.nbytes(["int8", FULL], 128)
    found = fit_context(folder, context=128, memory=memory, text=models.documents(20), windows=2)
    whet = found["runtimes"]["whet"]
    assert whet["fits"] and whet["bytes"] <= found["room"] == memory - size and 0 < whet["kl"] < 0.05
    assert len(found["losses"]["int8"]) == 2 and len(whet["positions"]) == 4
    assert whet["flags"].startswith(f"--kv {whet['kinds'][0]}")


def test_what_cannot_be_is_said_before_the_model_is_opened(tmp_path):
    folder = models.make(tmp_path / "model", **{**CONFIG, "blocks": 2})
    given = {"memory": "1GB", "text": models.documents(4)}
    assert tokens_of("32k") == 32768 == tokens_of(32768)
    for options, said in (
        ({"context": "32x"}, "is no number of tokens"),
        ({"context": "32k"}, "has positions for 128 tokens, and 32768 are asked for"),
        ({"context": 64, "memory": "1kB"}, "or make the model lighter first"),
        ({"context": 64, "memory": "6 GX"}, "is not a"),
        ({"context": 64, "text": None}, "is measured on text: give --text"),
        ({"context": 64, "sequences": 0}, "are 1 or more"),
    ):
        with pytest.raises(UsageError, match=said):
            fit_context(folder, **{**given, **options})
