"""An OpenVINO graph (.xml with its .bin) through openvino (the extra `openvino`), on the processor.

Notable: the cache is state of a request, so every sequence that is read has a request of its own. With its own settings
OpenVINO rounds inputs of linears and the cache to 8 bits and may multiply in bfloat16; `exact` turns that off.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from whet.engines.cached import CachedEngine
from whet.errors import MachineError, UsageError

# float32 throughout
PRECISE = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0, "KV_CACHE_PRECISION": "f32"}
FLOAT_MARK = ["whet", "inputs"]  # of a graph that is to be run so


class _Cache(NamedTuple):
    """A request, whose state holds `length` tokens."""

    request: Any
    length: int


def runtime() -> Any:
    """The package. Raises MachineError without it."""
    # it tells its makers over the network that it was imported, unless this package is missing
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise MachineError(
            "Graphs of OpenVINO need the package openvino, which is not installed here ({error}). Install it: pip "
            "install 'whet[openvino]'.",
            error=error,
        ) from error
    return openvino


def open_openvino(path: str | Path, threads: int | None = None, *, exact: bool = False) -> OpenVinoEngine:
    """Read an .xml that whet wrote, ready to be asked; `threads`: PyTorch's number unless given. exact: in float32.

    Raises UsageError for a file that OpenVINO refuses or that has other inputs, MachineError without the extra.
    """
    return OpenVinoEngine(Path(path), threads or torch.get_num_threads(), exact)


class OpenVinoEngine(CachedEngine):
    """A model in OpenVINO. What each method promises is said in `Engine`."""

    name = "OpenVINO"

    def __init__(self, file: Path, threads: int, exact: bool) -> None:
        super().__init__(file)
        native = runtime()
        try:
            core = native.Core()
            model = core.read_model(str(file))
            exact = exact or (model.has_rt_info(FLOAT_MARK) and model.get_rt_info(FLOAT_MARK).astype(str) == "float")
            settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, **(PRECISE if exact else {})}
            self._compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise UsageError(
                "OpenVINO does not load {path}: {error}. Export it again.", path=file, error=str(error)[:300]
            ) from error
        self._given = {one.get_any_name() for one in self._compiled.inputs}
        if not {"input_ids", "attention_mask"} <= self._given <= {*_INPUTS}:
            raise UsageError(
                "{path} takes {inputs}, and whet runs graphs that take input_ids, attention_mask and a state. Give one "
                "that whet exported.",
                path=file,
                inputs=", ".join(sorted(self._given)),
            )

    def advance_all(self, ids: Tensor, cache: _Cache | None) -> tuple[Tensor, _Cache | None]:
        rows, count = ids.shape
        cache = cache or _Cache(self._compiled.create_infer_request(), 0)
        length = cache.length + count
        fed = {
            "input_ids": ids.contiguous().numpy(),
            "attention_mask": np.ones((rows, length), np.int64),
            "position_ids": np.arange(cache.length, length)[None].repeat(rows, 0),
            "beam_idx": np.arange(rows, dtype=np.int32),
        }
        found = cache.request.infer({name: value for name, value in fed.items() if name in self._given})
        answer = torch.from_numpy(np.array(found[0]))
        return answer, _Cache(cache.request, length)


_INPUTS = ("input_ids", "attention_mask", "position_ids", "beam_idx")
