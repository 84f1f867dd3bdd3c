"""A model built by Python files in its folder: run when the person who runs whet says so, and by nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import models
import whet
from whet.checkpoint import load_model
from whet.cli import main
from whet.errors import UsageError

TEXT = models.documents(40)
TOKENS = torch.randint(3, 260, (2, 16), generator=torch.Generator().manual_seed(0))
_PARTS = """
from torch import nn


class Twice(nn.Module):
    def forward(self, x):
        return 2 * x
"""
_MODELING = """
import pathlib
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from .own_parts import Twice

pathlib.Path("RAN").touch()


class OwnConfig(LlamaConfig):
    model_type = "own_family"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp.act_fn = nn.Sequential(layer.mlp.act_fn, Twice())
"""

_ELSEWHERE = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
here = Path(sys.argv[1])
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(here / "out", trust_remote_code=True, dtype=torch.float32).eval()
with torch.no_grad():
    save_file({"logits": model(load_file(here / "tokens")["tokens"]).logits.contiguous()}, here / "logits")
"""


@pytest.fixture
def folder(tmp_path):
    """A folder whose family transformers does not know, with the two files that build it."""
    own = models.make(tmp_path / "m")
    (own / "own_parts.py").write_text(_PARTS)
    (own / "modeling_own.py").write_text(_MODELING.replace("RAN", str(tmp_path / "ran")))
    map_ = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    models.edit_config(own, model_type="own_family", architectures=["OwnForCausalLM"], auto_map=map_)
    known = dict(CONFIG_MAPPING._extra_content)
    yield own
    CONFIG_MAPPING._extra_content.clear()
    CONFIG_MAPPING._extra_content.update(known)
    for kind in [k for k in AutoModelForCausalLM._model_mapping._extra_content if k.__name__ == "OwnConfig"]:
        del AutoModelForCausalLM._model_mapping._extra_content[kind]


def ran(folder):
    return (folder.parent / "ran").exists()


def test_nothing_is_run_unless_it_is_asked_for(folder, tmp_path):
    with pytest.raises(UsageError, match="trust-remote-code runs it"):
        whet.compress(folder, tmp_path / "out", scheme="int8s", text=TEXT)
    with pytest.raises(UsageError, match="trust_remote_code"):
        whet.run({"steps": [{"quantize": {"scheme": "int8s"}}], "trust_remote_code": True}, folder, tmp_path / "out")
    models.edit_config(folder, trust_remote_code=True)
    with pytest.raises(UsageError, match="trust-remote-code runs it"):
        load_model(folder)
    assert not ran(folder)


def test_code_of_a_folder_builds_the_model_and_goes_along(folder, tmp_path):
    whet.trust_remote_code(folder)
    assert ran(folder)
    original = load_model(folder, torch.float32)
    assert type(original).__name__ == "OwnForCausalLM"
    made = whet.compress(folder, tmp_path / "out", scheme="int4s-g32", text=TEXT, samples=8, window=32)
    assert made["solver"] == "gptq" and 0 < made["kl"] < 0.5
    assert not any("not copied" in str(note) for note in made["notes"])
    own = load_model(tmp_path / "out", torch.float32)
    save_file({"tokens": TOKENS}, tmp_path / "tokens")
    # elsewhere, where nothing of whet's is imported
    subprocess.run([sys.executable, "-c", _ELSEWHERE, str(tmp_path)], check=True, capture_output=True)
    with torch.no_grad():
        assert torch.equal(load_file(tmp_path / "logits")["logits"], own(TOKENS).logits)
        assert not torch.equal(own(TOKENS).logits, original(TOKENS).logits)
    held = whet.compare(folder, tmp_path / "out", text=TEXT, window=32, speed=False)
    assert 0 < held["divergence"]["kl"]["mean"] < 0.5
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["auto_map"]["AutoConfig"] == "modeling_own.OwnConfig"


def test_code_of_another_place_is_refused(folder):
    map_ = {"AutoConfig": "someone/else--modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    models.edit_config(folder, auto_map=map_)
    with pytest.raises(UsageError, match="lies in another place"):
        whet.trust_remote_code(folder)
    models.edit_config(folder, remove=("auto_map",))
    with pytest.raises(UsageError, match="there is nothing to trust"):
        whet.trust_remote_code(folder)
    assert not ran(folder)


def test_a_family_that_transformers_knows_needs_no_code(folder):
    models.edit_config(folder, model_type="llama", architectures=["LlamaForCausalLM"])
    whet.trust_remote_code(folder)
    assert not ran(folder)
    (folder / "modeling_own.py").write_text("raise RuntimeError('too old')\n")
    models.edit_config(folder, model_type="own_family")
    with pytest.raises(UsageError, match=r"cannot be run \(RuntimeError: too old"):
        whet.trust_remote_code(folder)


def test_what_needs_the_modelling_file_is_refused(folder, tmp_path):
    whet.trust_remote_code(folder)
    with pytest.raises(UsageError, match="modelling file cannot stand"):
        whet.compress(folder, tmp_path / "out", scheme="int3s-g32", target="whet", text=TEXT)


def test_the_flag_of_the_command_line_says_so(folder, tmp_path):
    asked = ["compress", str(folder), str(tmp_path / "out"), "--scheme", "int8s", "--solver", "nearest"]
    with pytest.raises(SystemExit) as refused:
        main(asked)
    assert refused.value.code == 2 and not ran(folder)
    with pytest.raises(SystemExit) as done:
        main([*asked, "--trust-remote-code"])
    assert done.value.code == 0 and ran(folder)
