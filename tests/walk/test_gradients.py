"""The walk in reverse: its gradients are those of autograd on the whole model, padding and spilling change nothing."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

import models
from whet.anatomy import anatomy
from whet.checkpoint import Checkpoint
from whet.errors import UsageError
from whet.walk import GradientWalk, Sample, hidden

GENERATOR = torch.Generator().manual_seed(0)
TEXTS = [torch.randint(0, 264, shape, generator=GENERATOR) for shape in ((3, 12), (2, 19))]


class Gather:
    """Everything that is shown, by sample."""

    def __init__(self):
        self.gradients, self.outputs, self.inputs, self.heads, self.embedded, self.left = {}, {}, {}, [], [], []

    def head(self, sample, hidden, chance, slope, position):
        self.heads.append((hidden, chance, position))

    def flow(self, index, linears, flow):
        for linear in linears:
            key = (linear.address, flow.sample.name)
            self.gradients[key] = flow.gradients[linear.address].float()
            self.outputs[key] = flow.outputs[linear.address].float()
            self.inputs[key] = flow.inputs[linear.reads].float()

    def leave(self, index, linears, module, prefix):
        self.left.append(index)
        assert module.get_parameter(linears[0].parameter.removeprefix(prefix)).device.type == "cpu"

    def embedding(self, sample, gradient):
        self.embedded.append(gradient.clone())


def walked(folder, samples, spill=None, compute=torch.float32, events=None):
    checkpoint = Checkpoint(folder)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    gather = Gather()
    listen = (lambda event: None) if events is None else events.append
    walk = GradientWalk(checkpoint, parts, "cpu", compute, spill)
    walk.go(samples, gather, walk.stage(1, listen))
    return gather


def whole(folder, samples, addresses):
    """The same gradients by autograd, with noise of the prediction's covariance from the same generator."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    chance = torch.Generator().manual_seed(0)
    found, embedded = {}, []
    for sample in samples:
        kept = {}
        handles = [
            model.get_submodule(a).register_forward_hook(
                lambda _m, _i, out, a=a, kept=kept: (out.retain_grad(), kept.__setitem__(a, out))[0]
            )
            for a in addresses
        ]
        inputs = model.get_input_embeddings()(sample.tokens).detach().requires_grad_()
        logits = model(inputs_embeds=inputs).logits[sample.counted]
        p = logits.detach().softmax(-1)
        noise = p.sqrt() * torch.empty_like(p).normal_(generator=chance)
        (logits * (noise - p * noise.sum(1, keepdim=True))).sum().backward()
        for handle in handles:
            handle.remove()
        found |= {(a, sample.name): out.grad for a, out in kept.items()}
        embedded.append(inputs.grad)
    return found, embedded


@pytest.fixture(scope="module", params=models.FAMILIES)
def folder(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    return models.make(root / "m", request.param, blocks=3, tied=request.param == "llama", with_tokenizer=False)


def samples():
    return [Sample.of_text(tokens, f"text/{i}") for i, tokens in enumerate(TEXTS)]


def test_gradients_are_those_of_the_whole_model(folder):
    gather = walked(folder, samples())
    assert gather.left == [2, 1, 0]
    expected, embedded = whole(folder, samples(), {address for address, _ in gather.gradients})
    assert expected.keys() == gather.gradients.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(gather.gradients[key], gradient, rtol=1e-3, atol=1e-5 * gradient.abs().max().item())
    for ours, theirs in zip(gather.embedded, embedded, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "phi3", "gpt2", "gpt_neox", "opt", "olmo2", "smollm3"])
