"""`whet compress` and `whet schema`: what is typed is what the library is asked for; a recipe is under it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import models
import whet
from whet.budget import plan_schema, read_plan
from whet.recipe.schema import recipe_schema
from wording import each

pytestmark = pytest.mark.usefixtures("anywhere")

SIZES = {"total": 100, "weights": 90, "linears": 50, "embedding": 40, "head": 0, "other": 0, "tokenizer": 10}
RESULT: dict[str, Any] = {
    "out": "lighter",
    "sizes": {"original": SIZES, "lighter": SIZES},
    "loads_in": "transformers",
    "notes": [],
    "plan": None,
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What `whet.compress` was called with, in the place of doing it."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def fake(*args: Any, **kwargs: Any) -> dict[str, Any]:
        calls.append((args, kwargs))
        return RESULT

    monkeypatch.setitem(vars(whet), "compress", fake)
    return calls


@each(
    "typed, key, value",
    [
        (("--fit", "400MB"), "fit", "400MB"),
        (("--fit", "25%"), "fit", "25%"),
        (("--bits", "3.5"), "bits", 3.5),
        (("--quality", "0.98"), "quality", 0.98),
        (("--plan", "p.json"), "plan", "p.json"),
        (("--skills", "s.jsonl", "--bits", "3"), "skills", "s.jsonl"),
        (("--for", "vllm"), "target", "vllm"),
        (("--repair", "16"), "repair", 16),
        ((), "repair", None),
        ((), "scheme", None),
        ((), "samples", None),
        (("--samples", "5"), "samples", 5),
    ],
)
def test_options_become_arguments(command: Callable, asked: list, typed: tuple, key: str, value: Any) -> None:
    assert command("compress", "model", "out", *typed).code == 0
    args, kwargs = asked[-1]
    assert args == (Path("model"), Path("out")) and kwargs[key] == value


def test_what_is_typed_goes_over_the_recipe_and_defaults_do_not(command: Callable, asked: list, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(
        "version: 1\nmodel: m\nout: o\nseed: 3\nsteps: [{quantize: {quality: 0.9, window: 64, samples: 9}}]"
    )
    assert command("compress", "--recipe", file).code == 0
    args, kwargs = asked[-1]
    assert args == (Path("m"), Path("o"))
    assert (kwargs["quality"], kwargs["window"], kwargs["samples"], kwargs["seed"]) == (0.9, 64, 9, 3)
    assert command("compress", "other", "--recipe", file, "--fit", "25%", "--window", "2048", "--seed", "0").code == 0
    args, kwargs = asked[-1]
    assert args == (Path("other"), Path("o"))
    assert (kwargs.get("quality"), kwargs["fit"], kwargs["window"], kwargs["seed"]) == (None, "25%", 2048, 0)
    assert kwargs["samples"] == 9


def test_a_preset_that_the_target_does_not_hold_whole_says_so(command: Callable, asked: list) -> None:
    ended = command("compress", "model", "out", "--recipe", "w8", "--for", "vllm")
    assert ended.code == 0 and "vllm loads no quantized embedding" in ended.err
    assert asked[0][1]["embed"] is None and asked[0][1]["scheme"] == "int8s"


@each(
    "typed, said",
    [
        (("model", "out", "--recipe", "w88"), "Did you mean w8?"),
        (("--recipe", "w8"), "MODEL is missing"),
        (("model", "--recipe", "w8"), "OUT is missing"),
    ],
)
def test_a_recipe_that_cannot_be_followed(command: Callable, asked: list, typed: tuple, said: str) -> None:
    ended = command("compress", *typed)
    assert ended.code == 2 and said in ended.err and ended.out == "" and not asked
    assert len(ended.err.splitlines()) == 1


@each(
    "typed",
    [
        ("--fit", "25%", "--bits", "3"),
        ("--plan", "p.json", "--scheme", "int8s"),
        ("--plan", "p.json", "--embed", "int8s"),
        ("--quality", "0.9", "--plan", "p.json"),
    ],
)
def test_ways_to_ask_exclude_each_other_in_one_paragraph(command: Callable, tmp_path: Path, typed: tuple) -> None:
    ended = command("compress", tmp_path / "model", tmp_path / "out", *typed)
    assert ended.code == 2 and len(ended.err.splitlines()) == 1 and "Traceback" not in ended.err
    assert typed[0].removeprefix("--") in ended.err and typed[2].removeprefix("--") in ended.err


def test_a_plan_from_a_file_on_a_real_folder(command: Callable, tmp_path: Path) -> None:
    original = models.make(tmp_path / "model")
    command("compress", original, tmp_path / "first", "--scheme", "int8s", "--solver", "nearest")
    linears = json.loads((tmp_path / "first" / "whet.json").read_text())["linears"]
    schemes = {address: "int4s-g32" if "mlp" in address else "keep" for address in linears}
    schemes |= {"model.embed_tokens": "keep", "lm_head": "keep"}
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"format": "whet.plan", "version": 1, "target": "transformers", "schemes": schemes}))
    typed = ("--plan", file, "--solver", "nearest")
    ended = command("compress", original, tmp_path / "out", *typed, "--dry-run", "--json")
    assert ended.code == 0 and not (tmp_path / "out").exists()
    told = json.loads(ended.out)
    ended = command("compress", original, tmp_path / "out", *typed)
    assert ended.code == 0, ended.err
    from whet.checkpoint import Checkpoint

    assert Checkpoint(tmp_path / "out").nbytes == told["bytes"]["after"]["total"]
    assert read_plan(tmp_path / "out" / "plan.json")["schemes"] == schemes

    file.write_text(file.read_text().replace("1.mlp.down_proj", "1.mlp.down_prj"))
    ended = command("compress", original, tmp_path / "other", *typed)
    assert ended.code == 2 and "Did you mean model.layers.1.mlp.down_proj?" in ended.err


@each("document, schema", [("plan", plan_schema), ("recipe", recipe_schema)])
def test_schemas_are_printed(command: Callable, document: str, schema: Callable) -> None:
    ended = command("schema", document)
    assert ended.code == 0 and json.loads(ended.out) == schema()


def test_a_document_that_has_no_schema(command: Callable) -> None:
    ended = command("schema", "scores")
    assert ended.code == 2 and "'plan', 'recipe'" in ended.err and len(ended.err.splitlines()) == 1


@each("language, words", [("en", ["adapter", "PeftModel"]), ("ko", ["어댑터", "PeftModel"])])
def test_the_adapter_is_told(
    command: Callable, monkeypatch: pytest.MonkeyPatch, language: str, words: list[str]
) -> None:
    lighter = {**SIZES, "adapter": 7}
    result = RESULT | {"repair": 4, "sizes": {"original": SIZES, "lighter": lighter}}
    monkeypatch.setitem(vars(whet), "compress", lambda *args, **kwargs: result)
    monkeypatch.setenv("WHET_LANG", language)
    said = command("compress", "model", "out", "--repair", "4").out
    assert all(word in said for word in words) and "lighter/adapter" in said
    before = {part: size for part, size in SIZES.items() if part != "tokenizer"}
    planned = {"bytes": {"before": before, "after": before | {"adapter": 7}, "ratio": 1.0}, "seconds": 1.0}
    planned |= {"memory": 1, "disk": 1, "notes": [], "plan": None}
    monkeypatch.setitem(vars(whet), "compress", lambda *args, **kwargs: planned)
    assert words[0] in command("compress", "model", "out", "--repair", "4", "--dry-run").out
    assert command("compress", "model", "out", "--repair", "0").code == 2


@each(
    "target, scheme, last",
    [
        ("vllm", "int8s", "Run it: vllm serve {out}"),
        ("llama.cpp", "Q8_0", "Run it: llama-server -m {out}/model.gguf"),
        ("transformers", "int8s", "  tokenizer = AutoTokenizer.from_pretrained('{out}')"),
        ("openvino", "int8", 'Run it: whet generate {out} "PROMPT"'),
    ],
)
def test_the_last_line_runs_what_was_made(
    command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, scheme: str, last: str
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    if target == "openvino":
        pytest.importorskip("openvino")
    original = models.make(tmp_path / "model")
    out = tmp_path / target
    ended = command("compress", original, out, "--for", target, "--scheme", scheme, "--solver", "nearest")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == last.format(out=out)


def test_what_needs_its_modelling_file_is_loaded_with_trust(command: Callable, tmp_path: Path) -> None:
    original = models.make(tmp_path / "model")
    typed = ("--for", "whet", "--scheme", "int3z-g4", "--solver", "nearest")
    ended = command("compress", original, tmp_path / "out", *typed)
    assert ended.code == 0, ended.err
    assert "AutoModelForCausalLM.from_pretrained" in ended.out and ended.out.count("trust_remote_code=True)") == 2
