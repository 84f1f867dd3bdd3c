"""Everything that can be known before the long part: what will be done to which part, and whether it can be.

Nothing is written here. Every wrong input is an error of one paragraph; what remains is a `Decision` that the run
follows and a later `resume` reads back.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Anatomy, Linear, anatomy
from whet.budget import tensor_bytes
from whet.checkpoint import Checkpoint, load_tokenizer, model_config
from whet.engines.torch import resolve_device
from whet.errors import MachineError, UsageError, did_you_mean
from whet.grids import IntegerGrid, parse_scheme
from whet.quantize import SOLVERS
from whet.targets import Storage, find_target, storage
from whet.text import fingerprint, read_documents, split, windows

VERIFY_WINDOWS = 16
BATCH_TOKENS = 4096
# What Python, torch and transformers take before any model is read, measured on Linux x86-64.
_BASE_MEMORY = 700 * 2**20
_SCALE_DTYPES = {torch.bfloat16: torch.bfloat16, torch.float16: torch.float16}


@dataclass
class Decision:
    """What a run does: the recipe as plain JSON, and the objects it stands for."""

    recipe: dict[str, Any]
    checkpoint: Checkpoint
    anatomy: Anatomy
    grids: dict[str, IntegerGrid]
    storage: Storage
    dtype: torch.dtype
    device: str
    solve: list[Tensor]
    verify: list[Tensor]
    notes: list[str]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything the result's bytes depend on."""
        digest = hashlib.sha256(repr(sorted((k, v) for k, v in self.recipe.items() if k != "model_path")).encode())
        for window in (*self.solve, *self.verify):
            digest.update(window.numpy().tobytes() + b"|")
        return digest.hexdigest()


def choose_grids(parts: Anatomy, scheme: str, embed: str | None, dtype: torch.dtype) -> dict[str, IntegerGrid]:
    """Address → grid for every linear of the blocks, and for embedding and head where `embed` names a scheme."""
    scales = _SCALE_DTYPES.get(dtype, torch.float16)
    grid = parse_scheme(scheme, scales)
    grids = {linear.address: grid for linear in parts.linears()}
    if embed is not None:
        table = parse_scheme(embed, scales)
        grids |= {linear.address: table for linear in tables(parts)}
    return grids


def tables(parts: Anatomy) -> list[Linear]:
    """Embedding, and the head where it is a tensor of its own."""
    return [parts.embedding] + ([parts.head] if parts.head is not None else [])


def read_windows(
    checkpoint: Checkpoint,
    text: Any,
    eval_text: Any,
    *,
    field: str,
    chat: bool,
    samples: int,
    window: int,
    seed: int,
) -> tuple[list[Tensor], list[Tensor], dict[str, Any]]:
    """Solving and verifying windows, and what the lineage says of the text.

    text: a path or hub name, documents, or windows already cut (a list of int64 tensors, `[n, L]`, or a safetensors
    file that holds `windows [n, L]`). Without `eval_text` the text is split 80/10/10 and only the first two parts are
    used; with it, all of `text` solves and `eval_text` verifies.
    """
    ready = _ready_windows(text)
    if ready is not None:
        return ready, [], {"source": "windows given", "windows": len(ready)}
    limit = checkpoint.config.get("max_position_embeddings")
    if limit and window > limit:
        window = int(limit)
    tokenizer = load_tokenizer(checkpoint.path)
    source = str(text) if isinstance(text, (str, Path)) else "documents given"
    documents = read_documents(text, field=field) if isinstance(text, (str, Path)) else list(text)
    if chat:
        from whet.text import render_chat

        documents = [render_chat(d, tokenizer) for d in documents]
    about: dict[str, Any] = {"source": Path(source).name, "fingerprint": fingerprint(documents), "seed": seed, "window": window}
    if eval_text is None:
        parts = split(documents, seed)
        solving, verifying = parts.solve, parts.verify
        about |= {"split": parts.how, "shares": [0.8, 0.1, 0.1]}
    else:
        solving = documents
        verifying = read_documents(eval_text, field=field) if isinstance(eval_text, (str, Path)) else list(eval_text)
        about |= {"split": "eval given", "eval_fingerprint": fingerprint(verifying)}
    solve = windows(solving, tokenizer, samples, window, seed, source)
    try:
        verify = windows(verifying, tokenizer, min(VERIFY_WINDOWS, samples), window, seed, source)
    except UsageError:
        if eval_text is not None:
            raise
        verify = []  # a tenth of a short text may be less than a window; the run goes on without a verifying stream
    about |= {"windows": len(solve), "tokens": sum(len(w) for w in solve), "verify_windows": len(verify)}
    return solve, verify, about


