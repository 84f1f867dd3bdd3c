"""Adapters as .gguf files: beside the model in llama.cpp they give what merging gives."""

import pytest
import torch

import models
import whet
from whet.checkpoint import load_model
from whet.checkpoint.gguf import read_gguf
from whet.engines.torch import outputs
from whet.errors import UsageError

FEW = {"text": models.documents(60, 60, seed=3), "steps": 6, "batch": 256, "window": 64, "device": "cpu", "rank": 4}
TOKENS = torch.arange(2, 26)


@pytest.mark.parametrize(("family", "adapter"), [("llama", "lora"), ("llama", "pissa"), ("gpt2", "rslora")])
def test_base_and_adapter_in_llama_cpp_are_the_merged_model(tmp_path, family, adapter):
    llama = pytest.importorskip("llama_cpp")
    base = models.make(tmp_path / "base", family, tied=True)
    whet.tune(base, tmp_path / "adapter", adapter=adapter, learning_rate=1e-2, **FEW)
    whet.export(base, out=tmp_path / "base.gguf", kind="f32")
    made = whet.export(tmp_path / "adapter", out=tmp_path / "adapter.gguf")
    assert made["check"] == {"header": "valid", "weights": "equal, bit for bit"}
    entries = read_gguf(tmp_path / "adapter.gguf").metadata
    assert entries["general.type"] == "adapter" and entries["adapter.type"] == "lora"
    model = llama.Llama(
        str(tmp_path / "base.gguf"),
        lora_path=str(tmp_path / "adapter.gguf"),
        n_ctx=64,
        logits_all=True,
        verbose=False,
        n_threads=1,
    )
    model.eval(TOKENS.tolist())
    theirs = torch.tensor(model.scores[: len(TOKENS)]).log_softmax(-1)
    whet.merge(base, tmp_path / "adapter", tmp_path / "merged", device="cpu")
    with torch.no_grad():
        mine, before = (
            outputs(load_model(folder), TOKENS[None])[0].log_softmax(-1) for folder in (tmp_path / "merged", base)
        )
    assert (mine - before).abs().max() > 0.1
    assert (mine - theirs).abs().max() < 0.02  # llama.cpp keeps keys and values in float16


def test_what_is_no_file_for_llama_cpp_is_refused_with_the_reason(tmp_path):
    base = models.make(tmp_path / "base", "llama")
    whet.tune(base, tmp_path / "dora", adapter="dora", **FEW | {"steps": 1})
    out = tmp_path / "adapter.gguf"
    with pytest.raises(UsageError, match=r"is a DoRA.*whet merge"):
        whet.export(tmp_path / "dora", out=out)
    with pytest.raises(UsageError, match="--type"):
        whet.export(tmp_path / "dora", out=out, kind="f16")
    with pytest.raises(UsageError, match="base is of adapters"):
        whet.export(base, out=out, base=base)
    base.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match="--base MODEL"):
        whet.export(tmp_path / "dora", out=out)
    assert not out.exists()
