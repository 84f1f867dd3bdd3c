"""Run by itself, without whet or torch: opens a .gguf file in llama.cpp and computes a few tokens, or crashes.

Arguments: the file, the number of threads, the file of an adapter or nothing.
"""

import ctypes
import importlib
import os
import sys
from typing import Any

os.environ["GGML_NO_BACKTRACE"] = "1"  # which would look for a debugger
native = importlib.import_module("llama_cpp")


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def _quiet(*_: Any) -> None:
    """llama.cpp's messages; what makes it abort goes to stderr all the same."""


def main(path: str, threads: str, adapter: str) -> None:
    native.llama_log_set(_quiet, ctypes.c_void_p(0))
    settings = native.llama_model_default_params()
    settings.n_gpu_layers = 0
    model = native.llama_model_load_from_file(path.encode(), settings)
    if not model:
        return  # whoever opens it next is told why
    if adapter:
        native.llama_adapter_lora_init(model, adapter.encode())
    room = native.llama_context_default_params()
    room.n_ctx, room.n_batch, room.n_seq_max = 256, 32, 1
    room.n_threads = room.n_threads_batch = int(threads)
    context = native.llama_init_from_model(model, room)
    words = native.llama_vocab_n_tokens(native.llama_model_get_vocab(model))
    at = 0
    for count in (16, 1) if context and words else ():  # products of matrices and of vectors are different code
        batch = native.llama_batch_init(count, 0, 1)
        batch.n_tokens = count
        for i in range(count):
            batch.token[i], batch.pos[i] = (at + i) % words, at + i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
        native.llama_decode(context, batch)
        at += count


if __name__ == "__main__":
    main(*sys.argv[1:])
