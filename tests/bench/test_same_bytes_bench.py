"""The bench of bytes: a source passes against itself, and what differs, fails or is missing does not pass."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import whet
from whet.grids import BLOCKS, SMALL_FLOATS
from whet.grids.schemes import FLOATS, PRESETS
from whet.quantize import SOLVERS, TRANSFORMS
from whet.targets import TARGETS

BENCH = Path(__file__).resolve().parents[2] / "bench"
TWO = "^(scheme/int4-g32|resume/nearest)$"


@pytest.fixture(scope="module")
def same_bytes():
    sys.path.insert(0, str(BENCH))
    try:
        import same_bytes

        yield same_bytes
    finally:
        sys.path.remove(str(BENCH))


@pytest.fixture(scope="module")
def before(same_bytes, tmp_path_factory):
    """Hashes of two runs, by name."""
    file = tmp_path_factory.mktemp("before") / "before.json"
    assert same_bytes.main(["--write", str(file), "--only", TWO]) == 0
    hashes = json.loads(file.read_text())
    assert set(hashes) == {"scheme/int4-g32", "resume/nearest"}
    return hashes


@pytest.fixture
def against(same_bytes, tmp_path, capsys):
    """Compares the runs of a pattern with given hashes: the exit code and the lines that were printed."""

    def compare(hashes: dict[str, str], only: str = TWO) -> tuple[int, list[str]]:
        (tmp_path / "before.json").write_text(json.dumps(hashes))
        capsys.readouterr()
        code = same_bytes.main(["--against", str(tmp_path / "before.json"), "--only", only])
        return code, capsys.readouterr().out.replace(f"{tmp_path}/", "").splitlines()

    return compare


def test_the_same_source_has_the_same_bytes(before, against):
    code, lines = against(before)
    assert code == 0 and lines[-1] == "2 of 2 are the same"


def test_a_changed_hash_is_reported(before, against):
    code, lines = against(before | {"resume/nearest": "0" * 64})
    assert code == 1 and lines[-2:] == ["1 of 2 are the same", "differs: resume/nearest"]


def test_what_only_one_side_has_is_told(before, against):
    """Other runs of the file, which were not asked for, are left out."""
    hashes = {"scheme/int4-g32": before["scheme/int4-g32"], "resume/gone": "0" * 64, "other": "0" * 64}
    code, lines = against(hashes, "scheme/int4-g(16|32)$|resume/gone")
    assert code == 1 and lines[-3:] == [
        "not in before.json, so compared with nothing: scheme/int4-g16",
        "1 of 2 are the same",
        "missing: resume/gone is in before.json only",
    ]


def test_nothing_compared_is_no_pass(before, against):
    for pattern in ("no such run", "scheme/int8s$"):
        with pytest.raises(SystemExit) as stopped:
            against(before, pattern)
        assert stopped.value.code == 2


def test_a_resumed_run_of_other_bytes_fails(same_bytes, tmp_path, monkeypatch, capsys):
    resume = whet.resume

    def otherwise(out: Path) -> None:
        resume(out)
        (out / "config.json").write_bytes((out / "config.json").read_bytes() + b"\n")

    monkeypatch.setattr(whet, "resume", otherwise)
    assert same_bytes.main(["--write", str(tmp_path / "f.json"), "--only", "resume/nearest"]) == 1
    assert "failed: resume/nearest: Broken: stopped and resumed, it wrote other" in capsys.readouterr().out
    assert json.loads((tmp_path / "f.json").read_text()) == {}


def test_the_hash_is_of_names_and_contents(same_bytes, tmp_path):
    (tmp_path / "adapter").mkdir()
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "config.json", "model.gguf"]
    files += ["adapter/adapter_model.safetensors", "README.md"]
    for name in files:
        (tmp_path / name).write_bytes(name.encode())
    before = same_bytes.digest(tmp_path)
    for name in files:
        (tmp_path / name).write_bytes(b"otherwise")
        assert (same_bytes.digest(tmp_path) == before) == (name == "README.md")
        (tmp_path / name).write_bytes(name.encode())
    assert same_bytes.digest(tmp_path) == before
    (tmp_path / files[0]).rename(tmp_path / "model.safetensors")
    assert same_bytes.digest(tmp_path) != before
    for name in ("model.safetensors", *files[1:]):
        (tmp_path / name).unlink()
    with pytest.raises(same_bytes.Broken, match="no weights"):
        same_bytes.digest(tmp_path)


def test_every_name_that_whet_knows_takes_part(same_bytes):
    every = same_bytes.runs()
    assert len({run.name for run in every}) == len(every)

    def asked(option: str) -> set[str]:
        return {run.options[option] for run in every if option in run.options}

    nearest = {run.options.get("scheme") for run in every if run.options.get("solver") == "nearest"}
    assert {*BLOCKS, *FLOATS, *PRESETS, *SMALL_FLOATS} <= nearest
    assert {f"int{bits}{zero}-g32" for bits in range(2, 9) for zero in ("", "s", "z")} <= nearest
    assert set(SOLVERS) <= asked("solver")
    assert set(TRANSFORMS) <= asked("transform")
    assert set(TARGETS) <= asked("target")
