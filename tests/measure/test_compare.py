"""Compare: a model against itself passes with zeros, a damaged one is found, the text of the making is not reused."""

from __future__ import annotations

import json
import random
import shutil
import sys
import types

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import models
from whet.errors import GateError, MachineError, UsageError
from whet.measure import sides
from whet.measure.compare import compare
from whet.measure.limits import judge, overall, resolve_limits
from whet.measure.material import read_material
from whet.measure.tasks import named_tasks
from whet.recipe.compress import compress
from whet.text import Amount, fingerprint, read_text, split
from wording import each

module = sys.modules["whet.measure.compare"]  # whet.measure.compare itself is the function

DOCUMENTS = [" ".join(random.Random(i).choices(["가나", "ab", "cd", "마바", "e."], k=30)) for i in range(30)]
SKILLS = [{"skill": "free", "prompt": f"질문 {i}:", "answer": "x", "check": "contains"} for i in range(5)] + [
    {"skill": "pick", "prompt": f"q{i} ", "choices": ["ab", "마바"], "label": i % 2} for i in range(40)
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """original, lighter (noise on one block), broken (NaN), each with a byte tokenizer."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = models.tokenizer(leads=False)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config)
    made = {}
    for name in ("original", "lighter", "broken"):
        if name == "lighter":
            with torch.no_grad():
                for parameter in model.model.layers[1].parameters():
                    parameter += 0.05 * torch.randn_like(parameter)
        if name == "broken":
            with torch.no_grad():
                model.model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
        made[name] = root / name
        model.save_pretrained(made[name])
        tokenizer.save_pretrained(made[name])
    return made


def test_a_model_against_itself_passes_with_kl_exactly_zero_and_no_flips(folders):
    result = compare(
        folders["original"], folders["original"], text=DOCUMENTS, skills=SKILLS, windows=None, window=32, speed=False
    )
    assert result["verdict"] == "pass"
    assert result["divergence"]["kl"]["mean"] == 0.0 and result["divergence"]["kl"]["interval"] == [0.0, 0.0]
    assert result["divergence"]["kl"]["percentiles"]["max"] == 0.0 and result["divergence"]["top1"]["mean"] == 1.0
    assert result["divergence"]["perplexity"]["ratio"]["value"] == 1.0 and result["size"]["shrink"] == 1.0
    assert [entry["skill"] for entry in result["skills"]] == ["free", "pick"]
    assert all(entry["flips"]["share"] == 0 and entry["holm_p"] == 1.0 for entry in result["skills"])
    assert result["speed"] is None and result["memory"] is None


def test_the_result_is_json_and_says_what_was_done(folders, tmp_path, monkeypatch):
    measured = []

    def footprint(folder, prompt, **more):  # the real one starts a process; test_speed does
        measured.append(folder)
        return {"load_seconds": 1.0, "peak_bytes": 2, "before_bytes": 1}

    monkeypatch.setattr(module, "footprint", footprint)
    (tmp_path / "t.txt").write_text("\n\n\n".join(DOCUMENTS), encoding="utf-8")
    (tmp_path / "s.jsonl").write_text(
        "\n".join(json.dumps(item, ensure_ascii=False) for item in SKILLS), encoding="utf-8"
    )
    events = []
    result = compare(
        folders["original"],
        folders["lighter"],
        text=tmp_path / "t.txt",
        skills=tmp_path / "s.jsonl",
        windows=40,
        window=32,
        on_event=events.append,
    )
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["format"] == "whet.compare" and result["version"] == 1
    assert result["verdict"] == "fail" and result["divergence"]["kl"]["mean"] > 0
    assert result["text"]["documents"] == 30 and result["text"]["clustered_by"] == "documents"
    assert result["text"]["windows"] == 40 and result["text"]["part"] == "all"
    low, high = result["divergence"]["kl"]["interval"]
    assert low < result["divergence"]["kl"]["mean"] < high
    assert {j["limit"] for j in result["judgements"]} == {
        "max_kl",
        "min_top1",
        "max_ppl_ratio",
        "min_retention",
        "folder.differences",
        "languages.kl",
        "languages.top1",
        "calibration.ece",
    }
    assert set(result["size"]["lighter"]) >= {"linears", "embedding", "head", "other", "weights", "tokenizer", "total"}
    assert result["speed"]["decode"]["ratio"]["value"] > 0
    assert measured == [folders["original"], folders["lighter"]]
    assert result["memory"]["lighter"] == {"load_seconds": 1.0, "peak_bytes": 2, "before_bytes": 1}
    assert result["environment"]["threads"] >= 1
    assert {e["stage"] for e in events if e["event"] == "progress"} >= {"divergence", "speed", "skills, original"}


def test_the_text_that_made_a_model_is_used_for_its_report_part_only(folders, tmp_path):
    lighter = tmp_path / "made"
    shutil.copytree(folders["lighter"], lighter)

    def made_with(documents, **more):
        step = {"text": {"fingerprint": fingerprint(documents), "seed": 7, **more}}
        # checked as text alone: the folder's weights are plain, only its lineage matters here
        (lighter / "whet.json").write_text(
            json.dumps(
                {"format": 1, "base_model": {"name": "m"}, "target": "whet", "container": "whet", "lineage": [step]}
            )
        )

    def read(**more):
        found = read_material(DOCUMENTS, lighter, None, use_report_split=more.get("insist"))
        return found, found.notes

    made_with(DOCUMENTS)
    material, notes = read()
    assert material.documents == split(DOCUMENTS, 7).report and material.described["part"] == "report"
    assert material.described["documents_used"] == 3 and "only its report part" in notes[0]
    material, notes = read(insist=False)
    assert material.documents == DOCUMENTS and "flatter" in notes[0]
    made_with(DOCUMENTS[:-1])
    material, notes = read()
    assert material.documents == DOCUMENTS and material.described["part"] == "all" and notes == []
    material, _ = read(insist=True)
    assert material.documents == split(DOCUMENTS, 0).report
    made_with(DOCUMENTS, split="eval given")  # all of it solved: there is no part to report on
    material, notes = read()
    assert material.documents == DOCUMENTS and "flatter" in notes[0]
    made_with(["other"], eval_fingerprint=fingerprint(DOCUMENTS))
    material, notes = read()
    assert material.documents == DOCUMENTS and "it was not calibrated on" in notes[0]


def test_a_large_text_that_made_a_model_is_read_as_it_was_then(folders, tmp_path):
    lighter, text = tmp_path / "made", tmp_path / "large.txt"
    shutil.copytree(folders["lighter"], lighter)
    text.write_text("\n\n\n".join(f"document {i} " + "of some words " * 20 for i in range(400)))
    then = Amount(20_000, 1000)
    found = read_text(text, amount=then)
    assert found.read == {"bytes": text.stat().st_size, "most": 20_000, "piece": 1000}
    step = {"text": {"fingerprint": fingerprint(found.documents), "seed": 7, "read": found.read}}
    (lighter / "whet.json").write_text(
        json.dumps({"format": 1, "base_model": {"name": "m"}, "target": "whet", "container": "whet", "lineage": [step]})
    )
    material = read_material(text, lighter, None, amount=Amount(9_000, 500))
    assert material.documents == split(found.documents, 7).report and material.described["part"] == "report"
    assert not {*material.documents} & {*split(found.documents, 7).solve}


def test_few_documents_are_clustered_by_window_and_long_windows_are_cut_to_the_context(folders):
    text = [" ".join(DOCUMENTS)]
    result = compare(folders["original"], folders["lighter"], text=text, windows=None, window=512, speed=False)
    assert result["text"]["window"] == 64 and result["text"]["clustered_by"] == "windows"
    assert any("context of the model" in note for note in result["notes"])
    assert any("error bars are over its" in note for note in result["notes"])


def test_a_lighter_model_that_is_not_finite_is_a_failed_gate(folders):
    with pytest.raises(GateError, match=r"the lighter model.*not finite in window"):
        compare(folders["original"], folders["broken"], text=DOCUMENTS, window=32, speed=False)


def test_a_dry_run_says_what_it_takes_and_opens_no_model(folders, monkeypatch):
    monkeypatch.setattr(module, "open_engine", None)
    events = []
    more = {"text": DOCUMENTS, "skills": SKILLS, "window": 32, "windows": 20}
    result = compare(folders["original"], folders["lighter"], dry_run=True, on_event=events.append, **more)
    assert result["dry_run"] and result["items"] == len(SKILLS) and result["text"]["windows"] == 20
    assert result["seconds"] > 0 and result["memory"] > 0 and result["disk"] == 0
    assert [event["event"] for event in events] == ["plan"]
    monkeypatch.setattr(sides, "available_memory", lambda: 1_000_000)
    with pytest.raises(MachineError, match=r"Comparing needs about .* GB of memory"):
        compare(folders["original"], folders["lighter"], **more)


def test_the_wrong_way_round_is_told_before_anything_is_opened(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "open_engine", lambda *a: pytest.fail("a model was opened"))
    compress(folders["original"], tmp_path / "lighter", scheme="int4s-g16", solver="nearest")
    compress(folders["original"], tmp_path / "larger", scheme="int8s", solver="nearest")
    with pytest.raises(UsageError, match=r"lighter is the lighter model .*: whet compare .*original .*lighter\."):
        compare(tmp_path / "lighter", folders["original"], text=DOCUMENTS)
    for pair in ((folders["original"], tmp_path / "lighter"), (tmp_path / "lighter", tmp_path / "larger")):
        compare(*pair, text=DOCUMENTS, dry_run=True)


def test_wrong_inputs_are_named(folders, tmp_path):
    def run(**more):
        return compare(folders["original"], folders["lighter"], speed=False, **more)

    with pytest.raises(UsageError, match="There is no text to compare on"):
        run()
    with pytest.raises(UsageError, match=r"no limit max_lk\. Did you mean max_kl\?"):
        run(text=DOCUMENTS, limits={"max_lk": 1})
    with pytest.raises(UsageError, match="no skills were given"):
        run(text=DOCUMENTS, limits={"min_retention": 0.9})
    with pytest.raises(UsageError, match=r"Limit min_top1 is 95; it must be a number from 0 to 1"):
        run(text=DOCUMENTS, limits={"min_top1": 95})
    with pytest.raises(UsageError, match="shorter than a window"):
        run(text=["짧은 글"], window=64)
    other = tmp_path / "other"
    LlamaForCausalLM.from_pretrained(folders["lighter"]).save_pretrained(other)
    core = Tokenizer(BPE(vocab={"a": 0, "b": 1}, merges=[]))
    PreTrainedTokenizerFast(tokenizer_object=core).save_pretrained(other)
    with pytest.raises(UsageError, match="have different tokenizers"):
        compare(folders["original"], other, text=DOCUMENTS, speed=False)


def test_tasks_need_the_extra_and_use_the_harness_when_it_is_there(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MachineError, match=r"whet\[tasks\]"):
        compare(folders["original"], folders["lighter"], text=DOCUMENTS, tasks=["arc_easy"], speed=False)

    harness, wrapper = types.ModuleType("lm_eval"), types.ModuleType("lm_eval.models.huggingface")
    wrapper.HFLM = lambda pretrained, tokenizer: pretrained
    asked = []

    def simple_evaluate(model, tasks, log_samples, random_seed):
        asked.append((model, tasks))
        right = [1.0, 1.0, 0.0] if len(asked) == 1 else [1.0, 0.0, 0.0]
        samples = [{"doc_id": i, "acc": value} for i, value in enumerate(right)]
        results = {name: {"acc,none": sum(right) / 3, "alias": "a"} for name in ("kobest", "kobest_a", "kobest_b")}
        both = {"kobest_a": samples, "kobest_b": [*reversed(samples)]}
        return {"results": results, "samples": both, "group_subtasks": {"kobest": ["kobest_a", "kobest_b"]}}

    harness.simple_evaluate = simple_evaluate
    manager = types.SimpleNamespace(all_tasks=["kobest", "haerae"])
    listed = types.ModuleType("lm_eval.tasks")
    listed.TaskManager = lambda: manager
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", listed)
    with pytest.raises(MachineError, match=r"whet\[tasks\]"):
        named_tasks(["kobest"])
    for name, module in (("lm_eval", harness), ("lm_eval.models", wrapper), ("lm_eval.models.huggingface", wrapper)):
        monkeypatch.setitem(sys.modules, name, module)
    assert named_tasks(["KoBEST", "HAE-RAE"]) == ["kobest", "haerae"]
    with pytest.raises(UsageError, match=r"has no task kobset. Did you mean kobest"):
        compare(folders["original"], folders["lighter"], text=DOCUMENTS, tasks=["kobset"], speed=False)
    result = compare(folders["original"], folders["lighter"], text=DOCUMENTS, window=32, tasks=["KoBEST"], speed=False)
    assert [asked_for for _, asked_for in asked] == [["kobest"]] * 2
    group, entry, _ = result["tasks"]
    assert [told.pop("interval")[1] > 0 for told in (*group["paired"], *entry["paired"])] == [True, True]
    told = {"metric": "acc", "items": 6, "change": -1 / 3, "original": 2 / 3, "lighter": 1 / 3}
    assert group["paired"] == [pytest.approx(told)] and entry["paired"] == [pytest.approx(told | {"items": 3})]
    assert entry["flips"] == {"metric": "acc", "items": 3, "lost": 1, "gained": 0} and entry["mcnemar_p"] == 1.0
    assert entry["original"] == {"acc,none": 2 / 3} and entry["lighter"] == {"acc,none": 1 / 3}


@each(
    "name, at, interval, verdict",
    [
        ("max_kl", 0.1, (0.01, 0.09), "pass"),
        ("max_kl", 0.1, (0.01, 0.1), "pass"),
        ("max_kl", 0.1, (0.05, 0.2), "inconclusive"),
        ("max_kl", 0.1, (0.11, 0.2), "fail"),
        ("min_top1", 0.9, (0.91, 0.95), "pass"),
        ("min_top1", 0.9, (0.85, 0.95), "inconclusive"),
        ("min_top1", 0.9, (0.5, 0.89), "fail"),
        ("min_top1", 0.9, None, "inconclusive"),
    ],
)
def test_a_limit_passes_only_with_its_whole_interval(name, at, interval, verdict):
    found = judge(name, at, 0.5, interval)
    assert found["verdict"] == verdict and found["reason"].startswith(f"{name}: ")


def test_one_broken_limit_fails_the_whole_and_what_is_not_judged_has_no_say():
    verdicts = [{"verdict": v} for v in ("pass", "inconclusive", "fail", "not judged")]
    assert overall(verdicts) == "fail" and overall(verdicts[:2]) == "inconclusive"
    assert overall([verdicts[0], verdicts[3]]) == "pass"
    assert judge("min_retention", 0.95, None, None, of="facts")["verdict"] == "not judged"
    assert judge("min_shrink", 3.0, 2.9, None, exact=True)["verdict"] == "fail"


def test_limits_are_the_defaults_with_what_was_given_over_them():
    assert resolve_limits(None, has_skills=True) == {
        "max_kl": 0.05,
        "min_top1": 0.85,
        "max_ppl_ratio": 1.1,
        "min_retention": 0.95,
    }
    assert resolve_limits({"max_kl": None, "min_shrink": 3}, has_skills=False) == {
        "min_top1": 0.85,
        "max_ppl_ratio": 1.1,
        "min_shrink": 3.0,
    }


def test_aspects_are_measured_limited_and_refused(folders):
    original, lighter, _ = folders["original"], folders["lighter"], None
    same = compare(original, original, text=DOCUMENTS, speed=False, limits={"acceptance.share": 1.0})
    (read,) = same["aspects"]["acceptance"]["readings"]
    assert read["value"] == pytest.approx(1, abs=1e-6)
    told = compare(
        original, lighter, text=DOCUMENTS, speed=False, measure=["acceptance"], limits={"acceptance.share": 1}
    )
    (judged,) = [entry for entry in told["judgements"] if entry["limit"] == "acceptance.share"]
    assert judged["verdict"] == "fail" and judged["interval"][1] < 1
    assert compare(original, lighter, text=DOCUMENTS, speed=False, measure=["none"])["aspects"] == {}
    for given, said in (
        ({"measure": ["none"], "limits": {"acceptance.share": 1}}, "--measure acceptance"),
        ({"measure": ["none"], "files": {"acceptance": __file__}}, "--measure acceptance"),
        ({"files": {"acceptance": "absent.jsonl"}}, "no such file of acceptance"),
    ):
        with pytest.raises(UsageError, match=said):
            compare(original, lighter, text=DOCUMENTS, speed=False, **given)
