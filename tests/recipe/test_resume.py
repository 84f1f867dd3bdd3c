"""Resume: killed at any moment and gone on with, the bytes are those of an undisturbed run; another run is refused."""

from __future__ import annotations

import functools
import hashlib
import os
import random
import shutil
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from covering import WHOLE, matrix
from killing import Ticks, counted, die, killed
from whet.apply import run as running
from whet.apply.run import Run
from whet.checkpoint import files
from whet.errors import UsageError
from whet.quantize import spinquant
from whet.recipe.compress import compress
from whet.recipe.resume import resume
from whet.steps import finish as finishing
from whet.transforms import rotations
from whet.walk import Journal
from wording import each

WINDOWS = torch.randint(0, 264, (6, 16), generator=torch.Generator().manual_seed(0))
CHOICES = {
    "one scheme": {"scheme": "int4-g32", "embed": "int4-g32", "solver": "nearest"},
    "mixed": {"scheme": "int3s-g32", "embed": "int6z-g16", "solver": "gptq"},
    "asymmetric": {"scheme": "int3-g16", "solver": "gptaq"},
    "transformed": {"scheme": "int3s-g32", "transform": "auto", "eval_text": WINDOWS.flip(1)},
    "turned": {"scheme": "int3s-g32", "transform": "spinquant", "eval_text": WINDOWS.flip(1)},
    "trained": {"scheme": "int2-g16", "embed": "int6z-g16", "solver": "tuned"},
    "repaired": {"scheme": "int2-g16", "solver": "tuned", "repair": 3},
    "written": {"scheme": "int3-g32", "synthetic": 64},
    "several": {"scheme": "int4-g16", "embed": "int4z-g16", "precisions": "6,3", "target": "whet"},
}


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Rotations that are learned in a moment, and what is trained sees its one batch 8 times, not 25."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("whet.train.steps._EPOCHS", 8)
        patch.setattr(rotations, "spinquant", functools.partial(spinquant, steps=6))
        yield


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("resume")
    return models.make(
        root / "model", tied=True, dtype=torch.bfloat16, hidden_size=32, intermediate_size=32, shards=True
    )


class Undisturbed(NamedTuple):
    """What a run wrote that nothing stopped, and how many moments it has that matter to the disk."""

    hashes: dict[str, str]
    ticks: int


@pytest.fixture(scope="module")
def undisturbed(original, tmp_path_factory):
    @functools.cache
    def run(name):
        out = tmp_path_factory.mktemp("undisturbed") / "out"
        ticks = counted(lambda: compress(original, out, text=WINDOWS, **CHOICES[name]))
        return Undisturbed(hashes(out), ticks)

    return run


def hashes(folder):
    return {name: hashlib.sha256(data).hexdigest() for name, data in models.contents(folder).items()}


def after(owner, name, calls, kill_before=False):
    """Die after (or before) the `calls`-th call of `owner.name`."""
    function, count = getattr(owner, name), [0]

    def wrapped(*args, **kwargs):
        count[0] += 1
        if kill_before and count[0] == calls:
            die()
        result = function(*args, **kwargs)
        if count[0] == calls:
            die()
        return result

    setattr(owner, name, wrapped)


def before_rename(name):
    """Die when the temporary file of `name` is whole and about to get its name."""
    replace = os.replace

    def wrapped(source, target):
        if os.path.basename(target) == name:
            die()
        replace(source, target)

    os.replace = wrapped


