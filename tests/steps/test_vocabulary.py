"""A model with fewer tokens: it is as large as was said, and of the tokens that stay it computes the same."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
import vocabularies
import whet
from killing import Ticks, counted, killed
from vocabularies import STRINGS, documents
from whet import starter
from whet.apply.run import Run
from whet.checkpoint import Checkpoint, load_model, load_tokenizer, read_map, rows_between, write_rows
from whet.checkpoint.gguf import read_gguf
from whet.engines.llamacpp import open_gguf
from whet.engines.torch import open_model
from whet.errors import GateError, UsageError
from whet.measure.divergence import divergence
from whet.measure.evidence import GateMaterial, Pair, find_windows
from whet.steps import vocabulary as step
from whet.steps import vocabulary_proof as proof
from whet.steps.vocabulary import cut_vocabulary, resume_vocabulary

ROWS = 1280
# A family of every way to store what the vocabulary sizes, and how it is built.
FAMILIES = {
    "llama": {"shards": True},
    "gpt2": {"tied": True},
    "bert": {"architecture": "AutoModelForMaskedLM", "tied": True},
    "t5": {"architecture": "AutoModelForSeq2SeqLM", "tied": True, "shards": True},
    "gpt_neox": {},
    "qwen3_moe": {},
    "olmoe": {},  # of which whet has no table
}


def make(folder, family="llama", kind="bytes", rows=ROWS, **more):
    """A tiny model with one of the trained tokenizers, its embedding longer than that."""
    models.make(folder, family, vocab_size=rows, with_tokenizer=False, **{**FAMILIES.get(family, {}), **more})
    vocabularies.fast(kind).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def korean(tmp_path_factory):
    """The starter cut to its Korean: the folder, what was said before and what came of it."""
    out = tmp_path_factory.mktemp("korean") / "out"
    asked = {"vocab": documents("ko"), "eval_text": documents("en")}
    said = cut_vocabulary(starter.path(), out, dry_run=True, **asked)
    assert not out.exists()
    return out, said, cut_vocabulary(starter.path(), out, **asked)


def test_the_folder_is_as_large_as_was_said_to_the_byte(korean):
    out, said, made = korean
    assert made["sizes"]["lighter"]["total"] == said["sizes"]["lighter"]["total"] == said["disk"]
    assert made["sizes"]["lighter"]["total"] == sum(file.stat().st_size for file in out.iterdir())
    assert said["tokens"] == made["tokens"] and made["tokens"]["lighter"] % 64 == 0
    rows = made["tokens"]["original"] - made["tokens"]["lighter"]
    before, after = (made["sizes"][side] for side in ("original", "lighter"))
    assert before["embedding"] - after["embedding"] == rows * 256 * 2 > 500_000
    assert whet.verify(out)["verdict"] == "pass"


def test_it_says_beforehand_which_text_becomes_longer(korean):
    out, said, _ = korean
    ratio = {(one["text"], one["of"]): one["ratio"] for one in said["lengths"]}
    assert ratio["corpus", "hangul"] == 1 and ratio["eval", "latin"] > 1.3
    tokens = [sum(map(len, load_tokenizer(f)(documents("en"))["input_ids"])) for f in (starter.path(), out)]
    assert ratio["eval", "latin"] == pytest.approx(tokens[1] / tokens[0])


def test_tokens_hidden_states_and_logits_are_the_originals(korean):
    """Independently of the step's own proof."""
    out, _, made = korean
    rows = torch.tensor(rows_between(starter.path(), out))
    before, after = (load_tokenizer(folder) for folder in (starter.path(), out))
    first, second = load_model(starter.path()), load_model(out)
    for text in documents("ko")[:6]:
        old, new = (tokenizer(text, return_tensors="pt")["input_ids"][:, :200] for tokenizer in (before, after))
        assert torch.equal(rows[new], old)
        assert before.convert_ids_to_tokens(old[0]) == after.convert_ids_to_tokens(new[0])
        with torch.inference_mode():
            one, other = first(old, output_hidden_states=True), second(new, output_hidden_states=True)
        assert all(map(torch.equal, one.hidden_states, other.hidden_states))
        assert torch.equal(one.logits[..., rows], other.logits)
    assert made["check"]["tokens"]["same"] == len(documents("ko"))


