"""`export`: a folder as the file its runtime reads, and the proof that it is the same model.

The proof goes from what needs nothing to what needs llama.cpp: the header is valid and holds the planned bytes; every
weight decoded by the `gguf` package equals the folder's own; the file loads, makes the same tokens of the same text,
puts the same odds on the next token as far as the types' arithmetic allows, and goes on with the same text.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType
from torch import Tensor

from whet.checkpoint.gguf import ADAPTER_KEY, GgufFile
from whet.checkpoint.memory import available_memory
from whet.engines.llamacpp import LlamaEngine, available, open_gguf
from whet.engines.torch import TorchEngine, open_model
from whet.errors import GateError, MachineError, UsageError, did_you_mean
from whet.events import OnEvent, ignore, note_event
from whet.formats.gguf import Layout, plan_gguf, write_gguf
from whet.grids import BLOCKS
from whet.measure.divergence import score_tokens
from whet.messages import Message
from whet.paths import check_output, find_folder
from whet.text import encode, read_documents, windows

FORMATS = ("gguf",)
FILE = "model.gguf"  # in the folder that `compress --for llama.cpp` writes
# Nats a token that llama.cpp may be off on average. It multiplies in the types it reads: int8 inputs for the block
# types, of which 32 share a scale, in those of 256 weights 256; bfloat16 ones for BF16. Measured on the starter and two
# small Llamas: F16 2e-6, BF16 3e-4, block types 2e-3 to 4e-3; on the starter those of 256 weights 6e-3 to 2e-2.
MOST_KL = {"F32": 1e-4, "F16": 1e-4, "BF16": 1e-2}
_MOST_KL_BLOCKS, _MOST_KL_WIDE = 2e-2, 6e-2
_WINDOWS, _WINDOW = 16, 128
_NEW_TOKENS = 32
_PROMPTS = 3
# Text of several kinds, where tokenizers differ: Korean, digits, runs of spaces, line ends, marks, other scripts.
SAMPLES = (
    "Once upon a time there was a small fox who lived at the edge of a forest. Every morning she counted the trees.",
    "옛날 옛적 깊은 산속에 호랑이 한 마리가 살았습니다. 호랑이는 아침마다 강가에 나가 물을 마시고 노래를 불렀지요.",
    "The price rose from 1,299.50 to 2300 in 1987; that's 77 % more, isn't it? I'LL say \"yes\" (perhaps).",
    "오늘은 3월 14일, 기온은 영하 2.5도입니다. GPU 2개로 whet을 실행했더니 40%가 줄었다!",
    "def add(a, b):\n    # sum\n\treturn a + b\n\n\nprint(add(2, 40))   #  two  spaces\r\n",
    "Ünïcödé, 日本語のテキスト, русский, emoji 🙂👍🏽, a​zero width, ﬁ ligature, ½, ㈜한글, ㄱㄴㄷ.",
    " leading space, trailing space ",
)


def export(
    folder: str | Path,
    *,
    to: str = "gguf",
    out: str | Path | None = None,
    kind: str | None = None,
    text: str | Path | Sequence[str] | None = None,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """Write `folder`, original or lighter, as one file, and prove that it is the same model.

    to: the format, `gguf`. out: the file; `<folder's name>.gguf` here unless given. kind: of an original, the type of
    its matrices: `f32`, `f16` or `bf16` (the stored one unless given); a lighter folder has its types already. text:
    what the file is checked on, as `compress` takes it; a few built-in sentences unless given.

    Returns a JSON-able dict: `out`, `types` (how many matrices have each), `bytes` (`planned` and `tensors`, of tensor
    data, and `file`), `adapter` (its `file` beside `out`, where the folder has one), `check`, `notes`, `seconds`.
    Raises UsageError before anything is written for what the format cannot express, and GateError, leaving no file,
    where a proof fails.
    """
    started = time.monotonic()
    if to not in FORMATS:
        raise UsageError(
            "Format {name!r} is not known.{near} Formats: {known}.",
            name=to,
            near=did_you_mean(to, FORMATS),
            known=", ".join(FORMATS),
        )
    path = find_folder(folder)
    name = path.resolve().name + (f"-{kind.lower()}" if kind else "")
    target = Path(out) if out is not None else Path(f"{name}.gguf")
    _must_be_new(target)
    check_output(target, path)
    layout = plan_gguf(path, kind.upper() if kind else None)
    _must_be_free(target, layout)
    documents: list[str] | None = None
    if isinstance(text, (str, Path)):
        documents = read_documents(text, "text", chat=False, tokenizer=None)
    elif text is not None:
        documents = list(text)
    made = write_verified(layout, target, lambda: open_model(path, "cpu", "float32"), documents, on_event)
    return {"format": "whet.export", "version": 1, "folder": str(path), **made, "seconds": time.monotonic() - started}


def write_verified(
    layout: Layout,
    target: Path,
    open_mine: Callable[[], TorchEngine],
    documents: Sequence[str] | None = None,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """Write the planned file and prove it; removes it and raises GateError where a proof fails.

    open_mine: opens the folder the file was made from, in float32.
    """
    beside = adapter_beside(target)
    try:
        if layout.adapter is not None:
            layout.entries[ADAPTER_KEY] = beside.name
            _prove_weights(layout.adapter, write_gguf(layout.adapter, beside))
        file = write_gguf(layout, target)
        check: dict[str, Any] = {"header": "valid", "weights": _prove_weights(layout, file)}
        check |= _prove_running(layout, file, open_mine, documents)
    except GateError:
        target.unlink(missing_ok=True)
        if layout.adapter is not None:
            beside.unlink(missing_ok=True)
        raise
    for note in layout.notes:
        on_event(note_event(note))
    if "llama.cpp" in check:
        on_event(note_event(Message("{target} was not run: {why}", target=target, why=check["llama.cpp"])))
    return {
        "out": str(target),
        "architecture": layout.architecture,
        "types": layout.types,
        "bytes": {"planned": layout.nbytes, "tensors": file.nbytes, "file": target.stat().st_size},
        **({} if layout.adapter is None else {"adapter": {"file": beside.name, "bytes": beside.stat().st_size}}),
        "check": check,
        "notes": layout.notes,
    }


def adapter_beside(target: Path) -> Path:
    """The file of the adapter of the model in the file `target`."""
    return target.with_name(f"{target.stem}-adapter.gguf")


def _must_be_new(file: Path) -> None:
    if file.exists():
        raise UsageError("{file} is there already. Name another file with --out, or remove it.", file=file)


def _must_be_free(target: Path, layout: Layout) -> None:
    if layout.adapter is not None:
        _must_be_new(adapter_beside(target))
    free = shutil.disk_usage(target.parent).free
    if free < layout.nbytes * 1.02 + 2**24:
        raise MachineError(
            "The disk of {file} has {free:.0f} MB free; the file needs {needs:.0f} MB. Free some space or choose "
            "another disk.",
            file=target,
            free=free / 1e6,
            needs=layout.nbytes / 1e6,
        )


def _prove_weights(layout: Layout, file: GgufFile) -> str:
    """Every tensor as the `gguf` package decodes it must be what the folder's own definition says, bit for bit."""
    for tensor in layout.tensors:
        stored = file.tensors[tensor.name]
        data = file.read(tensor.name)
        if tensor.type == "F32":
            mine = torch.from_numpy(data.view(np.float32))
        else:
            kind = GGMLQuantizationType[tensor.type]
            mine = torch.from_numpy(np.array(gguf.dequantize(data.reshape(-1, data.shape[-1]), kind), dtype=np.float32))
        theirs = layout.values(tensor)
        if not torch.equal(mine.reshape(stored.shape), theirs):
            raise GateError(
                "{path}: tensor {name} ({type}) is not what the folder holds. This is a defect of whet; please report "
                "it with the family and the scheme.",
                path=file.path,
                name=tensor.name,
                type=tensor.type,
            )
    return "equal, bit for bit"


