"""What `auto` keeps has helped the whole: never worse than none on the verifying text, and what harms is dropped."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from covering import matrix, some
from whet.events import ignore
from whet.recipe.compress import compress
from whet.recipe.resume import resume
from whet.steps.decide import decide
from whet.steps.options import Quantize
from whet.transforms import judge, propose
from whet.transforms.folding import Fold
from whet.transforms.propose import Proposals, swap_name

WINDOWS = torch.randint(2, 264, (8, 128), generator=torch.Generator().manual_seed(0))
OTHERS = torch.randint(2, 264, (9, 128), generator=torch.Generator().manual_seed(1))
SETTINGS = {"text": WINDOWS, "eval_text": OTHERS}
WHOLE = "transform auto, the whole: rounded throughout with "


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("m") / "model", "llama")


@pytest.fixture(scope="module")
def outlying(original, tmp_path_factory):
    """Some channels of what a norm gives are large, and what reads them is small: the same model, hard to round."""
    folder = models.make(tmp_path_factory.mktemp("o") / "model", "llama")
    tensors = load_file(folder / "model.safetensors")
    factors = torch.ones(64)
    factors[::16] = 64
    for index in range(2):
        block = f"model.layers.{index}."
        for norm, readers in (
            ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            tensors[f"{block}{norm}.weight"] *= factors
            for reader in readers:
                tensors[f"{block}{reader}.weight"] /= factors
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def shards(folder):
    return {name: data for name, data in models.contents(folder).items() if name.endswith(".safetensors")}


@matrix(
    {"kind": ["original", "outlying"], "scheme": ["int2-g32", "int3s-g32"], "solver": ["nearest", "gptq"]}, strength=1
)
def test_auto_is_never_worse_than_none_on_the_verifying_text(kind, scheme, solver, request, tmp_path):
    folder, settings = request.getfixturevalue(kind), {**SETTINGS, "scheme": scheme, "solver": solver}
    none = compress(folder, tmp_path / "none", **settings)
    auto = compress(folder, tmp_path / "auto", **settings, transform="auto")
    assert auto["kl"] <= none["kl"]
    kept = {told["transform"] for told in auto["transforms"].values()} - {"none"}
    assert kept or shards(tmp_path / "auto") == shards(tmp_path / "none")
    if kept:  # what was judged is what was made
        (note,) = [note for note in auto["notes"] if note.startswith(f"{WHOLE}{solver}")]
        assert f"is {auto['kl']:.4g} nats per token with these transforms and {none['kl']:.4g} without" in note
        assert note.endswith("they stay")


HELPED = {**SETTINGS, "scheme": "int3-g32", "solver": "nearest"}


@pytest.fixture(scope="module")
def helped(outlying, tmp_path_factory):
    """The folder that `auto` made of what is hard to round, undisturbed, and what was told of it."""
    folder = tmp_path_factory.mktemp("helped") / "auto"
    return folder, compress(outlying, folder, **HELPED, transform="auto")


def test_what_helps_the_whole_is_kept(outlying, helped, tmp_path):
    none, (_, auto) = compress(outlying, tmp_path / "none", **HELPED), helped
    assert auto["kl"] < 0.8 * none["kl"]
    assert {told["transform"] for told in auto["transforms"].values()} > {"none"}
    assert all(told["kl"] < 1 for told in auto["transforms"].values() if told["transform"] != "none")


def harmful(job, held, group, moments, judge, seed):
    """Factors that make every other channel coarse, said to lose little."""
    factors = torch.ones(group.given, dtype=torch.float64)
    factors[::2] = 256
    columns = factors[torch.tensor(group.source())]
    yield Fold({"transform": "awq", "loss": 0.5}, columns)


def test_a_proposal_that_harms_the_whole_is_dropped_with_its_group(original, tmp_path, monkeypatch):
    settings = {**SETTINGS, "scheme": "int3-g32"}
    none = compress(original, tmp_path / "none", **settings)
    monkeypatch.setattr(propose, "_proposed", harmful)
    auto = compress(original, tmp_path / "auto", **settings, transform="auto")
    assert {told["transform"] for told in auto["transforms"].values()} == {"none"}
    assert "transform auto, group by group: none of 8 groups loses less with a transform; none is kept" in auto["notes"]
    assert auto["kl"] == none["kl"] and shards(tmp_path / "auto") == shards(tmp_path / "none")


def test_where_groups_cannot_be_followed_the_whole_drops_what_harms_it(original, tmp_path, monkeypatch):
    settings = {**SETTINGS, "scheme": "int3-g32", "solver": "block", "eval_text": OTHERS[:5]}
    compress(original, tmp_path / "none", **settings)
    monkeypatch.setattr(judge, "affordable", lambda *_: [])
    monkeypatch.setattr(propose, "_proposed", harmful)
    auto = compress(original, tmp_path / "auto", **settings, transform="auto")
    assert {told["transform"] for told in auto["transforms"].values()} == {"none"}
    by_group, whole = [note for note in auto["notes"] if note.startswith("transform auto")]
    assert by_group.endswith("because too few tokens could be followed in the time and memory of a run")
    # blocks are not trained to tell whether a transform is worth it
    assert whole.startswith(f"{WHOLE}gptq") and whole.endswith("none is kept")
    assert shards(tmp_path / "auto") == shards(tmp_path / "none")


def test_families_whose_blocks_are_not_followed_are_judged_by_the_whole(tmp_path):
    original = models.make(tmp_path / "m", "mixtral")
    settings = {**SETTINGS, "scheme": "int3s-g32", "solver": "nearest"}
    none = compress(original, tmp_path / "none", **settings)
    auto = compress(original, tmp_path / "auto", **settings, transform="auto")
    assert any("judged linear by linear alone, because what an expert is worth" in note for note in auto["notes"])
    assert any(note.startswith(WHOLE) for note in auto["notes"]) and auto["kl"] <= none["kl"]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "qwen3"])
def test_proposals_are_the_original_but_for_rounding(family, tmp_path):
    """On 8 bits everything that is proposed, brought back, is near the original: factors and rotations cancel. Heads of
    the qwen3 are wider together than its hidden states, as those of Qwen3-0.6B."""
    original = models.make(tmp_path / "m", family, **({"head_dim": 32} if family == "qwen3" else {}))
    settings = {**SETTINGS, "field": "text", "chat": False, "samples": 8, "window": 128}
    job = decide(original, Quantize.of("compress", scheme="int8-g32", solver="nearest", transform="auto", **settings))
    proposals = Proposals(job, tmp_path, ignore)
    proposals.make(tmp_path)
    seen = set()
    for index, linears in enumerate(job.anatomy.blocks):
        weights = proposals.weights(index)
        by_address = {linear.address: linear for linear in linears}
        for group, shares in proposals.told(index).items():
            assert all(share < 1 for share in shares.values())
            for transform in ("none", *shares) if shares else ():
                seen.add(transform)
                for address, w in weights[swap_name(group, transform)].items():
                    linear = by_address[address]
                    before = linear.view(job.checkpoint.read(linear.parameter)).float()
                    assert (w - before).norm() < 0.01 * before.norm(), (group, transform, address)
    assert len(seen) > 1 and (family != "llama" or "rotate" in seen)


MOMENTS = [("propose", 1), ("propose", 2), ("transform", 2), ("judge", 2), ("judge", 4), ("compress", 1)]


@pytest.mark.parametrize("stage,done", some(MOMENTS, 3))
def test_stopped_anywhere_and_gone_on_with_the_bytes_are_the_same(outlying, helped, tmp_path, stage, done):
    def stop(event):
        if event["event"] == "progress" and (event["stage"], event["done"]) == (stage, done):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(outlying, tmp_path / "two", **HELPED, transform="auto", on_event=stop)
    seen = []
    resume(tmp_path / "two", on_event=lambda event: seen.append((event.get("stage"), event.get("done"))))
    assert models.contents(helped[0]) == models.contents(tmp_path / "two")
    assert (stage, done) not in seen or stage == "judge"  # each whole counts anew, and is not done again
