"""An adapter and a quantized folder: merged into the zeros of codes, kept beside them, or with weights made anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.adapt import group_sums, stacked
from whet.apply.run import Run
from whet.budget import tables
from whet.budget.plan import KEEP
from whet.checkpoint import (
    ADAPTER,
    CONFIG,
    MANIFEST,
    WEIGHTS,
    Adapter,
    Checkpoint,
    Factors,
    adapter_config,
    adapter_file,
    adapter_size,
    adapter_tensors,
    attach,
    copy_beside,
    hashed_files,
    load_model,
    read_factors,
    rows_of,
    size_on_disk,
    write_json,
    write_tensors,
)
from whet.engines.torch import outputs
from whet.errors import GateError, UsageError
from whet.events import Way
from whet.messages import Message, to_json
from whet.steps.coded import Coded, coded_modules
from whet.steps.finish import MODELLING
from whet.steps.lineage import next_manifest
from whet.steps.merge_files import merge_card
from whet.steps.merged import total_size
from whet.steps.options import Merge, Quantize
from whet.steps.original import open_original
from whet.steps.proof import PROVED
from whet.steps.quantize import quantize
from whet.targets import find_target

_BEFORE = "merged"  # in a table entry: how it was read and its offsets were stored, before anything was merged
_NEAR = 1e-4  # logits of a merged folder from those of base and adapter, at most, over the largest or 1
_INDEX = ".safetensors.index.json"


def why_not_exact(checkpoint: Checkpoint, given: Adapter) -> Message | None:
    """Why an adapter cannot be merged into codes exactly; None where it can."""
    if given.sized:
        return Message("a DoRA brings whole rows to other lengths")
    coded = coded_modules(checkpoint)
    for name, one in given.factors.items():
        mine = coded.get(name, [])
        if not mine or not all(part.real for part in mine):
            return Message("{name} has no codes whose zeros are real numbers (as of int4z-g64)", name=name)
        for part in mine:
            if group_sums(one, part.group) is None:
                return Message(
                    "what it adds to {name} differs within groups of {group} weights (an adapter of the kind qalora "
                    "would not)",
                    name=name,
                    group=part.group or one.a.shape[1],
                )
    return None


def exactly(
    out: Path,
    checkpoint: Checkpoint,
    factors: Mapping[str, Factors],
    record: Mapping[str, Any],
    notes: list[Message],
    *,
    undo: bool,
) -> dict[str, Any]:
    """The folder with what the adapter adds in the zeros of its codes, or taken out of them."""
    assert checkpoint.whet is not None
    offsets: dict[str, Tensor] = {}
    entries: dict[str, dict[str, Any]] = {}
    coded = coded_modules(checkpoint)
    for name, one in factors.items():
        for part in coded[name]:
            offset = checkpoint.read(f"{part.address}.weight_offset")
            entries[part.address], dtype = _entry(part, offset.dtype, undo, checkpoint)
            added = group_sums(one, part.group)
            assert added is not None
            added = added if part.rows is None else added[part.rows[0] : part.rows[1]]
            offsets[f"{part.address}.weight_offset"] = (offset.float() + (-added if undo else added)).to(dtype)
    for file in sorted({info.file for info in checkpoint.stored.values()}):
        names = [name for name, info in checkpoint.stored.items() if info.file == file]
        write_tensors(out / file.name, {name: offsets.get(name, checkpoint.read(name)) for name in names})
    _copy_rest(checkpoint.path, out)
    config = json.loads((checkpoint.path / "config.json").read_text(encoding="utf-8"))
    if "whet" in config:
        config["whet"]["linears"] = _changed(config["whet"]["linears"], entries)
    write_json(out / "config.json", config)
    indices = [file.name for file in out.iterdir() if file.name.endswith(_INDEX)]
    sizes = {name: info.nbytes for name, info in checkpoint.stored.items()}
    total_size(out, indices, sizes | {name: value.nbytes for name, value in offsets.items()})
    before = checkpoint.whet
    reading = before.get("reading")
    _close(
        out,
        checkpoint,
        record,
        notes,
        linears=_changed(before["linears"], entries),
        reading=None if reading is None else {**reading, "linears": _changed(reading["linears"], entries)},
    )
    check = _proved(out, checkpoint, factors, undo)
    return {
        "sizes": {"original": size_on_disk(checkpoint.path), "lighter": size_on_disk(out)},
        "codes": "untouched",
        "check": check,
    }


def _entry(part: Coded, stored: torch.dtype, undo: bool, checkpoint: Checkpoint) -> tuple[dict[str, Any], torch.dtype]:
    """The table's entry of a linear after the merge, and the type of its offsets. Sums are kept in float32, and read
    in it: what an adapter adds may be less than a float16 offset tells apart."""
    entry = dict(part.entry)
    before = entry.get(_BEFORE)
    if not undo:
        kept = before or {"decode": entry["decode"], "offset": str(stored).removeprefix("torch."), "count": 0}
        return {**entry, "decode": "float32", _BEFORE: {**kept, "count": kept["count"] + 1}}, torch.float32
    if before is None:
        raise UsageError(
            "{folder}: nothing was merged into {address}, so nothing can be taken out of it.",
            folder=checkpoint.path,
            address=part.address,
        )
    if before["count"] > 1:
        return {**entry, _BEFORE: {**before, "count": before["count"] - 1}}, torch.float32
    entry.pop(_BEFORE)
    return {**entry, "decode": before["decode"]}, getattr(torch, before["offset"])


def _changed(
    table: Mapping[str, Mapping[str, Any]], entries: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """A table with how some linears are read changed; what else it says of them stays."""
    made = {address: dict(entry) for address, entry in table.items()}
    for address, entry in entries.items():
        if address in made:
            made[address].pop(_BEFORE, None)
            made[address] |= {key: entry[key] for key in ("decode", _BEFORE) if key in entry}
    return made


def beside(
    out: Path,
    checkpoint: Checkpoint,
    factors: Mapping[str, Factors],
    record: Mapping[str, Any],
    notes: list[Message],
) -> dict[str, Any]:
    """The folder with the adapter in it, as a part of the model: with the one it has already, as one."""
    assert checkpoint.whet is not None
    for file in sorted({info.file for info in checkpoint.stored.values()}):
        shutil.copyfile(file, out / file.name)
    _copy_rest(checkpoint.path, out)
    shutil.copyfile(checkpoint.path / "config.json", out / "config.json")
    whole = _with_own(checkpoint, factors)
    whole = {name: Factors(one.scale * one.b.float(), one.a.float()) for name, one in whole.items()}
    (out / ADAPTER).mkdir(exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, one in whole.items():
        tensors |= adapter_tensors(name, one.b, one.a)
    write_tensors(out / ADAPTER / WEIGHTS, tensors)
    ranks = {name: len(one.a) for name, one in whole.items()}
    rank = max(ranks.values())
    config = adapter_config([], rank, "causal") | {"target_modules": list(ranks)}
    thin = {name: own for name, own in ranks.items() if own != rank}
    model = load_model(checkpoint.path, torch.float32)
    turned = any(not isinstance(model.get_submodule(name), torch.nn.Linear) for name in ranks)
    config |= {"rank_pattern": thin, "alpha_pattern": thin, "fan_in_fan_out": turned}
    write_json(out / ADAPTER / CONFIG, config)
    about = {"rank": rank, "modules": len(ranks), "bytes": adapter_size(out)}
    _close(out, checkpoint, record, notes, adapter=about)
    check = _proved(out, checkpoint, factors, undo=False)
    return {
        "sizes": {"original": size_on_disk(checkpoint.path), "lighter": size_on_disk(out)},
        "adapter": about,
        "check": check,
    }


def _with_own(checkpoint: Checkpoint, factors: Mapping[str, Factors]) -> dict[str, Factors]:
    """The adapter with the one that the folder has already."""
    found = dict(factors)
    if checkpoint.whet is not None and "adapter" in checkpoint.whet:
        for name, (b, a) in read_factors(adapter_file(checkpoint.path)).items():
            own = Factors(b, a)
            found[name] = stacked(own, found[name]) if name in found else own
    return found


def to_dense(
    out: Path,
    checkpoint: Checkpoint,
    factors: Mapping[str, Factors],
    record: Mapping[str, Any],
    notes: list[Message],
    files: Mapping[str, str],
    digest: str | None,
) -> dict[str, Any]:
    """The weights that codes and adapter stand for, quantized no more."""
    model = load_model(checkpoint.path, torch.float32)
    own = {} if "adapter" not in (checkpoint.whet or {}) else read_factors(adapter_file(checkpoint.path))
    modules = dict(model.named_modules())
    with torch.no_grad():
        for name in {**factors, **own}:
            rows = rows_of(modules[name])
            made = rows + (own[name][0].float() @ own[name][1].float() if name in own else 0)
            rows.copy_(factors[name].weight(made) if name in factors else made)
    model.config.dtype = checkpoint.dtype
    model.to(dtype=checkpoint.dtype).save_pretrained(out)  # type: ignore[call-arg]
    copy_beside(checkpoint.path, out, {name: digest for name, digest in files.items() if name not in MODELLING})
    (out / "README.md").write_text(merge_card(checkpoint, None, " Nothing of it is quantized."), encoding="utf-8")
    before = checkpoint.whet or {}
    manifest = next_manifest(
        checkpoint,
        record,
        name=before["base_model"]["name"],
        sha256=digest,
        container="dense",
        target="transformers",
        notes=to_json(list(notes)),
        files=hashed_files(out),
    )
    write_json(out / MANIFEST, manifest.document())
    return {"sizes": {"original": size_on_disk(checkpoint.path), "lighter": size_on_disk(out)}, "check": {}}


def solved_again(
    run: Run,
    checkpoint: Checkpoint,
    factors: Mapping[str, Factors],
    record: Mapping[str, Any],
    notes: list[Message],
    files: Mapping[str, str],
    digest: str | None,
    asked: Merge,
    way: Way,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Base and adapter as weights, rounded to the schemes that the base has, and measured beside those weights."""
    dense, made = run.folder / "dense", run.folder / "rounded"
    for folder in (dense, made):
        shutil.rmtree(folder, ignore_errors=True)
    dense.mkdir()
    to_dense(dense, checkpoint, factors, record, [], files, digest)
    target = (checkpoint.whet or {})["target"]
    plan = {"format": "whet.plan", "version": 1, "target": target, "schemes": _schemes(checkpoint, dense)}
    solver = asked.solver or ("nearest" if asked.text is None else "good")
    options = Quantize.of(
        "merge",
        plan=plan,
        solver=solver,
        text=asked.text,
        field=asked.field,
        chat=asked.chat,
        target=target,
    )
    result = quantize(dense, made, options, seed=seed, device=device, dry_run=False, on_event=way.part("finish"))
    for file in made.iterdir():
        if file.name != run.folder.name:
            file.replace(run.out / file.name)
    notes += [
        Message(
            "weights were rounded again ({solver}){measured}",
            solver=solver,
            measured=f": KL {result['kl']:.5f}" if "kl" in result else "",
        )
    ]
    told: dict[str, Any] = {key: result[key] for key in ("kl", "top1", "check") if key in result}
    sizes = {"original": size_on_disk(checkpoint.path), "lighter": size_on_disk(run.out)}
    return {"sizes": sizes, **told}


