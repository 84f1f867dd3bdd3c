"""The verb `merge`, into quantized models: exactly where zeros are real, else beside the codes or rounded again."""

import json

import pytest
import torch

import models
import whet
from killing import Ticks, killed
from whet.checkpoint import Checkpoint, attach, load_model, read_adapter
from whet.engines.torch import outputs
from whet.errors import UsageError

TEXT = models.documents(60, 60, seed=3)
TOKENS = torch.arange(24)[None] % models.VOCABULARY
FEW = {"text": TEXT, "steps": 6, "batch": 256, "window": 64, "device": "cpu", "learning_rate": 3e-3, "rank": 4}
FAMILIES = {"llama": {}, "phi3": {"hidden_act": "silu"}}


@pytest.fixture(scope="module", params=FAMILIES)
def rounded(request, tmp_path_factory):
    """A quantized folder whose zeros are real: of one family with fused rows, too."""
    root = tmp_path_factory.mktemp("rounded")
    base = models.make(root / "base", request.param)
    whet.compress(base, root / "rounded", scheme="int4z-g32", solver="nearest", device="cpu")
    return root / "rounded"


@torch.no_grad()
def logits(folder, adapter=None):
    model = load_model(folder, torch.float32)
    if adapter is not None:
        attach(model, read_adapter(adapter).factors, "cpu")
    return outputs(model, TOKENS)


def codes(folder):
    found = Checkpoint(folder)
    return {name: found.read(name) for name in found.tensors if name.endswith(("weight_packed", "weight_scale"))}


def test_into_real_zeros_it_goes_exactly_and_comes_out_again(rounded, tmp_path):
    result = whet.tune(rounded, tmp_path / "adapter", adapter="qalora", **FEW)
    assert result["held_out"]["helped"]
    expected = logits(rounded, tmp_path / "adapter")
    assert (expected - logits(rounded)).abs().max() > 1e-3
    merged = whet.merge(rounded, tmp_path / "adapter", tmp_path / "merged", device="cpu")
    assert merged["how"] == "exact" and merged["codes"] == "untouched"
    assert (logits(tmp_path / "merged") - expected).abs().max() < 1e-4
    first, second = codes(rounded), codes(tmp_path / "merged")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    twice = whet.merge(tmp_path / "merged", tmp_path / "adapter", tmp_path / "twice", device="cpu")
    assert twice["how"] == "exact"
    whet.merge(tmp_path / "twice", tmp_path / "adapter", tmp_path / "once", undo=True, device="cpu")
    whet.merge(tmp_path / "once", tmp_path / "adapter", tmp_path / "none", undo=True, device="cpu")
    before, after = Checkpoint(rounded), Checkpoint(tmp_path / "none")
    assert all(torch.equal(before.read(name), after.read(name)) for name in before.tensors)
    assert before.whet["linears"] == after.whet["linears"] and before.config == after.config
    for folder in ("merged", "twice", "once", "none"):
        assert whet.verify(tmp_path / folder)["verdict"] == "pass"
    with pytest.raises(UsageError, match="nothing was merged into"):
        whet.merge(rounded, tmp_path / "adapter", tmp_path / "more", undo=True, device="cpu")


def test_the_modelling_file_reads_what_was_merged(rounded, tmp_path):
    import transformers

    whet.tune(rounded, tmp_path / "adapter", adapter="qalora", **FEW)
    whet.merge(rounded, tmp_path / "adapter", tmp_path / "merged", device="cpu")
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", trust_remote_code=True)
    with torch.no_grad():
        assert torch.equal(stock.eval()(input_ids=TOKENS).logits, logits(tmp_path / "merged"))


