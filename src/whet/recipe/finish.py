"""The end of a run: index, config, the original's other files, the card, the proof, and the manifest, in that order."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import compressed_tensors
import torch
import transformers
import yaml

from whet import __version__
from whet.anatomy import AUTO
from whet.budget import tables, write_plan
from whet.checkpoint import (
    ADAPTER,
    CONFIG,
    WEIGHTS,
    Checkpoint,
    adapter_size,
    adapter_tensors,
    atomic,
    attach_adapter,
    empty_model,
    load_lighter,
    load_tokenizer,
    model_class,
    modeling_whet,
    quiet_transformers,
    read_header,
    sha256,
    write_bytes,
    write_json,
    write_tensors,
)
from whet.engines.torch import TorchEngine, cached_outputs, outputs
from whet.errors import GateError
from whet.formats import adapter_config, linear_table, quantization_config, reading, whet_config
from whet.formats.gguf import plan_gguf
from whet.messages import Message, first_of
from whet.recipe.decide import Decision
from whet.recipe.export import FILE, adapter_beside, write_verified
from whet.recipe.schema import RECIPE, recipe_text
from whet.recipe.solving import Solver
from whet.targets import TARGETS, no_file_yet
from whet.walk import STARVED, Journal

# Dense bytes up to which the finished folder is loaded once more by stock transformers as a proof.
_PROOF = 2**30
_SKIPPED = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".py", ".pyc")
_CARD_FIELDS = ("license", "license_name", "license_link", "language", "tags", "pipeline_tag", "library_name")


def finish(out: Path, decision: Decision, journal: Journal, solver: Solver, verified: dict[str, Any]) -> dict[str, Any]:
    """Make the folder whole; returns the report per linear and what the proof found. Every step may be repeated."""
    report = {a: line for unit in solver.units() for a, line in journal.entries[unit]["linears"].items()}
    notes = decision.notes + starved(decision, report) + untrained(decision, journal)
    packed = decision.storage.container == "compressed-tensors"
    _write_index(out, solver, "model" if packed else "whet")
    _write_config(out, decision, packed)
    if decision.repaired:
        _write_adapter(out, decision, solver)
    for file in copied_files(decision.original.path):
        with atomic(out / file.name) as temporary:
            shutil.copyfile(file, temporary)
    if decision.plan is not None:
        write_plan(out / "plan.json", decision.plan)
    if decision.asked is not None:
        write_bytes(out / RECIPE, recipe_text(decision.asked).encode())
    if not packed:
        write_bytes(out / "modeling_whet.py", Path(modeling_whet.__file__).read_bytes())
    check = prove(out, decision)
    lineage = {k: v for k, v in decision.recipe.items() if k != "model_path"}
    lineage["versions"] = {
        "whet": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "compressed-tensors": compressed_tensors.__version__,
    }
    manifest = {
        "format": 1,
        "base_model": {"name": decision.recipe["model"], "sha256": decision.recipe["model_sha256"]},
        "target": decision.recipe["target"],
        "container": decision.storage.container,
        "dequantize": decision.storage.dequantize,
        "linears": {
            a: {**entry, **report[a]} for a, entry in linear_table(decision.grids, decision.storage.decode).items()
        },
        **_reading(decision),
        **({} if decision.transforms is None else {"transforms": decision.transforms}),
        **({"adapter": _adapter(out, decision)} if decision.repaired else {}),
        "copied": [n for n in decision.anatomy.unnamed],
        "dropped": decision.anatomy.dropped,
        "verify": {k: verified[k] for k in ("kl", "top1") if k in verified},
        "notes": notes,
        "lineage": [lineage],
    }
    if decision.storage.blocks:
        manifest["gguf"] = check["gguf"] = _write_gguf(out, manifest, notes)
    write_bytes(out / "README.md", card(decision, report, verified, notes).encode())
    # names with a dot are temporary files of a run that was killed; each is replaced or belongs to whet.json itself
    names = sorted(
        str(p.relative_to(out))
        for p in (*out.iterdir(), *(out / ADAPTER).glob("*"))
        if p.is_file() and p.name != "whet.json" and not p.name.startswith(".")
    )
    files = {n: {"bytes": (out / n).stat().st_size, "sha256": sha256(out / n)} for n in names}
    write_json(out / "whet.json", {**manifest, "files": files})
    return {"report": report, "check": check, "notes": notes}


def _write_adapter(out: Path, decision: Decision, solver: Solver) -> None:
    """The adapters of all blocks as one that PEFT loads."""
    modules, tensors = decision.repaired, dict[str, torch.Tensor]()
    for index in range(len(decision.anatomy.blocks)):
        for name, (b, a) in solver.factors(index).items():
            tensors |= adapter_tensors(name, b, a)
    (out / ADAPTER).mkdir(exist_ok=True)
    write_tensors(out / ADAPTER / WEIGHTS, tensors)
    write_json(out / ADAPTER / CONFIG, adapter_config(modules, decision.recipe["repair"], decision.anatomy.task))


def _adapter(out: Path, decision: Decision) -> dict[str, Any]:
    """What whet.json tells of the adapter."""
    return {"rank": decision.recipe["repair"], "modules": len(decision.repaired), "bytes": adapter_size(out)}


def untrained(decision: Decision, journal: Journal) -> list[Message]:
    """Notes on blocks that training did not make better, and on scales that tuning did not."""
    notes = []
    trained = {unit: entry["trained"] for unit, entry in journal.entries.items() if "trained" in entry}
    stayed = [unit for unit, (before, after) in trained.items() if not after < before]
    if stayed:
        notes.append(
            Message(
                "{names} of {count} blocks stay as GPTQ left them: training lost more than it won on the verifying "
                "text. More text (--samples) may help.",
                names=first_of(stayed, 5),
                count=len(trained),
            )
        )
    if trained and decision.tuned and not any("tuned" in entry for entry in journal.entries.values()):
        notes.append(Message("scales stay as they were: tuning them lost more than it won on the verifying text"))
    return notes


def starved(decision: Decision, report: dict[str, Any]) -> list[Message]:
    """A note for each block on the experts that saw too few tokens for a second moment of their own."""
    notes = []
    for index, linears in enumerate(decision.anatomy.blocks):
        few = {
            linear.held.expert: report[linear.address]["starved"]
            for linear in linears
            if "starved" in report.get(linear.address, {})
        }
        if few:
            told = ", ".join(f"{expert} ({share:.2%})" for expert, share in few.items())
            notes.append(
                Message(
                    "block {index}: experts {experts} saw fewer than {share:.1%} of the tokens and were rounded with "
                    "the mean importance of their block; more text, or other text, may reach them",
                    index=index,
                    experts=told,
                    share=STARVED,
                )
            )
    return notes


def _write_gguf(out: Path, manifest: dict[str, Any], notes: list[Message]) -> dict[str, Any]:
    """Write the file that llama.cpp reads into the folder, and prove it; returns what it holds and what was found."""
    layout = plan_gguf(out, manifest=manifest)

    def mine() -> TorchEngine:
        how = manifest.get("reading") or manifest
        model = load_lighter(Checkpoint(out), how["linears"], torch.float32, "cpu", how.get("names"))
        if "adapter" in manifest:
            attach_adapter(model, out, "cpu")
        return TorchEngine(model, load_tokenizer(out), str(out))

    made = write_verified(layout, out / FILE, mine)
    notes += [note for note in layout.notes if note not in notes]
    return {key: made[key] for key in ("architecture", "types", "bytes", "check", "adapter") if key in made}


def copied_files(original: Path) -> list[Path]:
    """The original's files that go into the lighter folder byte for byte: tokenizer, generation settings, licence.

    Never weights, code, the card or files whose content is rewritten.
    """
    rewritten = ("config.json", "README.md", "whet.json")
    return sorted(
        p
        for p in original.iterdir()
        if p.is_file()
        and p.name not in rewritten
        and not p.name.startswith(".")
        and not p.name.endswith((*_SKIPPED, ".index.json"))
    )


def prove(out: Path, decision: Decision) -> dict[str, Any]:
    """Load what was written as its readers will, and raise GateError unless it computes what was solved.

    Small models (under 1 GiB dense) are loaded by stock transformers and compared with whet's own reading, logits and
    cached against uncached; for larger ones every stored linear was already decoded again when it was written.
    """
    written = Checkpoint(out)
    dense = sum(i.nbytes for i in decision.checkpoint.tensors.values())
    if dense > _PROOF:
        return {"stored": "decoded again, equal", "loaded": "not run: the model is too large to load beside this run"}
    tokens = (decision.solve or [torch.arange(16) % decision.anatomy.embedding.shape[0]])[0][None, :64]
    how = reading(decision.anatomy, decision.grids, decision.storage.decode)
    own = load_lighter(written, how["linears"], decision.dtype, decision.device, how.get("names"), "convert" in how)
    if decision.repaired:
        attach_adapter(own, out, decision.device)
    with torch.no_grad(), quiet_transformers():
        logits = outputs(own, tokens)
        if not torch.isfinite(logits).all():
            raise GateError(
                "{out}: the lighter model computes values that are not finite on its own calibration text.", out=out
            )
        result: dict[str, Any] = {"stored": "decoded again, equal"}
        gap = 0.0
        if decision.anatomy.task in ("causal", "seq2seq") and decision.anatomy.family.known:
            gap = (cached_outputs(own, tokens)[:, -1].float() - logits[:, -1].float()).abs().max().item()
            result["cached against uncached"] = gap
        scale = logits.float().abs().max().item()
        tolerance = {torch.float32: 1e-4, torch.float16: 2e-2}.get(decision.dtype, 1e-1) * max(scale, 1.0)
        if gap > tolerance:
            raise GateError(
                "{out}: generation with a cache differs from generation without by {gap:.3g} in the logits.",
                out=out,
                gap=gap,
            )
        if decision.storage.container == "compressed-tensors":
            stock = model_class(written).from_pretrained(out, local_files_only=True).eval().to(decision.device)
            if decision.repaired:
                attach_adapter(stock, out, decision.device)
            theirs = outputs(stock, tokens)
            difference = (theirs.float() - logits.float()).abs().max().item()
            if not difference <= tolerance * 0.1:  # not a number is no agreement either
                raise GateError(
                    "{out}: stock transformers computes other logits than were solved (largest difference "
                    "{difference:.3g}). Check the versions of transformers and compressed-tensors (>= 0.18).",
                    out=out,
                    difference=difference,
                )
            result["stock transformers"] = difference
    return result


def card(decision: Decision, report: dict[str, Any], verified: dict[str, Any], notes: list[Message]) -> str:
    """The folder's README.md: the original's licence and tags, what was done, and how to load it."""
    recipe = decision.recipe
    inherited = _front_matter(decision.original.path / "README.md")
    tags = list(dict.fromkeys([*_listed(inherited.get("tags")), "whet", "quantized"]))
    front = {k: inherited[k] for k in _CARD_FIELDS if k in inherited} | {
        "base_model": recipe["model"],
        "base_model_relation": "quantized",
        "tags": tags,
    }
    errors = sorted(report.items(), key=lambda item: -item[1]["error"])[:5]
    takes = any(told["transform"] != "none" for told in (decision.transforms or {}).values())
    folded = f" after `{recipe['transform']}` was folded in" if takes else ""
    lines = [
        "---",
        yaml.safe_dump(front, allow_unicode=True, sort_keys=False).strip(),
        "---",
        f"# {recipe['model']}, made lighter by whet",
        "",
        f"Quantized from `{recipe['model']}` with `{recipe['solver']}`{folded}: {_done(decision, report)}.",
    ]
    if decision.plan is not None:
        lines += ["", "`plan.json` holds the scheme of every part; `whet compress --plan` replays it."]
    if verified:
        lines += [
            "",
            f"On text that was kept out of solving: KL to the original {verified['kl']:.5f} nats per token, "
            f"the same first token at {verified['top1']:.2%} of positions.",
        ]
    if decision.repaired:
        lines += [
            "",
            f"Beside its linears runs an adapter of rank {recipe['repair']}, in `{ADAPTER}/`, which puts back a part "
            "of what rounding lost. It is a part of the model that was measured: load it too.",
        ]
    lines += ["", "## Loading", ""]
    beside = f" --lora THIS_FOLDER/{adapter_beside(Path(FILE)).name}" if decision.repaired else ""
    if decision.storage.blocks:
        lines += [
            f"`{FILE}` is the file for llama.cpp and what is built on it (Ollama, LM Studio):",
            "",
            "```sh",
            f"llama-cli -m THIS_FOLDER/{FILE}" + beside,
            "```",
            "",
        ]
    adapter = [
        "",
        "The adapter goes with it (`pip install peft`):",
        "",
        "```python",
        "from peft import PeftModel",
        f'model = PeftModel.from_pretrained(model, "THIS_FOLDER/{ADAPTER}")',
        "```",
    ]
    unwritten = no_file_yet(TARGETS[recipe["target"]])
    for sentence in unwritten:
        lines += [sentence, ""]
    if decision.storage.container == "compressed-tensors":
        lines += [
            "Stock transformers (with `compressed-tensors>=0.18` installed) loads it; whet is not needed:",
            "",
            "```python",
            f"from transformers import {AUTO[decision.anatomy.task]}",
            f'model = {AUTO[decision.anatomy.task]}.from_pretrained("THIS_FOLDER")',
            "```",
        ]
        if recipe["target"] == "vllm":
            lines += ["", "vLLM: the format is one its parser accepts; it was not run in vLLM by whet."]
    else:
        lines += [
            f"Why not stock transformers alone: {decision.storage.reason}. The folder carries `modeling_whet.py`, "
            "which computes the weights and hands back the stock architecture:",
            "",
            "```python",
            f"from transformers import {AUTO[decision.anatomy.task]}",
            f'model = {AUTO[decision.anatomy.task]}.from_pretrained("THIS_FOLDER", trust_remote_code=True)',
            "```",
        ]
    lines += adapter if decision.repaired else []
    lines += ["", "## Largest relative errors of linears", "", "| linear | grid | error |", "|---|---|---:|"]
    lines += [f"| {a} | {line['grid']} | {line['error']:.2e} |" for a, line in errors]
    if more := [note for note in notes if note not in unwritten]:
        lines += ["", "## Notes", "", *(f"- {note}" for note in more)]
    lines += ["", "`whet.json` holds every choice, the lineage and the SHA-256 of every file.", ""]
    return "\n".join(lines)


def _write_index(out: Path, solver: Solver, stem: str) -> None:
    mapping, total = {}, 0
    for unit in solver.units():
        file = solver.file_of(unit)
        for name, info in read_header(file).items():
            mapping[name] = file.name
            total += info.nbytes
    write_json(
        out / f"{stem}.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(mapping.items()))},
    )


def _write_config(out: Path, decision: Decision, packed: bool) -> None:
    config = {k: v for k, v in decision.checkpoint.config.items() if k not in ("auto_map", "_name_or_path")}
    if packed:
        config["quantization_config"] = quantization_config(
            {piece.address: decision.grids[piece.linears[0].address] for piece in decision.pieces},
            _dense(decision),
            decision.anatomy.embedding.address,
            decision.storage.dequantize,
        )
    else:
        config |= whet_config(decision.anatomy, decision.grids, decision.storage.decode)
    config.setdefault("dtype", str(decision.dtype).removeprefix("torch."))
    write_json(out / "config.json", config)


def _reading(decision: Decision) -> dict[str, Any]:
    """How the tensors are read where it is not each by its address and name."""
    how = reading(decision.anatomy, decision.grids, decision.storage.decode)
    plain = linear_table(decision.grids, decision.storage.decode)
    return {} if how == {"linears": plain} else {"reading": how}


def _dense(decision: Decision) -> list[str]:
    """Modules of the type Linear that stay as they are, the head among them."""
    parts = decision.anatomy
    lighter = {piece.held.parameter.removesuffix(".weight") for piece in decision.pieces}
    if parts.head is None and parts.embedding.address in decision.grids:
        lighter.add(parts.family.head)
    model = empty_model(decision.checkpoint, torch.float32)
    linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return [name for name in linears if name not in lighter]


def _done(decision: Decision, report: dict[str, Any]) -> str:
    """How many linears became what, and what was kept."""
    schemes: dict[str, int] = {}
    for line in report.values():
        schemes[line["grid"]] = schemes.get(line["grid"], 0) + 1
    told = ", ".join(f"{n} linears as {grid}" for grid, n in schemes.items())
    among = [t.role for t in tables(decision.anatomy) if t.address in decision.grids]
    kept = len(decision.anatomy.linears()) - len(decision.chosen(decision.anatomy.linears()))
    left = [f"{kept} linears of the blocks"] if kept else []
    left += [t.role for t in tables(decision.anatomy) if t.address not in decision.grids]
    told += f", among them {' and '.join(among)}" if among else ""
    return told + (f"; as they were: {', '.join(left)}" if left else "")


def _front_matter(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    match = re.match(r"---\n(.*?)\n---", file.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        found = yaml.safe_load(match.group(1)) if match else {}
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _listed(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else [str(value)] if value else []
