"""What the measurements say, in sentences: what to use here, what is slower than the original, what other machines
would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from whet.messages import Message, listed
from whet.timing.order import ACTIVE, PASSIVE

_MUCH = 1.1  # times that a setting must help to be worth saying
_SLOW = 0.98  # times 16 bits below which a format is slower
_AMONG = 0.8  # of the fastest in its bits: worth naming
# Bytes a second that a phone's memory and a graphics card's are about, for the order of magnitude alone.
_PHONE, _CARD = 5e10, 1e12


def advice(found: Mapping[str, Any]) -> list[Message]:
    """Sentences about measured pairs, of which there is at least one."""
    pairs: Sequence[Mapping[str, Any]] = found["pairs"]
    if not pairs:
        return [Message("nothing could be timed here")]
    told = [_fastest(pairs)]
    four = [pair for pair in pairs if 4 <= pair["bits"] < 5.2]
    if four:
        best = max(four, key=lambda pair: pair["decode"])
        told.append(
            Message(
                "of about 4 bits a weight {runtime} with {format} is the fastest here: {speed:.0f} tokens a second, "
                "{times:.1f} "
                "times the fastest of 16 bits",
                runtime=best["runtime"],
                format=best["format"],
                speed=best["decode"],
                times=best["decode"] / _sixteen(pairs),
            )
        )
    slower = [f"{p['runtime']} {p['format']}" for p in pairs if p["speedup"] is not None and p["speedup"] < _SLOW]
    if slower:
        told.append(Message("slower than 16 bits in the same runtime: {names}", names=listed(slower)))
    larger = _beaten(pairs)
    if larger:
        told.append(
            Message("slower here than a format of more bits, so only worth it for room: {names}", names=listed(larger))
        )
    told += _prefill(pairs) + _settings(found) + _elsewhere(pairs)
    return told


def _fastest(pairs: Sequence[Mapping[str, Any]]) -> Message:
    best = max(pairs, key=lambda pair: pair["decode"])
    return Message(
        "the fastest pair here is {runtime} with {format}: {speed:.0f} tokens a second, which is {share:.0f} % of what "
        "memory "
        "gives",
        runtime=best["runtime"],
        format=best["format"],
        speed=best["decode"],
        share=100 * best["share"],
    )


def _sixteen(pairs: Sequence[Mapping[str, Any]]) -> float:
    """Tokens a second of the fastest pair of 16 bits or more."""
    return max((float(pair["decode"]) for pair in pairs if pair["bits"] >= 16), default=float("nan"))


def _beaten(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Formats that another of the same runtime beats in both bits and speed."""
    return [
        f"{pair['runtime']} {pair['format']}"
        for pair in pairs
        if pair["bits"] < 16
        and any(
            other["runtime"] == pair["runtime"]
            and other["bits"] > pair["bits"]
            and other["decode"] > _MUCH * pair["decode"]
            for other in pairs
        )
    ]


def _prefill(pairs: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Where reading a prompt ranks formats otherwise than decoding."""
    decode = max(pairs, key=lambda pair: pair["decode"])
    prefill = max(pairs, key=lambda pair: pair["prefill"])
    if prefill["prefill"] < _MUCH * decode["prefill"]:
        return []
    return [
        Message(
            "long prompts are read fastest by {runtime} with {format}: {speed:.0f} tokens a second, {times:.1f} times "
            "as fast as "
            "by what decodes fastest",
            runtime=prefill["runtime"],
            format=prefill["format"],
            speed=prefill["prefill"],
            times=prefill["prefill"] / decode["prefill"],
        )
    ]


def _settings(found: Mapping[str, Any]) -> list[Message]:
    """Threads, and whether they should spin."""
    settings = found["settings"]
    told = []
    if len(settings) > 1:
        best = min((s for s in settings if s["policy"] == PASSIVE), key=lambda s: s["ratio"])
        told.append(
            Message(
                "llama.cpp is fastest with {threads} of the threads tried ({times:.2f} times one): "
                "OMP_NUM_THREADS={threads}",
                threads=best["threads"],
                times=1 / best["ratio"],
            )
        )
        for spinning in (s for s in settings if s["policy"] == ACTIVE and s["threads"] == best["threads"]):
            if spinning["ratio"] > _MUCH * best["ratio"]:
                told.append(
                    Message(
                        "threads that spin while they wait (OMP_WAIT_POLICY=ACTIVE) take {times:.1f} times as long "
                        "here; "
                        "whet has them sleep",
                        times=spinning["ratio"] / best["ratio"],
                    )
                )
            elif spinning["ratio"] * _MUCH < best["ratio"]:
                told.append(
                    Message(
                        "threads that spin while they wait are {times:.2f} times as fast here: set "
                        "OMP_WAIT_POLICY=ACTIVE where "
                        "nothing else runs",
                        times=best["ratio"] / spinning["ratio"],
                    )
                )
    return told


def _elsewhere(pairs: Sequence[Mapping[str, Any]]) -> list[Message]:
    """What other machines take; nothing of it was measured, and it says so."""
    four = min(pairs, key=lambda pair: abs(pair["bits"] - 4.5))
    return [
        Message(
            "not measured here: a phone takes a .gguf (Q4_0 is repacked for Arm, Q4_K for better quality); its memory "
            "gives some "
            "{speed:.0f} GB/s, which bounds these {size:.0f} MB at {tokens:.0f} tokens a second",
            speed=_PHONE / 1e9,
            size=four["bytes"] / 1e6,
            tokens=_PHONE / four["bytes"],
        ),
        Message(
            "not measured here: a graphics card ({speed:.0f} GB/s and more) takes int4 in groups of 128 for one user, "
            "and 8 bits "
            "with 8-bit inputs or FP8 for many at once (--for vllm)",
            speed=_CARD / 1e9,
        ),
    ]
