"""Base models, sentence encoders and models that mark answers: they compress with every solver, and compare tells what
became of their states and marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import models
from whet.checkpoint import Checkpoint, load_model
from whet.engines.torch import outputs
from whet.errors import UsageError
from whet.measure.compare import compare
from whet.measure.vectors import Vectors, pooling, summarize_vectors
from whet.recipe.compress import compress
from whet.steps.original import open_original
from whet.targets import find_target
from whet.walk import Walk

DOCUMENTS = models.documents(20)
TEXT: dict[str, Any] = {"text": DOCUMENTS, "samples": 12, "window": 24}
TOKENS = torch.randint(2, 264, (2, 20), generator=torch.Generator().manual_seed(0))
PLAIN = {
    "vocab_size": 264,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
# a family, the class that builds it, what it is compressed with, and whether it has a row
CASES = {
    "bert": ("AutoModel", {"scheme": "int4-g32"}, True),
    "mistral": ("AutoModel", {"scheme": "int4z-g32", "transform": "awq"}, True),
    "gemma3_text": ("AutoModel", {"scheme": "int3s-g32", "solver": "tuned"}, True),
    "gpt2": ("AutoModel", {"scheme": "int4-g32"}, True),
    "distilbert": ("AutoModelForQuestionAnswering", {"scheme": "int4-g32"}, True),
    "qwen2": ("AutoModelForQuestionAnswering", {"scheme": "int4-g32"}, True),
    "xlm-roberta": ("AutoModel", {"scheme": "int3s-g32"}, False),
    "deberta-v2": ("AutoModel", {"scheme": "int4-g32"}, False),
    "electra": ("AutoModelForQuestionAnswering", {"scheme": "int4-g32"}, False),
}


def make(folder: Path, family: str, kind: str) -> Path:
    """A random model whose blocks do something, with a tokenizer."""
    if CASES[family][2]:
        config = models.config(family)
    else:
        config = transformers.AutoConfig.for_model(family, **PLAIN, max_position_embeddings=128, pad_token_id=1)
    torch.manual_seed(0)
    model = getattr(transformers, kind).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
    model.save_pretrained(folder)
    models.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=CASES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """A family, its original, and the lighter folder."""
    folder = tmp_path_factory.mktemp(request.param)
    kind, asked, _ = CASES[request.param]
    original = make(folder / "original", request.param, kind)
    compress(original, folder / "lighter", **asked, **TEXT)
    return request.param, original, folder / "lighter"


def test_stock_transformers_gives_what_the_decoded_weights_give(written: tuple[str, Path, Path]) -> None:
    family, original, lighter = written
    trusted = "auto_map" in Checkpoint(lighter).config
    kind = getattr(transformers, CASES[family][0])
    stock = kind.from_pretrained(lighter, trust_remote_code=trusted, dtype=torch.float32).eval()
    with torch.no_grad():
        assert (outputs(stock, TOKENS) - outputs(load_model(lighter), TOKENS)).abs().max() < 1e-4
    before, after = Checkpoint(original), Checkpoint(lighter)
    assert after.whet is not None
    rounded = set(after.whet["linears"])
    plain = {name for name in before.tensors if name in after.tensors}
    if "transform" not in CASES[family][1]:
        assert all(
            torch.equal(before.read(name), after.read(name)) for name in plain - {f"{x}.weight" for x in rounded}
        )


def test_blocks_streamed_are_the_whole_model(written: tuple[str, Path, Path]) -> None:
    family, original, _ = written
    opened = open_original(original, find_target("transformers"))
    parts, checkpoint = opened.parts, opened.checkpoint
    assert parts.family.known and parts.family.found is not CASES[family][2]
    table = checkpoint.read(parts.embedding.parameter)
    walk = Walk(checkpoint, parts, [TOKENS], [], table, table, "cpu")
    walk.go(_Nothing())
    (states,) = walk.final()
    with torch.no_grad():
        whole = outputs(load_model(original, torch.float32), TOKENS)
    assert (walk.skeleton.outputs(TOKENS, states) - whole).abs().max() < 1e-4 * whole.abs().max()


class _Nothing:
    """A visitor that leaves everything as it is."""

    def visit(self, step: Any) -> dict[str, Any]:
        return {}


def test_compare_tells_of_states_or_marks(written: tuple[str, Path, Path]) -> None:
    family, original, lighter = written
    asked: dict[str, Any] = {"text": models.documents(20, seed=2), "window": 24}
    found, same = (compare(original, other, **asked) for other in (lighter, original))
    told = found["divergence"]
    if CASES[family][0] == "AutoModel":
        assert told["kind"] == "vectors" and {"max_error", "min_cosine", "min_neighbours"} <= set(found["limits"])
        assert 0 < told["error"]["mean"] < 0.7 and 0.7 < told["cosine"]["mean"] < 1
        assert 0.3 < told["neighbours"]["mean"] <= 1
        assert same["divergence"]["error"]["mean"] == 0 and same["divergence"]["neighbours"]["mean"] == 1
    else:
        assert told["of"] == "marks" and 0 < told["kl"]["mean"] < 0.5
        assert same["divergence"]["kl"]["mean"] == 0
    assert same["verdict"] == "pass"


def test_gptq_keeps_more_than_nearest(tmp_path: Path) -> None:
    original = make(tmp_path / "original", "bert", "AutoModel")
    errors = []
    for solver in ("gptq", "nearest"):
        compress(original, tmp_path / solver, scheme="int3s-g32", solver=solver, **TEXT)
        found = compare(original, tmp_path / solver, text=models.documents(20, seed=2), window=24)
        errors.append(found["divergence"]["error"]["mean"])
    assert errors[0] < 0.9 * errors[1]


def test_a_sentence_encoder_stays_one(tmp_path: Path) -> None:
    original = make(tmp_path / "original", "bert", "AutoModel")
    beside = {
        "modules.json": [{"idx": 0, "path": ""}, {"idx": 1, "path": "1_Pooling"}, {"idx": 2, "path": "2_Dense"}],
        "1_Pooling/config.json": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        "2_Dense/config.json": {"in_features": 64, "out_features": 32},
        "sentence_bert_config.json": {"max_seq_length": 100},
    }
    for name, value in beside.items():
        (original / name).parent.mkdir(exist_ok=True)
        (original / name).write_text(json.dumps(value))
    save_file({"linear.weight": torch.randn(32, 64)}, original / "2_Dense" / "model.safetensors")
    compress(original, tmp_path / "lighter", scheme="int4-g32", **TEXT)
    for name in (*beside, "2_Dense/model.safetensors"):
        assert (tmp_path / "lighter" / name).read_bytes() == (original / name).read_bytes()
    found = compare(original, tmp_path / "lighter", text=DOCUMENTS, window=24)
    assert found["divergence"]["pooling"] == "cls"


def test_a_family_is_read_under_the_names_of_its_base_model(tmp_path: Path) -> None:
    """Some embedding models name the architecture with a head and store the base model's tensors."""
    original = models.make(tmp_path / "original", "qwen3", tied=True)
    file = original / "model.safetensors"
    save_file({name.removeprefix("model."): x for name, x in load_file(file).items()}, file, {"format": "pt"})
    compress(original, tmp_path / "lighter", scheme="int4-g32", **TEXT)
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "lighter")
    with torch.no_grad():
        gap = outputs(stock, TOKENS) - outputs(load_model(tmp_path / "lighter"), TOKENS)
    assert gap.abs().max() < 1e-4
    assert "layers.0.self_attn.q_proj.weight_packed" in Checkpoint(tmp_path / "lighter").tensors


