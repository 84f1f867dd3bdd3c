"""The step `prune` on models that read images beside text: the text model inside gets smaller, the rest stays."""

from __future__ import annotations

import pytest
import torch
import transformers

import models
from larger_models import image_inputs, make
from whet.anatomy import auto_class
from whet.checkpoint import Checkpoint, load_model
from whet.engines.torch import outputs
from whet.errors import UsageError
from whet.recipe.compress import compress
from whet.recipe.prune import prune

TEXT = {"text": models.documents(14), "samples": 8, "window": 24}
TOKENS = torch.randint(2, 250, (2, 20), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("family", "units", "share"),
    [
        ("gemma3", "layers", 0.5),
        ("qwen2_5_vl", "channels", 0.2),
        ("llava", "channels,layers", 0.5),
        ("qwen3_vl", "heads", 0.15),
    ],
)
def test_the_text_model_gets_smaller_and_the_rest_stays_bit_for_bit(tmp_path, family, units, share):
    original, out = make(tmp_path / "original", family), tmp_path / "out"
    made = prune(original, out, units=units, remove=share, **TEXT)
    assert made["check"]["before against after"] < 1e-3 and made["kl"] >= 0
    before, after = Checkpoint(original), Checkpoint(out)
    around = [name for name in before.tensors if ".layers." not in name or "vision" in name or "visual" in name]
    assert around and all(torch.equal(before.read(name), after.read(name)) for name in around)
    assert sum(info.nbytes for info in after.tensors.values()) < sum(info.nbytes for info in before.tensors.values())
    stock, found = getattr(transformers, auto_class(after.config)).from_pretrained(out, output_loading_info=True)
    assert not found["missing_keys"] and not found["mismatched_keys"]
    with torch.no_grad():
        given = image_inputs(family)
        seen, blind = stock.eval()(**given).logits, outputs(stock, given["input_ids"])
        assert torch.isfinite(seen).all() and (seen - blind).abs().max() > 1e-3  # the image is looked at
        assert torch.equal(outputs(stock, TOKENS), outputs(load_model(out, stock.dtype), TOKENS))


def test_the_next_step_quantizes_it_and_that_loses_blocks(tmp_path):
    prune(make(tmp_path / "original", "llava"), tmp_path / "pruned", units="channels", remove=0.2, **TEXT)
    compress(tmp_path / "pruned", tmp_path / "small", scheme="int4-g32", solver="nearest")
    made = prune(tmp_path / "small", tmp_path / "out", units="layers", remove=0.5, **TEXT)
    assert made["codes"] == "untouched" and len(Checkpoint(tmp_path / "out").whet["lineage"]) == 3


def test_blocks_that_images_enter_by_number_stay(tmp_path):
    with pytest.raises(UsageError, match="images enter certain blocks"):
        prune(make(tmp_path / "original", "qwen3_vl"), tmp_path / "out", units="layers", remove=0.5, **TEXT)