def _schemes(checkpoint: Checkpoint, dense: Path) -> dict[str, str]:
    """The scheme of every part of the model, by its address, as the quantized folder has it."""
    table, parts = (checkpoint.whet or {})["linears"], open_original(dense, find_target("transformers")).parts
    found = {}
    for linear in (*parts.linears(), *tables(parts)):
        entry = table.get(linear.address) or table.get(linear.parameter.removesuffix(".weight")) or {}
        found[linear.address] = entry.get("grid", KEEP)
    return found


def _copy_rest(source: Path, out: Path) -> None:
    """The files beside weights and config, indices too, as they are."""
    weights = {"config.json", MANIFEST, "run.json", "report.html", "times.json", "recipe.yaml"}
    for file in sorted(source.iterdir()):
        if file.name in weights or file.suffix == ".safetensors" or file.name == ".whet":
            continue
        if file.is_dir():
            shutil.copytree(file, out / file.name, dirs_exist_ok=True)
        else:
            shutil.copyfile(file, out / file.name)


def _close(out: Path, checkpoint: Checkpoint, record: Mapping[str, Any], notes: list[Message], **changed: Any) -> None:
    """The card, and whet.json as that of the base, a step longer."""
    assert checkpoint.whet is not None
    with (out / "README.md").open("a", encoding="utf-8") as card:
        done = "taken out of it again" if record.get("undo") else "merged into it"
        card.write(f"\nAn adapter, `{record['adapter']['name']}`, was {done} ({record['how']}).\n")
    kept = {
        key: value
        for key, value in checkpoint.whet.items()
        if key not in ("base_model", "lineage", "files", "format", "container", "notes", "verify")
    }
    manifest = next_manifest(
        checkpoint,
        record,
        name="",
        sha256=None,
        container=checkpoint.whet["container"],
        notes=to_json(list(notes)),
        **{**kept, **{key: value for key, value in changed.items() if value is not None}},
    )
    manifest.files = hashed_files(out)
    write_json(out / MANIFEST, manifest.document())


