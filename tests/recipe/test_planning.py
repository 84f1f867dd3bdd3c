"""Budgets: kept to the byte, measured as promised, resumed to the same bytes, and honest where they cannot be met."""

from __future__ import annotations

import dataclasses
import json
import math
import random

import pytest
import torch
from transformers import AutoModelForCausalLM

import models
from covering import some
from killing import Ticks, killed
from whet.apply import marginal, passes
from whet.budget import check_plan, read_plan
from whet.budget.mix import Budget
from whet.checkpoint import Checkpoint, size_on_disk
from whet.checkpoint.verify import verify
from whet.errors import GateError, UsageError
from whet.recipe.compress import compress
from whet.recipe.inspect import inspect
from whet.recipe.plan import plan
from whet.recipe.resume import resume
from whet.steps import rounds, search

TEXT = models.documents(80)
SETTINGS = {"text": TEXT, "samples": 8, "window": 32, "target": "whet"}
SKILLS = [
    {"skill": skill, "prompt": f"{word} {i}", "choices": [" ab", " cd"], "label": i % 2}
    for skill, word in (("first", "for"), ("둘째", "가나"))
    for i in range(12)
]


@pytest.fixture(scope="module", autouse=True)
def little_text():
    """What parts lose by themselves is measured on these few tokens too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marginal, "_FEWEST", 16)
        yield


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("planning")
    return models.make(root / "model", tied=True, dtype=torch.bfloat16, hidden_size=32, intermediate_size=64)


@pytest.fixture(scope="module")
def planned(original, tmp_path_factory):
    out = tmp_path_factory.mktemp("planned") / "lighter"
    return out, compress(original, out, bits=4.5, skills=SKILLS, **SETTINGS)


def whole(folder):
    """Every file's bytes but for what tells the time."""
    found = models.contents(folder)
    assert json.loads(found.pop("times.json"))["seconds"]["scoring"] > 0
    return found


def test_two_runs_of_the_same_are_the_same_bytes(original, planned, tmp_path):
    compress(original, tmp_path / "again", bits=4.5, skills=SKILLS, **SETTINGS)
    again, before = whole(tmp_path / "again"), whole(planned[0])
    assert {"whet.json", "scores.json", "plan.json", "recipe.yaml", "report.html"} <= set(before)
    assert [name for name in before | again if before.get(name) != again.get(name)] == []
    assert verify(planned[0])["verdict"] == "pass"


def test_a_budget_of_bits_is_kept_to_the_byte(original, planned):
    out, result = planned
    said = read_plan(out / "plan.json")
    assert said["predicted"]["bits"] <= 4.5
    sizes = size_on_disk(out)
    assert sum(sizes[part] for part in ("linears", "embedding", "head", "other")) == said["predicted"]["bytes"]
    assert result["plan"]["schemes"] == said["schemes"]
    assert len(set(said["schemes"].values())) > 1
    assert sorted(p.name for p in out.iterdir() if p.name.startswith(".")) == []


def test_what_was_measured_is_told(planned):
    out, result = planned
    said = read_plan(out / "plan.json")
    assert 1 <= len(said["measured"]) <= 3
    assert result["kl"] in [one["measured_kl"] for one in said["measured"]]
    assert all(0 < one["predicted_kl"] < 10 * one["measured_kl"] for one in said["measured"])
    manifest = json.loads((out / "whet.json").read_text())
    assert manifest["files"].pop("times.json") == {}
    for name, told in manifest["files"].items():
        assert (out / name).stat().st_size == told["bytes"]
    assert {"plan.json", "scores.json", "report.html", "recipe.yaml"} <= set(manifest["files"])
    alone = {address: told["kl"] for address, told in manifest["linears"].items() if "kl" in told}
    assert alone and min(alone.values()) > 0  # those on the scheme that they were measured on
    assert search.CARD in (out / "README.md").read_text(encoding="utf-8")


def test_it_loads_and_computes(original, planned):
    out, _ = planned
    tokens = torch.randint(0, 264, (2, 20), generator=torch.Generator().manual_seed(0))
    lighter = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)(tokens).logits
    assert torch.isfinite(lighter.float()).all()


def test_the_written_plan_replays(original, planned, tmp_path):
    out, _ = planned
    again = compress(original, tmp_path / "again", plan=out / "plan.json", text=TEXT, samples=8, window=32)
    assert again["kl"] == pytest.approx(planned[1]["kl"])
    for file in out.glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


