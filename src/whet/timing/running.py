"""Orders for the timing processes: started, listened to line by line, and started again after a crash."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from whet.child import environment, python_command
from whet.errors import MachineError

PROMPT, DECODE, ROUNDS = 128, 24, 5
_LLAMA = "from whet.timing.timed import answer; answer(*sys.argv[1:])"
_TORCH = "from whet.timing.kernels import answer; answer(*sys.argv[1:])"
OnLine = Callable[[dict[str, Any]], None]


def time_variants(
    order: Mapping[str, Any], variants: Sequence[Mapping[str, Any]], policy: str, on_line: OnLine
) -> dict[str, dict[str, Any]]:
    """What was timed of each variant in llama.cpp, by name. One that makes the process crash has `error` alone, and the
    others are timed in another process."""
    found: dict[str, dict[str, Any]] = {}
    left = list(variants)

    def line(told: dict[str, Any]) -> None:
        if "begin" in told:
            begun.append(told["begin"])
            return
        found[told["name"]] = told
        on_line(told)

    while left:
        begun: list[str] = []
        why = run_order(_LLAMA, {**order, "variants": left}, policy, line)
        if why is None:
            break
        if not begun:
            raise MachineError("llama.cpp could not be timed here: {why}.", why=why)
        if begun[-1] not in found:
            line({"name": begun[-1], "error": why})
        left = [variant for variant in left if variant["name"] not in found]
    return found


def time_torch(order: Mapping[str, Any], policy: str, on_line: OnLine) -> str | None:
    """Lines of `whet.timing.kernels`; why it ended early, if it did."""
    return run_order(_TORCH, order, policy, on_line)


def run_order(code: str, order: Mapping[str, Any], policy: str, on_line: OnLine) -> str | None:
    """Run `code` on the order, each line of JSON handed on; None where it ended well, else its last words."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "order.json"
        file.write_text(json.dumps({"scratch": folder, **order}), encoding="utf-8")
        errors = Path(folder) / "errors"
        with errors.open("w") as stream:
            process = subprocess.Popen(
                python_command(code, str(file)),
                env={**environment(), "OMP_WAIT_POLICY": policy},
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.startswith("{"):
                        on_line(json.loads(line))
                code_of_end = process.wait()
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        if code_of_end == 0:
            return None
        last = errors.read_text(errors="replace").strip().splitlines() or ["no message"]
        return f"{last[-1][:200]} (code {code_of_end})"
