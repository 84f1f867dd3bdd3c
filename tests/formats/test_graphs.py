"""Graphs of onnxruntime and OpenVINO: they hold the folder's codes, compute what it computes, and are refused where
they would compute something else."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import models
import whet
from covering import matrix
from whet.checkpoint import Checkpoint, load_model
from whet.checkpoint.model_files import GRAPHS, model_file
from whet.engines.stepping import stepper
from whet.errors import GateError, MachineError, UsageError
from whet.formats import graph_export
from whet.formats.graphs import write
from whet.formats.graphs.decoder import DECODERS
from whet.formats.graphs.write import plan_graph
from whet.targets import find_target

TEXT = models.documents(60)
PACKAGES = {"onnx": ("onnx", "onnxruntime"), "openvino": ("openvino",)}


def need(target):
    """Skip where the runtime is not installed."""
    for package in PACKAGES[target]:
        pytest.importorskip(package)


def proved(check):
    """The figures of a graph that is its folder's model."""
    assert check["kl"] <= 1e-6 and check["largest_difference"] < 1e-4 and check["cached"] < 1e-4
    assert check["greedy"] == {"same": 3, "close": 0, "of": 3} and check.get("shipped_kl", 0) < 1e-3
    return True


@matrix({"target": [*GRAPHS], "family": [*DECODERS], "dtype": [torch.float32, torch.bfloat16]}, strength=2)
def test_every_family_is_written_and_computes_the_same(target, family, dtype, tmp_path):
    """Windows of attention, norms of heads, caps, scales and blocks without positions among them."""
    need(target)
    folder = models.make(tmp_path / "model", family, dtype=dtype)
    made = whet.export(folder, to=target, out=tmp_path / "graph")
    assert proved(made["check"]) and set(made["types"]) == {"F32" if dtype == torch.float32 else "BF16"}
    assert sum(made["parts"].values()) == made["bytes"]["tensors"]
    assert (tmp_path / "graph" / "genai_config.json").is_file() == (target == "onnx")


MIXES = {
    "symmetric": ("int4s-g32", None),
    "zeros": ("int4-g16", "int4-g32"),
    "eight bits, a scale a row": ("int8s", "int8"),
    "a mix": ("int8-g32", "int4s"),
    "llama.cpp's": ("Q4_0", None),
}


@matrix({"target": [*GRAPHS], "mix": [*MIXES], "dtype": [torch.float32, torch.bfloat16]}, strength=2)
def test_codes_go_over_as_they_are(target, mix, dtype, tmp_path):
    need(target)
    scheme, embed = MIXES[mix]
    models.make(tmp_path / "model", tied=True, dtype=dtype)
    whet.compress(tmp_path / "model", tmp_path / "lighter", scheme=scheme, embed=embed, solver="nearest", target="whet")
    made = whet.export(tmp_path / "lighter", to=target, out=tmp_path / "graph")
    assert proved(made["check"]) and made["check"]["shipped_kl"] > 0
    assert sum(count for kind, count in made["types"].items() if kind not in ("F32", "BF16")) == (15 if embed else 14)
    exact = whet.export(tmp_path / "lighter", to=target, out=tmp_path / "float", inputs="float")
    assert proved(exact["check"]) and "shipped_kl" not in exact["check"]


