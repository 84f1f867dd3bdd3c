"""The proof that a .gguf file is in llama.cpp what its folder is in PyTorch: the same tokens of the same text, the same
odds on the next token as far as the types' arithmetic allows, the same text.

Both run in a process of its own: on some processors llama.cpp crashes in some types, and that must not take with it
what was made.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

import torch

from whet import errors
from whet.checkpoint import Checkpoint, attach_adapter, load_lighter, load_tokenizer
from whet.checkpoint.gguf import GgufFile
from whet.checkpoint.memory import available_memory
from whet.child import run_python
from whet.engines.llamacpp import LlamaEngine, available, open_gguf
from whet.engines.probe import crash
from whet.engines.torch import TorchEngine, open_model
from whet.errors import GateError, WhetError
from whet.formats.gguf.architectures import window_of
from whet.formats.gguf.tokenizers import composes
from whet.formats.same import SAMPLES, WINDOW, WINDOWS, checked_windows, same_odds, same_text
from whet.grids import BLOCKS
from whet.messages import Message, to_json

_CODE = "import sys; from whet.formats.running import answer; answer(*sys.argv[1:])"
# Nats a token that llama.cpp may be off on average. It multiplies in the types it reads: int8 inputs for the block
# types, of which 32 share a scale, in those of 256 weights 256; bfloat16 ones for BF16. Measured on the starter and two
# small Llamas: F16 2e-6, BF16 3e-4, block types 2e-3 to 4e-3; on the starter those of 256 weights 6e-3 to 2e-2.
MOST_KL = {"F32": 1e-4, "F16": 1e-4, "BF16": 1e-2}
_MOST_KL_BLOCKS, _MOST_KL_WIDE = 2e-2, 6e-2
_ADDED = 64  # added tokens that texts are made with


def prove_running(
    file: GgufFile,
    folder: Path,
    manifest: Mapping[str, Any] | None,
    kinds: Sequence[str],
    documents: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What was found of `file` in llama.cpp, with `notes`, or why it was not run: an entry `llama.cpp`.

    folder, manifest: what it was made from, and its whet.json where that is not written yet. kinds: types of its
    matrices. documents: text to check on beside SAMPLES. Raises GateError where it is another model.
    """
    if not available():
        return {"llama.cpp": Message("llama-cpp-python is not installed (pip install 'whet[llamacpp]')")}
    order = {
        "file": str(file.path),
        "folder": str(folder),
        "manifest": manifest,
        "kinds": list(kinds),
        "documents": None if documents is None else list(documents),
        "threads": torch.get_num_threads(),
        "needs": 5 * file.parameters + 2**28,
    }
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch) / "order.json", Path(scratch) / "answer.json"
        asked.write_text(json.dumps(order), encoding="utf-8")
        done = run_python(_CODE, str(asked), str(answered))
        if (how := crash(done)) is not None:
            return {"llama.cpp": Message("it crashed ({how}). Try the file where it is to run", how=how)}
        if not answered.exists():
            raise RuntimeError(f"the proof in llama.cpp ended with code {done.returncode}: {done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
    if "error" in found:
        raise getattr(errors, found["error"])(Message.read(found["message"]))
    if "llama.cpp" in found:
        found["llama.cpp"] = Message.read(found["llama.cpp"])
    return found | {"notes": [Message.read(note) for note in found.get("notes", [])]}


def answer(order: str, answered: str) -> None:
    """What runs in the process of its own: does what the file `order` says, and writes what was found."""
    asked = json.loads(Path(order).read_text(encoding="utf-8"))
    torch.set_num_threads(asked["threads"])
    try:
        found = _proved(asked)
    except WhetError as error:
        found = {"error": type(error).__name__, "message": error.message}
    Path(answered).write_text(json.dumps(to_json(found)), encoding="utf-8")


def _proved(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens, odds and text in llama.cpp against the folder in PyTorch; says why where that cannot be run."""
    theirs = open_gguf(asked["file"], alone=True)
    free = available_memory()
    if free is not None and free < asked["needs"]:
        return {
            "llama.cpp": Message(
                "it loads; comparing needs {needs:.1f} GB of memory and {free:.1f} GB are free",
                needs=asked["needs"] / 1e9,
                free=free / 1e9,
            )
        }
    mine, documents = open_folder(Path(asked["folder"]), asked["manifest"]), asked["documents"]
    texts = [*SAMPLES, *(documents or ())[: 4 * WINDOWS]]
    if composes(mine.tokenizer):  # which llama.cpp does not, and a note says
        texts = [normalize("NFC", text) for text in texts]
    found: dict[str, Any] = {"tokens": _same_tokens(mine, theirs, texts), "notes": _other_tokens(mine, theirs)}
    looks_back = (
        window_of(mine.model.config.get_text_config()) if theirs.file.setting("attention.sliding_window") is None else 0
    )
    length = min(WINDOW, theirs.context or WINDOW, looks_back or WINDOW)
    cut = checked_windows(mine, documents, length)
    most = max(map(_most_kl, asked["kinds"]))
    found |= same_odds(mine, theirs, cut, most, theirs.file.architecture)
    # near a tie a router takes another expert, which moves logits by more than any arithmetic
    room = math.inf if theirs.file.setting("expert_count") is not None else 2 * found["largest_difference"]
    found["greedy"] = same_text(mine, theirs, cut, room, looks_back)
    return found


def open_folder(folder: Path, manifest: Mapping[str, Any] | None) -> TorchEngine:
    """The model of `folder` in float32, read as `manifest` says or else as its own whet.json does."""
    if manifest is None:
        return open_model(folder, "cpu", "float32")
    how = manifest.get("reading") or manifest
    model = load_lighter(Checkpoint(folder), how["linears"], torch.float32, "cpu", how.get("names"))
    if "adapter" in manifest:
        attach_adapter(model, folder, "cpu")
    return TorchEngine(model, load_tokenizer(folder), str(folder))


def _same_tokens(mine: TorchEngine, theirs: LlamaEngine, texts: Sequence[str]) -> int:
    """How many texts were tokenized alike, which must be all."""
    for text in texts:
        a, b = mine.encode(text), theirs.encode(text)
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            raise GateError(
                "{path}: llama.cpp reads {text!r} as other tokens than the model's tokenizer (from token {at}: "
                "{theirs} instead of {mine}), so it cannot be written for llama.cpp.",
                path=theirs.folder,
                text=text[:60],
                at=at,
                theirs=b[at : at + 3],
                mine=a[at : at + 3],
            )
    return len(texts)


def _other_tokens(mine: TorchEngine, theirs: LlamaEngine) -> list[Message]:
    """A note on the first text around an added token that llama.cpp reads as other tokens, if there is one.

    Tokens that take spaces to them or are whole words only have notes of their own.
    """
    added = [
        token.content
        for token in mine.tokenizer.added_tokens_decoder.values()
        if not (token.lstrip or token.rstrip or token.single_word)
    ]
    texts = [text for token in added[:_ADDED] for text in (f"a{token}b", f"a {token} b", f"{token}\n가")]
    other = [text for text in texts if mine.encode(text) != theirs.encode(text)]
    if not other:
        return []
    return [
        Message(
            "llama.cpp reads {count} of {total} texts with an added token as other tokens than the tokenizer does: of "
            "{text!r} it makes {theirs} instead of {mine}",
            count=len(other),
            total=len(texts),
            text=other[0],
            theirs=theirs.encode(other[0]),
            mine=mine.encode(other[0]),
        )
    ]


def _most_kl(kind: str) -> float:
    wide = kind in BLOCKS and BLOCKS[kind].group == 256
    return MOST_KL.get(kind, _MOST_KL_WIDE if wide else _MOST_KL_BLOCKS)
