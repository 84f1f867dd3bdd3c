"""What a model is served with beside its weights: tokenizer, special tokens, end tokens, chat template, generation
settings, context length, attention window. And matrices of nothing but zeros, which text may hardly show.

Figures on text cannot see these: both models are given the same token ids. Each side is asked by itself here, and what
differs is listed. A cut of the vocabulary renumbers tokens; ids are compared as the original numbers them, and only
where the lighter model still has them. Of a .gguf, what the file holds is compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from whet.anatomy import stock_config
from whet.checkpoint import Checkpoint, load_tokenizer, rows_between
from whet.checkpoint.gguf import is_gguf, read_gguf
from whet.checkpoint.loading import model_config
from whet.checkpoint.model_files import is_finished, is_graph
from whet.engines.torch import TorchEngine
from whet.errors import WhetError
from whet.events import OnEvent
from whet.measure.aspects.aspect import Aspect, Case, Reading, Sides, found
from whet.measure.sides import config_of, context_of, folder_of
from whet.messages import Message
from whet.strict import parse_json
from whet.text.chat import ChatTemplate, template_of

TEXTS, LETTERS = 64, 2000  # documents that both tokenizers read, and how much of each
# What a tokenizer may change without the text showing it: capitals, digits, signs, scripts, syllables by letter.
PROBES = (
    "The Quick Brown Fox, 1,234.56 and 7890: e.g. a_b-C!",
    "McDONALD'S iPhone\n\nAÉÑ ü ß",
    "대한민국 헌법 제1조 ①항, 2026년 11월 30일 오후 3시.",
    "def f(x):\n    return x**2  # naïve",
)
TURNS: tuple[list[dict[str, Any]], ...] = (
    [{"role": "user", "content": "Hello 안녕"}],
    [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "그럼 2 + 2?"},
    ],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
)
_GENERATION = "generation_config.json"
_ABOUT_FILES = ("transformers_version", "_from_model_config", "_commit_hash", "cache_implementation")
_CALLED = {
    "context": Message("context length"),
    "window": Message("sliding window"),
    "rope": Message("rotary positions"),
}
_SHOWN = 120  # letters of a value


class Difference(NamedTuple):
    """What differs, and what either side has, in words."""

    what: Message
    original: str
    lighter: str


def differences(original: str | Path, lighter: str | Path, sides: Sides, texts: Sequence[str]) -> list[Difference]:
    """What the folders differ in, beside their weights: by settings, by end tokens, by what their tokenizers make of
    `texts`, by what their chat templates make of a conversation."""
    rows = rows_between(original, lighter)
    settings = settings_of(original, None, rows), settings_of(lighter, rows, rows)
    made = _of_settings(*settings, whole=not is_finished(original) and not is_finished(lighter))
    made += _of_ends(sides, rows, is_gguf(lighter))
    made += _of_reading(sides, rows, [*texts, *PROBES])
    return [*made, *_of_templates(original, lighter, sides), *_of_zeros(sides)]


def settings_of(model: str | Path, numbers: Sequence[int] | None, kept: Sequence[int] | None) -> dict[str, Any]:
    """By name what a side says of itself. numbers: by id its id in the original, where it has numbers of its own.
    kept: ids of the original that both have, None for all."""
    told: dict[str, Any] = {"context": context_of(model)}
    if is_gguf(model):
        return {**told, **_of_gguf(model)}
    said, folder = config_of(model), folder_of(model)
    whole = stock_config(said) if is_graph(model) else model_config(Checkpoint(model))
    config = whole.get_text_config()
    told |= {"window": _window(config), "rope": _rope(config)}
    file = folder / _GENERATION
    written = parse_json(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for where, entries in (("config.json", said), (_GENERATION, written)):
        for key, value in entries.items() if isinstance(entries, Mapping) else ():
            if key.endswith("_token_id"):
                told[f"{where}: {key}"] = _as_original(value, numbers, kept)
            elif where == _GENERATION and key not in _ABOUT_FILES:
                told[f"{where}: {key}"] = value
    tokenizer = load_tokenizer(folder)
    told |= {f"tokenizer: {name}": str(token) for name, token in tokenizer.special_tokens_map.items()}
    return told


def _of_gguf(model: str | Path) -> dict[str, Any]:
    """What a .gguf holds of the same."""
    file = read_gguf(model)
    told: dict[str, Any] = {}
    if (window := file.setting("attention.sliding_window")) is not None:
        told["window"] = window
    for name in ("bos", "eos"):
        number = file.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(number, int) and 0 <= number < len(file.tokens):
            told[f"tokenizer: {name}_token"] = file.tokens[number]
    return told


def _window(config: Any) -> Any:
    used = getattr(config, "use_sliding_window", True)
    return getattr(config, "sliding_window", None) if used else None


def _rope(config: Any) -> Any:
    """How positions are told, as far as the config says."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    return json.dumps(found, sort_keys=True, default=str) if found else getattr(config, "rope_theta", None)


def _as_original(value: Any, numbers: Sequence[int] | None, kept: Sequence[int] | None) -> Any:
    """Ids as the original numbers them, sorted, without those that were cut; None where none is left."""
    ids = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int)]
    if numbers is not None:
        ids = [numbers[one] if one < len(numbers) else one for one in ids]
    if kept is not None:
        ids = [one for one in ids if one in set(kept)]
    return sorted(set(ids)) or None


