"""Damaged and hostile folders: a sentence, no crash, nothing read outside the folder. A small fuzz run, seeded."""

from __future__ import annotations

import json
import random
import shutil
import struct
import time
from pathlib import Path

import pytest

import models
from whet.checkpoint import read_header, size_on_disk
from whet.errors import MachineError, UsageError
from whet.measure.items import read_skills
from whet.recipe.compress import compress

FAMILIES = ("llama", "phi3", "mixtral", "gpt2", "t5", "zaya")


@pytest.fixture(scope="module", params=FAMILIES)
def original(request, tmp_path_factory):
    kind = "AutoModelForSeq2SeqLM" if request.param == "t5" else "AutoModelForCausalLM"
    return models.make(tmp_path_factory.mktemp("m") / "m", request.param, architecture=kind, shards=True)


def told(folder: Path, out: Path) -> str | None:
    """What a dry run says of the folder: None where it takes it. Anything but a refusal is an error of the test."""
    try:
        compress(folder, out, scheme="int8s", solver="nearest", target="whet", dry_run=True)
    except (UsageError, MachineError) as error:
        assert 20 < len(str(error)) < 1500 and "Traceback" not in str(error)
        return str(error)
    return None


STRANGE = (None, "", "x", -1, 0, 1, 3, 7, 2**31, 2**63, 1.5, float("nan"), True, [], [3], ["x"], {}, {"a": 1})


def test_configs_that_lie(original, tmp_path):
    """Every entry of the config with values it cannot have, one at a time; most are refused, none crashes."""
    shutil.copytree(original, tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    config = json.loads(file.read_text())
    chance = random.Random(0)
    refused = 0
    for key in config:
        for value in chance.sample(STRANGE, 3):
            file.write_text(json.dumps({**config, key: value}))
            refused += told(tmp_path / "m", tmp_path / "o") is not None
    assert refused > len(config) / 3
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer", "num_layers", "vocab_size", "hidden_size"])
def test_absurd_counts_are_refused_at_once(original, tmp_path, key):
    shutil.copytree(original, tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    config = json.loads(file.read_text())
    if key not in config:
        config["num_hidden_layers"] = 10**9
    file.write_text(json.dumps({**config, key: 10**9}))
    assert told(tmp_path / "m", tmp_path / "o") is not None


def test_damaged_headers(original, tmp_path):
    """Bytes of a header changed, lengths that lie, files cut off anywhere."""
    shutil.copytree(original, tmp_path / "m")
    file = sorted((tmp_path / "m").glob("*.safetensors"))[0]
    whole = file.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    chance = random.Random(0)
    for _ in range(40):
        data = bytearray(whole)
        kind = chance.randrange(4)
        if kind == 0:
            for _ in range(chance.randrange(1, 6)):
                data[chance.randrange(8, 8 + length)] = chance.randrange(256)
        elif kind == 1:
            data[:8] = struct.pack("<Q", chance.choice([0, 1, length - 1, length + 1, 2**40, 2**63]))
        elif kind == 2:
            data = data[: chance.randrange(len(data))]
        else:
            data += b"\0" * chance.randrange(1, 9)
        file.write_bytes(data)
        said = told(tmp_path / "m", tmp_path / "o")
        assert said is not None or kind == 0  # a changed letter of the format's own remarks changes nothing


def test_offsets_that_overlap_and_shapes_that_lie(original, tmp_path):
    shutil.copytree(original, tmp_path / "m")
    file = next(f for f in sorted((tmp_path / "m").glob("*.safetensors")) if len(read_header(f)) > 1)
    whole = file.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]
    first, last = header[names[0]], header[names[-1]]
    for changed in (
        {**header, names[-1]: {**last, "data_offsets": first["data_offsets"]}},
        {**header, names[-1]: {**last, "data_offsets": [-8, 0]}},
        {**header, names[-1]: {**last, "data_offsets": [0, 2**62]}},
        {**header, names[0]: {**first, "shape": [2**40, 2**40]}},
        {**header, names[0]: {**first, "shape": "x"}},
        {**header, names[0]: {**first, "shape": [*first["shape"][::-1], 1]}},
        {**header, names[0]: {**first, "dtype": "F7"}},
        {**header, names[0]: 3},
    ):
        text = json.dumps(changed).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])
        assert told(tmp_path / "m", tmp_path / "o") is not None


