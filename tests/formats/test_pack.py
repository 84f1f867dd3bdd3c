"""Packs: the same bytes back, whatever they are; what is damaged is refused and leaves nothing; no path leads out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import models
from whet import compress, pack, unpack
from whet.errors import UsageError
from whet.formats import pack as packing
from whet.formats.planes import BITS, chosen, decoded, encoded, partings


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=3000), st.sampled_from([1, 2, 4, 18, 144, 210]), st.booleans())
def test_every_parting_of_any_bytes_gives_them_back(data: bytes, word: int, deflate: bool) -> None:
    for parting in partings(word):
        planes, coded = encoded(data, parting, deflate)
        assert decoded(coded, planes, parting, len(data)) == data


def test_what_repeats_is_found() -> None:
    rng = np.random.default_rng(0)
    exponents = rng.normal(size=60_000).astype(np.float32).view(np.uint32) >> 16
    assert chosen(exponents.astype(np.uint16).tobytes(), 2) == ("word 2", False)
    for bits in BITS:
        skewed = np.minimum(rng.geometric(0.4, size=64_000) - 1, 2**bits - 1).astype(np.uint8)
        stream = np.packbits(np.unpackbits(skewed[:, None], axis=1, bitorder="little")[:, :bits], bitorder="little")
        parting, deflate = chosen(stream.tobytes(), 1)
        size = len(encoded(stream.tobytes(), parting, deflate)[1])
        assert size <= len(encoded(stream.tobytes(), "word 1")[1])
        if bits in (3, 5):
            assert parting == f"bits {bits}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An original in two shards, folders that whet quantized, a .gguf, and one of odd files."""
    home = tmp_path_factory.mktemp("folders")
    models.make(home / "model", shards=True)
    compress(home / "model", home / "three", scheme="int3s", solver="nearest")
    compress(home / "model", home / "file", scheme="Q8_0", solver="nearest", target="llama.cpp")
    odd = home / "odd"
    (odd / "deeper" / "한글").mkdir(parents=True)
    (odd / "empty").touch()
    (odd / "deeper" / "한글" / "파일.txt").write_text("가나다\n" * 1000, encoding="utf-8")
    (odd / "no.safetensors").write_bytes(b"no header")
    save_file({"a": np.arange(10, dtype=np.int64), "none": np.zeros((0, 3), np.float16)}, odd / "b.safetensors")
    return [home / name for name in ("model", "three", "file", "odd")]


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_folder_comes_back_as_it_was(folders: list[Path], tmp_path: Path) -> None:
    for folder in folders:
        told = pack(folder, tmp_path / f"{folder.name}.whetpack")
        assert told["bytes"]["original"] == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        assert sum(kind["original"] for kind in told["kinds"].values()) == told["bytes"]["original"]
        kinds = {"model": "float32", "three": "int32", "file": "Q8_0", "odd": "int64"}
        assert {kinds[folder.name], "other files"} <= {*told["kinds"]}
        back = unpack(tmp_path / f"{folder.name}.whetpack", tmp_path / folder.name)
        assert contents(tmp_path / folder.name) == contents(folder) and back["files"] == len(contents(folder))
        assert pack(folder, tmp_path / "again")["bytes"] == told["bytes"]
        assert (tmp_path / "again").read_bytes() == (tmp_path / f"{folder.name}.whetpack").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_a_damaged_or_shortened_pack_is_refused_and_leaves_nothing(folders: list[Path], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    pack(folders[-1], whole)
    data, bad = whole.read_bytes(), tmp_path / "bad"
    for at in range(len(packing.MAGIC), len(data), max(1, len(data) // 150)):
        for made in (data[:at], data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]):
            bad.write_bytes(made)
            with pytest.raises(UsageError, match="bad"):
                unpack(bad, tmp_path / "out")
            assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "whole"], at
    bad.write_bytes(data + b"x")
    with pytest.raises(UsageError, match="damaged"):
        unpack(bad, tmp_path / "out")
    bad.write_bytes(b"PK\3\4 something else")
    with pytest.raises(UsageError, match="not a pack"):
        unpack(bad, tmp_path / "out")


def forged(*heads: tuple[dict, bytes]) -> bytes:
    made = packing.MAGIC + b"".join(packing._record(head, body) for head, body in heads)
    names = sum("file" in head for head, _ in heads)
    return made + packing._record({"whole": names, "sha256": hashlib.sha256(made).hexdigest()})


@pytest.mark.parametrize(
    "name",
    ["../out", "/etc/out", "a/../../out", "a\\b", "C:x", "a\0b", "", ".", "a//b", "~root/x", "a/./b", "a./b", "a "],
)
def test_no_path_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    sha = {"sha256": hashlib.sha256(b"").hexdigest()}
    (tmp_path / "bad").write_bytes(forged(({"file": name, "bytes": 0}, b""), (sha, b"")))
    with pytest.raises(UsageError, match="no path"):
        unpack(tmp_path / "bad", tmp_path / "home" / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["bad"]
    assert not any((tmp_path / "home").iterdir())


def test_a_pack_makes_no_more_than_it_says(tmp_path: Path) -> None:
    sha = {"sha256": hashlib.sha256(b"").hexdigest()}
    planes, coded = encoded(bytes(1 << 20), "word 1")
    stretch = {"bytes": 1 << 20, "parting": "word 1", "planes": planes}
    for first, second in (
        ({"file": "a", "bytes": 10}, stretch),
        ({"file": "a", "bytes": 10}, {**stretch, "bytes": 10}),
        ({"file": "a", "bytes": 1 << 20}, {**stretch, "planes": [["huffman", 1 << 40, len(coded)], planes[1]]}),
        ({"file": "a", "bytes": 1 << 20}, {**stretch, "parting": "bits 0"}),
        ({"file": "a", "bytes": 1 << 20}, {**stretch, "planes": None}),
    ):
        (tmp_path / "bad").write_bytes(forged((first, b""), (second, coded), (sha, b"")))
        with pytest.raises(UsageError, match="damaged"):
            unpack(tmp_path / "bad", tmp_path / "out")
    twice = ({"file": "a", "bytes": 0}, b""), (sha, b""), ({"file": "A", "bytes": 0}, b""), (sha, b"")
    (tmp_path / "bad").write_bytes(forged(*twice))
    with pytest.raises(UsageError, match="twice"):
        unpack(tmp_path / "bad", tmp_path / "out")


def test_places_that_cannot_be_are_refused_first(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        pack(tmp_path / "nowhere", tmp_path / "x")
    with pytest.raises(UsageError, match="inside"):
        pack(folders[0], folders[0] / "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty"):
        pack(tmp_path / "empty", tmp_path / "x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    pack(folders[-1], tmp_path / "x")
    with pytest.raises(UsageError, match="not empty"):
        unpack(tmp_path / "x", tmp_path / "full")
    with pytest.raises(UsageError, match="no such file"):
        unpack(tmp_path / "nowhere", tmp_path / "out")
    unpack(tmp_path / "x", tmp_path / "empty")
    assert contents(tmp_path / "empty") == contents(folders[-1])


def test_heads_are_json_and_lengths_are_bounded() -> None:
    record = packing._record({"file": "가", "bytes": 1}, b"x")
    first, second = packing._LENGTHS.unpack(record[:8])
    assert (
        json.loads(record[8 : 8 + first]) == {"file": "가", "bytes": 1} and record[8 + first :] == b"x" and second == 1
    )
