"""Manifests: read by a YAML parser, with fields that their kinds have, the same steps, and metrics that we have."""

from __future__ import annotations

import json
import re

import httpx
import pytest
import yaml

from gateways import Engine, gateway, running
from whet.cli import main
from whet.errors import UsageError
from whet.measure.items import Item
from whet.serving.compression import Compared
from whet.serving.manifests import TO, Cluster, written
from whet.serving.metrics import COUNTERS, HISTOGRAMS

# Every field that may occur, as the custom resources document them; a list's fields are its items'. None: any value.
_META = {"name": str, "namespace": str, "labels": None}
_STEPS = {"setWeight": int, "pause": {"duration": str}, "analysis": {"templates": {"templateName": str}}}
_CANARY = {
    "canaryService": str,
    "stableService": str,
    "abortScaleDownDelaySeconds": int,
    "trafficRouting": {"plugins": None},
    "analysis": {"templates": {"templateName": str}, "startingStep": int},
    "steps": _STEPS,
}
_METRIC = {
    "name": str,
    "interval": str,
    "count": int,
    "successCondition": str,
    "failureCondition": str,
    "failureLimit": int,
    "consecutiveErrorLimit": int,
    "provider": {"prometheus": {"address": str, "query": str}},
}
_ALERT = {"alert": str, "expr": str, "for": str, "labels": None, "annotations": None}
FIELDS = {
    "argoproj.io/v1alpha1 AnalysisTemplate": {"metrics": _METRIC},
    "argoproj.io/v1alpha1 Rollout": {
        "replicas": int,
        "selector": {"matchLabels": None},
        "workloadRef": {"apiVersion": str, "kind": str, "name": str},
        "strategy": {"canary": _CANARY},
    },
    "serving.kserve.io/v1beta1 InferenceService": {
        "predictor": {
            "canaryTrafficPercent": int,
            "model": {"modelFormat": {"name": str}, "storageUri": str},
        }
    },
    "gateway.networking.k8s.io/v1 HTTPRoute": {
        "parentRefs": {"name": str},
        "rules": {
            "matches": {"path": {"type": str, "value": str}},
            "filters": {"type": str, "requestMirror": {"backendRef": {"name": str, "port": int}}},
            "backendRefs": {"name": str, "port": int, "weight": int},
        },
    },
    "monitoring.coreos.com/v1 PrometheusRule": {"groups": {"name": str, "interval": str, "rules": _ALERT}},
}
STEPS = (3.0, 40.0, 100.0)


def must_fit(value, fields, where: str) -> None:
    if fields is None:
        return
    if isinstance(value, list):
        for number, one in enumerate(value):
            must_fit(one, fields, f"{where}[{number}]")
    elif isinstance(fields, dict):
        assert isinstance(value, dict) and set(value) <= set(fields), (where, value)
        for name, one in value.items():
            must_fit(one, fields[name], f"{where}.{name}")
    else:
        assert type(value) is fields, where


def documents(to: str, **more) -> dict[str, list[dict]]:
    made = written(to, Cluster(name="chat", steps=STEPS, hold=120.0, **more))
    return {name: list(yaml.safe_load_all(text)) for name, text in made.items() if name.endswith(".yaml")}


@pytest.mark.parametrize("to", [to for to in TO if to != "grafana"])
def test_every_document_has_the_fields_of_its_kind(to: str) -> None:
    for name, found in documents(to).items():
        for one in found:
            assert set(one) == {"apiVersion", "kind", "metadata", "spec"}
            must_fit(one["metadata"], _META, name)
            must_fit(one["spec"], FIELDS[f"{one['apiVersion']} {one['kind']}"], f"{name} {one['kind']}")
    with pytest.raises(AssertionError):
        must_fit({"wieght": 3}, _STEPS, "a typo")


def test_the_steps_are_the_same_and_each_is_judged() -> None:
    (rollout,) = documents("argo")["rollout.yaml"]
    steps = rollout["spec"]["strategy"]["canary"]["steps"]
    assert [step["setWeight"] for step in steps if "setWeight" in step] == [0, 3, 40]  # 100 is what comes after
    assert [next(iter(step)) for step in steps] == ["setWeight", "pause", "analysis"] * 3
    assert {step["pause"]["duration"] for step in steps if "pause" in step} == {"120s"}
    for to in ("kserve", "envoy"):
        assert [name for name in documents(to) if name != "rules.yaml"] == [
            f"step-{step:03}.yaml" for step in (0, 3, 40, 100)
        ]
    for name, (one,) in documents("kserve").items():
        if name != "rules.yaml":
            assert one["spec"]["predictor"]["canaryTrafficPercent"] == int(name[5:8])
    for name, (one,) in documents("envoy").items():
        if name != "rules.yaml":
            weights = [backend["weight"] for backend in one["spec"]["rules"][0]["backendRefs"]]
            assert weights == [100 - int(name[5:8]), int(name[5:8])]


