"""The step `prune` on a quantized folder: experts and blocks go, codes stay as they are."""

from __future__ import annotations

import json
import random

import pytest
import torch
import transformers

import models
from killing import Ticks, counted, hashes, killed
from whet.checkpoint import Checkpoint, Decoded, check_files, load_model
from whet.engines.torch import outputs
from whet.errors import GateError, UsageError
from whet.recipe.compress import compress
from whet.recipe.prune import prune
from whet.recipe.resume import resume
from whet.recipe.runner import run
from whet.steps import prune_coded

DOCUMENTS = models.documents(40, 20)
TEXT = {"text": DOCUMENTS, "samples": 8, "window": 20}
TOKENS = torch.randint(2, 264, (2, 24), generator=torch.Generator().manual_seed(0))
MORE = {"qwen2_moe": {"mlp_only_layers": []}, "phi3": {"tied": True}}


def stacked(folder):
    """The same model with its experts in files as the model has them, in stacks."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    from safetensors.torch import save_file

    save_file({name: w.contiguous() for name, w in model.state_dict().items()}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    root = tmp_path_factory.mktemp("coded")

    def make(family, scheme, stacks=False):
        out = root / f"{family}{stacks}-{scheme}"
        if not out.exists():
            dense = models.make(root / f"{family}{stacks}", family, blocks=3, **MORE.get(family, {}))
            compress(stacked(dense) if stacks else dense, out, scheme=scheme, solver="nearest")
        return out

    return make


def dequantized(folder, out):
    """The weights that a folder's codes stand for, as a dense model."""
    load_model(folder, torch.float32).save_pretrained(out)
    models.tokenizer().save_pretrained(out)
    return out


CASES = [
    ("mixtral", "W4A16", False, "experts", 0.2),
    ("mixtral", "int4z-g32", True, "experts", 0.2),
    ("qwen2_moe", "FP8", False, "experts", 0.1),
    ("qwen3_moe", "int3z-g32", True, "experts,layers", 0.45),
    ("llama", "W4A16", False, "layers", 1 / 3),
    ("phi3", "int4z-g32", False, "layers", 1 / 3),
    ("gpt2", "int4-g32", False, "layers", 1 / 3),
]


@pytest.mark.parametrize(("family", "scheme", "stacks", "units", "share"), CASES)
def test_it_computes_what_the_dequantized_model_does_once_that_is_pruned(
    tmp_path, coded, family, scheme, stacks, units, share
):
    folder = coded(family, scheme, stacks)
    made = prune(folder, tmp_path / "out", units=units, remove=share, **TEXT)
    dense = dequantized(folder, tmp_path / "dense")
    other = prune(dense, tmp_path / "pruned", units=units, remove=share, repair=False, **TEXT)
    assert made["kept"] == other["kept"] and made["removed"] == other["removed"]
    assert made["codes"] == "untouched" and made["check"]["stored"] == "decoded again, equal"
    with torch.no_grad():
        models_of = (load_model(tmp_path / name, torch.float32) for name in ("out", "pruned"))
        mine, theirs = (outputs(model, TOKENS) for model in models_of)
    assert torch.equal(mine, theirs)
    check_files(tmp_path / "out", lambda event: None)
    manifest = json.loads((tmp_path / "out" / "whet.json").read_text())
    assert [entry["step"] for entry in manifest["lineage"]] == ["quantize", "prune"]
    assert manifest["kept"] == made["kept"] and manifest["container"] == Checkpoint(folder).whet["container"]
    assert len(manifest["linears"]) < len(Checkpoint(folder).whet["linears"])


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_transformers_loads_it_as_it_loads_what_it_was_made_of(tmp_path, coded, family):
    folder = coded(family, "W4A16")
    prune(folder, tmp_path / "out", remove=1 / 3 if family == "llama" else 0.2, **TEXT)
    own = family == "mixtral"
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=own).eval()
    with torch.no_grad():
        theirs, ours = outputs(model, TOKENS), outputs(load_model(tmp_path / "out", model.dtype), TOKENS)
    assert torch.allclose(theirs.float(), ours.float(), atol=1e-4)
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert ("whet" if own else "quantization_config") in settings


def test_every_code_that_stays_is_the_same_bytes(tmp_path, coded):
    folder = coded("mixtral", "W4A16")
    made = prune(folder, tmp_path / "out", units="experts", remove=0.2, **TEXT)
    before, after = Checkpoint(folder), Checkpoint(tmp_path / "out")
    for index, kept in made["kept"]["experts"].items():
        name = f"model.layers.{index}.block_sparse_moe"
        assert torch.equal(after.read(f"{name}.gate.weight"), before.read(f"{name}.gate.weight")[kept])
        for new, old in enumerate(kept):
            for part in ("weight_packed", "weight_scale"):
                theirs, mine = (f"{name}.experts.{number}.w2.{part}" for number in (old, new))
                assert torch.equal(after.read(mine), before.read(theirs))
        assert f"{name}.experts.{len(kept)}.w2.weight_packed" not in after.tensors


