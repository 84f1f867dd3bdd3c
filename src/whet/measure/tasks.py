"""Public tasks through lm-evaluation-harness, where that extra is installed: both models, the same tasks and items.

The harness compares two models as if they had answered different questions. Here items are paired: what both find hard
cancels, and the interval is that of the change.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from whet.engines import Engine
from whet.engines.torch import TorchEngine
from whet.errors import MachineError, UsageError, did_you_mean
from whet.events import OnEvent, Stage, ignore
from whet.measure.changes import change_of_means
from whet.measure.statistics import mcnemar

# What the harness calls Korean sets that are known by other names.
CALLED = {"hae-rae": "haerae", "hae_rae": "haerae", "haerae": "haerae", "kobest": "kobest", "kmmlu": "kmmlu"}
# Figures of single items whose mean is the task's figure.
MEANS = ("acc", "acc_norm", "exact_match", "em")


def require_harness() -> Any:
    """The harness. Raises MachineError, naming the extra, when it is not installed: before the long part begins."""
    try:
        importlib.import_module("lm_eval.models.huggingface")
        return importlib.import_module("lm_eval")
    except ImportError as error:
        raise MachineError(
            "Tasks are run by lm-evaluation-harness, which is not installed ({error}). Install it with: pip install "
            '"whet[tasks]"',
            error=error,
        ) from error


def named_tasks(tasks: Sequence[str]) -> list[str]:
    """Tasks as the harness calls them: `KoBEST`, `KMMLU` and `HAE-RAE` too. Raises UsageError for one that it has not
    (did-you-mean), MachineError where the harness is missing."""
    require_harness()
    known = set(importlib.import_module("lm_eval.tasks").TaskManager().all_tasks)
    found = []
    for task in tasks:
        name = CALLED.get(task.lower(), task)
        if name not in known:
            raise UsageError(
                "The harness has no task {task}.{near} See: lm-eval ls tasks", task=task, near=did_you_mean(name, known)
            )
        found.append(name)
    return found


def run_tasks(
    original: Engine, lighter: Engine, tasks: Sequence[str], seed: int = 0, on_event: OnEvent = ignore
) -> list[dict[str, Any]]:
    """One entry a task, and one a group of tasks: `original`, `lighter` (the harness's own figures), `paired`, and of
    the first of these that is right or wrong `flips` both ways with the exact McNemar p.

    paired: for each figure that is a mean over items, metric, items, original, lighter, change and interval of the
    change. A group's is over the items of all its tasks.

    Raises MachineError when the harness is missing or a task's data cannot be had, UsageError for an unknown task or an
    engine other than PyTorch.
    """
    harness = require_harness()
    names = named_tasks(tasks)
    wrapper = importlib.import_module("lm_eval.models.huggingface").HFLM
    runs = []
    stage = Stage(on_event, "tasks", 2)
    for engine in (original, lighter):
        if not isinstance(engine, TorchEngine):
            raise UsageError("Tasks are run on model folders, and {path} is none. Leave them out.", path=engine.folder)
        model = wrapper(pretrained=engine.model, tokenizer=engine.tokenizer)
        try:
            runs.append(harness.simple_evaluate(model=model, tasks=names, log_samples=True, random_seed=seed))
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


def _entry(name: str, original: Mapping[str, Any], lighter: Mapping[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"task": name}
    for which, run in (("original", original), ("lighter", lighter)):
        entry[which] = {k: v for k, v in run["results"][name].items() if isinstance(v, int | float)}
    tasks = _tasks_of(name, original)
    entry["paired"], flipped = [], False
    for metric, pairs in _pairs(tasks, original, lighter).items():
        before, after = ([pair[side] for pair in pairs.values()] for side in (0, 1))
        change = change_of_means(before, after, range(len(pairs)))
        told = {"metric": metric, "items": len(pairs), "change": change.value}
        told["interval"] = None if change.interval is None else list(change.interval)
        told |= {"original": sum(before) / len(before), "lighter": sum(after) / len(after)}
        entry["paired"].append(told)
        if not flipped and {*before, *after} <= {0.0, 1.0}:
            lost, gained = (list(pairs.values()).count(flip) for flip in ((1.0, 0.0), (0.0, 1.0)))
            entry["flips"] = {"metric": metric, "items": len(pairs), "lost": lost, "gained": gained}
            entry["mcnemar_p"], flipped = mcnemar(lost, gained), True
    return entry


def _tasks_of(name: str, run: Mapping[str, Any]) -> list[str]:
    """The task itself, or the tasks of a group, those of its groups too."""
    members = run.get("group_subtasks", {}).get(name) or []
    return [task for member in members for task in _tasks_of(member, run)] if members else [name]


Place = tuple[str, Any]  # a task and the number of one of its documents


def _pairs(
    tasks: Sequence[str], original: Mapping[str, Any], lighter: Mapping[str, Any]
) -> dict[str, dict[Place, tuple[float, float]]]:
    """By figure what both got for each document, where all of the tasks have it."""
    found: dict[str, dict[Place, tuple[float, float]]] = {}
    having: dict[str, set[str]] = {}
    for task in tasks:
        first, second = (dict(_values(run.get("samples", {}).get(task, []))) for run in (original, lighter))
        for key in first.keys() & second.keys():
            metric, document = key
            having.setdefault(metric, set()).add(task)
            found.setdefault(metric, {})[(task, document)] = (first[key], second[key])
    whole = sorted((metric for metric in found if len(having[metric]) == len(tasks)), key=_rank)
    return {metric: dict(sorted(found[metric].items())) for metric in whole}


def _rank(metric: str) -> tuple[int, str]:
    return MEANS.index(metric.partition(",")[0]), metric


def _values(samples: Sequence[Mapping[str, Any]]) -> Iterator[tuple[tuple[str, Any], float]]:
    """Of each document its figures, by name: with its filter where answers are read in a way of several."""
    for sample in samples:
        how = sample.get("filter", "none")
        for metric in MEANS:
            if isinstance(value := sample.get(metric), int | float):
                yield (metric if how == "none" else f"{metric},{how}", sample["doc_id"]), float(value)
