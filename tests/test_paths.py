"""Where results go is checked before anything long, and no output replaces a file of a model or one that is read."""

from __future__ import annotations

import json
import os
import tempfile

import pytest

import models
from whet.cli import main
from whet.errors import MachineError, UsageError
from whet.paths import check_out, check_output
from whet.recipe.compress import compress
from whet.recipe.plan import plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = models.make(tmp_path_factory.mktemp("paths") / "model")
    compress(made, made.parent / "lighter", scheme="int8s", solver="nearest")
    (made.parent / "text.txt").write_text("words " * 400)
    return made


@pytest.fixture
def nothing_long(monkeypatch):
    """Opening a model is the first thing that takes long."""

    def opened(*args, **more):
        raise AssertionError("a model was opened before the output was checked")

    monkeypatch.setattr("whet.checkpoint.folder.Checkpoint.__init__", opened)


@pytest.fixture
def read_only(monkeypatch, tmp_path):
    """A folder that not even root can write into."""
    refused = tmp_path / "read only"
    refused.mkdir()
    made = tempfile.TemporaryFile

    def temporary(*args, dir=None, **more):
        if os.path.samefile(dir, refused):
            raise PermissionError(13, "Permission denied")
        return made(*args, dir=dir, **more)

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
    return refused


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md", "tokenizer.json"])
@pytest.mark.parametrize("which", ["model", "lighter"])
def test_no_output_replaces_a_file_of_a_model(folder, which, name, nothing_long):
    model = folder.parent / which
    text = str(folder.parent / "text.txt")
    before = models.contents(model)
    commands = [
        ["plan", str(folder), str(model / name), "--bits", "6", "--text", text],
        ["inspect", str(folder), "--text", text, "--out", str(model / name)],
        ["inspect", str(folder), "--text", text, "--report", str(model / name)],
        ["compare", str(folder), str(folder.parent / "lighter"), "--text", text, "--report", str(model / name)],
        ["export", str(folder), "--out", str(model / name)],
    ]
    for words in commands:
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 2
    with pytest.raises(UsageError, match=rf"{name} (is a file of a model, and no output|has the name of a file of w)"):
        plan(folder, model / name, bits=6.0, text=text)
    assert models.contents(model) == before


def test_what_is_no_file_of_a_model_may_be_replaced_there(folder, tmp_path):
    report = folder.parent / "lighter" / "report.html"
    report.write_text("of an earlier comparison")
    check_output(report, folder, folder.parent / "lighter")
    report.unlink()
    (tmp_path / "config.json").write_text(json.dumps({"of": "another program"}))
    check_output(tmp_path / "config.json")
    check_output(folder / "scores.json", folder)  # which is new


def test_what_is_read_is_not_written_over(folder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("words")
    (tmp_path / "link.txt").symlink_to(text)
    for name in ("text.txt", "link.txt"):
        with pytest.raises(UsageError, match="is read here"):
            check_output(tmp_path / name, folder, str(text), None, ["documents"])
    check_output(tmp_path / "other.txt", folder, "a long text " * 1000)


@pytest.mark.parametrize(
    "name,what",
    [("nowhere/plan.json", "is no folder"), (".", "is a folder"), ("n" * 250, "too long"), ("/dev/null", "a device")],
)
def test_where_no_file_can_be(folder, tmp_path, name, what, nothing_long):
    with pytest.raises(UsageError, match=what):
        plan(folder, tmp_path / name, bits=6.0, text=["words"])
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_told_before_the_work(folder, read_only, nothing_long):
    with pytest.raises(MachineError, match=r"cannot be written \(Permission denied\)"):
        plan(folder, read_only / "plan.json", bits=6.0, text=["words"])
    for out in (read_only / "lighter", read_only / "new" / "lighter"):
        with pytest.raises(MachineError, match="cannot be written"):
            compress(folder, out, scheme="int8s", solver="nearest")
    for verb in (["inspect", str(folder)], ["compare", str(folder), str(folder.parent / "lighter")]):
        with pytest.raises(SystemExit) as left:
            main([*verb, "--text", str(folder.parent / "text.txt"), "--report", str(read_only / "page.html")])
        assert left.value.code == 3
    for words in (["masks", "--remove", "50%", str(folder)], ["run", "w8", str(folder)]):
        with pytest.raises(SystemExit) as left:
            main([*words, str(read_only / "lighter")])
        assert left.value.code == 3
    with pytest.raises(SystemExit) as left:
        main(["demo", str(read_only)])
    assert left.value.code == 3
    assert list(read_only.iterdir()) == []


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="file is a file"):
            check_out(out, tmp_path / "model")
    check_out(tmp_path / "new" / "below", tmp_path / "model")
    assert not (tmp_path / "new").exists()