def test_a_rotation_and_a_budget_are_refused(tmp_path: Path) -> None:
    original = make(tmp_path / "original", "mistral", "AutoModel")
    with pytest.raises(UsageError, match="states after its last block are what it gives"):
        compress(original, tmp_path / "lighter", scheme="int4-g32", transform="quarot", **TEXT)
    with pytest.raises(UsageError, match="cannot be scored"):
        compress(original, tmp_path / "lighter", bits=9.0, **TEXT)


def test_vectors_are_summed_up_as_they_are_defined() -> None:
    noise = torch.Generator().manual_seed(0)
    first, second = torch.randn(6, 5, 8, generator=noise), torch.randn(6, 5, 8, generator=noise)
    second = first + 0.3 * second
    found = Vectors("lasttoken")
    found.add(first[:4], second[:4], [0, 1, 2, 3])
    found.add(first[4:], second[4:], [4, 5])
    told = summarize_vectors(found, range(6))
    a, b = first[:, -1].double().numpy(), second[:, -1].double().numpy()
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    assert told["cosine"]["mean"] == pytest.approx((a * b).sum(1).mean())
    errors = ((second - first).flatten(1).norm(dim=1) / first.flatten(1).norm(dim=1)).mean()
    assert told["error"]["mean"] == pytest.approx(float(errors), rel=1e-6)
    nearest = [(x @ x.T - 9 * np.eye(6)).argmax(1) for x in (a, b)]
    assert told["neighbours"]["mean"] == pytest.approx((nearest[0] == nearest[1]).mean())


@pytest.mark.parametrize(
    ("said", "pooled"),
    [(None, "mean"), ({"pooling_mode_cls_token": True}, "cls"), ({"pooling_mode": "lasttoken"}, "lasttoken")],
)
def test_pooling_is_the_folders(tmp_path: Path, said: Any, pooled: str) -> None:
    if said is not None:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(said))
    assert pooling(tmp_path) == pooled