@torch.no_grad()
def _proved(out: Path, checkpoint: Checkpoint, factors: Mapping[str, Factors], undo: bool) -> dict[str, Any]:
    """The largest difference in logits from base and adapter beside each other. Raises GateError where it is more than
    float arithmetic explains."""
    if 8 * checkpoint.nbytes > PROVED:
        return {"loaded": "not run: the model is too large to load beside this run"}
    merged, base = load_model(out, torch.float32), load_model(checkpoint.path, torch.float32)
    attach(merged if undo else base, factors, "cpu")
    tokens = torch.arange(32)[None] % len(base.get_input_embeddings().weight)  # type: ignore[arg-type]
    mine, theirs = outputs(merged, tokens), outputs(base, tokens)
    gap = (mine - theirs).abs().max().item()
    # a base that is read in less than float32 is not what its codes say in float32
    every = coded_modules(Checkpoint(out) if undo else checkpoint)
    exact = all(one.entry["decode"] != "scale" for name in factors for one in every[name])
    if not gap <= _NEAR * max(1.0, theirs.abs().max().item()) and exact:
        raise GateError(
            "{out}: the merged model gives other logits than base and adapter (largest difference {difference:.3g}). "
            "This is a defect of whet.",
            out=out,
            difference=gap,
        )
    return {"logits": gap}
