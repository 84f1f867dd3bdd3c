"""`whet export`: a model folder as what its runtime reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import whet
from whet.cli.completion import among, models
from whet.cli.console import Console
from whet.cli.options import Debug, Dequantize, Json
from whet.cli.phrases import say, sentence, size
from whet.cli.starter import resolve

EXAMPLE = "Example: whet export lighter --for onnx --out lighter-onnx"
FORMATS = "gguf, onnx, openvino, gptq, awq, mlx"


def run(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER",
            help="A lighter folder, an original, an adapter, or `starter`: the embedded one.",
            show_default=False,
            autocompletion=models,
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            "--for",
            help="The format: gguf for llama.cpp, the graph of onnx or openvino, or the layout of gptq, awq or mlx.",
            autocompletion=among(FORMATS),
        ),
    ] = "gguf",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The file to write, of a graph or layout the folder; without it FOLDER's name, here."
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--type",
            help="Of an original: f32, f16 or bf16; without it the type it is stored in.",
            autocompletion=among("f32, f16, bf16"),
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Text to check the file on; without it a few built-in sentences.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Of an adapter, its model; without it the one it names.")
    ] = None,
    dequantize: Dequantize = False,
    inputs: Annotated[
        str | None,
        typer.Option(
            help="Of a graph, what its rounded linears take: int8, which is fast (the default), or float.",
            autocompletion=among("int8, float"),
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Write FOLDER as what its runtime reads and prove that it is the same model. Nothing is rounded again."""
    model = resolve(folder)
    with Console(as_json) as console:
        place = None if base is None else resolve(base)
        result = whet.export(
            model,
            to={"llama.cpp": "gguf"}.get(to, to),
            out=out,
            kind=kind,
            text=text,
            base=place,
            dequantize=dequantize,
            inputs=inputs,
            on_event=console.on_event,
        )
        console.show(*proved(result), say("wrote", files=result["out"]))
        beside = f"llama-cli -m MODEL.gguf --lora {result['out']}"
        if "loader" not in result["check"]:  # what whet reads itself
            command = beside if "base" in result else f'whet generate {result["out"]} "PROMPT"'
            console.show(say("export.run", command=command))
        console.result(result)
    return 0


def _of_graph(check: dict[str, Any]) -> list[str]:
    """What was found of a graph in its runtime."""
    told = {"runtime": check["runtime"], "tokens": check["tokens"]}
    if "error" in check:
        lines = [say("graph.states", **told, error=f"{check['error']:.2g}")]
    else:
        greedy = check["greedy"]
        lines = [say("graph.checked", **told, kl=f"{check['kl']:.2g}", same=greedy["same"], of=greedy["of"])]
    shipped = check.get("shipped_kl", check.get("shipped_error"))
    return lines if shipped is None else [*lines, say("graph.shipped", figure=f"{shipped:.2g}")]


def proved(result: dict[str, Any]) -> list[str]:
    """What the file holds and what was found of it, one line each."""
    types = ", ".join(f"{count} × {kind}" for kind, count in sorted(result["types"].items()))
    lines = [say("export.types", types=types, size=size(result["bytes"]["tensors"]))]
    if "adapter" in result:
        about = result["adapter"]
        lines.append(say("export.adapter", file=about["file"], size=size(about["bytes"])))
    check = result["check"]
    if "base" in result:
        return lines
    if "loader" in check:
        return [*lines, say("export.laid_out")]
    if "runtime" in check:
        return [*lines, *_of_graph(check)]
    if (name := next((name for name in ("onnx", "openvino") if name in check), None)) is not None:
        return [*lines, say("graph.unchecked", target=name, why=sentence(check[name]))]
    if "llama.cpp" in check:
        return [*lines, say("export.unchecked", why=sentence(check["llama.cpp"]))]
    greedy = check["greedy"]
    told = {"tokens": check["tokens"], "kl": f"{check['kl']:.2g}", "same": greedy["same"], "of": greedy["of"]}
    return [*lines, say("export.checked", **told)]
