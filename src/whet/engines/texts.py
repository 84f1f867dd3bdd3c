"""Text to token ids and back, as engines have it whose tokenizer is one of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from whet.text import ChatTemplate, encode


class Texts:
    """What each method promises is said in `Engine`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, folder: str) -> None:
        self.tokenizer, self.folder = tokenizer, folder
        self._template = ChatTemplate(tokenizer)
        self._newline: dict[int, bool] = {}

    def encode(self, text: str, *, chat: bool = False) -> list[int]:
        if chat:
            return self.encode_chat([{"role": "user", "content": text}])
        return encode([text], self.tokenizer)[0]

    def encode_chat(self, turns: list[dict[str, Any]]) -> list[int]:
        return encode([self._template.render(turns, self.folder, reply_next=True)], self.tokenizer)[0]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _ends_a_line(self, token: int) -> bool:
        if token not in self._newline:
            self._newline[token] = "\n" in self.decode([token])
        return self._newline[token]
