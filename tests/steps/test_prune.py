"""The step `prune`: a smaller model of the same family that loads wherever the original does."""

from __future__ import annotations

import functools
import itertools
import json
import random

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

import models
from covering import some
from killing import Ticks, counted, hashes, killed
from whet import starter
from whet.anatomy import AUTO, FAMILIES, anatomy, task_in
from whet.checkpoint import Checkpoint
from whet.engines.torch import cached_outputs, outputs
from whet.errors import GateError, UsageError
from whet.recipe.compress import compress
from whet.recipe.prune import prune
from whet.recipe.resume import resume
from whet.recipe.runner import run
from whet.steps import prune as step
from whet.steps import pruned
from whet.steps.options import Prune

DOCUMENTS = models.documents(40, 20)
TEXT = {"text": DOCUMENTS, "samples": 8, "window": 20}
TOKENS = torch.randint(2, 264, (2, 24), generator=torch.Generator().manual_seed(0))
CAUSAL = [name for name, row in FAMILIES.items() if task_in({"model_type": name}) == "causal"]
SHARES = {"layers": 1 / 3, "channels": 0.2, "heads": 0.15, "experts": 0.2, "hidden": 0.5}
# What cannot be taken, by family and unit, and a word of why.
NO_HEADS = ("olmo2", "olmo3", "stablelm", "falcon", "gpt2", "gpt_neox", "opt")
SPARSE = ("mixtral", "qwen2_moe", "qwen3_moe")
CASES = [(family, unit) for family in CAUSAL for unit in SHARES]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("originals")

    @functools.cache
    def make(family="llama", **more):
        return models.make(root / f"{family}{len(more)}", family, blocks=3, **dict(more))

    return make


def refused(family, unit):
    if unit == "experts":
        return family not in SPARSE
    if unit == "channels":
        return family in SPARSE
    if unit == "hidden":
        return FAMILIES[family].still is not None or family in SPARSE
    return unit == "heads" and family in NO_HEADS


def stock(folder):
    """The model as stock transformers loads it, which must find every weight and nothing else."""
    config = json.loads((folder / "config.json").read_text())
    kind = getattr(transformers, AUTO[task_in(config)])
    model, found = kind.from_pretrained(folder, output_loading_info=True, trust_remote_code=False)
    assert not found["missing_keys"] and not found["unexpected_keys"] and not found["mismatched_keys"]
    return model.eval()


