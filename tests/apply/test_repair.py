"""`--repair`: the adapter is what was solved, PEFT and llama.cpp compute what whet does, and every byte was told."""

from __future__ import annotations

import hashlib
import json
import math
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import models
from covering import some
from whet.anatomy import AUTO, anatomy
from whet.apply import repair
from whet.budget import adapter_bytes, tensor_bytes
from whet.checkpoint import Checkpoint, load_lighter, load_model, load_tokenizer, size_on_disk
from whet.engines.llamacpp import available, open_gguf
from whet.engines.torch import TorchEngine, open_model, outputs
from whet.errors import UsageError
from whet.formats.export import export
from whet.grids import parse_scheme
from whet.measure.compare import compare
from whet.measure.divergence import divergence
from whet.recipe.compress import compress
from whet.report import card_section, page
from whet.report.facts import facts
from whet.targets import TARGETS
from whet.text import located_windows
from whet.text.calibration import read_windows
from wording import each

DOCUMENTS = models.documents(40, 20)
TOKENS = torch.randint(2, 264, (2, 24), generator=torch.Generator().manual_seed(0))
SETTINGS = {"text": DOCUMENTS, "samples": 8, "window": 20}

# family, task, tied, type, scheme, container
CASES = {
    "llama": ("llama", "causal", False, torch.float32, "int3s-g32", "compressed-tensors"),
    "llama, integer zeros": ("llama", "causal", False, torch.bfloat16, "int3-g32", "compressed-tensors"),
    "llama, real zeros": ("llama", "causal", True, torch.float16, "int3z-g32", "whet"),
    "qwen3, NVFP4": ("qwen3", "causal", True, torch.bfloat16, "NVFP4", "compressed-tensors"),
    "gemma3": ("gemma3_text", "causal", True, torch.bfloat16, "int4s-g32", "compressed-tensors"),
    "phi3": ("phi3", "causal", False, torch.float32, "int3s-g32", "compressed-tensors"),
    "gpt2": ("gpt2", "causal", True, torch.float32, "int3s-g32", "whet"),
    "gpt_neox": ("gpt_neox", "causal", False, torch.bfloat16, "FP8", "compressed-tensors"),
    "opt": ("opt", "causal", True, torch.float16, "nf4-g32", "whet"),
    "bert": ("bert", "masked", True, torch.float32, "int3s-g32", "compressed-tensors"),
    "classifier": ("distilbert", "classification", True, torch.float32, "int3s-g32", "compressed-tensors"),
    "t5": ("t5", "seq2seq", True, torch.float32, "int3s-g32", "whet"),
}


@pytest.fixture(scope="module", params=some(CASES, 3))
def made(request, tmp_path_factory):
    """A case, its original, its folder with a repair of rank 5, and what `compress` told before and after."""
    family, task, tied, dtype, scheme, _ = case = CASES[request.param]
    root = tmp_path_factory.mktemp("repair")
    original = models.make(root / "original", family, tied=tied, dtype=dtype, architecture=AUTO[task])
    planned = compress(original, root / "lighter", scheme=scheme, repair=5, **SETTINGS, dry_run=True)
    return (
        case,
        original,
        root / "lighter",
        planned,
        compress(original, root / "lighter", scheme=scheme, repair=5, **SETTINGS),
    )


def whet_of(folder):
    return json.loads((folder / "whet.json").read_text(encoding="utf-8"))


def merged(folder):
    """The model with W + B A for its weights, in float32, by nothing but the names in the two files."""
    checkpoint = Checkpoint(folder)
    how = checkpoint.whet.get("reading") or checkpoint.whet
    model = load_lighter(checkpoint, how["linears"], torch.float32, "cpu", how.get("names"))
    about = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    stored = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert len(stored) == 2 * len(about["target_modules"])
    for name in about["target_modules"]:
        a, b = (stored[f"base_model.model.{name}.lora_{part}.weight"].float() for part in "AB")
        rank = about["rank_pattern"].get(name, about["r"])
        assert len(a) == b.shape[1] == rank == about["alpha_pattern"].get(name, about["lora_alpha"])
        weight = model.get_parameter(f"{name}.weight")
        weight.data += (b @ a).t() if about["fan_in_fan_out"] else b @ a
    return model


