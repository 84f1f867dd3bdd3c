"""What changes under a run, and places where nothing can be written: each is told by name, and no folder only looks
finished."""

from __future__ import annotations

import importlib
import shutil

import pytest
import torch

import models
import whet
from whet import cli
from whet.errors import MachineError, UsageError, WhetError
from whet.recipe.compress import compress
from whet.recipe.masks import masks
from whet.recipe.resume import resume
from whet.recipe.runner import run
from whet.steps import driver

WINDOWS = torch.randint(0, 264, (6, 16), generator=torch.Generator().manual_seed(0))
NEAREST = {"scheme": "int8s", "solver": "nearest"}
LONG = "n" * 5000


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("stops") / "model")


@pytest.fixture
def model(shared, tmp_path):
    shutil.copytree(shared, tmp_path / "model")
    return tmp_path / "model"


def meanwhile(monkeypatch, act):
    """Have `act` done once blocks are being solved."""
    solve = driver.without_text

    def acting(*arguments):
        act()
        return solve(*arguments)

    monkeypatch.setattr(driver, "without_text", acting)


@pytest.mark.parametrize("name", ["tokenizer.json", "LICENSE"])
def test_a_file_that_vanishes_during_the_run_is_missed(model, tmp_path, monkeypatch, name):
    out, kept = tmp_path / "out", (model / name).read_bytes()
    meanwhile(monkeypatch, (model / name).unlink)
    with pytest.raises(UsageError, match=rf"{name} was there when the run began, and is gone\. Put it back"):
        compress(model, out, **NEAREST)
    assert not (out / "whet.json").exists()
    monkeypatch.undo()
    (model / name).write_bytes(kept)
    resume(out)
    compress(model, tmp_path / "undisturbed", **NEAREST)
    assert models.contents(out) == models.contents(tmp_path / "undisturbed")


def test_a_file_that_changes_during_the_run_is_named(model, tmp_path, monkeypatch):
    meanwhile(monkeypatch, lambda: (model / "LICENSE").write_text("another"))
    with pytest.raises(UsageError, match=r"LICENSE is not what it was when the run began\."):
        compress(model, tmp_path / "out", **NEAREST)
    assert not (tmp_path / "out" / "whet.json").exists()


def test_weights_that_vanish_during_the_run_are_named(model, tmp_path, monkeypatch):
    meanwhile(monkeypatch, (model / "model.safetensors").unlink)
    with pytest.raises(UsageError, match=r"model\.safetensors is gone since it was first read"):
        compress(model, tmp_path / "out", **NEAREST)


@pytest.mark.parametrize("damage", ["removed", "cut off"])
def test_a_stopped_run_without_its_text_says_so(model, tmp_path, monkeypatch, damage):
    out = tmp_path / "out"
    monkeypatch.setattr(driver, "solve_through", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compress(model, out, scheme="int8s", text=WINDOWS)
    file = out / ".whet" / "windows.safetensors"
    file.unlink() if damage == "removed" else file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UsageError, match=r"text of the stopped run is missing or damaged \(\.whet/windows"):
        resume(out)


# -- places -----------------------------------------------------------------------------------------------------------


def places(folder):
    """Places where no folder can be made, and what is said of them."""
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "loop").symlink_to("loop")
    return {
        folder / "model" / "out": "is inside .*model, the original's own folder, which is never changed",
        folder / "model" / "a" / "b": "is inside .*model, the original's own folder",
        folder / "dangling": "dangling is a link that leads nowhere",
        folder / "dangling" / "out": "dangling is a link that leads nowhere",
        folder / "loop": "loop' is no path that a file can have",
        folder / LONG: r"nnn …' is no path that a file can have \(File name too long\)",
        folder / "zero\0": "is no path that a file can have",
    }


def test_no_step_begins_where_no_folder_can_be_made(model, tmp_path):
    recipe = {"version": 1, "steps": [{"quantize": NEAREST}]}
    (tmp_path / "alias").symlink_to(model)
    for out, told in (places(tmp_path) | {tmp_path / "alias" / "out": "is inside"}).items():
        for begin in (
            lambda: compress(model, out, **NEAREST),  # noqa: B023
            lambda: masks(model, out, remove="50%", importance="magnitude", update=False),  # noqa: B023
            lambda: run(recipe, model, out),  # noqa: B023
        ):
            with pytest.raises(UsageError, match=told):
                begin()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alias", "dangling", "loop", "model"]


@pytest.mark.parametrize("name", [LONG, "loop", "zero\0"])
@pytest.mark.parametrize(
    "words",
    [
        "compress {} out",
        "compress starter out --text {}",
        "compress starter out --plan {}",
        "compress starter out --recipe {}",
        "compress starter {} --scheme int8s --solver nearest",
        "compare {} starter",
        "compare starter {}",
        "inspect starter --text {}",
        "plan starter {} --bits 4 --dry-run",
        "masks {} out --remove 50%",
        "run {} starter out",
        "generate {} Once",
        "export {}",
        "status {}",
        "resume {}",
    ],
)
def test_a_path_that_no_file_can_have_is_no_internal_error(tmp_path, monkeypatch, capsys, name, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WHET_LANG", "en")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SystemExit) as ended:
        cli.main([name if word == "{}" else word for word in words.split()])
    said = capsys.readouterr().err
    assert ended.value.code in (2, 3) and said.startswith("error: ") and "Unexpected" not in said


@pytest.mark.parametrize(
    "error, code, told",
    [
        (MemoryError(), 3, "too little memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), 3, "too little"),
        (PermissionError(13, "Permission denied", "/there"), 3, "/there: Permission denied. Check the path"),
        (RuntimeError("else"), 1, "Unexpected RuntimeError: else"),
    ],
)
def test_what_the_machine_refuses_is_no_internal_error(monkeypatch, capsys, error, code, told):
    def refuse(*_arguments, **_options):
        raise error

    monkeypatch.setenv("WHET_LANG", "en")
    monkeypatch.setitem(vars(__import__("whet")), "status", refuse)
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", "."])
    assert ended.value.code == code and told in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["generate", "compare", "export", "status", "resume", "compress", "verify"])
def test_from_python_they_are_errors_of_whet_too(model, tmp_path, verb):
    long = tmp_path / ("n" * 300)
    does = {
        "compare": lambda: whet.compare(model, long, text=["ab"], speed=False),
        "export": lambda: whet.export(model, out=long),
        "generate": lambda: whet.generate(long, "ab"),
        "compress": lambda: whet.compress(model, tmp_path / "out", plan=str(long)),
    }
    with pytest.raises(WhetError, match=r"too long"):
        does.get(verb, lambda: getattr(whet, verb)(long))()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_a_machine_error_from_python(model, monkeypatch, error):
    def refuse(*_arguments, **_options):
        raise error

    monkeypatch.setattr(importlib.import_module("whet.engines.opening"), "open_engine", refuse)
    with pytest.raises(MachineError, match="too little memory"):
        whet.generate(model, "ab")
