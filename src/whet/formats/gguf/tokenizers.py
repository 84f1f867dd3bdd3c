"""A model's tokenizer as llama.cpp reads it: byte-level BPE, SentencePiece's BPE, or SentencePiece's unigrams.

llama.cpp has the splitting of text before BPE in its own code and knows it by a name. A name that does not fit is not
noticed there, and the model then reads other tokens than it was trained on; so the name is found by comparing what
tokenizer.json says with a table, step by step, and what is not in the table is refused.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from whet.errors import UsageError
from whet.messages import Message

# Types of tokens, as llama.cpp numbers them.
NORMAL, UNKNOWN, CONTROL, ADDED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_SPACE = "▁"
_UNREACHED = -1e6  # the score of a piece that no merge makes: whatever else can be merged is merged before

# How byte-level tokenizers of well-known families split text. The expressions are what their tokenizer.json holds.
_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_ENGLISH}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_TAIL}"
_QWEN2 = rf"{_ENGLISH}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_TAIL}"
_QWEN35 = (
    rf"{_ENGLISH}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT4O = rf"{_CASED[0]}{_ENGLISH}?|{_CASED[1]}{_ENGLISH}?|\p{{N}}{{1,3}}|{_SLASHED}"
_TEKKEN = rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}|{_SLASHED}"

_PHI3 = ("</s>", "<unk>", "<s>", "<|endoftext|>")

Step = tuple[Any, ...]
_BYTES: Step = ("ByteLevel", False)  # to bytes, without splitting
_WORDS: Step = ("ByteLevel", True)  # to bytes, split as GPT-2 does


def _split(expression: str) -> Step:
    return ("Split", expression, "isolated", False)


@dataclass(frozen=True)
class PreTokenizer:
    """How text is split before BPE: llama.cpp's `name`, the `steps`, and whether a word that is a token stays whole."""

    name: str
    steps: tuple[Step, ...]
    whole_words: bool = False


PRE_TOKENIZERS = (
    PreTokenizer("gpt-2", (_WORDS,)),
    PreTokenizer("smollm", (("Digits", True), _WORDS)),
    PreTokenizer("llama-bpe", (_split(_LLAMA3), _BYTES), whole_words=True),
    PreTokenizer("smaug-bpe", (_split(_LLAMA3), _BYTES)),
    PreTokenizer("qwen2", (_split(_QWEN2), _BYTES)),
    PreTokenizer("qwen35", (_split(_QWEN35), _BYTES)),
    PreTokenizer("gpt-4o", (_split(_GPT4O), _BYTES)),
    PreTokenizer("tekken", (_split(_TEKKEN), _BYTES), whole_words=True),
)


@dataclass
class Vocabulary:
    """What goes into the file: entries by key, and remarks a person should read.

    strips: spaces after special tokens belong to them.
    """

    entries: dict[str, Any]
    notes: list[Message] = field(default_factory=list)
    strips: bool = False


