"""Files: a header is believed only when everything in it fits; a file is whole or not there."""

from __future__ import annotations

import errno
import json
import os
import resource
import struct
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from whet.checkpoint import atomic, files, read_header, read_tensor, write_bytes, write_json, write_tensors
from whet.errors import MachineError, UsageError
from wording import each

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def raw(path, header, data=b"", length=None):
    """A file with this header (dict or bytes), as it comes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(start, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def test_every_type_reads_as_safetensors_reads_it(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {str(d): (torch.randn(3, 5, generator=generator) * 3).to(d) for d in DTYPES}
    tensors |= {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4), "odd": torch.arange(7, dtype=torch.uint8)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "x.safetensors")
    theirs = load_file(tmp_path / "x.safetensors")
    assert set(header) == set(theirs)
    for name, value in theirs.items():
        mine = read_tensor(header[name])
        assert mine.dtype == value.dtype and mine.shape == value.shape
        assert mine.reshape(-1).view(torch.uint8).equal(value.reshape(-1).view(torch.uint8))
        assert header[name].nbytes == value.numel() * value.element_size()


def test_written_files_read_back_and_say_pt(tmp_path):
    write_tensors(tmp_path / "x.safetensors", {"a": torch.randn(4, 6).t(), "b": torch.arange(3)})
    assert load_file(tmp_path / "x.safetensors")["a"].shape == (6, 4)
    head = (tmp_path / "x.safetensors").read_bytes()
    assert json.loads(head[8 : 8 + struct.unpack("<Q", head[:8])[0]])["__metadata__"] == {"format": "pt"}


def test_weights_may_be_read_by_whom_other_files_may_be(tmp_path):
    write_tensors(tmp_path / "x.safetensors", {"a": torch.ones(2)})
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


WRONG = {
    "no header": (b"", None, b"", "it has 4 bytes"),
    "length beyond the file": ({"a": entry(0, 8)}, 10**12, b"x" * 8, "header claims 1000000000000 bytes"),
    "not JSON": (b'{"a": ', None, b"", "header is not JSON"),
    "not text": (b"\xff\xfe\x00", None, b"", "header is not JSON"),
    "a list": ([1, 2], None, b"", "header is not a table"),
    "unknown type": ({"a": entry(0, 8, dtype="F3")}, None, b"x" * 8, "tensor a cannot be read"),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, None, b"x" * 8, "tensor a cannot be read"),
    "an entry that is no table": ({"a": 5}, None, b"x" * 8, "tensor a cannot be read"),
    "a shape of text": ({"a": entry(0, 8, shape="2")}, None, b"x" * 8, "tensor a"),
    "a negative offset": ({"a": entry(-8, 0)}, None, b"x" * 8, "negative or non-integer"),
    "a negative size": ({"a": entry(0, 8, shape=(-2,))}, None, b"x" * 8, "negative or non-integer"),
    "a size that is not the shape's": ({"a": entry(0, 8, shape=(3,))}, None, b"x" * 8, "needs 12 bytes, not 8"),
    "an overlap": (
        {"a": entry(0, 8), "b": entry(4, 12)},
        None,
        b"x" * 12,
        "tensor b overlaps another or leaves a hole",
    ),
    "a hole": ({"a": entry(0, 8), "b": entry(12, 20)}, None, b"x" * 20, "tensor b overlaps another or leaves a hole"),
    "cut off": ({"a": entry(0, 8)}, None, b"x" * 5, "cut off"),
    "bytes after the end": ({"a": entry(0, 8)}, None, b"x" * 9, "its tensors need"),
}


@each("name", WRONG)
def test_a_header_that_does_not_fit_is_refused(tmp_path, name):
    header, length, data, what = WRONG[name]
    path = tmp_path / "bad.safetensors"
    if name == "no header":
        path.write_bytes(b"1234")
    else:
        raw(path, header, data, length)
    with pytest.raises(UsageError, match=what) as raised:
        read_header(path)
    assert str(path) in str(raised.value) and "Download it again" in str(raised.value)


def test_the_test_header_itself_is_right(tmp_path):
    raw(tmp_path / "x", {"__metadata__": {}, "a": entry(0, 8), "b": entry(8, 16)}, struct.pack("<4f", 1, 2, 3, 4))
    header = read_header(tmp_path / "x")
    assert read_tensor(header["b"]).tolist() == [3.0, 4.0]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), atomic(path) as temporary:
            temporary.write_bytes(b"half")
            raise error
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_json_is_readable_and_ends_with_a_line_end(tmp_path):
    write_json(tmp_path / "x.json", {"이름": "모델"})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "이름": "모델"\n}\n'


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_names_the_remedy_and_leaves_nothing(tmp_path, monkeypatch, code):
    def full(*_args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(MachineError, match=r"is full.*Free some space.*same command again"):
        write_bytes(tmp_path / "file", b"data")
    assert os.listdir(tmp_path) == []


def test_safetensors_own_error_of_a_full_disk_is_understood(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(MachineError, match="is full"):
        write_tensors(tmp_path / "file", {"a": torch.ones(2)})


def test_a_write_that_the_system_cuts_short_is_a_machine_error(tmp_path):
    # a real limit of the operating system, in a process of its own: files of at most 64 KiB
    script = f"""
import resource, signal, sys
import torch
from whet.checkpoint import write_tensors
from whet.errors import MachineError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    write_tensors(__import__("pathlib").Path({str(tmp_path / "x.safetensors")!r}), {{"a": torch.ones(100000)}})
except MachineError as error:
    sys.exit(0 if "is full" in str(error) else 5)
sys.exit(6)
"""
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_one_may_not_write_to_is_a_machine_error(tmp_path, monkeypatch, code):
    def refuse(*_args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(MachineError, match=r"cannot be written.*Choose a folder you may write to"):
        write_bytes(tmp_path / "file", b"data")
    assert os.listdir(tmp_path) == []


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic(tmp_path / "file"):
        raise ZeroDivisionError


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path):
    save_file({"a": torch.ones(100)}, tmp_path / "x")
    info = read_header(tmp_path / "x")["a"]
    os.truncate(tmp_path / "x", 200)
    with pytest.raises(UsageError, match="became shorter"):
        read_tensor(info)
