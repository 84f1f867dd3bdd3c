"""Packed weights give what decoded ones give, within a kernel's arithmetic, and no decoded copy is alive."""

from __future__ import annotations

import gc
import warnings

import pytest
import torch
import transformers

import models
import whet
from schemes import EVERY, problem, widths
from whet.checkpoint import load_model
from whet.checkpoint.modeling_whet import decode
from whet.checkpoint.packed_whet import AtUse, Fit, Int4, Int8, fit_of, kernels, opened
from whet.checkpoint.packing_whet import PackedStack, PackedWeight, Packing
from whet.engines.packed import tell_packing
from whet.engines.torch import outputs
from whet.errors import UsageError
from whet.grids import parse_scheme
from whet.quantize import nearest

INTEGERS = [f"int{bits}{zero}" for bits in range(2, 9) for zero in ("", "s", "z")]
GROUPED = [f"{name}-g{group}" for name in INTEGERS for group in (32, 96, 128, 256)]
TOKENS = torch.randint(2, 264, (2, 24), generator=torch.Generator().manual_seed(0))
# Which kernel takes a scheme, or why none does, where that is not the int4 kernel.
ELSEWHERE = {
    **dict.fromkeys(("NVFP4", "Q2_K", "Q3_K", "Q6_K", "int2-g16", "int2s-g16", "int3s-g24", "int4z-g20"), "group"),
    **{name: "floats" for name in EVERY if name.lower().startswith("fp8")},
    **dict.fromkeys(("nf4", "nf4-g20", "seq2"), "values"),
    **dict.fromkeys((name for name in INTEGERS if int(name[3]) > 4), "int8"),
}


def stored(scheme: str, columns: int, rows: int = 75):
    """The parts of a random linear as files hold them, and their table entry."""
    grid = parse_scheme(scheme)
    solution = nearest(problem(rows, columns)[0], None, grid)
    return grid.stored_parts(solution.codes, solution.params), grid.table_entry("model")


def check_product(scheme: str, columns: int) -> str:
    """The kernel that a linear goes through, after its product was compared with that of the decoded weights."""
    parts, entry = stored(scheme, columns)
    w = decode(parts, entry, torch.float32)
    ready, entry = opened(parts, entry)
    raw = AtUse(ready, entry, torch.float32)
    assert (raw.rows, raw.columns) == w.shape and torch.equal(raw.at(slice(None)), w)
    ids = torch.tensor([3, 74, 0, 3])
    assert torch.equal(raw.at(ids), w[ids])
    fit = fit_of(entry, columns)
    x = torch.randn(5, columns, generator=torch.Generator().manual_seed(1)).bfloat16().float()
    if isinstance(fit, str):
        raw.step = 32  # blocks of rows, the last of them smaller
        assert torch.allclose(raw(x), x @ w.t(), atol=1e-5, rtol=1e-5)
        return fit
    piece = Int8(ready, entry, *w.shape) if fit.whole else Int4(ready, entry, fit, *w.shape)
    # scales, offsets and the result are rounded to bfloat16: 2^-9 each of what they are added up to
    reach = x.abs() @ w.abs().t() + (x @ w.t()).abs()
    assert ((piece(x.bfloat16()).float() - x @ w.t()).abs() <= 2**-7 * reach).all(), scheme
    return piece.kernel


@pytest.mark.parametrize("scheme", [name for name in EVERY if name not in ("F16", "BF16")] + INTEGERS)
def test_packed_gives_what_decoded_gives(scheme):
    assert kernels("cpu") == {"int4", "int8"}
    for columns in widths(scheme):
        assert check_product(scheme, columns) == ELSEWHERE.get(scheme, "int4")


def test_every_width_zero_and_group_goes_through_the_int4_kernel():
    """Groups that divide a row and that do not, of sizes that the kernel has and that it has not."""
    for scheme in GROUPED:
        for columns in (320, 512):
            expected = "int8" if int(scheme[3]) > 4 and int(scheme.partition("-g")[2]) >= columns else "int4"
            assert check_product(scheme, columns) == expected


