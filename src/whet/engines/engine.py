"""What every runtime can be asked. A runtime is added as one file with a class that has these methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Timing:
    """Seconds for one prompt to be read (up to its first new token), and for the tokens after that one."""

    prefill_seconds: float
    decode_seconds: float
    prompt_tokens: int
    decoded_tokens: int


class Engine(Protocol):
    """A model opened in a runtime. Token ids are Python ints; text is str."""

    @property
    def name(self) -> str:
        """The runtime, as a report names it: `torch`."""

    @property
    def dtype(self) -> str:
        """The type it computes in, or that it has its own."""

    @property
    def folder(self) -> str:
        """Where the model was read from."""

    @property
    def vocabulary(self) -> int:
        """How many logits a position has; a padded model has more than its tokenizer has tokens."""

    @property
    def context(self) -> int | None:
        """The most tokens a sequence may have, if the model says."""

    @property
    def ends(self) -> set[int]:
        """Tokens at which a text ends."""

    @property
    def tokenizer(self) -> Any:
        """A transformers tokenizer, or what answers as one as far as text is read with it."""

    def encode(self, text: str, *, chat: bool = False) -> list[int]:
        """Token ids of a prompt; with `chat`, of a user's turn with the place for the reply."""

    def encode_chat(self, turns: list[dict[str, Any]]) -> list[int]:
        """Token ids of a conversation (`role` and `content` of each turn) with the place for the reply. Raises
        UsageError where the model has no chat template, or it refuses the conversation."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens."""

    def logit_chunks(self, batch: Tensor, tokens_at_once: int) -> Iterator[Tensor]:
        """Logits for `batch` int64 [b, L] (no padding), as [b, n, vocabulary] for n consecutive positions at a time.

        b * n is at most `tokens_at_once` where the runtime can do so; together the chunks cover the L positions. Two
        engines of one runtime cut alike.
        """

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
        """New token ids after each prompt, up to an end-of-text token (left out), greedy at temperature 0.

        With `stop_at_newline` also up to the first token that holds a line end (kept: it may hold more).
        """

    def time(self, prompt: Sequence[int], new_tokens: int) -> Timing:
        """Read `prompt` and decode `new_tokens` greedily, whatever they are, one sequence alone."""
