"""The step `masks`: a dense folder with exact zeros that loads wherever the original does, and what keeps the zeros."""

from __future__ import annotations

import functools
import hashlib
import json
import random
import shutil
from fractions import Fraction

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file

import models
from covering import matrix, some
from killing import Ticks, counted, killed
from whet.anatomy import anatomy
from whet.apply.outliers import with_shares
from whet.checkpoint import Checkpoint, load_model
from whet.engines.torch import outputs
from whet.errors import UsageError
from whet.pruning import IMPORTANCES
from whet.pruning.outliers import Counted, shares_by_outliers
from whet.quantize import METHODS
from whet.recipe.compress import compress
from whet.recipe.masks import masks
from whet.recipe.resume import resume
from whet.recipe.runner import run
from whet.steps import masks as step
from whet.steps.options import Masks

DOCUMENTS = models.documents(40, 20)
TEXT = {"text": DOCUMENTS, "samples": 8, "window": 20}
TOKENS = torch.randint(2, 264, (2, 24), generator=torch.Generator().manual_seed(0))
# family, tied, type: plain linears; rows of one transposed tensor; experts in a stack and apart
FAMILIES = {
    "llama": ("llama", True, torch.bfloat16),
    "gpt2": ("gpt2", True, torch.float32),
    "mixtral": ("mixtral", False, torch.float16),
}
HOW = [{"pattern": "2:4"}, {"remove": "50%"}, {"remove": 0.3, "importance": "wanda"}]


def linears(folder):
    """The linears of the blocks, `[out, in]` by address, as they are stored."""
    checkpoint = Checkpoint(folder)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    return {linear.address: linear.view(checkpoint.read(linear.parameter)) for linear in parts.linears()}


def decoded(folder, original):
    """The same of a lighter folder, as they are computed."""
    checkpoint = Checkpoint(original)
    model = load_model(folder, dtype=torch.float32)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    return {x.address: x.held.of(model.get_parameter(x.held.parameter).detach()) for x in parts.linears()}


def whet_of(folder):
    return json.loads((folder / "whet.json").read_text(encoding="utf-8"))


def hashes(folder):
    return {name: hashlib.sha256(data).hexdigest() for name, data in models.contents(folder).items()}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("originals")
    return functools.cache(
        lambda name: models.make(root / name, FAMILIES[name][0], tied=FAMILIES[name][1], dtype=FAMILIES[name][2])
    )


@pytest.fixture(scope="module")
def sparse(originals, tmp_path_factory):
    """A folder with masks by family and options, made once."""
    root = tmp_path_factory.mktemp("sparse")

    @functools.cache
    def made(family, **options):
        out = root / f"{family} {len(list(root.iterdir()))}"
        return out, masks(originals(family), out, **options, **TEXT)

    return made


# -- a dense folder ---------------------------------------------------------------------------------------------------


@matrix({"family": FAMILIES, "how": HOW}, ids=str)
@torch.no_grad()
def test_what_is_written_is_the_original_with_zeros(sparse, originals, family, how):
    original = originals(family)
    out, result = sparse(family, **how)
    assert (out / "config.json").read_bytes() == (original / "config.json").read_bytes()
    assert not list(out.glob("*.py"))
    before, after = Checkpoint(original), Checkpoint(out)
    assert {n: (i.dtype, i.shape) for n, i in after.tensors.items()} == {
        n: (i.dtype, i.shape) for n, i in before.tensors.items()
    }
    own = {x.parameter for x in anatomy(before.config, before.shapes).linears()}
    assert all(torch.equal(after.read(name), before.read(name)) for name in before.tensors if name not in own)
    share = float(how.get("remove", "50%") == "50%") * 0.2 + 0.3
    for address, w in linears(out).items():
        zeros = w == 0
        assert not torch.signbit(w[zeros]).any()
        if "pattern" in how:
            assert ((w.reshape(-1, 4) == 0).sum(1) == 2).all()
        elif "importance" in how:  # within rows
            assert (zeros.sum(1) == int(share * w.shape[1])).all()
        assert result["linears"][address]["mask"]["share"] == int(zeros.sum()) / w.numel()
        assert int(zeros.sum()) / w.numel() == pytest.approx(share, abs=1 / min(w.shape))
    stock = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    assert stock.dtype == FAMILIES[family][2]
    assert torch.equal(outputs(stock, TOKENS), outputs(load_model(out), TOKENS))
    written = stock.generate(input_ids=TOKENS[:1, :8], max_new_tokens=6, do_sample=False, pad_token_id=1)
    assert written.shape == (1, 14)
    assert result["check"]["masks"] == "exact zeros" and result["check"]["stock transformers"] == 0
    assert result["container"] == "dense" and result["loads_in"] == "transformers" and result["kl"] > 0


