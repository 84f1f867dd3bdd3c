"""The walk: block by block is the whole forward, second moments are those of brute force, spilling changes nothing."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

import models
from whet.anatomy import anatomy
from whet.checkpoint import Checkpoint
from whet.errors import UsageError
from whet.walk import SecondMoments, Walk, hidden, placed

# two lengths, both longer than Mistral's window of 6
GENERATOR = torch.Generator().manual_seed(0)
SOLVE = [torch.randint(0, 264, shape, generator=GENERATOR) for shape in ((3, 12), (2, 12), (1, 19))]
VERIFY = [torch.randint(0, 264, (2, 12), generator=GENERATOR)]


class Untouched:
    def visit(self, step):
        return {}


class Gather:
    """Second moments of every block; nothing is replaced."""

    def __init__(self):
        self.found = {}

    def visit(self, step):
        moments = step.second_moments()
        for linear in step.linears:
            self.found[linear.address] = moments.mean(linear.reads)
        return {}


def opened(folder):
    checkpoint = Checkpoint(folder)
    return checkpoint, anatomy(checkpoint.config, checkpoint.shapes)


def walked(folder, visitor=None, lighter=None, solve=SOLVE, verify=VERIFY, spill=None, compute=torch.float32):
    checkpoint, parts = opened(folder)
    table = checkpoint.read(parts.embedding.parameter)
    walk = Walk(checkpoint, parts, solve, verify, table, table if lighter is None else lighter, "cpu", spill, compute)
    walk.go(visitor or Untouched())
    return walk


@pytest.fixture(scope="module", params=models.FAMILIES)
def folder(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    return models.make(root / "m", request.param, blocks=3, shards=True, with_tokenizer=False)


def whole(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def test_streamed_blocks_are_the_whole_forward(folder):
    model = whole(folder)
    walk = walked(folder)
    for batch, final in zip(SOLVE, walk.final(), strict=True):
        assert torch.allclose(model.lm_head(final), model(batch).logits, atol=2e-5, rtol=1e-5)
    ((original, lighter),) = walk.verified()
    assert torch.equal(original, lighter) and walk.drift == [0.0, 0.0, 0.0]
    assert torch.allclose(model.lm_head(original), model(VERIFY[0]).logits, atol=2e-5, rtol=1e-5)


class Disturbed:
    """Every block gets weights of its own; what `forward` gives with them beforehand is what the lighter stream
    becomes, and `target` is what the block gave before them, for the original stream."""

    def __init__(self, walk):
        self.walk, self.forwards, self.targets = walk, [], []

    def visit(self, step):
        chance = torch.Generator().manual_seed(step.index)
        weights = {x.address: step.weight(x) * 1.05 for x in step.linears}
        batches = range(self.walk.solving)
        assert torch.equal(step.forward({}, 0), self.walk.run(step, self.walk.lighter[0], 0))
        self.forwards.append([step.forward(weights, batch) for batch in batches])
        self.targets.append([step.target(batch).clone() for batch in batches])
        norm = next(name for name, value in step.module.named_parameters() if value.dim() == 1)
        given = {address: w.clone().requires_grad_() for address, w in weights.items()}
        scale = step.module.get_parameter(norm).detach().clone().requires_grad_()
        with torch.enable_grad():
            parameters = {norm: scale, **placed(step.linears, given, step.module, step.prefix)}
            out = self.walk.run(step, self.walk.lighter[1], 1, parameters)
            assert torch.equal(out, step.forward(given, 1))
            (out * torch.randn(out.shape, generator=chance)).sum().backward()
        assert (
            all(w.grad.abs().amax(1).gt(0).float().mean() > 0.5 for w in given.values()) and scale.grad.abs().sum() > 0
        )
        self.unchanged = {x.address: step.weight(x).clone() for x in step.linears}
        assert all(torch.equal(weights[a], w * 1.05) for a, w in self.unchanged.items())
        return weights


def test_a_block_is_run_with_other_weights_and_gradients_reach_them(folder):
    checkpoint, parts = opened(folder)
    table = checkpoint.read(parts.embedding.parameter)
    walk = Walk(checkpoint, parts, SOLVE, VERIFY, table, table, "cpu", follow=True)
    visitor = Disturbed(walk)
    with torch.no_grad():
        walk.go(visitor)
    for batch, final in enumerate(visitor.forwards[-1]):
        assert torch.allclose(final, walk.lighter[batch], atol=1e-6)
    original = walked(folder, solve=SOLVE[:1])
    norm = walk.skeleton.load_norm()
    assert torch.allclose(norm(visitor.targets[-1][0]), next(iter(original.final())), atol=1e-5)
    ((first, second),) = walk.verified()
    assert not torch.allclose(first, second) and min(walk.drift) > 1e-4


@torch.no_grad()
def test_drifts_are_those_of_brute_force_whatever_runs_first(folder):
    """Of each input from the original's, on a lighter stream that the blocks before have moved; and the streams end
    where they do without them."""
    checkpoint, parts = opened(folder)
    table = checkpoint.read(parts.embedding.parameter)

    class Moved:
        def __init__(self, drifts):
            self.drifts, self.found, self.moments = drifts, {}, {}

        def visit(self, step):
            if self.drifts:
                moments = step.second_moments(drifts=True)
                self.moments |= {x.address: moments.mean(x.reads) for x in step.linears}
                taken = {reads: moments.take(reads)[1] for reads in dict.fromkeys(x.reads for x in step.linears)}
                self.found |= {x.address: taken[x.reads] for x in step.linears}
                assert not moments.sums and not moments.drifts
                assert all(torch.equal(step.target(i), step.walk.original[i]) for i in range(step.walk.solving))
            return {x.address: step.weight(x) * 1.05 for x in step.linears}

    walks = []
    for drifts in (True, False):
        visitor = Moved(drifts)
        walks.append(Walk(checkpoint, parts, SOLVE, VERIFY, table, table, "cpu", follow=True))
        walks[-1].go(visitor)
        if drifts:
            asked = visitor
    for mine, other in ((walks[0].original, walks[1].original), (walks[0].lighter, walks[1].lighter)):
        assert all(torch.equal(mine[i], other[i]) for i in range(len(mine)))

    def inputs(moved):
        """What goes into every linear, of a model with blocks before its own moved."""
        model, heard = whole(folder), {}
        for index, block in enumerate(parts.blocks):
            for linear in block:
                kept = model.get_submodule(linear.address)
                kept.register_forward_pre_hook(
                    lambda _m, args, a=linear.address: heard.setdefault(a, []).append(args[0].flatten(0, -2))
                )
            if moved and index == moved - 1:
                break
        for block in parts.blocks[: moved - 1] if moved else ():
            for linear in block:
                linear.held.of(model.get_parameter(linear.held.parameter).data).mul_(1.05)
        for batch in SOLVE:
            model(batch)
        return {address: torch.cat(some) for address, some in heard.items()}

    original = inputs(0)
    for index, block in enumerate(parts.blocks):
        lighter = inputs(index + 1)
        for linear in block:
            x, before = lighter[linear.address].double(), original[linear.address].double()
            expected = (before - x).t() @ x / len(x)
            size = asked.moments[linear.address].max().item()
            assert torch.allclose(asked.found[linear.address].double(), expected, rtol=1e-3, atol=2e-5 * size)
    assert asked.found[parts.blocks[0][0].address].abs().max() == 0


VARIANTS = {
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "heads wider than the model": ("llama", {"head_dim": 24}),
    "one key-value head": ("llama", {"num_key_value_heads": 1}),
    "dynamic rope": ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}),
    "yarn": (
        "qwen3",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "full attention below, windows above": (
        "qwen3",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_streamed_blocks_of_unusual_configs(tmp_path, name):
    family, settings = VARIANTS[name]
    folder = models.make(tmp_path / "m", family, with_tokenizer=False, **settings)
    model = whole(folder)
    walk = walked(folder)
    for batch, final in zip(SOLVE, walk.final(), strict=True):
        assert torch.allclose(model.lm_head(final), model(batch).logits, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_second_moments_are_those_of_brute_force(folder):
    model = whole(folder)
    sums = {}

    def hook(name):
        def add(_module, args):
            x = args[0].reshape(-1, args[0].shape[-1]).double()
            sums[name] = sums.get(name, 0) + x.t() @ x

        return add

    _, parts = opened(folder)
    for linear in parts.linears():
        model.get_submodule(linear.address).register_forward_pre_hook(hook(linear.address))
    for batch in SOLVE:
        model(batch)
    tokens = sum(batch.numel() for batch in SOLVE)
    gather = Gather()
    walked(folder, gather)
    assert set(gather.found) == set(sums)
    for name, h in gather.found.items():
        assert h.dtype == torch.float32
        assert torch.allclose(h.double(), sums[name] / tokens, rtol=1e-4, atol=1e-6 * sums[name].max().item() / tokens)


@torch.no_grad()
def test_the_lighter_stream_is_the_model_with_the_replaced_weights(folder):
    class Halve:
        def visit(self, step):
            return {linear.address: step.weight(linear) * 0.5 for linear in step.linears if linear.role == "down"}

    checkpoint, parts = opened(folder)
    lighter = checkpoint.read(parts.embedding.parameter) * 0.9
    walk = walked(folder, Halve(), lighter)
    original = whole(folder)
    changed = whole(folder)
    changed.model.embed_tokens.weight.data.mul_(0.9)
    for block in changed.model.layers:
        block.mlp.down_proj.weight.data.mul_(0.5)
    ((first, second),) = walk.verified()
    assert torch.allclose(changed.lm_head(second), changed(VERIFY[0]).logits, atol=2e-5, rtol=1e-5)
    assert torch.allclose(original.lm_head(first), original(VERIFY[0]).logits, atol=2e-5, rtol=1e-5)
    assert len(walk.drift) == 3 and all(d > 0 for d in walk.drift)


def test_the_next_block_sees_what_the_lighter_one_before_made(folder):
    class Kill:
        """Takes moments, then zeroes everything in the first block."""

        def __init__(self):
            self.moments = []

        def visit(self, step):
            self.moments.append(step.second_moments().mean("attention input"))
            return {linear.address: step.weight(linear) * 0 for linear in step.linears} if step.index == 0 else {}

    kill, gather = Kill(), Gather()
    walked(folder, kill)
    walked(folder, gather)
    first, second = (f"model.layers.{i}.self_attn.q_proj" for i in (0, 1))
    assert torch.equal(kill.moments[0], gather.found[first])
    assert not torch.allclose(kill.moments[1], gather.found[second], rtol=0.01)


def test_blocks_are_freed_and_weights_put_back(folder):
    seen = []

    class Look:
        def visit(self, step):
            seen.append([i for i, b in enumerate(step.walk.skeleton.blocks) if not next(b.parameters()).is_meta])
            return {step.linears[0].address: torch.zeros(step.linears[0].shape)}

    walk = walked(folder, Look())
    assert seen == [[0], [1], [2]]
    assert all(p.is_meta for b in walk.skeleton.blocks for p in b.parameters())


def test_hidden_states_in_a_file_have_the_same_bits(folder, tmp_path, monkeypatch):
    kept = walked(folder, Gather())
    monkeypatch.setattr(hidden, "SPILL", 0)
    gather = Gather()
    spilled = walked(folder, gather, spill=tmp_path)
    assert list(tmp_path.iterdir()) == []
    for a, b in zip(kept.lighter.batches, spilled.lighter.batches, strict=True):
        assert torch.equal(a, b)
    assert (
        spilled.lighter.batches[0].untyped_storage().data_ptr()
        == spilled.lighter.batches[1].untyped_storage().data_ptr()
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computing_is_in_float32_whatever_is_stored(tmp_path, dtype):
    folder = models.make(tmp_path / "m", dtype=dtype, with_tokenizer=False)
    walk = walked(folder)
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for batch, final in zip(SOLVE, walk.final(), strict=True):
            assert final.dtype == torch.float32
            assert torch.allclose(model.lm_head(final), model(batch).logits, atol=2e-5, rtol=1e-5)


def test_products_in_bfloat16_leave_the_hidden_states_in_float32(tmp_path):
    """As near to float32 as one bfloat16 product after another is, and not the same: the type was used."""
    folder = models.make(tmp_path / "m", dtype=torch.bfloat16, with_tokenizer=False)
    exact, fast = walked(folder), walked(folder, compute=torch.bfloat16)
    for one, other in zip(exact.final(), fast.final(), strict=True):
        assert other.dtype == torch.float32
        assert not torch.equal(one, other)
        assert (one - other).norm() < 0.03 * one.norm()


def test_inputs_that_are_not_finite_name_the_linear_and_the_token():
    class Linear:
        def __init__(self, address):
            self.address, self.reads = address, "x"

    moments = SecondMoments([Linear("model.layers.1.mlp.down_proj")], "model.layers.1.")
    moments.tokens = 100
    x = torch.ones(8, 4)
    moments.add("x", x)
    x[5, 2] = float("inf")
    with pytest.raises(UsageError, match=r"model\.layers\.1\.mlp\.down_proj: 1 inputs are NaN.*first at token 105"):
        moments.add("x", x)
