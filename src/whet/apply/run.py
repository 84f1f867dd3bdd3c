"""The folder of a run, `.whet` inside the folder that is being made: begun, gone on with, closed.

    request.json          what the run was asked for and what it depends on; a folder without it holds no run
    windows.safetensors   the tokens it calibrates and verifies on
    plan.json             the plan it follows, if there is one
    journal.jsonl, …      what is finished (`whet.walk.Journal`) and what steps keep there

A run that was killed resumes from its request alone, and gives the bytes it would have given.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from whet import __version__
from whet.budget import write_plan
from whet.checkpoint import REQUEST, RUN, disk_errors, read_header, read_tensor, sync_folder, write_json, write_tensors
from whet.errors import UsageError
from whet.events import Event, OnEvent
from whet.messages import Message, listed
from whet.walk import locked

_WINDOWS, _PLAN, _PROGRESS = "windows.safetensors", "plan.json", "progress.json"
_TOLD = ("stage", "unit", "done", "of", "whole", "seconds_left")


class Run:
    """The run that makes the folder `out`."""

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)
        self.folder = self.out / RUN
        self.open = False  # by this call, which alone may write into the folder then

    @property
    def begun(self) -> bool:
        """Whether there is a stopped run."""
        return (self.folder / REQUEST).is_file()

    def check_free(self, original: Path) -> None:
        """Raises UsageError where `out` holds anything but a stopped run, or is the original's own folder."""
        out = self.out
        if not out.exists():
            return
        if not out.is_dir():
            raise UsageError("{out} is a file. Name a folder for the lighter model.", out=out)
        if out.resolve() == original.resolve():
            raise UsageError(
                "{out} is the original's own folder, which is never changed. Name another folder.", out=out
            )
        left = [] if self.begun else [p for p in out.iterdir() if p.name != RUN]
        if left:
            raise UsageError(
                "{out} is not empty (it holds {name}). Name a new folder, or empty this one.",
                out=out,
                name=left[0].name,
            )

    @contextmanager
    def opened(
        self,
        request: Mapping[str, Any],
        solve: Sequence[Tensor] = (),
        verify: Sequence[Tensor] = (),
        plan: Mapping[str, Any] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Hold the folder against other processes, and begin the run or go on with it; gives the request it began with.

        Raises UsageError where the stopped run is another one, naming what differs.
        """
        made = next((p for p in (*reversed(self.folder.parents), self.folder) if not p.exists()), None)
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            if self.begun:
                began = self.request()
                self._refuse_another(began, request)
            else:
                began = dict(request)
                try:
                    self._begin(began, solve, verify, plan)
                except BaseException:  # there is nothing to resume yet, so nothing of it is left
                    shutil.rmtree(made or self.folder, ignore_errors=True)
                    raise
            self.open = True
            try:
                yield began
            finally:
                self.open = False

    def request(self) -> dict[str, Any]:
        """What the stopped run was asked for. Raises UsageError where there is no run to go on with."""
        if not self.begun:
            if (self.out / "whet.json").is_file():
                shutil.rmtree(self.folder, ignore_errors=True)
                raise UsageError("{out} is finished: there is nothing to resume.", out=self.out)
            raise UsageError(
                "{out} holds no stopped run. Give the folder that whet compress was writing to.", out=self.out
            )
        request: dict[str, Any] = json.loads((self.folder / REQUEST).read_text(encoding="utf-8"))
        if request["whet"] != __version__:
            raise UsageError(
                "{out} was begun by whet {before}, this is {now}. Install that, or start anew elsewhere.",
                out=self.out,
                before=request["whet"],
                now=__version__,
            )
        return request

    def windows(self) -> tuple[list[Tensor], list[Tensor]]:
        """Windows that the run solves and verifies on."""
        stored = read_header(self.folder / _WINDOWS)
        solve, verify = (
            [read_tensor(stored[name]) for name in sorted(stored) if name.startswith(kind)]
            for kind in ("solve", "verify")
        )
        return solve, verify

    def plan(self) -> Path | None:
        """The file of the plan that the run follows, if there is one."""
        file = self.folder / _PLAN
        return file if file.is_file() else None

    def telling(self, on_event: OnEvent) -> OnEvent:
        """`on_event`, and what is going on kept in progress.json, for `whet status`: once a second or a percent.

        Where a stopped run is gone on with, the whole begins where it stood.
        """
        stood = (self.progress() or {}).get("whole", 0.0) if self.begun else 0.0
        last, told = -math.inf, -math.inf

        def tell(event: Event) -> None:
            nonlocal last, told
            if event["event"] != "progress":
                on_event(event)
                return
            event = event | {"whole": max(stood, event["whole"])}
            now = time.monotonic()
            if self.open and (now - last >= 1 or event["whole"] - told >= 0.01):
                last, told = now, event["whole"]
                self._keep({k: event.get(k) for k in _TOLD} | {"time": time.time()})
            on_event(event)

        return tell

    def progress(self) -> dict[str, Any] | None:
        """What the run said last of how far it is, an event's `_TOLD`, and the `time` it said so."""
        try:
            found: dict[str, Any] = json.loads((self.folder / _PROGRESS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found

    def close(self) -> None:
        """Remove the run's folder, the request first: without it there is no run, and half a removal is none either."""
        (self.folder / REQUEST).unlink()
        sync_folder(self.folder)
        shutil.rmtree(self.folder)

    def _keep(self, told: Mapping[str, Any]) -> None:
        """What is going on, for who asks; a disk that is full stops the run where it matters."""
        made = self.folder / f"{_PROGRESS}.tmp"
        with contextlib.suppress(OSError):
            made.write_text(json.dumps(told), encoding="utf-8")
            made.replace(self.folder / _PROGRESS)

    def _begin(
        self,
        request: Mapping[str, Any],
        solve: Sequence[Tensor],
        verify: Sequence[Tensor],
        plan: Mapping[str, Any] | None,
    ) -> None:
        windows = {f"solve {i:06d}": w.clone() for i, w in enumerate(solve)}  # one text may be both
        windows |= {f"verify {i:06d}": w.clone() for i, w in enumerate(verify)}
        write_tensors(self.folder / _WINDOWS, windows)
        if plan is not None:
            write_plan(self.folder / _PLAN, plan)
        write_json(self.folder / REQUEST, request)

    def _refuse_another(self, began: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Raises UsageError unless what the run began with is what is asked for `now`."""
        if began["fingerprint"] == now["fingerprint"]:
            return
        before, after = began["record"], now["record"]
        if before["model_sha256"] != after["model_sha256"]:
            what = Message("the model {path} is not the one it began with (or has changed since)", path=now["model"])
        else:
            differing = {k: (before.get(k), after[k]) for k in after if before.get(k) != after[k] and k != "plan"}
            parts = [_changed(name, *values) for name, values in differing.items()]
            parts += [Message("its plan is another")] * (before.get("plan") != after.get("plan"))
            parts += [_changed(k, began[k], now[k]) for k in ("budget", "precisions") if began.get(k) != now.get(k)]
            was, now_is = began.get("files", {}), now.get("files", {})  # a recipe's request names none: its steps' do
            files = sorted(name for name in {**was, **now_is} if was.get(name) != now_is.get(name))
            parts += [Message("the original's {file} is another", file=name) for name in files]
            parts += [Message("its questions are others")] * (began.get("items") != now.get("items"))
            what = listed(parts or [Message("its text is another")], "; ")
        raise UsageError(
            "{out} holds a stopped run that cannot go on: {what}. Give what it began with, or start in a new folder.",
            out=self.out,
            what=what,
        )


def _changed(name: str, before: object, now: object) -> Message:
    return Message("{name} was {before!r} and is {now!r}", name=name, before=before, now=now)
