"""`whet.json` of another version: what is older is read, and what is newer is refused by what it has."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
import torch

import models
from whet.checkpoint import MANIFEST, Checkpoint, load_model
from whet.checkpoint.manifest import Manifest, read_manifest
from whet.engines.torch import outputs
from whet.errors import UsageError
from whet.recipe.compress import compress
from whet.recipe.masks import masks

TOKENS = torch.randint(2, 264, (2, 24), generator=torch.Generator().manual_seed(0))
# Every key that came to a folder's manifest after the first one whet wrote, which had all others.
LATER = ("masks", "reading", "transforms", "adapter", "gguf")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A lighter folder with a note, and a dense one."""
    root = tmp_path_factory.mktemp("manifest")
    original = models.make(root / "original", tied=True)
    text = {"text": models.documents(20, 20), "samples": 4}
    compress(original, root / "lighter", scheme="int4s-g32", window=500, **text)
    masks(original, root / "dense", pattern="2:4", window=20, **text)
    return root


@pytest.fixture(params=["lighter", "dense"])
def folder(request, folders, tmp_path):
    return shutil.copytree(folders / request.param, tmp_path / "folder")


def change(folder, edit):
    told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    edit(told)
    (folder / MANIFEST).write_text(json.dumps(told), encoding="utf-8")
    return told


def refused(folder, tmp_path):
    """What everyone who reads the folder says of it, which is the same."""
    said = set()
    for reads in (
        Checkpoint,
        load_model,
        lambda one: compress(one, tmp_path / "out", scheme="int8s", solver="nearest"),
    ):
        with pytest.raises(UsageError) as raised:
            reads(folder)
        said.add(str(raised.value))
    assert not (tmp_path / "out").exists()
    (one,) = said
    assert str(folder / MANIFEST) in one and "\n" not in one
    return one


@pytest.mark.parametrize("keys", [("shards_of",), ("shards_of", "of_tomorrow")])
def test_a_key_of_a_newer_whet_is_refused_by_its_name(folder, tmp_path, keys):
    """Whatever it says: to leave it out would be to read another model than was written."""
    change(folder, lambda told: told.update(dict.fromkeys(keys)))
    said = refused(folder, tmp_path)
    assert ", ".join(keys) in said and "a newer one wrote it. Update whet." in said


def test_a_key_of_a_newer_whet_inside_another_is_refused_too(folder, tmp_path):
    change(folder, lambda told: told["base_model"].update(revision="main"))
    said = refused(folder, tmp_path)
    assert "base_model.revision" in said


@pytest.mark.parametrize("version", [2, "1.5", 0, None])
def test_another_version_of_the_artifact_is_refused_with_both_versions(folder, tmp_path, version):
    """Before its keys are looked at, which may mean something else there."""
    change(folder, lambda told: told.update(format=version, shards_of=[]))
    said = refused(folder, tmp_path)
    assert f"has format {version!r}; this whet reads format 1. Update whet." in said and "shards_of" not in said


@pytest.mark.parametrize("key", [name for name, field in Manifest.model_fields.items() if field.is_required()])
def test_what_every_version_has_is_missed_by_name(folder, tmp_path, key):
    change(folder, lambda told: told.pop(key))
    assert f"damaged at {key}" in refused(folder, tmp_path)


@torch.no_grad()
def test_a_folder_of_an_older_whet_is_read_as_it_was_meant(folder, tmp_path):
    """Notes were plain strings, and what came later is not there."""

    def older(told):
        told["notes"] = [note["message"] for note in told["notes"]]
        for key in LATER:
            told.pop(key, None)

    before = Checkpoint(folder).whet
    logits = outputs(load_model(folder), TOKENS)
    told = change(folder, older)
    found = Checkpoint(folder).whet
    assert found == {**told, "notes": told["notes"]} and found["notes"] == [n["message"] for n in before["notes"]]
    assert torch.equal(outputs(load_model(folder), TOKENS), logits)
    if Checkpoint(folder).dense:  # and a step goes on from it, lineage and all
        compress(folder, tmp_path / "out", scheme="int8s", solver="nearest")
        after = Checkpoint(tmp_path / "out").whet
        assert after["lineage"][:-1] == told["lineage"] and after["base_model"] == told["base_model"]


def test_a_manifest_with_no_more_than_it_needs_is_read(tmp_path):
    bare = {"format": 1, "base_model": {"name": "m"}, "target": "whet", "container": "whet"}
    found = read_manifest(copy.deepcopy(bare), tmp_path / MANIFEST)
    assert found == {
        **bare,
        "base_model": {"name": "m", "sha256": None},
        **{"dequantize": False, "linears": {}, "copied": [], "dropped": None, "verify": {}},
        **{"notes": [], "lineage": [], "files": {}},
    }
    # what it was read as is what it is written as
    assert read_manifest(copy.deepcopy(found), tmp_path / MANIFEST) == found