@pytest.mark.parametrize("solver", ["gptq", "tuned"])
def test_a_plan_is_tried_on_a_part_of_the_text_without_training(original, tmp_path, monkeypatch, solver):
    monkeypatch.setattr(rounds, "_A_COLUMN", 0)
    asked = {**SETTINGS, "solver": solver}
    result = compress(original, tmp_path / "out", bits=4.5, **asked)
    trial, *made = read_plan(tmp_path / "out" / "plan.json")["measured"]
    assert trial["trial"] and not any(one["trial"] for one in made)
    tokens = result["text"]["tokens"]
    assert trial["tokens"] <= 0.4 * tokens and {one["tokens"] for one in made} == {tokens}
    assert result["kl"] in [one["measured_kl"] for one in made] and result["solver"] == solver
    again = compress(original, tmp_path / "again", plan=tmp_path / "out" / "plan.json", **asked)
    assert made and again["kl"] == pytest.approx(result["kl"])

    killed(lambda: compress(original, tmp_path / "killed", bits=4.5, **asked), lambda: Ticks(40))
    resume(tmp_path / "killed")
    assert whole(tmp_path / "killed") == whole(tmp_path / "out")


def test_a_plan_whose_trial_lost_less_is_made_as_well(original, tmp_path, monkeypatch):
    monkeypatch.setattr(rounds, "_A_COLUMN", 0)

    def dearer(scores, made):
        """One part loses a hundred times what was predicted, so that the second plan is another."""
        first, *others = scores["parts"]
        schemes = {name: {**entry, "kl": 100 * entry["kl"]} for name, entry in first["schemes"].items()}
        return {**scores, "parts": [{**first, "schemes": schemes}, *others]}

    monkeypatch.setattr(rounds, "learned", dearer)
    worse = iter((1.0, 9.0, 1.0))
    real = rounds._made
    monkeypatch.setattr(
        rounds, "_made", lambda *args: dataclasses.replace(made := real(*args), kl=made.kl * next(worse))
    )
    compress(original, tmp_path / "out", bits=4.5, **SETTINGS)
    trial, second, first = read_plan(tmp_path / "out" / "plan.json")["measured"]
    assert first["bytes"] == trial["bytes"] != second["bytes"] and not first["trial"]


def test_a_budget_of_bytes_is_kept_by_the_files(original, tmp_path):
    before = size_on_disk(original)["weights"]
    compress(original, tmp_path / "out", fit="40%", **SETTINGS)
    assert size_on_disk(tmp_path / "out")["weights"] <= 0.4 * before


def test_a_quality_is_kept_at_fewer_bytes_the_less_is_asked(original, tmp_path):
    strict = compress(original, tmp_path / "strict", quality=0.999, **SETTINGS)
    loose = compress(original, tmp_path / "loose", quality=0.97, **SETTINGS)
    assert strict["kl"] <= -math.log(0.999) and loose["kl"] <= -math.log(0.97)
    assert loose["sizes"]["lighter"]["weights"] < strict["sizes"]["lighter"]["weights"]


def test_a_quality_that_no_round_keeps_is_an_error_and_stays_to_be_looked_at(original, tmp_path, monkeypatch):
    monkeypatch.setattr(rounds.Round, "keeps", lambda self, quality: False)
    monkeypatch.setattr(rounds, "QUALITY_ROUNDS", 2)
    with pytest.raises(GateError, match=r"--quality 0\.9 was not kept by any of the"):
        compress(original, tmp_path / "out", quality=0.9, **SETTINGS)
    assert (tmp_path / "out" / ".whet" / "round 0.json").is_file()


def test_what_parts_lose_alone_leads_to_a_second_round(original, tmp_path, monkeypatch):
    """Where a block turns out dearer than predicted, the next plan spends more on it."""

    def skewed(decision, solver, table):
        found = real(decision, solver, table)
        for part in found["parts"]:
            part["kl"] *= 8 if ".layers.0." in part["addresses"][0] else 0.125
        return found

    real = passes.marginal_losses
    monkeypatch.setattr(passes, "marginal_losses", skewed)
    monkeypatch.setattr(rounds, "_TRUSTED", 0)
    result = compress(original, tmp_path / "out", bits=4.5, **SETTINGS)
    assert len(result["plan"]["measured"]) >= 2


def round_of(schemes, tokens, **lost):
    alone = {"tokens": tokens, "parts": [{"addresses": a.split("_"), "kl": kl} for a, kl in lost.items()]}
    return rounds.Round({"schemes": schemes, "predicted": {}}, 0.0, 1.0, {}, {}, alone)


