"""`--shapes free`: blocks that differ in shape, by what each is worth; read by transformers and llama.cpp."""

from __future__ import annotations

import functools
import json
import random

import pytest
import torch
from transformers import AutoModelForCausalLM

import models
from covering import some
from killing import Ticks, counted, hashes, killed
from whet.anatomy import FAMILIES, Kept, anatomy, block_cuts, per_layer, resized, task_in
from whet.checkpoint import Checkpoint, load_model, model_config, write_json, write_tensors
from whet.engines.torch import cached_outputs, outputs
from whet.errors import GateError, UsageError
from whet.formats.decilm import with_block_configs
from whet.pruning.removal import BY_UNIT, SHAPES
from whet.recipe.compress import compress
from whet.recipe.prune import prune
from whet.recipe.resume import resume
from whet.steps import prune_options, pruned
from whet.steps.config import modelling_files

TEXT = {"text": models.documents(40, 20), "samples": 8, "window": 20}
TOKENS = torch.randint(2, 264, (2, 24), generator=torch.Generator().manual_seed(0))
CAUSAL = [name for name, row in FAMILIES.items() if task_in({"model_type": name}) == "causal"]
LIKE_LLAMA = (
    *("llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "phi3", "seed_oss", "ernie4_5", "hunyuan_v1_dense"),
    *("ministral3", "starcoder2"),
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("originals")

    @functools.cache
    def make(family="llama"):
        return models.make(root / family, family, blocks=3)

    return make


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """A model in which the attention of block 1 and the feed-forward of block 2 add nothing."""
    folder = models.make(tmp_path_factory.mktemp("idle") / "m", "llama", blocks=3)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.zero_()
        model.model.layers[2].mlp.down_proj.weight.zero_()
    model.save_pretrained(folder)
    return folder


def trusted(folder):
    """The model by the folder's own file, which must find every weight and nothing else."""
    model, found = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"] and not found["mismatched_keys"]
    return model.eval()


def cut(original, kept, out):
    """What stays of `original`, written without the step."""
    checkpoint = Checkpoint(original)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    built = {**model_config(checkpoint).to_dict(), **checkpoint.config}
    config, cuts = resized(parts, checkpoint.config, built, checkpoint.shapes, kept)
    out.mkdir()
    write_tensors(out / "model.safetensors", {n: one.of(checkpoint.read(one.stored)) for n, one in cuts.items()})
    write_json(out / "config.json", config)
    for name, code in modelling_files(config).items():
        (out / name).write_bytes(code)
    return out


# -- every family ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", some(CAUSAL, 8))
def test_blocks_of_several_shapes_are_the_original_with_zeros(tmp_path, originals, family):
    original = originals(family)
    if family not in LIKE_LLAMA:
        with pytest.raises(UsageError, match="cannot have blocks that differ in shape"):
            prune(original, tmp_path / "out", shapes="free", remove=0.3, **TEXT)
        assert not (tmp_path / "out").exists()
        return
    channels, heads = {0: tuple(range(0, 96, 2)), 1: ()}, {0: (1,), 2: ()}
    out = cut(original, Kept((0, 1, 2), channels, heads), tmp_path / "out")
    model = load_model(original)
    layers = model.model.layers
    with torch.no_grad():
        for index, kept in channels.items():
            gone = [i for i in range(96) if i not in kept]
            down = getattr(layers[index].mlp, "down_proj", None) or layers[index].mlp.c_proj
            down.weight[:, gone] = 0
            if not kept and down.bias is not None:
                down.bias.zero_()
        half = layers[0].self_attn.o_proj.weight.shape[1] // 2
        layers[0].self_attn.o_proj.weight[:, :half] = 0
        for tensor in layers[2].self_attn.o_proj.parameters():
            tensor.zero_()
        expected = outputs(model, TOKENS)
        for smaller in (load_model(out), trusted(out)):
            logits = outputs(smaller, TOKENS)
            assert torch.allclose(logits, expected, atol=1e-4)
            assert torch.allclose(cached_outputs(smaller, TOKENS)[:, -1], logits[:, -1], atol=1e-4)
    with pytest.raises(RuntimeError):
        AutoModelForCausalLM.from_pretrained(out)  # which else would fill what is gone at random


# -- what is chosen ---------------------------------------------------------------------------------------------------


def test_sub_blocks_that_add_nothing_go_and_nothing_changes(tmp_path, idle):
    out = tmp_path / "out"
    made = prune(idle, out, shapes="free", units="attention,ffn", remove=1 / 3, **TEXT)
    assert made["kept"] == {"layers": [0, 1, 2], "channels": {"2": []}, "heads": {"1": []}}
    assert made["kl"] < 1e-9 and made["loads_in"] == "modelling file"
    assert made["check"]["before against after"] < 1e-5 and made["check"]["cached against uncached"] < 1e-5
    with torch.no_grad():
        assert torch.allclose(outputs(trusted(out), TOKENS), outputs(load_model(idle), TOKENS), atol=1e-2)
    config = json.loads((out / "config.json").read_text())
    assert config["per_layer_config"]["1"]["skip"] == ["attention"]
    # as vLLM's DeciLM has it
    assert config["architectures"] == ["DeciLMForCausalLM"]
    attention, ffn = ([one[part]["no_op"] for one in config["block_configs"]] for part in ("attention", "ffn"))
    assert attention == [False, True, False] and ffn == [False, False, True]
    assert [one["ffn"]["intermediate_size"] for one in config["block_configs"]] == [96, 96, None]
    loaded = trusted(out).config.block_configs
    assert loaded[0].attention.n_heads_in_group == 2 and not hasattr(loaded[0].ffn, "ffn_mult")
    about = (out / "README.md").read_text()
    assert "1 of them without attention" in about and "trust_remote_code=True" in about


def test_channels_go_where_they_give_nothing(tmp_path):
    original = models.make(tmp_path / "m", "llama", blocks=3)
    model = AutoModelForCausalLM.from_pretrained(original)
    dead = list(range(0, 96, 2))
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[dead] = 0
    model.save_pretrained(original)
    made = prune(original, tmp_path / "out", shapes="free", units="channels", remove=0.1, **TEXT)
    kept = made["kept"]["channels"]
    assert list(kept) == ["1"] and not set(kept["1"]) & set(dead) and made["kl"] < 1e-6


def test_blocks_that_end_alike_are_a_stock_model(tmp_path):
    """Whatever is asked for: where nothing differs, nothing needs a file of its own."""
    original = models.make(tmp_path / "m", "llama", blocks=3)
    out = cut(original, Kept((0, 2), {0: (1, 2), 2: (3, 4)}, {0: (0,), 2: (1,)}), tmp_path / "out")
    config = json.loads((out / "config.json").read_text())
    assert not per_layer(config) and with_block_configs(config) == config and len(list(out.iterdir())) == 2
    AutoModelForCausalLM.from_pretrained(out)


# -- what comes after it --------------------------------------------------------------------------------------------


def test_llama_cpp_runs_it(tmp_path, idle):
    pytest.importorskip("llama_cpp")
    from whet.formats.export import export

    prune(idle, tmp_path / "idle", shapes="free", units="attention,ffn", remove=1 / 3, **TEXT)
    prune(idle, tmp_path / "narrow", shapes="free", units="channels,heads", remove=0.3, **TEXT)
    for name in ("idle", "narrow"):
        made = export(tmp_path / name, to="gguf", out=tmp_path / f"{name}.gguf", kind="f32")
        assert made["architecture"] == "deci" and made["check"]["kl"] < 1e-6, made


def test_the_next_step_quantizes_it_and_the_lineage_has_both(tmp_path, idle):
    pruned_folder = tmp_path / "pruned"
    prune(idle, pruned_folder, shapes="free", units="attention,ffn", remove=1 / 3, **TEXT)
    made = compress(pruned_folder, tmp_path / "out", scheme="W8A16", **TEXT)
    assert made["check"]["stock transformers"] < 1e-4
    manifest = json.loads((tmp_path / "out" / "whet.json").read_text())
    assert [entry["step"] for entry in manifest["lineage"]] == ["prune", "quantize"]
    with torch.no_grad():
        assert torch.isfinite(outputs(trusted(tmp_path / "out"), TOKENS)).all()
    compress(pruned_folder, tmp_path / "gguf", scheme="Q8_0", target="llama.cpp", **TEXT)
    assert (tmp_path / "gguf" / "model.gguf").is_file()
    for more in (
        {"target": "whet", "scheme": "int3z-g32"},
        {"target": "llama.cpp", "folder": True},
    ):
        with pytest.raises(UsageError, match="blocks that differ in shape"):
            compress(pruned_folder, tmp_path / "refused", **{"scheme": "Q8_0", **more}, **TEXT)
    with pytest.raises(UsageError, match="differ in shape already"):
        prune(pruned_folder, tmp_path / "again", remove=0.2, **TEXT)


# -- stopped, damaged, refused ----------------------------------------------------------------------------------------


def test_killed_and_resumed_the_bytes_are_the_same(tmp_path, idle):
    def work(out):
        prune(idle, out, shapes="free", units="attention,ffn,channels", remove=0.3, **TEXT)

    count = counted(lambda: work(tmp_path / "whole"))
    out = tmp_path / "out"
    killed(lambda: work(out), lambda: Ticks(int(count * random.Random(0).uniform(0.3, 0.9))))
    if (out / ".whet" / "request.json").exists():
        resume(out)
    elif not (out / "whet.json").exists():
        work(out)
    assert hashes(out) == hashes(tmp_path / "whole")


def test_what_was_written_wrong_is_found(tmp_path, idle, monkeypatch):
    def damaged(*args):
        found = block_cuts(*args)
        one, other = ([n for n in found if n.endswith(f"{name}_proj.weight")] for name in ("gate", "up"))
        return {**found, **{a: found[b] for a, b in zip(one, other, strict=True)}}

    monkeypatch.setattr(pruned, "block_cuts", damaged)
    with pytest.raises(GateError, match="differ by"):
        prune(idle, tmp_path / "out", shapes="free", units="attention,ffn", remove=1 / 3, **TEXT)


REFUSED = [
    ({"shapes": "fre"}, ["fre", "Did you mean free?"]),
    ({"shapes": "uniform", "units": "ffn"}, ["ffn goes from some blocks", "--shapes free"]),
    ({"units": "attn"}, ["attn", "Units: layers, channels, heads, attention, ffn"]),
    ({"units": "experts"}, ["no experts can be taken"]),
    ({"importance": "influence"}, ["divergence", "influence does not compare"]),
    ({"units": "attention", "importance": "obs"}, ["attention", "divergence"]),
    ({"units": "attention,ffn", "remove": "3%"}, ["3.0%", "the least that can go"]),
    ({"units": "channels", "remove": "70%"}, ["70.0%", "the most"]),
    ({"remove": None, "elastic": True}, ["shapes goes with remove"]),
    ({"remove": None, "vocab": ["a"], "text": None}, ["shapes goes with remove"]),
]


def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path, originals):
    for asked, words in REFUSED:
        with pytest.raises(UsageError) as refusal:
            prune(originals("llama"), tmp_path / "out", **{"shapes": "free", "remove": "25%", **TEXT, **asked})
        assert all(word in str(refusal.value) for word in words), (asked, str(refusal.value))
        assert not (tmp_path / "out").exists()


def test_a_dry_run_says_what_it_takes(tmp_path, originals):
    needs = prune(originals("llama"), tmp_path / "out", shapes="free", remove=0.2, dry_run=True, **TEXT)
    assert not (tmp_path / "out").exists() and any("trust_remote_code" in str(note) for note in needs["notes"])
    made = prune(originals("llama"), tmp_path / "out", shapes="free", remove=0.2, **TEXT)
    assert Checkpoint(tmp_path / "out").nbytes == pytest.approx(needs["bytes"]["after"]["total"], rel=0.02)
    assert made["removed"] == pytest.approx(0.2, abs=0.01)


def test_options_name_what_there_is():
    assert prune_options.UNITS.split(", ") == [*BY_UNIT]
    assert prune_options.SHAPES.split(", ") == [*SHAPES]