def test_gradients_of_every_family_that_is_scored(family, tmp_path):
    """Rows of a fused linear are rows of its gradient; bounded logits and scaled embeddings are followed too."""
    folder = models.make(tmp_path / "m", family, tied=True, with_tokenizer=False)
    gather = walked(folder, samples())
    checkpoint = Checkpoint(folder)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    held = {
        x.address: (x.held.parameter.removesuffix(".weight"), x.held.rows or (0, x.shape[0])) for x in parts.linears()
    }
    expected, embedded = whole(folder, samples(), {module for module, _ in held.values()})
    for (address, name), gradient in gather.gradients.items():
        module, (start, end) = held[address]
        theirs = expected[module, name][..., start:end].reshape(gradient.shape)  # OPT flattens texts into one list
        assert gradient.dim() == 3
        torch.testing.assert_close(gradient, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())
    scale = 8.0 if family.startswith("gemma") else 1.0  # the root of the width
    for ours, theirs in zip(gather.embedded, embedded, strict=True):
        torch.testing.assert_close(ours, theirs * scale, rtol=1e-3, atol=1e-4 * ours.abs().max().item())


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_of_experts_only_the_tokens_that_were_sent_to_them_are_seen(family, tmp_path):
    """Outputs of experts are their inputs times their weights; gradients are those of the weights, by autograd on the
    whole model: the gradient of a weight is the sum over tokens of gradient times input."""
    folder = models.make(tmp_path / "m", family, with_tokenizer=False)
    checkpoint = Checkpoint(folder)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    (sample,) = some = samples()[:1]
    gather = Gather()
    sent = {}
    flow = gather.flow

    def keep(index, linears, given):
        sent.update({(index, reads): tokens for reads, tokens in given.sent.items()})
        linears = [linear for linear in linears if linear.address in given.outputs]
        for linear in linears:  # where each token came from
            if linear.role in ("expert gate", "expert up"):
                before = {tuple(row.tolist()) for row in given.inputs[linear.reads]}
                assert len(before) == len(given.sent[linear.reads])
        flow(index, linears, given)

    gather.flow = keep
    GradientWalk(checkpoint, parts, "cpu").go(some, gather)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, experts_implementation="eager").eval()
    routed = {}
    for index, block in enumerate(model.model.layers):
        block.mlp.experts.register_forward_pre_hook(lambda _m, args, i=index: routed.__setitem__(i, args[1]))
    logits = model(sample.tokens).logits[sample.counted]
    p = logits.detach().softmax(-1)
    noise = p.sqrt() * torch.empty_like(p).normal_(generator=torch.Generator().manual_seed(0))
    (logits * (noise - p * noise.sum(1, keepdim=True))).sum().backward()
    seen = 0
    for index, linears in enumerate(parts.blocks):
        for linear in (one for one in linears if one.held.expert is not None):
            gradient = linear.held.of(model.get_parameter(linear.held.parameter).grad)
            mine = (routed[index] == linear.held.expert).any(-1).nonzero()[:, 0]
            if not len(mine):
                continue
            seen += 1
            assert sorted(sent[index, linear.reads].tolist()) == mine.tolist()
            key = (linear.address, sample.name)
            x, out = gather.inputs[key], gather.outputs[key]
            weight = linear.view(checkpoint.read(linear.parameter)).float()
            torch.testing.assert_close(out, x @ weight.t(), rtol=1e-4, atol=1e-4)
            near = {"rtol": 1e-3, "atol": 1e-4 * gradient.abs().max().item()}
            torch.testing.assert_close(gather.gradients[key].t() @ x, gradient, **near)
    assert seen > 12


def test_inputs_and_outputs_belong_together(folder):
    gather = walked(folder, samples())
    checkpoint = Checkpoint(folder)
    for (address, name), x in gather.inputs.items():
        weight = checkpoint.read(f"{address}.weight")
        bias = checkpoint.tensors.get(f"{address}.bias")
        out = torch.nn.functional.linear(x, weight, None if bias is None else checkpoint.read(f"{address}.bias"))
        torch.testing.assert_close(gather.outputs[address, name], out, rtol=1e-4, atol=1e-4)


def test_the_head_sees_every_counted_position_once(folder):
    sample = Sample.of_text(TEXTS[0], "text/0")
    counted = torch.zeros_like(sample.counted)
    counted[0, 3:7] = counted[2, 11] = True
    gather = walked(folder, [Sample(sample.tokens, sample.real, counted, "skill/en")])
    assert sum(len(hidden) for hidden, _, _ in gather.heads) == 5
    assert all(torch.allclose(chance.sum(1), torch.ones(len(chance))) for _, chance, _ in gather.heads)
    # what comes after the last counted position of a row has no say in it
    gradient = gather.embedded[0]
    assert gradient[0, 7:].abs().max() == 0 and gradient[1].abs().max() == 0 and gradient[2].abs().max() > 0


def test_padding_on_the_right_changes_nothing(folder):
    """One row alone, and the same row padded beside a longer one; every position of the short row counts in both."""
    short, long = TEXTS[0][:1], TEXTS[1][:1]
    tokens = torch.zeros(2, 19, dtype=torch.int64)
    tokens[0, :12], tokens[1] = short, long
    real = torch.ones(2, 19, dtype=torch.bool)
    real[0, 12:] = False
    counted = real.clone()
    counted[0, 11] = False  # nothing follows it
    counted[1] = False  # so that the noise is the short row's alone
    padded = walked(folder, [Sample(tokens, real, counted, "s")])
    alone = walked(folder, [Sample.of_text(short, "s")])
    for key, gradient in alone.gradients.items():
        both = padded.gradients[key]
        torch.testing.assert_close(both[0, :12], gradient[0], rtol=1e-3, atol=1e-5 * gradient.abs().max().item())
        assert both[0, 12:].abs().max() == 0 and both[1].abs().max() == 0


def test_spilled_hidden_states_give_the_same_bits(folder, tmp_path, monkeypatch):
    before = walked(folder, samples())
    monkeypatch.setattr(hidden, "SPILL", 1)
    after = walked(folder, samples(), tmp_path)
    assert not list(tmp_path.iterdir())
    assert all(torch.equal(before.gradients[key], after.gradients[key]) for key in before.gradients)


def test_bfloat16_products_are_near_those_of_float32(folder):
    exact, rough = walked(folder, samples()), walked(folder, samples(), compute=torch.bfloat16)
    for key, gradient in exact.gradients.items():
        # squared sums are what scores are made of
        ratio = rough.gradients[key].square().sum() / gradient.square().sum()
        assert 0.3 < ratio < 3


def test_progress_ends_at_the_end(folder):
    events = []
    walked(folder, samples(), events=events)
    progress = [event for event in events if event["event"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["of"] == 7


def test_damaged_weights_are_named(tmp_path):
    folder = models.make(tmp_path / "m", blocks=1, with_tokenizer=False)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] = float("inf")
    model.save_pretrained(folder)
    with pytest.raises(UsageError, match="NaN or infinite"):
        walked(folder, samples())
