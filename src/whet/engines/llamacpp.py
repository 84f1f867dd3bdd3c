"""A .gguf file in llama.cpp, through llama-cpp-python (the extra `llamacpp`).

Notable: the header is validated before native code reads the file, and a process of its own opens it first (`probe`),
since native code aborts on what it does not expect. Sequences of a batch have a cache each and go
through together. Everything is as people run it: llama.cpp's own tokenizer, its own types of arithmetic, keys and
values in float16.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whet.checkpoint.gguf import GgufFile, read_gguf
from whet.engines.cache import find_cache
from whet.engines.engine import Timing
from whet.engines.probe import must_survive
from whet.engines.sampling import check_request, sample
from whet.errors import MachineError, NotFiniteError, UsageError
from whet.messages import Message
from whet.text import ChatTemplate, batch_indices

GENERATED_AT_ONCE = 4096  # tokens of prompts with their answers in one cache
_SEQUENCES = 64  # that go through together; llama.cpp has a limit of some hundred
_ROUND = 256  # the cache of a sequence is a multiple of so many tokens
_SPACE_MARKED = ("llama", "t5")  # tokenizers that put a space before a text, and take it off again


# What keys and values are kept in, by ggml's numbers of types.
_CACHE_TYPES = {"16": 1, "int8": 8, "q4_0": 2}
_ERROR = 4  # ggml's number for a message about one
_told: deque[str] = deque(maxlen=3)  # the last of llama.cpp's errors: it tells them to a function, and to no caller


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def _listen(level: int, text: bytes, _: Any) -> None:
    """What llama.cpp says: kept if it is an error. It must outlive every model, as native code holds its address."""
    if level == _ERROR:
        _told.append(" ".join(text.decode(errors="replace").split()).rstrip("."))


def _library() -> Any:
    """llama-cpp-python, told to say its errors to us and nothing to the terminal."""
    native = importlib.import_module("llama_cpp")
    native.llama_log_set(_listen, ctypes.c_void_p(0))
    return native


def available() -> bool:
    """Whether the extra `llamacpp` is installed."""
    try:
        _library()
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def open_gguf(path: str | Path, threads: int | None = None, *, alone: bool = False) -> LlamaEngine:
    """Read a .gguf file, ready to be asked; `threads`: of the processor, PyTorch's number unless given. alone: this
    process is there for nothing else, and may crash.

    Raises UsageError for a file that is damaged, that llama.cpp refuses or crashes on, MachineError without the extra.
    """
    file = read_gguf(path)
    if not file.architecture or not file.tokens:
        raise UsageError("{path} is no language model: its header names no architecture or no tokens.", path=path)
    try:
        native = _library()
    except (ImportError, OSError, RuntimeError) as error:
        raise MachineError(
            "Reading {path} needs llama.cpp, which is not installed here ({error}). Install it: pip install "
            "'whet[llamacpp]' (it is compiled for this machine, which takes some minutes and a C++ compiler).",
            path=path,
            error=error,
        ) from error
    threads = threads or torch.get_num_threads()
    if not alone:
        must_survive(file.path, file.adapter, threads)
    return LlamaEngine(file, native, threads)


class Words:
    """The tokenizer of a .gguf in the form of a transformers tokenizer, as far as cutting text and chat need it."""

    def __init__(self, engine: LlamaEngine) -> None:
        self._engine = engine
        self.name_or_path = engine.folder
        self.chat_template = engine.file.metadata.get("tokenizer.chat_template")

    def __call__(
        self, texts: str | Sequence[str], add_special_tokens: bool = True, verbose: bool = False
    ) -> dict[str, Any]:
        """Token ids, as `input_ids`, of one text or several."""
        if isinstance(texts, str):
            row = self._engine.tokenize(texts)
            return {"input_ids": [*self._engine.before, *row] if add_special_tokens else row}
        return {"input_ids": [self(text, add_special_tokens)["input_ids"] for text in texts]}

    def get_vocab(self) -> dict[str, int]:
        """Token → number; what only fills the vocabulary up is left out."""
        return vocabulary(self._engine.file)

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """Tokens that a chat template is given by name."""
        tokens, about = self._engine.file.tokens, self._engine.file.metadata
        return {
            f"{name}_token": tokens[about[f"tokenizer.ggml.{name}_token_id"]]
            for name in ("bos", "eos")
            if 0 <= about.get(f"tokenizer.ggml.{name}_token_id", -1) < len(tokens)
        }


def vocabulary(file: GgufFile) -> dict[str, int]:
    """Token → number of a .gguf; what only fills the vocabulary up (unused tokens) is left out."""
    types = file.metadata.get("tokenizer.ggml.token_type")
    tokens = file.tokens
    return {token: i for i, token in enumerate(tokens) if types is None or types[i] != 5}


def _refused(path: str | Path) -> UsageError:
    why = "; ".join(_told) or Message("it does not say why")
    return UsageError("llama.cpp does not load {path}: {why}.", path=path, why=why)


class LlamaEngine:
    """A model in llama.cpp, with the adapter that its file names. What each method promises is said in `Engine`."""

    name = "llama.cpp"
    dtype = "its own"
    task = "causal"

    def __init__(self, file: GgufFile, native: Any, threads: int) -> None:
        self.file, self.native, self.threads = file, native, threads
        self.folder = str(file.path)
        self.device = torch.device("cpu")
        _told.clear()
        settings = native.llama_model_default_params()
        settings.n_gpu_layers = 0
        self._model = native.llama_model_load_from_file(self.folder.encode(), settings)
        self._context: Any = None
        self._room = (0, 0, 0)
        self._kept = _CACHE_TYPES["16"]
        if not self._model:
            raise _refused(self.folder)
        self._adapter: Any = None
        if file.adapter is not None:
            read_gguf(file.adapter)
            self._adapter = native.llama_adapter_lora_init(self._model, str(file.adapter).encode())
            if not self._adapter:
                raise _refused(file.adapter)
        self._words = native.llama_model_get_vocab(self._model)
        self.vocabulary = int(native.llama_vocab_n_tokens(self._words))
        self.context: int | None = int(native.llama_model_n_ctx_train(self._model))
        about = file.metadata
        self.before: list[int] = []
        if native.llama_vocab_get_add_bos(self._words):
            self.before = [int(native.llama_vocab_bos(self._words))]
        self._prefixed = about.get("tokenizer.ggml.model") in _SPACE_MARKED and bool(
            about.get("tokenizer.ggml.add_space_prefix", True)
        )
        self._newline: dict[int, bool] = {}
        self.tokenizer = Words(self)
        self._template = ChatTemplate(self.tokenizer)

    @property
    def ends(self) -> set[int]:
        """Tokens at which a text ends."""
        count, ends = self.vocabulary, self.native.llama_vocab_is_eog
        return {token for token in range(count) if ends(self._words, token)}

    def __del__(self) -> None:
        if sys.is_finalizing():
            return
        if getattr(self, "_context", None):
            self.native.llama_free(self._context)
        if getattr(self, "_model", None):
            self.native.llama_model_free(self._model)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text` alone, with nothing before it; special tokens in it are taken as such."""
        data = text.encode()
        room = len(data) + 8
        for _ in range(2):
            tokens = (self.native.llama_token * room)()
            count = self.native.llama_tokenize(self._words, data, len(data), tokens, room, False, True)
            if count >= 0:
                return list(tokens[:count])
            room = -count
        raise UsageError("{path}: llama.cpp cannot tokenize the text {text!r}.", path=self.folder, text=text[:60])

    def encode(self, text: str, *, chat: bool = False) -> list[int]:
        if chat:
            return self.encode_chat([{"role": "user", "content": text}])
        row = self.tokenize(text)
        return row if row[:1] == self.before else [*self.before, *row]

    def encode_chat(self, turns: list[dict[str, Any]]) -> list[int]:
        return self.encode(self._template.render(turns, self.folder, reply_next=True))

    def decode(self, ids: Sequence[int]) -> str:
        text = b"".join(self._piece(token) for token in ids).decode(errors="replace")
        return text[1:] if self._prefixed and text.startswith(" ") else text

    def logit_chunks(self, batch: Tensor, tokens_at_once: int) -> Iterator[Tensor]:
        rows, length = batch.shape
        step = max(1, tokens_at_once // rows)
        together = min(rows, _SEQUENCES)
        whole = together == rows
        self._open(together, length, together * (min(step, length) if whole else length))
        for start in range(0, length, step):
            stop = min(start + step, length)
            parts = []
            for first in range(0, rows, together):
                some = batch[first : first + together].tolist()
                # more rows than there are caches: those before are read again for every chunk
                begin = start if whole else 0
                if not whole:
                    self._forget()
                told = [
                    (row, at, tokens[at], at >= start) for row, tokens in enumerate(some) for at in range(begin, stop)
                ]
                parts.append(self._run(told).view(len(some), stop - start, self.vocabulary))
            yield torch.cat(parts)

    def continue_ids(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        stop_at_newline: bool = False,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[list[int]]:
        """As in `Engine`. Sampling draws prompt number i from seed + i, whatever it is batched with."""
        check_request(prompts, max_new_tokens, temperature, top_p, self.context, self.folder)
        answers: list[list[int]] = [[] for _ in prompts]
        lengths = [len(prompt) + max_new_tokens for prompt in prompts]
        groups = [
            group[first : first + _SEQUENCES]
            for group in batch_indices(lengths, GENERATED_AT_ONCE)
            for first in range(0, len(group), _SEQUENCES)
        ]
        for group in groups:
            longest = max(len(prompts[i]) for i in group)
            self._open(len(group), longest + max_new_tokens, sum(len(prompts[i]) for i in group))
            samplers = {row: torch.Generator().manual_seed(seed + i) for row, i in enumerate(group)}
            told = [
                (row, at, token, at == len(prompts[i]) - 1)
                for row, i in enumerate(group)
                for at, token in enumerate(prompts[i])
            ]
            rows = list(range(len(group)))
            for made in range(max_new_tokens):
                logits = self._run(told)
                if not torch.isfinite(logits).all():
                    raise NotFiniteError(
                        "{path}: the model gives logits that are not finite while generating. Its weights are broken, "
                        "or a type overflows: export it again from its folder, or in another type.",
                        path=self.folder,
                    )
                drawn = [samplers[row] for row in rows]
                chosen = sample(logits, temperature, top_p, drawn) if temperature > 0 else logits.argmax(-1)
                told = []
                for row, token in zip(rows, chosen.tolist(), strict=True):
                    if self.native.llama_vocab_is_eog(self._words, token):
                        continue
                    answers[group[row]].append(token)
                    if not (stop_at_newline and self._ends_a_line(token)):
                        told.append((row, len(prompts[group[row]]) + made, token, True))
                rows = [row for row, *_ in told]
                if not rows or made + 1 == max_new_tokens:
                    break
        return answers

    def time(self, prompt: Sequence[int], new_tokens: int) -> Timing:
        self._open(1, len(prompt) + new_tokens + 1, len(prompt))
        told = [(0, at, token, at == len(prompt) - 1) for at, token in enumerate(prompt)]
        started = time.perf_counter()
        token = int(self._run(told).argmax(-1))
        first = time.perf_counter()
        for i in range(new_tokens):
            token = int(self._run([(0, len(prompt) + i, token, True)]).argmax(-1))
        return Timing(first - started, time.perf_counter() - first, len(prompt), new_tokens)

    def open_slots(self, slots: int, length: int) -> None:
        """Room for `slots` sequences of `length` tokens, which `run_slots` adds to and `empty_slot` empties."""
        self._open(slots, length, length + slots)

    def run_slots(self, told: Sequence[tuple[int, int, int, bool]]) -> Tensor:
        """Logits [n, vocabulary] after those of `told` (slot, position, token, wanted) that are wanted."""
        return self._run(told)

    def crop_slot(self, slot: int, length: int) -> None:
        """Forget all but the first `length` tokens of a slot. Raises UsageError where the model's memory cannot."""
        memory = self.native.llama_get_memory(self._context)
        if not self.native.llama_memory_seq_rm(memory, slot, length, -1):
            raise UsageError("{path} cannot take tokens back.", path=self.folder)

    def keep(self, kv: str | None) -> None:
        """Keep keys and values in `kv` from now on, as `--cache-type-k` and `-v`: `int8` is `q8_0`."""
        kind = _CACHE_TYPES.get("16" if kv is None else find_cache(kv))
        if kind is None:
            raise UsageError(
                "llama.cpp keeps keys and values in {known}, and not in {kv}. Use one of them.",
                known="int8 (q8_0), q4_0, 16",
                kv=kv,
            )
        if self._context:
            self.native.llama_free(self._context)
        self._context, self._room, self._kept = None, (0, 0, 0), kind

    # -- native parts ---------------------------------------------------------------------------------------------

    def _open(self, rows: int, length: int, at_once: int) -> None:
        """An empty cache for `rows` sequences of `length` tokens, `at_once` tokens of all at a time."""
        length = -(-length // _ROUND) * _ROUND
        wanted = (rows, length, at_once)
        if self._context and all(have >= want for have, want in zip(self._room, wanted, strict=True)):
            self._forget()
            return
        if self._context:
            self.native.llama_free(self._context)
            self._context = None
        settings = self.native.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = rows * length, rows
        settings.n_batch = max(at_once, rows)
        settings.type_k = settings.type_v = self._kept
        if self._kept != _CACHE_TYPES["16"]:  # values in few bits are for its fused attention alone
            settings.flash_attn_type = 1
        settings.n_threads = settings.n_threads_batch = self.threads
        self._context = self.native.llama_init_from_model(self._model, settings)
        if not self._context:
            raise MachineError(
                "{path}: llama.cpp has no room for {count} sequences of {length} tokens. Ask for shorter or fewer "
                "windows, or close other programs.",
                path=self.folder,
                count=rows,
                length=length,
            )
        if self._adapter:
            adapters, strengths = (self.native.llama_adapter_lora_p_ctypes * 1)(self._adapter), (ctypes.c_float * 1)(1)
            self.native.llama_set_adapters_lora(self._context, adapters, 1, strengths)
        self._room = wanted

    def _forget(self) -> None:
        """Empty the caches."""
        self.native.llama_memory_clear(self.native.llama_get_memory(self._context), True)

    def _run(self, told: Sequence[tuple[int, int, int, bool]]) -> Tensor:
        """Logits `[n, vocabulary]` after those of `told` (sequence, position, token, wanted) that are wanted."""
        batch = self.native.llama_batch_init(len(told), 0, 1)
        try:
            batch.n_tokens = len(told)
            for i, (row, at, token, wanted) in enumerate(told):
                batch.token[i], batch.pos[i] = token, at
                batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, row, wanted
            code = self.native.llama_decode(self._context, batch)
        finally:
            self.native.llama_batch_free(batch)
        if code:
            raise UsageError(
                "{path}: llama.cpp could not compute {count} tokens (code {code}). A token may be outside its "
                "vocabulary of {vocabulary}, or the text longer than its context of {context}.",
                path=self.folder,
                count=len(told),
                code=code,
                vocabulary=self.vocabulary,
                context=self.context,
            )
        count = sum(wanted for *_, wanted in told)
        values = np.ctypeslib.as_array(self.native.llama_get_logits(self._context), shape=(count, self.vocabulary))
        return torch.from_numpy(values.copy())

    def _piece(self, token: int) -> bytes:
        for room in (64, 4096):
            buffer = ctypes.create_string_buffer(room)
            count = self.native.llama_token_to_piece(self._words, token, buffer, room, 0, False)
            if count >= 0:
                return buffer.raw[:count]
        return b""

    def _ends_a_line(self, token: int) -> bool:
        if token not in self._newline:
            self._newline[token] = b"\n" in self._piece(token)
        return self._newline[token]
