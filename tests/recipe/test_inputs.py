"""Wrong inputs: each one paragraph that names thing, cause and remedy, the right exit code, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from whet.checkpoint import files
from whet.errors import MachineError, UsageError, WhetError
from whet.recipe.compress import compress
from wording import each

room = sys.modules["whet.steps.estimate"]

WINDOWS = torch.randint(0, 264, (3, 16), generator=torch.Generator().manual_seed(0))
NEAREST = {"scheme": "int4s-g32", "solver": "nearest"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("inputs") / "model", shards=True)


@pytest.fixture
def model(shared, tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(shared, tmp_path / "model")
    return tmp_path / "model"


def refused(kind: type[WhetError], *what: str, model, out, **choices) -> str:
    """The message of a call that must fail: of class `kind`, naming `what`, one paragraph, and without a trace."""
    existed = out.exists()
    before = models.contents(out) if existed and out.is_dir() else None
    around = sorted(p.name for p in out.parent.iterdir()) if out.parent.is_dir() else None
    with pytest.raises(WhetError) as raised:
        compress(model, out, **{**NEAREST, **choices})
    message = str(raised.value)
    assert type(raised.value) is kind, raised.value
    assert raised.value.exit_code == {UsageError: 2, MachineError: 3}[kind]
    for part in what:
        assert part in message, message
    assert "\n" not in message and message.endswith((".", ")")) and 40 < len(message) < 700
    assert out.exists() == existed
    if around is not None:
        assert sorted(p.name for p in out.parent.iterdir()) == around
    if before is not None:
        assert models.contents(out) == before
    return message


# -- the model --------------------------------------------------------------------------------------------------------


def test_a_path_that_does_not_exist(model, tmp_path):
    refused(UsageError, "modle does not exist", "Did you mean model?", model=tmp_path / "modle", out=tmp_path / "out")
    refused(UsageError, "does not exist", "hub name", model=tmp_path / "a" / "b", out=tmp_path / "out")


def test_a_file_instead_of_a_folder(model, tmp_path):
    refused(UsageError, "is a file. Give the folder", model=model / "config.json", out=tmp_path / "out")


def test_a_truncated_shard(model, tmp_path):
    shard = sorted(model.glob("*.safetensors"))[1]
    os.truncate(shard, shard.stat().st_size - 100)
    refused(UsageError, shard.name, "cut off", "Download it again", model=model, out=tmp_path / "out")


@pytest.mark.parametrize("choices", [{}, {"solver": "gptq", "text": WINDOWS}])
def test_weights_that_are_nan(model, tmp_path, choices):
    shard = sorted(model.glob("*.safetensors"))[1]
    tensors = load_file(shard)
    name = next(n for n in tensors if tensors[n].dim() == 2)
    tensors[name][2, 3:6] = float("nan")
    save_file(tensors, shard, metadata={"format": "pt"})
    refused(UsageError, shard.name, name, "3 weights that are NaN", model=model, out=tmp_path / "out", **choices)


def test_an_unknown_family(model, tmp_path):
    models.edit_config(model, model_type="gpt_neo_y")
    refused(UsageError, "'gpt_neo_y'", "Families: llama", model=model, out=tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 128},
        {"num_hidden_layers": 3},
        {"num_attention_heads": 3},
        {"hidden_act": "nonsense"},
        {"attention_bias": True},
        {"vocab_size": 300},
        {"num_key_value_heads": 4},
    ],
)
def test_a_config_of_another_model(model, tmp_path, change):
    models.edit_config(model, **change)
    refused(UsageError, "config.json", "ownload", model=model, out=tmp_path / "out")


def test_weights_a_config_has_no_place_for(tmp_path):
    folder = models.make(tmp_path / "qwen", "qwen3")
    models.edit_config(folder, model_type="llama", architectures=["LlamaForCausalLM"])
    refused(UsageError, "4 tensors in blocks", "k_norm", model=folder, out=tmp_path / "out")


def test_a_missing_tensor(tmp_path):
    folder = models.make(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.input_layernorm.weight"]
    save_file(tensors, folder / "model.safetensors")
    refused(UsageError, "model.layers.1.input_layernorm.weight is missing", model=folder, out=tmp_path / "out")


def test_what_is_already_quantized(model, tmp_path):
    for name, choices in {"stock": {}, "own": {"scheme": "int4z-g32"}}.items():
        lighter = tmp_path / name
        compress(model, lighter, **{**NEAREST, **choices})
        refused(UsageError, "already quantized", "base_model", model=lighter, out=tmp_path / "out")
    models.edit_config(model, quantization_config={"quant_method": "awq"})
    refused(UsageError, "already quantized (awq)", "original", model=model, out=tmp_path / "out")


# -- the choices ------------------------------------------------------------------------------------------------------


@each(
    "choices,what",
    [
        ({"scheme": "W4A61"}, ("'W4A61'", "Did you mean W4A16?")),
        ({"embed": "int4s-h32"}, ("'int4s-h32'", "Did you mean int4s-g32?")),
        ({"solver": "gptk"}, ("'gptk'", "Did you mean gptq?")),
        ({"target": "transfomers"}, ("'transfomers'", "Did you mean transformers?")),
        ({"scheme": "int4s-g48"}, ("64", "48 does not divide", "such as 32")),
        ({"scheme": "int3s-g32", "target": "vllm"}, ("vllm has no 3-bit kernel", "4 or 8")),
        ({"samples": 0, "text": WINDOWS}, ("samples is 0", "greater than or equal to 1")),
        ({"window": 4, "text": WINDOWS}, ("window is 4", "greater than or equal to 8")),
    ],
)
def test_a_choice_that_is_not_one(shared, tmp_path, choices, what):
    refused(UsageError, *what, model=shared, out=tmp_path / "out", **choices)


# -- the text ---------------------------------------------------------------------------------------------------------


@each("text", ["", " \n \n", "\n\n\n"])
def test_an_empty_text(shared, tmp_path, text):
    (tmp_path / "t.txt").write_text(text)
    refused(UsageError, "t.txt", model=shared, out=tmp_path / "out", text=tmp_path / "t.txt")


def test_no_documents_at_all(shared, tmp_path):
    for documents in ([], ["", " "]):
        refused(UsageError, "empty", model=shared, out=tmp_path / "out", text=documents)


def test_a_text_shorter_than_a_window(shared, tmp_path):
    (tmp_path / "t.txt").write_text("short " * 10)
    refused(UsageError, "128", "token", model=shared, out=tmp_path / "out", text=tmp_path / "t.txt", window=128)


def test_a_text_that_does_not_exist(shared, tmp_path):
    (tmp_path / "corpus.txt").write_text("x")
    refused(
        UsageError,
        "no such file",
        "Did you mean corpus.txt?",
        model=shared,
        out=tmp_path / "out",
        text=tmp_path / "corps.txt",
    )


def test_an_unknown_key_in_the_text(shared, tmp_path):
    # of one field that holds text it would be read: of two none is
    (tmp_path / "t.jsonl").write_text('{"content": "some text", "title": "some title"}\n')
    refused(UsageError, "content, title", "text", model=shared, out=tmp_path / "out", text=tmp_path / "t.jsonl")
    refused(
        UsageError,
        "Did you mean content?",
        model=shared,
        out=tmp_path / "out",
        text=tmp_path / "t.jsonl",
        field="contents",
    )


def test_an_unknown_argument_is_refused_with_the_nearest_one_before_anything(shared, tmp_path):
    with pytest.raises(UsageError, match=r"schema is not known. Did you mean scheme"):
        compress(shared, tmp_path / "out", schema="W4A16")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_another_model(model, tmp_path):
    models.tokenizer(extra=20).save_pretrained(model)
    text = [f"extra{i % 20} and more words" for i in range(200)]
    refused(
        UsageError, "token 27", "264 rows", "another model", model=model, out=tmp_path / "out", text=text, window=16
    )


def test_a_model_without_tokenizer(tmp_path):
    folder = models.make(tmp_path / "model", with_tokenizer=False)
    refused(UsageError, "no tokenizer", model=folder, out=tmp_path / "out", text=models.documents())


@each(
    "windows,what",
    [
        (torch.full((2, 16), 264), "264 rows"),
        (torch.full((2, 16), -1), "negative"),
        ([torch.zeros(2, 8, dtype=torch.int64)], "rows of at least two"),
        ([torch.zeros(1, dtype=torch.int64)], "rows of at least two"),
    ],
)
def test_windows_that_are_none(shared, tmp_path, windows, what):
    refused(UsageError, what, model=shared, out=tmp_path / "out", text=windows)


def test_a_file_of_windows_without_windows(shared, tmp_path):
    save_file({"tokens": WINDOWS}, tmp_path / "w.safetensors")
    refused(
        UsageError, "holds no tensor `windows`", model=shared, out=tmp_path / "out", text=tmp_path / "w.safetensors"
    )
    refused(UsageError, "does not exist", model=shared, out=tmp_path / "out", text=tmp_path / "v.safetensors")


def test_a_model_that_overflows_names_the_linear(model, tmp_path):
    """Finite weights, but what flows through them is not: refused at the first linear that sees it."""
    shard = next(s for s in sorted(model.glob("*.safetensors")) if "model.layers.0.mlp.up_proj.weight" in load_file(s))
    tensors = load_file(shard)
    tensors["model.layers.0.mlp.up_proj.weight"].fill_(3e38)
    save_file(tensors, shard, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"model\.layers\.0\.mlp\.down_proj: .* inputs are NaN or infinite"):
        compress(model, tmp_path / "out", scheme="int4s-g32", text=WINDOWS)


# -- the place --------------------------------------------------------------------------------------------------------


def test_out_is_not_empty(shared, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    refused(UsageError, "is not empty", "letter.txt", model=shared, out=out)


def test_out_is_a_file_or_below_one(shared, tmp_path):
    (tmp_path / "file").write_text("x")
    refused(UsageError, "is a file", model=shared, out=tmp_path / "file")
    refused(UsageError, "is a file", "Name a folder", model=shared, out=tmp_path / "file" / "out")
    refused(UsageError, "is a file", "Name a folder", model=shared, out=tmp_path / "file" / "a" / "out")


def test_out_is_the_original(model, tmp_path):
    refused(UsageError, "the original's own folder, which is never changed", model=model, out=model)
    (tmp_path / "link").symlink_to(model)
    refused(UsageError, "the original's own folder", model=model, out=tmp_path / "link")


def test_an_empty_out_is_taken(shared, tmp_path):
    (tmp_path / "out").mkdir()
    compress(shared, tmp_path / "out", **NEAREST)
    assert (tmp_path / "out" / "whet.json").exists()


def test_a_folder_one_may_not_write_to(shared, tmp_path, monkeypatch):
    allowed = os.access
    monkeypatch.setattr(room.os, "access", lambda path, mode: mode != os.W_OK and allowed(path, mode))
    refused(MachineError, "may not write", "Choose another folder", model=shared, out=tmp_path / "out")


def test_a_folder_that_refuses_only_when_written_to(shared, tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "out"))

    monkeypatch.setattr(os, "mkdir", refuse)
    refused(MachineError, "cannot be written", "Choose a folder", model=shared, out=tmp_path / "out")


def test_a_disk_too_small_is_refused_beforehand(shared, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _path: usage(10**9, 10**9, 100_000))
    refused(MachineError, "0 MB free", "Free some space", model=shared, out=tmp_path / "out")


def test_a_machine_too_small_is_refused_beforehand(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "available_memory", lambda: 10**8)
    refused(MachineError, "0.1 GB", "--samples", model=shared, out=tmp_path / "out")


def test_a_disk_that_is_full_before_the_first_shard_leaves_nothing(shared, tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    refused(MachineError, "full", model=shared, out=tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_a_disk_that_fills_up_keeps_what_is_finished(shared, tmp_path, monkeypatch):
    from whet.recipe.resume import resume

    compress(shared, tmp_path / "one", **NEAREST)
    save, count = files.save_file, [0]

    def full(*args, **kwargs):
        count[0] += 1
        if count[0] == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(files, "save_file", full)
        with pytest.raises(MachineError, match=r"full.*same command again"):
            compress(shared, tmp_path / "out", **NEAREST)
    shards = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert shards == [".whet", "model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors"]
    resume(tmp_path / "out")
    assert models.contents(tmp_path / "out") == models.contents(tmp_path / "one")


def test_a_dry_run_refuses_the_same_and_writes_nothing(model, tmp_path):
    before = sorted(p.name for p in tmp_path.rglob("*"))
    planned = compress(model, tmp_path / "deep" / "out", dry_run=True, **NEAREST)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    assert planned["bytes"]["ratio"] < 1 and planned["memory"] > 0 and planned["seconds"] >= 0
    assert json.loads(json.dumps(planned)) == planned
    refused(UsageError, "own folder", model=model, out=model, dry_run=True)


def test_a_dry_run_reads_the_weights_on_request(tmp_path):
    folder = models.make(tmp_path / "model", with_tokenizer=False)
    asked = {"scheme": "int8s", "solver": "nearest", "dry_run": True}
    told = compress(folder, tmp_path / "out", **asked, check_weights=True)
    assert any("no weight is NaN" in note for note in map(str, told["notes"]))
    assert not any(
        "no weight is NaN" in note for note in map(str, compress(folder, tmp_path / "out", **asked)["notes"])
    )
    with pytest.raises(UsageError, match="check_weights goes with dry_run"):
        compress(folder, tmp_path / "out", scheme="int8s", solver="nearest", check_weights=True)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    compress(folder, tmp_path / "out", **asked)
    with pytest.raises(UsageError, match=r"model\.norm\.weight has 1 weights that are NaN"):
        compress(folder, tmp_path / "out", **asked, check_weights=True)
    assert not (tmp_path / "out").exists()