def vocabulary(tokenizer: Any, rows: int, source: str, ends: Sequence[int] = ()) -> Vocabulary:
    """The entries `tokenizer.*` for a transformers tokenizer of a model whose embedding has `rows` rows.

    ends: further token ids that end a text, as generation_config.json names them. Raises UsageError that names
    `source` and what llama.cpp cannot do as this tokenizer does.
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        raise UsageError(
            "{source}: its tokenizer has no fast form (tokenizer.json), and the .gguf is made from that.", source=source
        )
    said = json.loads(core.to_str())
    kind = said["model"].get("type")
    makers = {"BPE": _byte_level if "ByteLevel" in json.dumps(said["pre_tokenizer"]) else _pieces, "Unigram": _unigram}
    if kind not in makers:
        raise _cannot(source, "is a {kind}, and llama.cpp has none such", kind=kind)
    made = makers[kind](said, rows, source)
    _special(made, tokenizer, rows, source, ends)
    _stripped(made, said, rows)
    beyond = sum(number >= rows for number in tokenizer.get_vocab().values())
    if beyond:
        made.notes.append(
            Message("{count} tokens of the tokenizer have no row in the embedding and are left out", count=beyond)
        )
    _templates(made, tokenizer)
    return made


def _templates(made: Vocabulary, tokenizer: Any) -> None:
    """Chat templates: the one by default, and others by name."""
    found = tokenizer.chat_template or {}
    if isinstance(found, str):
        found = {"default": found}
    others = [name for name in found if name != "default"]
    if "default" in found:
        made.entries["tokenizer.chat_template"] = found["default"]
    elif others:
        made.notes.append(
            Message(
                "the tokenizer has several chat templates and none by default: llama.cpp finds them by name ({names})",
                names=", ".join(others),
            )
        )
    if others:
        made.entries["tokenizer.chat_templates"] = others
        made.entries |= {f"tokenizer.chat_template.{name}": found[name] for name in others}


def fitting_name(name: str, made: Vocabulary) -> str:
    """`name` as llama.cpp may be told it: it knows a tokenizer that takes spaces after special tokens by the name
    phi-3 alone, and does not load a file of that name without that tokenizer's tokens."""
    known = made.strips and set(_PHI3) <= set(made.entries["tokenizer.ggml.tokens"])
    named = re.search("phi-?3", name, re.IGNORECASE) is not None
    if known and not named:
        return f"{name} (phi-3)"
    if made.strips and not known:
        made.notes.append(
            Message("the tokenizer takes spaces after special tokens to them, llama.cpp does not for this model")
        )
    return re.sub("(phi)-?3", r"\1 3", name, flags=re.IGNORECASE) if named and not known else name


def pre_tokenizer(said: Mapping[str, Any], source: str) -> PreTokenizer:
    """The row of PRE_TOKENIZERS that splits as the tokenizer.json `said` does. Raises UsageError where none does."""
    steps = tuple(_step(step) for step in _flat(said["pre_tokenizer"], "pretokenizers"))
    whole = bool(said["model"].get("ignore_merges"))
    for row in PRE_TOKENIZERS:
        if row.steps == steps and row.whole_words == whole:
            return row
    shown = "; ".join(" ".join(map(str, step)) for step in steps)
    raise _cannot(
        source, "splits text in a way that is not in whet's table of those llama.cpp knows ({steps})", steps=shown[:200]
    )


def _byte_level(said: Mapping[str, Any], rows: int, source: str) -> Vocabulary:
    normal = [step["type"] for step in _flat(said["normalizer"], "normalizers")]
    if [name for name in normal if name != "NFC"]:
        raise _cannot(
            source,
            "normalizes text ({steps}), which llama.cpp does not do before byte-level BPE",
            steps=", ".join(normal),
        )
    row = pre_tokenizer(said, source)
    entries, _ = _listed(said, said["model"]["vocab"], rows, source)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in said["model"]["merges"]]
    entries |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": row.name}
    # llama.cpp refuses a file without merges; this one is of two tokens that are none, so it never applies
    entries["tokenizer.ggml.merges"] = merges or ["<unmerged> <unmerged>"]
    made = Vocabulary(entries)
    if "NFC" in normal:
        made.notes.append(Message("the tokenizer composes characters (NFC), llama.cpp does not: give it composed text"))
    return made


def _pieces(said: Mapping[str, Any], rows: int, source: str) -> Vocabulary:
    """BPE over characters with spaces as ▁: a piece's score is minus the rank of the merge that makes it."""
    model = said["model"]
    if not model.get("byte_fallback"):
        raise _cannot(source, "is a BPE over characters without bytes for those it does not know")
    prefix = _spaces(said, source)
    entries, types = _listed(said, model["vocab"], rows, source)
    scores = np.full(len(types), _UNREACHED, dtype=np.float32)
    merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"]]
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    for piece, number in model["vocab"].items():
        if number < len(scores) and piece in ranks:
            scores[number] = -ranks[piece]
    scores[np.array(types) != NORMAL] = 0.0
    made = Vocabulary(entries | _scored("llama", scores, prefix))
    # SentencePiece's own vocabularies list every pair that makes a piece; llama.cpp counts on it
    pieces = {piece for piece, number in model["vocab"].items() if number < len(types) and types[number] == NORMAL}
    pairs = ((piece[:i], piece[i:]) for piece in pieces for i in range(1, len(piece)))
    missing = {pair for pair in pairs if pair[0] in pieces and pair[1] in pieces} - set(merges)
    if missing:
        left, right = min(missing)
        made.notes.append(
            Message(
                "llama.cpp joins {count} pairs of pieces that the tokenizer does not ({left!r} and {right!r}): text "
                "with them is read as other tokens",
                count=len(missing),
                left=left,
                right=right,
            )
        )
    return made