def test_what_cannot_be_added_to_codes_is_kept_beside_them_and_said(rounded, tmp_path):
    whet.tune(rounded, tmp_path / "adapter", adapter="lora", **FEW)
    expected = logits(rounded, tmp_path / "adapter")
    merged = whet.merge(rounded, tmp_path / "adapter", tmp_path / "merged", device="cpu")
    assert merged["how"] == "beside"
    assert any(
        "kept beside the codes" in str(note) and "differs within groups" in str(note) for note in merged["notes"]
    )
    assert (logits(tmp_path / "merged") - expected).abs().max() < 1e-4
    again = whet.tune(tmp_path / "merged", tmp_path / "second", adapter="rslora", **FEW)
    assert again["held_out"]["start"] == pytest.approx(result_after(tmp_path / "adapter"), abs=1e-4)
    whet.merge(tmp_path / "merged", tmp_path / "second", tmp_path / "both", device="cpu")
    assert (logits(tmp_path / "both") - logits(tmp_path / "merged", tmp_path / "second")).abs().max() < 1e-4
    with pytest.raises(UsageError, match=r"cannot be merged into codes exactly.*--how beside"):
        whet.merge(rounded, tmp_path / "adapter", tmp_path / "more", how="exact", device="cpu")


def result_after(folder):
    return json.loads((folder / "whet.json").read_text())["verify"]["loss_after"]


def test_a_dora_is_rounded_again_or_quantized_no_more(rounded, tmp_path):
    whet.tune(rounded, tmp_path / "adapter", adapter="dora", **FEW)
    expected = logits(rounded, tmp_path / "adapter")
    with pytest.raises(UsageError, match=r"is a DoRA.*--how round"):
        whet.merge(rounded, tmp_path / "adapter", tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
    whet.merge(rounded, tmp_path / "adapter", tmp_path / "dense", how="dense", device="cpu")
    assert Checkpoint(tmp_path / "dense").dense
    assert (logits(tmp_path / "dense") - expected).abs().max() < 1e-3
    result = whet.merge(rounded, tmp_path / "adapter", tmp_path / "round", how="round", text=TEXT, device="cpu")
    assert "kl" in result and any("rounded again" in str(note) for note in result["notes"])
    lineage = [one["step"] for one in Checkpoint(tmp_path / "round").whet["lineage"]]
    assert lineage == ["quantize", "merge", "quantize"]
    assert whet.verify(tmp_path / "round")["verdict"] == whet.verify(tmp_path / "dense")["verdict"] == "pass"


def test_rounding_to_the_stored_type_is_told_and_others_refused(rounded, tmp_path):
    base = models.make(tmp_path / "base", "llama", dtype=torch.bfloat16)
    whet.tune(base, tmp_path / "adapter", adapter="lora", **FEW)
    result = whet.merge(base, tmp_path / "adapter", tmp_path / "merged", device="cpu")
    assert 0 < result["difference"] < 1 and any("rounding to bfloat16" in str(note) for note in result["notes"])
    with pytest.raises(UsageError, match="is not quantized"):
        whet.merge(base, tmp_path / "adapter", tmp_path / "out", how="beside", device="cpu")
    with pytest.raises(UsageError, match=r"how besid is not known. Did you mean beside"):
        whet.merge(rounded, tmp_path / "adapter", tmp_path / "out", how="besid", device="cpu")
    other = models.make(tmp_path / "other", "llama", hidden_size=32)
    with pytest.raises(UsageError, match="which the model's are not"):
        whet.merge(other, tmp_path / "adapter", tmp_path / "out", device="cpu")
    with pytest.raises(UsageError, match="holds no adapter"):
        whet.merge(base, base, tmp_path / "out", device="cpu")
    with pytest.raises(UsageError, match=r"holds an adapter for .*whet merge"):
        Checkpoint(tmp_path / "adapter")


def test_a_killed_merge_begins_again(tmp_path):
    base = models.make(tmp_path / "base", "llama")
    whet.tune(base, tmp_path / "adapter", adapter="lora", **FEW)
    whet.merge(base, tmp_path / "adapter", tmp_path / "whole", device="cpu")
    killed(lambda: whet.merge(base, tmp_path / "adapter", tmp_path / "out", device="cpu"), lambda: Ticks(12))
    assert whet.status(tmp_path / "out")["state"] == "stopped"
    assert whet.resume(tmp_path / "out")["how"] == "weights"
    assert models.contents(tmp_path / "out") == models.contents(tmp_path / "whole")