def test_a_stop_fails_what_is_unproven_waits_and_silence_never_passes() -> None:
    stop, grow = documents("argo")["analysis.yaml"]
    (proven,) = grow["spec"]["metrics"]
    told = {"stopped": stop["spec"]["metrics"][0], "agreement": stop["spec"]["metrics"][1], "proven": proven}
    expected = {
        "stopped": {0.0: "success", 1.0: "failure"},
        "agreement": {0.9: "success", 0.8: "failure"},
        "proven": {1.0: "success", 0.0: "inconclusive", -1.0: "failure", -2.0: "failure"},
    }
    for name, cases in expected.items():
        for value, outcome in cases.items():
            assert verdict(told[name], [value]) == outcome, (name, value)
    assert verdict(proven, []) == "inconclusive" and "vector(1)" in told["stopped"]["provider"]["prometheus"]["query"]


def verdict(metric: dict, result: list[float]) -> str:
    """As Argo judges a measurement, for conditions as simple as ours, which Python reads alike."""
    for outcome in ("failure", "success"):
        if eval(metric[f"{outcome}Condition"].replace("&&", "and"), {"result": result, "len": len}):
            return outcome
    return "inconclusive"


def test_the_metrics_that_are_asked_for_are_those_that_a_gateway_tells() -> None:
    made = gateway(Engine(), Engine(), questions=[Item("sums", "1 + 1 =", "2")])
    for side in made.pair.sides:
        side.tokens = 1000
    made.compressor.compared["latin"] = Compared(1, 1, 1.0)
    with running(made) as url:
        page = httpx.get(f"{url}/metrics", trust_env=False).text
    known = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}
    known |= {*COUNTERS, *(f"{name}_bucket" for name in HISTOGRAMS), "whet_draft_tokens", "whet_agreement"}
    asked = set()
    for to in TO:
        for text in written(to, Cluster()).values():
            found = text.replace("whet_rollout_weight, job", "whet_rollout_weight")
            asked |= set(re.findall(r"(?:whet|gen_ai)_\w+", found))
    assert len(asked) >= 15 and asked <= known, asked - known
    assert 'whet_verdict{verdict="insufficient"} 1' in page and 'whet_verdict{verdict="pass"} 0' in page


def test_the_board_is_one_that_grafana_reads() -> None:
    board = json.loads(written("grafana", Cluster(name="chat"))["board.json"])
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time", "refresh"} <= set(board)
    places = [tuple(panel["gridPos"][side] for side in "xy") for panel in board["panels"]]
    assert len(set(places)) == len(places) and max(x for x, _ in places) + 8 == 24
    assert [panel["id"] for panel in board["panels"]] == list(range(1, len(places) + 1))
    for panel in board["panels"]:
        ids = [target["refId"] for target in panel["targets"]]
        assert panel["type"] == "timeseries" and len(set(ids)) == len(ids) > 0
        for target in panel["targets"]:
            assert target["expr"].count("(") == target["expr"].count(")") and "$job" in target["expr"]


def called(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["rollout", *words])
    return int(ended.value.code)


def test_from_the_command_line(tmp_path, capsys) -> None:
    out = tmp_path / "made"
    assert called("export", "--to", "envoy", "--name", "chat", "--steps", "50,100", "--out", str(out)) == 0
    assert sorted(file.name for file in out.iterdir()) == [
        "rules.yaml", "step-000.yaml", "step-050.yaml", "step-100.yaml",
    ]  # fmt: skip
    capsys.readouterr()
    assert called("export", "--to", "argo") == 0
    kinds = [one["kind"] for one in yaml.safe_load_all(capsys.readouterr().out)]
    assert kinds == ["AnalysisTemplate", "AnalysisTemplate", "Rollout", "HTTPRoute"]
    for wrong, said in (
        (["export"], "Say what to export to"),
        (["export", "--to", "argo", "--name", "My Chat"], "no name of a Kubernetes object"),
        (["export", "--to", "argo", "--steps", "5,7.5,100"], "whole percents"),
        (["export", "--to", "argo", "--steps", "50,5"], "not a rising list"),
        (["export", "--to", "argo", "--min-agreement", "85"], "between 0 and 1"),
        (["export", "--to", "envoy", "--out", str(out)], "is there already"),
        (["status", "--to", "argo"], "belong to whet rollout export"),
    ):
        assert called(*wrong) == 2
        assert said in capsys.readouterr().err


def test_a_namespace_must_be_one_too() -> None:
    with pytest.raises(UsageError, match="-x is no name"):
        Cluster(namespace="-x")