# -- every family, every unit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "unit"), some(CASES, 3))
def test_a_family_without_some_of_a_unit_loads_in_stock_transformers(tmp_path, originals, family, unit):
    original, out = originals(family), tmp_path / "out"
    share = 0.1 if unit == "heads" and family in SPARSE else SHARES[unit]
    options = {"units": unit, "remove": share, **TEXT}
    if refused(family, unit):
        with pytest.raises(UsageError, match=r"can be taken|builds no model"):
            prune(original, out, **options)
        assert not out.exists()
        return
    made = prune(original, out, **options)
    model, before = stock(out), stock(original)
    numbers = [sum(p.numel() for p in one.parameters()) for one in (before, model)]
    assert numbers[1] < numbers[0]
    assert made["check"]["loaded"] == "whole" and made["kl"] >= 0
    blocks = [
        sum(p.numel() for name, p in one.named_parameters() if ".layers." in name or ".h." in name)
        for one in (before, model)
    ]
    assert 1 - blocks[1] / blocks[0] == pytest.approx(made["removed"], abs=1e-6)
    with torch.no_grad():
        logits, cached = outputs(model, TOKENS), cached_outputs(model, TOKENS)
    assert torch.isfinite(logits).all() and torch.allclose(cached[:, -1], logits[:, -1], atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_encoders_lose_blocks_and_channels(tmp_path, originals, family):
    original = originals(family, architecture="AutoModelForMaskedLM")
    for unit in ("layers", "channels"):
        made = prune(original, tmp_path / unit, units=unit, remove=SHARES[unit], **TEXT)
        stock(tmp_path / unit)
        assert made["check"]["before against after"] == 0
    with pytest.raises(UsageError, match=r"predicts none.*influence"):
        prune(original, tmp_path / "out", remove=0.3, units="layers", importance="divergence", **TEXT)


# -- what is chosen and what makes up for it ------------------------------------------------------------------------


def test_channels_that_give_nothing_go_and_nothing_changes(tmp_path, originals):
    original = models.make(tmp_path / "m", "llama", blocks=2)
    model = AutoModelForCausalLM.from_pretrained(original)
    dead = list(range(0, 96, 3))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.up_proj.weight[dead] = 0
    model.save_pretrained(original)
    made = prune(original, tmp_path / "out", units="channels", remove=0.2, **TEXT)
    assert made["amounts"]["channels"] == 64
    assert all(not set(kept) & set(dead) for kept in made["kept"]["channels"].values())
    with torch.no_grad():
        before, after = outputs(model, TOKENS), outputs(stock(tmp_path / "out"), TOKENS)
    assert made["kl"] < 1e-6 and torch.allclose(before, after, atol=1e-2)


def test_a_block_that_does_nothing_goes_first_and_repair_halves_the_loss(tmp_path):
    original = models.make(tmp_path / "m", "llama", blocks=3)
    model = AutoModelForCausalLM.from_pretrained(original)
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.zero_()
        model.model.layers[1].mlp.down_proj.weight.zero_()
    model.save_pretrained(original)
    for importance in ("divergence", "influence", "evolution"):
        out = tmp_path / importance
        made = prune(original, out, units="layers", remove=1 / 3, importance=importance, repair=False, **TEXT)
        assert made["kept"]["layers"] == [0, 2] and made["kl"] < 1e-9
    lost = {
        repair: prune(original, tmp_path / f"r{repair}", units="channels", remove=0.3, repair=repair, **TEXT)["kl"]
        for repair in (True, False)
    }
    assert lost[True] < 0.5 * lost[False]


def test_a_stream_in_a_subspace_gets_narrower_and_nothing_changes(tmp_path):
    """What blocks and embedding write has half the directions; another basis and weights of norms hide it. The stored
    type has 16 bits, and the head is tied."""
    original = models.make(tmp_path / "m", "qwen3", blocks=2)
    model = AutoModelForCausalLM.from_pretrained(original)
    width = model.config.hidden_size
    basis = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0)))[0][:, : width // 2]
    with torch.no_grad():
        for name, w in model.named_parameters():
            if "norm" in name:
                w.mul_(torch.rand(w.shape, generator=torch.Generator().manual_seed(1)) + 0.5)
            elif "embed" in name:
                w.copy_(w @ basis @ basis.T)
            elif "o_proj" in name or "down_proj" in name:
                w.copy_(basis @ basis.T @ w)
    model.save_pretrained(original)
    for repair in (True, False):
        made = prune(original, tmp_path / f"r{repair}", units="hidden", remove=0.5, repair=repair, **TEXT)
        assert made["amounts"]["hidden"] == width // 2 == made["kept"]["hidden"]
        assert made["kl"] < 1e-6
        with torch.no_grad():
            before, after = outputs(model, TOKENS), outputs(stock(tmp_path / f"r{repair}"), TOKENS)
        assert torch.allclose(before, after, atol=2e-3)


@pytest.mark.parametrize("tied", [True, False])
def test_of_16_bits_what_is_written_is_what_was_computed(tmp_path, tied):
    original = models.make(tmp_path / "m", "llama", blocks=2, dtype=torch.bfloat16, tied=tied)
    made = prune(original, tmp_path / "out", units="channels,hidden", remove=0.6, **TEXT)
    assert made["amounts"]["hidden"] < Checkpoint(original).config["hidden_size"]
    assert Checkpoint(tmp_path / "out").dtype == Checkpoint(original).dtype
    assert made["check"]["before against after"] < 1e-4
    assert any("the head is stored apart" in str(note) for note in made["notes"]) == tied


def test_channels_and_heads_are_chosen_by_gradients(tmp_path, originals):
    made = prune(originals("llama"), tmp_path / "out", units="channels,heads", importance="taylor", remove=0.3, **TEXT)
    stock(tmp_path / "out")
    assert all(
        list(kept) == sorted(kept) for unit in made["kept"].values() if isinstance(unit, dict) for kept in unit.values()
    )
    with pytest.raises(UsageError, match="follows gradients"):
        bert = originals("bert", architecture="AutoModelForMaskedLM")
        prune(bert, tmp_path / "no", units="channels", importance="taylor", remove=0.2, **TEXT)
    made = prune(originals("llama"), tmp_path / "sorted", elastic=True, importance="taylor", sizes="80%", **TEXT)
    assert made["elastic"]["sorted"]["channels"] == "taylor"


def test_shapes_are_tried_and_the_best_is_taken(tmp_path, originals):
    made = prune(originals("mistral"), tmp_path / "out", remove=0.33, **TEXT)
    tried = made["trials"]
    assert (
        len(tried) > 1
        and {key: min(tried, key=lambda one: one["kl"])[key] for key in made["amounts"]} == (made["amounts"])
    )


@pytest.mark.parametrize("units", ["channels", None])
def test_without_repair_the_importance_that_loses_least_is_taken(tmp_path, originals, units):
    options = {"remove": 0.33, "units": units, "repair": False, **TEXT}
    made = prune(originals("mistral"), tmp_path / "out", **options)
    tried, used = made["trials"], made["importance"]["channels"]
    best = min(tried, key=lambda one: one["kl"])
    assert best["importance"] == used and {key: best[key] for key in made["amounts"]} == made["amounts"]
    rivals = [one["importance"] for one in tried if {key: one[key] for key in made["amounts"]} == made["amounts"]]
    assert sorted(rivals) == ["activation", "obs", "wanda"]
    assert any(f"chosen by {used}" in str(note) for note in made["notes"])
    manifest = json.loads((tmp_path / "out" / "whet.json").read_text())
    assert manifest["lineage"][-1]["removal"]["importance"] == made["importance"]
    if units:  # the same bytes as where it was named
        prune(originals("mistral"), tmp_path / "named", importance=used, **options)
        assert all(
            hashes(tmp_path / "named")[name] == sha for name, sha in hashes(tmp_path / "out").items() if "model" in name
        )


def test_without_text_the_largest_weights_stay_as_they_are(tmp_path, originals):
    options = {"units": "channels", "importance": "magnitude", "repair": False, "remove": 0.2}
    made = prune(originals("llama"), tmp_path / "out", **options)
    before, after = Checkpoint(originals("llama")), Checkpoint(tmp_path / "out")
    name = "model.layers.2.mlp.down_proj.weight"
    w = before.read(name)
    kept = sorted(w.square().sum(0).argsort(descending=True)[: made["amounts"]["channels"]].tolist())
    assert torch.equal(after.read(name), w[:, kept]) and made["text"] is None


def merging(folder, family="mixtral", **more):
    """A model whose last expert is a copy of the first, with its neurons in another order and the router's row too; the
    others give much more."""
    original = models.make(folder, family, blocks=2, **more)
    model = AutoModelForCausalLM.from_pretrained(original)
    with torch.no_grad():
        for layer in model.model.layers:
            experts, neurons = layer.mlp.experts, layer.mlp.experts.down_proj.shape[2]
            moved = torch.randperm(neurons, generator=torch.Generator().manual_seed(3))
            experts.down_proj[1:-1] *= 30
            experts.gate_up_proj[-1] = experts.gate_up_proj[0][torch.cat([moved, moved + neurons])]
            experts.down_proj[-1] = experts.down_proj[0][:, moved]
            layer.mlp.gate.weight[-1] = layer.mlp.gate.weight[0]
    model.save_pretrained(original)
    return original, model


@pytest.mark.parametrize(("family", "more"), [("mixtral", {}), ("qwen3_moe", {"norm_topk_prob": True})])
def test_merging_copies_of_experts_changes_nothing(tmp_path, family, more):
    """Where a token goes to one expert and its gate is 1; else the router counts both copies."""
    original, model = merging(tmp_path / "m", family, num_experts_per_tok=1, **more)
    count = model.model.layers[0].mlp.experts.down_proj.shape[0]
    made = prune(original, tmp_path / "out", units="experts", remove=0.8 / count, merge=True, repair=False, **TEXT)
    assert made["amounts"]["experts"] == count - 1
    for mine in made["merged"].values():
        assert mine in ({"0": [count - 1]}, {str(count - 1): [0]})
    pruned_model = stock(tmp_path / "out")
    with torch.no_grad():
        before, after = outputs(model.eval(), TOKENS), outputs(pruned_model, TOKENS)
    assert torch.allclose(before, after, atol=1e-4) and made["kl"] < 1e-6
    for index, layer in enumerate(model.model.layers):
        for new, old in enumerate(made["kept"]["experts"][str(index)]):
            theirs = pruned_model.model.layers[index].mlp.experts
            assert torch.allclose(theirs.down_proj[new], layer.mlp.experts.down_proj[old], atol=1e-6)
            assert torch.allclose(theirs.gate_up_proj[new], layer.mlp.experts.gate_up_proj[old], atol=1e-6)
    assert "merged into those that stay" in (tmp_path / "out" / "README.md").read_text()


def test_experts_that_are_merged_count_by_their_worth(tmp_path, originals):
    options = {"units": "experts", "remove": 0.2, "repair": False, **TEXT}
    plain = prune(originals("mixtral"), tmp_path / "plain", **options)
    made = prune(originals("mixtral"), tmp_path / "out", merge=True, **options)
    assert made["kept"] == plain["kept"] and "merged" not in plain
    before = AutoModelForCausalLM.from_pretrained(originals("mixtral"))
    models_of = [stock(tmp_path / name) for name in ("plain", "out")]
    for index, kept in made["kept"]["experts"].items():
        layers = [one.model.layers[int(index)].mlp for one in models_of]
        assert torch.equal(layers[0].gate.weight, layers[1].gate.weight)
        gone = sorted(set(range(before.config.num_local_experts)) - set(kept))
        assert sorted(itertools.chain(*made["merged"][index].values())) == gone
        for new, old in enumerate(kept):
            theirs, mine = (one.experts.down_proj[new] for one in layers)
            assert torch.equal(theirs, mine) != (str(old) in made["merged"][index])


# -- what comes after it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", [None, "channels,hidden"])
def test_the_next_step_quantizes_it_and_the_lineage_has_both(tmp_path, originals, units):
    prune(originals("llama"), tmp_path / "pruned", units=units, remove=0.3 if units is None else 0.6, **TEXT)
    compress(tmp_path / "pruned", tmp_path / "out", scheme="Q8_0", target="llama.cpp", folder=True, **TEXT)
    manifest = json.loads((tmp_path / "out" / "whet.json").read_text())
    assert [entry["step"] for entry in manifest["lineage"]] == ["prune", "quantize"]
    assert manifest["base_model"]["name"] == originals("llama").name
    about = (tmp_path / "pruned" / "README.md").read_text()
    assert "pruned by whet" in about and "from_pretrained" in about


@pytest.mark.parametrize("unit", ["layers", "channels", "heads", "hidden"])
def test_llama_cpp_runs_it(tmp_path, originals, unit):
    pytest.importorskip("llama_cpp")
    from whet.engines.llamacpp import open_gguf
    from whet.formats.export import export

    prune(originals("qwen3"), tmp_path / "out", units=unit, remove=SHARES[unit], **TEXT)
    export(tmp_path / "out", to="gguf", out=tmp_path / "model.gguf", kind="f32")
    theirs = torch.cat(list(open_gguf(tmp_path / "model.gguf").logit_chunks(TOKENS[:1], 64)), 1)[0]
    with torch.no_grad():
        ours = outputs(stock(tmp_path / "out"), TOKENS[:1])[0]
    assert (theirs - ours).abs().max() < 5e-3 * ours.abs().max()  # llama.cpp keeps keys and values in 16 bits


def test_an_adapter_trains_on_it(tmp_path, originals):
    peft = pytest.importorskip("peft")
    prune(originals("llama"), tmp_path / "out", remove=0.3, **TEXT)
    model = peft.get_peft_model(stock(tmp_path / "out"), peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(3):
        loss = model(input_ids=TOKENS, labels=TOKENS).loss
        losses.append(loss.item())
        loss.backward()
        adam.step()
        adam.zero_grad()
    assert losses[-1] < losses[0]


def test_tokens_go_by_the_same_verb(tmp_path, originals):
    text = tmp_path / "text.txt"
    text.write_text("ab cd e. for the\n" * 20)
    # every token of the tiny tokenizer is a byte, and those stay
    with pytest.raises(UsageError):
        prune(originals("llama"), tmp_path / "bytes", vocab=str(text))
    made = prune(starter.path(), tmp_path / "out", keep_languages="en", min_count=1, dry_run=True)
    assert made["sizes"]["lighter"]["total"] < made["sizes"]["original"]["total"]


def test_in_a_recipe_a_gate_halves_it(tmp_path, originals):
    recipe = {
        "version": 1,
        "model": str(originals("llama")),
        "out": str(tmp_path / "out"),
        "steps": [{"prune": {"remove": 0.4, "units": "channels"}, "gate": {"kl": 1e-9}, "on_fail": "halve"}],
    }
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(models.documents(60, 30)))
    made = run(recipe, text=str(text))
    attempts = made["steps"][0]["attempts"]
    assert made["verdict"] == "fail" and [one["options"]["remove"] for one in attempts][:2] == [0.4, 0.2]
    assert step.halved(Prune(remove="50%"), originals("llama")).remove == 0.25


# -- stopped and gone on with ---------------------------------------------------------------------------------------


def work(original, out, units):
    if units == "experts":
        prune(original, out, remove=0.4, units=units, merge=True, **TEXT)
    else:
        prune(original, out, remove=0.55, units=units, repair=units != "channels,heads", **TEXT)


@pytest.fixture(scope="module")
def undisturbed(originals, tmp_path_factory):
    @functools.cache
    def made(units):
        out = tmp_path_factory.mktemp("undisturbed") / "out"
        moments = counted(lambda: work(originals("mixtral" if units == "experts" else "phi3"), out, units))
        return hashes(out), moments

    return made


@pytest.mark.parametrize("part", some(range(8), 2))
@pytest.mark.parametrize("units", ["layers,channels,heads", "channels,hidden", "channels,heads", "experts"])
def test_killed_and_resumed_the_bytes_are_the_same(tmp_path, originals, undisturbed, units, part):
    expected, count = undisturbed(units)
    at = int(count * (part + random.Random(part).random()) / 8) + 1
    out = tmp_path / "out"
    killed(lambda: work(originals("mixtral" if units == "experts" else "phi3"), out, units), lambda: Ticks(at))
    if (out / ".whet" / "request.json").exists():
        resume(out)
    elif not (out / "whet.json").exists():
        work(originals("mixtral" if units == "experts" else "phi3"), out, units)
    assert hashes(out) == expected


# -- refused before anything is done --------------------------------------------------------------------------------

REFUSED = [
    ({"remove": "120%"}, ["120%"]),
    ({"remove": None}, ["Say what goes", "vocab"]),
    ({"vocab": DOCUMENTS}, ["a step of its own"]),
    ({"remove": None, "keep_languages": "ko"}, ["text goes with remove"]),
    ({"units": "layer"}, ["layer", "Did you mean layers?"]),
    ({"units": ","}, ["units is empty"]),
    ({"importance": "wandaa"}, ["wandaa", "Did you mean wanda?"]),
    ({"units": "layers", "importance": "wanda"}, ["wanda", "channels, heads", "divergence"]),
    ({"merge": True}, ["merge is about experts", "layers, channels, heads"]),
    ({"merge": True, "shapes": "free"}, ["merge goes with remove"]),
    ({"units": "hidden", "remove": "10%"}, ["The nearest share that can go"]),
    ({"units": "experts"}, ["no experts", "What can: layers, channels, heads, hidden"]),
    ({"units": "heads", "remove": "60%"}, ["60.0%", "The nearest share that can go"]),
    ({"units": "layers", "remove": "4%"}, ["4.0%", "The nearest share that can go"]),
]


def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path, originals):
    for options, words in REFUSED:
        with pytest.raises(UsageError) as refusal:
            prune(originals("llama"), tmp_path / "out", **{"remove": "25%", **TEXT, **options})
        assert all(word in str(refusal.value) for word in words), (options, str(refusal.value))
        assert not (tmp_path / "out").exists()


