"""Models that decide at run time: sliced is masked, all channels are the original, and exits change nothing behind."""

from __future__ import annotations

import functools

import pytest
import torch

import models
from covering import some
from whet.anatomy import FAMILIES, task_in
from whet.checkpoint import load_model
from whet.engines.chooser import Chooser, chosen, masked, read_prompts, sliced, why_not_chosen
from whet.engines.dynamic import model_parts
from whet.engines.exits import NEVER, Exits, Staged, Used, why_no_exits
from whet.engines.torch import outputs
from whet.pruning.soft_topk import hard_topk

TOKENS = torch.randint(2, 260, (2, 14), generator=torch.Generator().manual_seed(0))
CAUSAL = [name for name, row in FAMILIES.items() if task_in({"model_type": name}) == "causal"]
EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe")  # a block of theirs has many feed-forwards


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")

    @functools.cache
    def made(family="llama"):
        model = load_model(models.make(root / family, family, blocks=3), torch.float32).requires_grad_(False)
        return model, model_parts(model)

    return made


def chooser_of(parts):
    channels = next(x.shape[1] for x in parts.blocks[0] if x.role == "down")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = Chooser(parts.embedding.shape[1], len(parts.blocks), channels, 8).requires_grad_(False)
        torch.nn.init.normal_(made.write.weight)
    return made, channels


@pytest.mark.parametrize("family", some([name for name in CAUSAL if name not in EXPERTS], 5))
@torch.no_grad()
def test_sliced_computes_what_masked_does_and_all_channels_are_the_original(opened, family):
    model, parts = opened(family)
    assert why_not_chosen(parts, model.config.to_dict()) is None
    chooser, channels = chooser_of(parts)
    scores = chooser(read_prompts(model, parts, TOKENS))
    assert not torch.equal(scores[0], scores[1])
    before = outputs(model, TOKENS)
    with masked(model, parts, hard_topk(scores, channels // 3)):
        expected = outputs(model, TOKENS)
    for row in range(2):
        small = sliced(model, parts, chosen(scores[row], channels // 3))
        assert (outputs(small, TOKENS[row : row + 1]) - expected[row]).abs().max() <= 2e-5 * before.abs().max()
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    whole = sliced(model, parts, chosen(scores[0], channels))
    assert torch.equal(outputs(whole, TOKENS), before)
    assert torch.equal(outputs(model, TOKENS), before)  # nothing is left on the model


@torch.no_grad()
def test_a_prompt_is_read_up_to_its_length(opened):
    model, parts = opened()
    read = read_prompts(model, parts, TOKENS, torch.tensor([5, 9]))
    for row, length in enumerate((5, 9)):
        assert torch.allclose(read[row], read_prompts(model, parts, TOKENS[row : row + 1, :length])[0], atol=1e-5)


def exits_of(parts, after=(1, 2)):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        made = Exits(parts.embedding.shape[1], after, 8).requires_grad_(False)
        for part in made.up:
            torch.nn.init.normal_(part, std=0.3)
    return made


def uncached(model, parts, exits, ids, threshold):
    """What follows `ids`, every block computed for every token, and after which exit."""
    hidden = model.base_model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    norm = model.get_submodule(parts.family.norm)
    for number, after in enumerate(exits.after):
        logits = model.get_output_embeddings()(norm(exits(hidden[after], number)))[:, -1]
        if float(logits.softmax(-1).max()) >= threshold:
            return logits, number
    return model(input_ids=ids, use_cache=False).logits[:, -1], len(exits.after)


def test_channels_of_experts_are_not_chosen(opened):
    for family in some(EXPERTS, 3):
        model, parts = opened(family)
        assert why_not_chosen(parts, model.config.to_dict()) is not None


@pytest.mark.parametrize("family", some(("llama", "falcon", "gpt2", "qwen3", "phi3", "gpt_neox"), 3))
@torch.inference_mode()
def test_cached_generation_is_uncached_whatever_left_before(opened, family):
    model, parts = opened(family)
    assert why_no_exits(model, parts) is None
    exits = exits_of(parts)
    # a threshold at which some leave and some do not
    sure = [float(uncached(model, parts, exits, TOKENS[:1, :n], 0.0)[0].softmax(-1).max()) for n in range(2, 14)]
    sure.sort()
    threshold = (sure[5] + sure[6]) / 2
    used = Used.of(3)
    staged, ids, left = Staged(model, parts, exits, threshold, used), TOKENS[:1, :4], []
    new = ids
    for _ in range(12):
        expected, number = uncached(model, parts, exits, ids, threshold)
        found = staged.next(new)
        assert (found - expected).abs().max() < 1e-4
        left.append(number)
        new = found.argmax(-1)[:, None]
        ids = torch.cat([ids, new], 1)
    assert used.tokens == 12 and used.read[0] == 12
    assert used.read[2] == sum(number == 2 for number in left)
    assert used.computed[0] >= used.computed[1] >= used.computed[2]


@torch.inference_mode()
def test_at_a_threshold_of_infinity_nothing_leaves_and_it_is_the_model_bit_for_bit(opened):
    model, parts = opened()
    used = Used.of(3)
    staged = Staged(model, parts, exits_of(parts), NEVER, used)
    cache, new = None, TOKENS[:1, :5]
    for _ in range(6):
        out = model(input_ids=new, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        assert torch.equal(staged.next(new), out.logits[:, -1])
        new = out.logits[:, -1].argmax(-1)[:, None]
    assert used.layers([1, 2, 3]) == (3, 3)


def test_models_that_cannot_are_named_with_the_reason(opened):
    sparse, parts = opened("mixtral")
    assert "experts" in str(why_not_chosen(parts, sparse.config.to_dict()))
    windowed, parts = opened("gemma2")
    assert "attention has a window" in str(why_no_exits(windowed, parts))
