"""Whether llama.cpp survives a file, found in a process of its own: native code answers much of what it does not expect
by aborting the process it is in."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from whet.child import run_python
from whet.errors import UsageError
from whet.messages import Message

_SCRIPT = Path(__file__).with_name("try_gguf.py")
_RUN = "import runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"


def must_survive(file: Path, adapter: Path | None, threads: int) -> None:
    """Raises UsageError where llama.cpp crashes on opening `file`, with its `adapter`, or on a few tokens."""
    done = run_python(_RUN, str(_SCRIPT), str(file), str(threads), str(adapter or ""))
    if (how := crash(done)) is not None:
        raise UsageError(
            "llama.cpp crashes on {path} ({how}). The file is damaged or made for another version of llama.cpp, or "
            "this build does not fit the processor: export it again, or reinstall llama-cpp-python.",
            path=file,
            how=how,
        )


def crash(done: subprocess.CompletedProcess[str]) -> Message | None:
    """How a process was ended by the system rather than by itself, and what native code said last; None if it was
    not."""
    code = done.returncode
    if 0 <= code < 128:
        return None
    number = -code if code < 0 else code - 128
    known = {one.value for one in signal.Signals}
    name = signal.Signals(number).name if number in known else f"code {code}"
    lines = [" ".join(line.split()) for line in done.stderr.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if "ASSERT" in line), lines[-1] if lines else "")
    return Message("{signal}: {said}", signal=name, said=last[-200:]) if last else Message("{signal}", signal=name)
