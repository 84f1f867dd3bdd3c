"""Adapters and PEFT: what whet writes PEFT computes to the bit, what PEFT writes whet reads, and both merge alike."""

import json
import shutil

import pytest
import torch

import models
import whet
from whet.adapt import KINDS
from whet.checkpoint import Factors, attach, load_model, read_adapter
from whet.engines.torch import outputs
from whet.errors import UsageError

peft = pytest.importorskip("peft")
TEXT = models.documents(60, 60, seed=3)
TOKENS = torch.arange(24)[None] % models.VOCABULARY
SETTINGS = {"text": TEXT, "steps": 6, "batch": 256, "window": 64, "device": "cpu", "learning_rate": 3e-3}


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request, tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("base") / "base", request.param, tied=True)


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "qalora"])
def test_peft_computes_to_the_bit_what_was_written_and_merged_is_both(base, tmp_path, kind):
    result = whet.tune(base, tmp_path / "adapter", adapter=kind, rank=4, **SETTINGS)
    assert result["check"]["loaded"].startswith("the same logits")
    assert result["held_out"]["helped"]
    stock = load_model(base)
    before = outputs(stock, TOKENS).detach()
    theirs = peft.PeftModel.from_pretrained(stock, tmp_path / "adapter").eval().requires_grad_(False)
    mine = load_model(base)
    attach(mine, read_adapter(tmp_path / "adapter").factors, "cpu")
    expected = outputs(mine, TOKENS).detach()
    assert torch.equal(theirs(input_ids=TOKENS).logits, expected)
    assert (expected - before).abs().max() > 1e-3
    merged = whet.merge(base, tmp_path / "adapter", tmp_path / "merged", device="cpu")
    assert merged["how"] == "weights" and merged["difference"] == 0 and merged["check"]["logits"] < 1e-4
    torch.testing.assert_close(outputs(load_model(tmp_path / "merged"), TOKENS), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        outputs(theirs.merge_and_unload(), TOKENS), outputs(load_model(tmp_path / "merged"), TOKENS), atol=1e-4, rtol=0
    )
    assert whet.verify(tmp_path / "adapter")["verdict"] == whet.verify(tmp_path / "merged")["verdict"] == "pass"


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_peft_wrote_is_read_with_its_patterns(tmp_path, dtype):
    base = models.make(tmp_path / "base", "llama", dtype=dtype)
    for number, more in enumerate(
        [{"use_dora": True}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"up_proj": 5}}]
    ):
        stock = load_model(base)
        config = peft.LoraConfig(r=4, lora_alpha=7, target_modules=["q_proj", "up_proj", "lm_head"], **more)
        made = peft.get_peft_model(stock, config).eval()
        torch.manual_seed(number)
        for name, param in made.named_parameters():
            if "lora" in name:
                param += 0.1 * torch.randn_like(param)
        made.save_pretrained(tmp_path / f"{number}", save_embedding_layers=False)
        mine = load_model(base)
        attach(mine, read_adapter(tmp_path / f"{number}").factors, "cpu")
        assert torch.equal(outputs(mine, TOKENS), made(input_ids=TOKENS).logits), more


def test_others_are_refused_with_what_to_do(base, tmp_path):
    whet.tune(base, tmp_path / "good", lora=2, **SETTINGS | {"steps": 1})
    folder = tmp_path / "good"
    about = json.loads((folder / "adapter_config.json").read_text())
    for changes, said in [
        ({"peft_type": "IA3"}, "of the kind IA3"),
        ({"bias": "all"}, "has bias, which changes more"),
        ({"modules_to_save": ["lm_head"]}, "has modules_to_save"),
        ({"init_lora_weights": "pissa"}, "path_initial_model_for_weight_conversion"),
        ({"lora_alpha": "much"}, "damaged at lora_alpha"),
    ]:
        (folder / "adapter_config.json").write_text(json.dumps(about | changes))
        with pytest.raises(UsageError, match=said):
            read_adapter(folder)
    (folder / "adapter_config.json").write_text(json.dumps(about))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(UsageError, match=r"has no adapter_model.safetensors.*pickles"):
        read_adapter(folder)
    with pytest.raises(UsageError, match="holds no adapter"):
        read_adapter(base)
    shutil.rmtree(folder)


def test_rows_have_the_lengths_that_magnitudes_say():
    torch.manual_seed(0)
    one = Factors(torch.randn(6, 2), torch.randn(2, 5), 0.5, torch.rand(6) + 1)
    torch.testing.assert_close(torch.linalg.norm(one.weight(torch.randn(6, 5)), dim=1), one.magnitude)