def test_compared_with_the_original_only_the_mass_of_what_is_gone_is_lost(korean, no_process):
    out, _, _ = korean
    seen = whet.compare(starter.path(), out, text=documents("ko"), windows=40, speed=False)
    other = whet.compare(starter.path(), out, text=documents(seed=3), windows=40, speed=False)
    for found in (seen, other):
        assert found["verdict"] == "pass"
        assert found["divergence"]["kl"]["mean"] == 0 and found["divergence"]["top1"]["mean"] == 1
        assert 0 < found["divergence"]["kept"]["nats"] < 0.1
    assert any("chose the tokens" in note for note in seen["notes"])
    assert not any("chose the tokens" in note for note in other["notes"])
    assert seen["text"]["tokens"] > 1000
    (share,) = (note.values["share"] for note in other["notes"] if "share" in getattr(note, "values", {}))
    assert 0.2 < share < 0.95
    assert whet.compare(out, out, text=documents("ko"), windows=9, speed=False)["divergence"].get("kept") is None


def test_the_mass_that_is_kept_is_what_renormalizing_leaves_out(korean, no_process):
    out, _, _ = korean
    text = documents("ko")[:12]
    found = whet.compare(starter.path(), out, text=text, windows=None, window=32, speed=False)
    rows = torch.tensor(rows_between(starter.path(), out))
    model, tokenizer = load_model(starter.path()), load_tokenizer(starter.path())
    lost = []
    for ids in tokenizer(text)["input_ids"]:
        for start in range(0, len(ids), 32):
            window = torch.tensor([ids[start : start + 32]])
            if window.shape[1] >= 8:
                with torch.inference_mode():
                    p = model(window).logits[0, :-1].float().softmax(-1)
                lost.append(-p[:, rows].sum(-1).log())
    assert found["divergence"]["kept"]["nats"] == pytest.approx(torch.cat(lost).mean().item(), abs=1e-5)


def test_what_comes_after_works(korean, tmp_path, no_process):
    """Writing, rounding, and comparing what was rounded with the uncut original."""
    out, _, _ = korean
    prompt = documents("ko")[0][:40]
    assert whet.generate(out, prompt, max_new_tokens=4)
    first, ids = load_model(starter.path(), dtype=torch.float32), list(read_map(out).ids)
    engine = open_model(out, dtype="float32")
    row = load_tokenizer(starter.path())(prompt)["input_ids"]
    (made,) = engine.continue_ids([engine.encode(prompt)], 12)
    for token in made:  # of the original, the likeliest token that stays
        with torch.inference_mode():
            likeliest = int(first(torch.tensor([row])).logits[0, -1, ids].argmax())
        assert token == likeliest
        row.append(ids[token])
    whet.compress(out, tmp_path / "q", scheme="int8s-g32", solver="nearest")
    assert read_map(tmp_path / "q") == read_map(out)
    found = whet.compare(starter.path(), tmp_path / "q", text=documents("ko"), windows=20, speed=False)
    assert 0 < found["divergence"]["kl"]["mean"] < 0.01 and found["divergence"]["kept"]["nats"] > 0
    lineage = json.loads((tmp_path / "q" / "whet.json").read_text())["lineage"]
    assert [one["step"] for one in lineage] == ["prune", "quantize"]


def test_llama_cpp_reads_the_same_tokens(korean, tmp_path):
    pytest.importorskip("llama_cpp")
    out, _, _ = korean
    whet.export(out, out=tmp_path / "m.gguf")
    engine, tokenizer = open_gguf(tmp_path / "m.gguf", threads=1), load_tokenizer(out)
    tokens = read_gguf(tmp_path / "m.gguf").tokens
    assert tokens == tokenizer.convert_ids_to_tokens(list(range(len(tokens))))
    for text in [*STRINGS, *documents("ko")[:20], *documents("en")[:20]]:
        ids = engine.tokenize(text)
        assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert engine.decode(ids) == text


def test_the_file_for_llama_cpp_is_compared_with_the_uncut_original(korean, tmp_path, no_process):
    pytest.importorskip("llama_cpp")
    out, _, _ = korean
    whet.export(out, out=tmp_path / "m.gguf", kind="bf16")
    assert read_map(tmp_path / "m.gguf") == read_map(out)
    found = whet.compare(starter.path(), tmp_path / "m.gguf", text=documents("ko"), windows=8, window=64, speed=False)
    assert 0 <= found["divergence"]["kl"]["mean"] < 0.01 and found["divergence"]["kept"]["nats"] > 0


