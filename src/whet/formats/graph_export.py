"""A graph written and proved: it is in its runtime the model that its folder is in PyTorch.

With float inputs its odds on the next token are the folder's, its text the same, and what it answers from its cache
what it answers without. As it is shipped, linears of codes may take inputs in 8 bits; what that costs is measured and
told.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from whet.checkpoint import MANIFEST, Checkpoint, Manifest, disk_errors, hashed_files, write_json
from whet.checkpoint.memory import available_memory
from whet.engines.cached import CachedEngine
from whet.engines.onnx import open_onnx
from whet.engines.opening import open_graph
from whet.engines.openvino import open_openvino
from whet.engines.torch import TorchEngine, outputs
from whet.errors import GateError, MachineError
from whet.events import OnEvent, ignore, note_event
from whet.formats.graphs.encoder import Encoder
from whet.formats.graphs.onnx import FLOAT, with_level
from whet.formats.graphs.write import GraphPlan, must_be_writable, plan_graph, write_graph
from whet.formats.running import open_folder
from whet.formats.same import WINDOW, checked_windows, same_odds, same_text
from whet.formats.unproved import unproved
from whet.messages import Message
from whet.targets import find_target

INPUTS = ("int8", "float")
_FLOAT_KL = 1e-4  # nats a token that float32 may be off on average; it is some 1e-10 to 1e-7
_SHIPPED_KL = 6e-2  # and inputs in 8 bits, a scale a row; OpenVINO's cache in 8 bits and products in bfloat16 too
_FLOAT_ERROR, _SHIPPED_ERROR = 1e-4, 0.1  # the same of hidden states, of their size
_CACHED = 1e-3  # that a logit from the cache may differ, of the largest one


def export_graph(
    folder: Path,
    to: str,
    out: Path,
    kind: str | None,
    inputs: str,
    documents: Sequence[str] | None,
    on_event: OnEvent,
) -> dict[str, Any]:
    """`folder` as the graph of the runtime `to` in the new folder `out`, with a whet.json; what `export` returns of
    it."""
    checkpoint = Checkpoint(folder)
    plan = plan_graph(folder, find_target(to), kind.upper() if kind else None)
    must_be_free(out, plan.nbytes)
    must_be_writable(to)
    made = write_verified_graph(plan, out, folder, None, inputs, documents, on_event)
    told = checkpoint.whet or {"base_model": {"name": folder.resolve().name}}
    told = {key: value for key, value in told.items() if key not in ("gguf", "graph", "files", "reading")}
    told |= {"format": 1, "target": to, "container": to, "dequantize": False, "graph": about_graph(made)}
    write_json(out / MANIFEST, Manifest.model_validate(told | {"files": hashed_files(out)}).document())
    return made


def about_graph(made: Mapping[str, Any]) -> dict[str, Any]:
    """What whet.json says of a written graph."""
    kept = ("architecture", "types", "inputs", "bytes", "parts", "parameters", "check")
    return {"file": Path(made["out"]).name, **{key: made[key] for key in kept}}


def must_be_free(out: Path, nbytes: int) -> None:
    """Raises MachineError where the disk of `out` has no room for a graph of about `nbytes`."""
    free = shutil.disk_usage(out.parent).free
    if free < nbytes * 1.02 + 2**24:
        raise MachineError(
            "The disk of {file} has {free:.0f} MB free; the file needs {needs:.0f} MB. Free some space or choose "
            "another disk.",
            file=out,
            free=free / 1e6,
            needs=nbytes / 1e6,
        )


def write_verified_graph(
    plan: GraphPlan,
    out: Path,
    folder: Path,
    manifest: Mapping[str, Any] | None,
    inputs: str = "int8",
    documents: Sequence[str] | None = None,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """Write the planned graph and all that is read beside it into the new folder `out`, and prove it. Until it is
    proved it lies in a folder beside that, which is gone afterwards: a proof that fails, or is stopped, leaves nothing.

    folder, manifest: what it was made from, and its whet.json where that is not written yet. Raises GateError where a
    proof fails.
    """
    with unproved(out) as place:
        file, told = write_graph(plan, place, inputs)
        check = _prove(plan, file, folder, manifest, inputs, documents)
        with disk_errors(out):
            place.rename(out)
    notes = check.pop("notes")
    for note in notes:
        on_event(note_event(note))
    total = sum(told.values())
    return {
        "out": str(out / file.name),
        "architecture": str(plan.model.config.model_type),
        "types": plan.types,
        "inputs": inputs if plan.weights.coded or plan.target.name == "openvino" else "float",
        "bytes": {"planned": plan.nbytes, "tensors": total, "file": sum(f.stat().st_size for f in out.iterdir())},
        "parts": plan.parts(told),
        "parameters": plan.parameters,
        "check": check,
        "notes": notes,
    }


def _prove(
    plan: GraphPlan,
    file: Path,
    folder: Path,
    manifest: Mapping[str, Any] | None,
    inputs: str,
    documents: Sequence[str] | None,
) -> dict[str, Any]:
    """What was found of the graph in its runtime; or why it was not run, under the runtime's name."""
    free, needs = available_memory(), 8 * plan.parameters + 2**28
    if free is not None and free < needs:
        why = Message(
            "that needs {needs:.1f} GB of memory and {free:.1f} GB are free", needs=needs / 1e9, free=free / 1e9
        )
        return {plan.target.name: why, "notes": [_not_run(plan, why)]}
    try:
        theirs = open_graph(file)
    except MachineError as error:
        return {plan.target.name: error.message, "notes": [_not_run(plan, error.message)]}
    exact = _exact(plan, file, inputs) or theirs
    mine = open_folder(folder, plan.weights.in_float32(manifest))
    cut = checked_windows(mine, documents, min(WINDOW, theirs.context or WINDOW))
    found: dict[str, Any] = {"runtime": theirs.name, "tokens": sum(len(row) for row in cut)}
    architecture = str(plan.model.config.model_type)
    if isinstance(plan.model, Encoder):
        found["error"] = _same_states(mine, exact, cut, _FLOAT_ERROR)
        if exact is not theirs:
            found["shipped_error"] = _same_states(mine, theirs, cut, _SHIPPED_ERROR)
        return found | {"notes": [*_computed(plan)]}
    found |= same_odds(mine, exact, cut, _FLOAT_KL, architecture)
    found["greedy"] = same_text(mine, exact, cut, 2 * found["largest_difference"])
    found["cached"] = _same_cached(exact, cut[0])
    if exact is not theirs:
        found["shipped_kl"] = same_odds(mine, theirs, cut, _SHIPPED_KL, architecture)["kl"]
    return found | {"notes": [*_computed(plan)]}


