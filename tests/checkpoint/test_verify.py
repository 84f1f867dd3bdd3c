"""A folder that whet wrote is what was written, or every verb that reads it names the file that is not."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
from pathlib import Path

import pytest

import models
import whet
from whet.checkpoint import MANIFEST, check_files
from whet.checkpoint.hashes import Hashes
from whet.cli import main
from whet.errors import UsageError, WhetError

hashing = importlib.import_module("whet.checkpoint.hashes")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "whet" / "hashes.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("verify")
    original = models.make(root / "original")
    whet.compress(original, root / "lighter", scheme="int4s-g32", solver="nearest")
    return root


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made / "lighter", tmp_path / "lighter")


def states(folder):
    return {file["name"]: file["state"] for file in whet.verify(folder)["files"] if file["state"] != "ok"}


def flip(file: Path, count: int = 200) -> None:
    """Change `count` bytes in the middle of a file, and nothing of its size and time of writing."""
    about, data = file.stat(), bytearray(file.read_bytes())
    place = len(data) - count - 8
    data[place : place + count] = bytes(byte ^ 1 for byte in data[place : place + count])
    file.write_bytes(data)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))


def shard(folder):
    return sorted(folder.glob("*.safetensors"))[1]


def test_what_was_written_passes(folder):
    found = whet.verify(folder)
    assert (found["verdict"], states(folder)) == ("pass", {})
    assert {file["name"] for file in found["files"]} == set(models.contents(folder)) - {MANIFEST}
    assert found["sha256"] == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def test_every_file_that_differs_is_named_with_why(folder, tmp_path):
    flip(shard(folder))
    (folder / "tokenizer.json").unlink()
    (folder / "README.md").write_text("another card")
    (folder / "pytorch_model.bin").write_bytes(b"weights of something")
    (tmp_path / "elsewhere").write_bytes((folder / "LICENSE").read_bytes())
    (folder / "LICENSE").unlink()
    (folder / "LICENSE").symlink_to(tmp_path / "elsewhere")
    assert whet.verify(folder)["verdict"] == "fail"
    assert states(folder) == {
        shard(folder).name: "changed",
        "tokenizer.json": "missing",
        "README.md": "size",
        "pytorch_model.bin": "unlisted",
        "LICENSE": "outside",
    }


@pytest.mark.parametrize("name", ["original", "elsewhere"])
def test_a_folder_that_whet_did_not_write_is_told_so(made, name, tmp_path):
    folder = made / "original"
    if name == "elsewhere":
        (folder := tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"has no whet\.json that lists files"):
        whet.verify(folder)
    check_files(folder)


def test_the_command_line_ends_with_5_and_a_table(folder, capsys):
    def command():
        with pytest.raises(SystemExit) as ended:
            main(["verify", str(folder)])
        return ended.value.code, capsys.readouterr().out

    code, said = command()
    assert code == 0
    assert "files are what was written" in said
    flip(shard(folder))
    code, said = command()
    assert code == 5
    assert shard(folder).name in said
    assert "changed" in said


USES = {
    "generate": lambda folder, root: whet.generate(folder, "ab", max_new_tokens=1),
    "compare": lambda folder, root: whet.compare(root / "original", folder, text=models.documents(9), speed=False),
    "compare as original": lambda folder, root: whet.compare(folder, folder, text=models.documents(9), speed=False),
    "export": lambda folder, root: whet.export(folder, out=folder.parent / "a.gguf"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("what", ["shard", "tokenizer.json", "config.json", "unlisted"])
def test_every_use_refuses_what_was_changed(folder, made, use, what):
    file = shard(folder) if what == "shard" else folder / what
    if what == "config.json":
        models.edit_config(folder, rope_theta=77.0)
    elif what == "unlisted":
        file = folder / "model.safetensors"
        shutil.copyfile(made / "original" / file.name, file)
    elif what == "tokenizer.json":
        file.write_text(file.read_text().replace("ab", "ba", 1) + "\n")
    else:
        flip(file)
    with pytest.raises(UsageError, match=rf"is not what whet wrote, .*{file.name} \("):
        USES[use](folder, made)


def test_a_step_refuses_what_was_changed(made, tmp_path):
    dense = tmp_path / "dense"
    whet.masks(made / "original", dense, pattern="2:4", text=models.documents(20, 20), samples=4, window=20)
    flip(shard(dense))
    with pytest.raises(UsageError, match="is not what whet wrote"):
        whet.compress(dense, tmp_path / "out", scheme="int8s", solver="nearest")
    assert not (tmp_path / "out").exists()


def test_a_file_for_llama_cpp_is_checked_too(made, tmp_path):
    out = tmp_path / "lighter"
    whet.compress(made / "original", out, scheme="Q4_0", solver="nearest", target="llama.cpp")
    assert whet.verify(out)["verdict"] == "pass"
    flip(out / "model.gguf")
    assert states(out) == {"model.gguf": "changed"}
    for model in (out, out / "model.gguf"):
        with pytest.raises(UsageError, match=r"is not what whet wrote, .*model\.gguf \(changed"):
            whet.generate(model, "ab", max_new_tokens=1)
        with pytest.raises(UsageError, match="is not what whet wrote"):
            whet.compare(made / "original", model, text=models.documents(9), speed=False)
    shutil.copyfile(out / "model.gguf", tmp_path / "of nobody.gguf")
    check_files(tmp_path / "of nobody.gguf")


def test_a_card_may_be_written_anew(folder):
    (folder / "README.md").write_text("mine")
    whet.generate(folder, "ab", max_new_tokens=1)
    assert states(folder) == {"README.md": "size"}


# the cache


def counted(monkeypatch):
    """Names of the files that are hashed from here on."""
    read = []
    real = hashing.sha256
    monkeypatch.setattr(hashing, "sha256", lambda file: read.append(file.name) or real(file))
    return read


def aged(monkeypatch):
    """Files are old enough to be remembered."""
    monkeypatch.setattr(hashing, "_TICK", -1e15)


def test_files_are_hashed_once_until_they_change(folder, cache, monkeypatch):
    aged(monkeypatch)
    read = counted(monkeypatch)
    check_files(folder)
    assert len(read) == len(set(read)) > 3
    assert not any(".cache" in str(file) for file in folder.rglob("*"))
    read.clear()
    check_files(folder)
    assert read == []
    flip(shard(folder))
    with pytest.raises(UsageError):
        check_files(folder)
    assert read == [shard(folder).name]
    whet.verify(folder)
    assert len(read) > 5  # whatever the cache says


def test_what_was_written_just_now_is_not_remembered(folder, cache):
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes())
    hashes = Hashes()
    hashes.of(folder / "config.json")
    hashes.keep()
    assert not cache.exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b'{"a": 1, "b": {"stamp": 3, "sha256": []}}'])
def test_a_cache_of_garbage_is_none(folder, cache, content, monkeypatch):
    aged(monkeypatch)
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content)
    check_files(folder)
    assert len(json.loads(cache.read_text())) > 3


@pytest.mark.parametrize("how", ["a file is in the way", "a folder is in the way", "read-only"])
def test_a_cache_that_cannot_be_written_is_no_error(folder, cache, how, monkeypatch):
    aged(monkeypatch)
    if how == "a file is in the way":
        cache.parent.parent.write_text("")
    elif how == "a folder is in the way":
        cache.mkdir(parents=True)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/1/nowhere")
    check_files(folder)
    assert whet.verify(folder)["verdict"] == "pass"


def test_the_cache_is_bounded(tmp_path, cache, monkeypatch):
    aged(monkeypatch)
    monkeypatch.setattr(hashing, "_MOST", 5)
    for number in range(9):
        file = tmp_path / f"file {number}"
        file.write_text(str(number))
        hashes = Hashes()
        hashes.of(file)
        hashes.keep()
    assert [Path(name).name for name in json.loads(cache.read_text())] == [f"file {n}" for n in range(4, 9)]


def test_hashing_much_is_told(folder, monkeypatch):
    monkeypatch.setattr(importlib.import_module("whet.checkpoint.verify"), "_LONG", 1000)
    told = []
    check_files(folder, told.append)
    (note,) = told
    assert "to check its files" in note["message"]


# what whet.json may say


@pytest.mark.parametrize("name", ["../original/config.json", "/etc/hostname", "", "a/../../b", "a\0b"])
def test_names_out_of_the_folder_are_refused(folder, name):
    told = json.loads((folder / MANIFEST).read_text())
    told["files"][name] = {"bytes": 1, "sha256": 64 * "0"}
    (folder / MANIFEST).write_text(json.dumps(told))
    for use in (whet.verify, check_files):
        with pytest.raises(WhetError, match=r"is damaged at files\..*is no file of the folder"):
            use(folder)