def test_integers_without_a_zero_are_exact():
    """Where scales are bfloat16's own and inputs pick one column, every weight comes out as it is."""
    for scheme in ("int4s-g32", "int2s-g128", "int4s", "int8s-g64", "int8s"):
        parts, entry = stored(scheme, 128)
        parts["weight_scale"] = parts["weight_scale"].bfloat16()
        ready, entry = opened(parts, entry)
        fit = fit_of(entry, 128)
        assert isinstance(fit, Fit)
        piece = Int8(ready, entry, 75, 128) if fit.whole else Int4(ready, entry, fit, 75, 128)
        assert torch.equal(piece(torch.eye(128).bfloat16()).t(), decode(parts, entry, torch.float32).bfloat16())


def test_rows_laid_out_in_blocks_are_those_laid_out_together(monkeypatch):
    parts, entry = stored("int4-g32", 128, rows=200)
    ready, entry = opened(parts, entry)
    fit = fit_of(entry, 128)
    whole = Int4(ready, entry, fit, 200, 128)
    monkeypatch.setattr("whet.checkpoint.packed_whet._AT_ONCE", 1)
    apart = Int4(ready, entry, fit, 200, 128)
    assert torch.equal(whole.layout, apart.layout) and torch.equal(whole.scales, apart.scales)


@pytest.fixture(scope="module")
def lighter(tmp_path_factory):
    """Makes the lighter folder of a tiny model, once."""
    made = {}

    def make(family: str, scheme: str = "int4-g32", embed: str | None = "int8-g32", tied: bool = True):
        key = (family, scheme, embed)
        if key not in made:
            root = tmp_path_factory.mktemp("packed")
            models.make(root / "m", family, tied=tied, dtype=torch.bfloat16)
            options = {"target": "whet", "solver": "nearest", "device": "cpu"}
            whet.compress(root / "m", root / "out", scheme=scheme, embed=embed, **options)
            made[key] = root / "out"
        return made[key]

    return make


def divergence(first, second) -> float:
    with torch.inference_mode():
        p, q = (outputs(model, TOKENS).float().log_softmax(-1) for model in (first, second))
    return float((p.exp() * (p - q)).sum(-1).mean())


# tied and not, Conv1D, fused, scaled embeddings, linears with a forward of their own, stacks of experts
@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "gemma3_text", "falcon", "mixtral", "opt"])
def test_every_kind_of_module_stays_packed(lighter, family):
    """It says what the decoded model says to within bfloat16, and holds no matrix that codes were stored for."""
    folder = lighter(family, tied=family not in ("phi3", "mixtral"))
    packing = Packing()
    fast = load_model(folder, packing=packing)
    decoded, exact = load_model(folder, torch.bfloat16), load_model(folder, torch.float32)
    assert packing.kept["int4"] and not packing.without
    assert divergence(exact, fast) < 2 * divergence(exact, decoded) + 1e-5
    kept = {id(w): w for m in fast.modules() for w in vars(m).values() if isinstance(w, PackedWeight | PackedStack)}
    # a tied embedding of 8 bits is there twice, as rows to look up and as the kernel has it
    assert kept and all(w.nbytes < (2.6 if len(w) == 264 else 1) * w.numel() for w in kept.values())
    codes = {key.rpartition(".")[0] for key in whet.checkpoint.Checkpoint(folder).tensors if "packed" in key}
    left = {name.removesuffix(".weight") for name, p in fast.named_parameters()} & codes
    assert not left


def tensors() -> list[torch.Tensor]:
    """Those of floats that are alive."""
    gc.collect()
    with warnings.catch_warnings(action="ignore"):
        found = [one for one in gc.get_objects() if isinstance(one, torch.Tensor)]
    return [one for one in found if one.is_floating_point() and one.device.type != "meta"]


def test_no_decoded_copy_is_alive(lighter):
    """Not of the model's weights anywhere in the process: neither while it is loaded nor when it has answered."""
    folder = lighter("llama")
    known = {id(one) for one in tensors()}
    model = load_model(folder, packing=Packing())
    model.generate(TOKENS[:1], max_new_tokens=3, do_sample=False, pad_token_id=1)
    large = [tuple(one.shape) for one in tensors() if id(one) not in known and one.numel() >= 64 * 32]
    large = [shape for shape in large if shape[-1] != 2]  # scales come in pairs
    assert not large


