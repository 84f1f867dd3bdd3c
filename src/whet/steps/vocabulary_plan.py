"""What cutting tokens will do, before anything is written: which stay, every file that changes, and its bytes."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml

from whet.anatomy import Anatomy
from whet.apply.job import model_name
from whet.checkpoint import Checkpoint, Manifest, Rows, atomic, load_tokenizer, size_with
from whet.errors import UsageError
from whet.messages import Message, to_json
from whet.pruning.vocabulary import (
    Chosen,
    Pieces,
    choose,
    count,
    in_pieces,
    main_script,
    named_ids,
    opened,
    scripts_of,
    tokenized,
    with_beyond,
)
from whet.pruning.vocabulary.samples import SAMPLES
from whet.steps.lineage import next_manifest
from whet.steps.options import RECIPE, recipe_text
from whet.steps.original import Original, open_original
from whet.steps.proof import PROVED
from whet.steps.vocabulary_files import TOKENIZER, new_files, other_files, read_settings, sized_tensors
from whet.targets import find_target
from whet.text import Amount, fingerprint, read_text
from whet.text.chat import template_of

_LITERAL = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
_TAG = re.compile(r"\{[%{#].*?[%}#]\}", re.DOTALL)
_WHOLE = Amount(most=1 << 34)  # of a corpus, every word counts


@dataclass(frozen=True)
class Cut:
    """One cut. `chosen` rows stay; `files` by name are written anew and `copied` are taken over; `rows` say what
    becomes of tensors. documents: the corpus, [] without one. lengths: what becomes longer. sha256: of the model, once
    it was read."""

    original: Original
    pieces: Pieces
    chosen: Chosen
    tokenizer: str
    rows: Rows
    files: dict[str, bytes]
    copied: dict[str, Path]
    documents: list[str]
    corpus: dict[str, Any] | None
    lengths: list[dict[str, Any]]
    asked: dict[str, Any]
    recipe: dict[str, Any] | None
    notes: tuple[Message, ...]
    sha256: str | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        """The original."""
        return self.original.checkpoint

    @property
    def parts(self) -> Anatomy:
        """Its parts."""
        return self.original.parts

    @property
    def before(self) -> int:
        """Rows of the original's embedding."""
        return self.parts.embedding.shape[0]

    @property
    def small(self) -> bool:
        """Whether both models are loaded side by side as a proof."""
        return self.checkpoint.nbytes <= PROVED

    @cached_property
    def weights(self) -> list[Path]:
        """The original's files of weights."""
        return sorted({info.file for info in self.checkpoint.stored.values()})

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the finished folder: of all files, as no figure in them is measured."""
        sizes = {file.name: size_with(file, self.rows) for file in self.weights}
        sizes |= {name: len(data) for name, data in self.files.items()}
        sizes |= {name: file.stat().st_size for name, file in self.copied.items()}
        listed = {name: {"bytes": sizes[name], "sha256": "0" * 64} for name in sorted(sizes)}
        known = dataclasses.replace(self, sha256=self.sha256 or "0" * 64)
        text = json.dumps(to_json(known.manifest(listed)), indent=2, ensure_ascii=False) + "\n"
        return sum(sizes.values()) + len(text.encode())

    def of_model(self, digest: str) -> Cut:
        """This cut, once the whole model was read."""
        return dataclasses.replace(self, sha256=digest)

    def told(self) -> dict[str, Any]:
        """What a person wants to know."""
        counts = dataclasses.asdict(self.chosen)
        counts.pop("ids")
        tokens = {"original": self.before, "lighter": len(self.chosen.ids), **counts}
        return {"tokens": tokens, "lengths": self.lengths}

    def record(self) -> dict[str, Any]:
        """What the lineage says."""
        asked = {name: self.asked[name] for name in ("keep_languages", "min_count")}
        return {"step": "prune", "unit": "vocabulary", "container": "dense", **asked, "corpus": self.corpus,
                **self.told()}  # fmt: skip

    def manifest(self, files: Mapping[str, Any]) -> dict[str, Any]:
        """whet.json. files: bytes and SHA-256 by name."""
        before = self.checkpoint.whet or {}
        made: Manifest = next_manifest(
            self.checkpoint,
            self.record(),
            name=model_name(self.checkpoint.path.resolve()),
            sha256=self.sha256,
            container="dense",
            target="transformers",
            masks=before.get("masks"),
            transforms=before.get("transforms"),
            copied=list(self.parts.unnamed),
            dropped=self.parts.dropped,
            notes=to_json(self.notes),
            files=dict(files),
        )
        return made.document()

    def copy_into(self, out: Path) -> None:
        """The files that stay as they are."""
        for name, file in self.copied.items():
            (out / name).parent.mkdir(exist_ok=True)
            with atomic(out / name) as temporary:
                shutil.copyfile(file, temporary)


def plan_cut(
    source: str | Path,
    *,
    vocab: str | Path | Sequence[str] | None,
    keep_languages: Sequence[str],
    min_count: int,
    eval_text: str | Path | Sequence[str] | None,
    field: str,
    skip_bad: bool,
    recipe: Mapping[str, Any] | None,
) -> Cut:
    """Decide which tokens stay and make every file but the weights. Raises UsageError for what cannot be cut."""
    if vocab is None and not keep_languages:
        raise UsageError("Say which tokens are needed: a corpus (--vocab FILE), languages (--keep-languages), or both.")
    if min_count < 1:
        raise UsageError("min_count {count}: a token that is needed occurs once or more.", count=min_count)
    scripts = scripts_of(keep_languages) if keep_languages else None
    if (kind := Checkpoint(source).stored_in) is not None:
        raise UsageError(
            "{folder} is stored in {kind}, and tokens are taken out of weights as they are stored. Give the original "
            "in 16 bits; it is usually named in the model card as base_model.",
            folder=source,
            kind=kind,
        )
    original = open_original(source, find_target("transformers"))
    folder, before = original.checkpoint.path, original.parts.embedding.shape[0]
    tokenizer = load_tokenizer(folder)
    text = _tokenizer_text(folder, tokenizer)
    pieces = Pieces(json.loads(text), str(folder))
    core = opened(text, str(folder))
    sized = sized_tensors(original)
    documents, corpus, notes = _corpus(vocab, field, skip_bad, tokenizer)
    settings = read_settings(folder)
    counts = count(core, documents)
    named = {number for value in settings.values() for number in named_ids(value)}
    named.update(*tokenized(core, _template_texts(tokenizer)))
    chosen = choose(pieces, before, counts, scripts=scripts, least=min_count, named=named)
    files = new_files(original, pieces, chosen, settings, text, sized)
    new = opened(files[TOKENIZER].decode(), str(folder))
    _must_number_alike(new, pieces, chosen)
    given = {"corpus": documents, "eval": _corpus(eval_text, field, skip_bad, tokenizer)[0]}
    lengths = _lengths(core, new, given)
    copied, left = other_files(folder, files)
    if left:
        notes.append(
            Message(
                "left out, as they name the tokens of the original and {file} stands for them: {names}",
                file=TOKENIZER,
                names=", ".join(left),
            )
        )
    if not pieces.falls_back:
        notes.append(Message("the tokenizer has no bytes to fall back on: a letter without a token is unknown to it"))
    cut = Cut(
        original=original,
        pieces=pieces,
        chosen=chosen,
        tokenizer=text,
        rows=Rows(torch.tensor(chosen.ids), sized, [original.parts.dropped] if original.parts.dropped else []),
        files=files,
        copied=copied,
        documents=documents,
        corpus=corpus,
        lengths=lengths,
        asked={
            "vocab": _place(vocab) if isinstance(vocab, (str, Path)) else None,
            **({"documents": True} if documents and not isinstance(vocab, (str, Path)) else {}),
            "keep_languages": list(keep_languages),
            "min_count": min_count,
            "eval_text": _place(eval_text) if isinstance(eval_text, (str, Path)) else list(eval_text or ()) or None,
            "field": field,
            "skip_bad": skip_bad,
        },
        recipe=None if recipe is None else dict(recipe),
        notes=tuple(notes),
    )
    if recipe is not None:
        files[RECIPE] = recipe_text(recipe, again="whet run recipe.yaml MODEL OUT").encode()
    files["README.md"] = _readme(cut).encode()
    return cut


def _tokenizer_text(folder: Path, tokenizer: Any) -> str:
    """tokenizer.json, or what it would be. Raises UsageError where the tokenizer has no such form."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        raise UsageError(
            "{folder}: its tokenizer has no fast form ({file}), from which tokens are cut.",
            folder=folder,
            file=TOKENIZER,
        )
    file = folder / TOKENIZER
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        if opened(text, str(folder)).get_vocab(with_added_tokens=True) == tokenizer.get_vocab():
            return text
    return str(core.to_str())