def test_the_manifest_tells_of_every_mask(sparse, originals):
    out, result = sparse("llama", pattern="2:4")
    manifest = whet_of(out)
    assert manifest["container"] == "dense" and manifest["linears"] == {}
    assert set(manifest["masks"]) == set(linears(out))
    line = manifest["masks"]["model.layers.0.self_attn.q_proj"]
    assert {k: line[k] for k in ("pattern", "importance", "share")} == {
        "pattern": "2:4",
        "importance": "sparsegpt",
        "share": 0.5,
    }
    assert 0 < line["error"] < 1
    (record,) = manifest["lineage"]
    assert record["step"] == "masks" and record["update"] and "solver" not in record
    assert record["sparsity"] == {"pattern": "2:4", "within": "group", "importance": "sparsegpt", "kept": 0}
    assert manifest["base_model"] == {"name": "llama", "sha256": record["model_sha256"]}
    recipe = yaml.safe_load((out / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["steps"][0]["masks"]["pattern"] == "2:4"
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card and "2:4, chosen by `sparsegpt`" in card and "trust_remote_code" not in card
    assert result["sizes"]["lighter"]["linears"] == result["sizes"]["original"]["linears"]
    assert (out / "LICENSE").is_file()


@pytest.mark.parametrize("family", FAMILIES)
def test_without_an_update_what_stays_is_as_it_was_and_needs_no_text(tmp_path, originals, family):
    original = originals(family)
    result = masks(original, tmp_path / "out", remove="50%", importance="magnitude", update=False)
    assert result["text"] is None and "kl" not in result
    before, after = linears(original), linears(tmp_path / "out")
    for address, w in before.items():
        kept = after[address] != 0
        assert torch.equal(after[address], torch.where(kept, w, 0))
        gone = int((~kept).sum())
        assert gone == w.numel() // 2 and w[~kept].abs().max() <= w[kept].abs().min()


def test_an_update_keeps_more(tmp_path, originals):
    """On the text itself, over importances: far more than chance."""
    lost = {}
    for update in (True, False):
        options = {"pattern": "2:4", "update": update, **TEXT}
        found = [
            masks(originals("llama"), tmp_path / f"{update} {name}", importance=name, **options) for name in IMPORTANCES
        ]
        lost[update] = [line["error"] for one in found for line in one["linears"].values()]
        assert all(torch.isfinite(torch.tensor(one["kl"])) for one in found)
    assert sum(lost[True]) < 0.7 * sum(lost[False])


def test_half_of_nothing_loses_next_to_nothing(tmp_path, originals):
    few = masks(originals("llama"), tmp_path / "few", remove="1%", **TEXT)
    many = masks(originals("llama"), tmp_path / "many", remove="50%", **TEXT)
    assert few["kl"] < 0.05 * many["kl"]


# -- steps that go on from it -----------------------------------------------------------------------------------------

# Every kind of grid that holds a zero; `whet` for what transformers has no container for.
SCHEMES = [
    *((scheme, "transformers") for scheme in ("int4-g32", "int3s-g32", "int2-g16", "FP8", "NVFP4", "MXFP4", "nf4-g32")),
    *((scheme, "whet") for scheme in ("fp4m2-g32", "Q4_0", "F16")),
]


@matrix({"scheme,target": SCHEMES, "solver": METHODS, "family": ["llama", "gpt2"]}, strength=1)
def test_rounding_keeps_the_zeros(tmp_path, sparse, originals, scheme, target, solver, family):
    source, _ = sparse(family, pattern="2:4")
    out = tmp_path / "out"
    result = compress(source, out, scheme=scheme, solver=solver, target=target, **TEXT)
    rounded = decoded(out, originals(family))
    for address, w in linears(source).items():
        assert not rounded[address][w == 0].any(), address
        assert (rounded[address] != 0).float().mean() > 0.2
    manifest, before = whet_of(out), whet_of(source)
    assert [one["step"] for one in manifest["lineage"]] == ["masks", "quantize"]
    assert manifest["lineage"][0] == before["lineage"][0]
    assert manifest["base_model"] == before["base_model"] and manifest["base_model"]["name"] == family
    for address, told in manifest["masks"].items():
        assert told == {k: before["masks"][address][k] for k in ("pattern", "importance", "share")}
    assert result["check"]["masks"] == "exact zeros"


@matrix({"solver": ["nearest", "gptq", "tuned"], "sparsity": ["2:4", "50%"]}, strength=1)
def test_masks_and_codes_of_one_solve(tmp_path, originals, solver, sparsity):
    out = tmp_path / "out"
    result = compress(originals("llama"), out, scheme="int4s-g32", solver=solver, sparsity=sparsity, **TEXT)
    for address, w in decoded(out, originals("llama")).items():
        zeros = (w == 0).sum().item()
        assert zeros >= w.numel() // 2  # and what else the grid makes 0
        if sparsity == "2:4":
            assert ((w.reshape(-1, 4) == 0).sum(1) >= 2).all()
        assert result["linears"][address]["mask"]["share"] == 0.5
    manifest = whet_of(out)
    (record,) = manifest["lineage"]
    assert record["sparsity"]["pattern"] == sparsity and record["sparsity"]["importance"] == "sparsegpt"
    assert next(iter(manifest["masks"].values()))["pattern"] == sparsity
    assert transformers.AutoModelForCausalLM.from_pretrained(out) is not None


def test_a_solve_without_text_takes_magnitudes(tmp_path, originals):
    result = compress(originals("llama"), tmp_path / "out", scheme="int4s-g32", solver="nearest", sparsity=0.5)
    assert result["sparsity"]["importance"] == "magnitude" and result["text"] is None
    w = decoded(tmp_path / "out", originals("llama"))["model.layers.1.mlp.down_proj"]
    assert (w == 0).sum() >= w.numel() // 2


def test_zeros_of_whoever_made_them_are_kept_where_that_is_asked_for(tmp_path, sparse, originals):
    source, _ = sparse("llama", pattern="2:4")
    shutil.copytree(source, tmp_path / "theirs")
    (tmp_path / "theirs" / "whet.json").unlink()
    for asked in ({}, {"sparsity": "kept"}):
        out = tmp_path / f"out {len(asked)}"
        compress(tmp_path / "theirs", out, scheme="int3-g32", **asked, **TEXT)
        rounded = decoded(out, originals("llama"))
        lost = sum(int(rounded[address][w == 0].count_nonzero()) for address, w in linears(source).items())
        assert (lost == 0) == bool(asked)
        assert ("masks" in whet_of(out)) == bool(asked)
    with pytest.raises(UsageError, match="takes no more"):
        compress(source, tmp_path / "no", sparsity="kept", importance="wanda", **TEXT)


def test_a_repair_beside_masks_leaves_them(tmp_path, sparse, originals):
    source, _ = sparse("llama", pattern="2:4")
    compress(source, tmp_path / "out", scheme="int2-g16", repair=3, **TEXT)
    (tmp_path / "out" / "whet.json").write_text(
        json.dumps({k: v for k, v in whet_of(tmp_path / "out").items() if k != "adapter"})
    )
    rounded = decoded(tmp_path / "out", originals("llama"))
    assert all(not rounded[address][w == 0].any() for address, w in linears(source).items())


@pytest.mark.parametrize("transform", ["smooth", "awq"])
def test_transforms_that_scale_keep_the_zeros(tmp_path, sparse, originals, transform):
    source, _ = sparse("llama", pattern="2:4")
    result = compress(source, tmp_path / "out", scheme="int3s-g32", transform=transform, **TEXT)
    assert any(told["transform"] != "none" for told in result["transforms"].values())
    rounded = decoded(tmp_path / "out", originals("llama"))
    assert all(not rounded[address][w == 0].any() for address, w in linears(source).items())


def test_a_budget_is_planned_from_what_holds_the_zeros(tmp_path, sparse, originals):
    source, _ = sparse("llama", pattern="2:4")
    result = compress(source, tmp_path / "out", bits=4.5, text=TOKENS.repeat(8, 1), eval_text=TOKENS.flip(1))
    assert not any(scheme.startswith(("int2z", "int3z")) for scheme in result["plan"]["schemes"].values())
    rounded = decoded(tmp_path / "out", originals("llama"))
    assert all(not rounded[address][w == 0].any() for address, w in linears(source).items())


def test_more_is_taken_from_what_has_masks_already(tmp_path, sparse):
    source, _ = sparse("llama", remove="50%")
    masks(source, tmp_path / "out", remove="70%", **TEXT)
    before, after = linears(source), linears(tmp_path / "out")
    for address, w in after.items():
        assert not w[before[address] == 0].any()
        assert int((w == 0).sum()) == int(0.7 * w.numel())
    manifest = whet_of(tmp_path / "out")
    assert [one["step"] for one in manifest["lineage"]] == ["masks", "masks"]
    assert manifest["base_model"]["name"] == "llama"
    assert {line["pattern"] for line in manifest["masks"].values()} == {"70%"}


@pytest.mark.parametrize("update", [True, False])
def test_blocks_with_more_outliers_lose_less_and_all_together_the_share(tmp_path, update):
    """The first block has outliers; the counts are those of a forward of stock transformers."""
    original = models.make(tmp_path / "m", "llama", blocks=3)
    model = transformers.AutoModelForCausalLM.from_pretrained(original)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[:, :4] *= 30
        model.model.layers[1].mlp.up_proj.weight[:, :1] *= 30
    model.save_pretrained(original)
    result = masks(original, tmp_path / "out", remove="60%", allocation="owl", update=update, **TEXT)
    shares = {}
    for address, w in linears(tmp_path / "out").items():
        assert result["linears"][address]["mask"]["share"] == int((w == 0).sum()) / w.numel()
        assert result["linears"][address]["mask"]["pattern"] != "60%"
        zeros, count = shares.get(address.split(".")[2], (0, 0))
        shares[address.split(".")[2]] = (zeros + int((w == 0).sum()), count + w.numel())
    taken = [zeros / count for zeros, count in shares.values()]
    assert taken[0] < taken[1] < taken[2] and taken[2] - taken[0] == pytest.approx(0.16, abs=2e-3)
    assert sum(taken) / 3 == pytest.approx(0.6, abs=1e-3) and result["check"]["masks"] == "exact zeros"
    assert whet_of(tmp_path / "out")["lineage"][0]["sparsity"]["allocation"] == "owl"


def test_outliers_are_those_of_the_definition(originals, tmp_path):
    job = step.decide_masks(originals("llama"), Masks(remove="50%", allocation="owl", **TEXT), device="cpu")
    found = with_shares(job, tmp_path, lambda event: None).sparsity.shares
    model = load_model(originals("llama"), dtype=torch.float32)
    seen = {}

    def hear(name):
        return lambda module, args: seen.setdefault(name, []).append(args[0].reshape(-1, args[0].shape[-1]))

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".layers." in name:
            module.register_forward_pre_hook(hear(name))
    with torch.no_grad():
        for window in job.solve:
            model(window[None])
    counted = []
    for block in range(len(model.model.layers)):
        scores = [
            (model.get_submodule(name).weight.abs() * torch.cat(x).square().sum(0).sqrt()).flatten()
            for name, x in seen.items()
            if name.startswith(f"model.layers.{block}.")
        ]
        every = torch.cat(scores)
        counted.append(Counted(len(every), int((every > 5 * every.mean()).sum())))
    wanted = shares_by_outliers(counted, Fraction(1, 2))
    assert [float(found[f"model.layers.{i}.mlp.up_proj"]) for i in range(len(wanted))] == pytest.approx(
        list(map(float, wanted)), abs=5e-3
    )


# -- stopped and gone on with -----------------------------------------------------------------------------------------

RESUMED = {
    "masks": lambda model, out: masks(model, out, remove="60%", **TEXT),
    "owl": lambda model, out: masks(model, out, remove="60%", allocation="owl", **TEXT),
    "joint": lambda model, out: compress(model, out, scheme="int3-g32", sparsity="2:4", **TEXT),
    "joint without text": lambda model, out: compress(
        model, out, scheme="int4s-g32", sparsity="50%", importance="wanda", solver="nearest", **TEXT
    ),
}


@pytest.fixture(scope="module")
def undisturbed(originals, tmp_path_factory):
    """The hashes of an undisturbed run and how many moments of it matter to the disk, by its name."""
    root = tmp_path_factory.mktemp("undisturbed")

    @functools.cache
    def made(name):
        moments = counted(lambda: RESUMED[name](originals("llama"), root / name))
        return hashes(root / name), moments

    return made


@pytest.mark.parametrize("part", some(range(4), 3))
@pytest.mark.parametrize("name", RESUMED)
def test_killed_and_resumed_the_bytes_are_the_same(tmp_path, originals, undisturbed, name, part):
    expected, count = undisturbed(name)
    at = int(count * (part + random.Random(part).random()) / 4) + 1
    out = tmp_path / "out"
    killed(lambda: RESUMED[name](originals("llama"), out), lambda: Ticks(at))
    if (out / ".whet" / "request.json").exists():
        resume(out)
    elif not (out / "whet.json").exists():
        RESUMED[name](originals("llama"), out)
    assert hashes(out) == expected


def test_another_rule_is_another_run(tmp_path, originals):
    out = tmp_path / "out"
    killed(lambda: masks(originals("llama"), out, remove="60%", **TEXT), lambda: Ticks(20))
    with pytest.raises(UsageError, match="sparsity was"):
        masks(originals("llama"), out, pattern="2:4", **TEXT)
    assert masks(originals("llama"), out, remove="60%", **TEXT)["sparsity"]["pattern"] == "60%"


# -- refused before anything is done ----------------------------------------------------------------------------------

MASKS = [
    ({}, ["remove", "pattern", "0 were given"]),
    ({"remove": "50%", "pattern": "2:4"}, ["2 were given"]),
    ({"pattern": "2:5"}, ["2:5", "model.layers.0.self_attn.q_proj", "do not divide by 5", "50%"]),
    ({"pattern": "2:4", "within": "row"}, ["within"]),
    ({"remove": "120%"}, ["120%"]),
    ({"remove": "50%", "importance": "wandaa"}, ["wandaa", "Did you mean wanda?"]),
    ({"remove": "50%", "within": "column"}, ["column", "row or a matrix"]),
]
QUANTIZE = [
    ({"scheme": "int4z-g32"}, ["int4z-g32", "no exact zero", "int4-g32"]),
    ({"scheme": "IQ4_NL", "target": "llama.cpp"}, ["IQ4_NL", "Q4_0"]),
    ({"scheme": "int4s-g32", "transform": "rotate"}, ["rotate", "smooth or awq"]),
    ({"scheme": "int4s-g32", "transform": "quarot"}, ["quarot", "fill"]),
    ({"scheme": "int4s-g32", "transform": "auto"}, ["auto", "turns weights"]),
    ({"scheme": "int4s-g32", "importance": "wanda"}, ["importance wanda", "--sparsity"]),
    ({"bits": 4.0, "sparsity": "2:4"}, ["bits", "whet masks"]),
    ({"scheme": "Q4_0", "sparsity": "2:4", "target": "llama.cpp"}, ["llama.cpp has no kernel for 2:4", "transformers"]),
]


@pytest.mark.parametrize(("options", "said"), MASKS)
def test_what_cannot_be_taken_is_refused(tmp_path, originals, options, said):
    with pytest.raises(UsageError) as raised:
        masks(originals("llama"), tmp_path / "out", **options, **TEXT)
    assert all(part in str(raised.value) for part in said) and "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("options", "said"), QUANTIZE)
def test_what_would_lose_the_zeros_is_refused(tmp_path, sparse, options, said):
    source, _ = sparse("llama", pattern="2:4")
    with pytest.raises(UsageError) as raised:
        compress(source, tmp_path / "out", **options, **TEXT)
    assert all(part in str(raised.value) for part in said) and "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_rotation_before_new_masks_is_no_matter(tmp_path, originals):
    options = {"scheme": "int4s-g32", "transform": "rotate", "sparsity": "2:4", **TEXT}
    result = compress(originals("llama"), tmp_path / "out", **options)
    assert result["check"]["masks"] == "exact zeros"


def test_a_family_without_a_table_takes_magnitudes_and_no_update(tmp_path):
    original = models.make(tmp_path / "original", "zaya")
    for options, said in (({}, "--importance magnitude"), ({"importance": "magnitude"}, "--no-update")):
        with pytest.raises(UsageError, match=said):
            masks(original, tmp_path / "out", remove="50%", **options)
    result = masks(original, tmp_path / "out", pattern="2:4", importance="magnitude", update=False)
    assert all(((w.reshape(-1, 4) == 0).sum(1) == 2).all() for w in linears(tmp_path / "out").values())
    assert result["check"]["stock transformers"] == 0


def test_a_dry_run_tells_what_it_takes_and_writes_nothing(tmp_path, originals):
    told = masks(originals("llama"), tmp_path / "out", remove="50%", dry_run=True, **TEXT)
    assert told["bytes"]["before"] == told["bytes"]["after"] and told["bytes"]["ratio"] == 1
    assert told["seconds"] > 0 and told["memory"] > 0 and "efforts" not in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "half"),
    [
        ({"remove": "50%"}, {"remove": 0.25}),
        ({"pattern": "2:4"}, {"pattern": "3:4"}),
        ({"pattern": "4:8"}, {"pattern": "6:8"}),
        ({"pattern": "1:4"}, {"pattern": "3:4"}),
        ({"pattern": "3:4"}, None),
    ],
)
def test_half_the_way(tmp_path, options, half):
    found = step.halved(Masks(**options), tmp_path)
    assert found is None if half is None else found == Masks(**half)


