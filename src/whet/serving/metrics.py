"""Counts and times for Prometheus, under the names of OpenTelemetry's GenAI conventions where these have one."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable

_DURATIONS = tuple(0.01 * 2**power for power in range(14))  # 0.01 s to 81.92 s, as the conventions say
_TOKEN = tuple(0.001 * 2**power for power in range(14))
HISTOGRAMS = {
    "gen_ai_server_request_duration_seconds": ("Time of a request.", _DURATIONS),
    "gen_ai_server_time_to_first_token_seconds": ("Time to the first token.", _DURATIONS),
    "gen_ai_server_time_per_output_token_seconds": ("Time of each token after the first.", _TOKEN),
}
COUNTERS = {
    "whet_requests_total": "Answers by side and outcome.",
    "whet_tokens_total": "Tokens by side that wrote them.",
    "whet_faults_total": "Faults of engines by side and kind.",
    "whet_failovers_total": "Answers that the original went on with.",
    "whet_escalations_total": "Answers that the original went on with because the lighter model was unsure.",
    "whet_odd_answers_total": "Answers that refuse, or change the language, by side.",
    "whet_refused_total": "Requests refused, by status.",
    "whet_questions_total": "Questions asked of both, and what became of them.",
    "whet_comparisons_total": "Requests answered by both, and what became of the comparison.",
}
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters and histograms of this process."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, Labels], float] = defaultdict(float)
        self._times: dict[tuple[str, Labels], list[float]] = {}

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        self._counts[name, tuple(sorted(labels.items()))] += by

    def time(self, name: str, seconds: float, **labels: str) -> None:
        limits = HISTOGRAMS[name][1]
        cells = self._times.setdefault((name, tuple(sorted(labels.items()))), [0.0] * (len(limits) + 2))
        cells[bisect_left(limits, seconds)] += 1
        cells[-1] += seconds

    def text(self, gauges: Iterable[tuple[str, str, dict[str, str], float]]) -> str:
        """All of it, and `gauges` (name, help, labels, value), as Prometheus reads it."""
        lines = []
        for name, told in COUNTERS.items():
            lines += [f"# HELP {name} {told}", f"# TYPE {name} counter"]
            lines += [f"{name}{_labels(at)} {value:g}" for (which, at), value in self._counts.items() if which == name]
        for name, (told, limits) in HISTOGRAMS.items():
            lines += [f"# HELP {name} {told}", f"# TYPE {name} histogram"]
            for (which, at), cells in self._times.items():
                if which != name:
                    continue
                reached = 0.0
                for limit, cell in zip((*map("{:g}".format, limits), "+Inf"), cells, strict=False):
                    reached += cell
                    lines.append(f"{name}_bucket{_labels((*at, ('le', limit)))} {reached:g}")
                lines += [f"{name}_sum{_labels(at)} {cells[-1]:g}", f"{name}_count{_labels(at)} {reached:g}"]
        seen = set()
        for name, told, labels, value in gauges:
            if name not in seen:
                seen.add(name)
                lines += [f"# HELP {name} {told}", f"# TYPE {name} gauge"]
            lines.append(f"{name}{_labels(tuple(labels.items()))} {value:g}")
        return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""
