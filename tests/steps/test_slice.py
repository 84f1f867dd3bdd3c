"""Elastic folders: sorted, of the same function; and the smaller models that `slice` cuts from them."""

from __future__ import annotations

import functools
import hashlib
import json
import random

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

import models
import whet
from covering import some
from killing import Ticks, counted, killed
from whet import starter
from whet.anatomy import AUTO, FAMILIES, task_in
from whet.checkpoint import Checkpoint
from whet.engines.torch import outputs
from whet.errors import UsageError
from whet.recipe.resume import resume

TEXT = {"text": models.documents(40, 20), "samples": 8, "window": 20}
TOKENS = torch.randint(2, 264, (2, 24), generator=torch.Generator().manual_seed(0))
CAUSAL = [name for name, row in FAMILIES.items() if task_in({"model_type": name}) == "causal"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("originals")
    return functools.cache(lambda family="llama": models.make(root / family, family, blocks=3))


@pytest.fixture(scope="module")
def sorted_llama(originals, tmp_path_factory):
    """An elastic folder, and what making it returned."""
    out = tmp_path_factory.mktemp("elastic") / "elastic"
    return out, whet.prune(originals(), out, elastic=True, sizes="80%, 62.5%, 40%", **TEXT)


def logits(folder):
    """Those of the model as stock transformers loads it, which must find every weight and nothing else."""
    kind = getattr(transformers, AUTO["causal"])
    model, found = kind.from_pretrained(folder, output_loading_info=True, trust_remote_code=False, dtype=torch.float32)
    assert not found["missing_keys"] and not found["unexpected_keys"] and not found["mismatched_keys"]
    with torch.no_grad():
        return outputs(model.eval(), TOKENS)


def same(one, other):
    return (one - other).abs().max() <= 2e-5 * other.abs().max()


def entries(folder):
    return json.loads((folder / "whet.json").read_text())


# -- sorted ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", some(CAUSAL, 3))
def test_an_elastic_folder_of_every_family_computes_what_the_original_does(tmp_path, originals, family):
    folder = tmp_path / "elastic"
    made = whet.prune(originals(family), folder, elastic=True, sizes="66.7%", repair=False, **TEXT)
    before = logits(originals(family))
    assert same(logits(folder), before) and made["removed"] == 0
    assert Checkpoint(folder).nbytes == Checkpoint(originals(family)).nbytes
    (smaller,) = made["elastic"]["sizes"]
    whet.slice(folder, tmp_path / "cut", size="66.7%")
    numbers = [
        sum(t.numel() for t in AutoModelForCausalLM.from_pretrained(f).parameters()) for f in (folder, tmp_path / "cut")
    ]
    assert numbers[1] < numbers[0] and abs(smaller["share"] - 0.667) < 0.06
    assert torch.isfinite(logits(tmp_path / "cut")).all()


def test_units_are_in_order_of_what_they_are_worth_and_all_there(originals, sorted_llama):
    folder, made = sorted_llama
    kept = entries(folder)["kept"]
    assert entries(folder)["elastic"] == made["elastic"]
    assert sorted(made["elastic"]["sorted"]) == sorted(set(kept) - {"layers"})
    for unit in made["elastic"]["sorted"]:
        for numbers in kept[unit].values():
            assert sorted(numbers) == list(range(len(numbers))) != numbers
    before, after = Checkpoint(originals()), Checkpoint(folder)
    name = "model.layers.1.mlp.down_proj.weight"
    assert torch.equal(after.read(name), before.read(name)[:, kept["channels"]["1"]])


def test_the_shape_of_a_size_is_the_best_of_those_tried(sorted_llama):
    _, made = sorted_llama
    sizes = made["elastic"]["sizes"]
    assert [one["size"] for one in sizes] == [0.8, 0.625, 0.4] and max(len(one["trials"]) for one in sizes) > 1
    for one in sizes:
        best = min(one["trials"], key=lambda trial: trial["kl"])
        assert {unit: best[unit] for unit in one["amounts"]} == one["amounts"]
        assert one["kl_repaired"] < one["kl"] and abs(one["share"] - one["size"]) < 0.06
    gone = set(range(3)) - set(sizes[-1]["layers"])
    assert gone == set(made["elastic"]["order"][: len(gone)])


def test_the_embedded_model_loses_more_the_smaller_it_is(tmp_path):
    text = {"text": starter.documents(0, 200), "samples": 6, "window": 64}
    made = whet.prune(starter.path(), tmp_path / "elastic", elastic=True, repair=False, device="cpu", **text)
    kls = [one["kl"] for one in made["elastic"]["sizes"]]
    assert len(kls) == 5 and kls == sorted(kls) and kls[0] < 0.05 * kls[-1]


# -- cut ------------------------------------------------------------------------------------------------------------


def test_all_of_it_is_the_elastic_folder(tmp_path, sorted_llama):
    folder, _ = sorted_llama
    made = whet.slice(folder, tmp_path / "out", size="100%")
    assert torch.equal(logits(tmp_path / "out"), logits(folder)) and "kl" not in made


@pytest.mark.parametrize("size", ["80%", 0.625, "40%"])
def test_what_is_cut_computes_what_the_elastic_folder_does_without_the_rest(tmp_path, sorted_llama, size):
    folder, made = sorted_llama
    cut = whet.slice(folder, tmp_path / "out", size=size)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight[:, cut["amounts"]["channels"] :] = 0
            heads, width = cut["amounts"]["heads"], layer.self_attn.o_proj.weight.shape[1]
            layer.self_attn.o_proj.weight[:, width // 2 * heads :] = 0
        model.model.layers = torch.nn.ModuleList(model.model.layers[i] for i in cut["kept"]["layers"])
        expected = model(TOKENS, use_cache=False).logits
    assert same(logits(tmp_path / "out"), expected)
    (known,) = [one for one in made["elastic"]["sizes"] if one["amounts"] == cut["amounts"]]
    assert cut["kl"] == known["kl"] and cut["removed"] == pytest.approx(1 - known["share"])


def test_it_is_what_prune_makes_of_the_same_units_without_repair(tmp_path, originals):
    options = {"units": "channels", "importance": "magnitude", "repair": False, **TEXT}
    made = whet.prune(originals("qwen3"), tmp_path / "elastic", elastic=True, sizes="80%", **options)
    whet.slice(tmp_path / "elastic", tmp_path / "cut", size="80%")
    pruned = whet.prune(originals("qwen3"), tmp_path / "pruned", remove="20%", **options)
    number = pruned["amounts"]["channels"]
    sorted_units = entries(tmp_path / "elastic")["kept"]["channels"]
    assert {i: sorted(mine[:number]) for i, mine in sorted_units.items()} == pruned["kept"]["channels"] or number == 0
    assert same(logits(tmp_path / "cut"), logits(tmp_path / "pruned"))
    assert made["elastic"]["sizes"][0]["kl"] == pytest.approx(pruned["kl"], rel=1e-3)


def test_the_lineage_goes_on_and_the_next_step_takes_it(tmp_path, originals):
    recipe = {
        "version": 1,
        "model": str(originals()),
        "out": str(tmp_path / "out"),
        "steps": [
            {"prune": {"elastic": True, "sizes": "60%"}},
            {"slice": {"size": "60%"}},
            {"quantize": {"scheme": "int4-g32"}},
            {"compare": {"speed": False}},
        ],
    }
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(models.documents(60, 30)))
    whet.run(recipe, text=str(text))
    manifest = entries(tmp_path / "out")
    assert [entry["step"] for entry in manifest["lineage"]] == ["prune", "slice", "quantize"]
    assert manifest["base_model"]["name"] == originals().name and "elastic" not in manifest


def test_a_recipe_that_cuts_what_is_not_there_is_refused_before_anything_is_done(tmp_path, originals, sorted_llama):
    def recipe(*steps, model=None):
        made = {"version": 1, "model": str(model or originals()), "out": str(tmp_path / "out"), "steps": list(steps)}
        return lambda: whet.run(made, text=TEXT["text"])

    cut = {"slice": {"size": "62.5%"}}
    refused(["steps[0].slice", "is not elastic"], recipe(cut))
    refused(["no shape of 70%"], recipe({"slice": {"size": "70%"}}, model=sorted_llama[0]))
    refused(["steps[1].slice", "leaves nothing sorted"], recipe({"prune": {"remove": "20%"}}, cut))
    refused(["steps[1].slice", "no size 62.5%"], recipe({"prune": {"elastic": True}}, cut))
    assert not (tmp_path / "out").exists()


def test_llama_cpp_runs_it(tmp_path, originals):
    pytest.importorskip("llama_cpp")
    from whet.engines.llamacpp import open_gguf
    from whet.formats.export import export

    whet.prune(originals("qwen3"), tmp_path / "elastic", elastic=True, sizes="60%", **TEXT)
    whet.slice(tmp_path / "elastic", tmp_path / "cut", size="60%")
    export(tmp_path / "cut", to="gguf", out=tmp_path / "model.gguf", kind="f32")
    theirs = torch.cat(list(open_gguf(tmp_path / "model.gguf").logit_chunks(TOKENS[:1], 64)), 1)[0]
    ours = logits(tmp_path / "cut")[0]
    assert (theirs - ours).abs().max() < 5e-3 * ours.abs().max()  # llama.cpp keeps keys and values in 16 bits


# -- stopped and gone on with ---------------------------------------------------------------------------------------


def hashes(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.is_file()}


def sort(original, out):
    whet.prune(original, out, elastic=True, sizes="70%", **TEXT)


@pytest.mark.parametrize("verb", ["prune", "slice"])
def test_killed_and_resumed_the_bytes_are_the_same(tmp_path, originals, verb):
    sort(originals("phi3"), tmp_path / "whole")
    source = tmp_path / "whole"
    work = (
        functools.partial(sort, originals("phi3"))
        if verb == "prune"
        else (lambda out: whet.slice(source, out, size="70%"))
    )
    count = counted(lambda: work(tmp_path / "undisturbed"))
    for part in some(range(6), 2):
        out = tmp_path / f"out{part}"
        at = int(count * (part + random.Random(part).random()) / 6) + 1
        killed(lambda out=out: work(out), lambda at=at: Ticks(at))
        if (out / ".whet" / "request.json").exists():
            resume(out)
        elif not (out / "whet.json").exists():
            work(out)
        assert hashes(out) == hashes(tmp_path / "undisturbed")


# -- refused --------------------------------------------------------------------------------------------------------


def refused(words, call):
    with pytest.raises(UsageError) as refusal:
        call()
    assert all(word in str(refusal.value) for word in words), str(refusal.value)


def test_sizes_that_are_not_there_are_refused_and_nothing_is_written(tmp_path, originals, sorted_llama):
    folder, out = sorted_llama[0], tmp_path / "out"
    for size, words in {
        "65%": ["no shape of 65%", "nearest is 62.5%", "100%, 80%, 62.5%, 40%"],
        "120%": ["more than the model has"],
        "0": ["no size"],
        "half": ["no size"],
    }.items():
        refused(words, lambda size=size: whet.slice(folder, out, size=size))
    refused(["is not elastic", "--elastic"], lambda: whet.slice(originals(), out, size="80%"))
    assert not out.exists()


def test_options_that_do_not_go_together_are_refused_and_nothing_is_written(tmp_path, originals):
    out = tmp_path / "out"
    for options, words in [
        ({"remove": "25%"}, ["a step of its own"]),
        ({"sizes": "100%"}, ["no sizes of smaller models"]),
        ({"sizes": ","}, ["no sizes of smaller models"]),
        ({"sizes": "8%", "units": "heads"}, ["no shape with fewer heads comes to 8%"]),
        ({"text": ["ab cd " * 20], "eval_text": None}, ["left for verifying"]),
    ]:
        refused(words, lambda options=options: whet.prune(originals(), out, **{"elastic": True, **TEXT, **options}))
    refused(["goes with elastic"], lambda: whet.prune(originals(), out, remove="25%", sizes="80%", **TEXT))
    refused(
        ["experts are not sorted"], lambda: whet.prune(originals("mixtral"), out, elastic=True, units="experts", **TEXT)
    )
    assert not out.exists()


def test_a_model_that_predicts_nothing_is_refused(tmp_path):
    bert = models.make(tmp_path / "bert", "bert", blocks=3, architecture="AutoModelForMaskedLM")
    refused(["predicts no next token"], lambda: whet.prune(bert, tmp_path / "out", elastic=True, **TEXT))


def test_a_dry_run_of_either_says_what_it_takes_and_writes_nothing(tmp_path, originals, sorted_llama):
    needs = whet.prune(originals(), tmp_path / "out", elastic=True, dry_run=True, **TEXT)
    assert needs["bytes"]["after"] == needs["bytes"]["before"] and needs["seconds"] > 0
    needs = whet.slice(sorted_llama[0], tmp_path / "out", size="40%", dry_run=True)
    assert not (tmp_path / "out").exists()
    whet.slice(sorted_llama[0], tmp_path / "out", size="40%")
    assert Checkpoint(tmp_path / "out").nbytes == needs["bytes"]["after"]["total"]


def test_what_was_sorted_wrong_is_found(tmp_path, originals, monkeypatch):
    from whet.errors import GateError
    from whet.steps import pruned

    cuts = pruned.block_cuts

    def damaged(parts, built, shapes, kept, index):
        found = cuts(parts, built, shapes, kept, index)
        name = next(n for n in found if n.endswith("up_proj.weight"))
        return found | {name: type(found[name])(found[name].stored)}  # as it was, unsorted

    monkeypatch.setattr(pruned, "block_cuts", damaged)
    with pytest.raises(GateError, match="differ by"):
        whet.prune(originals(), tmp_path / "out", elastic=True, sizes="80%", **TEXT)