def test_experts_that_every_token_needs_stay(tmp_path, originals):
    with pytest.raises(UsageError, match=r"1 of 4 experts would stay.*is sent to 2.*at the most 4"):
        prune(originals("mixtral"), tmp_path / "out", units="experts", remove=0.65, **TEXT)
    made = prune(originals("mixtral"), tmp_path / "few", units="experts", remove=0.43, **TEXT)
    assert any("known to lose much" in str(note) for note in made["notes"])


def test_a_family_without_a_row_and_a_model_with_masks_are_refused(tmp_path, originals):
    from whet.recipe.masks import masks

    with pytest.raises(UsageError, match="no row for the family"):
        prune(models.make(tmp_path / "olmoe", "olmoe"), tmp_path / "out", remove=0.3, **TEXT)
    masks(originals("llama"), tmp_path / "masked", pattern="2:4", **TEXT)
    with pytest.raises(UsageError, match="Prune first"):
        prune(tmp_path / "masked", tmp_path / "out", remove=0.3, **TEXT)


def test_a_dry_run_says_what_it_takes_to_the_byte(tmp_path, originals):
    options = {"units": "channels", "remove": 0.2, **TEXT}
    needs = prune(originals("llama"), tmp_path / "out", dry_run=True, **options)
    assert not (tmp_path / "out").exists() and needs["seconds"] > 0
    prune(originals("llama"), tmp_path / "out", **options)
    assert Checkpoint(tmp_path / "out").nbytes == needs["bytes"]["after"]["total"]


def test_what_was_written_wrong_is_found(tmp_path, originals, monkeypatch):
    cuts = pruned.block_cuts

    def damaged(*args):
        found = cuts(*args)
        one, other = (next(n for n in found if n.endswith(f"{name}_proj.weight")) for name in ("gate", "up"))
        return {**found, one: found[other], other: found[one]}

    monkeypatch.setattr(pruned, "block_cuts", damaged)
    with pytest.raises(GateError, match="differ by"):
        prune(originals("llama"), tmp_path / "out", units="channels", remove=0.2, **TEXT)


def test_parts_are_those_of_the_smaller_model(tmp_path, originals):
    prune(originals("gemma2"), tmp_path / "out", units="layers", remove=1 / 3, **TEXT)
    checkpoint = Checkpoint(tmp_path / "out")
    assert len(anatomy(checkpoint.config, checkpoint.shapes).blocks) == 2