def _prove_running(
    layout: Layout, file: GgufFile, open_mine: Callable[[], TorchEngine], documents: Sequence[str] | None
) -> dict[str, Any]:
    """Tokens, odds and text in llama.cpp against the folder in PyTorch; says why where that cannot be run."""
    if not available():
        return {"llama.cpp": Message("llama-cpp-python is not installed (pip install 'whet[llamacpp]')")}
    theirs = open_gguf(file.path)
    needs, free = 5 * file.parameters + 2**28, available_memory()
    if free is not None and free < needs:
        return {
            "llama.cpp": Message(
                "it loads; comparing needs {needs:.1f} GB of memory and {free:.1f} GB are free",
                needs=needs / 1e9,
                free=free / 1e9,
            )
        }
    mine = open_mine()
    texts = [*SAMPLES, *(documents or ())[: 4 * _WINDOWS]]
    found: dict[str, Any] = {"tokens": _same_tokens(mine, theirs, texts)}
    length = min(_WINDOW, theirs.context or _WINDOW)
    if documents:
        cut = windows(documents, mine.tokenizer, _WINDOWS, length, 0, Message("the text to check on"))
    else:
        rows = [torch.tensor(row[:length]) for row in encode(SAMPLES, mine.tokenizer)]
        cut = [row for row in rows if len(row) > 1]
    found |= _same_odds(mine, theirs, cut, layout, file.path)
    # near a tie a router takes another expert, which moves logits by more than any arithmetic
    room = math.inf if f"{layout.architecture}.expert_count" in layout.entries else 2 * found["largest_difference"]
    found["greedy"] = _same_text(mine, theirs, cut, room, file.path)
    return found


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


