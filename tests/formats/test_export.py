"""Exporting: the file holds the folder's weights and nothing else, and what cannot be held is refused before."""

from __future__ import annotations

import importlib
import json

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import models
import whet
from covering import matrix
from gguf_models import CASES, make
from whet.anatomy import FAMILIES
from whet.budget import tensor_bytes
from whet.checkpoint import Checkpoint, load_model, read_manifest, write_tensors
from whet.checkpoint.gguf import read_gguf
from whet.errors import GateError, MachineError, UsageError
from whet.formats.gguf import plan_gguf
from whet.report.facts import facts
from whet.targets import find_target
from wording import each

TEXT = models.documents(60)
FOR = {"target": "llama.cpp"}


def compress(model, out, **more):
    return whet.compress(model, out, **{"text": TEXT, "samples": 8, "window": 32, "folder": True} | more, **FOR)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("export")
    models.make(base / "original", tied=True, dtype=torch.bfloat16)
    compress(base / "original", base / "lighter", scheme="q4_0", embed="Q5_1")
    whet.compress(base / "original", base / "other", scheme="int3s-g32", solver="nearest")
    whet.compress(base / "original", base / "floats", scheme="FP8", solver="nearest")
    return base


def decoded(file, name, heads=None):
    """A tensor as ggml's package reads it; rows of q and k are put back in transformers' order."""
    info, data = file.tensors[name], file.read(name)
    kind = gguf.GGMLQuantizationType[info.type]
    value = torch.from_numpy(np.array(data.view(np.float32) if info.type == "F32" else gguf.dequantize(data, kind)))
    value = value.reshape(info.shape)
    return value if heads is None else value.reshape(heads, -1, 2, info.shape[1]).swapaxes(1, 2).reshape(info.shape)


def test_the_file_in_the_folder_holds_what_was_solved(folders):
    file = read_gguf(folders / "lighter" / "model.gguf")
    weights = load_model(folders / "lighter", torch.float32).state_dict()
    for name, heads in (("q_proj", 4), ("k_proj", 2), ("o_proj", None)):
        mine = decoded(file, f"blk.1.attn_{name[0] if heads else 'output'}.weight", heads)
        assert torch.equal(mine, weights[f"model.layers.1.self_attn.{name}.weight"]), name
    assert torch.equal(decoded(file, "blk.0.ffn_down.weight"), weights["model.layers.0.mlp.down_proj.weight"])
    assert torch.equal(decoded(file, "token_embd.weight"), weights["model.embed_tokens.weight"])
    assert torch.equal(decoded(file, "output_norm.weight"), weights["model.norm.weight"])
    assert "output.weight" not in file.tensors  # tied
    assert {t.type for n, t in file.tensors.items() if n.startswith("blk") and len(t.shape) > 1} == {"Q4_0"}
    assert file.tensors["token_embd.weight"].type == "Q5_1"


def test_the_file_is_left_alone_unless_its_folder_is_asked_for(folders, tmp_path, monkeypatch):
    original, out = folders / "original", tmp_path / "alone"
    made = compress(original, out, scheme="q4_0", embed="Q5_1", folder=False)
    assert {file.name for file in out.iterdir()} == {"model.gguf", "whet.json", "recipe.yaml", "README.md", "LICENSE"}
    mine, theirs = read_gguf(out / "model.gguf"), read_gguf(folders / "lighter" / "model.gguf")
    assert all(np.array_equal(mine.read(name), theirs.read(name)) for name in theirs.tensors)
    assert made["sizes"]["lighter"]["total"] == (out / "model.gguf").stat().st_size and made["loads_in"] == "gguf"
    manifest = json.loads((out / "whet.json").read_text(encoding="utf-8"))
    assert manifest["container"] == "gguf"
    assert {*manifest["files"]} == {"model.gguf", "recipe.yaml", "README.md", "LICENSE"}
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "llama-cli -m THIS_FOLDER/model.gguf" in card and "transformers" not in card
    assert [one["runtime"] for one in facts(out)["loading"]] == ["llama.cpp", "whet"]
    assert facts(out / "model.gguf")["lighter"] == facts(out)["lighter"] == read_manifest(manifest, out / "whet.json")
    with pytest.raises(UsageError, match=r"holds model\.gguf .*folder=True"):
        whet.compress(out, tmp_path / "again", scheme="int8s", solver="nearest")
    with pytest.raises(UsageError, match="the folder itself"):
        whet.compress(original, tmp_path / "again", folder=True, solver="nearest")


