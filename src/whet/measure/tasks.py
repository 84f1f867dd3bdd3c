"""Public tasks through lm-evaluation-harness, where that extra is installed: both models, the same tasks and items."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from whet.engines import Engine
from whet.engines.torch import TorchEngine
from whet.errors import MachineError, UsageError
from whet.events import OnEvent, Stage, ignore
from whet.measure.statistics import mcnemar


def require_harness() -> None:
    """Raise MachineError, naming the extra, when the harness is not installed: before the long part begins."""
    try:
        importlib.import_module("lm_eval")
        importlib.import_module("lm_eval.models.huggingface")
    except ImportError as error:
        raise MachineError(
            "Tasks are run by lm-evaluation-harness, which is not installed ({error}). Install it with: pip install "
            '"whet[tasks]"',
            error=error,
        ) from error


def run_tasks(
    original: Engine, lighter: Engine, tasks: Sequence[str], seed: int = 0, on_event: OnEvent = ignore
) -> list[dict[str, Any]]:
    """One entry a task with the harness's own metrics of both models.

    Where items have an accuracy (`acc`, `exact_match`) also the flips both ways and the exact McNemar p, because the
    harness itself compares two models as if they had answered different questions.

    Raises MachineError when the harness is missing or a task's data cannot be had, UsageError for an unknown task or an
    engine other than PyTorch.
    """
    require_harness()
    harness = importlib.import_module("lm_eval")
    wrapper = importlib.import_module("lm_eval.models.huggingface").HFLM
    runs = []
    stage = Stage(on_event, "tasks", 2)
    for engine in (original, lighter):
        if not isinstance(engine, TorchEngine):
            raise UsageError("Tasks are run on model folders, and {path} is none. Leave them out.", path=engine.folder)
        model = wrapper(pretrained=engine.model, tokenizer=engine.tokenizer)
        try:
            runs.append(harness.simple_evaluate(model=model, tasks=list(tasks), log_samples=True, random_seed=seed))
        except (KeyError, ValueError) as error:
            raise UsageError(
                "The harness refused the tasks {tasks}: {error}. See: lm-eval ls tasks",
                tasks=", ".join(tasks),
                error=error,
            ) from error
        except OSError as error:
            raise MachineError(
                "The data of {tasks} cannot be had ({error}). Check the network.", tasks=", ".join(tasks), error=error
            ) from error
        stage.step()
    return [_entry(name, runs[0], runs[1]) for name in runs[0]["results"]]


def _entry(name: str, original: Any, lighter: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"task": name}
    for which, run in (("original", original), ("lighter", lighter)):
        entry[which] = {k: v for k, v in run["results"][name].items() if isinstance(v, int | float)}
    rows = [{s["doc_id"]: s for s in run.get("samples", {}).get(name, [])} for run in (original, lighter)]
    for metric in ("acc", "exact_match"):
        shared = [i for i in rows[0] if i in rows[1] and metric in rows[0][i]]
        if shared:
            pairs = [(bool(rows[0][i][metric]), bool(rows[1][i][metric])) for i in shared]
            lost, gained = pairs.count((True, False)), pairs.count((False, True))
            entry["flips"] = {"metric": metric, "items": len(pairs), "lost": lost, "gained": gained}
            entry["mcnemar_p"] = mcnemar(lost, gained)
            break
    return entry
