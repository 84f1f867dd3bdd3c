"""Python in a process of its own, which imports what this one would, and nothing of the folder it is started in.

`python -c` and `python -m` look into the current folder first, before the standard library: in a folder that somebody
else made, a file `json.py` would run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import whet

_BEGIN = "import sys; sys.path.append(sys.argv.pop(1)); "


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `code` with `arguments` as `sys.argv[1:]`, to its end; what it prints is kept as text.

    Threads that wait do not spin, unless OMP_WAIT_POLICY says otherwise.
    """
    command = python_command(code, *arguments)
    return subprocess.run(command, env=environment(), capture_output=True, text=True)


def python_command(code: str, *arguments: str) -> list[str]:
    """What to start, with the variables of `environment`, for `code` to run with `arguments` as `sys.argv[1:]`."""
    # whet itself may have been found in the current folder: it is looked for there last
    home = str(Path(whet.__file__).resolve().parents[1])
    return [sys.executable, "-P", "-c", _BEGIN + code, home, *arguments]


def start_script(script: Path) -> subprocess.Popen[str]:
    """A Python file that imports nothing of whet, started: lines go to it and come from it. What it says of errors is
    dropped; it ends when its input does."""
    return subprocess.Popen(
        [sys.executable, "-P", str(script)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    )


def environment() -> dict[str, str]:
    """The variables of this process. An empty entry of PYTHONPATH, as `PYTHONPATH=$PYTHONPATH:more` makes it, would be
    the current folder."""
    found = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    if "PYTHONPATH" in found:
        found["PYTHONPATH"] = os.pathsep.join(entry for entry in found["PYTHONPATH"].split(os.pathsep) if entry)
    return found