def test_a_folder_whose_file_was_to_be_left_alone_is_finished_by_leaving_it(folders, tmp_path, monkeypatch):
    """Killed while the other files go, the folder is a finished one, and the same again takes the rest."""
    from whet.steps import alone

    with monkeypatch.context() as stopped:
        stopped.setattr(alone, "size_of_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            compress(folders / "original", tmp_path / "out", scheme="q4_0", embed="Q5_1", folder=False)
    assert "model.safetensors" not in json.loads((tmp_path / "out" / "whet.json").read_text(encoding="utf-8"))["files"]
    (tmp_path / "out" / "model.safetensors").write_bytes(b"")
    alone.leave_file({"out": str(tmp_path / "out")})
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.children
def test_a_folder_of_a_file_is_compared_and_generates(folders, tmp_path):
    pytest.importorskip("llama_cpp")
    original, out = folders / "original", tmp_path / "alone"
    compress(original, out, scheme="q8_0", embed="q8_0", solver="nearest", folder=False)
    asked = {"text": TEXT[:20], "window": 32, "speed": False}
    both = [whet.compare(original, lighter, **asked)["divergence"] for lighter in (out, out / "model.gguf")]
    assert both[0] == both[1]
    assert whet.generate(out, "ab", max_new_tokens=4) == whet.generate(out / "model.gguf", "ab", max_new_tokens=4)


@pytest.mark.children
def test_the_run_tells_what_it_proved(folders, tmp_path):
    pytest.importorskip("llama_cpp")
    made = compress(folders / "original", tmp_path / "again", scheme="q4_0", embed="Q5_1")
    told = made["check"]["gguf"]
    assert told["types"] == {"Q5_1": 1, "Q4_0": 14} and told["bytes"]["planned"] == told["bytes"]["tensors"]
    check = told["check"]
    assert check["weights"] == "equal, bit for bit" and check["tokens"] > 5 and check["kl"] <= 1e-3
    manifest = Checkpoint(tmp_path / "again").whet
    assert manifest["target"] == "llama.cpp" and "model.gguf" in manifest["files"]
    assert manifest["linears"]["model.layers.0.mlp.up_proj"]["grid"] == "Q4_0"
    assert "llama-cli" in (tmp_path / "again" / "README.md").read_text(encoding="utf-8")
    same = [(folder / "model.gguf").read_bytes() for folder in (folders / "lighter", tmp_path / "again")]
    assert same[0] == same[1]


# One of each way to store linears; that every family is written right is tests/formats/gguf/test_architectures.py's.
STORED = ("llama, tied", "gemma2", "phi3", "gpt2", "mixtral")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=() if case in STORED else pytest.mark.long)
        for case, (family, _) in CASES.items()
        if family in FAMILIES
    ],
)
def test_every_family_that_both_know_compresses_to_a_proved_file(case, tmp_path):
    """Codes of fused, transposed and stacked linears too, as soon as `anatomy` has the family."""
    pytest.importorskip("llama_cpp")
    folder = make(tmp_path / "model", *CASES[case])
    made = compress(folder, tmp_path / "out", scheme="Q4_1", embed="Q8_0")
    told = made["check"]["gguf"]
    assert told["check"]["weights"] == "equal, bit for bit" and told["check"]["kl"] <= told["check"]["most_kl"]
    assert told["types"]["Q4_1"] > 7 and told["types"]["Q8_0"] >= 1
    assert told["bytes"]["planned"] == told["bytes"]["tensors"]


WIDE = [("Q4_K", "Q6_K"), ("q3_k", "Q2_K"), ("IQ4_XS", "iq4_nl"), ("Q5_K", None), ("tq1_0", "TQ2_0")]


@pytest.mark.long
@pytest.mark.parametrize(("scheme", "embed"), WIDE)
def test_trained_block_types_of_256_weights_too(tmp_path, scheme, embed):
    """What training moves is stored as any solution is."""
    test_block_types_of_256_weights_are_solved_stored_and_proved(tmp_path, scheme, embed, "tuned")


