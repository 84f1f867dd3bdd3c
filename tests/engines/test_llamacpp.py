"""llama.cpp as an engine: the same promises as PyTorch's, on the same tiny model."""

from __future__ import annotations

import sys

import pytest
import torch

import models
from whet.engines import llamacpp, probe
from whet.engines.llamacpp import available, open_gguf
from whet.engines.opening import generate, open_engine
from whet.engines.torch import TorchEngine
from whet.errors import MachineError, UsageError
from whet.formats.gguf import plan_gguf, write_gguf
from whet.measure.divergence import divergence


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny model's folder and the float32 file made from it."""
    folder = models.make(tmp_path_factory.mktemp("tiny") / "model", "qwen3")
    write_gguf(plan_gguf(folder, "F32"), folder.parent / "m.gguf")
    return folder, folder.parent / "m.gguf"


@pytest.fixture(scope="module")
def engine(made):
    pytest.importorskip("llama_cpp")
    return open_gguf(made[1], threads=1)


@pytest.fixture(scope="module")
def prompts(engine):
    return [engine.encode(text) for text in ("ab cd", "마바사 the", "for e. the ab", "가나 ab")]


def test_it_opens_what_the_path_is(made, engine):
    assert isinstance(open_engine(made[0]), TorchEngine) and engine.name == "llama.cpp"
    assert open_engine(made[1]).folder == str(made[1])
    assert (engine.vocabulary, engine.context) == (models.VOCABULARY, 128)


def test_logits_and_text_are_pytorchs(made, engine, prompts):
    theirs = open_engine(made[0], dtype="float32")
    texts = models.documents(6)
    assert [engine.encode(text) for text in texts] == [theirs.encode(text) for text in texts]
    windows = [torch.tensor(theirs.encode(text)[:60]) for text in texts]
    scores = divergence(theirs, engine, windows)
    assert scores.kl.mean() < 1e-6 and scores.agree.mean() > 0.98
    assert engine.continue_ids(prompts, 8) == theirs.continue_ids(prompts, 8)
    for ids in prompts:
        assert engine.decode(ids) == theirs.decode(ids)


def test_a_file_against_itself_is_equal_to_the_bit(made, engine):
    windows = [torch.tensor(engine.encode(text)[:40]) for text in models.documents(4)]
    scores = divergence(engine, open_gguf(made[1], threads=1), windows)
    assert not scores.kl.any() and scores.agree.all()


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("tokens_at_once", [1, 40, 10_000])
def test_chunks_cover_the_positions_and_do_not_depend_on_the_cut(engine, rows, tokens_at_once):
    batch = torch.randint(2, 250, (rows, 11), generator=torch.Generator().manual_seed(1))
    chunks = list(engine.logit_chunks(batch, tokens_at_once))
    step = max(1, tokens_at_once // rows)
    assert [chunk.shape[1] for chunk in chunks] == [len(r) for r in torch.arange(11).split(step)]
    alone = torch.cat(list(engine.logit_chunks(batch[-1:], 10_000)), dim=1)
    assert torch.allclose(torch.cat(chunks, dim=1)[-1:], alone, atol=2e-2)


def test_sampling_is_seeded_and_does_not_depend_on_the_batch(engine, prompts):
    hot = engine.continue_ids(prompts, 8, temperature=2.0, seed=3)
    assert engine.continue_ids(prompts, 8, temperature=2.0, seed=3) == hot
    assert engine.continue_ids(prompts, 8, temperature=2.0, seed=4) != hot
    greedy = engine.continue_ids(prompts, 8)
    assert engine.continue_ids(prompts, 8, temperature=1e-4) == greedy
    assert engine.continue_ids(prompts * 40, 2) == [row[:2] for row in greedy] * 40


def test_it_stops_at_an_end_and_at_a_line_end(engine, prompts):
    answers = engine.continue_ids(prompts, 60, stop_at_newline=True)
    for answer in answers:
        assert 1 not in answer and all("\n" not in engine.decode([token]) for token in answer[:-1])


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        ([[0] * 120], {}, "exceed the model's context of 128"),
        ([[]], {}, "without tokens"),
        ([[1]], {"top_p": 0.0}, "above 0 up to 1"),
    ],
)
def test_wrong_requests_are_refused(engine, rows, more, said):
    with pytest.raises(UsageError, match=said):
        engine.continue_ids(rows, 20, **more)


