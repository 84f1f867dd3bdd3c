"""The files of a model with fewer tokens: which tensors have a row for each, and what names tokens by their ids."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from whet.checkpoint import MANIFEST, NAMED, VOCAB_MAP, Rows, VocabMap, copied_files, empty_model, read_map
from whet.errors import UsageError
from whet.pruning.vocabulary import (
    Chosen,
    Pieces,
    new_decoder,
    new_ids,
    new_lines,
    new_merges,
    new_settings,
    new_tokenizer,
    with_beyond,
)
from whet.steps.config import modelling_files
from whet.steps.original import Original

TOKENIZER, CONFIG = "tokenizer.json", "config.json"
_INDEX = "model.safetensors.index.json"
# Vocabularies in other forms than tokenizer.json, which stands for them.
_OTHER_FORMS = re.compile(
    r"tokenizer\.model(\.v\d+)?|[\w.-]+\.(model|spm|tiktoken)|tekken\.json|encoder\.json|vocab\.bpe|bpe\.codes|dict\.txt"
    r"|(entity_|target_)?vocab(-src|-tgt)?\.(json|txt|bpe)|prophetnet\.tokenizer|byte_maps\.json"
)


def read_settings(folder: Path) -> dict[str, Any]:
    """config.json and generation_config.json by name, as they are stored."""
    files = (folder / name for name in (CONFIG, "generation_config.json"))
    return {file.name: json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()}


def sized_tensors(original: Original) -> dict[str, int]:
    """The dimension along which the vocabulary sizes a tensor, by stored name: found by building the model with a
    larger one. Raises UsageError where that does not tell of everything."""
    checkpoint, parts = original.checkpoint, original.parts
    rows = parts.embedding.shape[0]
    wider = copy.copy(checkpoint)
    wider.config = new_settings(checkpoint.config, {}, rows, rows + 1)
    shapes, wide = (
        {name: tuple(value.shape) for name, value in empty_model(one, torch.float32).state_dict().items()}
        for one in (checkpoint, wider)
    )
    grown = {
        name: next(place for place, sizes in enumerate(zip(shape, wide[name], strict=True)) if sizes[0] != sizes[1])
        for name, shape in shapes.items()
        if shape != wide[name]
    }
    found = {stored: grown[parts.name(stored)] for stored in checkpoint.stored if parts.name(stored) in grown}
    if parts.dropped is not None:
        found[parts.dropped] = 0
    wrong = [name for name in parts.unnamed if name not in found and checkpoint.tensors[name].shape[:1] == (rows,)]
    wrong += [] if parts.embedding.parameter in found else [parts.embedding.parameter]
    if wrong:
        raise UsageError(
            "{source}: tensor {name} has a row for each token, and config.json does not say so. whet cannot cut "
            "tokens of this family ({family}).",
            source=checkpoint.path,
            name=wrong[0],
            family=parts.model_type,
        )
    return found


def new_files(
    original: Original,
    pieces: Pieces,
    chosen: Chosen,
    settings: Mapping[str, Any],
    text: str,
    sized: Mapping[str, int],
) -> dict[str, bytes]:
    """Every file that names a token by its id, and the index, as they will be.

    settings: `read_settings`. text: of tokenizer.json, for its layout. sized: `sized_tensors`.
    """
    folder, rows = original.checkpoint.path, original.parts.embedding.shape[0]
    files = {name: _json(new_settings(value, chosen.new, rows, len(chosen.ids))) for name, value in settings.items()}
    said = new_tokenizer(pieces, chosen.new)
    wide = "\n  " in text[:100]
    layout: dict[str, Any] = {"indent": 2} if wide else {"separators": (",", ":")}
    files[TOKENIZER] = json.dumps(said, ensure_ascii=False, **layout).encode()
    before = read_map(folder)
    numbers = VocabMap(rows, chosen.ids) if before is None else before.then(chosen.ids)
    files[VOCAB_MAP] = (json.dumps(numbers.document(), separators=(",", ":")) + "\n").encode()
    files |= _index(original, Rows(torch.tensor(chosen.ids), sized)) | modelling_files(original.checkpoint.config)
    return files | _old_forms(folder, pieces, Pieces(said, pieces.source), with_beyond(pieces, chosen.new))


def _old_forms(folder: Path, pieces: Pieces, left: Pieces, new: Mapping[int, int]) -> dict[str, bytes]:
    """The files beside tokenizer.json that name tokens by ids or by their order. left: the pieces that stay."""
    found: dict[str, bytes] = {}
    if (text := _text(folder, "tokenizer_config.json")) is not None:
        found["tokenizer_config.json"] = _json(new_decoder(json.loads(text), new))
    for name in ("added_tokens.json", "vocab.json"):
        if (text := _text(folder, name)) is not None:
            found[name] = _json(new_ids(json.loads(text), new))
    if (text := _text(folder, "vocab.txt")) is not None:
        lines = new_lines(text.split("\n")[: len(pieces.ids)], new)
        found["vocab.txt"] = "".join(f"{line}\n" for line in lines).encode()
    if (text := _text(folder, "merges.txt")) is not None:
        found["merges.txt"] = "\n".join(new_merges(text.split("\n"), left)).encode()
    return found


def _text(folder: Path, name: str) -> str | None:
    file = folder / name
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _index(original: Original, rows: Rows) -> dict[str, bytes]:
    """The index of shards, where the original's is read."""
    checkpoint, dropped = original.checkpoint, original.parts.dropped
    name = checkpoint.config.get(NAMED, _INDEX)
    files = {info.file.name for info in checkpoint.stored.values()}
    if not name.endswith(".index.json") or not (checkpoint.path / name).is_file() or files == {"model.safetensors"}:
        return {}
    value = json.loads((checkpoint.path / name).read_text(encoding="utf-8"))
    left = {tensor: info for tensor, info in checkpoint.stored.items() if tensor != dropped}
    counts = {tensor: math.prod(rows.shape(tensor, info.shape)) for tensor, info in left.items()}
    about = dict(value.get("metadata") or {})
    about["total_size"] = sum(left[tensor].dtype.itemsize * count for tensor, count in counts.items())
    if "total_parameters" in about:
        about["total_parameters"] = sum(counts.values())
    places = {tensor: file for tensor, file in value["weight_map"].items() if tensor in left}
    return {name: _json({**value, "metadata": about, "weight_map": places})}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def other_files(folder: Path, files: Mapping[str, bytes]) -> tuple[dict[str, Path], list[str]]:
    """The files that stay as they are, and names of those that would name other tokens."""
    found = {name: file for name, file in copied_files(folder).items() if name not in files and name != MANIFEST}
    left = [name for name in found if _OTHER_FORMS.fullmatch(name)]
    return {name: file for name, file in found.items() if name not in left}, left
