"""Experts of families without a row: found by what their matrices are multiplied with, and solved on the tokens that
come to them; routers are found by where turned outputs send tokens, whatever they are called."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

import models
import tiny_families
import whet
from whet.anatomy import anatomy
from whet.checkpoint import Checkpoint, load_model
from whet.errors import UsageError
from whet.steps.original import open_original
from whet.targets import find_target
from whet.walk import Untouched, Walk
from whet.walk.products import Products

TEXT = models.documents(60)
TOKENS = torch.randint(3, 260, (2, 16), generator=torch.Generator().manual_seed(0))
# One of each way that experts may be stored and run: listed in files; stacked, transposed, alternating and with biases;
# all at once on tokens weighed before; in attention too; beside shared ones, after a dense block; without a gate, in a
# model with another prefix in its files; a router whose name no list has; a router that is a linear giving more; beside
# recurrent blocks.
CASES = ("olmoe", "gpt_oss", "llama4_text", "jetmoe", "deepseek_v3", "nemotron_h", "hunyuan_v1_moe", "phimoe", "jamba")
QUICK = ("olmoe", "gpt_oss", "llama4_text", "jetmoe")
cases = pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in CASES]
)


@pytest.fixture(autouse=True)
def without_rows():
    with models.without_rows(CASES):
        yield


def opened(folder):
    return open_original(folder, find_target("whet"))


class Kept:
    """A visitor that keeps the second moments of one block."""

    def __init__(self, index):
        self.index, self.moments = index, None

    def visit(self, step):
        if step.index == self.index:
            self.moments = step.second_moments()
        return {}


@cases
@torch.no_grad()
def test_blocks_one_at_a_time_give_the_logits_of_the_whole_model(tmp_path, family):
    folder = tiny_families.make(tmp_path / "m", family)
    about = opened(folder)
    assert about.unfound is None and about.parts.family.found
    table = about.checkpoint.read(about.parts.embedding.parameter)
    walk = Walk(about.checkpoint, about.parts, [TOKENS], [], table, table, "cpu")
    walk.go(Untouched())
    head = about.checkpoint.read((about.parts.head or about.parts.embedding).parameter).float()
    (final,) = walk.final()
    theirs = load_model(folder, torch.float32)(TOKENS).logits[:, :-1]
    mine = torch.cat([walk.skeleton.next_logits(states, head) for states in final])
    assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


@cases
def test_every_expert_is_a_linear_and_no_router_is(tmp_path, family):
    parts = opened(tiny_families.make(tmp_path / "m", family)).parts
    stacks = {linear.held.parameter for linear in parts.linears() if linear.held.expert is not None}
    model = AutoModelForCausalLM.from_config(tiny_families.config(family))
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.dim() == 3}
    convolutions = {name for name in sizes if "conv" in name}
    assert stacks == sizes.keys() - convolutions
    mine = {name: 0 for name in stacks}
    for linear in parts.linears():
        if linear.held.expert is not None:
            mine[linear.held.parameter] += linear.shape[0] * linear.shape[1]
    assert all(mine[name] == sizes[name] for name in stacks)
    assert not any(linear.shape[0] in (1, 4) for linear in parts.linears())
    reads = {linear.reads for linear in parts.blocks[-2] if linear.held.expert == 0}
    assert not reads or all(sum(read.endswith(end) for read in reads) in (1, 2) for end in ("input", "middle"))


@pytest.mark.parametrize("family", ["olmoe", "gpt_oss"])
@torch.no_grad()
def test_an_expert_is_solved_on_the_tokens_that_come_to_it(tmp_path, family):
    folder = tiny_families.make(tmp_path / "m", family)
    about = opened(folder)
    table = about.checkpoint.read(about.parts.embedding.parameter)
    kept = Kept(1)
    Walk(about.checkpoint, about.parts, [TOKENS], [], table, table, "cpu").go(kept)
    model = load_model(folder, torch.float32)
    seen = {}
    experts = model.model.layers[1].mlp.experts
    handle = experts.register_forward_pre_hook(lambda m, args: seen.update(hidden=args[0], chosen=args[1]))
    model(TOKENS)
    handle.remove()
    for expert in range(4):
        x = seen["hidden"][(seen["chosen"] == expert).any(-1)]
        if family == "olmoe":
            gate, up = (x @ experts.gate_up_proj[expert].t()).chunk(2, dim=-1)
            middle = torch.nn.functional.silu(gate) * up
        else:
            middle = experts._apply_gate(x @ experts.gate_up_proj[expert] + experts.gate_up_proj_bias[expert])
        for linear in (one for one in about.parts.blocks[1] if one.held.expert == expert):
            given = middle if linear.reads.endswith("middle") else x
            assert kept.moments.counts[linear.reads] == len(given)
            mine = kept.moments.sums[linear.reads].tril()
            assert torch.allclose(mine, (given.t() @ given).tril(), rtol=1e-3, atol=1e-4 * float(mine.abs().max()))


@cases
def test_solvers_work_on_experts_and_the_folder_is_what_they_made(tmp_path, family):
    folder = tiny_families.make(tmp_path / "m", family, torch.bfloat16)
    asked = {"text": TEXT, "samples": 24, "window": 32, "scheme": "int4s-g16"}
    solved = whet.compress(folder, tmp_path / "gptq", **asked)
    plain = whet.compress(folder, tmp_path / "nearest", solver="nearest", **asked)
    assert solved["solver"] == "gptq" and 0 < solved["kl"] < plain["kl"]
    listed = family in ("olmoe", "deepseek_v3", "nemotron_h", "hunyuan_v1_moe", "jamba")
    assert solved["container"] == ("compressed-tensors" if listed else "whet")
    assert not listed or solved["check"]["stock transformers"] == 0
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "gptq", trust_remote_code=not listed).eval()
    with torch.no_grad():
        assert torch.equal(stock(TOKENS).logits, load_model(tmp_path / "gptq")(TOKENS).logits)
    with pytest.raises(UsageError, match="its experts were found by running it"):
        whet.compress(folder, tmp_path / "plan", bits=9.0, target="whet", text=TEXT)


@pytest.mark.parametrize("family, why", [("gpt_oss", None), ("olmoe", "its experts are multiplied out of sight")])
def test_experts_that_nobody_hears_stay_as_they_were_and_it_is_said(tmp_path, family, why, monkeypatch):
    folder = tiny_families.make(tmp_path / "m", family)
    monkeypatch.setattr(Products, "_look", lambda *_: None)
    made = whet.compress(folder, tmp_path / "out", scheme="int8s", text=TEXT, samples=4, window=32)
    notes = " ".join(map(str, made["notes"]))
    assert made["solver"] == ("nearest" if why else "gptq") and (why or "") in notes
    assert "of the weights in the blocks stay as they are" in notes and "mlp.experts" in notes
    written = Checkpoint(tmp_path / "out")
    (name,) = [n for n in written.shapes if "layers.1.mlp.experts" in n and "down_proj" in n and "bias" not in n][:1]
    assert torch.equal(written.read(name), Checkpoint(folder).read(name))


def test_a_router_is_not_rounded_where_nothing_was_found_either(tmp_path):
    """Hunyuan's is a linear called `wg`."""
    checkpoint = Checkpoint(tiny_families.make(tmp_path / "m", "hunyuan_v1_moe"))
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    assert not parts.family.found and parts.linears()
    assert not any(linear.address.endswith("wg") for linear in parts.linears())
