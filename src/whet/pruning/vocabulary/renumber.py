"""Files that name tokens by their ids, written anew for the tokens that stay.

Ids stay in their old order. What names an id names the new one: the tokenizer and its post-processor, added tokens,
config.json and generation_config.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from whet.pruning.vocabulary.pieces import Pieces, processed

_Change = Callable[[int], int]
# Entries of config.json and generation_config.json that hold ids: one, or lists of them however deep.
_HOLDS_IDS = re.compile(
    r"(\w+_)?token_ids?|\w+_token_index|(begin_)?suppress_tokens|bad_words_ids|force_words_ids"
    r"|(lang|lang_code|task)_to_id"
)
_SIZE = "vocab_size"


def new_tokenizer(pieces: Pieces, new: Mapping[int, int]) -> dict[str, Any]:
    """The tokenizer.json of the tokens that stay. new: new id by old one.

    Merges stay whose parts and result stay, in their order. Tokens beyond the embedding, which no model ever knew, stay
    where they have to be named, behind all rows.
    """
    said = dict(pieces.said)
    new = with_beyond(pieces, new)
    model = dict(pieces.model)
    if isinstance(model["vocab"], dict):
        model["vocab"] = dict(
            sorted(((piece, new[old]) for piece, old in pieces.ids.items() if old in new), key=lambda item: item[1])
        )
    else:
        model["vocab"] = [entry for old, entry in enumerate(model["vocab"]) if old in new]
    if "merges" in model:
        stays = {piece for piece, old in pieces.ids.items() if old in new}
        model["merges"] = [
            pair
            for pair, (left, right, whole) in zip(model["merges"], pieces.merges(), strict=True)
            if left in stays and right in stays and whole in stays
        ]
    if isinstance(model.get("unk_id"), int):
        model["unk_id"] = new[model["unk_id"]]
    said["model"] = model
    said["added_tokens"] = sorted(
        ({**entry, "id": new[entry["id"]]} for entry in said.get("added_tokens") or () if entry["id"] in new),
        key=lambda entry: entry["id"],
    )
    said["post_processor"] = processed(said.get("post_processor"), lambda old: new[old])
    if isinstance(said.get("padding"), dict) and said["padding"].get("pad_id") in new:
        said["padding"] = {**said["padding"], "pad_id": new[said["padding"]["pad_id"]]}
    return said


def with_beyond(pieces: Pieces, new: Mapping[int, int]) -> dict[int, int]:
    """`new` with the added tokens that have no row, which are counted on from the last token that has one."""
    known = set(pieces.tokens.values())
    have = [number for old, number in new.items() if old in known]
    gone = sorted(old for old in set(pieces.added.values()) if old not in new)
    after = max(have, default=-1) + 1
    return {**new, **{old: after + place for place, old in enumerate(gone)}}


def new_settings(settings: Any, new: Mapping[int, int], rows: int, now: int) -> Any:
    """config.json or generation_config.json with the ids of the tokens that stay, and `now` for a vocabulary of
    `rows`."""
    return _walked(settings, lambda old: new.get(old, old), lambda size: now if size == rows else size)


def named_ids(settings: Any) -> set[int]:
    """Ids that config.json or generation_config.json names."""
    found: set[int] = set()

    def seen(number: int) -> int:
        found.add(number)
        return number

    _walked(settings, seen, lambda size: size)
    return found


def _walked(value: Any, change: _Change, resize: _Change) -> Any:
    if isinstance(value, list):
        return [_walked(one, change, resize) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: _entry(key, one, change, resize) for key, one in value.items()}


def _entry(key: str, value: Any, change: _Change, resize: _Change) -> Any:
    if key == _SIZE and _is_number(value):
        return resize(value)
    if _HOLDS_IDS.fullmatch(key):
        return _changed(value, change)
    if key == "forced_decoder_ids" and isinstance(value, list):  # pairs of a place and an id
        return [[place, _changed(number, change)] for place, number in value]
    if key == "sequence_bias" and isinstance(value, list):  # pairs of ids and a bias
        return [[_changed(ids, change), bias] for ids, bias in value]
    return _walked(value, change, resize)


def _changed(value: Any, change: _Change) -> Any:
    if isinstance(value, list):
        return [_changed(one, change) for one in value]
    if isinstance(value, dict):
        return {key: _changed(one, change) for key, one in value.items()}
    return change(value) if _is_number(value) and value >= 0 else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def new_decoder(settings: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """tokenizer_config.json with the new ids of its added tokens."""
    given = settings.get("added_tokens_decoder")
    if not isinstance(given, dict):
        return dict(settings)
    named = {int(old): about for old, about in given.items()}
    kept = {str(new[old]): about for old, about in sorted(named.items(), key=lambda one: new.get(one[0], -1))
            if old in new}  # fmt: skip
    return {**settings, "added_tokens_decoder": kept}


def new_ids(listed: Mapping[str, int], new: Mapping[int, int]) -> dict[str, int]:
    """vocab.json or added_tokens.json: tokens that stay, with their new ids."""
    return {token: new[old] for token, old in listed.items() if old in new}


def new_lines(lines: list[str], new: Mapping[int, int]) -> list[str]:
    """vocab.txt, whose lines are the tokens in the order of their ids."""
    return [line for _, line in sorted((new[old], line) for old, line in enumerate(lines) if old in new)]


def new_merges(lines: list[str], pieces: Pieces) -> list[str]:
    """merges.txt with the merges of `pieces`, those that stay; what is above the merges stays."""
    stay = {f"{left} {right}" for left, right, _ in pieces.merges()}
    return [line for line in lines if line.startswith("#version") or line in stay or not line.strip()]
