"""The options that several verbs share, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seed = Annotated[int, typer.Option(help="Of everything drawn at random.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Field = Annotated[str, typer.Option(help="The field of jsonl or parquet records that holds the text.")]
Chat = Annotated[bool, typer.Option("--chat", help="Records are conversations: write them with the model's template.")]
Text = Annotated[
    str | None, typer.Option(help="A .txt, .jsonl or .parquet file, a folder of them, or a data set's name on the hub.")
]
# What `--for` takes, told to a person; a test keeps it what `whet.targets` has, which is slow to import.
RUNTIMES = "transformers, vllm, llama.cpp, onnx, openvino or whet"
Window = Annotated[int, typer.Option(help="Tokens in a window of text.", min=8)]
Fit = Annotated[
    str | None, typer.Option(help="The most bytes of the weight files: 400MB, 1.5GiB, or 25% of the original's.")
]
Bits = Annotated[float | None, typer.Option(help="The most stored bits a parameter, everything counted: 3.5.")]
Quality = Annotated[
    float | None, typer.Option(help="The share of the original's quality to keep, at the fewest bytes: 0.98.")
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write, new or empty.", show_default=False)]
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A Hugging Face folder, or `starter`: the embedded one.", show_default=False),
]
Unfinished = Annotated[
    Path, typer.Argument(metavar="OUT", help="The folder that was being written.", show_default=False)
]
