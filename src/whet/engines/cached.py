"""What engines of graphs with a cache share: onnxruntime and OpenVINO. Each says how tokens go through it
(`advance_all`); tokens, text, batches and times are the same.

Notable: prompts are batched by equal length, so that there is no padding; logits are computed a few positions at a
time, those before them in the cache.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import stock_config, task_in
from whet.checkpoint import load_tokenizer
from whet.checkpoint.model_files import graph_config, read_object
from whet.engines.engine import Timing
from whet.engines.sampling import check_request, sample
from whet.engines.texts import Texts
from whet.errors import NotFiniteError, UsageError
from whet.text import batch_indices

_AT_ONCE = 8192  # tokens in a batch of prompts with their answers: bounds the cache


class CachedEngine(Texts):
    """A model in a runtime's own file, with the tokenizer beside it. What each method promises is said in `Engine`."""

    name = ""
    dtype = "its own"

    def __init__(self, file: Path) -> None:
        super().__init__(load_tokenizer(file.parent), str(file))
        self.file = file
        self.device = torch.device("cpu")
        said = graph_config(file)
        self.config: Any = stock_config(said)
        self.task = task_in(said)
        text = self.config.get_text_config()
        self.vocabulary = int(text.vocab_size)
        self.context: int | None = getattr(text, "max_position_embeddings", None)
        self.ends = _ends(said, file.parent, self.tokenizer)

    def advance_all(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """What the graph answers of `ids` int64 [b, n], which follow what is in `cache` (None: nothing), and the cache
        with them: logits [b, n, vocabulary], or hidden states of an encoder."""
        raise NotImplementedError

    @property
    def model(self) -> Any:
        """What `engines.torch.outputs` asks of a model that does not write: a function of a batch."""
        return self

    def __call__(self, batch: Tensor) -> Tensor:
        return self.advance_all(self._known(batch), None)[0]

    def logits(self, batch: Tensor) -> Tensor:
        """Logits [b, L, vocabulary] of `batch` int64 [b, L], all at once."""
        return torch.cat(list(self.logit_chunks(batch, batch.numel())), dim=1)

    def logit_chunks(self, batch: Tensor, tokens_at_once: int) -> Iterator[Tensor]:
        self._known(batch)
        cache = None
        for part in batch.split(max(1, tokens_at_once // batch.shape[0]), dim=1):
            logits, cache = self.advance_all(part, cache)
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
    ) -> list[list[int]]:
        """As in `Engine`. Sampling draws prompt number i from seed + i, whatever it is batched with."""
        self._must_write()
        check_request(prompts, max_new_tokens, temperature, top_p, self.context, self.folder)
        answers: list[list[int]] = [[] for _ in prompts]
        for group in batch_indices([len(prompt) + max_new_tokens for prompt in prompts], _AT_ONCE):
            ids = self._known(torch.tensor([prompts[i] for i in group]))
            samplers = [torch.Generator().manual_seed(seed + i) for i in group] if temperature > 0 else []
            rows, cache = set(range(len(group))), None
            for _ in range(max_new_tokens):
                logits, cache = self.advance(ids, cache)
                if not torch.isfinite(logits).all():
                    raise NotFiniteError(
                        "{path}: the model gives logits that are not finite while generating. Its weights are broken: "
                        "export it again from its folder.",
                        path=self.folder,
                    )
                chosen = sample(logits, temperature, top_p, samplers) if samplers else logits.argmax(-1)
                for row in list(rows):
                    token = int(chosen[row])
                    if token in self.ends:
                        rows.discard(row)
                        continue
                    answers[group[row]].append(token)
                    if stop_at_newline and self._ends_a_line(token):
                        rows.discard(row)
                if not rows:
                    break
                ids = chosen[:, None]
        return answers

    def time(self, prompt: Sequence[int], new_tokens: int) -> Timing:
        self._must_write()
        started = time.perf_counter()
        logits, cache = self.advance(torch.tensor([list(prompt)]), None)
        token = logits.argmax(-1)[:, None]
        first = time.perf_counter()
        for _ in range(new_tokens):
            logits, cache = self.advance(token, cache)
            token = logits.argmax(-1)[:, None]
        return Timing(first - started, time.perf_counter() - first, len(prompt), new_tokens)

    def advance(self, ids: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Logits [b, vocabulary] after the last of `ids` [b, n], which follow what is in `cache`, and the cache with
        them."""
        logits, cache = self.advance_all(ids, cache)
        return logits[:, -1], cache

    def _must_write(self) -> None:
        if self.task != "causal":
            raise UsageError(
                "{folder} is an encoder, which does not continue text. Use whet compare to see what it kept.",
                folder=self.folder,
            )

    def _known(self, ids: Tensor) -> Tensor:
        """`ids`. Raises UsageError for tokens that the model has no embedding of, which runtimes read past the end."""
        if int(ids.max()) >= self.vocabulary or int(ids.min()) < 0:
            raise UsageError(
                "{folder}: the tokenizer makes token {token}, the embedding has {rows} rows. The tokenizer belongs to "
                "another model.",
                folder=self.folder,
                token=int(ids.max()),
                rows=self.vocabulary,
            )
        return ids


def _ends(config: dict[str, Any], folder: Path, tokenizer: Any) -> set[int]:
    """Tokens at which a text ends, as transformers finds them."""
    said = read_object(folder / "generation_config.json").get("eos_token_id", config.get("eos_token_id"))
    ends = {said} if isinstance(said, int) else set(said or ())
    return ends | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set())