@pytest.mark.parametrize("scheme,embed", [("int2s-g64", "int4-g32"), ("int4-g64", "int2")])
def test_an_onnx_holds_every_code_bit_for_bit(scheme, embed, tmp_path):
    """Groups of 64 leave a short last one in rows of 96, which is padded; embedding and head share one tensor."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    models.make(tmp_path / "model", tied=True)
    made = whet.compress(
        tmp_path / "model", tmp_path / "out", scheme=scheme, embed=embed, text=TEXT, target="onnx", folder=True
    )
    assert proved(made["check"]["graph"]["check"])
    weights = plan_graph(tmp_path / "out", find_target("onnx")).weights
    model = onnx.load(str(tmp_path / "out" / "model.onnx"))
    held = {one.name.partition("#")[0]: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    for address in weights.coded:
        matrix = weights.matrix(address)
        rows, columns = matrix.shape
        stream = held[f"{address}.codes"].reshape(rows, -1)
        shifts = np.arange(0, 8, matrix.bits)
        codes = (stream[:, :, None] >> shifts & (2**matrix.bits - 1)).reshape(rows, -1)
        assert np.array_equal(codes[:, :columns], matrix.codes.numpy()) and not codes[:, columns:].any(), address
        if matrix.group:
            assert np.array_equal(held[f"{address}.scales"], matrix.scale.numpy()), address
    assert {node.op_type for node in model.graph.node} >= {"MatMulNBits", "GatherBlockQuantized"}


@pytest.mark.parametrize("target", [*GRAPHS])
def test_compress_leaves_the_graph_alone(target, tmp_path):
    need(target)
    models.make(tmp_path / "model", dtype=torch.bfloat16)
    made = whet.compress(tmp_path / "model", tmp_path / "out", bits=8, text=TEXT, samples=8, window=32, target=target)
    assert made["container"] == made["loads_in"] == target and not [*(tmp_path / "out").glob("*.safetensors")]
    assert made["sizes"]["lighter"]["weights"] == sum(
        (tmp_path / "out" / name).stat().st_size for name in GRAPHS[target]
    )
    assert proved(made["check"]["graph"]["check"]) and whet.verify(tmp_path / "out")["verdict"] == "pass"
    assert len(set(made["plan"]["schemes"].values())) > 1
    file = model_file(tmp_path / "out")
    assert file.name == GRAPHS[target][0] and "quantization_config" not in json.loads(
        (tmp_path / "out" / "config.json").read_text()
    )
    asked = {"text": models.documents(20, seed=5), "window": 32, "windows": 8}
    found = whet.compare(tmp_path / "model", tmp_path / "out", **asked)
    assert found["divergence"]["kl"]["mean"] < 0.05 and found["speed"]["decode"]["ratio"]["value"] > 0
    assert "error" not in found["memory"]["lighter"] and any(
        "The original runs in PyTorch" in n for n in found["notes"]
    )
    assert found["size"]["lighter"]["linears"] == made["check"]["graph"]["parts"]["linears"]
    whet.export(tmp_path / "model", to=target, out=tmp_path / "original")
    both = whet.compare(tmp_path / "original", tmp_path / "out", **asked, speed=False)
    assert abs(both["divergence"]["kl"]["mean"] - found["divergence"]["kl"]["mean"]) < 1e-3
    assert whet.generate(file, "ab", max_new_tokens=4) == whet.generate(tmp_path / "out", "ab", max_new_tokens=4)
    sampled = [whet.generate(file, "ab", max_new_tokens=6, temperature=1.0, seed=seed) for seed in (1, 1, 2, 3)]
    assert sampled[0] == sampled[1] and len(set(sampled)) > 1
    (tmp_path / "out" / GRAPHS[target][1]).write_bytes(b"cut off")
    with pytest.raises(UsageError, match="is not what whet wrote"):
        whet.generate(file, "ab")


ENCODERS = [
    (target, family, scheme) for target in GRAPHS for family, scheme in (("bert", None), ("distilbert", "int8"))
]


@pytest.mark.parametrize("target,family,scheme", ENCODERS)
def test_encoders_give_the_same_hidden_states(target, family, scheme, tmp_path):
    need(target)
    folder = models.make(tmp_path / "model", family, architecture="AutoModel")
    if scheme is None:
        check = whet.export(folder, to=target, out=tmp_path / "out")["check"]
    else:
        made = whet.compress(folder, tmp_path / "out", scheme=scheme, solver="nearest", target=target)
        check = made["check"]["graph"]["check"]
    assert check["error"] < 1e-5 and check.get("shipped_error", 0) < 0.05
    found = whet.compare(folder, tmp_path / "out", text=TEXT, window=32, windows=8)
    assert found["divergence"]["error"]["mean"] < 0.05 and found["divergence"]["cosine"]["mean"] > 0.99
    with pytest.raises(UsageError, match="does not continue text"):
        whet.generate(tmp_path / "out", "ab")


@pytest.mark.parametrize("target", [*GRAPHS])
def test_blocks_that_differ_are_written_as_they_are(target, tmp_path):
    """Heads and widths of their own; a graph has no shape for all."""
    need(target)
    models.make(tmp_path / "model", num_hidden_layers=3)
    whet.prune(tmp_path / "model", tmp_path / "pruned", shapes="free", remove=0.3, text=TEXT, samples=8, window=32)
    assert "per_layer_config" in Checkpoint(tmp_path / "pruned").config
    made = whet.compress(tmp_path / "pruned", tmp_path / "out", scheme="int8s", solver="nearest", target=target)
    assert proved(made["check"]["graph"]["check"])


@pytest.mark.parametrize("target", [*GRAPHS])
def test_answers_of_several_slots_do_not_depend_on_each_other(target, tmp_path):
    """As a server asks: each sequence has a cache of its own."""
    need(target)
    folder = models.make(tmp_path / "model")
    whet.export(folder, to=target, out=tmp_path / "out", inputs="float")
    engine = graph_export.open_graph(model_file(tmp_path / "out"))
    slots, rows = stepper(engine, 2, 64), ([5, 6, 7, 8], [9, 10, 11])
    for slot, row in enumerate(rows):
        slots.read(slot, row[:-1])
    for row, logits in zip(rows, slots.last([(slot, row[-1:]) for slot, row in enumerate(rows)]), strict=True):
        assert (logits - engine.logits(torch.tensor([row]))[0, -1]).abs().max() < 1e-4
    assert slots.score(rows[0], 2).shape == (2, engine.vocabulary)


def test_tokens_that_the_mask_leaves_out_are_not_read(tmp_path):
    """As texts of several lengths are run together by others: padded behind for encoders."""
    need("onnx")
    runtime = pytest.importorskip("onnxruntime")
    folder = models.make(tmp_path / "model", "bert", architecture="AutoModel")
    whet.export(folder, to="onnx", out=tmp_path / "out")
    session = runtime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    ids, mask = np.arange(24).reshape(2, 12) + 5, np.ones((2, 12), dtype=np.int64)
    mask[1, 7:] = 0
    (found,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    with torch.no_grad():
        wanted = load_model(folder)(input_ids=torch.tensor(ids[1:, :7])).last_hidden_state
    assert np.abs(found[1, :7] - wanted[0].numpy()).max() < 1e-5


def test_a_graph_that_computes_something_else_leaves_nothing(tmp_path, monkeypatch):
    need("onnx")
    folder = models.make(tmp_path / "model")

    def other(graph, model):
        object.__setattr__(model, "epsilon", 0.5)
        graph_of(graph, model)

    graph_of = write.write_decoder
    monkeypatch.setattr(write, "write_decoder", other)
    with pytest.raises(GateError, match="odds on the next token in onnxruntime differ"):
        whet.export(folder, to="onnx", out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_cache_that_forgets_is_found(tmp_path, monkeypatch):
    need("onnx")
    folder = models.make(tmp_path / "model")
    whet.export(folder, to="onnx", out=tmp_path / "out")
    engine = graph_export.open_graph(tmp_path / "out" / "model.onnx")
    told = engine.advance_all
    monkeypatch.setattr(engine, "advance_all", lambda ids, cache: told(ids, None))
    with pytest.raises(GateError, match="answers otherwise from its cache"):
        graph_export._same_cached(engine, torch.arange(12))


def test_what_a_runtime_does_not_take_is_refused_while_planning(tmp_path):
    """Heads of 24 are for OpenVINO; whatever a graph would compute otherwise is refused by name."""
    wide = models.make(tmp_path / "wide", hidden_size=96)
    with pytest.raises(UsageError, match="heads are 24 wide, and onnx takes multiples of 16"):
        whet.compress(wide, tmp_path / "out", target="onnx", dry_run=True)
    assert plan_graph(wide, find_target("openvino")).model.attention[0].width == 24
    with pytest.raises(UsageError, match="of the family 'gpt2'"):
        whet.compress(models.make(tmp_path / "gpt2", "gpt2"), tmp_path / "out", target="onnx", dry_run=True)
    whet.compress(models.make(tmp_path / "model"), tmp_path / "three", scheme="int3s-g32", solver="nearest")
    with pytest.raises(UsageError, match=r"onnx does not store int3s-g32 \(14 linears.*--for onnx"):
        whet.export(tmp_path / "three", to="onnx", out=tmp_path / "out")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    longer = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"rope_parameters": longer}))
    with pytest.raises(UsageError, match=r"rotary angles \(dynamic\) change with the length"):
        plan_graph(tmp_path / "model", find_target("openvino"))
    masked = models.make(tmp_path / "masked", "bert", architecture="AutoModelForMaskedLM")
    with pytest.raises(UsageError, match="hidden states, and this one gives masked"):
        plan_graph(masked, find_target("onnx"))
    with pytest.raises(UsageError, match="inputs 'int4': graphs of onnx or openvino take int8 or float"):
        whet.export(wide, to="openvino", inputs="int4")


def test_without_the_package_it_says_how_to_get_it_before_anything_long(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    folder = models.make(tmp_path / "model")
    with pytest.raises(MachineError, match=r"pip install 'whet\[onnx\]'"):
        whet.compress(folder, tmp_path / "out", target="onnx", solver="nearest")
    assert not (tmp_path / "out").exists()
    assert whet.compress(folder, tmp_path / "out", target="onnx", dry_run=True)["dry_run"]
    assert Checkpoint(folder).whet is None
