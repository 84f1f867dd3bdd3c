"""The torch engine gives what transformers gives: the same logits in chunks, the same tokens with a cache."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM

from whet.engines.opening import generate
from whet.engines.torch import TorchEngine, open_model, resolve_device
from whet.errors import MachineError, UsageError


@pytest.fixture(scope="module")
def engine(folder):
    return open_model(folder, "cpu")


@pytest.mark.parametrize("tokens_at_once", [1, 7, 30, 1000])
def test_logits_in_chunks_are_those_of_the_whole_model(engine, tokens_at_once):
    torch.manual_seed(0)
    batch = torch.randint(2, 258, (3, 11))
    chunks = list(engine.logit_chunks(batch, tokens_at_once))
    assert all(chunk.shape[0] * chunk.shape[1] <= max(3, tokens_at_once) for chunk in chunks)
    with torch.no_grad():
        expected = engine.model(batch).logits
    assert torch.allclose(torch.cat(chunks, dim=1), expected, atol=1e-5)
    assert torch.allclose(engine.logits(batch), expected, atol=1e-5)


def test_tokens_that_the_model_has_no_embedding_of_are_refused(engine):
    rows = engine.model.get_input_embeddings().weight.shape[0]
    batch = torch.full((2, 9), rows)
    for ask in (lambda: engine.logits(batch), lambda: engine.continue_ids(batch.tolist(), 2)):
        with pytest.raises(UsageError, match=f"makes token {rows}, the embedding has {rows} rows"):
            ask()


def test_a_model_that_scales_its_logits_is_asked_as_a_whole(engine):
    config = GraniteConfig(
        vocab_size=258, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, logits_scaling=4.0, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    scaled = TorchEngine(GraniteForCausalLM(config).eval(), engine.tokenizer, "granite")
    batch = torch.randint(2, 258, (2, 9))
    with torch.no_grad():
        assert torch.allclose(scaled.logits(batch), scaled.model(batch).logits, atol=1e-5)
    # the cache works this way too
    (new,) = scaled.continue_ids([batch[0].tolist()], 6)
    expected = scaled.model.generate(batch[:1], max_new_tokens=6, do_sample=False)[0, 9:].tolist()
    assert new == expected[: len(new)]


def test_greedy_with_the_cache_is_greedy_without_it(engine):
    prompts = [[0, 5, 6], [0, 9, 9], [0, 7, 8, 9, 10]]
    found = engine.continue_ids(prompts, 20)
    for prompt, new in zip(prompts, found, strict=True):
        ids = list(prompt)
        for _ in range(20):
            with torch.no_grad():
                token = int(engine.model(torch.tensor([ids])).logits[0, -1].argmax())
            if token in engine.ends:
                break
            ids.append(token)
        assert new == ids[len(prompt) :]
    assert [engine.continue_ids([prompt], 20)[0] for prompt in prompts] == found


def test_generation_stops_at_an_end_token_or_at_a_line_end(engine, monkeypatch):
    prompt = [0, 5, 6]
    (free,) = engine.continue_ids([prompt], 20)
    later = next(t for t in free[2:] if t not in free[:2])
    before = free[: free.index(later)]
    monkeypatch.setattr(engine, "ends", {later})
    assert engine.continue_ids([prompt], 20) == [before]
    assert engine.continue_ids([prompt], 20, past_ends=True) == [free]
    monkeypatch.setattr(engine, "ends", set())
    monkeypatch.setattr(engine, "_newline", dict.fromkeys(range(258), False) | {later: True})
    assert engine.continue_ids([prompt], 20, stop_at_newline=True) == [[*before, later]]
    assert engine.continue_ids([prompt], 20) == [free]


def test_the_token_of_a_line_end_is_known(engine):
    ids = engine.encode("a\nb")
    assert [engine._ends_a_line(i) for i in ids[1:]] == [False, True, False]


def test_sampling_is_seeded_free_of_batching_and_near_zero_temperature_greedy(engine):
    prompts = [[0, 5, 6], [0, 9, 9]]
    hot = engine.continue_ids(prompts, 12, temperature=2.0, seed=3)
    assert engine.continue_ids(prompts, 12, temperature=2.0, seed=3) == hot
    assert engine.continue_ids(prompts[:1], 12, temperature=2.0, seed=3) == hot[:1]
    assert engine.continue_ids(prompts, 12, temperature=2.0, seed=4) != hot
    greedy = engine.continue_ids(prompts, 12)
    assert engine.continue_ids(prompts, 12, temperature=1e-4) == greedy
    assert engine.continue_ids(prompts, 12, temperature=2.0, top_p=1e-9) == greedy


def test_sampling_follows_the_shares(engine):
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    from whet.engines.sampling import sample

    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(3)
    for _ in range(3000):
        counts[sample(logits, 1.0, 1.0, [generator])] += 1
    assert torch.allclose(counts / 3000, torch.tensor([0.5, 0.3, 0.2]), atol=0.04)
    kept = {int(sample(logits, 1.0, 0.6, [generator])) for _ in range(200)}
    assert kept == {0, 1}  # 0.5 does not reach 0.6, with 0.3 it does


@pytest.mark.parametrize(
    ("prompts", "more", "message"),
    [
        ([[0] * 90], {}, "a prompt of 90 tokens and 20 new ones exceed the model's context of 96"),
        ([[]], {}, "without tokens"),
        ([[0]], {"temperature": -1.0}, "at least 0"),
        ([[0]], {"top_p": 0.0}, "above 0"),
    ],
)
def test_what_cannot_be_generated_is_said(engine, prompts, more, message):
    with pytest.raises(UsageError, match=message):
        engine.continue_ids(prompts, 20, **more)


def test_logits_that_are_not_finite_stop_generation(engine):
    broken = copy.deepcopy(engine.model)
    with torch.no_grad():
        broken.model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(UsageError, match="broken: the model gives logits that are not finite"):
        TorchEngine(broken, engine.tokenizer, "broken").continue_ids([[0, 5]], 3)


def test_times_are_taken_for_what_was_asked(engine):
    timing = engine.time([0, 5, 6, 7], 5)
    assert (timing.prompt_tokens, timing.decoded_tokens) == (4, 5)
    assert timing.prefill_seconds > 0 and timing.decode_seconds > 0


def test_generate_continues_text_korean_too_and_repeats_with_the_seed(folder):
    for prompt in ("안녕하세요", "Once upon"):
        text = generate(folder, prompt, max_new_tokens=8)
        assert text == generate(folder, prompt, max_new_tokens=8)
        engine = open_model(folder)
        (new,) = engine.continue_ids([engine.encode(prompt)], 8)
        assert text == engine.decode([*engine.encode(prompt), *new])[len(prompt) :]
    assert generate(folder, "a", max_new_tokens=8, temperature=1.5, seed=1) == generate(
        folder, "a", max_new_tokens=8, temperature=1.5, seed=1
    )
    with pytest.raises(UsageError, match="The prompt is empty"):
        generate(folder, "")
    with pytest.raises(UsageError, match="a chat template was asked for"):
        generate(folder, "hello", chat=True)


def test_devices_and_types_are_checked(folder):
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="not known"):
        resolve_device("gpu9")
    if not torch.cuda.is_available():
        assert resolve_device("auto") == "cpu"
        with pytest.raises(MachineError, match="no GPU"):
            resolve_device("cuda")
    assert open_model(folder, "cpu", "bfloat16").model.dtype == torch.bfloat16
    with pytest.raises(UsageError, match="dtype int8 is not known"):
        open_model(folder, "cpu", "int8")