def _unigram(said: Mapping[str, Any], rows: int, source: str) -> Vocabulary:
    model = said["model"]
    prefix = _spaces(said, source)
    vocab = {piece: number for number, (piece, _) in enumerate(model["vocab"])}
    entries, types = _listed(said, vocab, rows, source)
    scores = np.zeros(len(types), dtype=np.float32)
    given = [score for _, score in model["vocab"]][: len(scores)]
    scores[: len(given)] = given
    entries |= _scored("t5", scores, prefix)
    steps = _flat(said["normalizer"], "normalizers")
    entries["tokenizer.ggml.remove_extra_whitespaces"] = any(
        step["type"] in ("Strip", "WhitespaceSplit") or "{2,}" in json.dumps(step.get("pattern", ""))
        for step in (*steps, *_flat(said["pre_tokenizer"], "pretokenizers"))
    )
    charsmap = next((step["precompiled_charsmap"] for step in steps if step["type"] == "Precompiled"), None)
    if charsmap:
        entries["tokenizer.ggml.precompiled_charsmap"] = np.frombuffer(base64.b64decode(charsmap), dtype=np.uint8)
    return Vocabulary(entries)


def _scored(name: str, scores: Any, prefix: bool) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": name,
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.add_space_prefix": prefix,
    }


def _spaces(said: Mapping[str, Any], source: str) -> bool:
    """Whether a space is put before a text; refuses a tokenizer that does more to it than turn spaces into ▁."""
    prefix = marked = False
    for step in _flat(said["normalizer"], "normalizers"):
        kind, pattern = step["type"], (step.get("pattern") or {})
        if kind == "Prepend" and step["prepend"] == _SPACE:
            prefix = True
        elif kind == "Replace" and pattern == {"String": " "} and step["content"] == _SPACE:
            marked = True
        elif kind not in ("Precompiled", "Strip") and not (kind == "Replace" and "{2,}" in json.dumps(pattern)):
            raise _cannot(source, "normalizes text by {step}, which llama.cpp does not", step=kind)
    for step in _flat(said["pre_tokenizer"], "pretokenizers"):
        kind = step["type"]
        if kind == "Metaspace":
            marked, prefix = True, prefix or step.get("prepend_scheme", "always") != "never"
        elif kind == "Split" and step["pattern"] == {"String": " "} and marked:
            continue  # there are no spaces left to split at
        elif kind != "WhitespaceSplit":
            raise _cannot(source, "splits text by {step}, which llama.cpp does not for such a vocabulary", step=kind)
    if not marked:
        raise _cannot(source, "does not write spaces as ▁")
    return prefix


