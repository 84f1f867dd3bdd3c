"""Small trained tokenizers of every kind, and text in two languages to train and read."""

from __future__ import annotations

import functools
import json

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from whet import starter
from whet.pruning.vocabulary import main_script

SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
KINDS = ("bytes", "whole words", "pieces", "unigram", "unigram, bytes", "wordpiece")
STRINGS = ["🦊👩🏽‍🚀 emoji", "가나다 mixed さくら Ω", "뷁 龘 ᚠᚢᚦ", " two  spaces\n", "안녕하세요, 반갑습니다."]


@functools.cache
def documents(language=None, seed=0):
    """Documents of both languages, or of one: `ko`, `en`."""
    script = {"ko": "HANGUL", "en": "LATIN", None: None}[language]
    return [text for text in starter.documents(seed, 300) if script is None or main_script(text) == script]


@functools.cache
def trained(kind, size=1200):
    """The text of a tokenizer.json of a kind."""
    return _MAKERS[kind](size).to_str()


def fast(kind, size=1200):
    """It as transformers has it."""
    core = Tokenizer.from_str(trained(kind, size))
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _bytes(size):
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(documents(), trainer)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return core


def _whole_words(size):
    """As tiktoken's are converted: words that are tokens are looked up, and every pair that makes a token merges."""
    said = json.loads(trained("bytes", size))
    model = said["model"]
    model["ignore_merges"] = True
    vocab = model["vocab"]
    pairs = [(t[:i], t[i:], n) for t, n in vocab.items() for i in range(1, len(t)) if n >= len(SPECIAL)]
    model["merges"] = [[a, b] for a, b, _ in sorted(pairs, key=lambda pair: pair[2]) if a in vocab and b in vocab]
    vocab["ĠhopĠby"] = len(vocab)  # made of no merge
    return Tokenizer.from_str(json.dumps(said))


def _pieces(size):
    """As SentencePiece's are converted: over characters, with bytes for those that are none."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL + BYTES, show_progress=False)
    core.train_from_iterator([text[:200] for text in documents()], trainer)
    said = json.loads(core.to_str())
    said["added_tokens"] = [one for one in said["added_tokens"] if one["content"] in SPECIAL]
    vocab = said["model"]["vocab"]
    pairs = [(t[:i], t[i:], n) for t, n in vocab.items() for i in range(1, len(t)) if n >= 259]
    said["model"]["merges"] = [
        [a, b] for a, b, _ in sorted(pairs, key=lambda pair: pair[2]) if a in vocab and b in vocab
    ]
    said["decoder"] = json.loads(
        '{"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},'
        '{"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}'
    )
    return Tokenizer.from_str(json.dumps(said))


def _unigram(size, byte_fallback=False):
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    core.train_from_iterator(documents(), trainer)
    if not byte_fallback:
        return core
    said = json.loads(core.to_str())
    said["model"]["vocab"] = [*said["model"]["vocab"][:3], *([one, 0.0] for one in BYTES), *said["model"]["vocab"][3:]]
    said["model"]["byte_fallback"] = True
    said["decoder"] = json.loads(
        '{"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Metaspace", "replacement": "▁",'
        '"prepend_scheme": "always", "split": true}]}'
    )
    return Tokenizer.from_str(json.dumps(said))


def _wordpiece(size):
    core = Tokenizer(models.WordPiece(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.train_from_iterator(
        documents(), trainers.WordPieceTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False)
    )
    core.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 1))
    return core


_MAKERS = {
    "bytes": _bytes,
    "whole words": _whole_words,
    "pieces": _pieces,
    "unigram": _unigram,
    "unigram, bytes": functools.partial(_unigram, byte_fallback=True),
    "wordpiece": lambda size: _wordpiece(2 * size),
}
