"""Files beside the weights: what is taken over is known by name, and no link out of the folder is read."""

from __future__ import annotations

import json
import os
import shutil

import pytest

import models
from whet.checkpoint import Checkpoint, about_left_out, copied_files, load_model, load_tokenizer
from whet.checkpoint.verify import verify
from whet.errors import UsageError
from whet.recipe.compress import compress

TAKEN = """
tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json merges.txt vocab.txt
spiece.model sentencepiece.bpe.model tokenizer.model tokenizer.model.v3 tekken.json qwen.tiktoken source.spm
chat_template.jinja chat_template.json generation_config.json preprocessor_config.json processor_config.json
video_preprocessor_config.json modules.json sentence_bert_config.json LICENSE LICENSE.txt license.md
LICENCE-MIT MODEL_LICENSE NOTICE Notice.txt USE_POLICY.md COPYING CITATION.cff README_zh.md README.ko.md
"""
LEFT = """
held.pkl tf_model.npz rust_model.ot 64.tflite held.json train.log id_rsa license.pem key.pem pytorch_model.bin
pytorch_model.bin.index.json modeling_own.py optimizer.pt adapter_config.json training_args.bin figure.png
notes.txt params.json tokenizer.json.bak my_tokenizer.json terms.key
"""


@pytest.fixture
def folder(tmp_path):
    return models.make(tmp_path / "model", shards=True)


def cached(folder):
    """The folder as a hub's cache holds it, and its blobs."""
    hub = folder.parent / "hub" / "models--a--b"
    snapshot = hub / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (hub / "blobs").mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copyfile(file, hub / "blobs" / f"{number:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040x}")
    return snapshot


def test_what_is_taken_over_is_known_by_name(tmp_path):
    taken, left = TAKEN.split(), LEFT.split()
    for name in (*taken, *left, "config.json", "README.md", "model.safetensors", ".secret"):
        (tmp_path / name).write_text("x")
    (tmp_path / "onnx").mkdir()
    assert sorted(copied_files(tmp_path)) == sorted(taken)
    (note,) = about_left_out(tmp_path)
    assert str(note).startswith("not copied from the original's folder: 64.tflite, adapter_config.json")
    for name in left:
        (tmp_path / name).unlink()
    assert [str(note) for note in about_left_out(tmp_path)] == ["not copied from the original's folder: onnx/"]


@pytest.mark.parametrize("transform", [None, "smooth"])
def test_a_lighter_folder_holds_nothing_else_and_says_so(folder, tmp_path, transform):
    for name in ("held.pkl", "id_rsa"):
        (folder / name).write_text("private")
    (tmp_path / "secret").write_text("private")
    (folder / "LICENSE").unlink()
    (folder / "LICENSE").symlink_to(tmp_path / "secret")
    out = tmp_path / "out"
    result = compress(folder, out, scheme="int8s", solver="nearest", transform=transform)
    note = "not copied from the original's folder: LICENSE (a link out of the folder), held.pkl, id_rsa"
    assert note in map(str, result["notes"]) and note in [
        n["message"] for n in json.loads((out / "whet.json").read_text())["notes"]
    ]
    assert not any(data == b"private" for data in models.contents(out).values())


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors.index.json", "tokenizer.json", "generation_config.json", "whet.json", "shard"],
)
@pytest.mark.parametrize("there", [True, False])
def test_what_is_read_is_no_link_out_of_the_folder(folder, tmp_path, name, there):
    name = sorted(file.name for file in folder.glob("*.safetensors"))[0] if name == "shard" else name
    if (folder / name).exists():
        shutil.move(folder / name, tmp_path / "elsewhere")
    else:
        (tmp_path / "elsewhere").write_text("{}")
    if not there:
        (tmp_path / "elsewhere").unlink()
    (folder / name).symlink_to(tmp_path / "elsewhere")
    for read in (Checkpoint, load_model, load_tokenizer):
        with pytest.raises(UsageError, match=f"{name} is a link to .*elsewhere, outside the folder"):
            read(folder)


PARTS = ["additional_chat_templates/tool.jinja", "1_Pooling/config.json", "2_Dense/model.safetensors"]


@pytest.mark.parametrize("budget", [False, True])
def test_folders_that_are_a_part_of_the_model_go_along(folder, tmp_path, budget):
    """Chat templates by name, and what a sentence encoder does after its model; no pickle, and nothing unnamed."""
    how = {"bits": 9.0, "text": models.documents(40)} if budget else {"scheme": "int8s", "solver": "nearest"}
    modules = [{"idx": i, "path": path} for i, path in enumerate(("", "1_Pooling", "2_Dense", "../..", 3, "none"))]
    (folder / "modules.json").write_text(json.dumps(modules))
    for name in (*PARTS, "2_Dense/pytorch_model.bin", "onnx/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{{{{ {name!r} }}}}")
    out = tmp_path / "out"
    result = compress(folder, out, **how, **({"samples": 8, "window": 32} if budget else {}))
    listed = json.loads((out / "whet.json").read_text())["files"]
    for name in PARTS:
        assert (out / name).read_bytes() == (folder / name).read_bytes() and name in listed
    assert not (out / "2_Dense" / "pytorch_model.bin").exists() and not (out / "onnx").exists()
    note = "not copied from the original's folder: 2_Dense/pytorch_model.bin, onnx/"
    assert note in map(str, result["notes"])
    assert verify(out)["verdict"] == "pass"
    assert load_tokenizer(out).chat_template == load_tokenizer(folder).chat_template != {}


def test_a_link_to_itself_is_no_file_of_the_folder(folder):
    (folder / "LICENSE").unlink()
    (folder / "LICENSE").symlink_to("LICENSE")
    assert "LICENSE" not in copied_files(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("config.json")
    with pytest.raises(UsageError, match=r"no config\.json"):
        Checkpoint(folder)


@pytest.mark.parametrize("as_link", [False, True])
def test_the_links_of_a_hub_cache_go_on_working(folder, tmp_path, as_link):
    snapshot = cached(folder)
    if as_link:
        os.symlink(snapshot, tmp_path / "link")
        snapshot = tmp_path / "link"
    assert not about_left_out(snapshot)
    load_tokenizer(snapshot), load_model(snapshot)
    compress(folder, tmp_path / "a", scheme="int8s", solver="nearest")
    compress(snapshot, tmp_path / "b", scheme="int8s", solver="nearest")
    files = models.contents(tmp_path / "a"), models.contents(tmp_path / "b")
    assert files[0].keys() == files[1].keys() and "LICENSE" in files[0] and "tokenizer.json" in files[0]
    assert not any(path.is_symlink() for path in (tmp_path / "b").iterdir())
