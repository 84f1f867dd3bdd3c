"""The step `tune`: replies alone of conversations, a teacher, starts from what rounding lost, and runs that stop."""

import json

import pytest
import torch
from transformers import AutoTokenizer

import models
import whet
import whet.train.loop as loop
from killing import die, killed
from whet.anatomy import anatomy
from whet.checkpoint import Checkpoint, load_model, load_tokenizer, read_adapter
from whet.engines.torch import outputs
from whet.errors import UsageError
from whet.steps.options import Tune
from whet.steps.tune_text import Batches, batch_of, in_batches, judge_of, read_learnt

TEXT = models.documents(60, 60, seed=3)
TOKENS = torch.arange(24)[None] % models.VOCABULARY
FEW = {"text": TEXT, "steps": 4, "batch": 256, "window": 64, "device": "cpu", "learning_rate": 3e-3}
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def rounded(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounded") / "rounded"
    whet.compress(base, folder, scheme="int3-g32", solver="nearest", device="cpu")
    return folder


def chats(count: int = 30) -> list[list[dict[str, str]]]:
    return [
        [
            {"role": "user", "content": f"question {i}"},
            {"role": "assistant", "content": f"reply {i}"},
            {"role": "user", "content": "and then?"},
            {"role": "assistant", "content": "nothing."},
        ]
        for i in range(count)
    ]


@pytest.mark.parametrize("as_file", [True, False])
def test_of_conversations_the_replies_alone_are_learnt(tmp_path, as_file):
    folder = models.make(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    file = tmp_path / "chat.jsonl"
    file.write_text("".join(json.dumps({"messages": one}) + "\n" for one in chats()), encoding="utf-8")
    given = str(file) if as_file else chats()
    asked = Tune.of("tune", text=given, chat=True, window=128)
    found = read_learnt(Checkpoint(folder), asked, 0)
    assert len(found.solve) + len(found.verify) <= 30 and found.verify
    for window in found.solve:
        learnt = tokenizer.decode(window[0][window[1] == 1])
        number = tokenizer.decode(window[0]).partition("question ")[2].partition("<")[0]
        assert learnt == f"reply {number}</s>nothing.</s>"
        assert "question" not in learnt and "user" not in learnt and "and then" not in learnt
    every = read_learnt(Checkpoint(folder), asked.model_copy(update={"mask": False}), 0)
    assert all(bool((window[1] == 1).all()) for window in every.solve)
    result = whet.tune(folder, tmp_path / "out", text=given, chat=True, steps=2, lora=2, device="cpu", window=128)
    assert any("replies" in str(note) for note in result["notes"])


def test_a_template_that_rewrites_turns_is_told_apart_from_none(tmp_path):
    folder = models.make(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{{ messages|length }}" + TEMPLATE
    tokenizer.save_pretrained(folder)
    with pytest.raises(UsageError, match=r"cannot be told apart.*--no-mask"):
        read_learnt(Checkpoint(folder), Tune.of("tune", text=chats(), chat=True), 0)


def test_batches_are_a_function_of_the_step_and_go_through_the_text(base):
    found = read_learnt(Checkpoint(base), Tune.of("tune", text=TEXT, window=32), 0)
    some, again = Batches(found.solve, 200, 1), Batches(found.solve, 200, 1)
    seen = [batch["input_ids"] for step in range(some.epoch) for batch in some(step)]
    assert sum(len(ids) for ids in seen) >= len(found.solve)
    for step in (3, 0, 5):
        for one, other in zip(some(step), again(step), strict=True):
            assert torch.equal(one["input_ids"], other["input_ids"]) and torch.equal(one["weights"], other["weights"])


@torch.no_grad()
def test_the_held_out_loss_is_that_of_a_token(base):
    from whet.adapt.losses import NextToken

    found = read_learnt(Checkpoint(base), Tune.of("tune", text=TEXT, window=64), 0)
    model = load_model(base)
    loss = NextToken(model)
    judged = judge_of(found.verify, loss.losses)(model)
    sums = counts = 0.0
    for window in found.verify:
        logits = outputs(model, window[0][None])[0, :-1]
        sums += torch.nn.functional.cross_entropy(logits, window[0][1:], reduction="sum").item()
        counts += len(logits)
    assert judged.mean().item() == pytest.approx(sums / counts, rel=1e-5)
    total, count = loss(model, batch_of(found.verify))
    assert (total / count).item() == pytest.approx(sums / counts, rel=1e-5)
    assert sum(len(batch["input_ids"]) for batch in in_batches(found.verify)) == len(found.verify)


def test_codes_are_untouched_and_the_start_is_what_rounding_lost(base, rounded, tmp_path):
    before = models.contents(rounded)
    result = whet.tune(rounded, tmp_path / "near", rank=8, original=base, teacher=base, **FEW | {"learning_rate": 1e-4})
    plain = whet.tune(rounded, tmp_path / "plain", rank=8, teacher=base, **FEW | {"learning_rate": 1e-4})
    assert models.contents(rounded) == before
    assert result["held_out"]["start"] < 0.8 * plain["held_out"]["start"]
    assert result["held_out"]["best"] <= result["held_out"]["start"]


def test_full_trains_every_parameter_and_writes_a_model(base, tmp_path):
    result = whet.tune(base, tmp_path / "out", adapter="full", **FEW | {"learning_rate": 1e-3})
    assert result["merge"] and result["held_out"]["helped"]
    assert result["trained"] == sum(p.numel() for p in load_model(base).parameters())
    first, second = (load_model(folder).state_dict() for folder in (base, tmp_path / "out"))
    assert sum(not torch.equal(first[name], second[name]) for name in first) == len(first)
    assert whet.verify(tmp_path / "out")["verdict"] == "pass"


_STEP = loop._Run._step


def _eighth(run, given):
    """A step of training; the eighth is not survived."""
    if run.done == 7:
        die()
    return _STEP(run, given)


def test_a_killed_run_goes_on_to_the_same_weights(base, tmp_path, monkeypatch):
    asked = {**FEW, "steps": 12, "lora": 4}
    whet.tune(base, tmp_path / "whole", **asked)
    killed(lambda: whet.tune(base, tmp_path / "out", **asked), lambda: monkeypatch.setattr(loop._Run, "_step", _eighth))
    assert whet.status(tmp_path / "out")["state"] == "stopped"
    whet.resume(tmp_path / "out")
    one, other = (read_adapter(tmp_path / name).factors for name in ("whole", "out"))
    assert all(torch.equal(one[name].b, other[name].b) and torch.equal(one[name].a, other[name].a) for name in one)


def test_what_cannot_be_is_said_before_anything_long(base, rounded, tmp_path):
    for options, said in [
        ({"adapter": "lorra"}, "Adapter lorra is not known. Did you mean lora"),
        ({"targets": "qq"}, "no linears of the role qq"),
        ({"targets": ","}, "names nothing"),
        ({"rank": 0}, "rank"),
        ({"rank": 65}, "rank 65 is more than .* has"),
        ({"lora": 4, "rank": 4}, "says both"),
        ({"lora": 4, "adapter": "dora"}, "says both"),
        ({"minutes": 1.0}, "each alone says how long"),
        ({"adapter": "full", "rank": 4}, "full trains every parameter"),
        ({"adapter": "qalora"}, "real numbers"),
        ({"original": base}, "is not quantized"),
        ({"text": None}, "No text was given"),
        ({"text": ["short"]}, "shorter than a window|too short"),
        ({"steeps": 3}, "steeps"),
    ]:
        with pytest.raises(UsageError, match=said):
            whet.tune(base, tmp_path / "out", **FEW | options)
        assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="is quantized, and full trains weights"):
        whet.tune(rounded, tmp_path / "out", adapter="full", **FEW)
    found = whet.tune(base, tmp_path / "out", **FEW, dry_run=True)
    assert found["dry_run"] and found["steps"] == 4 and not (tmp_path / "out").exists()


def test_it_is_a_step_of_a_recipe(base, tmp_path):
    (tmp_path / "text.txt").write_text("\n\n".join(TEXT), encoding="utf-8")
    recipe = {
        "version": 1,
        "text": str(tmp_path / "text.txt"),
        "steps": [
            {"tune": {"rank": 4, "steps": 3, "batch": 256, "window": 64, "learning_rate": 0.003}},
            {"quantize": {"scheme": "int8-g32", "solver": "nearest"}},
        ],
    }
    result = whet.run(recipe, base, tmp_path / "out", device="cpu")
    assert result["verdict"] == "pass"
    lineage = json.loads((tmp_path / "out" / "whet.json").read_text(encoding="utf-8"))["lineage"]
    assert [one["step"] for one in lineage] == ["tune", "quantize"]
    assert load_tokenizer(tmp_path / "out") is not None


def test_of_stacked_experts_a_note_says_that_they_stay(tmp_path):
    base = models.make(tmp_path / "base", "mixtral")
    result = whet.tune(base, tmp_path / "out", rank=2, **FEW)
    assert any("experts are stacked" in str(note) for note in result["notes"])
    assert {name.rpartition(".")[2] for name in read_adapter(tmp_path / "out").factors} >= {"q_proj", "o_proj"}
    role = next(linear.role for linear in parts_of(base).linears() if linear.held.expert is not None)
    with pytest.raises(UsageError, match=f"{role} is of experts"):
        whet.tune(base, tmp_path / "other", rank=2, targets=role, **FEW)


def parts_of(folder):
    found = Checkpoint(folder)
    return anatomy(found.config, found.shapes)
