"""Inputs of linears rounded: the solver sees what the runtime computes with, folders load in stock transformers to the
same logits, runs resume to the same bytes, and spikes are found, named and left as they are."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import models
from covering import matrix
from killing import Ticks, counted, hashes, killed
from whet.anatomy import anatomy
from whet.apply import spikes
from whet.apply.ranges import best_scale
from whet.checkpoint import Checkpoint, load_as_others, load_model
from whet.engines.torch import outputs
from whet.errors import UsageError
from whet.grids import INPUTS
from whet.recipe.compress import compress
from whet.recipe.resume import resume
from whet.walk import BlockStep, RoundedInputs, Walk

DOCUMENTS = models.documents(60, 30)
TEXT = {"text": DOCUMENTS, "samples": 8, "window": 24}
TOKENS = torch.randint(2, 264, (2, 24), generator=torch.Generator().manual_seed(0))
SCHEMES = ("W8A8", "W8A8-static", "int4s-g32+int8", "FP8A8", "FP8A8-static", "W4A4", "MXFP4+mxfp4")
FAMILIES = {"llama": torch.bfloat16, "qwen3": torch.bfloat16, "gpt2": torch.float32, "phi3": torch.float32}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    made = {}

    def original(family, dtype=torch.bfloat16):
        if (family, dtype) not in made:
            folder = tmp_path_factory.mktemp(family) / "model"
            made[family, dtype] = models.make(folder, family, dtype=dtype)
        return made[family, dtype]

    return original


@matrix({"scheme": SCHEMES, "family": FAMILIES})
def test_a_folder_computes_what_its_readers_do(scheme, family, tmp_path, originals):
    """whet's own reading, and stock transformers with compressed-tensors or the modelling file, to the bit."""
    made = compress(originals(family, FAMILIES[family]), tmp_path / "out", scheme=scheme, solver="nearest", **TEXT)
    table = json.loads((tmp_path / "out" / "whet.json").read_text())["linears"]
    assert all("inputs" in entry for entry in table.values())
    own, stock = load_model(tmp_path / "out"), None
    if made["loads_in"] == "transformers":
        stock = load_as_others(Checkpoint(tmp_path / "out"), None, "cpu")
    else:
        stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    with torch.no_grad():
        mine, theirs = outputs(own, TOKENS), outputs(stock, TOKENS)
        for module in own.modules():
            module._forward_pre_hooks.clear()
        assert torch.equal(mine, theirs) and not torch.equal(mine, outputs(own, TOKENS))


def test_stock_transformers_takes_all_but_transposed_linears(tmp_path, originals):
    made = {
        scheme: compress(originals("llama"), tmp_path / scheme, scheme=scheme, solver="nearest", **TEXT)["loads_in"]
        for scheme in ("W8A8-static", "W4A4")
    }
    assert set(made.values()) == {"transformers"}
    config = json.loads((tmp_path / "W8A8-static" / "config.json").read_text())["quantization_config"]
    (group,) = config["config_groups"].values()
    assert config["format"] == "int-quantized" and group["input_activations"]["strategy"] == "tensor"
    stored = Checkpoint(tmp_path / "W8A8-static").tensors
    assert stored["model.layers.0.mlp.down_proj.weight"].dtype == torch.int8
    assert stored["model.layers.0.mlp.down_proj.input_scale"].shape == (1,)


@pytest.mark.parametrize("solver", ["gptq", "gptaq", "tuned"])
def test_solvers_calibrate_on_rounded_inputs(solver, tmp_path, originals):
    """What is verified is the model as it runs, its inputs rounded, and of that solvers lose less than nearest."""
    kl = {
        name: compress(originals("llama"), tmp_path / name, scheme="int3s-g32+int8-tensor", solver=name, **TEXT)["kl"]
        for name in ("nearest", solver)
    }
    assert kl[solver] < kl["nearest"]


def test_second_moments_are_of_rounded_inputs(originals):
    checkpoint = Checkpoint(originals("llama"))
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    table = checkpoint.read(parts.embedding.parameter)
    seen = {}

    class Look:
        def visit(self, step: BlockStep):
            if step.index == 0:
                seen.update({reads: step.second_moments().mean(reads) for reads in {x.reads for x in step.linears}})
            return None

    for inputs in ({}, dict.fromkeys((x.address for x in parts.linears()), INPUTS["int4"])):
        walk = Walk(checkpoint, parts, [TOKENS], [TOKENS], table, table, "cpu", inputs=RoundedInputs(inputs))
        walk.go(Look())
        before, seen_now = seen.get("before"), dict(seen)
        if inputs:
            assert all(not torch.equal(before[reads], h) for reads, h in seen_now.items() if reads != "before")
            assert walk.drift[0] == 0 or walk.drift[0] > 0
        seen = {"before": seen_now} if not inputs else seen


