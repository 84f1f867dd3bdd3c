"""The laws of every command: help with an example, one paragraph on stderr for what is wrong, the right exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import whet
from whet import cli
from whet.errors import GateError, MachineError, UsageError
from wording import each

pytestmark = pytest.mark.usefixtures("anywhere")

VERBS = ("demo", "compress", "masks", "compare", "generate", "resume", "schema")
# Arguments with which each verb gets as far as calling the library.
CALLS: dict[str, tuple[str, ...]] = {
    "compress": ("model", "out"),
    "masks": ("model", "out"),
    "compare": ("model", "out"),
    "generate": ("model", "prompt"),
    "resume": ("out",),
}
WHET = Path(sys.executable).with_name("whet")


def replace(monkeypatch: pytest.MonkeyPatch, verb: str, result: Any) -> list[tuple[tuple, dict]]:
    """Put a function in the place of `whet.<verb>` that returns or raises `result`; what it was called with."""
    calls = []

    def fake(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setitem(vars(whet), verb, fake)
    return calls


@each("verb", VERBS)
def test_help_has_an_example_that_names_the_verb(command: Callable, verb: str) -> None:
    ended = command(verb, "--help")
    assert ended.code == 0 and ended.err == ""
    assert f"Example: whet {verb}" in ended.out


def test_help_names_every_verb_and_no_arguments_is_help(command: Callable) -> None:
    ended = command("--help")
    assert ended.code == 0 and all(verb in ended.out for verb in VERBS)
    ended = command()
    assert ended.code == 2 and all(verb in ended.err + ended.out for verb in VERBS)


def test_version(command: Callable) -> None:
    assert command("--version") == (0, f"whet {whet.__version__}\n", "")


@each("verb", VERBS)
def test_a_mistyped_command_is_answered_with_the_right_one(command: Callable, verb: str) -> None:
    ended = command(verb[:-2] + verb[-1])
    assert ended.code == 2 and ended.out == ""
    assert verb in ended.err and len(ended.err.splitlines()) == 1


def every_option() -> list[tuple[str, str]]:
    import typer.main

    group = typer.main.get_command(cli.app)
    return [
        (verb, option)
        for verb, inner in group.commands.items()  # type: ignore[attr-defined]
        for parameter in inner.params
        for option in parameter.opts
        if option.startswith("--")
    ]


@each("verb, option", every_option())
def test_a_mistyped_option_is_answered_with_the_right_one(command: Callable, verb: str, option: str) -> None:
    wrong = f"{option[:-1]}q{option[-1]}"
    ended = command(verb, *CALLS.get(verb, ()), wrong)
    assert ended.code == 2 and ended.out == ""
    assert wrong in ended.err and option in ended.err and len(ended.err.splitlines()) == 1


@each(
    "arguments, said",
    [
        (("compress",), "MODEL"),
        (("compress", "model"), "OUT"),
        (("compress", "model", "out", "more"), "more"),
        (("compress", "model", "out", "--samples", "many"), "--samples"),
        (("compress", "model", "out", "--samples", "0"), "--samples"),
        (("compress", "model", "out", "--scheme"), "--scheme"),
        (("compare", "model", "out", "--limit", "kl"), "kl"),
        (("compare", "model", "out", "--limit", "kl=low"), "kl=low"),
        (("generate", "model"), "PROMPT"),
    ],
)
def test_wrong_arguments_are_named(command: Callable, arguments: tuple[str, ...], said: str) -> None:
    ended = command(*arguments)
    assert ended.code == 2 and ended.out == ""
    assert said in ended.err and len(ended.err.splitlines()) == 1


@each(
    "verb, error, code",
    [(verb, *one) for verb in CALLS for one in ((UsageError, 2), (MachineError, 3), (GateError, 5))],
)
def test_an_error_is_one_paragraph_with_its_exit_code(
    command: Callable, monkeypatch: pytest.MonkeyPatch, verb: str, error: type[Exception], code: int
) -> None:
    replace(monkeypatch, verb, error("model: it is broken. Mend it."))
    ended = command(verb, *CALLS[verb])
    assert ended == (code, "", "error: model: it is broken. Mend it.\n")
    assert "Traceback" in command(verb, *CALLS[verb], "--debug").err


@each("verb", CALLS)
def test_a_fault_of_whet_is_said_to_be_one(command: Callable, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    replace(monkeypatch, verb, IndexError("list index\nout of range"))
    ended = command(verb, *CALLS[verb])
    assert ended.code == 1 and ended.out == "" and len(ended.err.splitlines()) == 1
    assert "IndexError" in ended.err and "--debug" in ended.err


@pytest.mark.parametrize("verb", CALLS)
def test_interrupted_ends_with_130_and_one_line(
    command: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str
) -> None:
    replace(monkeypatch, verb, KeyboardInterrupt())
    (tmp_path / ".whet").mkdir()
    arguments = [tmp_path if argument == "out" else argument for argument in CALLS[verb]]
    ended = command(verb, *arguments)
    assert ended.code == 130 and ended.out == "" and len(ended.err.splitlines()) == 1
    assert (f"whet resume {tmp_path}" in ended.err) == (verb in ("compress", "masks", "resume"))


def test_generate_prints_the_text_or_json(command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = replace(monkeypatch, "generate", " upon [a] time 옛날")
    assert command("generate", "model", "Once") == (0, "Once upon [a] time 옛날\n", "")
    ended = command("generate", "model", "Once", "--json", "--temperature", "0.5", "--seed", "7")
    assert json.loads(ended.out)["text"] == " upon [a] time 옛날"
    assert calls[-1][1]["temperature"] == 0.5 and calls[-1][1]["seed"] == 7


@each(
    "arguments, korean, english",
    [
        (("compres",), ("명령 'compres'가 없습니다", "혹시 'compress'"), "No such"),
        (("compress", "model", "out", "--sheme", "W4A16"), ("옵션 --sheme", "혹시", "--scheme"), "No such"),
        (("compress", "model", "out", "--samples", "0"), ("'--samples'의 값: 1 이상",), "Input"),
        (("compress", "model", "out", "--samples", "many"), ("'--samples'의 값: 정수",), "Input"),
        (("compress", "model", "out", "--scheme"), ("옵션 '--scheme'에 값이 없습니다",), "argument"),
        (("compress", "model", "out", "more"), ("남는 인자가 있습니다: more",), "unexpected"),
        (("compress", "model"), ("OUT이 없습니다",), "missing"),
        (("generate", "model"), ("'PROMPT'가 없습니다",), "Missing"),
        (("schema", "plam"), ("'plam'은 'plan', 'recipe' 중",), "not one of"),
        (("generate", "/no/such model", "Once"), ("/no/such model이 없습니다. 모델 폴더나",), "exist"),
        (("compare", "model", "out", "--limit", "kl=low"), ("--limit kl=low: 기준은",), "such as"),
        (
            ("compress", "starter", "out", "--scheme", "W4A61"),
            ("'W4A61'은 모르는 형식입니다", "혹시 W4A16입니까?"),
            "known",
        ),
        (("compress", "starter", "out", "--solver", "gptqq"), ("solver", "혹시 gptq입니까?", "fast는 "), "known"),
        (("compress", "starter", "out", "--recipe", "balancd"), ("balancd", "혹시 balanced입니까?"), "neither"),
    ],
)
def test_errors_are_in_korean(
    command: Callable,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    korean: tuple[str, ...],
    english: str,
) -> None:
    monkeypatch.setenv("WHET_LANG", "en")
    assert english in command(*arguments).err
    monkeypatch.setenv("WHET_LANG", "ko")
    ended = command(*arguments)
    assert ended.code == 2 and ended.out == "" and ended.err.startswith("오류: ") and len(ended.err.splitlines()) == 1
    assert all(said in ended.err for said in korean)
    assert english not in ended.err


@each("error, code", [(UsageError, 2), (MachineError, 3), (GateError, 5)])
def test_an_error_without_korean_is_told_in_english(
    command: Callable, monkeypatch: pytest.MonkeyPatch, error: type[Exception], code: int
) -> None:
    replace(monkeypatch, "resume", error("model: it is broken. Mend it."))
    monkeypatch.setenv("WHET_LANG", "ko")
    assert command("resume", "out") == (code, "", "오류: model: it is broken. Mend it.\n")


@pytest.mark.parametrize("module", ["whet", "whet.cli"])
def test_importing_is_light(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_mistyped_command_is_answered_without_importing_anything_heavy() -> None:
    environment = {**os.environ, "WHET_LANG": "en", "PYTHONPROFILEIMPORTTIME": "1"}
    ended = subprocess.run([WHET, "compres"], capture_output=True, text=True, env=environment)
    lines = ended.stderr.splitlines()
    (told,) = [line for line in lines if not line.startswith("import time:")]
    assert ended.returncode == 2 and ended.stdout == "" and "compress" in told
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines if line.startswith("import time:")}
    assert "whet" in imported and not imported & {"torch", "transformers", "numpy", "safetensors"}


def test_what_the_terminal_cannot_show_is_escaped() -> None:
    fake = "vars(whet)['generate'] = lambda *a, **k: ' 옛날'"
    code = f"import whet, whet.cli; {fake}; whet.cli.main(['generate', '.', '가'])"
    environment = {**os.environ, "WHET_LANG": "ko", "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "\\uac00 \\uc61b\\ub0a0\n", "")


def test_every_public_name_is_there() -> None:
    assert all(callable(getattr(whet, verb)) for verb in ("compress", "compare", "generate", "resume"))
    with pytest.raises(AttributeError, match="compres"):
        whet.compres  # noqa: B018


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_threads_that_wait_do_not_spin_unless_told_to(given: str | None) -> None:
    told = "import os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    code = f"import whet, whet.cli; vars(whet)['status'] = lambda *a: exec({told!r}); whet.cli.main(['status', '.'])"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ended.stdout == f"{given or 'PASSIVE'} False\n"


@pytest.mark.parametrize("given", [None, "7"])
def test_what_is_compiled_for_shapes_is_kept_for_few_unless_told_to(given: str | None) -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    environment = {key: value for key, value in os.environ.items() if key != name}
    environment |= {} if given is None else {name: given}
    code = f"import whet, os; print(os.environ[{name!r}])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ended.stdout == f"{given or '64'}\n"


def test_python_runs_whet_as_a_module_and_nothing_of_the_current_folder(tmp_path: Path) -> None:
    for name in ("json", "torch", "typer"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('planted')\n")
    command = [sys.executable, "-m", "whet", "--version"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"whet {whet.__version__}\n", "")