def test_time_counts_what_was_done(engine, prompts):
    timing = engine.time(prompts[0], 5)
    assert (timing.prompt_tokens, timing.decoded_tokens) == (len(prompts[0]), 5)
    assert timing.prefill_seconds > 0 and timing.decode_seconds > 0


def test_generate_goes_on_with_a_prompt(made):
    pytest.importorskip("llama_cpp")
    assert generate(made[1], "ab cd", max_new_tokens=6) == generate(made[0], "ab cd", max_new_tokens=6)


def test_a_device_it_does_not_use_is_refused(made):
    with pytest.raises(UsageError, match="which whet runs on the processor"):
        generate(made[1], "ab", device="cuda")


def test_a_file_llama_cpp_does_not_take_says_why(made, tmp_path):
    pytest.importorskip("llama_cpp")
    layout = plan_gguf(made[0], "F32")
    del layout.entries["qwen3.attention.layer_norm_rms_epsilon"]
    write_gguf(layout, tmp_path / "broken.gguf")
    with pytest.raises(UsageError, match=r"llama\.cpp does not load .*layer_norm_rms_epsilon"):
        open_gguf(tmp_path / "broken.gguf")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", 0),
        ("block_count", 65536),
        ("embedding_length", 0),
        ("attention.layer_norm_rms_epsilon", -1.0),
        ("attention.layer_norm_rms_epsilon", float("nan")),
        ("rope.freq_base", float("inf")),
    ],
)
def test_numbers_that_native_code_aborts_on_do_not_reach_it(made, tmp_path, monkeypatch, key, value):
    monkeypatch.setattr(llamacpp, "_library", lambda: pytest.fail("native code was asked"))
    layout = plan_gguf(made[0], "F32")
    layout.entries[f"qwen3.{key}"] = value
    with monkeypatch.context() as unchecked:
        unchecked.setattr("whet.checkpoint.gguf._check_settings", lambda *_: None)
        write_gguf(layout, tmp_path / "odd.gguf")
    with pytest.raises(UsageError, match=rf"qwen3\.{key} is .*, which no model has"):
        open_gguf(tmp_path / "odd.gguf")


@pytest.mark.children
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.abort()", r"crashes on .*m\.gguf \(SIGABRT\)"),
        ("import os, sys; print('x.c: GGML_ASSERT(y)', file=sys.stderr); os.kill(os.getpid(), 11)", "SIGSEGV: x"),
    ],
)
def test_a_file_that_native_code_crashes_on_is_an_error(made, tmp_path, monkeypatch, code, said):
    pytest.importorskip("llama_cpp")
    (tmp_path / "script.py").write_text(code)
    monkeypatch.setattr(probe, "_SCRIPT", tmp_path / "script.py")
    with pytest.raises(UsageError, match=said):
        open_gguf(made[1])


@pytest.mark.children
def test_what_native_code_crashes_on_is_found_before(made, tmp_path, monkeypatch):
    """Whatever passes the checks of the header."""
    pytest.importorskip("llama_cpp")
    monkeypatch.setattr("whet.checkpoint.gguf._check_settings", lambda *_: None)
    layout = plan_gguf(made[0], "F32")
    layout.entries["qwen3.attention.layer_norm_rms_epsilon"] = -1.0
    write_gguf(layout, tmp_path / "odd.gguf")
    with pytest.raises(UsageError, match=r"llama\.cpp crashes on .*(SIGABRT|SIGSEGV)"):
        open_gguf(tmp_path / "odd.gguf")


def test_a_damaged_file_does_not_reach_native_code(made, tmp_path, monkeypatch):
    monkeypatch.setattr(llamacpp, "_library", lambda: pytest.fail("native code was asked"))
    file = tmp_path / "cut.gguf"
    file.write_bytes(made[1].read_bytes()[:-100])
    with pytest.raises(UsageError, match="cut off"):
        open_gguf(file)


def test_without_the_extra_the_error_names_it(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    assert not available()
    with pytest.raises(MachineError, match=r"pip install 'whet\[llamacpp\]'"):
        open_gguf(made[1])