def _of_settings(original: Mapping[str, Any], lighter: Mapping[str, Any], *, whole: bool) -> list[Difference]:
    """Settings that differ; those that only one side tells only where both are folders (`whole`)."""
    names = dict.fromkeys([*original, *lighter])
    if not whole:
        names = {name: None for name in names if name in original and name in lighter}
    return [
        Difference(
            _CALLED.get(name, Message("{name}", name=name)), _shown(original.get(name)), _shown(lighter.get(name))
        )
        for name in names
        if original.get(name) != lighter.get(name)
    ]


def _of_ends(sides: Sides, rows: Sequence[int] | None, by_name: bool) -> list[Difference]:
    """Tokens at which text ends. by_name: llama.cpp, which takes more of them by what they are called."""
    theirs = {rows[one] if rows is not None and one < len(rows) else one for one in sides.lighter.ends}
    ours = {one for one in sides.original.ends if rows is None or one in set(rows)}
    if ours == theirs or (by_name and ours <= theirs):
        return []
    return [Difference(Message("tokens that end a text"), _shown(sorted(ours)), _shown(sorted(theirs)))]


def _of_reading(sides: Sides, rows: Sequence[int] | None, texts: Sequence[str]) -> list[Difference]:
    """What the tokenizers make of the same texts, and of the same tokens."""
    kept = None if rows is None else set(rows)
    read = otherwise = written = 0
    shown = ("", "")
    for text in texts:
        ours, theirs = (list(side.tokenizer(text, verbose=False)["input_ids"]) for side in sides[:2])
        if kept is not None and not kept.issuperset(ours):
            continue  # it needs tokens that were cut
        read += 1
        as_ours = [rows[one] if rows is not None and one < len(rows) else one for one in theirs]
        if as_ours != ours:
            otherwise += 1
            shown = shown if otherwise > 1 else _first_apart(sides, ours, theirs, as_ours)
        elif sides.original.name == sides.lighter.name and sides.original.decode(ours) != sides.lighter.decode(theirs):
            written += 1
    made = []
    if otherwise:
        what = Message("tokens of the same text ({count} of {read} texts)", count=otherwise, read=read)
        made.append(Difference(what, *shown))
    if written:
        what = Message("text of the same tokens ({count} of {read} texts)", count=written, read=read)
        made.append(Difference(what, "", ""))
    return made


def _first_apart(sides: Sides, ours: list[int], theirs: list[int], as_ours: list[int]) -> tuple[str, str]:
    """The first tokens that differ, as text, a stroke between."""
    place = next((i for i, pair in enumerate(zip(ours, as_ours, strict=False)) if pair[0] != pair[1]), len(as_ours))
    pairs = ((sides.original, ours), (sides.lighter, theirs))
    first, second = ("|".join(side.decode([one]) for one in ids[place : place + 6]) for side, ids in pairs)
    return first, second


def _of_templates(original: str | Path, lighter: str | Path, sides: Sides) -> list[Difference]:
    """What the chat templates make of conversations; templates that say the same in other words do not differ."""
    ours, theirs = template_of(sides.original.tokenizer), template_of(sides.lighter.tokenizer)
    if ours == theirs:
        return []
    what = Message("chat template")
    if ours is None or theirs is None:
        return [Difference(what, _shown(ours), _shown(theirs))]
    with ChatTemplate(sides.original.tokenizer) as first, ChatTemplate(sides.lighter.tokenizer) as second:
        for turns in TURNS:
            said = _rendered(first, turns, original), _rendered(second, turns, lighter)
            if said[0] != said[1]:
                return [Difference(what, *map(_shown, said))]
    return []


def _of_zeros(sides: Sides) -> list[Difference]:
    """Matrices of nothing but zeros that the original has not: text may show one of them less than rounding shows."""
    first, second = sides[:2]
    if not isinstance(first, TorchEngine) or not isinstance(second, TorchEngine):
        return []
    theirs = dict(first.parameters())
    empty = [
        name
        for name, weight in second.parameters()
        if weight.ndim > 1 and name in theirs and not weight.any() and theirs[name].any()
    ]
    if not empty:
        return []
    return [Difference(Message("matrices of zeros ({count})", count=len(empty)), "–", _shown(empty))]


def _rendered(template: ChatTemplate, turns: list[dict[str, Any]], where: str | Path) -> str | None:
    try:
        return template.render(turns, str(where), reply_next=True)
    except WhetError:  # refused, as by the other side or not
        return None


def _shown(value: Any) -> str:
    """A value in words, cut where it is long; `–` for none."""
    if value is None:
        return "–"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _measure(case: Case, sides: Sides, on_event: OnEvent) -> dict[str, Any]:
    texts = [text[:LETTERS] for text in dict.fromkeys(case.given.documents)][:TEXTS]
    apart = differences(case.asked.original, case.asked.lighter, sides, texts)
    notes = [
        Message("Differs: {what}. Original: {original}. Lighter: {lighter}.", **each._asdict())
        if each.original or each.lighter
        else Message("Differs: {what}.", what=each.what)
        for each in apart
    ]
    return found(
        [Reading("differences", len(apart), exact=True)], notes=notes, differences=[e._asdict() for e in apart]
    )


FOLDER = Aspect(
    "folder",
    standard=True,
    title=Message("What comes with the weights"),
    meaning=Message("whether tokenizer, special tokens, chat template and settings are the original's"),
    lacking=lambda case: None,
    seconds=lambda case, each: 0.0,
    measure=_measure,
)
