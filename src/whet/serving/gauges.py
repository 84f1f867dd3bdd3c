"""What `/metrics` tells of now: weight, verdict, quality, queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from whet.serving.rollout import Verdict
from whet.serving.saving import saved

if TYPE_CHECKING:
    from whet.serving.gateway import Gateway

Gauge = tuple[str, str, dict[str, str], float]


def gauges(gateway: Gateway) -> list[Gauge]:
    """What is so now, as (name, help, labels, value)."""
    report = gateway.controller.report()
    made: list[Gauge] = [
        ("whet_rollout_weight", "Percent of users that the lighter model serves.", {}, report["weight"]),
        ("whet_rollout_stage", "Number of the step; 0 is Shadow.", {}, report["stage"]),
        ("whet_rollout_stopped", "1 where it failed, was aborted or is unknown.", {}, _stopped(report)),
    ]
    for verdict in get_args(Verdict):
        now = float(report["verdict"] == verdict)
        made.append(("whet_verdict", "1 for the verdict now.", {"verdict": verdict}, now))
    if report["agreement"] is not None:
        made.append(("whet_agreement", "Mean agreement with the original.", {}, report["agreement"]))
    if losses := gateway.quality.losses:
        made.append(("whet_divergence_nats", "Nats a token.", {}, sum(losses) / len(losses)))
    if shifts := gateway.quality.shifts:
        told = "Mean difference of the shares that both give the original's tokens."
        made.append(("whet_shift", told, {}, sum(shifts) / len(shifts)))
    for name, told, read in (
        ("whet_queue", "Requests that wait for a place.", lambda side: side.queued),
        ("whet_running", "Answers that are being written.", lambda side: side.busy),
        ("whet_ready", "Whether the engine is ready.", lambda side: side.engine.ready),
    ):
        made += [(name, told, {"side": s.name}, float(read(s))) for s in (gateway.pair.original, gateway.pair.lighter)]
    if gateway.escalation is not None:
        made += [
            ("whet_escalation_doubt", "Doubt at which the original goes on.", {}, gateway.escalation["doubt"]),
            ("whet_escalation_limit", "Upper limit of harmful flips, 95 %.", {}, gateway.escalation["limit"]),
        ]
    if gateway.drift is not None:
        told = gateway.drift.told()["distance"]
        made.append(("whet_prompt_drift", "How far prompts are from the text, 0 to 1.", {}, told))
    if (found := saved(*gateway.pair.sides, gateway.worth)) is not None:
        told = "What the lighter model's tokens would have taken the original longer."
        for unit, name in (("seconds", "seconds"), ("energy", "kilowatt_hours"), ("money", "money")):
            if found[unit] is not None:
                made.append((f"whet_saved_{name}", told, {}, found[unit]))
    if (ladder := gateway.pair.lighter.ladder) is not None:
        made.append(("whet_precision", "Bits of the next answer of the lighter model.", {}, ladder.now))
        for bits, mean in gateway.quality.by_precision().items():
            made.append(("whet_agreement_at", "Mean agreement at so many bits.", {"bits": str(bits)}, mean))
    draft = gateway.draft()
    if draft is not None:
        made += [
            ("whet_draft_speedup", "Times as fast with the draft, measured at the start.", {}, draft["times"]),
            ("whet_draft_tokens", "Tokens that the draft guessed.", {"outcome": "proposed"}, draft["proposed"]),
            ("whet_draft_tokens", "Tokens that the draft guessed.", {"outcome": "kept"}, draft["kept"]),
        ]
    for language, one in gateway.compressor.told().items():
        about = {"language": language}
        made += [
            ("whet_compression_compared", "Answers to shortened prompts that were compared.", about, one["count"]),
            ("whet_compression_same", "Share of them that the whole prompt gets too.", about, one["same"]),
            ("whet_compression_words", "Share of their words that the whole prompt gets too.", about, one["words"]),
        ]
    for one in report["skills"]:
        about = {"skill": one["skill"]}
        made.append(("whet_questions_asked", "Questions of the roll-out asked of both.", about, one["count"]))
        made += [
            ("whet_questions_right", "Of them answered rightly.", about | {"side": side}, one[side])
            for side in ("original", "lighter")
        ]
    return made


def _stopped(report: dict[str, Any]) -> float:
    return float(report["status"] not in ("running", "held"))
