"""A grid that whet does not know: one class and one row, and everything takes it, down to a folder that stock
transformers loads with the modelling file as it is.

Its values are no multiples of a step: 0 and powers of two, as of logarithmic quantization (Miyashita et al. 2016, arXiv
1603.01025), under a float16 scale of a group.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import models
from covering import matrix
from whet.checkpoint import Checkpoint, load_model, modeling_whet
from whet.errors import UsageError
from whet.formats.export import export
from whet.grids import SMALL_FLOATS, GroupedGrid, pack, parse_scheme
from whet.grids.books import BookLevels, book
from whet.grids.least_squares import Quadratic, errors, sums
from whet.quantize import gptq, nearest
from whet.recipe.compress import compress

VALUES = tuple(sorted([0.0, *(s * 2.0**-k for s in (1, -1) for k in range(5))]))
WINDOWS = torch.randint(2, 264, (6, 24), generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class PowerGrid(GroupedGrid):
    group: int = 32
    scale_dtype: torch.dtype = field(default=torch.float16, compare=False)
    bits, zero, kind, extent = 4, "none", "pow4", (1.0, 16.0)

    @property
    def name(self):
        return f"pow4-g{self.group}"

    def regrouped(self, group):
        return dataclasses.replace(self, group=group)

    def nbytes(self, rows, columns):
        return rows * (4 * -(-columns // 8) + 2 * len(self.groups(columns)))

    def table_entry(self, decode):
        return {"bits": 4, "group": self.group, "zero": "none", "decode": "float32", "values": list(VALUES)}

    def stored_parts(self, codes, params):
        shape = torch.tensor(codes.shape, dtype=torch.int64)
        return {"weight_packed": pack(codes, 4), "weight_scale": params["scale"].contiguous(), "weight_shape": shape}

    @property
    def uncompressed(self):
        return "compressed-tensors has no powers of two"

    def bind(self, params):
        return BookLevels.of(book(VALUES, params["scale"].device), params["scale"].float())

    def dequantize(self, codes, params, dtype=torch.float32):
        return book(VALUES, codes.device).value(codes, dtype) * params["scale"].to(dtype)

    def zero_value(self, params):
        return torch.full_like(params["scale"], VALUES.index(0), dtype=torch.float32)

    def _candidates(self, x, weight, keep):
        scales = self.stored(x.abs().amax(0) * torch.linspace(1.2, 0.5, 12)[:, None])
        best = self.stored(sums(self.bind({"scale": scales}), x, weight).step())
        order = errors(self.bind({"scale": best}), x, weight).topk(keep, 0, largest=False).indices
        return {"scale": best.gather(0, order)}

    def refit(self, codes, gradient, h, params):
        told = Quadratic.of_moments(self.bind(params).along(codes.clone()), None, gradient, h)
        scale = params["scale"].float()
        new = self.stored(scale + told.step())
        gain = told.gain(new.float() - scale, torch.zeros_like(scale))
        if not (gain > 0).any():
            return None
        return {"scale": torch.where(gain > 0, new, params["scale"])}, gain.clamp_min(0).sum()


@pytest.fixture(autouse=True)
def row(monkeypatch):
    """The one row in the table of schemes."""
    monkeypatch.setitem(SMALL_FLOATS, "pow4", PowerGrid())


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("new") / "model", dtype=torch.bfloat16)


def test_its_name_is_found_and_told_of():
    assert parse_scheme("POW4-g16") == PowerGrid(16) and parse_scheme("pow4", torch.bfloat16) == PowerGrid()
    with pytest.raises(
        UsageError, match=r"Did you mean pow4\?.*; nf4, seq2, fp4, fp4m1, fp4m2, pow4 \(with -g<group> too\)"
    ):
        parse_scheme("pow5")


@matrix({"solver": ["nearest", "gptq", "tuned"], "target": ["whet", "transformers"]}, strength=1)
def test_every_solver_takes_it_and_every_reader_of_the_folder(solver, target, original, tmp_path):
    settings = {"solver": solver, "target": target, **({} if solver == "nearest" else {"text": WINDOWS})}
    out = tmp_path / "out"
    planned = compress(original, out, scheme="pow4-g16", embed="pow4", dry_run=True, **settings)
    result = compress(original, out, scheme="pow4-g16", embed="pow4", **settings)
    assert planned["bytes"]["after"]["linears"] == result["sizes"]["lighter"]["linears"]
    told = json.loads((out / "whet.json").read_text(encoding="utf-8"))["linears"]
    assert {line["grid"] for line in told.values()} == {"pow4-g16", "pow4-g32"}
    assert (out / "modeling_whet.py").read_bytes() == Path(modeling_whet.__file__).read_bytes()
    stock = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
    tokens = WINDOWS[:2]
    with torch.no_grad():
        assert torch.equal(stock(tokens).logits, load_model(out)(tokens).logits)


def test_runtimes_that_do_not_have_it_say_so(original, tmp_path):
    with pytest.raises(UsageError, match=r"as pow4-g16: vllm holds FP8, .*integers\. Use one of them, or --for whet"):
        compress(original, tmp_path / "out", scheme="pow4-g16", solver="nearest", target="vllm")
    with pytest.raises(UsageError, match=r"64 does not divide 96.*such as 32"):
        compress(original, tmp_path / "out", scheme="pow4-g64", solver="nearest")
    compress(original, tmp_path / "out", scheme="pow4-g16", solver="nearest")
    with pytest.raises(UsageError, match=r"no type of ggml that whet writes holds pow4-g16"):
        export(tmp_path / "out", out=tmp_path / "x.gguf")


def _signed(parts, entry, model_dtype):
    """Weights of exponents and signs in a byte: 0, or ± the scale over a power of two."""
    codes, columns = parts["weight_exponents"].int(), parts["weight_exponents"].shape[1]
    values = torch.where(codes == 0, 0.0, (codes % 2 * 2.0 - 1) * 2.0 ** (1 - (codes // 2).float()))
    index = torch.arange(columns) // (entry["group"] or columns)
    return (values * parts["weight_scale"].float()[:, index]).to(model_dtype)


class SignedGrid(PowerGrid):
    """The same values, a byte each, in a form that the modelling file did not have."""

    def nbytes(self, rows, columns):
        return rows * (columns + 2 * len(self.groups(columns)))

    def table_entry(self, decode):
        return {"bits": 4, "group": self.group, "zero": "none", "decode": "float32", "form": "signed"}

    def stored_parts(self, codes, params):
        values = book(VALUES, codes.device).value(codes.float())
        exponents = torch.where(values == 0, 0, 2 * (1 - values.abs().log2()) + (values > 0)).to(torch.uint8)
        return {"weight_exponents": exponents, "weight_scale": params["scale"].contiguous()}


def test_one_that_is_stored_as_nothing_else_adds_its_form_to_the_modelling_file(original, tmp_path, monkeypatch):
    """And nothing more: it is written, proved, read again, trained end to end and refused where it does not fit."""
    monkeypatch.setitem(SMALL_FLOATS, "pow4", SignedGrid())
    parts = {"weight_exponents", "weight_scale"}
    monkeypatch.setitem(modeling_whet.FORMS, "signed", (lambda entry: parts, _signed))
    out = tmp_path / "out"
    planned = compress(original, out, scheme="pow4-g16", embed="pow4", solver="tuned", text=WINDOWS, dry_run=True)
    result = compress(original, out, scheme="pow4-g16", embed="pow4", solver="tuned", text=WINDOWS)
    assert planned["bytes"]["after"]["total"] == Checkpoint(out).nbytes
    assert torch.isfinite(load_model(out)(WINDOWS[:2]).logits).all()
    assert planned["bytes"]["after"]["linears"] == result["sizes"]["lighter"]["linears"]
    with pytest.raises(UsageError, match=r"no type of ggml that whet writes holds pow4-g32"):
        export(out, out=tmp_path / "x.gguf")


@pytest.mark.parametrize("columns", [128, 150])
def test_the_laws_of_the_matrix_hold_for_it(columns):
    """As they are written: all that a new grid's author adds to the tests is its scheme."""
    laws, solvers = (_module(Path(__file__).parents[1] / room / "test_every_grid.py") for room in ("grids", "quantize"))
    laws.test_what_is_stored_is_what_the_table_says_and_decodes_to_what_was_solved("pow4", columns)
    for solve in (nearest, gptq):
        laws.test_relax_at_the_solution_is_decode("pow4", columns, solve)
    for solver in solvers.ROUNDERS:
        solvers.test_every_solver_takes_every_grid("pow4", solver, columns)


def _module(file):
    spec = importlib.util.spec_from_file_location(file.parent.name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
