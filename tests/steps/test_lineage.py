"""What a step makes of a step's folder: all that came before it is told, and it computes what the proofs say."""

from __future__ import annotations

import functools
import json

import pytest
import torch

import models
import whet
from whet.checkpoint import Checkpoint, load_model, model_class
from whet.checkpoint.gguf import read_gguf
from whet.engines.torch import cached_outputs, outputs
from whet.events import ignore
from whet.steps.crafts import CRAFTS
from whet.steps.options import Export, Masks, Quantize, Transform
from whet.steps.request import Request, Texts

GENERATOR = torch.Generator().manual_seed(0)
SOLVE, VERIFY = (torch.randint(2, 264, (count, 24), generator=GENERATOR) for count in (8, 5))
TEXT = {"text": SOLVE, "eval_text": VERIFY}
# each of the folder that the one before it made
CHAIN = {
    "transform": Transform.of("transform", kind="awq", scheme="int3s-g32", **TEXT),
    "masks": Masks.of("masks", pattern="2:4", **TEXT),
    "quantize": Quantize.of("quantize", scheme="Q4_0", target="llama.cpp", folder=True, **TEXT),
    "export": Export(to="gguf"),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("lineage") / "model")


@pytest.fixture(scope="module")
def made(original, tmp_path_factory):
    """By the names of steps, one after another: the folder of the last, the one it read, and what it returned."""
    root = tmp_path_factory.mktemp("steps")

    @functools.cache
    def after(*steps):
        source = after(*steps[:-1])[0] if steps[1:] else original
        out = root / " ".join(steps)
        request = Request(source, out, CHAIN[steps[-1]], Texts(), 0, "cpu", ignore)
        return out, source, CRAFTS[steps[-1]].run(request)

    return after


def manifest(folder):
    return json.loads((folder / "whet.json").read_text(encoding="utf-8"))


# -- what is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [("masks", "quantize", "export"), ("transform", "masks", "quantize", "export")])
def test_the_lineage_grows_by_a_record_a_step(original, made, steps):
    first = {"name": "model", "sha256": Checkpoint(original).examine()}
    before = []
    for count, step in enumerate(steps, start=1):
        out, source, _ = made(*steps[:count])
        if step == "export":  # which is no step of the model's: its file tells what the folder does
            told = json.loads(read_gguf(out / "model.gguf").metadata["whet.lineage"])
            assert told["lineage"] == before and told["base_model"] == first
            assert manifest(source)["lineage"] == before
            continue
        told = manifest(out)
        assert told["base_model"] == first
        assert told["lineage"][:-1] == before
        (*_, record) = before = told["lineage"]
        assert record["step"] == step and {"whet", "torch", "transformers"} <= set(record["versions"])
        assert record["model_sha256"] == Checkpoint(source).examine()
    assert [record["step"] for record in before] == [*steps[:-1]]
    assert len({record["model_sha256"] for record in before}) == len(before)


def test_a_file_of_an_original_has_no_lineage(original, tmp_path):
    whet.export(original, out=tmp_path / "m.gguf")
    assert "whet.lineage" not in read_gguf(tmp_path / "m.gguf").metadata


# -- what is computed -------------------------------------------------------------------------------------------------


@torch.no_grad()
def divergence(source, lighter):
    """KL(source ‖ lighter) in nats a token and the share of equal first choices, on the verifying windows."""
    before, after = (outputs(model, VERIFY)[:, :-1].double().log_softmax(-1) for model in (source, lighter))
    kl = (before.exp() * (before - after)).sum(-1).mean().item()
    return kl, (before.argmax(-1) == after.argmax(-1)).double().mean().item()


@torch.no_grad()
@pytest.mark.parametrize(
    "steps", [("masks",), ("transform", "masks"), ("transform", "masks", "quantize")], ids=" ".join
)
def test_logits_are_those_that_the_proof_of_each_step_says(made, steps):
    """What a step measured of its folder against the one that it read is what those two give when they are loaded."""
    out, folder, result = made(*steps)
    source, lighter = load_model(folder), load_model(out)
    kl, top1 = divergence(source, lighter)
    assert result["kl"] == pytest.approx(kl, rel=1e-3) and kl > 1e-4
    assert result["top1"] == pytest.approx(top1, abs=1e-9)
    assert manifest(out)["verify"] == {"kl": result["kl"], "top1": result["top1"]}
    check, proved = result["check"], SOLVE[:1]  # the proof's tokens are the first solving window
    logits = outputs(lighter, proved)
    gap = (cached_outputs(lighter, proved)[:, -1] - logits[:, -1]).abs().max().item()
    assert check["cached against uncached"] == pytest.approx(gap, abs=1e-6)
    if "stock transformers" in check:
        stock = model_class(Checkpoint(out)).from_pretrained(out, local_files_only=True).eval()
        assert (outputs(stock, proved) - logits).abs().max().item() == check["stock transformers"] == 0


@torch.no_grad()
def test_a_transform_of_a_steps_folder_computes_what_that_does(made):
    """Before masks and after them, whose zeros it leaves."""
    for steps in (("transform",), ("masks", "transform")):
        out, folder, result = made(*steps)
        before, after = (outputs(load_model(one), VERIFY) for one in (folder, out))
        assert "awq" in {told["transform"] for told in result["transforms"].values()}
        assert not torch.equal(before, after)
        torch.testing.assert_close(before, after, rtol=0, atol=2e-5 * before.abs().max().item())
    zeros = [{n: Checkpoint(one).read(n) == 0 for n in Checkpoint(one).tensors} for one in (folder, out)]
    assert all(torch.equal(zeros[0][name], zeros[1][name]) for name in zeros[0] if "proj" in name)
    assert any(found.any() for found in zeros[0].values())