def priced(**losses):
    names = ("int2s-g32", "int3-g32", "int4s-g32", "int8s")
    schemes = {a: {n: {"bytes": 1, "kl": kl / 4**i} for i, n in enumerate(names)} for a, kl in losses.items()}
    return {"parts": [{"address": a, "schemes": found} for a, found in schemes.items()]}


def test_losses_are_corrected_at_the_bits_they_were_measured_on(monkeypatch):
    monkeypatch.setattr(rounds, "_TRUSTED", 0)
    scores = priced(a=1.0, b=1.0, c=1.0)
    first = round_of({"a": "int2s-g32", "b": "int4s-g32", "c": "int2s-g32"}, 4096, a=2.0, b=0.03125)
    second = round_of({"a": "int4s-g32", "b": "int4s-g32", "c": "int2s-g32"}, 4096, a=0.0625)
    found = rounds.learned(scores, [first, second])
    factors = {
        part["address"]: [
            entry["kl"] / before["kl"]
            for entry, before in zip(part["schemes"].values(), old["schemes"].values(), strict=True)
        ]
        for part, old in zip(found["parts"], scores["parts"], strict=True)
    }
    assert factors == {"a": [2.0, 1.5, 1.0, 1.0], "b": [0.5] * 4, "c": [1.0] * 4}
    assert scores == priced(a=1.0, b=1.0, c=1.0)


def test_parts_measured_together_share_their_correction_and_few_tokens_correct_less():
    scores = priced(a=1.0, b=3.0)
    schemes = {"a": "int2s-g32", "b": "int2s-g32"}
    much, little = (
        [part["schemes"]["int2s-g32"]["kl"] for part in rounds.learned(scores, [one])["parts"]]
        for one in (round_of(schemes, 10**9, a_b=8.0), round_of(schemes, 100, a_b=8.0))
    )
    assert much == pytest.approx([2.0, 6.0])
    assert 1.0 < little[0] < 1.2 and little[1] == pytest.approx(3 * little[0])
    wild = rounds.learned(scores, [round_of(schemes, 10**9, a_b=4000.0)])
    assert wild["parts"][0]["schemes"]["int2s-g32"]["kl"] == pytest.approx(4.0, rel=1e-4)


def test_the_best_round_loses_least_as_a_whole_and_by_its_parts():
    scores = priced(a=1.0, b=1.0)

    def tried(kl, a, b, lost):
        plan = {"schemes": {"a": a, "b": b}, "predicted": {}}
        alone = {"tokens": 10**9, "parts": [{"addresses": [x], "kl": k} for x, k in zip("ab", lost, strict=True)]}
        return rounds.Round(plan, kl, 1.0, {}, {}, alone)

    budget = Budget("bits", 3.5, "--bits 3.5")
    dear = tried(0.9, "int2s-g32", "int4s-g32", (2.0, 0.0625))
    cheap = tried(1.0, "int3-g32", "int3-g32", (0.25, 0.25))
    assert rounds.best_of([dear, cheap], budget, scores) is cheap
    unknown = [dataclasses.replace(one, marginal={}) for one in (dear, cheap)]
    assert rounds.best_of(unknown, budget, scores) is unknown[0]


