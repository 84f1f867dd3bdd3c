"""Joules: read from a counter where this machine has one, else estimated from the time that processors worked.

Counters: NVIDIA's of each GPU (NVML `nvmlDeviceGetTotalEnergyConsumption`, in mJ; package nvidia-ml-py), and RAPL's of
each processor package (`energy_uj` under /sys/class/powercap, in µJ, which starts again at `max_energy_range_uj`;
kernel documentation, power/powercap). Both count what the machine takes doing nothing, so that is measured first and
subtracted. Where neither can be read, this process's time on the processors counts, at a power for each core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from whet.messages import Message

POWERCAP = Path("/sys/class/powercap")
WATTS = 10.0  # of a core that works; from some 3 W in a laptop to 20 W in a server with few cores
FACTOR = 2.0  # by which an estimate may be off either way
_IDLE_SECONDS = 5.0


@dataclass
class Meter:
    """A counter of energy. read: joules since some start, never falling. every: seconds between its updates. measured:
    whether it is read from the machine. idle: watts of the machine when it does nothing, which do not count."""

    method: Message
    measured: bool
    read: Callable[[], float]
    every: float
    idle: float = field(default=0.0)

    def rest(self, seconds: float = _IDLE_SECONDS) -> None:
        """Measure what the machine takes at rest."""
        if self.measured:
            before, started = self.read(), time.perf_counter()
            time.sleep(seconds)
            self.idle = (self.read() - before) / (time.perf_counter() - started)

    def joules(self, work: Callable[[], object]) -> float:
        """What `work` takes above rest."""
        before, started = self.read(), time.perf_counter()
        work()
        return max(0.0, self.read() - before - self.idle * (time.perf_counter() - started))


def open_meter(device: str, watts: float | None = None, powercap: Path = POWERCAP) -> Meter:
    """The best meter for what runs on `device`. watts: of a core that works; given, it is what counts on a CPU."""
    if device.startswith("cuda"):
        return _nvml(device) or _estimated(watts)
    return _estimated(watts) if watts is not None else _rapl(powercap) or _estimated(None)


def _estimated(watts: float | None) -> Meter:
    power = WATTS if watts is None else watts
    method = Message(
        "estimated from the processor time of this process at {watts:g} W a core, which may be off by a factor of "
        "{factor:g}; the ratio of the two models does not depend on it",
        watts=power,
        factor=FACTOR,
    )
    return Meter(method, False, lambda: power * time.process_time(), time.get_clock_info("process_time").resolution)


def _rapl(powercap: Path) -> Meter | None:
    """The counters of all processor packages together; None where they cannot be read."""
    files = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        # intel-rapl:0 is a package, intel-rapl:0:1 a part of it
        if zone.name.count(":") == 1 and (zone / "energy_uj").is_file():
            files.append(zone)
    try:
        counters = [_Wrapping(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text())) for zone in files]
        for counter in counters:
            counter.read()
    except (OSError, ValueError):
        return None
    if not counters:
        return None
    method = Message("measured by the processors' own counter (RAPL), less what the machine takes at rest")
    return Meter(method, True, lambda: sum(counter.read() for counter in counters) / 1e6, 1e-3)


class _Wrapping:
    """A counter in a file that starts again at 0 after `largest`."""

    def __init__(self, file: Path, largest: int) -> None:
        self.file, self.largest, self.last, self.turns = file, largest, 0, 0

    def read(self) -> int:
        """What it would have without starting again."""
        now = int(self.file.read_text())
        if now < self.last:
            self.turns += 1
        self.last = now
        return self.turns * (self.largest + 1) + now


def _nvml(device: str) -> Meter | None:
    """The counter of one GPU; None without nvidia-ml-py, or where the GPU has none (before Volta)."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(device.partition(":")[2] or 0))
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # whatever it is, there is no counter; NVML's errors are its own types
        return None
    method = Message("measured by the GPU's own counter (NVML), less what it takes at rest")
    return Meter(method, True, lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, 0.1)


def repeats(meter: Meter, seconds: float, updates: int = 50) -> int:
    """How often work of so many seconds is done in a row, so that the counter moves often enough while it is."""
    wanted = max(0.3, updates * meter.every)
    return max(1, -(-int(wanted * 1000) // max(1, int(seconds * 1000))))
