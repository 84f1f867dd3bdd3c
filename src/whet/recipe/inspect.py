"""`inspect`: what a model is made of, what each part is worth, and what is worth doing about it.

The result is the scores (`whet.steps.score`) with three keys more: `roles` (parameters, bytes and predicted cost by
role), `points` (what usual choices would take and lose), and `findings`, each a dict with a `kind` and its figures.
Kinds: `spike` (inputs far above the usual: keep activations there above 8 bits), `embedding` (tables are a large share
of the bytes), `idle` (blocks that change little: candidates for removal), `flat` (outputs that live in few directions:
candidates for factorization), `one_skill` (a block that matters to one skill above all), `speed` (what makes the model
faster, and where).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from whet.anatomy import Linear
from whet.apply.job import scale_dtype
from whet.budget import tables, widths
from whet.budget.mix import KEEP, Budget, Offers, make_plan
from whet.budget.offered import offered
from whet.checkpoint import check_files
from whet.errors import UsageError, verb
from whet.events import OnEvent, Part, Stage, Way, ignore
from whet.grids import Grid
from whet.measure.items import read_skills
from whet.scores import SPIKE
from whet.steps.course import scoring
from whet.steps.decide import decide
from whet.steps.options import TARGET, Quantize, Text
from whet.steps.score import score
from whet.steps.verbs import Inspect, takes
from whet.targets import Target, find_target

_TABLE_SHARE = 0.15  # of all bytes
_IDLE = 0.05  # block influence
_FLAT = 0.15  # rank share
_MUCH, _ONE_SKILL = 0.25, 2.5  # of a skill's whole worth, and times what the block is worth to the middle skill
_POINTS = (6.0, 5.0, 4.0, 3.5, 3.0)  # bits a parameter


@verb
@takes(Inspect)
def inspect(model: str | Path, *, on_event: OnEvent = ignore, **options: Any) -> dict[str, Any]:
    """Score every part of `model`; the result is described at the top of this file.

    Of the text at most 8,192 tokens are used. target: the runtime that advice is for.
    """
    asked = Inspect.of("inspect", **options)
    runtime = find_target(asked.target or TARGET)
    if asked.text is None:
        raise UsageError("Inspecting needs text of the kind the model is used for: give --text FILE.")
    items = read_skills(asked.skills) if asked.skills is not None else []
    text = {name: getattr(asked, name) for name in Text.model_fields}
    quantize = Quantize.of("inspect", scheme="int8s", target="whet", dequantize=asked.dequantize, **text)
    job = decide(model, quantize, seed=asked.seed, device=asked.device)
    check_files(job.original.path, on_event)
    own = {linear.address for linear in tables(job.anatomy)}
    scales = scale_dtype(job.dtype)
    every_width = widths(job.anatomy)

    def schemes(linear: Linear) -> list[Grid]:
        every = (
            offered(to, linear.shape, linear.address in own, scales, every_width)
            for to in (find_target("whet"), runtime)
        )
        return list({grid.name: grid for grids in every for grid in grids}.values())

    way = Way(on_event, [scoring(job, items), Part("plan", 1)])
    found = score(
        job,
        schemes,
        items=items,
        spectra=asked.spectra,
        seed=asked.seed,
        on_event=way,
    )
    found |= {"target": runtime.name, "roles": _roles(found), "points": _points(found, runtime, way)}
    return found | {"findings": _findings(found, runtime)}


def _roles(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Parameters, bytes and sensitivity by role, and what is in no role, in the model's order."""
    total: dict[str, dict[str, float]] = defaultdict(lambda: {"parameters": 0, "bytes": 0, "sensitivity": 0.0})
    for part in scores["parts"]:
        for key in ("parameters", "bytes", "sensitivity"):
            total[part["role"]][key] += part[key]
    rest = {"parameters": scores["other"]["parameters"], "bytes": scores["other"]["bytes"], "sensitivity": None}
    return [{"role": role, **figures} for role, figures in total.items()] + [{"role": "other", **rest}]


def _points(scores: Mapping[str, Any], target: Target, on_event: OnEvent) -> list[dict[str, Any]]:
    """Predicted bytes and KL of uniform 8 and 4 bits and of planned mixes; what cannot be reached is left out."""
    whole = Offers(scores, target, stock=False)
    found: list[dict[str, Any]] = []
    wanted = ("Q8_0", "Q4_0") if target.schemes else ("int8s", "int4s-g128")
    for scheme, embed, mix in whole.uniform():
        if scheme in wanted and embed in (KEEP, scheme):
            found.append({"plan": scheme, "embed": embed, **whole.figures(mix)})
    stage = Stage(on_event, "plan", len(_POINTS))
    for bits in _POINTS:
        try:
            plan = make_plan(scores, target, Budget("bits", bits, f"--bits {bits:g}"))
        except UsageError:
            continue
        finally:
            stage.step()
        predicted = plan["predicted"]
        figures = {key: predicted[key] for key in ("bytes", "bits", "kl")}
        found.append({"plan": f"--bits {bits:g}", "embed": None, **figures})
    return sorted(found, key=lambda point: -point["bytes"])


def _shares(worth: list[float]) -> list[float]:
    whole = sum(worth)
    return [value / whole if whole > 0 else 0.0 for value in worth]


def _findings(scores: Mapping[str, Any], target: Target) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for block in scores["blocks"]:
        for outlier in block["outliers"]:
            if outlier["ratio"] >= SPIKE:
                found.append({"kind": "spike", **{k: outlier[k] for k in ("address", "ratio", "text", "channel")}})
    every = sum(part["bytes"] for part in scores["parts"]) + scores["other"]["bytes"]
    kept = sum(part["bytes"] for part in scores["parts"] if part["block"] is None)
    if kept > _TABLE_SHARE * every and target.embedding:
        prices = [part["schemes"]["int8s"] for part in scores["parts"] if part["block"] is None]
        saved = kept - sum(price["bytes"] for price in prices)
        found.append({"kind": "embedding", "share": kept / every, "saved": saved, "kl": sum(p["kl"] for p in prices)})
    idle = [block["index"] for block in scores["blocks"] if block["influence"] < _IDLE]
    if idle:
        found.append({"kind": "idle", "blocks": idle})
    flat = [part["address"] for part in scores["parts"] if part["spectrum"] is not None and part["spectrum"] < _FLAT]
    if flat:
        found.append({"kind": "flat", "count": len(flat), "address": flat[0]})
    shares = {
        skill: _shares([block["skills"].get(skill, 0.0) for block in scores["blocks"]]) for skill in scores["skills"]
    }
    for index in range(len(scores["blocks"])):
        usual = median(share[index] for share in shares.values()) if shares else 0.0
        for skill, share in shares.items():
            if share[index] > _MUCH and share[index] > _ONE_SKILL * usual > 0:
                found.append(
                    {"kind": "one_skill", "skill": skill, "block": index, "share": share[index], "usual": usual}
                )
    found.append({"kind": "speed", "target": target.name})
    return found