@pytest.mark.parametrize("quality", [0.9, 0.98, 0.995])
@pytest.mark.parametrize("fragile", [0.1, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("noise", [0.0, 0.004])
@pytest.mark.parametrize("off", [0.5, 1.0, 2.0])
def test_the_search_for_a_quality_finds_it_however_fragile_a_skill_is(quality, fragile, noise, off):
    """Skills that lose `fragile` times the 0.6th power of the KL, which is `off` times what was predicted."""
    if noise > 0.5 * (1 - quality):
        noise = 0.5 * (1 - quality)
    made, limit = [], -math.log(quality)
    for _ in range(rounds.QUALITY_ROUNDS):
        kl = limit * off
        kept = 1 - fragile * kl**0.6
        told = {"predicted": {"kl": limit, "bytes": 1}}
        made.append(rounds.Round(told, kl, 1.0, {"a": kept, "b": 1.0}, {"a": kept - noise, "b": 1 - noise}, {}))
        if made[-1].keeps(quality) and made[-1].kl >= -0.8 * math.log(quality):
            break
        limit = rounds._next_limit(made, quality)
        if limit is None:
            break
    best = max((one.kl for one in made if one.keeps(quality)), default=0)
    most = min(-math.log(quality), ((1 - quality - noise) / fragile) ** (1 / 0.6))
    assert 0.3 * most < best <= most


def test_a_run_with_little_time_measures_blocks_and_with_less_nothing(original, tmp_path, monkeypatch):
    seen = []
    real = passes.marginal_losses
    monkeypatch.setattr(passes, "marginal_losses", lambda *a: seen.append(real(*a)) or seen[-1])
    for number, share in enumerate((40, 5.4, 0.006)):  # in bfloat16, of which less than half is left
        monkeypatch.setattr(marginal, "SOLVING", share)
        compress(original, tmp_path / str(number), bits=4.5, **SETTINGS)
    parts, blocks, nothing = seen
    assert {len(part["addresses"]) for part in parts["parts"]} == {1}
    assert {len(part["addresses"]) for part in blocks["parts"]} == {1, 7}  # the table, and blocks
    assert nothing == {}


def test_killed_anywhere_it_goes_on_to_the_same_bytes(original, planned, tmp_path):
    out, _ = planned
    moments = random.Random(0)

    def work(folder):
        return lambda: compress(original, folder, bits=4.5, skills=SKILLS, **SETTINGS)

    for number in some(range(5), 5):
        folder = tmp_path / f"killed {number}"
        at = moments.randint(4, 160)
        killed(work(folder), lambda at=at: Ticks(at))
        assert resume(folder)["out"] == str(folder)
        assert whole(folder) == whole(out)


def test_another_budget_is_refused_in_a_stopped_run(original, tmp_path):
    killed(lambda: compress(original, tmp_path / "out", bits=4.5, **SETTINGS), lambda: Ticks(30))
    with pytest.raises(UsageError, match=r"budget was .*4.5.* and is .*4.4"):
        compress(original, tmp_path / "out", bits=4.4, **SETTINGS)
    compress(original, tmp_path / "out", bits=4.5, **SETTINGS)


def test_wrong_budgets_are_refused_before_anything_runs(original, tmp_path):
    out = tmp_path / "out"
    for wrong, message in (
        ({"bits": 0.5}, "cannot be met"),
        ({"fit": "1%"}, "--fit 1% cannot be met"),
        ({"fit": "100GB"}, "no less than the original"),
        ({"bits": 4.0, "quality": 0.9}, "bits and quality were given"),
        ({"bits": 4.0, "scheme": "W4A16"}, "scheme and bits were given"),
        ({"bits": 4.0, "text": None}, "give --text"),
    ):
        with pytest.raises(UsageError, match=message):
            compress(original, out, **{**SETTINGS, **wrong})


def test_dry_run_writes_nothing(original, tmp_path):
    needs = compress(original, tmp_path / "out", bits=4.5, dry_run=True, **SETTINGS)
    assert needs["dry_run"] and needs["seconds"] > 0 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["transformers", "vllm", "onnx", "openvino", "whet"])
def test_plan_writes_a_plan_that_checks(original, tmp_path, target):
    if target == "onnx":  # whose runtime takes heads of multiples of 16
        sizes = {"hidden_size": 32, "intermediate_size": 64, "head_dim": 16}
        original = models.make(tmp_path / "model", tied=True, dtype=torch.bfloat16, **sizes)
    settings = {**SETTINGS, "target": target}
    found = plan(original, tmp_path / "plan.json", bits=9.5, **settings)
    checkpoint = Checkpoint(original)
    from whet.anatomy import anatomy

    checked = check_plan(
        tmp_path / "plan.json",
        anatomy(checkpoint.config, checkpoint.shapes),
        checkpoint.tensors,
        scale_dtype=torch.bfloat16,
        sha256=checkpoint.examine(),
    )
    assert checked.bytes["total"] == found["predicted"]["bytes"]
    assert not checked.notes


def test_inspect_tells_what_blocks_carry(original):
    found = inspect(original, text=TEXT, skills=SKILLS, samples=8, window=32)
    assert found["skills"] == ["first", "둘째"]
    for block in found["blocks"]:
        assert set(block["skills"]) == {"first", "둘째"} and set(block["languages"]) == {"en", "ko"}
        assert all(value > 0 for value in block["skills"].values())
        assert 0 <= block["influence"] <= 2
    assert {role["role"] for role in found["roles"]} >= {"q", "down", "embedding", "other"}
    assert sum(role["bytes"] for role in found["roles"]) == sum(
        info.nbytes for info in Checkpoint(original).tensors.values()
    )
    assert found["points"] and found["findings"][-1]["kind"] == "speed"
    assert all(0 < part["spectrum"] <= 1 for part in found["parts"] if part["block"] is not None)
