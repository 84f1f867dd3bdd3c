"""Headers of .gguf files: a whole one is read as the `gguf` package reads it, any other is refused in a sentence."""

from __future__ import annotations

import random
import struct

import gguf
import numpy as np
import pytest

from whet.checkpoint.gguf import is_gguf, read_gguf
from whet.errors import UsageError
from wording import each


def write(path, **more):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.context_length", 64)
    writer.add_bool("a.flag", True)
    writer.add_float64("a.float", 0.5)
    writer.add_string("a.text", "한글")
    writer.add_array("tokenizer.ggml.tokens", more.get("tokens", ["a", "b", "▁c"]))
    writer.add_array("tokenizer.ggml.scores", more.get("scores", [0.5, -1.0, 2.0]))
    writer.add_array("tokenizer.ggml.token_type", [1, 1, 1])
    writer.add_tensor("token_embd.weight", np.arange(96, dtype=np.float32).reshape(3, 32))
    rows = gguf.quantize(np.ones((4, 64), dtype=np.float32), gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("blk.0.attn_q.weight", rows, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("output_norm.weight", np.ones(5, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def whole(tmp_path):
    return write(tmp_path / "whole.gguf")


def test_a_whole_file_reads_as_the_package_reads_it(whole):
    file, theirs = read_gguf(whole), gguf.GGUFReader(whole)
    assert is_gguf(whole) and file.architecture == "llama" and file.setting("context_length") == 64
    assert (file.metadata["a.flag"], file.metadata["a.float"], file.metadata["a.text"]) == (True, 0.5, "한글")
    assert file.tokens == ["a", "b", "▁c"] and file.metadata["tokenizer.ggml.scores"].tolist() == [0.5, -1.0, 2.0]
    for tensor in theirs.tensors:
        mine = file.tensors[tensor.name]
        assert (mine.type, mine.start, mine.nbytes) == (tensor.tensor_type.name, tensor.data_offset, tensor.n_bytes)
        assert list(mine.shape) == tensor.shape.tolist()[::-1]
        assert np.array_equal(file.read(tensor.name).reshape(-1), tensor.data.reshape(-1).view(np.uint8))
    assert file.parameters == 96 + 256 + 5 and file.nbytes == 4 * 96 + 4 * 36 + 4 * 5
    assert file.size()["embedding"] == 384 and file.size()["linears"] == 144 and file.size()["other"] == 20


def broken(whole, name):
    """A file that is wrong in one way, and what the message says of it."""
    data = bytearray(whole.read_bytes())

    def replace(old, new):
        at = data.index(old)
        data[at : at + len(old)] = new

    def info(tensor):  # where the dimensions, the type and the place of a tensor lie
        at = data.index(struct.pack("<Q", len(tensor)) + tensor) + 8 + len(tensor)
        count = struct.unpack_from("<I", data, at)[0]
        return at, at + 4, at + 4 + 8 * count, at + 4 + 8 * count + 4

    said = ""
    if name == "mark":
        data[:4], said = b"GGML", "does not begin with GGUF"
    elif name == "version":
        data[4:8], said = struct.pack("<I", 9), "has version 9"
    elif name == "endian":
        data[4:8], said = struct.pack(">I", 3), "big-endian"
    elif name == "tensors":
        data[8:16], said = struct.pack("<Q", 1 << 60), "claims 1152921504606846976 tensors"
    elif name == "entries":
        data[16:24], said = struct.pack("<Q", 1 << 40), "claims 1099511627776 entries"
    elif name == "text":
        replace(struct.pack("<Q", 6) + "한글".encode(), struct.pack("<Q", 1 << 50) + "한글".encode())
        said = "a.text claims a length of"
    elif name == "list":
        key = b"tokenizer.ggml.scores"
        at = data.index(key) + len(key) + 8
        data[at : at + 8], said = struct.pack("<Q", 1 << 61), "tokenizer.ggml.scores claims"
    elif name == "kind":
        key = b"a.float"
        at = data.index(key) + len(key)
        data[at : at + 4], said = struct.pack("<I", 77), "a.float has type 77"
    elif name == "dimensions":
        at = info(b"token_embd.weight")[0]
        data[at : at + 4], said = struct.pack("<I", 1 << 30), "claims 1073741824 dimensions"
    elif name == "shape":
        at = info(b"token_embd.weight")[1]
        data[at : at + 8], said = struct.pack("<Q", 1 << 62), "token_embd.weight claims the shape"
    elif name == "empty":
        at = info(b"token_embd.weight")[1]
        data[at : at + 8], said = struct.pack("<Q", 0), "token_embd.weight claims the shape"
    elif name == "block":
        at = info(b"blk.0.attn_q.weight")[1]
        data[at : at + 8], said = struct.pack("<Q", 63), "rows of 63, which Q4_0 cannot hold"
    elif name == "type":
        at = info(b"token_embd.weight")[2]
        data[at : at + 4], said = struct.pack("<I", 4000), "has type 4000"
    elif name == "overlap":
        at = info(b"blk.0.attn_q.weight")[3]
        data[at : at + 8], said = struct.pack("<Q", 0), "attn_q.weight begins at 0 instead of 384: it overlaps"
    elif name == "far":
        at = info(b"output_norm.weight")[3]
        data[at : at + 8], said = struct.pack("<Q", 1 << 55), "leaves a hole"
    elif name == "twice":
        replace(b"output_norm.weight", b"output_norm.weighs"), replace(b"a.flag", b"a.text")
        said = "the entry a.text is there twice"
    elif name == "utf8":
        replace(b"a.flag", b"a.\xff\xfe\xfd\xfc"), None
        said = "a key is not UTF-8"
    elif name == "cut":
        del data[-16:]
        said = r"cut off\?"
    elif name == "header":
        del data[200:]
        said = "left"
    elif name == "nothing":
        data.clear()
        said = "the mark GGUF needs 4 bytes and 0 are left"
    file = whole.with_name(f"{name}.gguf")
    file.write_bytes(bytes(data))
    return file, said


WAYS = (
    *("mark", "version", "endian", "tensors", "entries", "text", "list", "kind", "dimensions", "shape", "empty"),
    *("block", "type", "overlap", "far", "twice", "utf8", "cut", "header", "nothing"),
)


@each("name", WAYS)
def test_what_is_wrong_is_refused_in_a_sentence(whole, name):
    file, said = broken(whole, name)
    with pytest.raises(UsageError, match=said) as raised:
        read_gguf(file)
    assert str(file) in str(raised.value) and "\n" not in str(raised.value)


@each("scores", [[0.5], [0.5] * 9, [1, 2, 3]])
def test_lists_that_are_read_by_the_vocabularys_length_must_have_it(tmp_path, scores):
    """llama.cpp reads a score a token without asking how many there are."""
    with pytest.raises(
        UsageError, match=r"tokenizer\.ggml\.scores (has \d items for 3 tokens|is not a list of float32)"
    ):
        read_gguf(write(tmp_path / "short.gguf", scores=scores))


def test_a_file_that_is_not_there_is_told_the_nearest(whole):
    with pytest.raises(UsageError, match=r"whol\.gguf does not exist\. Did you mean whole\.gguf\?"):
        read_gguf(whole.with_name("whol.gguf"))


def test_fuzz_no_damage_makes_anything_but_a_sentence(whole, tmp_path):
    """Cut anywhere, bytes changed anywhere, counts blown up: read as it is, or refused; never anything else."""
    data = whole.read_bytes()
    header = read_gguf(whole).tensors["token_embd.weight"].start
    rng = random.Random(0)
    file = tmp_path / "fuzz.gguf"
    refused = 0
    for turn in range(1500):
        damaged = bytearray(data)
        if turn % 3 == 0:
            del damaged[rng.randrange(len(damaged)) :]
        elif turn % 3 == 1:
            for _ in range(rng.randint(1, 8)):
                damaged[rng.randrange(header)] = rng.randrange(256)
        else:
            at = rng.randrange(0, header - 8)
            damaged[at : at + 8] = struct.pack("<Q", rng.choice([0, 1, 2**16, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]))
        file.write_bytes(bytes(damaged))
        try:
            found = read_gguf(file)
            assert all(tensor.end <= len(damaged) for tensor in found.tensors.values())
        except UsageError as error:
            refused += 1
            assert str(file) in str(error)
    assert refused > 1000