def test_what_is_looked_up_is_what_is_decoded(lighter):
    for family, embed in (("llama", "int8-g32"), ("llama", "int3z-g32"), ("llama", "nf4"), ("gemma3_text", "int8-g32")):
        folder = lighter(family, embed=embed)
        packed, decoded = (load_model(folder, torch.bfloat16, packing=one) for one in (Packing(), None))
        tables = [model.get_input_embeddings() for model in (packed, decoded)]
        assert (isinstance(tables[0].weight, PackedWeight)) == (embed != "nf4")
        assert torch.equal(tables[0](TOKENS), tables[1](TOKENS)) and len(tables[0].weight) == 264


def test_what_no_kernel_takes_is_decoded_once_or_at_each_use_and_said_once(lighter):
    folder = lighter("llama", "NVFP4", None)
    decoded = load_model(folder, torch.bfloat16)
    for at_use, kept in ((False, {}), (True, {"at use": 14})):
        packing = Packing(at_use=at_use)
        model = load_model(folder, packing=packing)
        assert dict(packing.kept) == kept and dict(packing.without) == {"group": 14}
        assert divergence(decoded, model) < 1e-9
        told = []
        tell_packing(packing, folder, told.append)
        assert len(told) == 1 and told[0]["event"] == "note" and ("--packed" in told[0]["message"]) == (not at_use)


def test_greedy_text_is_the_same_where_the_first_choice_is_clear(lighter):
    folder = lighter("llama")
    fast, exact = load_model(folder, packing=Packing()), load_model(folder, torch.float32)
    ids = TOKENS[:1]
    for _ in range(20):
        with torch.inference_mode():
            logits = [model(input_ids=ids).logits[0, -1].float() for model in (exact, fast)]
        best = logits[0].topk(2).values
        if best[0] - best[1] > 4 * (logits[0] - logits[1]).abs().max():
            assert logits[1].argmax() == logits[0].argmax()
        ids = torch.cat((ids, logits[0].argmax()[None, None]), dim=1)


def test_load_and_generate_offer_it_and_refuse_what_cannot_be(lighter, tmp_path):
    folder = lighter("llama")
    fast = whet.load(folder, fast=True, device="cpu")
    assert fast.dtype == torch.bfloat16 and isinstance(fast.lm_head.weight, PackedWeight)
    assert isinstance(whet.load(folder, device="cpu").lm_head.weight, torch.nn.Parameter)
    wide = whet.load(folder, fast=True, dtype="float32", device="cpu")
    assert divergence(whet.load(folder, dtype="float32", device="cpu"), wide) < 1e-3
    assert isinstance(whet.generate(folder, "ab", max_new_tokens=4, fast=True, device="cpu"), str)
    notes = []
    whet.load(models.make(tmp_path / "m"), fast=True, device="cpu", on_event=notes.append)
    assert ["no packed weights" in note["message"] for note in notes if note["event"] == "note"] == [True]
    with pytest.raises(UsageError, match="dtype float8 is not known"):
        whet.load(folder, dtype="float8")
    with pytest.raises(ValueError, match="loaded packed"):
        fast.save_pretrained(tmp_path / "again")


def test_the_folders_own_file_offers_the_same_without_whet(lighter):
    for scheme, kept in (("int4-g32", True), ("NVFP4", False)):
        folder = lighter("llama", scheme, "int8-g32")
        kinds = {"trust_remote_code": True, "local_files_only": True}
        own = transformers.AutoModelForCausalLM.from_pretrained
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            fast = own(folder, fast=True, **kinds)
        assert any("no kernel for 14 of" in str(one.message) for one in told) != kept
        assert hasattr(fast.model.layers[0].mlp.up_proj.weight, "pieces") == kept
        packed = own(folder, packed=True, **kinds)
        assert hasattr(packed.model.layers[0].mlp.up_proj.weight, "pieces")
        ours = load_model(folder, packing=Packing())
        assert divergence(ours, fast) == divergence(ours, packed) == 0
