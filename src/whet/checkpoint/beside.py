"""The files beside a model's weights: which of them a lighter folder takes over, and links that lead out of a folder.

What is taken over is named here. A model folder may hold anything: other copies of the weights, pickles, logs, a key
that was left there; none of it belongs to the lighter model, which others may be given.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whet.anatomy import own_code
from whet.checkpoint.files import atomic, sha256
from whet.errors import UsageError
from whet.messages import Message, first_of
from whet.strict import parse_json

# What transformers reads beside the weights: tokenizers (`vocab_files_names` of its classes and what they save), chat
# templates, generation and processors; and what sentence-transformers reads.
_READ = re.compile(
    r"tokenizer(_config)?\.json|vocab_map\.json|special_tokens_map\.json|added_tokens\.json|tekken\.json|tokenizer\.model(\.v\d+)?"
    r"|(entity_|target_)?vocab(-src|-tgt)?\.(json|txt|bpe)|encoder\.json|merges\.txt|bpe\.codes|dict\.txt|emoji\.json"
    r"|word_(shape|pronunciation)\.json|byte_maps\.json|normalizer\.json|prophetnet\.tokenizer|(source|target)\.spm"
    r"|(spiece|sp|spm|spm_char|sentencepiece|sentencepiece\.bpe|tiktoken)\.model|[\w-]+\.tiktoken"
    r"|chat_template\.(jinja|json)|generation_config\.json|((video_)?pre)?processor_config\.json"
    r"|audio_tokenizer_config\.json|modules\.json|(sentence_bert_config|config_sentence_transformers)\.json"
)
# What people read: the licence and its like. README.md itself is written anew.
_PAPERS = re.compile(
    r"(([\w-]+[_ -])?(licen[cs]es?|notices?)|copying|copyright|authors|citation|(acceptable_)?us(e|age)[_-]policy"
    r"|terms(_of_use)?|readme)([_ -][\w-]+|\.[a-z]{2}(-[a-z]+)?)?(\.(txt|md|rst|html|pdf|cff|bib))?",
    re.IGNORECASE,
)
_WRITTEN = ("config.json", "README.md", "whet.json")  # anew, for the lighter model
_WEIGHTS = (".safetensors", ".safetensors.index.json")
# of a folder that whet wrote
_OWN = (
    *(
        "plan.json",
        "recipe.yaml",
        "modeling_whet.py",
        "beside_whet.py",
        "packing_whet.py",
        "packed_whet.py",
        "modeling_per_layer.py",
    ),
    *("scores.json", "report.html", "run.json", "adapter"),
)
TEMPLATES = "additional_chat_templates"  # a folder: chat templates beside the one that is used unless another is named
_MOST = 20  # names in a note


def inside(folder: Path, file: Path) -> bool:
    """Whether `file` lies in `folder`, links followed; the blobs that a hub cache's links lead to count as inside."""
    real = Path(os.path.realpath(file))
    cached = real.parent.name == "blobs" and real.parent.parent.name.startswith("models--")
    return cached or real.is_relative_to(os.path.realpath(folder))


def refuse_links(folder: Path) -> None:
    """Raises UsageError where anything that is read of a model is a link to a file outside its folder."""
    for file in sorted(folder.iterdir()):
        if file.is_symlink() and is_read(file.name) and not inside(folder, file):
            raise UsageError(
                "{file} is a link to {target}, outside the folder. A model's folder holds its own files: put a copy "
                "there if you trust where it leads, or do not use this model.",
                file=file,
                target=os.readlink(file),
            )


def is_paper(name: str) -> bool:
    """Whether `name` is of a file that people read: a licence and its like, or README.md."""
    return _PAPERS.fullmatch(name) is not None


def copied_files(original: Path) -> dict[str, Path]:
    """The original's files that go into the lighter folder byte for byte, by their names in it: tokenizer, generation
    settings, licence, chat templates, and what a sentence encoder has after its model (pooling, layers with weights).

    Never the model's weights, pickles, the card, files whose content is rewritten, or what lies outside the folder;
    and code only where it builds the model and was let run.
    """
    found = {p.name: p for p in sorted(original.iterdir()) if _taken(p.name) or _code(p)}
    for name in subfolders(original):
        for file in sorted((original / name).iterdir()):
            if _taken_below(name, file.name):
                found[f"{name}/{file.name}"] = file
    return {name: file for name, file in found.items() if file.is_file() and inside(original, file)}


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a model's folder that hold a part of it: chat templates, and the modules that a sentence
    encoder's modules.json names."""
    modules: Any = []
    with contextlib.suppress(OSError, ValueError):
        modules = parse_json((folder / "modules.json").read_text(encoding="utf-8"))
    named = [one.get("path") for one in modules if isinstance(one, dict)] if isinstance(modules, list) else []
    plain = [name for name in named if isinstance(name, str) and Path(name).name == name and name not in ("", "..")]
    return [name for name in dict.fromkeys((TEMPLATES, *plain)) if (folder / name).is_dir()]


def copy_beside(original: Path, out: Path, files: Mapping[str, str]) -> None:
    """Copy `files`, by name with their SHA-256, of the original into `out`. May be repeated.

    Raises UsageError for one that is gone or changed since it was hashed, when the run began: without its tokenizer the
    lighter folder would look finished.
    """
    for name, digest in files.items():
        source, place = original / name, out / name
        if not source.is_file():
            raise UsageError(
                "{file} was there when the run began, and is gone. Put it back and give the same command again: the "
                "run goes on where it stopped.",
                file=source,
            )
        place.parent.mkdir(exist_ok=True)
        with atomic(place) as temporary:
            shutil.copyfile(source, temporary)
            if sha256(temporary) != digest:
                raise UsageError(
                    "{file} is not what it was when the run began. Put it back and give the same command again: the "
                    "run goes on where it stopped.",
                    file=source,
                )


def about_left_out(original: Path) -> list[Message]:
    """A note on what lies in the original's folder and is not taken over, if anything does."""
    own = _OWN if (original / "whet.json").is_file() else ()
    left: list[str] = []
    parts = subfolders(original)
    for file in sorted(original.iterdir()):
        name = file.name
        if name.startswith(".") or name in (*_WRITTEN, *own) or name.endswith(_WEIGHTS):
            continue
        if not inside(original, file):
            left.append(Message("{name} (a link out of the folder)", name=name))
        elif name in parts:
            left += [f"{name}/{p.name}" for p in sorted(file.iterdir()) if not _taken_below(name, p.name)]
        elif file.is_dir():
            left.append(f"{name}/")
        elif not _taken(name) and not _code(file):
            left.append(name)
    return [_note(left)] if left else []


def _note(left: Sequence[str]) -> Message:
    return Message("not copied from the original's folder: {names}", names=first_of(left, _MOST))


def _code(file: Path) -> bool:
    """Whether a file is code of a model's own that was let run."""
    if file.suffix != ".py" or file.name in _OWN:
        return False
    try:
        config = parse_json((file.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and own_code(config)


def _taken(name: str) -> bool:
    return name not in _WRITTEN and bool(_READ.fullmatch(name) or _PAPERS.fullmatch(name))


def _taken_below(folder: str, name: str) -> bool:
    """Of a file in one of `subfolders`."""
    if folder == TEMPLATES:
        return name.endswith(".jinja")
    return name == "config.json" or name.endswith(".safetensors") or bool(_READ.fullmatch(name))


def is_read(name: str) -> bool:
    """Whether a file of this name is read of a model: weights, configs, tokenizer."""
    return name in ("config.json", "whet.json") or name.endswith(_WEIGHTS) or bool(_READ.fullmatch(name))