def decide(
    model: str | Path,
    *,
    scheme: str,
    embed: str | None,
    solver: str,
    target: str,
    text: Any,
    eval_text: Any,
    field: str,
    chat: bool,
    samples: int,
    window: int,
    seed: int,
    device: str,
) -> Decision:
    """Check every argument against the model and the target; raises UsageError or MachineError before anything runs."""
    if solver not in SOLVERS:
        raise UsageError(f"Solver {solver!r} is not known.{did_you_mean(solver, SOLVERS)} Solvers: {', '.join(SOLVERS)}.")
    runtime = find_target(target)
    parse_scheme(scheme)
    if embed is not None:
        parse_scheme(embed)
    if samples < 1 or window < 8:
        raise UsageError(f"{samples} windows of {window} tokens is too little: give at least 1 window of 8 tokens.")
    place = resolve_device(device)
    checkpoint = Checkpoint(model)
    parts = anatomy(checkpoint.config, checkpoint.shapes, str(checkpoint.path))
    _check_shapes(checkpoint, parts)
    dtype = model_config(checkpoint).dtype or checkpoint.dtype
    grids = choose_grids(parts, scheme, embed, dtype)
    every = {linear.address: linear.shape for linear in (*parts.linears(), *tables(parts))}
    stored = storage(runtime, grids, every, frozenset(linear.address for linear in tables(parts)))
    if text is None and solver != "nearest":
        raise UsageError(
            f"Solver {solver} needs text to see what the model's inputs look like. Give --text FILE (txt, jsonl, parquet "
            "or a hub data set) in the languages the model is used in, or --solver nearest, which needs none."
        )
    solve: list[Tensor] = []
    verify: list[Tensor] = []
    about: dict[str, Any] | None = None
    if text is not None:
        solve, verify, about = read_windows(
            checkpoint, text, eval_text, field=field, chat=chat, samples=samples, window=window, seed=seed
        )
        _check_vocabulary(checkpoint, parts, (*solve, *verify))
    notes = []
    if parts.unnamed:
        notes.append(f"copied unchanged, as no table names them: {', '.join(parts.unnamed)}")
    if parts.dropped:
        notes.append(f"{parts.dropped} left out: config.json ties the head to the embedding, so it is never read")
    if text is not None and not verify:
        notes.append("no text was left for verifying, so the run reports no KL of its own; use whet compare")
    recipe = {
        "step": "quantize",
        "model": checkpoint.path.resolve().name,
        "model_path": str(checkpoint.path.resolve()),
        "scheme": scheme,
        "embed": embed,
        "solver": solver,
        "target": target,
        "container": stored.container,
        "seed": seed,
        "device": torch.device(place).type,
        "threads": torch.get_num_threads(),
        "text": about,
    }
    return Decision(recipe, checkpoint, parts, grids, stored, dtype, place, solve, verify, notes)


