"""Energy: twice the work has twice the joules, counters that start again go on, rest does not count, money adds up."""

from __future__ import annotations

import time
from statistics import median

import pytest

from whet.errors import UsageError
from whet.measure.aspects.energy import pay_back
from whet.measure.costs import Costs
from whet.measure.meters import Meter, open_meter, repeats
from whet.messages import Message


def _work(seconds: float) -> None:
    """So much time on the processor."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_twice_the_work_is_twice_the_joules_whatever_else_runs() -> None:
    meter = open_meter("cpu", 10.0)
    once, twice = (median(meter.joules(lambda n=n: _work(n * 0.05)) for _ in range(5)) for n in (1, 2))
    assert not meter.measured and twice / once == pytest.approx(2, rel=0.1)
    assert once == pytest.approx(0.5, rel=0.1)
    assert meter.joules(lambda: time.sleep(0.05)) < 0.1  # waiting is not work


def test_a_counter_of_the_processors_that_starts_again_goes_on(tmp_path) -> None:
    for name, now in (("intel-rapl:0", 900), ("intel-rapl:1", 50), ("intel-rapl:0:0", 7)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(str(now))
        (tmp_path / name / "max_energy_range_uj").write_text("999")
    meter = open_meter("cpu", None, tmp_path)
    before = meter.read()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100")
    assert meter.measured and meter.read() - before == pytest.approx(200e-6)
    assert not open_meter("cpu", None, tmp_path / "none").measured
    assert not open_meter("cpu", 5.0, tmp_path).measured  # what a user knows of the machine counts


def test_what_the_machine_takes_at_rest_does_not_count() -> None:
    meter = Meter(Message("a machine of 100 W"), True, lambda: 100 * time.perf_counter(), 1e-3)
    meter.rest(0.05)
    assert meter.idle == pytest.approx(100, rel=1e-3)
    assert meter.joules(lambda: time.sleep(0.05)) < 0.1
    assert repeats(meter, 1.0) == 1 and repeats(meter, 0.1) == 3
    assert repeats(Meter(Message("slow"), True, float, 0.1), 1.0) == 5


def test_when_making_it_has_paid() -> None:
    told = pay_back(3.6e-3, 1.8e-3, Costs(price_an_hour=2.0, hours=3.0))
    assert told is not None and told[0] == pytest.approx(3 * 2e6)  # half a microhour a token is saved
    assert pay_back(1e-3, 2e-3, Costs(price_an_hour=2.0, hours=3.0))[0] is None
    assert pay_back(1e-3, 2e-3, Costs(price_an_hour=2.0)) is None
    for wrong in ({"price_an_hour": -1.0}, {"hours": 2.0}, {"watts": float("nan")}):
        with pytest.raises(UsageError):
            Costs(**wrong)
