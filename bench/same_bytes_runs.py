"""The runs of `same_bytes.py`: what whet is to be asked so that all that decides on bytes takes part.

Names are `group/…`. A new scheme, solver, transform or target of whet goes into the tuple of its kind.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import whet
from tiny_models import documents, windows

STARTER = "starter"  # the embedded model

# What is verified on is what was solved on: training and transforms are kept only where they help there.
WINDOWS = windows(8, 32)
TEXT: dict[str, Any] = {"text": WINDOWS, "eval_text": WINDOWS.clone()}
# Enough tokens for what parts lose alone to be measured.
LONG: dict[str, Any] = {"text": windows(20, 64), "eval_text": windows(20, 64)}

INTEGERS = tuple(f"int{bits}{zero}{group}" for bits in range(2, 9) for zero in ("", "s", "z") for group in ("", "-g32"))
NAMED = ("W8A16", "W4A16", "W3A16", "W2A16")
BLOCKS = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0"),
)
PLAIN = ("F16", "BF16")
FLOATS = (
    *("FP8", "fp8-tensor", "fp8-block", "fp8e5m2", "fp8e5m2-tensor", "fp8e5m2-block"),
    *("NVFP4", "MXFP4", "nf4", "seq2", "fp4", "fp4m1", "fp4m2"),
)
GROUPED = ("nf4-g32", "fp4-g32", "fp4m1-g16", "fp4m1-g32", "fp4m2-g32", "int4-g16")
# Groups that do not divide all rows.
RAGGED = ("int3s-g64", "int5z-g128", "nf4-g80")
SCHEMES = (*INTEGERS, *NAMED, *BLOCKS, *PLAIN, *FLOATS, *GROUPED, *RAGGED)
# One of every class of grid, and the model whose rows hold its groups.
CLASSES = {
    **dict.fromkeys(
        ("int2s-g16", "int3-g32", "int3z-g32", "FP8", "fp8e5m2", "fp8-tensor", "NVFP4", "MXFP4", "nf4"), "narrow"
    ),
    **dict.fromkeys(("fp4-g32", "fp4m1-g16", "fp4m2-g32", "Q4_0", "Q5_1", "IQ4_NL"), "narrow"),
    **dict.fromkeys(("fp8-block", "Q2_K", "Q3_K", "Q4_K", "Q6_K", "IQ4_XS", "TQ2_0"), "wide"),
}
SOLVERS = ("nearest", "gptq", "gptaq", "block", "tuned")
EFFORTS = ("fast", "good", "best")
TRANSFORMS = ("smooth", "awq", "rotate", "quarot", "spinquant", "auto")
TARGETS = ("transformers", "vllm", "llama.cpp", "onnx", "openvino", "whet")


@dataclass(frozen=True)
class Run:
    """A call of `whet.compress` on a model of `tiny_models`, or of `whet.export` where `to` is given.

    given: makes more options, from the model's folder and a folder to write in. stopped: it is made with stops too.
    """

    name: str
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    given: Callable[[Path, Path], dict[str, Any]] | None = None
    to: str | None = None
    stopped: bool = False


def runs() -> list[Run]:
    """All of them, each with a name of its own."""
    groups = (_schemes, _solvers, _transforms, _families, _types, _repairs, _texts, _plans, _budgets, _targets, _stops)
    return [run for group in (*groups, _starter) for run in group()]


def _schemes() -> Iterator[Run]:
    """Rounding to nearest; tables too where the scheme has groups, and in `.gguf` what llama.cpp has a type for."""
    for scheme in SCHEMES:
        options: dict[str, Any] = {"scheme": scheme, "solver": "nearest"}
        if scheme in (*BLOCKS, *PLAIN):
            yield Run(f"scheme/{scheme}", "wide", {**options, "embed": scheme, "target": "llama.cpp"})
        elif scheme in (*NAMED, *FLOATS):
            yield Run(f"scheme/{scheme}", "wide", options)
        elif scheme in RAGGED:
            yield Run(f"scheme/{scheme}", "llama", {**options, "embed": scheme, "target": "whet"})
        else:
            yield Run(f"scheme/{scheme}", "llama", {**options, "embed": scheme} if "-g" in scheme else options)


def _solvers() -> Iterator[Run]:
    for scheme, model in CLASSES.items():
        options: dict[str, Any] = {"scheme": scheme, "target": "whet", **TEXT}
        if model == "wide":
            options["embed"] = "int3-g32"  # without it inputs of the only block do not drift, which gptaq makes up for
        for solver in SOLVERS[1:]:
            yield Run(f"solver/{solver}/{scheme}", model, {**options, "solver": solver})
    for effort in EFFORTS:
        model = "one block" if effort == "best" else "llama"  # best writes 65,536 tokens first
        yield Run(f"solver/{effort}/int3s-g32", model, {"scheme": "int3s-g32", "solver": effort, **TEXT})
    for scheme, embed in (("int3-g32", "int3-g32"), ("int4s-g32", "int8s"), ("int3s-g32", "int5z-g16")):
        for solver in SOLVERS:
            options = {"scheme": scheme, "embed": embed, "solver": solver, **TEXT}
            yield Run(f"embed/{solver}/{scheme}+{embed}", "narrow", options)
            if solver == "gptq":
                yield Run(f"embed/{solver}/{scheme}+{embed}, untied", "llama", options)


def _transforms() -> Iterator[Run]:
    for transform in TRANSFORMS:
        turned = transform in ("quarot", "spinquant")
        text = LONG if transform == "auto" else TEXT
        for model in ("narrow", "qwen2") if turned else ("llama", "gpt2", "gemma2", "mixtral"):
            if transform == "auto":
                yield Run(f"transform/none/{model}", model, {"scheme": "int3s-g32", **text})
            yield Run(f"transform/{transform}/{model}", model, {"scheme": "int3s-g32", "transform": transform, **text})
    for solver in ("nearest", "gptaq", "tuned"):
        options = {"scheme": "int3-g32", "solver": solver, "transform": "awq", **TEXT}
        yield Run(f"transform/awq/{solver}", "llama", options)


def _families() -> Iterator[Run]:
    for model in ("qwen3", "qwen2", "phi3", "gemma2", "mixtral", "qwen2_moe", "gpt2", "bert", "t5", "starcoder2"):
        yield Run(f"family/gptq/{model}", model, {"scheme": "int3s-g32", **TEXT})
    for model in ("qwen3", "phi3", "mixtral", "gpt2", "t5"):
        for solver in ("gptaq", "block", "tuned") if model != "t5" else ("gptaq", "block"):
            options = {"scheme": "int3-g32", "solver": solver, "target": "whet", **TEXT}
            yield Run(f"family/{solver}/{model}", model, options)
    for model in ("phi3", "gpt2", "mixtral"):
        for scheme in ("NVFP4", "fp8-tensor", "nf4-g32"):
            yield Run(f"family/{scheme}/{model}", model, {"scheme": scheme, "solver": "nearest"})


def _types() -> Iterator[Run]:
    for dtype in ("bfloat16", "float16", "float32"):
        model = "llama" if dtype == "float32" else f"llama-{dtype}"
        for scheme in ("int4s-g32", "int3-g32", "int3z-g32", "FP8", "NVFP4", "nf4-g32"):
            yield Run(f"dtype/{dtype}/{scheme}", model, {"scheme": scheme, **TEXT})
        yield Run(f"dtype/{dtype}/tuned", model, {"scheme": "int2-g32", "solver": "tuned", **TEXT})


def _repairs() -> Iterator[Run]:
    for target in ("transformers", "llama.cpp", "whet"):
        scheme = "Q4_0" if target == "llama.cpp" else "int2-g16"
        for solver in ("gptq", "tuned"):
            options = {"scheme": scheme, "solver": solver, "repair": 3, "target": target, **TEXT}
            yield Run(f"repair/{target}/{solver}", "narrow", options)
    yield Run("repair/gpt2", "gpt2", {"scheme": "int3s-g32", "repair": 5, **TEXT})


def _texts() -> Iterator[Run]:
    """Text that is cut, split, rendered or written by whet."""
    said = documents(40)
    cut: dict[str, Any] = {"scheme": "int3s-g32", "samples": 8, "window": 32}
    chats = [[{"role": "user", "content": one}, {"role": "assistant", "content": one[::-1]}] for one in said]
    yield Run("text/documents", "narrow", {**cut, "text": said})
    yield Run("text/documents, eval, seed", "narrow", {**cut, "text": said, "eval_text": documents(9, 1), "seed": 7})
    yield Run("text/records", "narrow", cut, _records)
    yield Run("text/chat", "narrow", {**cut, "text": chats, "chat": True})
    yield Run("text/none", "narrow", cut)
    yield Run("text/synthetic", "narrow", {**cut, "text": said, "synthetic": 200})
    yield Run("text/synthetic, tuned", "narrow", {**cut, "text": said, "synthetic": 200, "solver": "tuned"})


def _records(model: Path, folder: Path) -> dict[str, Any]:
    """A file of records, whose text is in a field of another name."""
    lines = (json.dumps({"number": i, "body": one}) for i, one in enumerate(documents(40)))
    (folder / "records.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return {"text": folder / "records.jsonl", "field": "body"}


def _plans() -> Iterator[Run]:
    for target in ("whet", "vllm", "llama.cpp"):
        yield Run(f"plan/by hand/{target}", "llama", dict(TEXT), functools.partial(_by_hand, target))
    yield Run("plan/by hand/tuned", "llama", {"solver": "tuned", **TEXT}, functools.partial(_by_hand, "whet"))
    for target in ("whet", "transformers", "llama.cpp"):
        yield Run(f"plan/made/{target}", "llama", dict(TEXT), functools.partial(_planned, target))


def _by_hand(target: str, model: Path, folder: Path) -> dict[str, Any]:
    """A plan of several schemes in each block, of which a target fuses none."""
    mixed = {
        "whet": ("int3-g32", "int4z-g16", "nf4-g32", "keep", "FP8"),
        "vllm": ("int8s", "int4s-g32", "FP8", "keep", "keep"),
        "llama.cpp": ("Q5_0", "IQ4_NL", "Q4_1", "F16", "Q8_0"),
    }[target]
    attention, out, ffn, embedding, head = mixed
    schemes = {"model.embed_tokens": embedding, "lm_head": head}
    for block in ("model.layers.0", "model.layers.1"):
        schemes |= {f"{block}.self_attn.{name}_proj": attention for name in "qkv"}
        schemes |= {f"{block}.self_attn.o_proj": out}
        schemes |= {f"{block}.mlp.{name}_proj": ffn for name in ("gate", "up", "down")}
    plan = {"format": "whet.plan", "version": 1, "target": target, "solver": "gptq", "schemes": schemes}
    return {"plan": plan}


def _planned(target: str, model: Path, folder: Path) -> dict[str, Any]:
    """The plan that whet makes for a few bits."""
    bits = {"whet": 4.5, "transformers": 6.0, "llama.cpp": 9.0}[target]
    whet.plan(model, folder / "plan.json", bits=bits, target=target, text=LONG["text"], device="cpu")
    return {"plan": folder / "plan.json"}


def _budgets() -> Iterator[Run]:
    skills = [
        {"skill": f"of {word}", "prompt": f"{word} {i}", "choices": [" ab", " cd"], "label": i % 2}
        for word in ("one", "other")
        for i in range(8)
    ]
    yield Run("budget/bits", "narrow", {"bits": 4.5, "target": "whet", **LONG})
    yield Run("budget/bits, skills", "narrow", {"bits": 5.0, "skills": skills, "target": "whet", **TEXT})
    yield Run("budget/bits, awq", "llama", {"bits": 5.0, "transform": "awq", **TEXT})
    yield Run("budget/bits, tuned", "narrow", {"bits": 4.5, "solver": "tuned", "target": "whet", **TEXT})
    yield Run("budget/fit", "narrow", {"fit": "40%", "target": "whet", "solver": "nearest", **LONG})
    yield Run("budget/fit, transformers", "llama", {"fit": "30%", **LONG})
    yield Run("budget/quality", "narrow", {"quality": 0.97, "target": "whet", **TEXT})


def _targets() -> Iterator[Run]:
    mixtures = {
        "vllm": ("int4s", "int8-g32", "fp8-tensor"),
        "llama.cpp": ("Q4_0", "Q8_0", "BF16"),
        "onnx": ("int4-g32", "int8s", "int2-g16"),
        "openvino": ("int4", "int8", "int4s-g16"),
        "whet": ("int6z-g16", "int5s-g64", "MXFP4"),
        "transformers": ("int5s-g32", "int6-g16", "MXFP4"),
    }
    for target in TARGETS:
        for scheme in mixtures[target]:
            yield Run(f"target/{target}/{scheme}", "llama-bfloat16", {"scheme": scheme, "target": target, **TEXT})
    for model in ("qwen3", "qwen2", "phi3", "gemma2", "mixtral", "gpt2"):
        yield Run(
            f"target/llama.cpp/{model}", model, {"scheme": "Q4_0", "embed": "Q8_0", "target": "llama.cpp", **TEXT}
        )
        yield Run(f"export/{model}", model, to="gguf")


def _stops() -> Iterator[Run]:
    every: dict[str, dict[str, Any]] = {
        "nearest": {"scheme": "int4-g32", "embed": "int4-g32", "solver": "nearest"},
        "gptq": {"scheme": "int3s-g32", "embed": "int6z-g16"},
        "gptaq": {"scheme": "int3-g16", "solver": "gptaq"},
        "block": {"scheme": "int2-g16", "solver": "block"},
        "tuned": {"scheme": "int2-g16", "embed": "int6z-g16", "solver": "tuned"},
        "repair": {"scheme": "int2-g16", "repair": 3},
        "awq": {"scheme": "int3s-g32", "transform": "awq"},
        "spinquant": {"scheme": "int3s-g32", "transform": "spinquant"},
        "synthetic": {"scheme": "int3-g32", "synthetic": 64},
        "llama.cpp": {"scheme": "Q4_0", "target": "llama.cpp"},
        "bits": {"bits": 4.5, "target": "whet"},
    }
    for name, options in every.items():
        model = "one block" if name == "spinquant" else "narrow"
        yield Run(f"resume/{name}", model, {**options, **TEXT}, stopped=True)
    yield Run("resume/auto", "gpt2", {"scheme": "int3s-g32", "transform": "auto", **LONG}, stopped=True)
    yield Run("resume/experts", "mixtral", {"scheme": "int3-g32", "solver": "block", **TEXT}, stopped=True)
    yield Run("resume/plan", "llama", dict(TEXT), functools.partial(_by_hand, "whet"), stopped=True)


def _starter() -> Iterator[Run]:
    """The embedded model, which is trained and has a tokenizer of its own."""
    said = documents(60)
    few: dict[str, Any] = {"text": said, "samples": 4, "window": 64}
    yield Run("starter/W4A16", STARTER, {"scheme": "W4A16", **few})
    for solver in ("gptq", "tuned"):
        options = {"scheme": "int2-g32", "solver": solver, **few, "eval_text": said, "samples": 2}
        yield Run(f"starter/{solver}", STARTER, options)
    yield Run("starter/bits", STARTER, {"bits": 3.5, **few})
    yield Run("starter/fit", STARTER, {"fit": "35%", "target": "llama.cpp", "solver": "nearest", **few})
