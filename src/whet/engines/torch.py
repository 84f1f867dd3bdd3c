"""Model folders in PyTorch through transformers: the original and the lighter alike.

Notable: prompts are batched by equal length, so that there is no padding and no mask to get wrong; the output layer,
whose result is by far the largest tensor there is, is applied a few positions at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whet.anatomy import HEADLESS, task_of
from whet.checkpoint import Checkpoint, answer_of, check_precision, load_model, load_tokenizer
from whet.checkpoint.packing_whet import Packing
from whet.engines.cache import GROUP, CacheShape, Scales, check_cache, find_cache, new_cache, stored_cache
from whet.engines.engine import Timing
from whet.engines.halves import halves_of
from whet.engines.sampling import check_request, sample
from whet.engines.texts import Texts
from whet.errors import MachineError, NotFiniteError, UsageError
from whet.events import OnEvent, Stage, ignore
from whet.grids import CACHE_GRIDS
from whet.messages import Message
from whet.text import batch_indices

GENERATED_AT_ONCE = 8192  # tokens in a batch of prompts with their answers: bounds the KV cache
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def open_model(
    folder: str | Path,
    device: str = "auto",
    dtype: str | torch.dtype | None = None,
    threads: int | None = None,
    packing: Packing | None = None,
    kv: str | Sequence[str] | None = None,
    precision: int | None = None,
) -> TorchEngine:
    """Read a model folder, original or lighter, ready to be asked.

    `device` is `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, ...; `dtype` is the type to compute in (None:
    the one the folder says); `threads`, when given, sets PyTorch's thread count for the whole process; `packing` keeps
    codes packed; `kv`: what keys and values are kept in (`whet.engines.cache`), of all layers or of each; what the
    folder says unless given, `16` as the model computes them; `precision`: of a folder of several, the bits to begin
    with.
    Raises UsageError for what is wrong with the folder or the names, MachineError for a device that is not there.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    model = load_model(folder, dtype_of(dtype), resolve_device(device), packing, precision)
    name = "torch" if packing is None or not packing.kept else "torch, packed"
    engine = TorchEngine(model, load_tokenizer(folder), str(folder), name)
    if (own := stored_cache(Checkpoint(folder))) is not None:
        engine.own, engine.scales = own
        kv = engine.own if kv is None else kv
    if kv is not None:
        engine.keep(kv)
    return engine


def dtype_of(name: str | torch.dtype | None) -> torch.dtype | None:
    """The type of a name, as it is where it is one or None. Raises UsageError for a name that is not known."""
    if not isinstance(name, str):
        return name
    if name not in DTYPES:
        raise UsageError("dtype {dtype} is not known. Use one of: {known}.", dtype=name, known=", ".join(DTYPES))
    return DTYPES[name]


def resolve_device(device: str) -> str:
    """`auto` to `cuda` or `cpu`; anything else is checked and returned. Raises UsageError or MachineError."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise UsageError("Device {device} is not known. Use auto, cpu or cuda.", device=device) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise MachineError("Device cuda was asked for, but PyTorch sees no GPU here. Use --device cpu, or auto.")
    return device


def task_of_model(model: PreTrainedModel) -> str:
    """What a model answers, as `whet.anatomy` names it. Models that read images beside text go on with the text,
    although they are called as those that rewrite it."""
    task = task_of(type(model).__name__)
    if model.config.is_encoder_decoder:
        return task if task in HEADLESS else "seq2seq"
    return "causal" if task == "seq2seq" else task


def outputs(model: PreTrainedModel | Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Logits of `batch` int64 [b, L], computed without a cache: [b, L, vocabulary], or [b, labels] of a classifier; or
    `answer_of` a model that gives none.

    An encoder–decoder reads the batch and is given it again to write: at every position it says what comes next.
    model: or a function of the batch, of another runtime.
    """
    if not isinstance(model, PreTrainedModel):
        return model(batch)
    batch = batch.to(model.device)
    if model.config.is_encoder_decoder:
        return answer_of(model(input_ids=batch, decoder_input_ids=batch, use_cache=False))
    task = task_of_model(model)
    return answer_of(model(input_ids=batch, **({"use_cache": False} if task == "causal" else {})))


def cached_outputs(model: PreTrainedModel, batch: Tensor) -> Tensor | None:
    """Logits [b, 1, vocabulary] of the last position of `batch` int64 [b, L], the ones before it read into a cache;
    None of a model that keeps no keys and values."""
    batch = batch.to(model.device)
    given: dict[str, Any] = {"input_ids": batch} if model.config.is_encoder_decoder else {}
    key = "decoder_input_ids" if given else "input_ids"
    first = model(**{**given, key: batch[:, :-1]}, use_cache=True)
    if getattr(first, "past_key_values", None) is None:
        return None
    return model(**{**given, key: batch[:, -1:]}, past_key_values=first.past_key_values, use_cache=True).logits


class TorchEngine(Texts):
    """A model in memory, in eval mode, with its tokenizer. What each method promises is said in `Engine`."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str, name: str = "torch"
    ) -> None:
        super().__init__(tokenizer, folder)
        self.model, self.name = model, name
        self.task = task_of_model(model)
        self.device = model.device
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.vocabulary = int(model.config.get_text_config().vocab_size)
        self.context: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.ends = _end_tokens(model, tokenizer)
        self._body: Any = None
        self._head: Any = None
        if self.task == "causal":
            self._body, self._head = halves_of(model)
        self.kv: tuple[str, ...] | None = None  # by layer, what keys and values are kept in
        self.own: str | None = None  # what the folder says they are kept in
        self.scales: Scales = {}  # and under which scales

    def keep(self, kv: str | Sequence[str] | None) -> None:
        """Keep keys and values in `kv` from now on, of all layers or of each; None as the model computes them. Raises
        UsageError for types that are not known, and models or heads that they do not fit."""
        if kv is None:
            self.kv = None
            return
        if self.task != "causal":
            raise UsageError(
                "{folder} is no decoder that continues text, whose keys and values --kv is about. Leave it out.",
                folder=self.folder,
            )
        layers = len(CacheShape.of(self.model.config).heads)
        named = kv.split(",") if isinstance(kv, str) else kv
        if len(named) not in (1, layers):
            raise UsageError(
                "--kv names {count} types, and {folder} has {layers} layers. Name one, or one for each layer.",
                count=len(named),
                folder=self.folder,
                layers=layers,
            )
        kinds = tuple(map(find_cache, named if len(named) == layers else [*named] * layers))
        check_cache(self.model.config, kinds)
        if lacking := next((kind for kind in kinds if kind in CACHE_GRIDS and kind not in ("fp8", self.own)), None):
            raise UsageError(
                "{folder} holds no scales for {kind}: it is made for {own}. Make a folder that has them (whet compress "
                "--kv {kind}), or use --kv int8, which finds its own.",
                folder=self.folder,
                kind=lacking,
                own=self.own or Message("keys and values as they are"),
            )
        self.kv = kinds

    @property
    def precisions(self) -> tuple[int, ...]:
        """The bits that `use` takes, the most first; none of a model of one precision."""
        switch = getattr(self.model, "set_precision", None)
        return () if switch is None else switch.precisions

    @property
    def precision(self) -> int | None:
        """The bits that it computes with now, of several."""
        switch = getattr(self.model, "set_precision", None)
        return None if switch is None else switch.now

    def use(self, precision: int) -> None:
        """Compute with so many bits from now on. Raises UsageError for a precision that the folder does not have."""
        if precision not in self.precisions:
            check_precision(Checkpoint(self.folder), precision)
        self.model.set_precision(precision)  # type: ignore[operator]

    def new_cache(self) -> Any:
        """An empty cache as `keep` said; None where the model makes its own."""
        if self.kv is None:
            return None
        own = {i: pair for i, pair in self.scales.items() if self.kv[i] == self.own}
        return new_cache(self.model, self.kv, own)

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter by its name, as it computes."""
        yield from self.model.named_parameters()

    def logits(self, batch: Tensor) -> Tensor:
        """Logits [b, L, vocabulary] of `batch` int64 [b, L], all at once."""
        return torch.cat(list(self.logit_chunks(batch, batch.numel())), dim=1)

    def logit_chunks(self, batch: Tensor, tokens_at_once: int) -> Iterator[Tensor]:
        self._must_know(batch)
        batch = batch.to(self.device)
        step = max(1, tokens_at_once // batch.shape[0])
        if self._body is None or self._head is None:
            # nothing is handed out from inside: a reader who stops early would be left in inference mode
            with torch.inference_mode():
                logits = outputs(self.model, batch) if self.kv is None else self._read(self.model, batch, "logits")
                if self.task == "masked":
                    # what is said of a token stands at its own position, not at the one before it
                    logits = logits.roll(-1, dims=1)
            yield from logits.split(step, dim=1)
            return
        with torch.inference_mode():
            if self.kv is not None:
                hidden = self._read(self._body, batch, "last_hidden_state")
            else:
                hidden = self._body(input_ids=batch, use_cache=False).last_hidden_state
        for part in hidden.split(step, dim=1):
            with torch.inference_mode():
                logits = self._head(part)
            yield logits

    def continue_ids(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        stop_at_newline: bool = False,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        past_ends: bool = False,
        on_event: OnEvent = ignore,
    ) -> list[list[int]]:
        """As in `Engine`. Sampling draws prompt number i from seed + i, whatever it is batched with. past_ends: write
        on where a text ends, as in windows that hold one document behind the other. on_event: told of every token.

        Raises UsageError for numbers out of range, an empty prompt, one that leaves no room in the context, or logits
        that are not finite.
        """
        self._must_write()
        check_request(prompts, max_new_tokens, temperature, top_p, self.context, self.folder)
        answers: list[list[int]] = [[] for _ in prompts]
        whole_lengths = [len(prompt) + max_new_tokens for prompt in prompts]
        groups = batch_indices(whole_lengths, GENERATED_AT_ONCE)
        stage = Stage(on_event, "write", len(groups) * max_new_tokens)
        for number, group in enumerate(groups, 1):
            ids = torch.tensor([prompts[i] for i in group], device=self.device)
            self._must_know(ids)
            samplers = [torch.Generator().manual_seed(seed + i) for i in group] if temperature > 0 else []
            open_rows = set(range(len(group)))
            cache = self.new_cache()
            ids, given = self._begin(ids)
            for _ in range(max_new_tokens):
                logits, cache = self._step(ids, cache, given)
                chosen = self._chosen(logits, temperature, top_p, samplers)
                for row in list(open_rows):
                    token = int(chosen[row])
                    if token in self.ends and not past_ends:
                        open_rows.discard(row)
                        continue
                    answers[group[row]].append(token)
                    if stop_at_newline and self._ends_a_line(token):
                        open_rows.discard(row)
                if not open_rows:
                    break
                ids = chosen[:, None].to(self.device)
                stage.step()
            stage.reach(number * max_new_tokens)
        return answers

    def time(self, prompt: Sequence[int], new_tokens: int) -> Timing:
        self._must_write()
        ids = torch.tensor([list(prompt)], device=self.device)
        self._wait()
        started = time.perf_counter()
        ids, given = self._begin(ids)
        logits, cache = self._step(ids, self.new_cache(), given)
        token = logits.argmax(-1)[:, None]
        self._wait()
        first = time.perf_counter()
        for _ in range(new_tokens):
            logits, cache = self._step(token, cache, given)
            token = logits.argmax(-1)[:, None]
        self._wait()
        return Timing(first - started, time.perf_counter() - first, len(prompt), new_tokens)

    def advance(self, ids: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Logits [b, vocabulary] after the last of `ids` [b, n], which follow what is in `cache`, and the cache with
        them. Of a model that continues text. Raises UsageError for tokens that it has no embedding of."""
        self._must_know(ids)
        return self._step(ids, self.new_cache() if cache is None else cache, {})

    def _read(self, model: Any, batch: Tensor, name: str) -> Tensor:
        """What `model` gives as `name` for `batch [b, L]`, keys and values kept as `keep` said: a group of tokens at a
        time where those that come together are looked at as they are."""
        assert self.kv is not None
        cache, found = self.new_cache(), []
        for part in batch.split(GROUP if "int4" in self.kv else batch.shape[1], dim=1):
            found.append(getattr(model(input_ids=part, past_key_values=cache, use_cache=True), name))
        return torch.cat(found, 1)

    def run(self, ids: Tensor, cache: Any, wanted: Sequence[tuple[int, int]], **given: Any) -> Tensor:
        """Logits [m, vocabulary] after the m `wanted` (row, column) of `ids` [b, n], whose keys and values go into
        `cache`. given: what the model is told beside them, such as positions and a mask. Raises UsageError for tokens
        that it has no embedding of."""
        self._must_know(ids)
        rows, columns = ([place[i] for place in wanted] for i in (0, 1))
        with torch.inference_mode():
            if self._body is None or self._head is None:
                out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, **given)
                return out.logits[rows, columns]
            out = self._body(input_ids=ids, past_key_values=cache, use_cache=True, **given)
            return self._head(out.last_hidden_state[rows, columns])

    def _must_write(self) -> None:
        """Raises UsageError for a model that does not write text."""
        if self.task not in ("causal", "seq2seq"):
            raise UsageError(
                "{folder} is a {kind}, which fills in or judges text and does not continue it. Use whet compare to "
                "see what it kept.",
                folder=self.folder,
                kind=type(self.model).__name__,
            )

    def _must_know(self, ids: Tensor) -> None:
        """Raises UsageError for tokens that the model has no embedding of."""
        rows = len(self.model.get_input_embeddings().weight)  # type: ignore[arg-type]
        if int(ids.max()) >= rows:
            raise UsageError(
                "{folder}: the tokenizer makes token {token}, the embedding has {rows} rows. The tokenizer belongs to "
                "another model.",
                folder=self.folder,
                token=int(ids.max()),
                rows=rows,
            )

    def _begin(self, ids: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """What is to be continued after the prompts `ids` [b, n], and what every step is given beside it: a decoder
        begins with its own first token and reads what the encoder made of the prompts."""
        if self.task != "seq2seq":
            return ids, {}
        with torch.inference_mode():
            read = self.model.get_encoder()(input_ids=ids)
        start = self.model.config.decoder_start_token_id
        return torch.full((len(ids), 1), start, device=self.device), {"encoder_outputs": read}

    def _step(self, ids: Tensor, cache: Any, given: dict[str, Any]) -> tuple[Tensor, Any]:
        """Logits [b, vocabulary] after the last of `ids` [b, n], and the cache with their keys and values."""
        with torch.inference_mode():
            if given:
                out = self.model(decoder_input_ids=ids, past_key_values=cache, use_cache=True, **given)
                return out.logits[:, -1], out.past_key_values
            if self._body is None or self._head is None:
                out = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
                return out.logits[:, -1], out.past_key_values
            out = self._body(input_ids=ids, past_key_values=cache, use_cache=True)
            return self._head(out.last_hidden_state[:, -1]), out.past_key_values

    def _chosen(self, logits: Tensor, temperature: float, top_p: float, samplers: Sequence[torch.Generator]) -> Tensor:
        """The next token of each row, drawn where there are samplers. Raises NotFiniteError."""
        if not torch.isfinite(logits).all():
            raise NotFiniteError(
                "{folder}: the model gives logits that are not finite while generating. Its weights are broken, or its "
                "type overflows: try float32, or make it again.",
                folder=self.folder,
            )
        return sample(logits, temperature, top_p, samplers) if samplers else logits.argmax(-1)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    said = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = {said} if isinstance(said, int) else set(said or ())
    return ends | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set())
