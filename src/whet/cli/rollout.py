"""`whet rollout`: how a roll-out goes, and what a person decides about it."""

from __future__ import annotations

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from whet.cli.console import Console
from whet.cli.options import Debug, Json
from whet.cli.phrases import duration, sentence
from whet.cli.serve import require, steps_of
from whet.cli.tables import Sheet
from whet.errors import UsageError
from whet.messages import Message

EXAMPLE = "Example: whet rollout status"


class Action(StrEnum):
    """What can be asked of a roll-out."""

    status = "status"
    hold = "hold"
    promote = "promote"
    abort = "abort"
    resume = "resume"
    export = "export"


class To(StrEnum):
    """What a roll-out is exported to."""

    argo = "argo"
    kserve = "kserve"
    envoy = "envoy"
    grafana = "grafana"


Steps = Annotated[str | None, typer.Option(help="export: percents, as 5,10,25,50,100.")]
Hold = Annotated[float | None, typer.Option(help="export: seconds that a step takes; 600 without it.", min=1.0)]
MinAgreement = Annotated[float | None, typer.Option(help="export: agreement below which it stops; 0.83 without it.")]
Prometheus = Annotated[str | None, typer.Option(metavar="URL", help="export: where Argo asks for the metrics.")]


def run(
    action: Annotated[
        Action,
        typer.Argument(metavar="ACTION", help="status, hold, promote, abort, resume or export.", show_default=False),
    ],
    state: Annotated[Path, typer.Option(help="The folder that `whet serve` was given.")] = Path("whet-serve"),
    to: Annotated[To | None, typer.Option(help="export: argo, kserve, envoy or grafana.")] = None,
    out: Annotated[Path | None, typer.Option(help="export: a folder for the files; shown without it.")] = None,
    name: Annotated[str | None, typer.Option(help="export: what services and objects are called.")] = None,
    namespace: Annotated[str | None, typer.Option(help="export: of Kubernetes.")] = None,
    steps: Steps = None,
    hold: Hold = None,
    min_agreement: MinAgreement = None,
    prometheus: Prometheus = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Tell how the roll-out goes, or hold it, promote it by a step, abort it, resume it.

    What is held or aborted is never raised by whet itself; what fails is lowered all the same. export writes the same
    steps for a cluster, or a board for Grafana.
    """
    require("rollout")
    given = {
        "name": name,
        "namespace": namespace,
        "steps": None if steps is None else steps_of(steps),
        "hold": hold,
        "agreement": min_agreement,
        "prometheus": prometheus,
    }
    given = {field: value for field, value in given.items() if value is not None}
    with Console(as_json) as console:
        if action is Action.export:
            _export(console, to, out, given)
            return 0
        if given or to is not None or out is not None:
            raise UsageError(
                "--to and what it writes belong to whet rollout export, and not to {action}.", action=action.value
            )
        report = _asked(action.value, state)
        _show(console, report)
        console.result(report)
    return 0


def _export(console: Console, to: To | None, out: Path | None, given: dict[str, Any]) -> None:
    from whet.serving.manifests import Cluster, written
    from whet.serving.rules import Rules

    if to is None:
        raise UsageError("Say what to export to: --to argo, kserve, envoy or grafana.")
    cluster = Cluster(**given)
    Rules(steps=cluster.steps)  # which refuses steps that are none
    if not 0 < cluster.agreement < 1:
        raise UsageError(
            "An agreement of {share:g} cannot be watched: it lies between 0 and 1.", share=cluster.agreement
        )
    files = written(to.value, cluster)
    if out is None:
        for text in files.values():
            console.raw(("---\n" if to is not To.grafana else "") + text)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("{out} is there already. Name a folder that is empty or does not exist.", out=out)
    else:
        out.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (out / file).write_text(text, encoding="utf-8")
            console.show(str(out / file))
    console.result({"to": to.value, "files": files if out is None else [str(out / file) for file in files]})


def _asked(action: str, state: Path) -> dict[str, Any]:
    import httpx

    try:
        url = json.loads((state / "address.json").read_text(encoding="utf-8"))["url"]
        key = (state / "admin.key").read_text(encoding="utf-8").strip()
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(
            "No server runs with the folder {state}. Name the folder that whet serve was given: --state FOLDER.",
            state=state,
        ) from error
    path = "/admin/rollout" if action == "status" else f"/admin/rollout/{action}"
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
            headers = {"Authorization": f"Bearer {key}"}
            answer = client.request("GET" if action == "status" else "POST", path, headers=headers)
            found = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise UsageError(
            "The server at {url} does not answer ({error}). If it has ended, start it again with whet serve.",
            url=url,
            error=str(error) or type(error).__name__,
        ) from error
    if "refused" in found:
        raise UsageError("The server refuses: {why}", why=Message.read(found["refused"]))
    if answer.status_code != 200 or "status" not in found:
        raise UsageError("The server at {url} refuses ({code}): it is another one.", url=url, code=answer.status_code)
    return found


_STATUS = {
    "running": Message("running"),
    "held": Message("held"),
    "failed": Message("failed"),
    "aborted": Message("aborted"),
    "unknown": Message("unknown"),
}
_VERDICT = {
    "pass": Message("pass"),
    "fail": Message("fail"),
    "inconclusive": Message("inconclusive"),
    "insufficient": Message("insufficient"),
}


def _show(console: Console, report: dict[str, Any]) -> None:
    steps = ["Shadow", *(f"{step:g} %" for step in report["steps"])]
    here = steps[report["stage"]]
    line = " → ".join(f"[{step}]" if step == here else step for step in steps)
    sheet = Sheet(line, ["", ""], words=True)
    rows: list[tuple[Message, Any]] = [
        (Message("state"), sentence(_STATUS[report["status"]])),
        (Message("users of the lighter model"), f"{report['weight']:g} %"),
        (Message("verdict"), f"{sentence(_VERDICT[report['verdict']])}: {sentence(report['because'])}"),
        (Message("this step"), sentence(_step(report["step"]))),
    ]
    if report["agreement"] is not None:
        told = Message("{share:.1%} in {count} comparisons", share=report["agreement"], count=report["pairs"])
        rows.append((Message("agreement with the original"), sentence(told)))
    for one in report["skills"]:
        told = Message("{lighter} of {count} right, the original {original}", **one)
        rows.append((Message("skill {skill}", skill=one["skill"]), sentence(told)))
    if draft := report.get("draft"):
        share = draft["kept"] / draft["proposed"] if draft["proposed"] else 0.0
        told = Message(
            "original {times:.2f} times as fast; of {count} guesses {share:.1%} kept",
            times=draft["times"],
            count=draft["proposed"],
            share=share,
        )
        failed = Message("failed, so the original writes alone: {why}", why=draft["failed"])
        rows.append((Message("draft"), sentence(failed if draft["failed"] else told)))
    if chosen := report.get("escalation"):
        told = Message(
            "{count} of {began} answers; harmful flips below {limit:.2%}",
            count=chosen["gave_up"],
            began=chosen["began"],
            limit=chosen["limit"],
        )
        rows.append((Message("gone over, being unsure"), sentence(told)))
    for language, one in report["compression"].items():
        told = Message("{same:.1%} of {count} answers are the same, {words:.1%} of their words", **one)
        rows.append((Message("shortened prompts, {language}", language=language), sentence(told)))
    if drift := report.get("drift"):
        rows.append((Message("drift"), sentence(drift)))
    for side, name in (("lighter", Message("lighter model")), ("original", Message("original"))):
        told = Message("{count} requests, {errors} failed", **report["requests"][side])
        rows.append((name, sentence(told)))
    sheet.rows += [[sentence(name), str(value)] for name, value in rows]
    console.show(sheet.rich())
    for event in report["history"][-5:]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["at"]))
        console.show(f"{when}  {event['event']}  {steps[event['stage']]}  {sentence(event['reason'])}".rstrip())


def _step(step: dict[str, Any]) -> Message:
    return Message(
        "{time}, {requests} requests, {pairs} comparisons",
        time=duration(step["seconds"]),
        requests=step["requests"],
        pairs=step["pairs"],
    )
