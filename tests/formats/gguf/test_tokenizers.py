"""Tokenizers: llama.cpp reads a text as the tokens that the model's own tokenizer makes, or the file is not written."""

from __future__ import annotations

import json
from unicodedata import normalize

import pytest
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as cores
from transformers import AddedToken, PreTrainedTokenizerFast

import models
from whet.engines.llamacpp import open_gguf
from whet.errors import GateError, UsageError
from whet.formats.export import export
from whet.formats.gguf import plan_gguf, write_gguf
from whet.formats.gguf.tokenizers import PRE_TOKENIZERS, fitting_name, vocabulary
from whet.formats.running import SAMPLES
from wording import each

ROWS = 420
TEXTS = (
    *SAMPLES,
    "</s> in the <s>middle",
    "1234567 12,345.678",
    "don't DON'T we'll",
    "\n\n\n  \t x \r\n",
    "가나다라 마바사",
)


def step(said):
    kind = said[0]
    if kind == "ByteLevel":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=said[1])
    if kind == "Digits":
        return pre_tokenizers.Digits(individual_digits=said[1])
    return pre_tokenizers.Split(Regex(said[1]), behavior=said[2], invert=said[3])


def byte_level(row):
    core = Tokenizer(cores.BPE(ignore_merges=row.whole_words))
    core.pre_tokenizer = pre_tokenizers.Sequence([step(said) for said in row.steps])
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=ROWS,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(TEXTS * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def sentencepiece(merges=True, prefix=True):
    """BPE over characters with bytes for those it does not know, as SentencePiece's are converted."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", *"abcdehilnorstuw가나다."]
    pairs = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("i", "n"), ("▁", "가"), ("a", "n"), ("▁", "a"), ("▁a", "n")]
    pairs += [("▁", "an")]  # every pair that makes a piece, as SentencePiece lists them
    pieces += dict.fromkeys(a + b for a, b in pairs)
    core = Tokenizer(
        cores.BPE(
            vocab={p: i for i, p in enumerate(pieces)},
            merges=pairs if merges else [],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    marks = normalizers.Replace(" ", "▁")
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), marks]) if prefix else marks
    tail = [decoders.Strip(content=" ", left=1)] if prefix else []
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *tail])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def unigram():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁the", -3.0), ("▁a", -3.5), ("he", -4.0)]
    pieces += [(c, -6.0 - 0.01 * i) for i, c in enumerate("abcdefghijklmnopqrstuvwxyz가나다.,0123456789")]
    core = Tokenizer(cores.Unigram(pieces, unk_id=2, byte_fallback=False))
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    core.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


def model_with(tokenizer, folder, **more):
    models.make(folder, with_tokenizer=False, vocab_size=ROWS, **more)
    tokenizer.save_pretrained(folder)
    return folder


def opened(tokenizer, folder):
    """The tokenizer in llama.cpp, through a file."""
    pytest.importorskip("llama_cpp")
    model_with(tokenizer, folder)
    write_gguf(plan_gguf(folder), folder / "m.gguf")
    return open_gguf(folder / "m.gguf")


@pytest.mark.parametrize("row", PRE_TOKENIZERS, ids=lambda row: row.name)
def test_byte_level_bpe_splits_as_the_name_says(row, tmp_path):
    tokenizer = byte_level(row)
    engine = opened(tokenizer, tmp_path)
    assert engine.file.metadata["tokenizer.ggml.pre"] == row.name
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert engine.encode(text) == ids, text
        assert engine.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True), text


@pytest.mark.parametrize("merges", [True, False])
@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_bpe_falls_back_to_bytes(merges, prefix, tmp_path):
    tokenizer = sentencepiece(merges, prefix)
    if not merges:  # pieces that no merge makes are never made, so they are left out here
        tokenizer = sentencepiece_of_characters(prefix)
    engine = opened(tokenizer, tmp_path)
    assert engine.before == [1]
    for text in (*SAMPLES, "the in the  an 가나 다", "가", "x"):
        ids = tokenizer(text)["input_ids"]
        assert engine.encode(text) == ids, text
        assert engine.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True), text


def sentencepiece_of_characters(prefix):
    whole = json.loads(sentencepiece(False, prefix).backend_tokenizer.to_str())
    vocab = [p for p in whole["model"]["vocab"] if len(p) == 1 or p.startswith("<")]
    whole["model"]["vocab"] = {p: i for i, p in enumerate(vocab)}
    core = Tokenizer.from_str(json.dumps(whole))
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_unigrams(tmp_path):
    tokenizer = unigram()
    engine = opened(tokenizer, tmp_path)
    assert engine.file.metadata["tokenizer.ggml.model"] == "t5"
    for text in ("the cat had a hat.", "가나 다, 12", "he the heat"):
        assert engine.encode(text) == tokenizer(text)["input_ids"], text


def test_special_tokens_template_and_unused_rows_are_written(tmp_path):
    tokenizer = models.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.add_tokens(["whet"])
    tokenizer.chat_template = "{% for m in messages %}<|turn|>{{ m['content'] }}{% endfor %}<|turn|>"
    engine = opened(tokenizer, tmp_path)
    about = engine.file.metadata
    assert about["tokenizer.ggml.bos_token_id"] == 0 and about["tokenizer.ggml.eos_token_id"] == 1
    assert about["tokenizer.ggml.add_bos_token"] is True and about["tokenizer.ggml.add_eos_token"] is False
    types = about["tokenizer.ggml.token_type"]
    assert [types[i] for i in (0, 258, 259, 260, ROWS - 1)] == [3, 3, 4, 5, 5]
    assert engine.file.tokens[ROWS - 1] == f"[PAD{ROWS - 1}]"
    assert engine.tokenizer.get_vocab() == tokenizer.get_vocab()
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "a whet"}], tokenize=False)
    assert engine.encode("a whet", chat=True) == tokenizer(chat)["input_ids"]


@each("default", [True, False])
def test_several_templates_are_written_by_name(default):
    tokenizer = models.tokenizer()
    tokenizer.chat_template = {"tool": "{{ 'b' }}", **({"default": "{{ 'a' }}"} if default else {})}
    made = vocabulary(tokenizer, ROWS, "m")
    assert made.entries.get("tokenizer.chat_template") == ("{{ 'a' }}" if default else None)
    assert made.entries["tokenizer.chat_templates"] == ["tool"]
    assert made.entries["tokenizer.chat_template.tool"] == "{{ 'b' }}"
    assert any("by name (tool)" in note for note in made.notes) != default


def test_every_other_way_of_splitting_is_refused(tmp_path):
    core = byte_level(PRE_TOKENIZERS[0])
    core.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(
        UsageError, match=r"its tokenizer splits text in a way that is not in whet's table.*Punctuation"
    ):
        vocabulary(core, ROWS, "m")
    core.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(UsageError, match="splits text in a way"):
        vocabulary(core, ROWS, "m")


@pytest.mark.parametrize(
    "change,said",
    [
        ({"type": "WordLevel"}, "is a WordLevel"),
        ({"byte_fallback": False}, "without bytes for those it does not know"),
        ({"end_of_word_suffix": "</w>"}, "has a end_of_word_suffix"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizes text by Lowercase"),
        ({"normalizer": None}, "does not write spaces as ▁"),
    ],
)
def test_what_llama_cpp_has_no_tokenizer_for_is_refused(change, said):
    class Core:
        def to_str(self):
            whole = json.loads(sentencepiece().backend_tokenizer.to_str())
            normalizer = change.get("normalizer", whole["normalizer"])
            whole["model"] |= {k: v for k, v in change.items() if k != "normalizer"}
            return json.dumps({**whole, "normalizer": normalizer})

    class Words:
        backend_tokenizer = Core()

    with pytest.raises(UsageError, match=f"^m: its tokenizer .*{said}"):
        vocabulary(Words(), ROWS, "m")


def test_a_tokenizer_without_an_end_is_refused():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=models.tokenizer().backend_tokenizer)
    with pytest.raises(UsageError, match="names no token that ends a text"):
        vocabulary(tokenizer, ROWS, "m")
    cut = vocabulary(models.tokenizer(extra=9), models.VOCABULARY, "m")
    assert len(cut.entries["tokenizer.ggml.tokens"]) == models.VOCABULARY
    assert cut.notes == ["3 tokens of the tokenizer have no row in the embedding and are left out"]
    assert vocabulary(tokenizer, ROWS, "m", [7]).entries["tokenizer.ggml.eos_token_id"] == 7


def test_what_llama_cpp_does_otherwise_with_added_tokens_and_ends_is_told(tmp_path):
    """A file is made all the same, and every difference has a note that names the token or the text."""
    pytest.importorskip("llama_cpp")
    tokenizer = models.tokenizer()
    flags = {"<L>": {"lstrip": True}, "<W>": {"single_word": True}, "<R>": {"rstrip": True}, "<P>": {}}
    tokenizer.add_tokens([AddedToken(content, **flag) for content, flag in flags.items()])
    core = tokenizer.backend_tokenizer
    core.post_processor = processors.TemplateProcessing(single="$A <P>", special_tokens=[("<P>", 261)])
    folder = model_with(tokenizer, tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 7, 40, 41, 42]}))
    made = export(folder, out=tmp_path / "m.gguf")
    assert list(map(str, made["notes"])) == [
        "llama.cpp has three tokens that end a text: it does not stop at 'G', 'H', 'I'",
        "the tokenizer takes spaces before '<L>' to them, llama.cpp does not",
        "the tokenizer looks for '<W>' as whole words alone, llama.cpp finds them inside words too",
        "the tokenizer takes spaces after special tokens to them, llama.cpp does not for this model",
    ]
    about = open_gguf(tmp_path / "m.gguf").file.metadata
    assert [about[f"tokenizer.ggml.{name}_token_id"] for name in ("eos", "eot", "eom")] == [261, 1, 7]
    assert about["tokenizer.ggml.add_eos_token"] is True


def test_added_tokens_read_as_others_are_told(tmp_path):
    """The tokenizer looks for this one in the normalized text, where it begins with a mark for a space."""
    pytest.importorskip("llama_cpp")
    tokenizer = sentencepiece()
    tokenizer.add_tokens([AddedToken("brick", normalized=True)])
    made = export(model_with(tokenizer, tmp_path / "model"), out=tmp_path / "m.gguf")
    assert "texts with an added token as other tokens than the tokenizer does: of 'abrickb'" in str(made["notes"][0])


def test_a_text_of_decomposed_characters_is_composed_as_the_tokenizer_does(tmp_path):
    pytest.importorskip("llama_cpp")
    tokenizer = byte_level(PRE_TOKENIZERS[4])
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    folder = model_with(tokenizer, tmp_path / "model")
    made = export(folder, out=tmp_path / "m.gguf", text=[normalize("NFD", "가나다 café ") * 40])
    assert made["check"]["tokens"] == len(SAMPLES) + 1 and "composes characters" in str(made["notes"][0])


def test_a_name_llama_cpp_takes_for_another_tokenizer_is_changed():
    """It looks for phi-3's tokens in every file that is called so, and does not load one without them."""
    made = vocabulary(models.tokenizer(), ROWS, "m")
    assert fitting_name("My-Phi3-mini", made) == "My-Phi 3-mini" and fitting_name("other", made) == "other"


def test_a_tokenizer_llama_cpp_reads_otherwise_leaves_no_file(tmp_path):
    """Pieces that no merge makes: llama.cpp makes them all the same."""
    notes = vocabulary(sentencepiece(merges=False), ROWS, "m").notes
    assert "joins 9 pairs of pieces that the tokenizer does not ('a' and 'n')" in notes[0]
    assert not vocabulary(sentencepiece(), ROWS, "m").notes
    pytest.importorskip("llama_cpp")
    folder = model_with(sentencepiece(merges=False), tmp_path / "model")
    with pytest.raises(GateError, match=r"llama\.cpp reads .* as other tokens than the model's tokenizer"):
        export(folder, out=tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()
