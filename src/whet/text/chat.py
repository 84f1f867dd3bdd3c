"""Conversations to text, with the chat template the tokenizer carries.

The template is code from the model's folder. It runs in a process of its own (`whet.text.template`), which is stopped
where it does not end. Starting that takes about a second, once for each reader; a conversation then takes a tenth of a
millisecond.
"""

from __future__ import annotations

import json
import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from whet.child import start_script
from whet.errors import MachineError, UsageError
from whet.text.places import Where, in_words

_START = 120.0  # seconds that a process may take to start, on a machine that is busy
_MEMORY = 512 << 20


class ChatTemplate:
    """The chat template of a tokenizer, ready to write conversations.

    seconds: that one conversation may take. most: letters that one may become. Usable as a context; closing it, or
    dropping it, ends its process.
    """

    def __init__(self, tokenizer: Any, *, seconds: float = 20.0, most: int = 32 << 20) -> None:
        self.tokenizer, self.seconds, self.most = tokenizer, seconds, most
        self._process: Any = None
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __enter__(self) -> ChatTemplate:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """End the process; the next conversation would start another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            process.stdin.close()

    def render(self, messages: Any, where: Where, *, reply_next: bool = False) -> str:
        """One conversation, a list of `{"role": ..., "content": ...}`, as the text the model was taught to see.

        `where` names the record for errors; `reply_next` ends the text where the assistant's next turn begins.
        Raises UsageError when there is no tokenizer, when it has no template, when `messages` has another form, when
        the template refuses the conversation (many do so for a system turn, or for two user turns in a row), or when
        it does not end.
        """
        template = self._template(where)
        _check_turns(messages, where)
        try:
            asked = json.dumps({"turns": messages, "reply": reply_next})
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(
                "{where}: the conversation holds what is no JSON ({error}).", where=in_words(where), error=error
            ) from error
        if self._process is None:
            self._start(template)
        found = self._answer(asked)
        if found is None:
            self.close()
            raise UsageError(
                "{where}: the chat template of {tokenizer} has not written the conversation in {seconds:g} s. It does "
                "not end; use another copy of the model, or plain text without chat.",
                where=in_words(where),
                tokenizer=self.tokenizer.name_or_path,
                seconds=self.seconds,
            )
        if "error" in found:
            raise UsageError(
                "{where}: the chat template refused the conversation ({error}). Check the order of roles, or leave the "
                "record out.",
                where=in_words(where),
                error=found["error"],
            )
        return str(found["text"])

    def _template(self, where: Where) -> str:
        if self.tokenizer is None:
            raise UsageError(
                "{where}: a chat template was asked for, but no tokenizer was given. Give the tokenizer of the model, "
                "or read a plain text field without chat.",
                where=in_words(where),
            )
        template = template_of(self.tokenizer)
        if template is None:
            raise UsageError(
                "{where}: a chat template was asked for, but the tokenizer {tokenizer} has none. It is probably a base "
                "model: use plain text without chat, or a folder whose tokenizer_config.json or chat_template.jinja "
                "holds a template.",
                where=in_words(where),
                tokenizer=self.tokenizer.name_or_path,
            )
        return template

    def _start(self, template: str) -> None:
        names = {
            name: [str(one) for one in token] if isinstance(token, list | tuple) else str(token)
            for name, token in self.tokenizer.special_tokens_map.items()
        }
        self._process = start_script(Path(__file__).with_name("template.py"))
        self._said = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(self._process.stdout, self._said), daemon=True).start()
        about = {"template": template, "names": names, "memory": _MEMORY, "most": self.most}
        if self._answer(json.dumps(about), _START) is None:
            self.close()
            raise MachineError(
                "A process for the chat template did not start. Try again when the machine is less busy."
            )

    def _answer(self, asked: str, seconds: float | None = None) -> dict[str, Any] | None:
        """What comes back; None where nothing does in time, or the process has died of it."""
        try:
            self._process.stdin.write(asked + "\n")
            self._process.stdin.flush()
            line = self._said.get(timeout=self.seconds if seconds is None else seconds)
        except (queue.Empty, BrokenPipeError):
            return None
        return json.loads(line) if line else None


def template_of(tokenizer: Any) -> str | None:
    """The chat template of a tokenizer, of several the one by default; None without any."""
    found = getattr(tokenizer, "chat_template", None)
    if isinstance(found, dict):
        found = found.get("default")
    return found if isinstance(found, str) and found else None


def _listen(pipe: Any, said: queue.SimpleQueue[str]) -> None:
    """Pass on lines; at the end, when the process is gone, an empty one."""
    with pipe:
        for line in pipe:
            said.put(line)
    said.put("")


def _check_turns(messages: Any, where: Where) -> None:
    turns_are_right = (
        isinstance(messages, list)
        and len(messages) > 0
        and all(isinstance(turn, dict) and isinstance(turn.get("role"), str) and "content" in turn for turn in messages)
    )
    if not turns_are_right:
        raise UsageError(
            '{where}: expected a non-empty list of {{"role": ..., "content": ...}}, found {messages!r}. Name the '
            "field that holds the conversation, or read plain text without chat.",
            where=in_words(where),
            messages=str(messages)[:80],
        )
