"""The law: an answer is the same whoever goes on with it, wherever, and whatever is answered beside it."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter

import pytest
import torch

import models
from whet.engines.drafted import steppers, write
from whet.engines.llamacpp import open_gguf
from whet.engines.sampling import Doubt, draw
from whet.engines.stepping import stepper
from whet.engines.torch import open_model
from whet.errors import UsageError
from whet.formats.gguf import plan_gguf, write_gguf
from whet.measure.beside import told_of
from whet.serving.beside import apart
from whet.serving.worker import Worker, surprises

PROMPTS = ("ab cd", "가나다", "the ")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = models.make(tmp_path_factory.mktemp("tiny") / "model", "qwen3", dtype=torch.float32)
    return open_model(folder, "cpu", "float32")


def written(engine, jobs: list[dict], slots: int = 3) -> list[list[dict]]:
    """What a worker says of each job, all asked at once."""
    out = io.StringIO()
    worker = Worker(engine, stepper(engine, slots, 96), out)
    for number, job in enumerate(jobs):
        told = {"chat": False, "sent": [], "tokens": 24, "temperature": 0.0, "top_p": 1.0, "seed": 5, "top": None}
        worker.take({"op": "ask", "id": str(number), **told, **job})
    while worker.waiting or worker.open:
        worker.turn()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    return [[line for line in lines if line.get("id") == str(number)] for number in range(len(jobs))]


def tokens(lines: list[dict]) -> list[int]:
    return [line["token"] for line in lines if "token" in line]


def text(lines: list[dict]) -> str:
    return "".join(line.get("text", "") for line in lines)


@pytest.mark.parametrize("how", [{"temperature": 0.0}, {"temperature": 0.8, "top_p": 0.9, "top": 2}])
def test_an_answer_gone_on_with_at_any_token_is_the_one_it_would_have_been(engine, how: dict) -> None:
    whole = written(engine, [{"prompt": prompt, **how} for prompt in PROMPTS])
    for lines in whole:
        made, ids = tokens(lines), lines[0]["prompt"]
        if not how["temperature"]:
            assert made == engine.continue_ids([ids], 24)[0]
        assert text(lines) == engine.decode(made)
        rests = written(engine, [{"prompt": ids, "sent": made[:at], **how} for at in range(len(made) + 1)])
        sent = ""
        for at, rest in enumerate(rests):
            assert tokens(rest) == made[at:], at
            assert sent + text(rest) == text(lines), at
            assert rest[-1]["end"] == lines[-1]["end"]
            sent += lines[1 + at].get("text", "")


def test_a_prompt_read_in_parts_is_the_same_prompt_and_keeps_nobody_waiting(engine, monkeypatch) -> None:
    jobs = [{"prompt": "ab"}, {"prompt": "the for cd ab the for cd ab the for cd ab"}]
    whole = [tokens(lines) for lines in written(engine, jobs)]
    monkeypatch.setattr("whet.serving.worker._AT_ONCE", 5)
    assert [tokens(lines) for lines in written(engine, jobs)] == whole
    out = io.StringIO()
    worker = Worker(engine, stepper(engine, 2, 96), out)
    for number, job in enumerate(jobs):
        told = {"chat": False, "sent": [], "tokens": 4, "temperature": 0.0, "top_p": 1.0, "seed": 5, "top": None}
        worker.take({"op": "ask", "id": str(number), **told, **job})
    while worker.waiting or worker.open:
        worker.turn()
    said = [json.loads(line) for line in out.getvalue().splitlines()]
    ends = [place for place, line in enumerate(said) if "end" in line]
    parts = [place for place, line in enumerate(said) if "reading" in line]
    assert len(parts) >= 7 and ends[0] < parts[-1]  # the short one is done before the long one is read


def test_words_never_end_in_half_a_letter_until_the_answer_does(engine) -> None:
    (lines,) = written(engine, [{"prompt": "ab", "temperature": 1.5, "tokens": 60, "seed": 1}])
    assert text(lines) == engine.decode(tokens(lines))
    inside = [line["text"] for line in lines if "token" in line]
    assert any(not piece for piece in inside)  # some did wait


def test_what_cannot_be_answered_is_said_and_harms_no_other(engine) -> None:
    jobs = [{"prompt": "x" * 200}, {"prompt": [9999]}, {"prompt": [{"role": "user", "content": "x"}], "chat": True}]
    *wrong, right = written(engine, [*jobs, {"prompt": "ab"}], slots=2)
    assert all(set(lines[-1]) == {"id", "wrong"} for lines in wrong) and tokens(right)
    assert str(engine.folder) not in str(wrong)
    broken = open_model(engine.folder, "cpu", "float32")
    broken.model.get_input_embeddings().weight.data.fill_(float("nan"))
    (lines,) = written(broken, [{"prompt": "ab"}])
    assert lines[-1]["fault"] == "not finite"


def test_scores_are_of_the_tokens_that_are_given(engine) -> None:
    ids = engine.encode("ab cd the ab")
    out = io.StringIO()
    worker = Worker(engine, stepper(engine, 1, 96), out)
    worker.take({"op": "score", "id": "0", "ids": ids, "start": 4})
    worker.turn()
    said = json.loads(out.getvalue())
    logits = engine.logits(torch.tensor([ids]))[0, 3:-1].double()
    assert said["chosen"] == logits.argmax(-1).tolist() and len(said["chosen"]) == len(ids) - 4
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(ids[4:])[:, None])[:, 0].tolist()
    assert said["logprobs"] == pytest.approx(expected)


def test_tokens_are_drawn_by_their_shares_and_by_seed_and_position_alone() -> None:
    logits = torch.tensor([0.0, 2.0, 1.0, -1.0])
    shares = torch.softmax(logits / 0.7, -1)
    counts = Counter(draw(logits, 0.7, 1.0, 3, position) for position in range(4000))
    assert all(abs(counts[i] / 4000 - share) < 0.03 for i, share in enumerate(shares.tolist()))
    assert {draw(logits, 0.7, 0.6, seed, 1) for seed in range(200)} == {1}
    assert {draw(logits, 0.0, 1.0, seed, 1) for seed in range(9)} == {1}
    assert draw(logits, 0.7, 1.0, 8, 2) == draw(logits.clone(), 0.7, 1.0, 8, 2)


def test_in_llama_cpp_too(tmp_path) -> None:
    pytest.importorskip("llama_cpp")
    original = models.make(tmp_path / "model", "qwen3")
    write_gguf(plan_gguf(original, "F32"), tmp_path / "m.gguf")
    made = open_gguf(tmp_path / "m.gguf", 1)
    whole = written(made, [{"prompt": prompt} for prompt in ("ab cd", "the for")], slots=2)
    for lines in whole:
        assert tokens(lines) == made.continue_ids([lines[0]["prompt"]], 24)[0]
        (rest,) = written(made, [{"prompt": lines[0]["prompt"], "sent": tokens(lines)[:5]}], slots=2)
        assert tokens(rest) == tokens(lines)[5:]
    write_gguf(plan_gguf(original, "BF16"), tmp_path / "draft.gguf")
    for draft in (open_gguf(tmp_path / "draft.gguf", 1), open_model(original, "cpu", "float32")):
        steps, drafts = steppers(made, draft, 1, 96)
        drafts.pace.choose = lambda rows: 3
        for lines in whole:
            done = write(made, steps, drafts, lines[0]["prompt"], 24)
            assert done.ids == tokens(lines) and done.kept > 0


def test_a_model_that_does_not_continue_text_is_refused(engine) -> None:
    class Fills:
        task, folder = "masked", "bert"

    with pytest.raises(UsageError, match="masked"):
        stepper(Fills(), 1, 8)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", [{"temperature": 0.0}, {"temperature": 0.8, "top_p": 0.9}])
def test_with_a_draft_every_answer_is_the_same_alone_and_beside_others(engine, how: dict, monkeypatch) -> None:
    """Also where the draft fails in the middle."""
    other = open_model(engine.folder, "cpu", "float32")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in other.model.parameters():
            value += 0.15 * value.abs().mean() * torch.randn(value.shape, generator=generator)
    jobs = [{"prompt": prompt, **how} for prompt in (*PROMPTS, "for cd")]
    alone = [tokens(written(engine, [job])[0]) for job in jobs]
    for fails_at in (None, 6):
        steps, drafts = steppers(engine, other, 3, 96)
        monkeypatch.setattr(drafts.pace, "choose", lambda rows: 4)
        if fails_at is not None:
            calls = iter(range(100))
            last = drafts.stepper.last
            drafts.stepper.last = lambda fed: last(fed) if next(calls) < fails_at else 1 / 0  # noqa: B023
        out = io.StringIO()
        worker = Worker(engine, steps, out, drafts)
        for number, job in enumerate(jobs):
            told = {"chat": False, "sent": [], "tokens": 24, "temperature": 0.0, "top_p": 1.0, "seed": 5, "top": None}
            worker.take({"op": "ask", "id": str(number), **told, **job})
        while worker.waiting or worker.open:
            worker.turn()
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        for number, made in enumerate(alone):
            assert tokens([line for line in lines if line.get("id") == str(number)]) == made
        told = {name: value for line in lines for name, value in line.get("draft", {}).items()}
        assert ("failed" in told) == (fails_at is not None)
        if fails_at is None:
            assert 0 < told["kept"] < told["proposed"]


def test_an_answer_is_given_up_where_the_mean_doubt_of_its_last_tokens_is_too_large(engine) -> None:
    (whole,) = written(engine, [{"prompt": "ab"}])
    ids, doubts = whole[0]["prompt"], Doubt()
    logits = engine.logits(torch.tensor([[*ids, *tokens(whole)]]))[0]
    found = [doubts.add(logits[len(ids) - 1 + at]) for at in range(24)]
    for limit in (0.0, sorted(found)[20], 1.0):
        (lines,) = written(engine, [{"prompt": "ab", "doubt": limit}])
        first = next((at for at, doubt in enumerate(found) if doubt > limit), None)
        assert ("unsure" in lines[-1]) == (first is not None)
        assert tokens(lines) == tokens(whole)[:first]


class Several:
    """An engine of two precisions that keeps count of its changes."""

    def __init__(self, engine) -> None:
        self._engine, self.used = engine, []

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def use(self, precision: int) -> None:
        self.used.append(precision)


def test_answers_keep_the_precision_that_they_began_with(engine) -> None:
    """Two at once, at different ones: each turn computes with both, and neither disturbs the other."""
    several = Several(engine)
    jobs = [{"prompt": prompt, "precision": bits} for prompt, bits in zip(PROMPTS, (8, 4, None), strict=True)]
    mixed = written(several, jobs)
    assert [tokens(lines) for lines in mixed] == [tokens(lines) for lines in written(engine, jobs_without(jobs))]
    assert set(several.used) == {8, 4} and several.used[-1] in (8, 4)


def jobs_without(jobs: list[dict]) -> list[dict]:
    return [{"prompt": job["prompt"]} for job in jobs]


def test_the_surprise_of_a_text_is_that_of_its_tokens_and_its_pieces_are_it(engine) -> None:
    text = "ab cd 가나다 the " * 12
    pieces = surprises(engine, stepper(engine, 1, 96), text)
    assert "".join(piece for piece, _ in pieces) == text
    ids = engine.encode(text)[:40]
    steps = stepper(engine, 1, 96)
    shares = steps.score(ids, 1).double().log_softmax(-1)
    theirs = [-float(row[token]) for row, token in zip(shares, ids[1:], strict=True)]
    assert [value for _, value in pieces[1:40]] == pytest.approx(theirs, abs=1e-4) and pieces[0][1] == 0.0


def test_what_comes_with_the_weights_is_told_as_plain_values(engine, tmp_path) -> None:
    told = json.loads(json.dumps(told_of(engine.folder, engine)))
    assert apart(told, told) == [] and told["whole"] and told["texts"][0] and told["zeros"] == []
    folder = shutil.copytree(engine.folder, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 7}))
    other = open_model(folder, "cpu", "float32")
    name, weight = next((name, one) for name, one in other.model.named_parameters() if one.ndim > 1)
    weight.data.zero_()
    other.ends = {3}
    found = [str(what) for what, *_ in apart(told, json.loads(json.dumps(told_of(folder, other))))]
    assert found == ["context length", "tokens that end a text", "matrices of zeros (1)"], name