@pytest.mark.parametrize("where", ["../m2/model.safetensors", "/etc/passwd", "sub/model.safetensors", "", 3, None])
def test_an_index_that_points_elsewhere(original, tmp_path, where):
    shutil.copytree(original, tmp_path / "m")
    shutil.copytree(original, tmp_path / "m2")
    file = tmp_path / "m" / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], where)
    file.write_text(json.dumps(index))
    said = told(tmp_path / "m", tmp_path / "o")
    assert said is not None and "root:" not in said


def test_a_shard_that_is_a_link_to_elsewhere_is_no_part_of_the_folder(original, tmp_path):
    shutil.copytree(original, tmp_path / "m")
    file = sorted((tmp_path / "m").glob("*.safetensors"))[0]
    file.unlink()
    file.symlink_to("/etc/passwd")
    said = told(tmp_path / "m", tmp_path / "o")
    assert said is not None and "root:" not in said


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"\xff\xfe\0", b'{"model": {"type": "BPE"}}', None])
def test_tokenizers_that_are_damaged_or_missing(original, tmp_path, content):
    shutil.copytree(original, tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if content is None:
            (tmp_path / "m" / name).unlink()
        else:
            (tmp_path / "m" / name).write_bytes(content)
    asked = {"scheme": "int8s", "text": models.documents(), "samples": 2, "window": 16}
    if json.loads((original / "config.json").read_text())["model_type"] == "zaya":
        # a family without a table is rounded without a look at text and needs none: the files go over as they are
        compress(tmp_path / "m", tmp_path / "o", **asked)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            assert content is None or (tmp_path / "o" / name).read_bytes() == content
        return
    with pytest.raises(UsageError, match=r"no tokenizer|not valid|Give"):
        compress(tmp_path / "m", tmp_path / "o", **asked)
    assert not (tmp_path / "o").exists()


DEEP = "[" * 100_000
ODD = {
    "labels": {"num_labels": 1_000_000_000},
    "labels of a part": {"text_config": {"num_labels": 1_000_000_000}},
    "a number as a type": {"dtype": 7},
    "a window": {"sliding_window": -5},
    "tuples": {"return_dict": False},
}


@pytest.mark.parametrize("name", ODD)
def test_entries_that_no_model_can_have_are_one_sentence_at_once(tmp_path, name):
    folder = models.make(tmp_path / "m", "mistral")
    models.edit_config(folder, **ODD[name])
    started = time.monotonic()
    with pytest.raises(UsageError, match=r"config\.json says \w+ = .*, which no model can have"):
        compress(folder, tmp_path / "o", scheme="int8s", solver="nearest")
    with pytest.raises(UsageError, match="which no model can have"):
        size_on_disk(folder)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", ["config.json", "whet.json", "model.safetensors.index.json", "tokenizer_config.json"])
def test_lists_that_are_nested_without_end_are_one_sentence(tmp_path, name):
    folder = models.make(tmp_path / "m", shards=True)
    for text in (DEEP, f'{{"x": {DEEP}', f'{{"x": {"[" * 200}{"]" * 200}}}'):
        (folder / name).write_text(text)
        if name == "tokenizer_config.json" and text.endswith("}"):
            continue  # which is transformers' own to read
        with pytest.raises(UsageError, match=r"deeply|not valid JSON|no tokenizer"):
            compress(folder, tmp_path / "o", scheme="int8s", text=models.documents(), samples=2, window=16)


def test_documents_of_other_kinds_are_read_in_bounds_too(tmp_path):
    folder = models.make(tmp_path / "m")
    for name, asked in (("plan.json", "plan"), ("text.jsonl", "text")):
        (tmp_path / name).write_text(DEEP)
        with pytest.raises(UsageError, match="deeply"):
            compress(folder, tmp_path / "o", solver="gptq", **{"text": models.documents(), asked: tmp_path / name})
    (tmp_path / "skills.jsonl").write_text(DEEP)
    with pytest.raises(UsageError, match="deeply"):
        read_skills(tmp_path / "skills.jsonl")


def test_a_tensor_of_many_dimensions_is_refused_at_once(tmp_path):
    folder = models.make(tmp_path / "m")
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**62] * 300_000, "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    started = time.monotonic()
    with pytest.raises(UsageError, match="tensor w claims 300000 dimensions"):
        compress(folder, tmp_path / "o", scheme="int8s", solver="nearest")
    assert time.monotonic() - started < 5