def _listed(
    said: Mapping[str, Any], vocab: Mapping[str, int], rows: int, source: str
) -> tuple[dict[str, Any], list[int]]:
    """Tokens and their types by id; ids that no token has are named and marked as unused."""
    model = said["model"]
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise _cannot(source, "has a {key}, which llama.cpp does not know", key=key)
    tokens = [f"[PAD{i}]" for i in range(rows)]
    types = [UNUSED] * rows
    unknown = model.get("unk_token")
    if unknown is None and isinstance(model.get("unk_id"), int):
        unknown = model["vocab"][model["unk_id"]][0]
    for piece, number in vocab.items():
        if number < rows:
            byte = bool(model.get("byte_fallback")) and _is_byte(piece)
            tokens[number], types[number] = piece, UNKNOWN if piece == unknown else BYTE if byte else NORMAL
    for entry in said["added_tokens"]:
        number = entry["id"]
        if number < rows:
            tokens[number] = entry["content"]
            if types[number] != UNKNOWN:
                types[number] = CONTROL if entry["special"] else ADDED
    return {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": np.array(types, dtype=np.int32)}, types


def _special(made: Vocabulary, tokenizer: Any, rows: int, source: str, ends: Sequence[int]) -> None:
    """What is put before and after a text, and the numbers of the special tokens."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    at = next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), 0)
    before, after = full[:at], full[at + len(plain) :]
    first = before[0] if before else tokenizer.bos_token_id
    if len(before) > 1 or len(after) > 1:
        raise _cannot(source, "puts several tokens before or after a text")
    # llama.cpp has three places for tokens that end a text, and puts the first of them after one
    stops = [end for end in dict.fromkeys([*after, tokenizer.eos_token_id, *ends]) if end is not None]
    if not stops:
        raise _cannot(source, "names no token that ends a text, and llama.cpp would take another one for it")
    numbers = {"bos": first, "unknown": tokenizer.unk_token_id, "padding": tokenizer.pad_token_id}
    numbers |= dict(zip(("eos", "eot", "eom"), stops, strict=False))
    for name, number in numbers.items():
        if number is not None and 0 <= number < rows:
            made.entries[f"tokenizer.ggml.{name}_token_id"] = int(number)
    made.entries["tokenizer.ggml.add_bos_token"] = bool(before)
    made.entries["tokenizer.ggml.add_eos_token"] = bool(after)
    if stops[3:]:
        named = _named(tokenizer.convert_ids_to_tokens(stops[3:]))
        made.notes.append(
            Message("llama.cpp has three tokens that end a text: it does not stop at {tokens}", tokens=named)
        )


def _stripped(made: Vocabulary, said: Mapping[str, Any], rows: int) -> None:
    """Notes on added tokens that llama.cpp finds in another way than the tokenizer does."""
    added = [entry for entry in said["added_tokens"] if entry["id"] < rows]
    made.strips = any(entry.get("rstrip") for entry in added)
    left, words = ([e["content"] for e in added if e.get(flag)] for flag in ("lstrip", "single_word"))
    if left:
        made.notes.append(
            Message("the tokenizer takes spaces before {tokens} to them, llama.cpp does not", tokens=_named(left))
        )
    if words:
        made.notes.append(
            Message(
                "the tokenizer looks for {tokens} as whole words alone, llama.cpp finds them inside words too",
                tokens=_named(words),
            )
        )


def _named(tokens: Sequence[str]) -> str:
    """The first few of `tokens` as a person reads them."""
    return ", ".join(map(repr, tokens[:3])) + (", …" if tokens[3:] else "")


def composes(tokenizer: Any) -> bool:
    """Whether a transformers tokenizer turns decomposed characters into composed ones (NFC) before it reads them."""
    said = json.loads(tokenizer.backend_tokenizer.to_str())
    return any(step["type"] == "NFC" for step in _flat(said["normalizer"], "normalizers"))


def _flat(step: Mapping[str, Any] | None, inner: str) -> list[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, sequences taken apart."""
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [one for part in step[inner] for one in _flat(part, inner)]
    return [step]


def _step(step: Mapping[str, Any]) -> Step:
    kind = step["type"]
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return ("ByteLevel", bool(step.get("use_regex", True)))
    if kind == "Split":
        return ("Split", step["pattern"].get("Regex"), str(step["behavior"]).lower(), bool(step.get("invert")))
    if kind == "Digits":
        return ("Digits", bool(step.get("individual_digits")))
    return (kind, json.dumps({k: v for k, v in step.items() if k != "type"}, sort_keys=True))


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _cannot(source: str, template: str, /, **values: Any) -> UsageError:
    return UsageError(
        "{source}: its tokenizer {why}, so llama.cpp would read other tokens than the model knows. It cannot be "
        "written as a .gguf.",
        source=source,
        why=Message(template, **values),
    )
