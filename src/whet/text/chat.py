"""Conversations to text, with the chat template the tokenizer carries.

The template is code from the model's folder. transformers renders it in jinja2's `ImmutableSandboxedEnvironment`, which
is the only way whet ever runs one.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from whet.errors import UsageError


def render_chat(
    messages: Any, tokenizer: PreTrainedTokenizerBase | None, where: str, *, reply_next: bool = False
) -> str:
    """One conversation, a list of `{"role": ..., "content": ...}`, as the text the model was taught to see.

    `where` names the record for errors; `reply_next` ends the text where the assistant's next turn begins.
    Raises UsageError when there is no tokenizer, when it has no template, when `messages` has another form, or when
    the template refuses the conversation (many do so for a system turn, or for two user turns in a row).
    """
    if tokenizer is None:
        raise UsageError(
            "{where}: a chat template was asked for, but no tokenizer was given. Give the tokenizer of the model, or "
            "read a plain text field without chat.",
            where=where,
        )
    if not tokenizer.chat_template:
        raise UsageError(
            "{where}: a chat template was asked for, but the tokenizer {tokenizer} has none. It is probably a base "
            "model: use plain text without chat, or a folder whose tokenizer_config.json or chat_template.jinja holds "
            "a template.",
            where=where,
            tokenizer=tokenizer.name_or_path,
        )
    turns_are_right = (
        isinstance(messages, list)
        and len(messages) > 0
        and all(isinstance(turn, dict) and isinstance(turn.get("role"), str) and "content" in turn for turn in messages)
    )
    if not turns_are_right:
        raise UsageError(
            '{where}: expected a non-empty list of {{"role": ..., "content": ...}}, found {messages!r}. Name the '
            "field that holds the conversation, or read plain text without chat.",
            where=where,
            messages=str(messages)[:80],
        )
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply_next)
    except Exception as error:  # jinja raises what the template's author chose to raise
        raise UsageError(
            "{where}: the chat template refused the conversation ({error}). Check the order of roles, or leave the "
            "record out.",
            where=where,
            error=f"{type(error).__name__}: {error}",
        ) from error
    return str(text)