def _corpus(
    source: str | Path | Sequence[str] | None, field: str, skip_bad: bool, tokenizer: Any
) -> tuple[list[str], dict[str, Any] | None, list[Message]]:
    """Documents, what the lineage says of them, and what a person should know."""
    if source is None:
        return [], None, []
    notes: list[Message] = []
    if isinstance(source, (str, Path)):
        found = read_text(source, field, tokenizer=tokenizer, skip_bad=skip_bad, amount=_WHOLE)
        documents, notes, name = found.documents, list(found.notes), Path(source).name
    else:
        documents, name = [document for document in source if document.strip()], "documents"
    if not documents:
        raise UsageError("{source}: there is no text in it. Give a file with text, or name another field.", source=name)
    return documents, {"source": name, "documents": len(documents), "fingerprint": fingerprint(documents)}, notes


def _place(source: str | Path) -> str:
    """A path from anywhere, so that a run may be resumed elsewhere; a name on the hub as it is."""
    return str(Path(source).resolve() if Path(source).exists() else source)


def _template_texts(tokenizer: Any) -> list[str]:
    """What chat templates write beside what people say: text between tags, and words in them."""
    found = tokenizer.chat_template or template_of(tokenizer) or ""
    texts: list[str] = []
    for template in [found] if isinstance(found, str) else found.values():
        texts += _TAG.split(template)
        for literal in _LITERAL.findall(template):
            texts.append((literal[0] or literal[1]).replace("\\n", "\n"))
    words = ("system", "user", "assistant", "tool") if texts else ()
    return [text for text in (*texts, *words) if text]


