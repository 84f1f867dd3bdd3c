"""The laws of progress: many stages make one way, which never goes back, ends at its end, and tells the time left."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whet import events
from whet.events import Part, Stage, Way, note_event
from whet.messages import Message


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(events.time, "monotonic", lambda: self.now)

    def loop(self, way: Way, name: str, of: int, each: float, skipped: int = 0) -> None:
        stage = Stage(way, name, of, skipped)
        for _ in range(of - skipped):
            self.now += each
            stage.step()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def wholes(told: list[dict]) -> list[float]:
    return [event["whole"] for event in told]


def test_a_stage_by_itself_is_the_whole(clock):
    told = []
    clock.loop(told.append, "blocks", 4, 2.0)
    assert wholes(told) == [0.25, 0.5, 0.75, 1.0]
    assert [event["seconds_left"] for event in told] == [6.0, 4.0, 2.0, 0.0]


def test_steps_of_a_stage_may_differ(clock):
    told = []
    stage = Stage(told.append, "blocks", 3, sizes=[1.0, 8.0, 1.0])
    for seconds in (1, 8, 1):
        clock.now += seconds
        stage.step()
    assert wholes(told) == pytest.approx([0.1, 0.9, 1.0])
    assert [event["seconds_left"] for event in told] == pytest.approx([9, 1, 0])


def test_stages_make_one_way(clock):
    told = []
    way = Way(told.append, [Part("read", 10), Part("compress", 30), Part("verify", 10)])
    for name, of, each in (("read", 2, 5.0), ("compress", 3, 10.0), ("verify", 1, 10.0)):
        clock.loop(way, name, of, each)
    assert wholes(told) == pytest.approx([0.1, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert told[-1]["whole"] == 1.0
    # what was estimated is what it takes, so the time left is right from the first event on
    assert [event["seconds_left"] for event in told] == pytest.approx([45, 40, 30, 20, 10, 0])
    assert [event["stage"] for event in told] == ["read"] * 2 + ["compress"] * 3 + ["verify"]


def test_time_left_is_corrected_by_the_measured_speed(clock):
    """A machine twenty times as slow as was estimated: once a tenth is done, within a half of the truth."""
    told = []
    way = Way(told.append, [Part("compress", 10), Part("tune", 60), Part("verify", 30)])
    for name, of, each in (("compress", 10, 20.0), ("tune", 60, 20.0), ("verify", 30, 20.0)):
        clock.loop(way, name, of, each)
    for number, event in enumerate(told, 1):
        if number >= 10:
            assert event["seconds_left"] == pytest.approx((100 - number) * 20.0, rel=0.5, abs=1.0)


def test_what_one_round_took_is_what_the_next_will(clock):
    told = []
    way = Way(told.append, [Part("score", 10), Part("round", 10), Part("round", 10)])
    clock.loop(way, "score", 1, 10.0)
    clock.loop(way, "round", 1, 70.0)
    assert told[-1]["seconds_left"] == pytest.approx(70)
    clock.loop(way, "round", 7, 10.0)
    assert told[-7]["whole"] == pytest.approx(2 / 3 + 1 / 3 / 7)  # its share was settled when the first began


def test_a_stage_that_is_not_needed_is_skipped_forward(clock):
    told = []
    way = Way(told.append, [Part("read", 10), Part("transform", 40), Part("compress", 50)])
    clock.loop(way, "read", 1, 1.0)
    clock.loop(way, "compress", 2, 1.0)
    assert wholes(told) == pytest.approx([0.1, 0.75, 1.0])


def test_an_earlier_run_s_steps_count_and_tell_nothing_of_the_speed(clock):
    told = []
    way = Way(told.append, [Part("compress", 10), Part("verify", 10)])
    clock.loop(way, "compress", 10, 1.0, skipped=8)
    assert wholes(told) == pytest.approx([0.45, 0.5])
    assert told[0]["seconds_left"] == pytest.approx(1 + 10)


def test_more_rounds_than_were_foreseen_find_their_place(clock):
    told = []
    way = Way(told.append, [Part("round", 10), Part("finish", 10)])
    for _ in range(5):
        clock.loop(way, "round", 2, 1.0)
    before = wholes(told)
    assert all(a < b for a, b in itertools.pairwise(before)) and before[-1] < 1
    clock.loop(way, "finish", 1, 1.0)
    assert told[-1]["whole"] == 1.0


def test_a_stage_that_nobody_foresaw_moves_nothing(clock):
    told = []
    way = Way(told.append, [Part("read", 10), Part("compress", 10)])
    clock.loop(way, "read", 1, 10.0)
    clock.loop(way, "surprise", 3, 1.0)
    assert wholes(told) == [0.5] * 4
    assert [event["seconds_left"] for event in told[1:]] == pytest.approx([10.0] * 3)


def test_ways_lie_in_each_other(clock):
    told = []
    outer = Way(told.append, [Part("one", 10), Part("two", 30)])
    for name, scale in (("one", 1), ("two", 3)):
        inner = Way(outer.part(name), [Part("read", 1), Part("compress", 4)], timed=False)
        clock.loop(inner, "read", 1, 2.0 * scale)
        clock.loop(inner, "compress", 2, 4.0 * scale)
    assert wholes(told) == pytest.approx([0.05, 0.15, 0.25, 0.40, 0.70, 1.0])
    assert [event["seconds_left"] for event in told[2:]] == pytest.approx([30, 24, 12, 0], rel=0.05)


def test_what_is_no_progress_passes_as_it_is():
    told = []
    way = Way(told.append, [Part("read", 1)])
    event = note_event(Message("for people"))
    way(event)
    way.part("read")(event)
    assert told == [event, event]


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 1e6)), min_size=1, max_size=8),
    loops=st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 5), st.integers(0, 4)), max_size=12),
    timed=st.booleans(),
)
def test_whatever_comes_it_never_goes_back(parts, loops, timed):
    told = []
    way = Way(told.append, [Part(*part) for part in [*parts, ("end", 1.0)]], timed)
    for name, of, skipped in [*loops, ("end", 1, 0)]:
        stage = Stage(way, name, of, min(skipped, of - 1))
        for _ in range(of - stage.skipped):
            stage.step()
    found = wholes(told)
    assert found == sorted(found) and found[0] >= 0 and found[-1] == 1.0
    assert all(event["seconds_left"] >= 0 for event in told) and told[-1]["seconds_left"] == 0