def test_its_own_recipe_makes_the_same(tmp_path, originals):
    from whet.recipe.schema import read_recipe

    windows = tmp_path / "text.txt"
    windows.write_text("\n\n".join(DOCUMENTS), encoding="utf-8")
    masks(originals("llama"), tmp_path / "a", remove="50%", within="row", text=str(windows), samples=8, window=20)
    asked = read_recipe(tmp_path / "a" / "recipe.yaml").steps[0].options
    masks(originals("llama"), tmp_path / "b", **asked.model_dump())
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    text = "version: 1\nsteps:\n- masks: {pattern: 2:4}\n"
    (tmp_path / "short.yaml").write_text(text)
    assert read_recipe(tmp_path / "short.yaml").steps[0].options.pattern == "2:4"


def test_stored_tensors_are_read_by_nothing_but_safetensors(sparse):
    out, _ = sparse("llama", pattern="2:4")
    index = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    stored = {name: tensor for file in set(index.values()) for name, tensor in load_file(out / file).items()}
    assert set(stored) == set(index) == set(Checkpoint(out).tensors)


@pytest.mark.usefixtures("no_process")
def test_a_recipe_takes_weights_and_then_rounds(tmp_path, originals):
    (tmp_path / "text.txt").write_text("\n\n".join(models.documents(120, 20)), encoding="utf-8")
    recipe = {
        "version": 1,
        "text": str(tmp_path / "text.txt"),
        "steps": [
            {"masks": {"pattern": "2:4", "samples": 8, "window": 20}, "gate": {"kl": 100.0}},
            {"quantize": {"scheme": "int4s-g32", "samples": 8, "window": 20}},
        ],
    }
    result = run(recipe, originals("llama"), tmp_path / "out")
    assert result["verdict"] == "pass" and result["kept"] == ["1 masks", "2 quantize"]
    assert [one["step"] for one in whet_of(tmp_path / "out")["lineage"]] == ["masks", "quantize"]
    for w in decoded(tmp_path / "out", originals("llama")).values():
        assert ((w.reshape(-1, 4) == 0).sum(1) >= 2).all()