def _must_number_alike(new: Any, pieces: Pieces, chosen: Chosen) -> None:
    """Raises UsageError where the tokenizers package gives tokens other numbers than they were to have."""
    ids = with_beyond(pieces, chosen.new)
    wanted = {token: ids[old] for token, old in pieces.tokens.items() if old in ids}
    found = new.get_vocab(with_added_tokens=True)
    if found != wanted:
        token = next(token for token in (wanted | found) if wanted.get(token) != found.get(token))
        raise UsageError(
            "{source}: its tokenizer has gaps among its ids, so that token {token!r} would get another row. whet "
            "cannot cut it.",
            source=pieces.source,
            token=token,
        )


def _lengths(before: Any, after: Any, given: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Tokens before and after: of sentences in some languages, and of the texts given, by the script of most of a
    document's letters."""
    found = [{"text": "sample", "of": name, **_length(before, after, [text])} for name, text in SAMPLES.items()]
    for name, documents in given.items():
        groups: dict[str, list[str]] = {}
        for document in documents:
            groups.setdefault(main_script(document[:4096]).lower() or "none", []).append(document)
        for script in sorted(groups):
            found.append({"text": name, "of": script, **_length(before, after, groups[script])})
    return found


def _length(before: Any, after: Any, documents: Sequence[str]) -> dict[str, Any]:
    counts = [[len(ids) for ids in tokenized(tokenizer, in_pieces(documents))] for tokenizer in (before, after)]
    first, second = map(sum, counts)
    return {"documents": len(documents), "before": first, "after": second, "ratio": second / max(1, first)}


def _readme(cut: Cut) -> str:
    """The model card: the original's licence and tags, and what was done."""
    base = ((cut.checkpoint.whet or {}).get("base_model") or {}).get("name") or model_name(
        cut.checkpoint.path.resolve()
    )
    card = dict(cut.original.card)
    given = card.get("tags") or []
    tags = list(dict.fromkeys([*(given if isinstance(given, list) else [str(given)]), "whet", "pruned"]))
    front = yaml.safe_dump({**card, "base_model": base, "tags": tags}, allow_unicode=True, sort_keys=False).strip()
    rows = [
        f"| {one['of']} | {one['before']} | {one['after']} | x{one['ratio']:.2f} |"
        for one in cut.lengths
        if one["text"] == "sample"
    ]
    lines = [
        "---",
        front,
        "---",
        f"# {base}, with fewer tokens, by whet",
        "",
        f"{len(cut.chosen.ids)} of {cut.before} tokens are left. Text of these has the same tokens as before, "
        "and the model computes the same of it; other text is read in smaller pieces. What loads the original loads "
        "this folder. `vocab_map.json` has the original's id of every token.",
        "",
        "| a few sentences in | tokens before | after | |",
        "|---|---:|---:|---:|",
        *rows,
        *(["", "## Notes", ""] if cut.notes else []),
        *(f"- {note}" for note in cut.notes),
        "",
        "`whet.json` holds every choice, the lineage and the SHA-256 of every file.",
        "",
    ]
    return "\n".join(lines)