@matrix({"scheme,embed": WIDE, "solver": ["nearest", "gptq"]}, strength=1)
def test_block_types_of_256_weights_are_solved_stored_and_proved(tmp_path, scheme, embed, solver):
    models.make(tmp_path / "model", tied=True, dtype=torch.bfloat16, hidden_size=256, intermediate_size=320)
    made = compress(tmp_path / "model", tmp_path / "out", scheme=scheme, embed=embed, solver=solver)
    instead = find_target("llama.cpp").instead[scheme.upper()]
    assert f"{instead} instead of {scheme.upper()}, because their rows do not divide by 256" in made["notes"][0]
    told = made["check"]["gguf"]
    expected = {scheme.upper(): 12, instead: 2}
    expected[embed.upper() if embed else "BF16"] = expected.get(embed.upper() if embed else "BF16", 0) + 1
    assert told["types"] == expected and told["check"]["weights"] == "equal, bit for bit"
    file, stored = read_gguf(tmp_path / "out" / "model.gguf"), Checkpoint(tmp_path / "out")
    weights = load_model(tmp_path / "out", torch.float32).state_dict()
    assert torch.equal(decoded(file, "blk.1.ffn_up.weight"), weights["model.layers.1.mlp.up_proj.weight"])
    assert torch.equal(decoded(file, "token_embd.weight"), weights["model.embed_tokens.weight"])
    up = "model.layers.0.mlp.up_proj.weight_"
    sizes = [i.nbytes for n, i in stored.tensors.items() if n.startswith(up) and not n.endswith("shape")]
    assert sum(sizes) == file.tensors["blk.0.ffn_up.weight"].nbytes
    again = whet.export(tmp_path / "out", out=tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == (tmp_path / "out" / "model.gguf").read_bytes()
    assert again["bytes"]["tensors"] == again["bytes"]["planned"]


def test_export_of_a_lighter_folder_writes_the_same_bytes_again(folders, tmp_path):
    made = whet.export(folders / "lighter", out=tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == (folders / "lighter" / "model.gguf").read_bytes()
    assert made["folder"] == str(folders / "lighter") and made["bytes"]["tensors"] == made["bytes"]["planned"]


def test_sizes_are_known_before_to_the_byte(folders):
    """Blocks take in the file what they take in the folder, which also stores a shape (16 bytes) a linear."""
    file = read_gguf(folders / "lighter" / "model.gguf")
    layout = plan_gguf(folders / "lighter")
    assert layout.nbytes == file.nbytes
    stored = Checkpoint(folders / "lighter")
    linears = sum(i.nbytes for n, i in stored.tensors.items() if "weight_" in n and not n.endswith("weight_shape"))
    matrices = sum(t.nbytes for t in file.tensors.values() if len(t.shape) > 1)
    assert matrices == linears
    from whet.steps.decide import choose_grids
    from whet.steps.original import open_original

    opened = open_original(folders / "original", find_target("llama.cpp"))
    original, parts = opened.checkpoint, opened.parts
    grids = choose_grids(opened, "Q4_0", "Q5_1")
    assert tensor_bytes(parts, original.tensors, grids)["total"] == sum(i.nbytes for i in stored.tensors.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [None, "f32", "f16", "BF16"])
def test_originals_go_over_in_any_float(tmp_path, dtype, kind):
    folder = models.make(tmp_path / "model", dtype=dtype)
    made = whet.export(folder, out=tmp_path / "m.gguf", kind=kind)
    file = read_gguf(tmp_path / "m.gguf")
    own = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    assert set(made["types"]) == {kind.upper() if kind else own}
    value = Checkpoint(folder).read("lm_head.weight")
    wanted = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[file.tensors["output.weight"].type]
    assert torch.equal(decoded(file, "output.weight"), value.to(wanted).float())
    assert file.tensors["blk.0.attn_norm.weight"].type == "F32"


def test_rows_that_blocks_do_not_divide_take_float16_and_are_named(tmp_path):
    models.make(tmp_path / "model", intermediate_size=100)
    made = compress(tmp_path / "model", tmp_path / "out", scheme="Q8_0")
    assert (
        "F16 instead of Q8_0, because their rows do not divide by 32: model.layers.0.mlp.down_proj" in made["notes"][0]
    )
    types = {n: t.type for n, t in read_gguf(tmp_path / "out" / "model.gguf").tensors.items()}
    assert types["blk.0.ffn_down.weight"] == "F16" and types["blk.0.ffn_up.weight"] == "Q8_0"
    plan = {a: line["grid"] for a, line in made["linears"].items()}
    assert plan["model.layers.1.mlp.down_proj"] == "F16"
    weights = load_model(tmp_path / "out").state_dict()
    down = Checkpoint(tmp_path / "model").read("model.layers.1.mlp.down_proj.weight")
    assert torch.equal(weights["model.layers.1.mlp.down_proj.weight"], down.half().float())


def test_a_budget_plans_with_what_llama_cpp_holds(tmp_path):
    models.make(tmp_path / "model", intermediate_size=100, dtype=torch.float32)
    made = compress(tmp_path / "model", tmp_path / "out", bits=8)
    schemes = set(made["plan"]["schemes"].values())
    assert schemes <= {"keep", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "F16"} and len(schemes) > 1
    file = read_gguf(tmp_path / "out" / "model.gguf")
    assert {t.type for t in file.tensors.values()} - {"F32"} == schemes - {"keep"}
    assert made["check"]["gguf"]["check"]["weights"] == "equal, bit for bit"


def test_stock_transformers_loads_them_through_the_modelling_file(tmp_path):
    models.make(tmp_path / "model", dtype=torch.bfloat16, hidden_size=256, intermediate_size=256)
    made = whet.compress(tmp_path / "model", tmp_path / "out", scheme="Q3_K", embed="IQ4_NL", solver="nearest")
    assert made["container"] == "whet"
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True).state_dict()
    mine = load_model(tmp_path / "out").state_dict()
    assert all(torch.equal(stock[name], value) for name, value in mine.items())
    exported = whet.export(tmp_path / "out", out=tmp_path / "m.gguf")
    assert exported["types"] == {"Q3_K": 14, "IQ4_NL": 2} and exported["check"]["weights"] == "equal, bit for bit"


@pytest.mark.long
def test_a_budget_mixes_block_types_of_two_levels_where_they_fit(tmp_path):
    models.make(tmp_path / "model", dtype=torch.float32, hidden_size=256, intermediate_size=320)
    made = compress(tmp_path / "model", tmp_path / "out", bits=4.6)
    plan = made["plan"]["schemes"]
    narrow = {scheme for address, scheme in plan.items() if address.endswith("down_proj")}
    assert narrow <= {"keep", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "F16"}
    assert set(plan.values()) & {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"}
    assert made["check"]["gguf"]["check"]["weights"] == "equal, bit for bit"


REFUSED = {
    "scheme": (
        "other",
        {},
        r"no type of ggml that whet writes holds int3s-g32 \(14 linears, first .*Compress with --for llama\.cpp",
    ),
    "floats": ("floats", {}, r"no type of ggml that whet writes holds FP8 \(14 linears, first"),
    "type": ("lighter", {"kind": "f16"}, "its types were decided when it was made.*Leave --type out"),
    "a type that is none": ("original", {"kind": "q4_0"}, "Q4_0 is no type for an original"),
    "format": ("lighter", {"to": "ggml"}, r"Format 'ggml' is not known\. Did you mean gguf\?"),
    "folder": ("nowhere", {}, "nowhere does not exist"),
}


@each("case", REFUSED)
def test_what_cannot_be_written_is_refused_before(folders, tmp_path, case):
    name, more, said = REFUSED[case]
    with pytest.raises(UsageError, match=said) as raised:
        whet.export(folders / name, out=tmp_path / "m.gguf", **more)
    assert not list(tmp_path.iterdir()) and "\n" not in str(raised.value)


def test_what_cannot_be_written_is_refused_before_the_long_part(tmp_path):
    folder = models.make(tmp_path / "model", hidden_act="gelu")
    with pytest.raises(UsageError, match="its activation is gelu"):
        compress(folder, tmp_path / "out", dry_run=True)
    (tmp_path / "more").mkdir()
    folder = models.make(tmp_path / "more" / "model", with_tokenizer=False)
    with pytest.raises(UsageError, match="has no tokenizer"):
        whet.compress(folder, tmp_path / "out", scheme="Q4_0", solver="nearest", target="llama.cpp", dry_run=True)


def test_a_head_that_differs_from_a_tied_embedding_is_written(tmp_path):
    """transformers keeps both tensors whatever the config says; a copy is left out."""
    folder = models.make(tmp_path / "model")
    models.edit_config(folder, tie_word_embeddings=True)
    made = whet.export(folder, out=tmp_path / "both.gguf")
    file = read_gguf(tmp_path / "both.gguf")
    assert torch.equal(decoded(file, "output.weight"), Checkpoint(folder).read("lm_head.weight"))
    assert made["check"]["weights"] == "equal, bit for bit"
    tensors = {name: Checkpoint(folder).read(name) for name in Checkpoint(folder).tensors}
    write_tensors(
        folder / "model.safetensors", {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    )
    whet.export(folder, out=tmp_path / "one.gguf")
    assert "output.weight" not in read_gguf(tmp_path / "one.gguf").tensors


def test_nothing_is_overwritten_and_no_folder_is_made(folders, tmp_path):
    (tmp_path / "m.gguf").write_text("mine")
    with pytest.raises(UsageError, match=r"m\.gguf is there already"):
        whet.export(folders / "lighter", out=tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_text() == "mine"
    with pytest.raises(UsageError, match="is no folder"):
        whet.export(folders / "lighter", out=tmp_path / "no" / "m.gguf")


@each(
    "scheme,said",
    [
        ("W4A16", r"as int4s-g128: llama\.cpp holds Q4_0, .*Use one of them"),
        ("int4s-g32", r"llama\.cpp holds .*Use Q4_0, which is the same"),
        ("int4-g32", r"llama\.cpp holds .*Use one of them"),
    ],
)
def test_the_target_takes_its_own_types_only(folders, tmp_path, scheme, said):
    with pytest.raises(UsageError, match=said):
        compress(folders / "original", tmp_path / "out", scheme=scheme)
    with pytest.raises(UsageError, match=r"F16 and BF16 are for llama\.cpp"):
        whet.compress(folders / "original", tmp_path / "out", scheme="F16", text=TEXT)


def test_without_llama_cpp_the_weights_are_proved_and_the_rest_is_said(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("whet.formats.running"), "available", lambda: False)
    told = []
    made = whet.export(folders / "lighter", out=tmp_path / "m.gguf", on_event=told.append)
    assert made["check"]["weights"] == "equal, bit for bit"
    assert "whet[llamacpp]" in made["check"]["llama.cpp"] and "was not run" in told[-1]["message"]


@pytest.mark.children
def test_a_crash_of_llama_cpp_takes_nothing_with_it(folders, tmp_path, monkeypatch):
    """On some processors it dies in some types, after everything was made."""
    pytest.importorskip("llama_cpp")
    monkeypatch.setattr("whet.formats.running._CODE", "import os; os.kill(os.getpid(), 11)")
    events = []
    result = whet.export(folders / "lighter", out=tmp_path / "m.gguf", on_event=events.append)
    assert "it crashed (SIGSEGV)" in result["check"]["llama.cpp"] and (tmp_path / "m.gguf").is_file()
    assert any("was not run: it crashed" in event["message"] for event in events if event["event"] == "note")
    made = compress(folders / "original", tmp_path / "out", scheme="Q8_0", solver="nearest")
    assert made["check"]["gguf"]["check"]["weights"] == "equal, bit for bit"
    assert "SIGSEGV" in Checkpoint(tmp_path / "out").whet["gguf"]["check"]["llama.cpp"]["message"]


@pytest.mark.parametrize("what", ["weights", "rows"])
def test_a_file_that_is_another_model_is_not_left_behind(folders, tmp_path, monkeypatch, what):
    if what == "weights":
        monkeypatch.setattr("whet.formats.gguf.source.blocks", _swapped)
        said, more = "is not what the folder holds", {}
    else:  # the mistake that loads without a word and computes something else
        pytest.importorskip("llama_cpp")
        monkeypatch.setattr("whet.formats.gguf.architectures.interleaved", lambda rows, heads: torch.arange(rows))
        said, more = "differ from the folder's by KL", {"kind": "f32"}
    with pytest.raises(GateError, match=said):
        whet.export(folders / ("lighter" if what == "weights" else "original"), out=tmp_path / "m.gguf", **more)
    assert not list(tmp_path.iterdir())


def _swapped(codes, params, kind, address):
    from whet.formats.gguf.blocks import blocks

    return blocks(codes.flip(0), params, kind, address)


@pytest.mark.usefixtures("no_process")
@each("stop", [KeyboardInterrupt, MemoryError, UsageError])
def test_a_proof_that_is_stopped_leaves_nothing(folders, tmp_path, monkeypatch, stop):
    """No file under its final name was not proved, however the proof ended."""
    seen = []

    def stopped(file, *_):
        seen.append((file.path.is_file(), (tmp_path / "a.gguf").exists()))
        raise stop("stopped")

    monkeypatch.setattr(importlib.import_module("whet.formats.export"), "prove_running", stopped)
    with pytest.raises(MachineError if stop is MemoryError else stop):
        whet.export(folders / "lighter", out=tmp_path / "a.gguf")
    assert seen == [(True, False)]
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_in_nobodys_way(folders, tmp_path):
    (tmp_path / ".a.gguf.unproved").mkdir()
    (tmp_path / ".a.gguf.unproved" / "a.gguf").write_bytes(b"half a file")
    whet.export(folders / "lighter", out=tmp_path / "a.gguf")
    assert [file.name for file in tmp_path.iterdir()] == ["a.gguf"]


def test_compare_takes_a_file_on_either_side(folders, tmp_path):
    pytest.importorskip("llama_cpp")
    whet.export(folders / "original", out=tmp_path / "o.gguf", kind="f32")
    file = folders / "lighter" / "model.gguf"
    skills = [
        {"skill": "s", "prompt": "ab", "choices": [" cd", " the"], "label": 0},
        {"skill": "s", "prompt": "for", "answer": "the", "check": "exact"},
    ]
    unquantized, lighter = tmp_path / "o.gguf", folders / "lighter"
    for first, second in ((folders / "original", file), (unquantized, file), (unquantized, lighter)):
        found = whet.compare(first, second, text=models.documents(20, seed=5), window=32, skills=skills, speed=False)
        assert 0 < found["divergence"]["kl"]["mean"] < 1 and found["size"]["shrink"] > 1
        mixed = any("runs in" in note and "llama.cpp" in note for note in found["notes"])
        assert mixed == (first.suffix != second.suffix)
    same = whet.compare(file, file, text=TEXT, window=32, windows=4, speed=True, skills=skills)
    assert same["divergence"]["kl"]["mean"] == 0 and same["speed"]["runtime"] == "llama.cpp"
    assert "error" not in same["memory"]["lighter"] and same["options"]["dtype"] == ["its own", "its own"]
    assert any("also made the lighter model" in note for note in same["notes"])  # the file knows its lineage


def test_compare_refuses_what_does_not_fit(folders, tmp_path, monkeypatch):
    """From headers and tokenizers alone: llama.cpp is asked for nothing, so this is told where it is not installed."""
    monkeypatch.setattr("whet.measure.sides.available", lambda: True)
    file = folders / "lighter" / "model.gguf"
    models.make(tmp_path / "other", with_tokenizer=False)
    models.tokenizer(extra=3).save_pretrained(tmp_path / "other")
    with pytest.raises(UsageError, match=r"have different tokenizers \(3 tokens differ\)"):
        whet.compare(tmp_path / "other", file, text=TEXT)
    with pytest.raises(UsageError, match=r"Tasks are run on folders, and .*model\.gguf is a finished file"):
        monkeypatch.setattr(importlib.import_module("whet.measure.compare"), "named_tasks", lambda tasks: tasks)
        whet.compare(folders / "original", file, text=TEXT, tasks=["arc"])
    monkeypatch.setattr("whet.measure.sides.available", lambda: False)
    with pytest.raises(MachineError, match=r"whet\[llamacpp\]"):
        whet.compare(folders / "original", file, text=TEXT)
    assert np.isfinite(read_gguf(file).metadata["llama.rope.freq_base"])
