"""The roll-out for those who have a cluster: the same steps, and an analysis that asks our /metrics.

There the cluster moves the traffic, and a gateway of whet beside it, held in Shadow, is sent a copy of the requests and
tells whether the lighter model keeps what it must. Its verdict is the peek-safe one, so it may be asked at any time.
Names: the services NAME-original, NAME-lighter and NAME-whet, whose metrics Prometheus knows as job NAME-whet.
Sources: the custom resources of Argo Rollouts v1 and KServe v1beta1, HTTPRoute of the Gateway API v1 (Envoy Gateway),
PrometheusRule of the Prometheus operator v1, Grafana's dashboard JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from whet.errors import UsageError
from whet.serving.rules import STEPS

Document = dict[str, Any]
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,40}[a-z0-9])?")


@dataclass(frozen=True)
class Cluster:
    """What manifests are made of. steps: percent of requests; hold: seconds of each; agreement: below which it stops;
    prometheus: where Argo asks. Raises UsageError for a name that no Kubernetes object may have, or for steps that no
    cluster takes."""

    name: str = "model"
    namespace: str = "default"
    steps: tuple[float, ...] = STEPS
    hold: float = 600.0
    agreement: float = 0.83
    prometheus: str = "http://prometheus.monitoring:9090"

    def __post_init__(self) -> None:
        for name in (self.name, self.namespace):
            if not _NAME.fullmatch(name):
                raise UsageError(
                    "{name} is no name of a Kubernetes object. Use small letters, digits and hyphens, a letter first, "
                    "42 at most.",
                    name=name,
                )
        if any(step != int(step) for step in self.steps):
            raise UsageError("A cluster takes whole percents only. Say --steps 5,10,25,50,100.")

    @property
    def job(self) -> str:
        return f'job="{self.name}-whet"'

    def meta(self, suffix: str = "") -> Document:
        return {
            "name": self.name + suffix,
            "namespace": self.namespace,
            "labels": {"app.kubernetes.io/managed-by": "whet"},
        }


def stopped(cluster: Cluster) -> str:
    """PromQL: above 0 where the roll-out failed, was aborted or is unknown, or no gateway tells."""
    return f"max(whet_rollout_stopped{{{cluster.job}}}) or vector(1)"


def proven(cluster: Cluster) -> str:
    """PromQL: 1 where everything is proven, 0 where not yet, below 0 where the roll-out is stopped."""
    verdict = f'max(whet_verdict{{{cluster.job}, verdict="pass"}})'
    return f"{verdict} - 2 * max(whet_rollout_stopped{{{cluster.job}}})"


def agreement(cluster: Cluster) -> str:
    return f"min(whet_agreement{{{cluster.job}}})"


def argo(cluster: Cluster) -> dict[str, list[Document]]:
    """A Rollout of the Deployment NAME, whose new version is the lighter model, and both analyses."""
    names = {"stop": f"{cluster.name}-stop", "grow": f"{cluster.name}-grow"}

    def metric(name: str, query: str, success: str, failure: str, **more: Any) -> Document:
        provider = {"prometheus": {"address": cluster.prometheus, "query": query}}
        found = {"name": name, "successCondition": success, "failureCondition": failure, "provider": provider}
        return {**found, "failureLimit": 0, "consecutiveErrorLimit": 4, **more}

    def template(name: str, *metrics: Document) -> Document:
        kind = {"apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate"}
        return {**kind, "metadata": {**cluster.meta(), "name": names[name]}, "spec": {"metrics": list(metrics)}}

    some = "len(result) > 0 && "
    least = f"{cluster.agreement:g}"
    stop = template(
        "stop",
        metric("stopped", stopped(cluster), f"{some}result[0] == 0", f"{some}result[0] > 0", interval="30s"),
        metric("agreement", agreement(cluster), f"result[0] >= {least}", f"{some}result[0] < {least}", interval="30s"),
    )
    # what is neither holds the roll-out for a person: nothing is proven yet, or nobody tells
    grow = template("grow", metric("proven", proven(cluster), f"{some}result[0] == 1", f"{some}result[0] < 0", count=1))
    pause = {"pause": {"duration": f"{cluster.hold:.0f}s"}}
    judge = {"analysis": {"templates": [{"templateName": names["grow"]}]}}
    steps: list[Document] = [{"setWeight": 0}, pause, judge]
    for step in cluster.steps[:-1]:
        steps += [{"setWeight": int(step)}, pause, judge]
    canary = {
        "canaryService": f"{cluster.name}-lighter",
        "stableService": f"{cluster.name}-original",
        "abortScaleDownDelaySeconds": 30,
        "trafficRouting": {
            "plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": cluster.name, "namespace": cluster.namespace}}
        },
        "analysis": {"templates": [{"templateName": names["stop"]}], "startingStep": 2},
        "steps": steps,
    }
    rollout = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": cluster.meta(),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": cluster.name}},
            "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": cluster.name},
            "strategy": {"canary": canary},
        },
    }
    return {"analysis.yaml": [stop, grow], "rollout.yaml": [rollout], "route.yaml": [route(cluster, 0)]}


def kserve(cluster: Cluster) -> dict[str, list[Document]]:
    """An InferenceService a step: apply the next where `WhetMayGrow` fires, and the first where `WhetStop` does."""
    files = {}
    for step in (0.0, *cluster.steps):
        predictor: Document = {
            "model": {"modelFormat": {"name": "huggingface"}, "storageUri": f"pvc://{cluster.name}/lighter"}
        }
        predictor["canaryTrafficPercent"] = int(step)
        files[f"step-{step:03.0f}.yaml"] = [
            {
                "apiVersion": "serving.kserve.io/v1beta1",
                "kind": "InferenceService",
                "metadata": cluster.meta(),
                "spec": {"predictor": predictor},
            }
        ]
    return {**files, "rules.yaml": [rules(cluster)]}


def envoy(cluster: Cluster) -> dict[str, list[Document]]:
    """An HTTPRoute a step, with a copy of every request to NAME-whet; the alerts say when to apply which."""
    files = {f"step-{step:03.0f}.yaml": [route(cluster, step)] for step in (0.0, *cluster.steps)}
    return {**files, "rules.yaml": [rules(cluster)]}


def route(cluster: Cluster, step: float) -> Document:
    """An HTTPRoute at this percentage."""
    mirror = {"backendRef": {"name": f"{cluster.name}-whet", "port": 8000}}
    shares = (("original", 100 - int(step)), ("lighter", int(step)))
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/v1"}}],
        "filters": [{"type": "RequestMirror", "requestMirror": mirror}],
        "backendRefs": [{"name": f"{cluster.name}-{side}", "port": 8000, "weight": share} for side, share in shares],
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": cluster.meta(),
        "spec": {"parentRefs": [{"name": cluster.name}], "rules": [rule]},
    }


def rules(cluster: Cluster) -> Document:
    """Alerts, for those whose cluster has no analysis of its own."""
    hold = f"{cluster.hold:.0f}s"
    alerts = [
        ("WhetStop", f"({stopped(cluster)}) > 0 or {agreement(cluster)} < {cluster.agreement:g}", "0s", "critical"),
        ("WhetMayGrow", f"({proven(cluster)}) == 1", hold, "info"),
    ]
    told = {
        "WhetStop": "Apply step-000.yaml: the lighter model does not keep what it must.",
        "WhetMayGrow": "Apply the next step: everything is proven.",
    }
    made = [
        {
            "alert": name,
            "expr": query,
            "for": wait,
            "labels": {"severity": severity},
            "annotations": {"summary": told[name]},
        }
        for name, query, wait, severity in alerts
    ]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": cluster.meta("-whet"),
        "spec": {"groups": [{"name": f"{cluster.name}-whet", "interval": "30s", "rules": made}]},
    }


def _quantile(name: str, share: float) -> str:
    return f'histogram_quantile({share:g}, sum by (le, side) (rate({name}_bucket{{job=~"$job"}}[5m])))'


_RATE = 'sum by ({by}) (rate({name}{{job=~"$job"}}[5m]))'
_BOARD: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Users of the lighter model", "percent", (('max(whet_rollout_weight{job=~"$job"})', "weight"),)),
    ("Agreement with the original", "percentunit", (('min(whet_agreement{job=~"$job"})', "agreement"),)),
    ("Stopped", "bool_yes_no", (('max(whet_rollout_stopped{job=~"$job"})', "stopped"),)),
    ("Requests", "reqps", ((_RATE.format(by="side, outcome", name="whet_requests_total"), "{{side}} {{outcome}}"),)),
    ("Faults", "ops", ((_RATE.format(by="side, why", name="whet_faults_total"), "{{side}} {{why}}"),)),
    (
        "Gone over to the original",
        "ops",
        (
            (_RATE.format(by="job", name="whet_failovers_total"), "after a fault"),
            (_RATE.format(by="job", name="whet_escalations_total"), "being unsure"),
        ),
    ),
    ("First token, 95 %", "s", ((_quantile("gen_ai_server_time_to_first_token_seconds", 0.95), "{{side}}"),)),
    ("Each token after, 95 %", "s", ((_quantile("gen_ai_server_time_per_output_token_seconds", 0.95), "{{side}}"),)),
    ("Tokens", "ops", ((_RATE.format(by="side", name="whet_tokens_total"), "{{side}}"),)),
    ("Waiting and being answered", "short", (
        ('sum by (side) (whet_queue{job=~"$job"})', "{{side}} waiting"),
        ('sum by (side) (whet_running{job=~"$job"})', "{{side}} running"),
    )),
    ("Refused", "reqps", ((_RATE.format(by="status", name="whet_refused_total"), "{{status}}"),)),
    (
        "Guesses of the draft that are kept",
        "percentunit",
        (('whet_draft_tokens{job=~"$job", outcome="kept"} / ignoring(outcome) '
          'whet_draft_tokens{job=~"$job", outcome="proposed"}', "kept"),),
    ),
    (
        "Questions answered rightly",
        "percentunit",
        (('max by (skill, side) (whet_questions_right{job=~"$job"}) / on (skill) group_left '
          'max by (skill) (whet_questions_asked{job=~"$job"})', "{{skill}} {{side}}"),),
    ),
    ("Time saved", "s", (('sum(whet_saved_seconds{job=~"$job"})', "saved"),)),
    (
        "Answers to shortened prompts that are the same",
        "percentunit",
        (('min by (language) (whet_compression_same{job=~"$job"})', "{{language}}"),),
    ),
)  # fmt: skip


def grafana(cluster: Cluster) -> dict[str, list[Document]]:
    """A board: three panels a row."""
    source = {"type": "prometheus", "uid": "${source}"}
    panels = []
    for number, (title, unit, targets) in enumerate(_BOARD):
        panels.append(
            {
                "id": number + 1,
                "type": "timeseries",
                "title": title,
                "datasource": source,
                "gridPos": {"h": 8, "w": 8, "x": 8 * (number % 3), "y": 8 * (number // 3)},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": chr(ord("A") + i), "datasource": source, "expr": query, "legendFormat": legend}
                    for i, (query, legend) in enumerate(targets)
                ],
            }
        )
    variables = [
        {"name": "source", "type": "datasource", "query": "prometheus"},
        {
            "name": "job",
            "type": "query",
            "datasource": source,
            "query": "label_values(whet_rollout_weight, job)",
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]
    board = {
        "uid": f"whet-{cluster.name}"[:40],
        "title": f"whet: {cluster.name}",
        "tags": ["whet"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "panels": panels,
    }
    return {"board.json": [board]}


TO: dict[str, Callable[[Cluster], dict[str, list[Document]]]] = {
    "argo": argo,
    "kserve": kserve,
    "envoy": envoy,
    "grafana": grafana,
}


def written(to: str, cluster: Cluster) -> dict[str, str]:
    """The text of each file."""
    made = {}
    for name, documents in TO[to](cluster).items():
        if name.endswith(".json"):
            made[name] = json.dumps(documents[0], indent=2, ensure_ascii=False) + "\n"
        else:
            made[name] = yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)
    return made


class _Plain(yaml.SafeDumper):
    """YAML without anchors, which `kubectl` reads and people do not."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