def test_a_static_scale_is_the_best_of_all_rules():
    x = torch.randn(512, 64, generator=torch.Generator().manual_seed(0))
    x[0, 0] = 300.0
    w = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    w[:, 0] = 1e-4  # the spike is worth nothing
    rule, scale = best_scale(x, w, INPUTS["int8-tensor"], 300.0, torch.float32)
    assert rule != "largest" and scale.item() * 127 < 30
    w[:, 0] = 1.0
    assert best_scale(x, w, INPUTS["int8-tensor"], 300.0, torch.float32)[1].item() * 127 > 100


def planted(folder, out, block=1, channel=5, times=400.0):
    """A copy of the model whose FFN input has one channel so many times as large, and computes the same."""
    shutil.copytree(folder, out)
    for file in out.glob("*.safetensors"):
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if name == f"model.layers.{block}.post_attention_layernorm.weight":
                tensor[channel] *= times
            if name.startswith(f"model.layers.{block}.mlp.") and "down" not in name:
                tensor[:, channel] /= times
        save_file(tensors, file, metadata={"format": "pt"})
    return out


def test_a_planted_spike_is_found_named_and_kept(tmp_path, originals, monkeypatch):
    """And of what rounding all inputs loses above the weights alone, nine tenths come back."""
    spiked = planted(originals("llama", torch.float32), tmp_path / "spiked")
    weights = compress(spiked, tmp_path / "weights", scheme="W8A16", solver="nearest", **TEXT)["kl"]
    with monkeypatch.context() as patch:
        patch.setattr(spikes, "_TIMES", ())
        whole = compress(spiked, tmp_path / "whole", scheme="W8A8-static", solver="nearest", **TEXT)["kl"]
    made = compress(spiked, tmp_path / "made", scheme="W8A8-static", solver="nearest", **TEXT)
    (note,) = [str(note) for note in made["notes"] if "spike" in str(note)]
    assert "model.layers.1.mlp.gate_proj (channel 5 reaches" in note and "1 of 8 inputs" in note
    table = json.loads((tmp_path / "made" / "whet.json").read_text())["linears"]
    kept = {address for address, entry in table.items() if "inputs" not in entry}
    assert kept == {"model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"}
    assert whole - made["kl"] > 0.9 * (whole - weights) > 0 and made["loads_in"] == "transformers"


@pytest.mark.parametrize("part", range(3))
def test_killed_and_resumed_the_same_bytes(part, tmp_path, originals):
    def work(out):
        return compress(originals("llama"), out, scheme="W8A8-static", **TEXT)

    undisturbed = tmp_path / "whole"
    work(undisturbed)
    count = counted(lambda: work(tmp_path / "counted"))
    at = int(count * (part + random.Random(part).random()) / 3) + 1
    out = tmp_path / "out"
    killed(lambda: work(out), lambda: Ticks(at))
    if (out / ".whet" / "request.json").exists():
        resume(out)
    elif not (out / "whet.json").exists():
        work(out)
    assert hashes(out) == hashes(undisturbed)


REFUSED = [
    ("llama", {"scheme": "W8A8", "target": "llama.cpp"}, "multiplies in types of its own. Use int8s"),
    ("llama", {"scheme": "W8A8", "target": "onnx"}, "multiplies in types of its own"),
    ("llama", {"scheme": "int8s+fp8", "target": "vllm"}, "no kernel for fp8 inputs beside int8 weights.*int8 or int8-"),
    ("llama", {"scheme": "int8s-g32+int8", "target": "vllm"}, r"one scale a row\. Use int8s\+int8"),
    ("llama", {"scheme": "W8A16", "embed": "W8A8"}, "rounds no inputs of the head. Use int8s"),
    ("mixtral", {"scheme": "W8A8"}, "stacks its experts in one parameter, whose inputs are not rounded"),
    ("llama", {"scheme": "W8A8-static", "solver": "nearest", "text": None, "target": "whet"}, None),
]


@pytest.mark.parametrize(("family", "options", "said"), REFUSED)
def test_what_no_reader_rounds_is_refused_first(family, options, said, tmp_path, originals):
    given = {**TEXT, "solver": "nearest", **options}
    if said is None:  # a scale that is stored needs text, which the original writes
        assert compress(originals(family), tmp_path / "out", **given, dry_run=True)["dry_run"]
        return
    with pytest.raises(UsageError, match=said):
        compress(originals(family), tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_linears_of_one_input_round_it_alike(tmp_path, originals):
    plan = {
        "format": "whet.plan",
        "version": 1,
        "target": "whet",
        "groups": {
            "q": {"addresses": ["*.q_proj"], "choice": {"schemes": "W8A8"}},
            "all": {"addresses": ["*[!q]_proj"], "choice": {"schemes": "W8A16"}},
            "tables": {"addresses": ["model.embed_tokens", "lm_head"], "choice": {"schemes": "keep"}},
        },
    }
    with pytest.raises(UsageError, match=r"block 0: linears that read one input \(.*q_proj int8, .*k_proj keep"):
        compress(originals("llama"), tmp_path / "out", plan=plan, **TEXT)