def test_a_budget_says_its_bytes_and_a_dry_run_writes_nothing(tmp_path, coded):
    options = {"units": "experts", "remove": 0.2, **TEXT}
    needs = prune(coded("mixtral", "W4A16"), tmp_path / "out", dry_run=True, **options)
    assert not (tmp_path / "out").exists()
    prune(coded("mixtral", "W4A16"), tmp_path / "out", **options)
    assert Checkpoint(tmp_path / "out").nbytes == needs["bytes"]["after"]["total"]


def test_blocks_of_an_adapter_stay(tmp_path):
    dense = models.make(tmp_path / "m", "llama", blocks=2)
    compress(dense, tmp_path / "q", scheme="int3-g32", repair=4, target="whet", solver="gptq", **TEXT)
    with pytest.raises(UsageError, match="its adapter is of all of them"):
        prune(tmp_path / "q", tmp_path / "out", units="layers", remove=0.5, **TEXT)


# -- refused, stopped, in a recipe ------------------------------------------------------------------------------------


def test_what_would_round_again_is_refused_and_nothing_is_written(tmp_path, coded):
    mixtral = coded("mixtral", "W4A16")
    refused = [
        ({"units": "heads"}, ["heads", "share scales", "layers, experts"]),
        ({"merge": True}, ["merge would round it again"]),
        ({"remove": None, "elastic": True}, ["elastic would round"]),
        ({"shapes": "free"}, ["shapes free would round"]),
        ({"remove": "70%"}, ["1 of 4 experts would stay", "at the most"]),
    ]
    for options, words in refused:
        with pytest.raises(UsageError) as refusal:
            prune(mixtral, tmp_path / "out", **{"remove": "20%", **TEXT, **options})
        assert all(word in str(refusal.value) for word in words), str(refusal.value)
        assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="rounds the inputs"):
        prune(coded("llama", "W8A8"), tmp_path / "out", remove=0.3, **TEXT)


def test_what_was_written_wrong_is_found(tmp_path, coded, monkeypatch):
    read = prune_coded.read_tensor
    monkeypatch.setattr(prune_coded, "read_tensor", lambda info: read(info).flip(0))
    with pytest.raises(GateError, match="does not decode"):
        prune(coded("mixtral", "W4A16"), tmp_path / "out", units="experts", remove=0.2, **TEXT)


def test_a_decoded_folder_is_the_weights_of_the_model(coded):
    for family, scheme in (("phi3", "int4z-g32"), ("gpt2", "int4-g32")):
        model = load_model(coded(family, scheme), torch.float32).state_dict()
        decoded = Decoded(coded(family, scheme))
        names = [name for name in decoded.tensors if name in model]
        assert len(names) > 5 and all(torch.equal(decoded.read(name), model[name]) for name in names)


def test_killed_and_resumed_the_bytes_are_the_same(tmp_path, coded):
    folder = coded("mixtral", "W4A16")

    def work(out):
        prune(folder, out, units="experts", remove=0.2, **TEXT)

    count = counted(lambda: work(tmp_path / "whole"))
    out = tmp_path / "out"
    killed(lambda: work(out), lambda: Ticks(int(count * random.Random(1).uniform(0.3, 0.9))))
    resume(out)
    assert hashes(out) == hashes(tmp_path / "whole")


def test_a_recipe_prunes_what_it_quantized(tmp_path, coded):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(models.documents(60, 30)))
    dense = models.make(tmp_path / "m", "mixtral", blocks=2)
    steps = [
        {"quantize": {"scheme": "W4A16", "solver": "nearest"}},
        {"prune": {"remove": 0.2, "units": "experts"}, "gate": {"kl": 10}},
    ]
    recipe = {"version": 1, "model": str(dense), "out": str(tmp_path / "out"), "steps": steps}
    run(recipe, text=str(text))
    manifest = json.loads((tmp_path / "out" / "whet.json").read_text())
    assert [entry["step"] for entry in manifest["lineage"]] == ["quantize", "prune"]
    steps[1]["prune"]["units"] = "channels"
    with pytest.raises(UsageError, match=r"steps\[1\].prune: of a quantized model only layers, experts"):
        run({**recipe, "out": str(tmp_path / "no")}, text=str(text))
