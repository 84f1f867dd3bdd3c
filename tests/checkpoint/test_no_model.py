"""Folders that hold no model whet reads are told by what they are, with what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import models
from whet import compress, generate
from whet.checkpoint import REQUEST, RUN, Checkpoint
from whet.checkpoint.gguf import read_gguf
from whet.errors import UsageError

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 269060552\n"
# What lies in a folder without config.json, and what is said of it.
ALONE = {
    "a run that is not finished": ([f"{RUN}/{REQUEST}"], "whet resume"),
    "an adapter of PEFT": (["adapter_config.json", "adapter_model.safetensors"], "an adapter for org/base, and no"),
    "a .gguf": (["a-Q4_K_M.gguf"], "holds a-Q4_K_M.gguf.*`whet generate` and `whet compare` read it"),
    "diffusers": (["model_index.json", "unet/config.json"], "format of diffusers"),
    "ONNX": (["model.onnx", "tokenizer.json"], "format of ONNX"),
    "checkpoints of training": (["checkpoint-500/config.json"], r"checkpoint-500 does\. Give that"),
    "a cache of the hub": (["refs/main", "snapshots/abc/config.json"], r"snapshots/abc does\. Give that"),
    "nothing": ([], r"no config\.json"),
}
# The same of one with config.json and without safetensors.
WEIGHTLESS = {
    "pickle": (["pytorch_model.bin", "training_args.bin"], "pickle.*pytorch_model.bin.*save_pretrained"),
    "pickle, after training": (["optimizer.pt", "training_args.bin"], "a config and no weights"),
    "OpenVINO": (["openvino_model.xml", "openvino_model.bin"], "format of OpenVINO"),
    "ONNX inside": (["onnx/model.onnx"], "format of ONNX"),
    "Meta's": (["consolidated.00.pth", "params.json"], "format of Meta"),
    "a run that is not finished": ([f"{RUN}/{REQUEST}"], "whet resume"),
    "nothing": ([], "a config and no weights"),
}


def fill(folder: Path, names: list[str]) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    return folder


@pytest.mark.parametrize("kind", ALONE)
def test_a_folder_without_a_config_is_told(tmp_path: Path, kind: str) -> None:
    names, told = ALONE[kind]
    with pytest.raises(UsageError, match=told):
        Checkpoint(fill(tmp_path, names))


@pytest.mark.parametrize("kind", WEIGHTLESS)
def test_a_folder_without_weights_is_told(tmp_path: Path, kind: str) -> None:
    names, told = WEIGHTLESS[kind]
    folder = models.make(tmp_path / "model", with_tokenizer=False)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    with pytest.raises(UsageError, match=told):
        Checkpoint(fill(folder, names))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_no_file(tmp_path: Path, name: str) -> None:
    folder = models.make(tmp_path / "model")
    (folder / name).write_text(POINTER)
    for call in (lambda: generate(folder, "a"), lambda: compress(folder, tmp_path / "out", solver="nearest")):
        with pytest.raises(UsageError, match=f"{re.escape(name)} is a Git LFS pointer of 134 bytes.*git lfs pull"):
            call()
    assert not (tmp_path / "out").exists()
    (tmp_path / "a.gguf").write_text(POINTER)
    with pytest.raises(UsageError, match="Git LFS pointer"):
        read_gguf(tmp_path / "a.gguf")


def test_a_run_that_was_stopped_before_its_manifest_is_no_model(tmp_path: Path) -> None:
    original = models.make(tmp_path / "model")
    out = tmp_path / "out"
    compress(original, out, scheme="int8s", solver="nearest")
    (out / "whet.json").unlink()
    fill(out, [f"{RUN}/{REQUEST}"])
    for call in (lambda: generate(out, "a"), lambda: compress(out, tmp_path / "two", solver="nearest")):
        with pytest.raises(UsageError, match=f"not finished.*whet resume {re.escape(str(out))}"):
            call()


def test_a_model_that_needs_its_own_code_is_told(tmp_path: Path) -> None:
    folder = models.make(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "architectures": ["MineForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.Mine"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    for call in (lambda: generate(folder, "a"), lambda: compress(folder, tmp_path / "out", solver="nearest")):
        with pytest.raises(
            UsageError, match=r"modeling_mine\.py.*does not know the family 'mine'.*--trust-remote-code"
        ):
            call()


def test_a_file_of_a_model_is_answered_with_its_folder(tmp_path: Path) -> None:
    folder = models.make(tmp_path / "model", with_tokenizer=False)
    with pytest.raises(UsageError, match=f"is a file. Give the folder it is in: {re.escape(str(folder))}"):
        Checkpoint(folder / "model.safetensors")
