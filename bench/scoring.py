"""Which scorer knows what a scheme costs: rank correlation of each with the KL measured one part at a time.

Every linear of the blocks, embedding and head is solved alone on every scheme (GPTQ, on the original's second moments),
put into the model, and KL(original ‖ changed) is measured on text that solved and scored nothing. Then whole models are
made: one scheme throughout, and a mix planned to `--bits`; their KL is measured by `evaluation.py` and set against what
was predicted. Models must fit into memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import whet
from evaluation import table, window_scores
from ranks import compared
from scorers import SCORERS, measured_kl, priced
from scoring_material import Material, Table, second_moments
from whet import starter
from whet.anatomy import Anatomy, Linear
from whet.apply.job import Job, scale_dtype
from whet.budget import tables
from whet.budget.mix import Budget, make_plan
from whet.budget.offered import offered
from whet.checkpoint import load_model, load_tokenizer
from whet.grids import IntegerGrid, parse_scheme
from whet.quantize import gptq, nearest
from whet.scores import gains, linear_losses, pivots, tied_metric
from whet.steps import score as scoring
from whet.steps.decide import decide
from whet.steps.options import Quantize
from whet.targets import find_target
from whet.text import batches, read_text, windows

SCHEMES = ("int2-g64", "int3-g64", "int4-g64", "int6s-g64")
UNIFORM = ("int4s-g64", "int5s-g64")  # made throughout, embedding and head included
OURS = "gradient-output (whet)"
BATCH = 2048  # tokens
TARGET = "whet"


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    started = time.monotonic()
    out = Path(args.out) / "scoring" / Path(args.model).name
    out.mkdir(parents=True, exist_ok=True)
    model_path, train, held = texts(args)
    asked = Quantize.of(
        "score",
        scheme=UNIFORM[0],
        target=TARGET,
        text=train,
        eval_text=held,
        samples=args.samples,
        window=args.window,
    )
    job = decide(model_path, asked, seed=args.seed, device="cpu")
    schemes = [parse_scheme(name, scale_dtype(job.dtype)) for name in args.schemes]
    model = load_model(model_path, dtype=torch.float32)
    window = job.text["window"]
    measuring = first(windows(held, load_tokenizer(model_path), None, window), args.measured)
    print(
        f"{job.name}: solved on {job.tokens:,} tokens, measured on {sum(map(len, measuring)):,}, "
        f"blocks computed in {job.compute}",
        flush=True,
    )

    materials = solved(job, model, schemes)
    measured: Table = {}
    for material in materials:
        measured |= measured_kl(part_of(material, measuring))
    tell("measured", started)

    found = ours(job, schemes, args.seed)
    scores = found.pop("scores")
    study = part_of(materials[0], first(job.solve, scoring.SCORED_TOKENS))
    ablated = ablations(job, model, schemes, gradients(study, args.seed))
    whole = found | ablated
    tell("scored by whet", started)
    for name, scorer in SCORERS.items():
        if scorer is not measured_kl:
            result = scorer(study)
            alone = {a: v for a, v in result.items() if isinstance(v, float)}
            if alone:
                whole[name] = {a: dict.fromkeys(args.schemes, v) for a, v in alone.items()}
                whole[f"{name} x rounding error"] = priced(study, alone)
            else:
                whole[name] = result
            tell(name, started)

    inside = [linear.address for linear in job.anatomy.linears()]
    result: dict[str, Any] = {
        "arguments": vars(args),
        "tokens": {"solved": job.tokens, "scored": scores["tokens"], "measured": sum(map(len, measuring))},
        "measured": measured,
        "scorers": whole,
    }
    absolute = [n for n in whole if n.startswith(("gradient", "Fisher", "  ")) and n != "  without gradients"]
    result |= compared(measured, whole, absolute, inside, args.schemes, args.resamples, args.seed)
    result["tables"] = ends(measured, whole[OURS], job.anatomy, args.schemes)
    if args.bits:
        result["plans"] = planned(args, model_path, model, job, scores, measuring, out, train, held)
    result["seconds"] = time.monotonic() - started
    (out / "scoring.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"{result['seconds']:.0f} s; everything is in {out / 'scoring.json'}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="starter", help="folder, or `starter` for the embedded model")
    parser.add_argument("--text", help="text to solve and score on (for the starter made if not given)")
    parser.add_argument("--eval", help="text to measure on; if not given, the last tenth of the documents of --text")
    parser.add_argument("--schemes", default=",".join(SCHEMES), help="separated by commas")
    parser.add_argument("--samples", type=int, default=128, help="windows to solve on")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--measured", type=int, default=8192, help="tokens to measure on, at least")
    parser.add_argument("--bits", type=float, default=4.5, help="of the planned mix; 0 makes no whole models")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap over parts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out")
    args = parser.parse_args()
    args.schemes = args.schemes.split(",")
    return args


def texts(args: argparse.Namespace) -> tuple[Path, list[str], list[str]]:
    """The model's folder, documents to solve and score on, and documents to measure on."""
    path = starter.path() if args.model == "starter" else Path(args.model)
    if args.text is None:
        if args.model != "starter":
            raise SystemExit("--text is needed for any model but the starter")
        return path, starter.documents(args.seed, 4000), starter.held_out(args.seed, 2000)
    train = read_text(args.text).documents
    if args.eval:
        return path, train, read_text(args.eval).documents
    share = max(1, len(train) // 10)
    return path, train[:-share], train[-share:]


def first(some: Sequence[torch.Tensor], tokens: int) -> list[torch.Tensor]:
    """The first windows that together have `tokens` tokens, or all."""
    taken, count = [], 0
    for window in some:
        if count >= tokens:
            break
        taken.append(window)
        count += len(window)
    return taken


def tell(what: str, started: float) -> None:
    print(f"  {time.monotonic() - started:6.0f} s  {what}", flush=True)


def part_of(material: Material, some: Sequence[torch.Tensor]) -> Material:
    """The same with the text of `some` windows."""
    return Material(material.model, batches(some, BATCH), material.moments, material.rounded, material.blocks)


def solved(job: Job, model: torch.nn.Module, schemes: Sequence[IntegerGrid]) -> list[Material]:
    """Every linear of the blocks, and apart from them every embedding or head, solved alone on each scheme."""
    parts, text = job.anatomy, batches(job.solve, BATCH)
    blocks = {
        linear.address: parts.block_prefix(i).rstrip(".") for i, some in enumerate(parts.blocks) for linear in some
    }
    moments = second_moments(model, [*blocks, parts.family.head], text)
    heads = moments.pop(parts.family.head)

    def stored(w: torch.Tensor, h: torch.Tensor | None, grid: IntegerGrid) -> torch.Tensor:
        solution = nearest(w, None, grid) if h is None else gptq(w, h, grid)
        return grid.decode(solution.codes, solution.params).to(job.dtype).float()

    def weight(linear: Linear) -> torch.Tensor:
        return model.get_submodule(linear.address).weight.detach()

    inside = {x.address: {g.name: stored(weight(x), moments[x.address], g) for g in schemes} for x in parts.linears()}
    ends = {}
    for linear in tables(parts):
        h = None if linear.role == "embedding" and not parts.tied else tied_metric(heads) if parts.tied else heads
        ends[linear.address] = {grid.name: stored(weight(linear), h, grid) for grid in schemes}
    return [Material(model, text, moments, inside, blocks), Material(model, text, {}, ends, {})]


def ours(job: Job, schemes: Sequence[IntegerGrid], seed: int) -> dict[str, Any]:
    """What `whet plan` is told, on its number of tokens, half and double; `scores` of the first."""
    every = {linear.address: offered(find_target(TARGET), linear.shape, False) for linear in job.anatomy.linears()}
    every |= {x.address: offered(find_target(TARGET), x.shape, True) for x in tables(job.anatomy)}
    named = [grid.name for grid in schemes]
    found: dict[str, Any] = {}
    for name, share in ((OURS, 1.0), ("  half the tokens", 0.5), ("  double the tokens", 2.0)):

        def grids(linear: Linear, share: float = share) -> list[IntegerGrid]:
            more = [g for g in every[linear.address] if g.name not in named] if share == 1.0 else []
            return [*schemes, *more]

        with patch.object(scoring, "SCORED_TOKENS", int(share * scoring.SCORED_TOKENS)):
            scores = scoring.score(job, grids, seed=seed)
        found[name] = {p["address"]: {s: p["schemes"][s]["kl"] for s in named} for p in scores["parts"]}
        if share == 1.0:
            found["scores"] = scores
    return found


def gradients(material: Material, seed: int) -> dict[str, torch.Tensor]:
    """Mean squared gradients of every linear's outputs, `[out]`."""
    found: dict[str, torch.Tensor] = {}
    for flow in material.flows(seed):
        for address, (_, g) in flow.items():
            found[address] = found.get(address, 0) + g.square().sum((0, 1)) / material.counted
    return found


def ablations(
    job: Job, model: torch.nn.Module, schemes: Sequence[IntegerGrid], rows: Mapping[str, torch.Tensor]
) -> dict[str, Table]:
    """What whet predicts with one part of the prediction left out."""
    parts = job.anatomy
    scored = batches(first(job.solve, scoring.SCORED_TOKENS), BATCH)
    moments = second_moments(model, list(rows), scored)
    plain = dict.fromkeys(range(2, 9), 1.0)
    found: dict[str, Table] = defaultdict(dict)
    for block in parts.blocks:
        together: dict[str, list[Linear]] = defaultdict(list)
        for linear in block:
            together[linear.reads].append(linear)
        for some in together.values():
            h = moments[some[0].address]
            weights = [model.get_submodule(linear.address).weight.detach() for linear in some]
            all_rows = torch.cat([rows[linear.address] for linear in some])
            flat = torch.cat(
                [rows[linear.address].mean().expand(len(w)) for linear, w in zip(some, weights, strict=True)]
            )
            variants: dict[str, tuple[torch.Tensor, torch.Tensor, bool]] = {
                "  without positions": (pivots(h), all_rows, True),  # as are those below
                "  without gradients": (pivots(h), torch.ones_like(all_rows), True),
                "  mean gradient of a linear": (pivots(h), flat, True),
                "  without pivots": (h.diagonal(), all_rows, True),
                "  without gains": (pivots(h), all_rows, False),
                "  without pivots and gains": (h.diagonal(), all_rows, False),
            }
            for name, (d, s, learns) in variants.items():
                slopes = s.split([len(w) for w in weights])
                factors = gains(weights, h, d, slopes) if learns else [plain] * len(weights)
                for linear, w, own, gain in zip(some, weights, slopes, factors, strict=True):
                    losses = linear_losses(w, d, own, schemes, gain)
                    found[name][linear.address] = dict(zip((g.name for g in schemes), losses, strict=True))
    return dict(found)


def ends(measured: Table, predicted: Table, parts: Anatomy, schemes: Sequence[str]) -> Table:
    """Embedding and head: predicted over measured."""
    found = {x.address: {s: predicted[x.address][s] / measured[x.address][s] for s in schemes} for x in tables(parts)}
    print(f"\n{OURS}: predicted / measured (measured KL) of embedding and head")
    rows = [[a, *(f"{r[s]:.3f} ({measured[a][s]:.2g})" for s in schemes)] for a, r in found.items()]
    print(table(["part", *schemes], rows), flush=True)
    return found


def planned(
    args: argparse.Namespace,
    model_path: Path,
    model: torch.nn.Module,
    job: Job,
    scores: dict[str, Any],
    measuring: Sequence[torch.Tensor],
    out: Path,
    train: list[str],
    held: list[str],
) -> list[dict[str, Any]]:
    """Make whole models through `whet.compress` and set their KL against the prediction."""
    mix = make_plan(scores, find_target(TARGET), Budget("bits", args.bits, f"--bits {args.bits:g}"))
    plans = {f"planned at {args.bits:g} bits": mix["schemes"]}
    inside = {linear.address for linear in job.anatomy.linears()}
    for name in UNIFORM:
        plans[f"{name} throughout"] = {part["address"]: name for part in scores["parts"]}
        plans[f"{name} in the blocks"] = {a: name if a in inside else "keep" for a in mix["schemes"]}
    found, rows = [], []
    for name, schemes in plans.items():
        lighter = out / "lighter"
        shutil.rmtree(lighter, ignore_errors=True)
        plan = {"format": "whet.plan", "version": 1, "target": TARGET, "solver": "gptq", "schemes": schemes}
        made = whet.compress(
            model_path, lighter, plan=plan, text=train, eval_text=held, samples=args.samples, window=args.window,
            seed=args.seed, device="cpu",
        )  # fmt: skip
        kl = mean_kl(model, load_model(lighter, dtype=torch.float32), measuring)
        predicted = sum(
            part["schemes"][schemes[part["address"]]]["kl"]
            for part in scores["parts"]
            if schemes[part["address"]] != "keep"
        )
        found.append({"plan": name, "schemes": schemes, "predicted": predicted, "kl": kl, "compress kl": made["kl"]})
        rows.append([name, f"{predicted:.5f}", f"{kl:.5f}", f"{predicted / kl:.3f}", f"{made['kl']:.5f}"])
        rows[-1].append(f"{predicted / made['kl']:.3f}")
    print("\nwhole models: predicted and measured KL, nats a token")
    print(table(["model", "predicted", "measured", "ratio", "by compress", "ratio"], rows), flush=True)
    return found


def mean_kl(original: torch.nn.Module, lighter: torch.nn.Module, some: Sequence[torch.Tensor]) -> float:
    """KL a predicted token over windows of any lengths, as `evaluation.py` measures it."""
    total = tokens = 0.0
    for batch in batches(some, BATCH):
        total += float(window_scores(original, lighter, batch)["kl"].sum()) * (batch.shape[1] - 1)
        tokens += batch.shape[0] * (batch.shape[1] - 1)
    return total / tokens


if __name__ == "__main__":
    main()
