"""A headless Chromium driven through its DevTools protocol over two pipes: no driver, no port, no package.

With `--remote-debugging-pipe` Chromium reads JSON messages from file descriptor 3 and writes them to 4, each ended by
a zero byte (https://chromedevtools.github.io/devtools-protocol/). A message with an `id` is answered by one with the
same `id`; the others are events, which are kept in `events`.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # continuous integration runs as root in a container, where the sandbox cannot start
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-extensions",
    "--no-first-run",
    "--hide-scrollbars",
    "about:blank",
)
PATIENCE = 60  # seconds without an answer after which the browser counts as dead; a busy machine starts it in five


def chromium() -> str | None:
    """The path of an installed Chromium: what WHET_CHROMIUM names, else the first of NAMES that is there."""
    return os.environ.get("WHET_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of one browser. `call` sends a command to the page; `close` ends the browser."""

    def __init__(self, binary: str, profile: Path) -> None:
        """Starts `binary` with `profile`, an empty folder, as its user data."""
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # above 4, so that moving one to 3 or 4, where Chromium looks for them, cannot close the other
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
        mover = f"import os, sys; os.dup2({ends[0]}, 3); os.dup2({ends[1]}, 4); os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", mover, binary, f"--user-data-dir={profile}", *_FLAGS]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, pass_fds=ends, stdin=quiet, stdout=quiet, stderr=quiet)
        for end in (theirs_in, theirs_out, *ends):
            os.close(end)
        self._in, self._out, self._rest, self._number = ours_in, ours_out, b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a command. Raises RuntimeError when Chromium refuses it or does not answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], PATIENCE)
            read = os.read(self._in, 1 << 20) if ready else b""
            if not read:
                raise RuntimeError("Chromium ended or does not answer.")
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression (JSON), in a function of its own when it is a block."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression[:60]}: {found['exceptionDetails']['exception']['description']}")
        return found["result"].get("value")

    def open(self, file: Path) -> None:
        """Go to a file and wait until it is loaded; `events` starts anew."""
        self.events.clear()
        self.call("Page.navigate", url=file.as_uri())
        deadline = time.monotonic() + PATIENCE
        while all(event["method"] != "Page.loadEventFired" for event in self.events):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{file} did not load.")
            self.evaluate("0")  # what happened meanwhile comes before the answer

    def resize(self, width: int, height: int) -> None:
        """The size of the window in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def prefer(self, theme: str, medium: str = "") -> None:
        """What prefers-color-scheme says, and the medium (`print`)."""
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.call("Emulation.setEmulatedMedia", features=features, media=medium)

    def screenshot(self, file: Path, cut: tuple[int, int, int, int] | None = None) -> None:
        """The whole page as PNG, or of it what lies in `cut` (left, top, width, height)."""
        clip = (
            {} if cut is None else {"clip": dict(zip(("x", "y", "width", "height"), cut, strict=True)) | {"scale": 1}}
        )
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png", **clip)
        file.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End the browser and wait for it."""
        os.close(self._out)  # Chromium ends when its pipe does
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