def plain(folder):
    """The model without its adapter."""
    checkpoint = Checkpoint(folder)
    how = checkpoint.whet.get("reading") or checkpoint.whet
    return load_lighter(checkpoint, how["linears"], torch.float32, "cpu", how.get("names"))


@torch.no_grad()
def test_what_loads_is_the_weights_and_the_adapter(made):
    (_, _, _, dtype, _, container), _, lighter, _, result = made
    assert result["container"] == container and result["repair"] == 5
    mine = load_model(lighter, dtype=torch.float32)
    expected = outputs(merged(lighter), TOKENS)
    torch.testing.assert_close(outputs(mine, TOKENS), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(outputs(plain(lighter), TOKENS), expected, rtol=1e-3, atol=1e-3)
    assert load_model(lighter).dtype == dtype
    stored = load_file(lighter / "adapter" / "adapter_model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.bfloat16 if dtype == torch.bfloat16 else torch.float16}


@torch.no_grad()
def test_peft_computes_the_same_to_the_bit(made):
    from peft import PeftModel

    (_, task, _, _, _, container), _, lighter, _, _ = made
    trust = {} if container == "compressed-tensors" else {"trust_remote_code": True}
    stock = getattr(transformers, AUTO[task]).from_pretrained(lighter, **trust)
    model = PeftModel.from_pretrained(stock, lighter / "adapter").eval()
    given = {"decoder_input_ids": TOKENS} if task == "seq2seq" else {}
    assert torch.equal(model(input_ids=TOKENS, **given).logits, outputs(load_model(lighter), TOKENS))
    if task == "causal":
        written = model.generate(input_ids=TOKENS[:1, :8], max_new_tokens=6, do_sample=False, pad_token_id=1)
        (mine,) = open_model(lighter).continue_ids([TOKENS[0, :8].tolist()], 6)
        assert written[0, 8 : 8 + len(mine)].tolist() == mine


def test_every_linear_says_what_its_repair_won(made):
    _, original, lighter, _, result = made
    parts = anatomy(Checkpoint(original).config, Checkpoint(original).shapes)
    assert set(result["linears"]) == {linear.address for linear in parts.linears()}
    stored = whet_of(lighter)["linears"]
    for address, line in result["linears"].items():
        assert 0 <= line["error"] < line["unrepaired"], address
        assert stored[address]["unrepaired"] == line["unrepaired"], address


def test_every_byte_was_told(made):
    _, original, lighter, planned, result = made
    sizes, whet = size_on_disk(lighter), whet_of(lighter)
    file = lighter / "adapter" / "adapter_model.safetensors"
    tensors = sum(t.numel() * t.element_size() for t in load_file(file).values())
    written = Checkpoint(lighter)
    assert planned["bytes"]["after"] == {
        **{part: sizes[part] for part in ("linears", "embedding", "head", "other", "adapter")},
        "total": written.nbytes + tensors,
    }
    assert sizes["adapter"] == tensors == whet["adapter"]["bytes"] > 0 and result["sizes"]["lighter"] == sizes
    shards = {info.file for info in written.tensors.values()}
    assert sizes["weights"] == sum(shard.stat().st_size for shard in shards) + file.stat().st_size
    assert sizes["total"] <= planned["disk"]
    files = models.contents(lighter)
    assert set(whet["files"]) == set(files) - {"whet.json"}
    for name, about in whet["files"].items():
        assert about == {"bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
    assert models.contents(original).keys() >= {"config.json", "README.md"}


def test_the_card_and_the_page_tell_of_it(made):
    _, _, lighter, _, _ = made
    card = (lighter / "README.md").read_text(encoding="utf-8")
    assert "adapter of rank 5" in card and 'PeftModel.from_pretrained(model, "THIS_FOLDER/adapter")' in card
    told = facts(lighter)
    for language, word in (("en", "an adapter of rank 5"), ("ko", "랭크 5 어댑터")):
        assert word in card_section(told, language)
    assert "an adapter of rank 5" in page(told) and f"{lighter}/adapter" in page(told)
    assert "repair: 5" in (lighter / "recipe.yaml").read_text()


@torch.no_grad()
@pytest.mark.parametrize("solver", some(["gptq", "nearest", "tuned", "block"], 4))
def test_the_run_verifies_what_loads(tmp_path, solver):
    """Its KL is that of the loaded folder, adapter and all, whoever solved and trained."""
    original = models.make(tmp_path / "m", "llama")
    result = compress(original, tmp_path / "o", scheme="int2-g16", repair=4, solver=solver, **SETTINGS)
    verify = read_windows(
        Checkpoint(original), DOCUMENTS, None, field="text", chat=False, samples=8, window=20, seed=0
    ).verify
    for model, same in ((load_model(tmp_path / "o"), True), (plain(tmp_path / "o"), False)):
        total = count = 0
        for window in verify:
            before, after = (outputs(m, window[None])[:, :-1].double() for m in (load_model(original), model))
            before, after = before.log_softmax(-1), after.log_softmax(-1)
            total += (before.exp() * (before - after)).sum().item()
            count += len(window) - 1
        assert math.isclose(total / count, result["kl"], rel_tol=1e-3) == same
    bare = compress(original, tmp_path / "bare", scheme="int2-g16", solver=solver, **SETTINGS)
    assert result["kl"] < bare["kl"]


def test_rounding_anew_beside_the_repair_is_kept_only_where_it_helps(tmp_path, monkeypatch):
    original = models.make(tmp_path / "m", "llama")
    weights = load_file(original / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for part in "qkv":  # as trained weights have it: beside a few directions that stand out the rest is easier to round
        w = weights[f"model.layers.0.self_attn.{part}_proj.weight"]
        w += torch.randn(len(w), 3, generator=generator) @ torch.randn(3, 64, generator=generator).pow(3) * 0.1
    save_file(weights, original / "model.safetensors", metadata={"format": "pt"})
    lost = []
    for rounds in (0, 1, 3):
        monkeypatch.setattr(repair, "REPAIR_ROUNDS", rounds)
        result = compress(original, tmp_path / f"o{rounds}", scheme="int2-g16", repair=4, **SETTINGS)
        first = [line["error"] for address, line in result["linears"].items() if ".0.self_attn" in address]
        lost.append(sum(first[:3]))
    assert lost[0] >= lost[1] >= lost[2] and lost[0] > lost[2]


def test_without_text_it_is_of_the_weights_alone(tmp_path):
    original = models.make(tmp_path / "m", "phi3")
    result = compress(original, tmp_path / "o", scheme="int3-g32", repair=6, solver="nearest")
    assert all(line["error"] < line["unrepaired"] for line in result["linears"].values())
    torch.testing.assert_close(outputs(load_model(tmp_path / "o"), TOKENS), outputs(merged(tmp_path / "o"), TOKENS))


@torch.no_grad()
@pytest.mark.parametrize("family", ["phi3", "gpt2"])
def test_rows_of_one_tensor_share_an_adapter_whatever_their_schemes(tmp_path, family):
    original = models.make(tmp_path / "m", family, tied=family == "gpt2")
    parts = anatomy(Checkpoint(original).config, Checkpoint(original).shapes)
    schemes = {x.address: "int3s-g32" for x in parts.linears()}
    q, k, v = parts.blocks[0][:3]
    schemes |= {q.address: "keep", k.address: "int2z-g16", parts.embedding.address: "keep"}
    if parts.head is not None:
        schemes[parts.head.address] = "keep"
    plan = {"format": "whet.plan", "version": 1, "target": "transformers", "schemes": schemes}
    result = compress(original, tmp_path / "o", plan=plan, repair=6, **SETTINGS)
    assert result["container"] == "whet" and "unrepaired" in result["linears"][k.address]
    model, before = merged(tmp_path / "o"), load_model(original)
    torch.testing.assert_close(
        outputs(load_model(tmp_path / "o"), TOKENS), outputs(model, TOKENS), rtol=1e-4, atol=1e-4
    )
    name = q.held.parameter
    assert torch.equal(q.held.of(model.get_parameter(name)), q.held.of(before.get_parameter(name)))
    assert not torch.equal(v.held.of(model.get_parameter(name)), v.held.of(before.get_parameter(name)))
    (joint,) = [m for m in parts.modules(schemes) if f"{m.name}.weight" == name]
    assert [x.address for x in joint.linears] == [q.address, k.address, v.address]


def test_no_rank_is_above_what_a_linear_has(tmp_path):
    from peft import PeftModel

    original = models.make(tmp_path / "m", "llama", dtype=torch.bfloat16)
    compress(original, tmp_path / "o", scheme="int2s-g32", repair=48, **SETTINGS)
    about = json.loads((tmp_path / "o" / "adapter" / "adapter_config.json").read_text())
    # keys and values have 32 rows
    assert set(about["rank_pattern"].values()) == {32} and len(about["rank_pattern"]) == 4 and about["r"] == 48
    parts = anatomy(Checkpoint(original).config, Checkpoint(original).shapes)
    grids = {x.address: parse_scheme("int2s-g32") for x in parts.linears()}
    assert adapter_bytes(parts, grids, 48) == size_on_disk(tmp_path / "o")["adapter"]
    assert "adapter" not in tensor_bytes(parts, Checkpoint(original).tensors, grids)
    merged(tmp_path / "o")
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "o")
    model = PeftModel.from_pretrained(stock, tmp_path / "o" / "adapter").eval()
    assert torch.equal(model(TOKENS).logits, outputs(load_model(tmp_path / "o"), TOKENS))


def test_weights_whose_scales_stay_in_float32_are_repaired_too(tmp_path):
    original = models.make(tmp_path / "m", "phi3")
    weights = load_file(original / "model.safetensors")
    weights["model.layers.0.self_attn.qkv_proj.weight"] *= 1e-7
    save_file(weights, original / "model.safetensors", metadata={"format": "pt"})
    result = compress(original, tmp_path / "o", scheme="int3-g32", repair=6, **SETTINGS)
    line = result["linears"]["model.layers.0.self_attn.qkv_proj.q"]
    assert line["error"] < line["unrepaired"] and "float32" in line["notes"][0]["message"]


# -- refused before anything is written --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("refused") / "model", "llama")


@each(
    "choices,what",
    [
        ({"repair": 0}, "repair is 0: .*greater than or equal to 1"),
        ({"repair": True}, "repair is True: .*valid integer"),
        ({"repair": 2.5}, r"repair is 2\.5: .*valid integer"),
        ({"repair": 4, "bits": 3.5}, "repair goes with scheme and plan.*bits.*whet plan"),
        ({"repair": 4, "fit": "50%"}, "repair goes with scheme and plan.*fit"),
        ({"repair": 4, "quality": 0.9}, "repair goes with scheme and plan.*quality"),
        (
            {"repair": 4, "target": "vllm", "scheme": "int4s-g32"},
            "with vllm whet has run none.*llama.cpp, whet",
        ),
        ({"repair": 4, "target": "onnx", "scheme": "int4s-g32"}, "with onnx"),
        ({"repair": 4, "target": "openvino", "scheme": "int4s-g32"}, "with openvino"),
        ({"repair": 4, "target": "llama.cpp", "scheme": "F16"}, "nothing to repair"),
    ],
)
def test_what_takes_no_adapter_is_refused(tmp_path, original, choices, what):
    with pytest.raises(UsageError, match=what):
        compress(original, tmp_path / "o", **SETTINGS, **choices)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_stacked_experts_are_refused(tmp_path, family):
    with pytest.raises(UsageError, match=r"stacks its experts.*keeps the experts"):
        compress(models.make(tmp_path / "m", family), tmp_path / "o", scheme="int4s-g32", repair=4, **SETTINGS)


def test_a_family_without_a_table_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no table of the family zaya.*Leave repair out"):
        compress(models.make(tmp_path / "m", "zaya"), tmp_path / "o", scheme="int4s-g32", repair=4, **SETTINGS)


def test_a_plan_that_keeps_the_experts_is_taken(tmp_path):
    original = models.make(tmp_path / "m", "mixtral", dtype=torch.bfloat16)
    parts = anatomy(Checkpoint(original).config, Checkpoint(original).shapes)
    schemes = {x.address: "keep" if x.held.expert is not None else "int3s-g32" for x in parts.linears()}
    schemes |= {parts.embedding.address: "keep", parts.head.address: "keep"}
    plan = {"format": "whet.plan", "version": 1, "target": "transformers", "schemes": schemes}
    compress(original, tmp_path / "o", plan=plan, repair=4, **SETTINGS)
    about = json.loads((tmp_path / "o" / "adapter" / "adapter_config.json").read_text())
    assert len(about["target_modules"]) == 8 and not any("expert" in name for name in about["target_modules"])


# -- read again --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lighter(tmp_path_factory, original):
    folder = tmp_path_factory.mktemp("again") / "lighter"
    compress(original, folder, scheme="int2-g16", repair=4, **SETTINGS)
    return folder


def test_compare_counts_and_runs_it(original, lighter):
    text, tokenizer = models.documents(20, 20, seed=1), load_tokenizer(original)
    result = compare(original, lighter, text=text, window=20, speed=False)
    assert result["size"]["lighter"]["adapter"] == size_on_disk(lighter)["adapter"]
    windows = [found.tokens for found in located_windows(text, tokenizer, 256, 20, 0, "")]
    first, bare = open_model(original), TorchEngine(plain(lighter), tokenizer, "without its adapter")
    lost, without = (divergence(first, second, windows).kl.mean() for second in (open_model(lighter), bare))
    assert result["divergence"]["kl"]["mean"] == pytest.approx(lost, rel=1e-5) and without > lost


@pytest.mark.parametrize("damage", ["missing", "half", "another", "odd", "narrow"])
def test_a_damaged_adapter_is_an_error_and_no_other_model(tmp_path, lighter, damage):
    lighter = shutil.copytree(lighter, tmp_path / "lighter")
    file = lighter / "adapter" / "adapter_model.safetensors"
    stored = load_file(file)
    first = next(name for name in stored if "lora_A" in name)
    if damage == "missing":
        file.unlink()
    elif damage == "half":
        file.write_bytes(file.read_bytes()[:-40])
    elif damage == "another":
        save_file({name.replace("layers.0", "layers.9"): value for name, value in stored.items()}, file)
    elif damage == "narrow":
        save_file(
            {name: value[:, :-1].contiguous() if "lora_A" in name else value for name, value in stored.items()}, file
        )
    else:
        save_file({name: value for name, value in stored.items() if name != first}, file)
    what = {"missing": "is missing", "half": "safetensors", "another": "layers.9", "odd": "other tensors|no pair"}
    with pytest.raises(UsageError, match=what.get(damage, "rows of")):
        load_model(lighter)


# -- llama.cpp ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family,scheme", some([("phi3", "Q5_0"), ("llama", "Q4_0"), ("gpt2", "Q4_1"), ("qwen3", "Q8_0")], 2)
)
def test_llama_cpp_adds_what_whet_adds(tmp_path, family, scheme):
    """With an adapter as large as the weights, so that rows in another order or another strength would show."""
    if not available():
        pytest.skip("llama-cpp-python is not installed")
    original = models.make(tmp_path / "m", family, tied=family == "gpt2")
    made = compress(original, tmp_path / "o", scheme=scheme, repair=48, target="llama.cpp", folder=True, **SETTINGS)
    assert made["check"]["gguf"]["adapter"] == {
        "file": "model-adapter.gguf",
        "bytes": (tmp_path / "o" / "model-adapter.gguf").stat().st_size,
    }
    assert "--lora THIS_FOLDER/model-adapter.gguf" in (tmp_path / "o" / "README.md").read_text()
    file = tmp_path / "o" / "adapter" / "adapter_model.safetensors"
    generator = torch.Generator().manual_seed(0)
    large = {n: (torch.randn(t.shape, generator=generator) * 0.1).to(t.dtype) for n, t in load_file(file).items()}
    save_file(large, file)
    models.relist(tmp_path / "o", "adapter/adapter_model.safetensors")
    export(tmp_path / "o", out=tmp_path / "x.gguf")
    windows = [torch.tensor(load_tokenizer(original)(one)["input_ids"][:40]) for one in models.documents(6)]
    mine, theirs = open_model(tmp_path / "o", dtype="float32"), open_gguf(tmp_path / "x.gguf", threads=1)
    near = divergence(mine, theirs, windows).kl.mean()
    far = divergence(mine, open_gguf(tmp_path / "o" / "model.gguf", threads=1), windows).kl.mean()
    assert near < 5e-3 and far > 30 * near
    sizes = theirs.file.size()
    assert sizes["adapter"] == size_on_disk(tmp_path / "o")["adapter"]
    assert sizes["total"] == sum((tmp_path / name).stat().st_size for name in ("x.gguf", "x-adapter.gguf"))
    (tmp_path / "x-adapter.gguf").unlink()
    with pytest.raises(UsageError, match=r"x-adapter\.gguf.*not there"):
        open_gguf(tmp_path / "x.gguf")


def test_the_targets_that_take_an_adapter_are_those_that_are_run_here():
    assert {name for name, target in TARGETS.items() if target.adapters} == {"transformers", "llama.cpp", "whet"}
