"""Scales of keys and values in the folder: stock transformers computes what whet does, vLLM's names and shapes, compare
judges with them, runs resume to the same bytes, and what no reader takes is refused first."""

from __future__ import annotations

import json

import pytest
import torch
from compressed_tensors.quantization import QuantizationConfig

import models
from covering import matrix
from killing import Ticks, counted, hashes, killed
from whet.checkpoint import Checkpoint, load_as_others
from whet.engines.torch import open_model
from whet.errors import UsageError
from whet.formats.pack import pack, unpack
from whet.grids import CACHE_GRIDS, find_cache_grid
from whet.measure.compare import compare
from whet.recipe.compress import compress
from whet.recipe.resume import resume

DOCUMENTS = models.documents(60, 30)
TEXT = {"text": DOCUMENTS, "samples": 8, "window": 24, "solver": "nearest"}
TOKENS = torch.randint(2, 264, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    made = {}

    def original(family, dtype=torch.bfloat16):
        if (family, dtype) not in made:
            made[family, dtype] = models.make(tmp_path_factory.mktemp(family) / "model", family, dtype=dtype)
        return made[family, dtype]

    return original


@matrix({"kv": CACHE_GRIDS, "family": {"llama": torch.bfloat16, "gemma2": torch.bfloat16, "phi3": torch.float16}})
def test_stock_transformers_rounds_as_whet_does(kv, family, tmp_path, originals):
    """To the bit, with layers that look back over a window only too; and without scales the logits are others."""
    dtype = {"phi3": torch.float16}.get(family, torch.bfloat16)
    compress(originals(family, dtype), tmp_path / "out", scheme="int8s", kv=kv, **TEXT)
    own = open_model(tmp_path / "out")
    stock = load_as_others(Checkpoint(tmp_path / "out"), None, "cpu")
    with torch.no_grad():
        theirs = stock(input_ids=TOKENS, use_cache=False).logits
    assert torch.equal(own.logits(TOKENS), theirs)
    own.keep("16")
    assert not torch.equal(own.logits(TOKENS), theirs)


def test_names_shapes_and_config_are_those_that_vllm_reads(tmp_path, originals):
    compress(originals("llama"), tmp_path / "out", scheme="int8s", kv="fp8", target="vllm", **TEXT)
    folder = Checkpoint(tmp_path / "out")
    names = [f"model.layers.{i}.self_attn.{part}_scale" for i in range(2) for part in "kv"]
    assert sorted(folder.kv) == sorted(names) and all(info.shape == (1,) for info in folder.kv.values())
    assert not set(names) & set(folder.tensors) and folder.whet["kv"] == {"kind": "fp8"}
    read = QuantizationConfig.model_validate(folder.config["quantization_config"])
    scheme = read.kv_cache_scheme
    assert (scheme.num_bits, scheme.type, scheme.strategy, scheme.symmetric) == (8, "float", "tensor", True)


def test_scales_hold_what_reaches_them_and_compare_judges_with_them(tmp_path, originals):
    made = compress(originals("llama"), tmp_path / "out", scheme="int8s", kv="int8-head", **TEXT)
    plain = compress(originals("llama"), tmp_path / "plain", scheme="int8s", **TEXT)
    engine = open_model(tmp_path / "out")
    assert engine.own == "int8-head" and made["kl"] > plain["kl"]
    cache = engine.new_cache()
    engine._step(TOKENS, cache, {})
    assert {layer.kept[0].codes.dtype for layer in cache.layers} == {torch.int8}
    asked = {"text": DOCUMENTS, "windows": 4, "window": 24, "speed": False}
    kept = compare(originals("llama"), tmp_path / "out", **asked)
    bare = compare(originals("llama"), tmp_path / "out", **asked, kv="16")
    assert kept["options"]["kv"] == "int8-head" and "positions" in kept["divergence"]
    assert kept["divergence"]["kl"]["mean"] != bare["divergence"]["kl"]["mean"]


def test_packed_and_unpacked_the_same(tmp_path, originals):
    compress(originals("llama"), tmp_path / "out", scheme="int8s", kv="fp8", **TEXT)
    pack(tmp_path / "out", tmp_path / "out.whet")
    unpack(tmp_path / "out.whet", tmp_path / "again")
    assert hashes(tmp_path / "again") == hashes(tmp_path / "out")


def test_killed_and_resumed_the_same_bytes(tmp_path, originals):
    def work(out):
        return compress(originals("llama"), out, scheme="int8s", kv="int8-head", **TEXT)

    work(tmp_path / "whole")
    count = counted(lambda: work(tmp_path / "counted"))
    killed(lambda: work(tmp_path / "out"), lambda: Ticks(3 * count // 4))
    resume(tmp_path / "out")
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


REFUSED = [
    ({"kv": "fp9"}, "'fp9' is not known. Did you mean fp8"),
    ({"kv": "int8"}, "int8 finds its scales while the model runs.*int8-tensor"),
    ({"kv": "int8-tensor", "target": "vllm"}, "vllm reads stored scales of fp8 or fp8-head.*--for transformers"),
    ({"kv": "fp8", "target": "llama.cpp", "scheme": "Q8_0"}, "reads stored scales of none"),
    ({"kv": "fp8", "scheme": "int3z-g8"}, "beside symmetric schemes of the blocks alone.*real zeros"),
    ({"kv": "fp8", "scheme": None, "fit": "50%"}, "kv goes with scheme and plan.*and fit makes several"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_what_no_reader_takes_is_refused_first(options, said, tmp_path, originals):
    given = {**TEXT, "scheme": "int8s", **options}
    with pytest.raises(UsageError, match=said):
        compress(originals("llama"), tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_its_scales_or_asked_for_others(tmp_path, originals):
    compress(originals("llama"), tmp_path / "out", scheme="int8s", kv="fp8", **TEXT)
    with pytest.raises(UsageError, match="holds no scales for int8-head: it is made for fp8"):
        open_model(tmp_path / "out", kv="int8-head")
    manifest = json.loads((tmp_path / "out" / "whet.json").read_text())
    manifest["kv"]["kind"] = "fp8-head"
    (tmp_path / "out" / "whet.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="is no scale of fp8-head"):
        open_model(tmp_path / "out")


@pytest.mark.parametrize("name", CACHE_GRIDS)
def test_a_grid_holds_its_largest_value(name):
    grid = find_cache_grid(name)
    x = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 30, 0]).view(3, 1, 1)
    rows = x.transpose(0, 1).flatten(1)
    largest = rows.abs().amax(1) if grid.per == "head" else rows.abs().max().reshape(1)
    again = grid.rounded(x, grid.scale_of(largest, torch.float32))
    assert (again - x).abs().max() <= x.abs().max() / (127 if grid.values == "int" else 16)
    assert not again[:, 2].any() and torch.isfinite(again).all()
