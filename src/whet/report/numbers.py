"""Numbers as people read them. Spaces before units do not break (U+00A0)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

NONE = "–"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def figure(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits: `0.00407`, `12.3`, `54,791`; `4.1×10⁻⁵` where zeros would hide the number."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -4 <= power < 7:
        return f"{value:,.{max(0, digits - 1 - power)}f}"
    return f"{mantissa}×10{str(power).translate(_RAISED)}"


def with_error(value: float, error: float | None) -> str:
    """`0.00407 ± 0.00011`: both to the second digit of the error. Without an error, `figure`."""
    if not error or not math.isfinite(error) or not math.isfinite(value):
        return figure(value)
    power = math.floor(math.log10(error))
    if power < -6:
        scale = 10.0**power
        return f"({value / scale:.1f} ± {error / scale:.1f})×10{str(power).translate(_RAISED)}"
    decimals = max(0, 1 - power)
    return f"{value:,.{decimals}f} ± {error:,.{decimals}f}"


def percent(share: float | None, decimals: int = 1) -> str:
    """`98.9 %` of a share in 0..1."""
    return NONE if share is None else f"{100 * share:,.{decimals}f}\u00a0%"


def interval(ends: Sequence[float] | None, as_percent: bool = False, digits: int = 3) -> str:
    """`97.8 – 99.2` in per cent, or the ends with `digits` significant digits; empty without an interval."""
    if ends is None:
        return ""
    return "\u00a0–\u00a0".join(f"{100 * end:.1f}" if as_percent else figure(end, digits) for end in ends)


def size(count: float | None) -> str:
    """Bytes in units of 1000, as disks are sold: `9.2 MB`."""
    if count is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < (999.5 if unit == "B" else 999.95):
            return f"{count:.0f}\u00a0{unit}" if unit == "B" else f"{count:.1f}\u00a0{unit}"
        count /= 1000
    return f"{count:,.1f}\u00a0TB"


def times(ratio: float | None) -> str:
    """`0.97×`, `3.7×`, `412×`."""
    if ratio is None:
        return NONE
    return f"{ratio:.2f}×" if ratio < 2 else f"{ratio:.1f}×" if ratio < 10 else f"{figure(ratio)}×"


def bits_of(scheme: str) -> int | None:
    """The bits of a weight in a scheme's name: 4 in `int4-g64`, `W4A16`, `Q4_K_M`; None where it names none."""
    found = re.search(r"\d+", scheme)
    return int(found[0]) if found and 1 <= int(found[0]) <= 16 else None


def written_size(size: float) -> str:
    """A share as whole per cent where it is that: `60%`, `62.5%`."""
    return f"{100 * size:.6g}%"