def half_a_file():
    """Die when half of the third shard's temporary file is written."""
    save, count = files.save_file, [0]

    def wrapped(tensors, path, **kwargs):
        save(tensors, path, **kwargs)
        count[0] += 1
        if count[0] == 3:
            os.truncate(path, os.path.getsize(path) // 2)
            die()

    files.save_file = wrapped


def half_a_line():
    """Die when half of the second line of the journal is on the disk."""
    record, count = Journal.record, [0]

    def wrapped(self, *args, **kwargs):
        line = record(self, *args, **kwargs)
        count[0] += 1
        if count[0] == 2:
            os.truncate(self.path, self.path.stat().st_size - 20)
            die()
        return line

    Journal.record = wrapped


REQUEST = ".whet/request.json"
# how to be killed there; shards and lines of the journal that are there then, a file that is, and one that is not yet
MOMENTS = {
    "windows written, no request yet": (
        lambda: after(running, "write_tensors", 1),
        (0, 0, ".whet/windows.safetensors", REQUEST),
    ),
    "request written, nothing else": (lambda: after(Run, "_begin", 1), (0, 0, REQUEST, ".whet/journal.jsonl")),
    "half of a shard's temporary file": (
        half_a_file,
        (1, 1, ".model-00002-of-00004.safetensors.tmp", "model-00002-of-00004.safetensors"),
    ),
    "first shard renamed, not journalled": (
        lambda: after(Journal, "record", 1, kill_before=True),
        (1, 0, REQUEST, ".whet/journal.jsonl"),
    ),
    "a block renamed, not journalled": (
        lambda: after(Journal, "record", 3, kill_before=True),
        (3, 2, REQUEST, "config.json"),
    ),
    "half of a journal line": (half_a_line, (2, 2, REQUEST, "config.json")),
    "a block journalled": (lambda: after(Journal, "record", 2), (2, 2, REQUEST, "config.json")),
    "last shard renamed, not journalled": (
        lambda: after(Journal, "record", 4, kill_before=True),
        (4, 3, REQUEST, "config.json"),
    ),
    "last shard written, no config": (
        lambda: after(finishing, "write_index", 1, kill_before=True),
        (4, 4, REQUEST, "config.json"),
    ),
    "config written, not proved": (
        lambda: after(finishing, "prove", 1, kill_before=True),
        (4, 4, "config.json", "README.md"),
    ),
    "card written, no whet.json": (
        lambda: after(finishing, "hashed_files", 1, kill_before=True),
        (4, 4, "README.md", ".whet.json.tmp"),
    ),
    "whet.json written under its temporary name": (
        lambda: before_rename("whet.json"),
        (4, 4, ".whet.json.tmp", "whet.json"),
    ),
    "whet.json written, run not closed": (
        lambda: after(finishing, "write_json", 1),
        (4, 4, "whet.json", ".whet.json.tmp"),
    ),
}


def gone_on_with(original, out, choices):
    """Resume, or begin again where the run was killed before there was one."""
    if (out / ".whet" / "request.json").exists():
        return resume(out)
    assert not [p for p in out.iterdir() if p.name != ".whet"]
    return compress(original, out, text=WINDOWS, **choices)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_between_any_two_steps(tmp_path, original, undisturbed, moment):
    out, choices = tmp_path / "out", CHOICES["one scheme"]
    arrange, (shards, lines, there, missing) = MOMENTS[moment]
    killed(lambda: compress(original, out, text=WINDOWS, **choices), arrange)
    journal = out / ".whet" / "journal.jsonl"
    assert len(list(out.glob("model-*.safetensors"))) == shards and (out / there).is_file()
    assert (len(journal.read_bytes().splitlines()) if journal.exists() else 0) == lines and not (out / missing).exists()
    gone_on_with(original, out, choices)
    assert hashes(out) == undisturbed("one scheme").hashes


SEEDED = {"mixed": 12, "asymmetric": 4, "trained": 8, "transformed": 8, "turned": 8, "repaired": 8, "written": 4}


def parts(name):
    """Which parts of a run it is killed in: every one, or some of one run and the middle of the others."""
    of = SEEDED[name]
    return range(of) if WHOLE else range(0, of, 4) if name == "mixed" else [of // 2]


@pytest.mark.parametrize("name,number,of", [(name, i, of) for name, of in SEEDED.items() for i in parts(name)])
def test_killed_at_seeded_moments(tmp_path, original, undisturbed, name, number, of):
    # one in every twelfth (or eighth) of the run, so that early and late moments are there
    at = int(undisturbed(name).ticks * (number + random.Random(number).random()) / of) + 1
    out, choices = tmp_path / "out", CHOICES[name]
    killed(lambda: compress(original, out, text=WINDOWS, **choices), lambda: Ticks(at))
    if (out / "whet.json").exists() and not (out / ".whet" / "request.json").exists():
        with pytest.raises(UsageError, match="is finished"):
            resume(out)
    else:
        gone_on_with(original, out, choices)
    assert hashes(out) == undisturbed(name).hashes


@pytest.mark.parametrize("steps,shards", [(3, 1), (13, 2), (19, 4)])
def test_killed_inside_the_training_of_a_block_or_of_all_scales(tmp_path, original, undisturbed, steps, shards):
    """One batch is seen 8 times by each of two blocks, and then by the whole."""
    out, choices = tmp_path / "out", CHOICES["trained"]
    killed(lambda: compress(original, out, text=WINDOWS, **choices), lambda: after(torch.optim.Adam, "step", steps))
    assert len(list(out.glob("whet-*.safetensors"))) == shards
    gone_on_with(original, out, choices)
    assert hashes(out) == undisturbed("trained").hashes


@matrix({"line": [2, 3, 5], "damaged": [False, True]}, strength=1)
def test_killed_between_a_block_and_its_adapter(tmp_path, original, undisturbed, line, damaged):
    """Lines of the journal: embedding, adapter and block 0, adapter and block 1, rest."""
    out, choices = tmp_path / "out", CHOICES["repaired"]
    killed(
        lambda: compress(original, out, text=WINDOWS, **choices),
        lambda: after(Journal, "record", line, kill_before=True),
    )
    kept = sorted((out / ".whet").glob("adapter-*.safetensors"))
    assert len(kept) == line // 2
    if damaged:
        data = bytearray(kept[0].read_bytes())
        data[-1] ^= 1
        kept[0].write_bytes(data)
    resume(out)
    assert hashes(out) == undisturbed("repaired").hashes


def test_killed_while_the_finished_run_is_cleared_away(tmp_path, original, undisturbed):
    def after_windows():
        def half(folder):
            # in whatever order the file system lists them, the windows may go first
            (folder / "windows.safetensors").unlink()
            die()

        running.shutil.rmtree = half

    out = tmp_path / "out"
    killed(lambda: compress(original, out, text=WINDOWS, **CHOICES["one scheme"]), after_windows)
    assert (out / ".whet").exists()
    with pytest.raises(UsageError, match="is finished"):
        resume(out)
    assert hashes(out) == undisturbed("one scheme").hashes


def test_killed_twice_and_once_while_it_was_resumed(tmp_path, original, undisturbed):
    out, choices = tmp_path / "out", CHOICES["one scheme"]
    killed(lambda: compress(original, out, text=WINDOWS, **choices), MOMENTS["first shard renamed, not journalled"][0])
    killed(lambda: resume(out), lambda: after(Journal, "record", 2))
    killed(lambda: resume(out), MOMENTS["card written, no whet.json"][0])
    resume(out)
    assert hashes(out) == undisturbed("one scheme").hashes


def test_rounding_without_text_resumes_too(tmp_path, original):
    choices = {"scheme": "int4-g32", "embed": "int4-g32", "solver": "nearest"}
    compress(original, tmp_path / "one", **choices)
    killed(lambda: compress(original, tmp_path / "two", **choices), lambda: after(Journal, "record", 2))
    resume(tmp_path / "two")
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


# -- stopped, and gone on with wrongly -------------------------------------------------------------------------------


def stop_after(count, error=KeyboardInterrupt):
    """A callback that stops the run when `count` units are finished."""

    def on_event(event):
        if event["event"] == "progress" and event["stage"] == "compress" and event["done"] == count:
            raise error

    return on_event


@pytest.fixture
def stopped(tmp_path, original):
    """A folder whose run was stopped with Ctrl-C after two units."""
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        compress(original, out, text=WINDOWS, **CHOICES["one scheme"], on_event=stop_after(2))
    return out


def test_ctrl_c_leaves_a_folder_that_resumes(stopped, undisturbed):
    assert not any(name.endswith(".tmp") for name in models.contents(stopped))
    events = []
    result = resume(stopped, on_event=events.append)
    assert hashes(stopped) == undisturbed("one scheme").hashes
    # what was finished is not done again
    assert [e["done"] for e in events if e["event"] == "progress" and e["stage"] == "compress"] == [3, 4]
    assert result["scheme"] == "int4-g32" and result["out"] == str(stopped)


def test_the_same_call_again_goes_on(stopped, original, undisturbed):
    compress(original, stopped, text=WINDOWS, **CHOICES["one scheme"])
    assert hashes(stopped) == undisturbed("one scheme").hashes


def test_a_finished_shard_that_was_damaged_is_made_again(stopped, undisturbed):
    shard = sorted(stopped.glob("*.safetensors"))[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    resume(stopped)
    assert hashes(stopped) == undisturbed("one scheme").hashes


@each(
    "change,what",
    [
        ({"scheme": "int8-g32", "embed": "int8-g32"}, "scheme was 'int4-g32' and is 'int8-g32'"),
        ({"embed": None}, "embed was 'int4-g32' and is None"),
        ({"seed": 3}, "seed was 0 and is 3"),
        ({"text": WINDOWS[:5]}, "text was|its text is another"),
        ({"text": WINDOWS.flip(0)}, "its text is another"),
        ({"solver": "gptq"}, "solver was 'nearest' and is 'gptq'"),
        ({"transform": "awq"}, "transform was None and is 'awq'"),
    ],
)
def test_other_choices_are_refused_and_named(stopped, original, change, what):
    before = models.contents(stopped)
    with pytest.raises(UsageError, match=what) as raised:
        compress(original, stopped, **{"text": WINDOWS, **CHOICES["one scheme"], **change})
    assert "start in a new folder" in str(raised.value)
    assert models.contents(stopped) == before


def test_another_model_is_refused(stopped, tmp_path):
    other = models.make(
        tmp_path / "other", tied=True, dtype=torch.bfloat16, hidden_size=32, intermediate_size=32, seed=1
    )
    before = models.contents(stopped)
    with pytest.raises(UsageError, match=r"the model .*other is not the one it began with"):
        compress(other, stopped, text=WINDOWS, **CHOICES["one scheme"])
    assert models.contents(stopped) == before


@pytest.mark.parametrize("change", ["a weight", "the config", "gone"])
def test_a_model_that_changed_since_is_refused(tmp_path, original, change):
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(original, model)
    with pytest.raises(KeyboardInterrupt):
        compress(model, out, text=WINDOWS, **CHOICES["one scheme"], on_event=stop_after(1))
    if change == "a weight":
        shard = sorted(model.glob("*.safetensors"))[0]
        tensors = load_file(shard)
        next(iter(tensors.values())).view(-1)[0] += 1
        save_file(tensors, shard, metadata={"format": "pt"})
    elif change == "the config":
        models.edit_config(model, rms_norm_eps=1e-3)
    else:
        shutil.rmtree(model)
    before = models.contents(out)
    with pytest.raises(UsageError, match="does not exist" if change == "gone" else "not the one it began with"):
        resume(out)
    assert models.contents(out) == before


def test_a_file_beside_the_weights_that_has_changed_is_named(tmp_path, original):
    model, out = shutil.copytree(original, tmp_path / "model"), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        compress(model, out, scheme="int8s", solver="nearest", on_event=stop_after(1))
    (model / "tokenizer_config.json").write_text('{"model_max_length": 7}', encoding="utf-8")
    with pytest.raises(UsageError, match=r"cannot go on: the original's tokenizer_config\.json is another"):
        resume(out)


def test_weights_that_are_written_to_while_they_are_read_are_noticed(tmp_path, original):
    model, out = shutil.copytree(original, tmp_path / "model"), tmp_path / "out"
    file = next(model.glob("*.safetensors"))

    def write(event):
        if event["event"] == "progress":
            os.utime(file, ns=(0, 0))

    with pytest.raises(UsageError, match=f"{file.name} changed while it was being read"):
        compress(model, out, scheme="int8s", solver="nearest", on_event=write)
    assert not (out / "whet.json").exists()


def test_another_version_of_whet_is_refused(stopped, monkeypatch):
    monkeypatch.setattr(running, "__version__", "99.0")
    with pytest.raises(UsageError, match=r"was begun by whet .*this is 99\.0"):
        resume(stopped)


def test_what_holds_no_run_is_refused(tmp_path, original):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere", original):
        with pytest.raises(UsageError, match=r"holds no stopped run. Give the folder"):
            resume(path)
    assert not (tmp_path / "nowhere").exists()


def test_a_finished_folder_has_nothing_to_resume(tmp_path, original):
    out = tmp_path / "out"
    compress(original, out, scheme="int8s", solver="nearest")
    before = models.contents(out)
    with pytest.raises(UsageError, match="is finished"):
        resume(out)
    with pytest.raises(UsageError, match="is not empty"):
        compress(original, out, scheme="int8s", solver="nearest")
    assert models.contents(out) == before


def test_two_processes_do_not_write_the_same_folder(tmp_path):
    """The second is refused while the first holds the folder, and goes on when it has let go."""
    from whet.walk import locked

    run = tmp_path / "out" / ".whet"
    run.mkdir(parents=True)
    with locked(run), pytest.raises(UsageError, match="another whet"), locked(run):
        pass
    with locked(run):
        pass
