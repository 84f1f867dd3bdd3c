"""Running one command inside the test process, as the entry point does."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from whet import cli


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are taken as they are: what is tested hands them to a verb that is not the real one."""
    for place in ("starter.check_model", "starter.check_text", "starter.check_file", "compare.check_model"):
        monkeypatch.setattr(f"whet.cli.{place}", lambda *_: None)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """`command("compare", "a", "b")` runs `whet compare a b` in English and returns its code and output."""
    monkeypatch.setenv("WHET_LANG", "en")

    def call(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Ended(code, out, err)

    return call