def estimate(decision: Decision) -> dict[str, Any]:
    """What the run will take: `bytes` by part before and after, peak `memory`, `disk`, and `seconds` (a rough guess)."""
    parts, tensors = decision.anatomy, decision.checkpoint.tensors
    before, after = tensor_bytes(parts, tensors, {}), tensor_bytes(parts, tensors, decision.grids)
    block = max((sum(tensors[n].nbytes // tensors[n].dtype.itemsize for n in names) for names in parts.block_tensors))
    widest = max(linear.shape[1] for linear in parts.linears())
    largest = max(linear.shape[0] * linear.shape[1] for linear in parts.linears())
    table = parts.embedding.shape[0] * parts.embedding.shape[1]
    tokens = sum(len(w) for w in decision.solve)
    hidden = 4 * parts.embedding.shape[1] * (tokens + 2 * sum(len(w) for w in decision.verify))
    inputs = {(linear.reads, linear.shape[1]) for linear in parts.blocks[0]}
    solving = 8 * widest**2 * 3 + sum(4 * width**2 for _, width in inputs) + 40 * largest if decision.solve else 20 * largest
    activations = 4 * BATCH_TOKENS * max(linear.shape[0] for linear in parts.linears()) * 3
    embedding = tensors[parts.embedding.parameter].nbytes * (3 if parts.embedding.address in decision.grids else 1)
    memory = _BASE_MEMORY + max(8 * block + solving, 4 * block + activations, embedding) + hidden
    multiply = _multiplications_per_second()
    weights = sum(linear.shape[0] * linear.shape[1] for linear in parts.linears())
    flops = 4.0 * weights * tokens
    if decision.solve:
        flops += sum(2.0 * tokens * linear.shape[1] ** 2 for linear in parts.linears()) / 2
        flops += sum(12.0 * linear.shape[0] * linear.shape[1] ** 2 for linear in parts.linears())
    seconds = flops / multiply + (weights + table) * (1e-7 if decision.solve else 5e-8)
    return {
        "bytes": {"before": before, "after": after, "ratio": after["total"] / before["total"]},
        "memory": int(memory),
        "disk": int(after["total"] * 1.02) + 2**20,
        "seconds": seconds,
    }


def check_room(out: Path, needs: dict[str, Any]) -> None:
    """Refuse before the long part where disk or memory will not do. Raises MachineError."""
    place = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not os.access(place, os.W_OK):
        raise MachineError(f"{out} cannot be made: you may not write to {place}. Choose another folder.")
    free = shutil.disk_usage(place).free
    if free < needs["disk"]:
        raise MachineError(
            f"The disk of {out} has {free / 1e6:.0f} MB free; the lighter model needs {needs['disk'] / 1e6:.0f} MB. "
            "Free some space or choose another disk."
        )
    available = available_memory()
    if available is not None and available < needs["memory"]:
        raise MachineError(
            f"The run needs about {needs['memory'] / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are free. Use fewer "
            "or shorter windows (--samples, --window), or a machine with more memory."
        )


def available_memory() -> int | None:
    """Bytes of memory free for use, or None where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _ready_windows(text: Any) -> list[Tensor] | None:
    if isinstance(text, (str, Path)) and str(text).endswith(".safetensors"):
        from whet.checkpoint import read_header, read_tensor

        path = Path(text)
        if not path.is_file():
            raise UsageError(f"{path} does not exist. Give a safetensors file that holds int64 windows [n, L].")
        found = read_header(path)
        if "windows" not in found or len(found["windows"].shape) != 2:
            raise UsageError(f"{path} holds no tensor `windows` of shape [n, L]. Write the token windows under that name.")
        text = read_tensor(found["windows"])
    if isinstance(text, Tensor):
        text = list(text)
    if isinstance(text, list) and text and isinstance(text[0], Tensor):
        return [window.to(torch.int64).cpu().contiguous() for window in text]
    return None


def _check_shapes(checkpoint: Checkpoint, parts: Anatomy) -> None:
    """The stored shapes must be those the config's architecture has, tensor by tensor."""
    from whet.walk.skeleton import Skeleton

    expected = {n: tuple(p.shape) for n, p in Skeleton(checkpoint, parts, "meta").model.named_parameters()}
    for name, shape in expected.items():
        stored = checkpoint.tensors.get(name)
        if stored is None:
            if parts.tied and name == f"{parts.family.head}.weight":
                continue
            raise UsageError(f"{checkpoint.path}: tensor {name} is missing. The download is not complete.")
        if stored.shape != shape:
            raise UsageError(
                f"{checkpoint.path}: tensor {name} has shape {list(stored.shape)}, config.json asks for {list(shape)}. "
                "Weights and config are of different models; download the folder again."
            )
    known = set(parts.unnamed) | set(expected) | {f"{parts.family.head}.weight"}
    extra = [n for names in parts.block_tensors for n in names if n not in known]
    if extra:
        raise UsageError(
            f"{checkpoint.path}: {len(extra)} tensors in blocks that config.json's architecture does not have (first "
            f"{extra[0]}). Weights and config are of different models; download the folder again."
        )


def _check_vocabulary(checkpoint: Checkpoint, parts: Anatomy, cut: tuple[Tensor, ...]) -> None:
    largest = max((int(window.max()) for window in cut if len(window)), default=0)
    if largest >= parts.embedding.shape[0]:
        raise UsageError(
            f"{checkpoint.path}: the tokenizer makes token {largest}, the embedding has {parts.embedding.shape[0]} rows. "
            "The tokenizer belongs to another model."
        )


def _multiplications_per_second() -> float:
    a = torch.randn(512, 512)
    a @ a
    started = time.perf_counter()
    for _ in range(4):
        a @ a
    return 4 * 2 * 512**3 / max(time.perf_counter() - started, 1e-6)
