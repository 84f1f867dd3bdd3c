"""An .onnx file in onnxruntime (the extra `onnx`), on the processor.

Notable: keys and values stay in memory of onnxruntime from step to step. Threads wait without spinning, as everywhere
in whet: spinning ones take turns with whoever else computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from whet.engines.cached import CachedEngine
from whet.errors import MachineError, UsageError


class _Cache(NamedTuple):
    """Keys and values of every block as the runtime holds them, of `length` tokens."""

    values: tuple[Any, ...]
    length: int


def runtime() -> Any:
    """The package. Raises MachineError without it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MachineError(
            "Running an .onnx needs onnxruntime, which is not installed here ({error}). Install it: pip install "
            "'whet[onnx]'.",
            error=error,
        ) from error
    return onnxruntime


def open_onnx(path: str | Path, threads: int | None = None) -> OnnxEngine:
    """Read an .onnx file that whet wrote, ready to be asked; `threads`: PyTorch's number unless given.

    Raises UsageError for a file that onnxruntime refuses or that has other inputs, MachineError without the extra.
    """
    return OnnxEngine(Path(path), threads or torch.get_num_threads())


class OnnxEngine(CachedEngine):
    """A model in onnxruntime. What each method promises is said in `Engine`."""

    name = "onnxruntime"

    def __init__(self, file: Path, threads: int) -> None:
        super().__init__(file)
        self.native = runtime()
        options = self.native.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = self.native.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no class
            raise UsageError(
                "onnxruntime does not load {path}: {error}. Export it again.", path=file, error=str(error)[:300]
            ) from error
        given = [one.name for one in self._session.get_inputs()]
        self._past = {one.name: one.shape for one in self._session.get_inputs() if one.name.startswith("past_key")}
        self._outputs = [one.name for one in self._session.get_outputs()]
        if given[:2] != ["input_ids", "attention_mask"] or len(given) != 2 + len(self._past):
            raise UsageError(
                "{path} takes {inputs}, and whet runs graphs that take input_ids, attention_mask and past_key_values. "
                "Give one that whet exported.",
                path=file,
                inputs=", ".join(given[:6]),
            )

    def advance_all(self, ids: Tensor, cache: _Cache | None) -> tuple[Tensor, _Cache | None]:
        rows, count = ids.shape
        length = count + (0 if cache is None else cache.length)
        value = self.native.OrtValue.ortvalue_from_numpy
        fed = {"input_ids": value(ids.contiguous().numpy()), "attention_mask": value(np.ones((rows, length), np.int64))}
        if cache is None:
            empty = (np.zeros((rows, shape[1], 0, shape[3]), np.float32) for shape in self._past.values())
            cache = _Cache(tuple(value(one) for one in empty), 0)
        fed |= zip(self._past, cache.values, strict=True)
        answer, *present = self._session.run_with_ort_values(self._outputs, fed)
        return torch.from_numpy(answer.numpy()), _Cache(tuple(present), length)