def _same_odds(
    mine: TorchEngine, theirs: LlamaEngine, cut: Sequence[Tensor], layout: Layout, path: Path
) -> dict[str, float]:
    """Mean KL in nats a token, which must be within the arithmetic of the file's types, and the largest difference."""
    total, count, largest = 0.0, 0, 0.0
    for row in cut:
        batch = row[None]
        ours = mine.logits(batch).float()
        other = torch.cat(list(theirs.logit_chunks(batch, batch.numel())), dim=1)
        if not torch.isfinite(other).all():
            raise GateError(
                "{path}: llama.cpp computes logits that are not finite. A type overflows: try --type bf16.", path=path
            )
        width = min(ours.shape[-1], other.shape[-1])
        kl, *_ = score_tokens(ours[:, :-1, :width], other[:, :-1, :width], batch[:, 1:])
        total, count = total + kl.double().sum().item(), count + kl.numel()
        largest = max(largest, (ours[..., :width] - other[..., :width]).abs().max().item())
    kinds = [*layout.types, *(() if layout.adapter is None else layout.adapter.types)]
    most = max(map(_most_kl, kinds))
    if not total / count <= most:
        raise GateError(
            "{path}: llama.cpp's odds on the next token differ from the folder's by KL {kl:.3g} nats a token, more "
            "than the arithmetic of its types explains ({most:g}). The architecture {name} may compute something else "
            "for this config; please report it.",
            path=path,
            kl=total / count,
            most=most,
            name=layout.architecture,
        )
    return {"kl": total / count, "most_kl": most, "largest_difference": largest}


def _most_kl(kind: str) -> float:
    wide = kind in BLOCKS and BLOCKS[kind].group == 256
    return MOST_KL.get(kind, _MOST_KL_WIDE if wide else _MOST_KL_BLOCKS)


def _same_text(
    mine: TorchEngine, theirs: LlamaEngine, cut: Sequence[Tensor], near: float, path: Path
) -> dict[str, int]:
    """Greedy continuations must be the same, but for choices that lie within what arithmetic may move.

    `same` counts continuations that are equal throughout, `close` those that part where the logits of the two tokens
    were at most `near` to each other.
    """
    room = min(mine.context or 1 << 30, theirs.context or 1 << 30) - 1
    prompts = [row[: max(2, min(len(row) // 2, room - 1))].tolist() for row in cut[:_PROMPTS]]
    new = min(_NEW_TOKENS, min(room - len(prompt) for prompt in prompts))
    if new < 1:
        return {"same": 0, "close": 0, "of": 0}
    close = 0
    for prompt, a, b in zip(prompts, mine.continue_ids(prompts, new), theirs.continue_ids(prompts, new), strict=True):
        if a == b:
            continue
        at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        logits = mine.logits(torch.tensor([[*prompt, *a[:at]]]))[0, -1].float()
        best = logits.max()
        other = logits[b[at]] if at < len(b) else max(logits[end] for end in mine.ends)
        if best - other > near:
            raise GateError(
                "{path}: llama.cpp goes on with another text than the folder after {prompt!r}: {theirs!r} instead of "
                "{mine!r}.",
                path=path,
                prompt=mine.decode(prompt)[-40:],
                theirs=theirs.decode(b)[:60],
                mine=mine.decode(a)[:60],
            )
        close += 1
    return {"same": len(prompts) - close, "close": close, "of": len(prompts)}
