"""What cutting tokens saves and what it makes longer.

Two tables. The first cuts the embedded model to one of its languages and compares it with itself before, on text that
it never saw: tokens, bytes, how many documents are read as before, how much longer text is, and -log of the probability
that the original gives to the tokens that stay. The second trains a byte-level BPE on Korean and English (`--text`) and
cuts it for its Korean, by what a corpus uses, with and without what tokens are merged from; without that, BPE reads
other tokens. Bytes are those of an embedding of 1,024 in bfloat16, tied.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import whet
from evaluation import table
from whet import starter
from whet.checkpoint import load_tokenizer
from whet.pruning.vocabulary import Pieces, choose, count, main_script, new_tokenizer, opened, scripts_of, tokenized
from whet.steps.vocabulary import cut_vocabulary

SIZE, HELD = 24_000, 2_000
WIDTH = 1024 * 2  # bytes of a row
SCRIPTS = {"Korean": "HANGUL", "English": "LATIN"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="a folder with korean/, tinystories/ and wikitext-2/")
    parser.add_argument("--documents", type=int, default=6000, help="of the embedded model, to choose tokens by")
    asked = parser.parse_args()
    work = Path(tempfile.mkdtemp())
    try:
        of_starter(work, asked.documents)
    finally:
        shutil.rmtree(work)
    if asked.text is not None:
        of_trained(asked.text)


def of_starter(work: Path, number: int) -> None:
    """The embedded model, cut to one language by a corpus, by its script, and by tokens that are seen three times."""
    texts, held = (
        {name: [text for text in every if main_script(text) == script] for name, script in SCRIPTS.items()}
        for every in (starter.documents(0, number), starter.held_out(1, number // 6))
    )
    rows = []
    for name, options in (
        ("Korean", {}),
        ("Korean", {"min_count": 3}),
        ("Korean", {"keep_languages": ["ko"]}),
        ("English", {}),
    ):
        out = work / "out"
        shutil.rmtree(out, ignore_errors=True)
        corpus = None if options.get("keep_languages") else texts[name]
        made = cut_vocabulary(starter.path(), out, vocab=corpus, **options)
        before, after = load_tokenizer(starter.path()), load_tokenizer(out)
        told = [f"{name}, {_named(options)}", _share(made["tokens"]["lighter"], made["tokens"]["original"])]
        told.append(f"{made['sizes']['lighter']['total'] / made['sizes']['original']['total']:.3f}")
        for language in (name, *(other for other in SCRIPTS if other != name)):
            same, ratio = _read(before, after, held[language])
            found = whet.compare(starter.path(), out, text=held[language], windows=None, speed=False)
            kl, nats = found["divergence"]["kl"]["mean"], found["divergence"]["kept"]["nats"]
            told += [f"{same:.1%}", f"x{ratio:.3f}", f"{nats:.4f}"]
            assert kl < 1e-6, kl
        rows.append(told)
    head = ["cut to", "tokens", "folder", "documents same", "tokens", "-log kept mass, nats"]
    head += ["other language: same", "tokens", "-log kept mass, nats"]
    print(f"starter, {number} documents; KL of what is compared is 0 in every row\n")
    print(table(head, rows), "\n")


def of_trained(folder: Path) -> None:
    """A tokenizer of two languages, cut for one."""
    korean, english = list(_korean(folder)), list(_english(folder))
    held = {"Korean": korean[-HELD:], "English": english[-HELD:]}
    core = _trained([*korean[:-HELD], *english[:-HELD]])
    text = core.to_str()
    pieces, before = Pieces(json.loads(text), "trained"), opened(text, "trained")
    corpus = korean[:-HELD]
    counts, rows = count(before, corpus), []
    whole = len(pieces.tokens)
    alone = {n for n, c in counts.items()}
    cases: list[tuple[str, Sequence[int]]] = []
    for least in (1, 3):
        seen = {number for number in alone if counts[number] >= least} | pieces.always(lambda _: True)
        cases.append((f"used {least} times, not what they are merged from", sorted(seen)))
        cases.append((f"used {least} times", choose(pieces, whole, counts, least=least).ids))
    cases.append(("used, or Korean by script", choose(pieces, whole, counts, scripts=scripts_of(["ko"])).ids))
    for name, ids in cases:
        after = opened(json.dumps(new_tokenizer(pieces, {old: new for new, old in enumerate(ids)})), "cut")
        told = [name, _share(len(ids), whole), f"{(whole - len(ids)) * WIDTH / 1e6:.1f} MB"]
        for some in (corpus, held["Korean"], held["English"]):
            same, ratio = _read_by(before, after, ids, some)
            told += [f"{same:.1%}", f"x{ratio:.3f}"]
        rows.append(told)
    head = ["tokens that stay", "share", "saved", "corpus same", "tokens", "held-out same", "tokens"]
    head += ["English same", "tokens"]
    print(f"byte-level BPE of {whole} tokens, {len(corpus)} Korean documents\n")
    print(table(head, rows))


def _named(options: dict[str, Any]) -> str:
    return "by script" if "keep_languages" in options else f"used {options.get('min_count', 1)} times"


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.1%})"


def _read(before: Any, after: Any, texts: Sequence[str]) -> tuple[float, float]:
    """Share of texts that have the same tokens, and how many more tokens they have."""
    rows = [[one.convert_ids_to_tokens(ids) for ids in one(list(texts))["input_ids"]] for one in (before, after)]
    return _figures(*rows)


def _read_by(before: Tokenizer, after: Tokenizer, ids: Sequence[int], texts: Sequence[str]) -> tuple[float, float]:
    return _figures(list(tokenized(before, texts)), [[ids[n] for n in row] for row in tokenized(after, texts)])


def _figures(old: Sequence[list[Any]], new: Sequence[list[Any]]) -> tuple[float, float]:
    same = sum(a == b for a, b in zip(old, new, strict=True))
    return same / len(old), sum(map(len, new)) / sum(map(len, old))


def _korean(folder: Path) -> Iterable[str]:
    with (folder / "korean" / "dialogue.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            yield f"{row['Q']} {row['A']}"
    with (folder / "korean" / "nsmc.tsv").open(encoding="utf-8") as stream:
        for line in list(stream)[1:]:
            yield line.split("\t")[1]


def _english(folder: Path) -> Iterable[str]:
    for name in ("tinystories/train.txt", "wikitext-2/valid.txt"):
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        yield from (line for line in lines if len(line) > 20)


def _trained(texts: Sequence[str]) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return core


if __name__ == "__main__":
    main()