def test_gates_read_what_both_models_read_alike(korean):
    """Documents, and windows of the original's ids, such as it has written itself."""
    out, _, _ = korean
    rows = set(read_map(out).ids)
    written = [torch.tensor(load_tokenizer(starter.path())(text)["input_ids"]) for text in documents(seed=2)[:40]]
    for text, fewest in ((documents(seed=2)[:40], 5), (written, 5)):
        found = find_windows(starter.path(), out, GateMaterial(text=text, window=64, windows=50), seed=0)
        assert len(found.windows) > fewest and all(len(window) >= 8 for window in found.windows)
        assert all(int(window.min()) >= 0 and int(window.max()) < len(rows) for window in found.windows)
    pair = Pair((starter.path(), out), "cpu", None, lambda event: None)
    assert divergence(pair.original, pair.lighter, found.windows, rows=pair.rows).kl.max() == 0


@pytest.mark.parametrize("kind", ["pieces", "whole words"])
def test_llama_cpp_reads_other_kinds_alike(tmp_path, kind):
    pytest.importorskip("llama_cpp")
    make(tmp_path / "m", kind=kind, shards=False)
    if kind == "whole words":  # of those llama.cpp knows, one that looks words up
        text = json.loads((tmp_path / "m" / "tokenizer.json").read_text())
        split = (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
        steps = [
            {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ]
        text["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
        (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(text))
    cut_vocabulary(tmp_path / "m", tmp_path / "out", vocab=documents("ko")[:60])
    whet.export(tmp_path / "out", out=tmp_path / "m.gguf")
    engine, tokenizer = open_gguf(tmp_path / "m.gguf", threads=1), load_tokenizer(tmp_path / "out")
    for text in [*STRINGS, *documents("ko")[:40], *documents("en")[:20]]:
        assert engine.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"], text


@pytest.mark.parametrize("family", FAMILIES)
def test_every_way_to_store_a_vocabulary_is_cut(tmp_path, family):
    make(tmp_path / "m", family)
    models.edit_config(tmp_path / "m", eos_token_id=[2, 1], pad_token_id=1203)
    said = cut_vocabulary(tmp_path / "m", tmp_path / "out", vocab=documents("ko")[:40], dry_run=True)
    made = cut_vocabulary(tmp_path / "m", tmp_path / "out", vocab=documents("ko")[:40])
    count = made["tokens"]["lighter"]
    assert made["sizes"]["lighter"]["total"] == said["disk"] and count < ROWS
    assert made["check"]["model"]["hidden states"] > 2
    config = Checkpoint(tmp_path / "out").config
    assert config["vocab_size"] == count and config["eos_token_id"] == [2, 1]
    assert config["pad_token_id"] == count - 1  # a row of no token, behind all that are
    assert ROWS not in {size for shape in Checkpoint(tmp_path / "out").shapes.values() for size in shape}


def test_all_files_that_name_tokens_are_rewritten_or_left_out(tmp_path):
    folder = make(tmp_path / "m", "gpt2")
    said = json.loads((folder / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(said["model"]["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in said["model"]["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "spiece.model").write_bytes(b"another form")
    (folder / "generation_config.json").write_text(json.dumps({"suppress_tokens": [900], "eos_token_id": 2}))
    made = cut_vocabulary(folder, tmp_path / "out", vocab=documents("ko")[:40])
    ids = read_map(tmp_path / "out").ids
    vocab = json.loads((tmp_path / "out" / "vocab.json").read_text())
    cut = json.loads((tmp_path / "out" / "tokenizer.json").read_text())["model"]
    assert vocab == cut["vocab"] and {said["model"]["vocab"][t]: n for t, n in vocab.items()} == {
        old: new for new, old in enumerate(ids) if old in set(said["model"]["vocab"].values())
    }
    left = (tmp_path / "out" / "merges.txt").read_text().splitlines()
    assert left[1:] == [pair if isinstance(pair, str) else " ".join(pair) for pair in cut["merges"]]
    assert ids[json.loads((tmp_path / "out" / "generation_config.json").read_text())["suppress_tokens"][0]] == 900
    assert not (tmp_path / "out" / "spiece.model").exists()
    assert any("spiece.model" in note for note in made["notes"])


def test_a_stored_copy_of_a_tied_head_is_left_out(tmp_path):
    folder = make(tmp_path / "m", shards=False, tied=True)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, file, {"format": "pt"})
    asked = {"vocab": documents("ko")[:40]}
    said = cut_vocabulary(folder, tmp_path / "out", dry_run=True, **asked)
    made = cut_vocabulary(folder, tmp_path / "out", **asked)
    assert "lm_head.weight" not in Checkpoint(tmp_path / "out").tensors
    assert made["sizes"]["lighter"]["total"] == said["disk"]


def test_a_cut_model_is_cut_again_and_its_map_tells_of_the_first(tmp_path, no_process):
    folder = make(tmp_path / "m", shards=False)
    cut_vocabulary(folder, tmp_path / "one", vocab=documents("ko")[:60])
    made = cut_vocabulary(tmp_path / "one", tmp_path / "two", vocab=documents("ko")[:5])
    words = [load_tokenizer(tmp_path / name).get_vocab() for name in ("m", "two")]
    ids = read_map(tmp_path / "two").ids
    assert all(words[0][token] == ids[number] for token, number in words[1].items())
    assert len(ids) == made["tokens"]["lighter"] < len(read_map(tmp_path / "one").ids)
    for first in ("m", "one"):
        found = whet.compare(tmp_path / first, tmp_path / "two", text=documents("ko")[:5], windows=9, speed=False)
        assert found["divergence"]["kl"]["mean"] < 1e-6
    lineage = json.loads((tmp_path / "two" / "whet.json").read_text())["lineage"]
    assert [one["tokens"]["lighter"] for one in lineage] == [len(read_map(tmp_path / n).ids) for n in ("one", "two")]


def test_killed_and_resumed_the_bytes_are_the_same(tmp_path):
    folder = make(tmp_path / "m")
    asked = {"vocab": documents("ko")[:20]}
    cut_vocabulary(folder, tmp_path / "whole", **asked)
    wanted = models.contents(tmp_path / "whole")
    moments = counted(lambda: cut_vocabulary(folder, tmp_path / "counted", **asked))
    assert moments > 20
    for place, moment in enumerate(range(7, moments, moments // 4)):
        out = tmp_path / f"out{place}"
        killed(lambda out=out: cut_vocabulary(folder, out, **asked), lambda moment=moment: Ticks(moment))
        run = Run(out)
        if run.begun and place % 2:
            resume_vocabulary(run, run.request())
        else:
            cut_vocabulary(folder, out, **asked)
        assert models.contents(out) == wanted


def test_another_corpus_is_another_run(tmp_path):
    folder = make(tmp_path / "m")
    killed(
        lambda: cut_vocabulary(folder, tmp_path / "out", vocab=documents("ko")[:20]),
        lambda: setattr(step, "prove_cut", lambda *_: Ticks.__init__.__globals__["die"]()),
    )
    with pytest.raises(UsageError, match="cannot go on"):
        cut_vocabulary(folder, tmp_path / "out", vocab=documents("ko")[:21])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "Say which tokens are needed"),
        ({"vocab": ["한글"], "min_count": 0}, "once or more"),
        ({"keep_languages": ["xx"]}, "no language"),
        ({"keep_languages": ["ko", "en"]}, "nothing to cut"),
        ({"vocab": ["  "]}, "no text"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path, asked, said):
    folder = make(tmp_path / "m", rows=1200)
    with pytest.raises(UsageError, match=said):
        cut_vocabulary(folder, tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_a_quantized_folder_is_refused(tmp_path):
    folder = make(tmp_path / "m", shards=False)
    whet.compress(folder, tmp_path / "q", scheme="int8s-g32", solver="nearest")
    with pytest.raises(UsageError, match="quantized"):
        cut_vocabulary(tmp_path / "q", tmp_path / "out", vocab=documents("ko"))


@pytest.mark.parametrize("part", ["rows", "tokens"])
def test_the_proof_can_fail(tmp_path, monkeypatch, part):
    """Rows in another order are other hidden states; tokens without merges are other tokens."""
    folder = make(tmp_path / "m", shards=False)
    if part == "rows":
        monkeypatch.setattr(proof, "_weights", lambda *_: 0)
        monkeypatch.setattr(
            step,
            "write_rows",
            lambda file, path, rows: write_rows(file, path, type(rows)(rows.ids.flip(0), rows.of, rows.without)),
        )
    else:
        made = step.plan_cut

        def damaged(*args, **options):
            cut = made(*args, **options)
            said = json.loads(cut.files["tokenizer.json"])
            said["model"]["merges"] = said["model"]["merges"][:50]
            cut.files["tokenizer.json"] = json.dumps(said).encode()
            return cut

        monkeypatch.setattr(step, "plan_cut", damaged)
    with pytest.raises(GateError, match={"rows": "hidden states", "tokens": "other tokens"}[part]):
        cut_vocabulary(folder, tmp_path / "out", vocab=documents("ko")[:20])
    shutil.rmtree(tmp_path / "out")
