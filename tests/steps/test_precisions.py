"""Several precisions in one folder: each is, bit for bit, what it is alone, and a change loads nothing anew."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import models
import whet
from whet.checkpoint import Checkpoint, load_model, read_tensor
from whet.checkpoint.codes_whet import deflated, level_parts, levels_of, nearest, unpack
from whet.checkpoint.packing_whet import PackedWeight, Packing
from whet.checkpoint.table import check_stored
from whet.engines.torch import open_model, outputs
from whet.errors import UsageError
from whet.formats.nested import table_in
from whet.grids import parse_scheme
from whet.quantize import nearest as round_nearest
from whet.recipe.compress import compress
from whet.steps.option_kinds import parse_precisions
from whet.steps.precisions import scheme_at

TOKENS = torch.randint(2, 264, (2, 12), generator=torch.Generator().manual_seed(0))
WINDOWS = torch.randint(0, 264, (6, 16), generator=torch.Generator().manual_seed(1))
OPTIONS = {"target": "whet", "device": "cpu", "text": WINDOWS, "eval_text": WINDOWS.flip(1)}


@pytest.fixture(scope="module", params=["llama", "phi3"])
def made(request, tmp_path_factory):
    """A folder of three precisions, and by bits those of each alone."""
    root = tmp_path_factory.mktemp("precisions")
    tied = request.param == "llama"
    models.make(root / "m", request.param, tied=tied, dtype=torch.bfloat16)
    how = OPTIONS | {"solver": "gptq" if tied else "nearest"}
    said = whet.compress(root / "m", root / "all", scheme="int4-g32", embed="int4-g32", precisions="8,4,2", **how)
    for bits in (8, 4, 2):
        compress(root / "m", root / f"{bits}", scheme=f"int{bits}-g32", embed=f"int{bits}-g32", **how)
    return root, said


def test_every_precision_is_what_it_is_alone(made):
    root, said = made
    nested = Checkpoint(root / "all")
    for bits in (8, 4, 2):
        alone = Checkpoint(root / f"{bits}")
        for address, entry in table_in(nested.whet).items():
            stored = {n.rpartition(".")[2]: read_tensor(i) for n, i in nested.tensors.items() if _of(n, address)}
            if "bits" not in entry:
                continue
            parts, read = level_parts(stored, {**entry, "precision": bits})
            theirs = {n.rpartition(".")[2]: read_tensor(i) for n, i in alone.tensors.items() if _of(n, address)}
            assert parts.keys() == theirs.keys() and all(torch.equal(parts[n], theirs[n]) for n in parts)
            assert read["bits"] == bits and levels_of(entry)[bits] == read
        level = said["levels"][str(bits)]
        assert {name: level[name] for name in ("kl", "top1")} == alone.whet["verify"]
        assert level["alone"] == whet_bytes(root / f"{bits}")
    assert list(said["levels"]) == ["8", "4", "2"] and said["kl"] == said["levels"]["8"]["kl"]
    tensors = sum(info.nbytes for info in nested.tensors.values())
    assert sum(level["bytes"] for level in said["levels"].values()) == tensors
    assert whet.verify(root / "all")["verdict"] == "pass"


def _of(name, address):
    return name.rpartition(".")[0] == address


def whet_bytes(folder):
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


@pytest.mark.parametrize("packed", [False, True])
def test_a_change_gives_what_loading_anew_gives(made, packed):
    root, _ = made

    def new():
        return Packing() if packed else None

    engine = open_model(root / "all", packing=new(), precision=4)
    assert engine.precisions == (8, 4, 2) and engine.precision == 4
    held = [module for module in engine.model.modules() if isinstance(getattr(module, "weight", None), PackedWeight)]
    assert bool(held) == packed
    for bits in (2, 4, 8, 2):
        engine.use(bits)
        alone = load_model(root / f"{bits}", packing=new())
        with torch.no_grad():
            assert torch.equal(outputs(engine.model, TOKENS), outputs(alone, TOKENS)) and engine.precision == bits
    if packed:  # what was packed once stays so
        assert engine.model.set_precision.kept.keys() == {8, 4}


def test_transformers_alone_changes_it_too(made):
    root, _ = made
    given = {"trust_remote_code": True, "precision": 4}
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(root / "all", **given)
        assert torch.equal(outputs(model, TOKENS), outputs(load_model(root / "4"), TOKENS))
        model.set_precision(2)
        assert torch.equal(outputs(model, TOKENS), outputs(load_model(root / "2"), TOKENS))
        with pytest.raises(ValueError, match="8, 4, 2"):
            model.set_precision(3)
        model = AutoModelForCausalLM.from_pretrained(root / "all", fast=True, **given)
        model.set_precision(8)
        assert torch.equal(outputs(model, TOKENS), outputs(load_model(root / "8", packing=Packing()), TOKENS))


def test_verbs_take_a_precision(made):
    root, _ = made
    told = {bits: whet.generate(root / "all", "a", precision=bits, max_new_tokens=4) for bits in (8, 2)}
    assert told == {bits: whet.generate(root / f"{bits}", "a", max_new_tokens=4) for bits in (8, 2)}
    assert whet.load(root / "all", precision=2, fast=True).set_precision.now == 2
    for call, why in {
        (lambda: whet.generate(root / "all", "a", precision=3)): "Choose one of 8, 4, 2",
        (lambda: whet.load(root / "4", precision=4)): "one precision alone",
        (lambda: whet.compare(root / "m", root / "all", text=["a"], precision=5)): "Choose one of 8, 4, 2",
        (lambda: whet.export(root / "all", out=root / "x.gguf")): "several precisions",
    }.items():
        with pytest.raises(UsageError, match=why):
            call()


@pytest.mark.parametrize("zero", ["", "s", "z"])
def test_codes_of_ragged_groups_come_back(zero):
    w = torch.randn(37, 75, generator=torch.Generator().manual_seed(2)) * 0.1
    w[3] = 0
    entries, parts, codes = {}, {}, {}
    for bits in (3, 5, 8):
        grid = parse_scheme(f"int{bits}{zero}-g20" if bits < 8 else f"int8{zero}")
        solution = round_nearest(w, None, grid)
        entries[bits], codes[bits] = grid.table_entry("float32"), solution.codes
        parts[bits] = grid.stored_parts(solution.codes, solution.params)
    stored = dict(parts[3])
    for below, bits in ((3, 5), (5, 8)):
        near = nearest(codes[below], parts[below], entries[below], parts[bits], entries[bits])
        assert int(near.max()) < 2**bits
        stored[f"weight_more_{bits}"] = deflated((codes[bits] - near).bitwise_and_(2**bits - 1))
        own = {f"{n}_{bits}": t for n, t in parts[bits].items() if n not in ("weight_packed", "weight_shape")}
        stored |= own
    entry = {**entries[8], "form": "nested", "under": [entries[5], entries[3]]}
    for bits in (3, 5, 8):
        found, read = level_parts(stored, {**entry, "precision": bits})
        assert read == entries[bits] and all(torch.equal(found[n], parts[bits][n]) for n in parts[bits])
        assert torch.equal(unpack(found["weight_packed"], bits, 75), codes[bits])


def test_what_is_damaged_is_named(made, tmp_path):
    root, _ = made
    shutil.copytree(root / "all", tmp_path / "bad")
    file = sorted((tmp_path / "bad").glob("*.safetensors"))[1]
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("weight_more_4"))
    save_file({**tensors, name: tensors[name][:-9].clone()}, file)
    with pytest.raises(UsageError, match="not what whet wrote"):
        whet.load(tmp_path / "bad")
    with pytest.raises(ValueError, match="damaged"):
        load_model(tmp_path / "bad")
    save_file({**tensors, name: tensors[name].float()}, file)
    with pytest.raises(UsageError, match=name):
        check_stored(Checkpoint(tmp_path / "bad"), table_in(Checkpoint(tmp_path / "bad").whet))


def test_wrong_input_is_refused_before_anything_runs(made, tmp_path):
    root, _ = made
    assert parse_precisions(" 8, 4,2") == (8, 4, 2)
    assert [scheme_at(name, 8) for name in ("W4A16", "int4z-g32", "INT2S")] == ["W8A16", "int8z-g32", "int8s"]
    assert scheme_at("W4A16", 6) == "int6s"
    wrong = {
        **dict.fromkeys(("8", "4,8", "8,8", "9,4", "4,1", "8,x", "", "8;4"), "falling list"),
        **{
            f"8,4|{given}": why
            for given, why in {"nf4": "integers", "int4_g32": "not known", "Q4_K": "integers"}.items()
        },
    }
    for said, why in wrong.items():
        precisions, _, scheme = said.partition("|")
        with pytest.raises(UsageError, match=why):
            compress(root / "m", tmp_path / "out", scheme=scheme or "int4-g32", precisions=precisions, **OPTIONS)
    for more, why in [
        ({"target": "llama.cpp"}, "one precision of a file"),
        ({"target": "wet"}, "wet"),
        ({"transform": "awq"}, "transform"),
        ({"repair": 4}, "repair"),
        ({"sparsity": "2:4"}, "sparsity"),
        ({"bits": 3.5}, "bits"),
    ]:
        with pytest.raises(UsageError, match=why):
            compress(root / "m", tmp_path / "out", precisions="8,4", **{**OPTIONS, **more})
    assert not (tmp_path / "out").exists()
    planned = compress(root / "m", tmp_path / "out", scheme="int4-g32", precisions="8,4", dry_run=True, **OPTIONS)
    assert planned["precisions"] == [8, 4] and not (tmp_path / "out").exists()
