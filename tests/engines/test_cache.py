"""Keys and values in few bits: codes as llama.cpp has them, bytes as computed, tokens in any order of arrival the same,
and a model that loses what the codes do."""

from __future__ import annotations

import pytest
import torch

import models
from whet.engines.cache import GROUP, RECENT, CacheShape, decode_blocks, encode_blocks, find_cache, new_cache
from whet.engines.opening import generate
from whet.engines.torch import open_model
from whet.errors import UsageError
from whet.measure.compare import compare
from whet.measure.divergence import divergence
from whet.measure.positions import by_position

TOKENS = torch.randint(2, 264, (2, 120), generator=torch.Generator().manual_seed(0))
FOUND = ("int8", "int4", "q4_0", "fp8", "16")  # which need no scales of the folder
CODED = [kind for kind in FOUND if kind != "16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("kv") / "model", dtype=torch.float32, **WIDE)


WIDE = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}


def kept(layer) -> int:
    """Bytes that a layer of a cache holds."""
    found = getattr(layer, "nbytes", None)
    return layer.keys.nbytes + layer.values.nbytes if found is None else found


@pytest.mark.parametrize("kind", ["int8", "q4_0"])
def test_blocks_are_those_of_ggml(kind):
    gguf = pytest.importorskip("gguf")
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(0))
    kind_of = {"int8": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0}[kind]
    theirs = gguf.dequantize(gguf.quantize(x.numpy(), kind_of), kind_of)
    ours = decode_blocks(encode_blocks(x, kind), kind, torch.float32)
    assert torch.equal(ours, torch.from_numpy(theirs).view_as(ours))


@pytest.mark.parametrize("kind", FOUND)
def test_bytes_are_as_computed(folder, kind):
    engine = open_model(folder)
    engine.keep(kind)
    for tokens in (7, RECENT + GROUP, 119):
        cache = engine.new_cache()
        engine._step(TOKENS[:1, :tokens], cache, {})
        assert cache.get_seq_length() == tokens
        shape = CacheShape.of(engine.model.config, 4)
        assert sum(map(kept, cache.layers)) == shape.nbytes([kind] * 2, tokens)


@pytest.mark.parametrize("kind", ["int8", "q4_0", "fp8", "16"])
def test_what_is_coded_as_it_comes_is_the_same_at_once_and_token_by_token(folder, kind):
    engine = open_model(folder)
    engine.keep(kind)
    whole = engine.logits(TOKENS[:, :40])
    cache, last = engine.new_cache(), None
    for token in TOKENS[:, :40].split(1, dim=1):
        last, cache = engine._step(token, cache, {})
    assert torch.allclose(whole[:, -1], last, atol=2e-4)


def test_keys_by_channel_are_as_they_were_until_others_came():
    cache = new_cache(type("Model", (), {"config": models.config(blocks=1, **WIDE)})(), ["int4"])  # type: ignore[arg-type]
    layer = cache.layers[0]
    x = torch.randn(1, 2, 200, 32, generator=torch.Generator().manual_seed(0))
    seen = [layer.update(x[..., at : at + 8, :], -x[..., at : at + 8, :])[0] for at in range(0, 200, 8)]
    assert layer.get_seq_length() == 200 and layer.coded == (200 - RECENT) // GROUP * GROUP
    last = seen[-1]
    exact = (last == x).all(-1).all(1)[0]
    assert exact[-RECENT:].all() and not exact[: layer.coded - GROUP].any()
    assert (last - x).abs().max() < 0.5


def test_a_model_loses_little_and_more_with_fewer_bits(folder):
    original, lighter = open_model(folder), open_model(folder)
    windows, kl = list(TOKENS), {}
    for kind in ("16", "int8", "int4", "q4_0"):
        lighter.keep(kind)
        kl[kind] = divergence(original, lighter, windows).kl.mean()
    assert kl["16"] < 1e-9 < kl["int8"] < kl["int4"] < kl["q4_0"] < 0.1
    lighter.keep(None)
    assert lighter.new_cache() is None


def test_kl_by_position_counts_every_token():
    kl = torch.arange(9 + 5).float().numpy()
    found = by_position(kl, [torch.zeros(10), torch.zeros(6)], 3)
    assert [one["tokens"] for one in found] == [6, 5, 3] and found[-1]["end"] == 9
    assert sum(one["kl"] * one["tokens"] for one in found) == pytest.approx(kl.sum())


def test_compare_and_generate_take_it(folder):
    found = compare(folder, folder, text=models.documents(20), kv="int8", windows=4, window=64, speed=False)
    assert 0 < found["divergence"]["kl"]["mean"] < 1e-2 and len(found["divergence"]["positions"]) == 4
    assert found["options"]["kv"] == "int8"
    assert isinstance(generate(folder, "ab cd", max_new_tokens=4, kv="int4"), str)


def test_what_does_not_fit_is_named(folder, tmp_path):
    with pytest.raises(UsageError, match=r"'in8' is not known\. Did you mean int8"):
        find_cache("in8")
    with pytest.raises(UsageError, match=r"Heads of 16 numbers do not divide into groups of 32.*Use --kv fp8"):
        generate(models.make(tmp_path / "narrow"), "ab", max_new_tokens=2, kv="int4")
    with pytest.raises(UsageError, match="is no decoder that continues text"):
        open_model(models.make(tmp_path / "masked", "bert", architecture="AutoModelForMaskedLM")).keep("int8")


@pytest.mark.parametrize("kind", ["int8", "q4_0"])
def test_llama_cpp_loses_what_this_does(folder, tmp_path, kind):
    """Its KL to itself with keys and values in 16 bits is what the same codes cost here, within its arithmetic."""
    pytest.importorskip("llama_cpp")
    from whet.engines.llamacpp import open_gguf
    from whet.formats.export import export

    file = tmp_path / "model.gguf"
    export(folder, to="gguf", out=file, kind="f16")
    windows = list(TOKENS)
    there = [open_gguf(file), open_gguf(file)]
    here = [open_model(folder), open_model(folder)]
    for side in (there, here):
        side[1].keep(kind)
    theirs, ours = (divergence(*side, windows).kl.mean() for side in (there, here))
    assert 0.5 * ours < theirs < 2 * ours
    with pytest.raises(UsageError, match=r"llama\.cpp keeps keys and values in"):
        there[0].keep("fp8")
