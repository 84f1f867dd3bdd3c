"""ggml's own quantizer and dequantizer, from the library that llama-cpp-python brings."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType


def library() -> ctypes.CDLL:
    """The library, or the test is skipped."""
    llama_cpp = pytest.importorskip("llama_cpp")
    found = list((Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.*"))
    if not found:
        pytest.skip("llama-cpp-python brings no shared library of ggml here")
    loaded = ctypes.CDLL(str(sorted(found)[0]))
    loaded.ggml_quantize_chunk.restype = ctypes.c_size_t
    loaded.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        *(ctypes.c_void_p,) * 2,
        *(ctypes.c_int64,) * 3,
        ctypes.c_void_p,
    ]
    return loaded


def dequantize(rows: torch.Tensor, kind: str) -> torch.Tensor:
    """Float32 values of `rows` of bytes, as ggml computes them."""
    name = kind.lower().replace("_k", "_K")
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    rows = rows.contiguous()
    out = torch.empty(len(rows), rows.shape[1] // size * block)
    convert = getattr(library(), f"dequantize_row_{name}")
    convert(ctypes.c_void_p(rows.data_ptr()), ctypes.c_void_p(out.data_ptr()), ctypes.c_int64(out.numel()))
    return out


def quantized(w: torch.Tensor, kind: str, importance: torch.Tensor | None = None) -> torch.Tensor:
    """What ggml makes of `w [out, in]`, given an importance of each column or none."""
    return dequantize(packed(w, kind, importance), kind)


def packed(w: torch.Tensor, kind: str, importance: torch.Tensor | None = None) -> torch.Tensor:
    """The rows of bytes that ggml makes of `w [out, in]`."""
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    w = w.float().contiguous()
    weight = None if importance is None else importance.float().contiguous()
    rows = torch.zeros(len(w), w.shape[1] // block * size, dtype=torch.uint8)
    library().ggml_quantize_chunk(
        int(GGMLQuantizationType[kind]),
        w.data_ptr(),
        rows.data_ptr(),
        0,
        *w.shape,
        None if weight is None else weight.data_ptr(),
    )
    return rows