def _exact(plan: GraphPlan, file: Path, inputs: str) -> CachedEngine | None:
    """The graph with float inputs throughout, where it is not run so as it is."""
    if inputs == "float" or (plan.target.name == "onnx" and not plan.weights.coded):
        return None
    if plan.target.name == "openvino":
        return open_openvino(file, exact=True)
    again = with_level(file, FLOAT, file.with_name("float.onnx"))
    try:
        return open_onnx(again)
    finally:
        again.unlink()


def _computed(plan: GraphPlan) -> Iterator[Message]:
    """A note where transformers computes the weights of the folder in another type than the runtime."""
    if any(plan.weights.linears[address]["decode"] == "scale" for address in plan.weights.coded):
        yield Message(
            "transformers computes the weights of this folder in the type of its scales, {target} in float32: "
            "the graph "
            "was compared with the folder's codes and scales in float32",
            target=plan.target.name,
        )


def _not_run(plan: GraphPlan, why: Message) -> Message:
    return Message("{target} was not run: {why}", target=plan.target.name, why=why)


def _same_states(mine: TorchEngine, theirs: CachedEngine, cut: Sequence[torch.Tensor], most: float) -> float:
    """The largest difference of a text's hidden states over their size, which must be at most `most`."""
    worst = 0.0
    for row in cut:
        with torch.inference_mode():
            ours, other = outputs(mine.model, row[None]).float(), outputs(theirs.model, row[None])
        worst = max(worst, ((ours - other).norm() / ours.norm()).item())
    if not worst <= most:
        raise GateError(
            "{path}: hidden states in {runtime} differ from the folder's by {error:.3g} of their size, more than "
            "arithmetic explains ({most:g}). This is a defect of whet; please report it with the family.",
            path=theirs.folder,
            runtime=theirs.name,
            error=worst,
            most=most,
        )
    return worst


def _same_cached(engine: CachedEngine, row: torch.Tensor) -> float:
    """The largest difference of a logit between all tokens at once and one by one. Raises GateError where it is
    large."""
    whole = engine.logits(row[None])
    single = torch.cat(list(engine.logit_chunks(row[None], 1)), dim=1)
    gap = (whole - single).abs().max().item()
    if not gap <= _CACHED * max(1.0, whole.abs().max().item()):
        raise GateError(
            "{path}: {runtime} answers otherwise from its cache (logits differ by {gap:.3g}). This is a defect "
            "of whet; "
            "please report it with the family.",
            path=engine.folder,
            runtime=engine.name,
            gap=gap,
        )
    return gap
