"""Models that read images or sounds beside text: the text model is compressed, what is around it stays bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import models
from larger_models import IMAGE, MODELS, image_inputs, make
from whet.anatomy import FAMILIES, anatomy, auto_class, task_in
from whet.anatomy.logits import left_out
from whet.checkpoint import Checkpoint, load_model, size_on_disk
from whet.checkpoint.verify import verify
from whet.engines.opening import generate
from whet.engines.torch import outputs
from whet.errors import UsageError
from whet.formats.export import export
from whet.measure.compare import compare
from whet.recipe.compress import compress
from whet.recipe.inspect import inspect
from whet.steps.original import open_original
from whet.targets import find_target
from whet.walk import Walk

TEXT: dict[str, Any] = {"text": models.documents(14), "samples": 8, "window": 24}
TOKENS = torch.randint(2, 250, (2, 20), generator=torch.Generator().manual_seed(0))
# a family, what it is compressed with, and whether its text model has a row
WRITTEN = {
    "gemma3": ({"scheme": "int4-g32"}, True),
    "llava": ({"scheme": "int4z-g32", "transform": "awq"}, True),
    "qwen2_5_vl": ({"bits": 14.0}, True),
    "qwen3_vl": ({"scheme": "int3z-g32", "target": "whet"}, True),
    "mistral3": ({"scheme": "int8s", "embed": "int8s"}, True),
    "smolvlm": ({"scheme": "int3s-g32", "solver": "tuned"}, True),
    "idefics3": ({"scheme": "int4-g32"}, True),
    "llava_next": ({"scheme": "FP8"}, True),
    "gemma4": ({"scheme": "int4-g32"}, False),
    "paligemma": ({"scheme": "int4-g32"}, False),
    "voxtral": ({"scheme": "int4-g32", "solver": "nearest"}, True),
    "llama4": ({"scheme": "int4-g32", "solver": "nearest"}, False),
    "aya_vision": ({"scheme": "int4-g32", "solver": "nearest"}, True),
}


@pytest.fixture(scope="module", params=WRITTEN)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """A family, its original, and the lighter folder."""
    folder = tmp_path_factory.mktemp(request.param)
    original = make(folder / "original", request.param)
    for name in ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"):
        (original / name).write_text(json.dumps({"name": name}))
    (original / "chat_template.jinja").write_text("{{ messages }}")
    compress(original, folder / "lighter", **WRITTEN[request.param][0], **TEXT)
    return request.param, original, folder / "lighter"


def test_what_is_around_the_text_model_stays_bit_for_bit(written: tuple[str, Path, Path]) -> None:
    family, original, lighter = written
    before, after = Checkpoint(original), Checkpoint(lighter)
    parts = anatomy(before.config, before.shapes)
    rounded = set(after.whet["linears"]) if after.whet else set()
    assert rounded
    assert all(parts.family.own_name(parts.name(f"{address}.weight")) is not None for address in rounded)
    folds = "transform" in WRITTEN[family][0]
    found = open_original(original, find_target("transformers")).parts
    changed = {linear.parameter for linear in found.linears() if linear.address in rounded}
    for name in before.tensors:
        around = parts.family.own_name(parts.name(name)) is None
        same = name not in changed and name.removesuffix(".weight") not in rounded and name != parts.dropped
        if around or (same and not folds):
            assert torch.equal(before.read(name), after.read(name)), name
    for name in ("preprocessor_config.json", "processor_config.json", "chat_template.jinja"):
        assert (lighter / name).read_bytes() == (original / name).read_bytes()
    if after.whet and after.whet["container"] == "compressed-tensors":
        ignored = after.config["quantization_config"]["ignore"]
        towers = [name for name in before.tensors if parts.family.own_name(parts.name(name)) is None]
        assert towers or family == "gemma4"
        model = load_model(original)
        linears = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
        assert {n for n in linears if parts.family.own_name(f"{n}.weight") is None} <= set(ignored)
    assert size_on_disk(lighter)["linears"] < size_on_disk(original)["linears"]


def test_stock_transformers_gives_the_logits_of_the_decoded_weights(written: tuple[str, Path, Path]) -> None:
    family, original, lighter = written
    config = Checkpoint(lighter).config
    assert task_in(config) == "causal"
    kind = getattr(transformers, auto_class(config))
    trusted = "auto_map" in config
    stock = kind.from_pretrained(lighter, trust_remote_code=trusted, dtype=torch.float32).eval()
    own, before = load_model(lighter, torch.float32), load_model(original)
    with torch.no_grad():
        assert (outputs(stock, TOKENS) - outputs(own, TOKENS)).abs().max() < 1e-4
        if family in ("gemma3", "llava", "qwen2_5_vl", "qwen3_vl"):
            given = image_inputs(family)
            theirs, mine, first = (model(**given).logits for model in (stock, own, before))
            assert (theirs - mine).abs().max() < 1e-4
            blind = outputs(own, given["input_ids"])
            assert (mine - blind).abs().max() > 1e-3  # the image is looked at
            assert (mine - first).abs().mean() < 0.5 * first.std()


def test_blocks_streamed_are_the_whole_model(written: tuple[str, Path, Path]) -> None:
    family, original, _ = written
    opened = open_original(original, find_target("transformers"))
    checkpoint, parts = opened.checkpoint, opened.parts
    assert bool(parts.family.found) is not WRITTEN[family][1]
    table = checkpoint.read(parts.embedding.parameter)
    walk = Walk(checkpoint, parts, [TOKENS], [], table, table, "cpu")
    walk.go(_Nothing())
    head = checkpoint.read((parts.head or parts.embedding).parameter).float()
    (states,) = walk.final()
    logits = walk.skeleton.cap(states @ head.t())
    with torch.no_grad():
        whole = outputs(load_model(original, torch.float32), TOKENS)
    assert (logits - whole).abs().max() < 1e-4 * whole.abs().max()


class _Nothing:
    """A visitor that leaves everything as it is."""

    def visit(self, step: Any) -> dict[str, Any]:
        return {}


def test_verbs_read_its_text(tmp_path: Path, written: tuple[str, Path, Path]) -> None:
    family, original, lighter = written
    assert verify(lighter)["verdict"] == "pass"
    found = compare(original, lighter, text=TEXT["text"], window=24, speed=False)
    assert 0 < found["divergence"]["kl"]["mean"] < 0.1
    assert generate(lighter, "ab", max_new_tokens=2) is not None
    if family == "llava":
        told = inspect(original, text=TEXT["text"], samples=4, window=24)
        assert len(told["blocks"]) == 2


@pytest.mark.parametrize("family", ["gemma3", "llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "lfm2_vl", "llama4"])
def test_a_gguf_holds_the_text_model(tmp_path: Path, family: str) -> None:
    kinds = [*["sliding_attention"] * 5, "full_attention"]
    more = {"num_hidden_layers": 6, "layer_types": kinds} if family == "gemma3" else {}
    original = make(tmp_path / "original", family, **more)
    found = export(original, out=tmp_path / "model.gguf")
    assert any("mmproj" in str(note) for note in found["notes"])
    pytest.importorskip("llama_cpp")
    assert found["check"]["kl"] < 1e-4


GRANITE = {"model_type": "granite", "logits_scaling": 4.0, "embedding_multiplier": 3.0}
PERIODS = {"num_hidden_layers": 4, "layer_types": [*["sliding_attention"] * 3, "full_attention"]}


@pytest.mark.parametrize(
    ("family", "more", "entry"),
    [
        ("aya_vision", PERIODS, "logit_scale"),
        ("cohere2_vision", PERIODS, "logit_scale"),
        ("llava_next", GRANITE, "logits_scaling"),
    ],
)
def test_a_gguf_leaves_out_of_logits_what_the_larger_model_does(
    tmp_path: Path, family: str, more: dict[str, Any], entry: str
) -> None:
    original = make(tmp_path / "original", family, scale=2.0, **more)
    checkpoint = Checkpoint(original)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    assert parts.family.left_out == {entry: 1.0} and parts.family.logit_scale is None
    found = export(original, out=tmp_path / "model.gguf")
    assert any(f"transformers leaves {entry}" in str(note) for note in found["notes"])
    pytest.importorskip("llama_cpp")
    assert found["check"]["kl"] < 1e-5


def test_a_bound_that_the_larger_model_keeps_stays() -> None:
    settings = MODELS["paligemma"] | {"text_config": MODELS["paligemma"]["text_config"] | {"model_type": "gemma2"}}
    config = transformers.AutoConfig.for_model("paligemma", **settings)
    with torch.device("meta"):
        model = transformers.PaliGemmaForConditionalGeneration(config)
    assert config.text_config.final_logit_softcapping
    assert left_out(FAMILIES["gemma2"], model) == {}


@pytest.mark.parametrize("section", [[2, 3, 3], [24, 20, 20]])
def test_frequencies_beyond_the_sections_turn_with_a_text(tmp_path: Path, section: list[int]) -> None:
    pytest.importorskip("llama_cpp")
    rope = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": section, "rope_theta": 5e6}
    more = {"head_dim": 2 * sum(section), "rope_parameters": rope | ({"rope_theta": 1e4} if section[0] == 2 else {})}
    original = make(tmp_path / "original", "qwen3_vl", scale=2.0, **more)
    assert export(original, out=tmp_path / "model.gguf")["check"]["kl"] < 1e-5


def test_frequencies_that_images_turn_otherwise_are_refused(tmp_path: Path) -> None:
    rope = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_theta": 1e4}
    original = make(tmp_path / "original", "qwen3_vl", rope_parameters=rope)
    with pytest.raises(UsageError, match="its frequency 7 of 8 is turned by time"):
        export(original, out=tmp_path / "model.gguf")


def test_a_rotation_is_refused_as_images_enter_beside_the_embedding(tmp_path: Path) -> None:
    original = make(tmp_path / "original", "llava")
    with pytest.raises(UsageError, match="images enter the residual stream"):
        compress(original, tmp_path / "lighter", scheme="int4-g32", transform="quarot", **TEXT)


def test_experts_that_files_hold_the_other_way_round(tmp_path: Path) -> None:
    """Qwen3-VL's, as they were published: `[experts, in, out]`, which transformers swaps when it loads them."""
    one = make(tmp_path / "one", "qwen3_vl_moe", moe_intermediate_size=48)
    other = tmp_path / "other"
    shutil.copytree(one, other)
    stored = load_file(one / "model.safetensors")
    swapped = {n: v.transpose(1, 2).contiguous() if ".experts." in n else v for n, v in stored.items()}
    save_file(swapped, other / "model.safetensors", {"format": "pt"})
    logits = []
    for original in (one, other):
        lighter = original.with_name(f"{original.name}-lighter")
        made = compress(original, lighter, scheme="int4-g16", solver="gptq", target="whet", **TEXT)
        assert made["solver"] == "gptq"
        logits.append(load_model(lighter, torch.float32)(TOKENS).logits)
    assert torch.equal(*logits)
    pytest.importorskip("llama_cpp")
    for original in (one, other):
        assert export(original, out=original.with_suffix(".gguf"), kind="F32")["check"]["kl"] < 1e-4


def test_prompts_that_attend_both_ways_have_no_gguf(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its prompts attend in both directions"):
        export(make(tmp_path / "original", "paligemma"), out=tmp_path / "model.gguf")


def test_an_image_token_is_in_the_vocabulary() -> None:
    assert all(model["text_config"]["vocab_size"] > IMAGE for model in MODELS.values())


def test_a_model_that_reads_no_text_alone_is_refused(tmp_path: Path) -> None:
    config = transformers.Blip2Config(
        text_config=MODELS["llava"]["text_config"] | {"model_type": "opt", "ffn_dim": 96, "word_embed_proj_dim": 64},
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2},
        qformer_config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48},
    )
    transformers.Blip2ForConditionalGeneration(config).save_pretrained(tmp_path / "original")
    models.tokenizer().save_pretrained(tmp_path / "original")
    with pytest.raises(UsageError, match="reads no text by itself: every text goes with pixel_values"):
        compress(tmp_path / "original", tmp_path / "lighter", scheme="int4-g32", **TEXT)
