"""Killing a run in a process of its own, at moments that matter to the disk."""

from __future__ import annotations

import hashlib
import os
import signal


def hashes(folder):
    """SHA-256 of every file of a folder, by name."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.is_file()}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed(work, arrange):
    """Run `work` in a process of its own that `arrange` has prepared to kill itself; it must not survive."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            arrange()
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "the run was over before it was killed"


def counted(work):
    """Run `work` in a process of its own, undisturbed; how many moments it has that matter to the disk."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            counting = Ticks()
            work()
            os.write(writer, str(counting.count).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    return int(os.read(reader, 100))


class Ticks:
    """Counts the moments that matter to the disk (before and after every sync, rename and removal); dies at one.

    How far a run is it writes when a second has passed, so as many times as the machine is slow: that does not count.
    """

    def __init__(self, at=None):
        self.count, self.at = 0, at
        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, self.around(getattr(os, name)))

    def around(self, function):
        def wrapped(*args, **kwargs):
            if any(str(argument).endswith("progress.json") for argument in args):
                return function(*args, **kwargs)
            self.tick()
            result = function(*args, **kwargs)
            self.tick()
            return result

        return wrapped

    def tick(self):
        self.count += 1
        if self.count == self.at:
            die()
