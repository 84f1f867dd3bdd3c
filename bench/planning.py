"""whet's plan against the best uniform scheme and the usual hand rules (`size`), and what a quality keeps (`quality`).

`size`: at a budget of bits a parameter, every contestant is solved by the same code on the same calibration draw and
measured on all windows of the evaluation text in fp32 by ``evaluation.py``. Uniform schemes are every integer grid on
the linears with every one (or none) on embedding and head; whet's prediction, averaged over the draws, says which are
worth measuring, and the best *measured* one of those is what the plan is compared with. Hand rules get a like favour:
base bits, group, kind of zero and embedding scheme are those that are predicted to lose least.

`quality`: for every seed the lighter starter of the fewest bytes that keeps a share of the original's quality on the
verifying questions, and what it keeps of every skill on the report questions, which nothing saw before.

What was measured is kept under ``--out``, so a second call goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch

import whet
from evaluation import paired_ratio, table
from planning_rivals import Point, candidates, hand_rules, plan_of, uniform
from planning_study import ASKING, PLANNING, Made, Study, lighter_scores, write
from quantization import ROOMS, ratio_cells
from whet import starter
from whet.budget import Infeasible
from whet.errors import GateError

FIRST, WHET = "whet's first plan", "whet"
NEAR = 1.05  # a scheme whose first draw loses so many times the plan's KL is not measured on the others
LEEWAY, SURE = 1.2, 1.03  # for equal KL: doubt about predictions for linears that were not tried, and that were


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    {"size": size, "quality": quality}[args.what](args)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="what", required=True)
    first = verbs.add_parser("size", help="whet's plan at a number of bits against uniform schemes and hand rules")
    first.add_argument("--model", default="starter", help="Hugging Face folder, or starter")
    first.add_argument("--train", help="UTF-8 text to calibrate on (without it the starter's own)")
    first.add_argument("--eval", help="UTF-8 text for the report (without it the starter's own)")
    first.add_argument("--bits", type=float, default=3.5, help="stored bits a parameter, everything counted")
    first.add_argument("--draws", type=int, default=3, help="calibration draws")
    first.add_argument("--measured", type=int, default=6, help="uniform schemes measured, the best predicted first")
    first.add_argument("--tries", type=int, default=8, help="uniform schemes tried for equal KL")
    second = verbs.add_parser("quality", help="what every skill of the starter keeps at a quality, seed by seed")
    second.add_argument("--model", default="starter", help="starter, or a folder of a model with its skills")
    second.add_argument("--seeds", type=int, default=10)
    second.add_argument("--quality", type=float, default=0.98)
    second.add_argument("--questions", type=int, default=400, help="of each skill, to verify with and to report")
    for one in (first, second):
        one.add_argument(
            "--samples",
            type=int,
            help="calibration windows; 32 of --train, else 128, and 512 of short documents for a quality",
        )
        one.add_argument("--window", type=int, default=256, help="tokens in a window, at most")
        one.add_argument("--seed", type=int, default=0, help="of the starter's evaluation text")
        one.add_argument("--held-out", type=int, default=500, help="documents the starter is evaluated on")
        one.add_argument("--threads", type=int, default=1)
        one.add_argument("--out", default="bench-out/planning", help="what was measured is kept here")
    args = parser.parse_args()
    if args.what == "size" and bool(args.train) != bool(args.eval):
        parser.error("give both --train and --eval, or neither")
    args.samples = args.samples or (32 if getattr(args, "train", None) else 128 if args.what == "size" else 512)
    return args


# -- size --------------------------------------------------------------------------------------------------------------


def size(args: argparse.Namespace) -> None:
    study = Study(args)
    scores = [study.scores(draw) for draw in range(args.draws)]
    parameters = scores[0]["other"]["parameters"] + sum(part["parameters"] for part in scores[0]["parts"])
    limit = int(args.bits * parameters / 8)
    print(f"{len(study.windows)} windows of {args.window} tokens; at most {limit:,} bytes of tensors", flush=True)

    ask = {"bits": args.bits, "target": "whet", "device": "cpu"}
    plans = [whet.plan(study.model, **ask, **study.given(draw)) for draw in range(args.draws)]
    rows = {
        FIRST: study.all_draws(FIRST, [{"plan": plan_of(plan["schemes"])} for plan in plans]),
        WHET: study.all_draws(WHET, [{"bits": args.bits}] * args.draws),
    }
    foretold = {
        FIRST: float(np.mean([plan["predicted"]["kl"] for plan in plans])),
        WHET: float(np.mean([told["plan"]["predicted"]["kl"] for told in rows[WHET].told])),
    }
    every = list(uniform(scores))
    same = candidates(every, limit, args.measured)
    ruled = hand_rules(scores, limit)
    for one in [*same, *filter(None, ruled.values())]:
        rows[one.name], foretold[one.name] = study.point(one), one.kl
    for rule in [rule for rule, one in ruled.items() if one is None]:
        print(f"{rule}: nothing is so small")
    best = min((one.name for one in same), key=lambda name: rows[name].kl.mean())
    print("\n" + summary(rows, foretold, parameters, best))
    print("\n" + by_draw(rows[WHET], rows[FIRST], rows[best]) + "\n", flush=True)
    print("\n" + equal_kl(study, every, rows[WHET], foretold[best] / rows[best].kl.mean()))


def summary(rows: Mapping[str, Made], foretold: Mapping[str, float], parameters: int, best: str) -> str:
    """One row a contestant; ratios are of whet's KL to its own."""
    header = ["contestant", "bits", "bytes", "KL", "sd over draws", "predicted", "top-1",
              "whet's KL / this", "95 % crossed", "95 % over draws"]  # fmt: skip
    cells = []
    for name, made in rows.items():
        per_draw = made.kl.mean(1)
        cells.append(
            [
                name + (" (best uniform)" if name == best else ""),
                f"{8 * made.bytes.mean() / parameters:.3f}",
                f"{made.bytes.mean():,.0f}",
                f"{per_draw.mean():.5f}",
                f"{per_draw.std(ddof=1):.5f}" if len(per_draw) > 1 else "",
                f"{foretold[name]:.5f}",
                f"{made.top1.mean():.4f}",
                *ratio_cells(None if name == WHET else paired_ratio(rows[WHET].kl, made.kl)),
            ]
        )
    return table(header, cells)


def by_draw(ours: Made, first: Made, best: Made) -> str:
    """Every draw's ratio to the best uniform scheme, with an interval over windows, and what refinement changed."""
    cells = []
    for draw, told in enumerate(ours.told):
        one = slice(draw, draw + 1)
        rounds = [f"{r['measured_kl']:.4f} ({r['predicted_kl']:.4f})" for r in told["plan"]["measured"]]
        cells.append(
            [
                str(draw),
                *ratio_cells(paired_ratio(ours.kl[one], best.kl[one]))[:2],
                " → ".join(rounds),
                f"{ours.kl[one].mean() / first.kl[one].mean():.3f}",
            ]
        )
    header = ["draw", "whet / best uniform", "95 %", "rounds: verified KL (predicted)", "whet / its first plan"]
    return table(header, cells)


def equal_kl(study: Study, points: Sequence[Point], ours: Made, scale: float) -> str:
    """The smallest uniform scheme that is measured to lose no more than the plan.

    Tried is always the smallest that may lose no more, by what was learnt of predictions so far: `scale`, predicted
    over measured, is a scheme's own where one with its linears was tried, and then little is left to doubt (SURE);
    else it is the mean of the tried, and predictions are given LEEWAY.
    """
    goal, found = ours.kl.mean(), None
    learnt: dict[str, float] = {}
    tried: set[str] = set()
    ranked = sorted(points, key=lambda p: (p.bytes, p.kl))
    for _ in range(study.args.tries):
        most = LEEWAY * goal * float(np.mean(list(learnt.values()) or [scale]))
        limits = {linears: SURE * goal * own for linears, own in learnt.items()}
        fitting = (p for p in ranked if p.name not in tried and p.kl <= limits.get(p.linears, most))
        one = next(fitting, None)
        if one is None or (found and one.bytes >= found[0].bytes):
            break
        tried.add(one.name)
        lost = study.run(0, {"plan": plan_of(one.schemes)})[0]["kl"].mean()
        kept = lost <= NEAR * ours.kl[0].mean()
        if kept:
            lost = study.point(one).kl.mean()
            kept = lost <= goal
        print(f"{one.name}: {one.bytes:,} bytes, KL {lost:.5f}, predicted {one.kl:.5f}", flush=True)
        learnt[one.linears] = one.kl / lost
        if kept:
            found = one, lost
    if found is None:
        return f"At equal KL: none of {len(tried)} uniform schemes loses as little as {goal:.5f}."
    return (
        f"At equal KL: the smallest uniform scheme of {len(tried)} tried is {found[0].name} with {found[0].bytes:,} "
        f"bytes, KL {found[1]:.5f}; whet {ours.bytes.mean():,.0f} bytes, KL {goal:.5f}: "
        f"{ours.bytes.mean() / found[0].bytes:.3f} of the bytes."
    )


# -- quality -----------------------------------------------------------------------------------------------------------


def quality(args: argparse.Namespace) -> None:
    study = Study(args)
    lines = []
    for seed in range(args.seeds):
        key = study.key(seed, [args.quality, args.questions, args.held_out], (*ROOMS, *PLANNING, *ASKING))
        file = study.out / "quality" / f"seed-{seed}-{key}.json"
        if not file.exists():
            write(file, one_quality(study, seed))
        lines.append(json.loads(file.read_text(encoding="utf-8")))
        print(f"seed {seed}: {', '.join(quality_cells(lines[-1]))}", flush=True)
    header = ["seed", "bytes of the original's", "KL", "lowest retention", "skill", "all kept", "rounds", "seconds"]
    print("\n" + table(header, [[str(seed), *quality_cells(line)] for seed, line in enumerate(lines)]))
    shares = [line["share"] for line in lines if "share" in line]
    saved = f"; {1 - np.mean(shares):.1%} of the bytes are saved" if shares else ""
    print(f"\nEvery skill is kept in {sum(line['kept'] for line in lines)} of {len(lines)} seeds{saved}.")


def one_quality(study: Study, seed: int) -> dict[str, Any]:
    """One seed: compress to the quality, then ask both models what the run never saw."""
    args = study.args
    lighter = study.out / "quality" / f"seed-{seed}.lighter"
    shutil.rmtree(lighter, ignore_errors=True)
    start = time.perf_counter()
    try:
        told = whet.compress(
            study.model, lighter, quality=args.quality, skills=starter.skills("verify", args.questions, seed),
            target="whet", device="cpu", **study.given(seed),
        )  # fmt: skip
    except (GateError, Infeasible) as error:
        return {"kept": False, "failed": str(error), "seconds": time.perf_counter() - start}
    seconds = time.perf_counter() - start
    found = whet.compare(
        study.model, lighter, text=starter.held_out(seed, args.held_out), windows=32, window=args.window,
        skills=starter.skills("report", args.questions, seed), device="cpu", speed=False,
    )  # fmt: skip
    kl = lighter_scores(study, lighter)["kl"].mean()
    shutil.rmtree(lighter)
    retention = {entry["skill"]: entry["retention"]["value"] for entry in found["skills"]}
    known = {skill: value for skill, value in retention.items() if value is not None}
    return {
        "kept": min(known.values()) >= args.quality,
        "retention": retention,
        "accuracy": {e["skill"]: [e[who]["accuracy"] for who in ("original", "lighter")] for e in found["skills"]},
        "share": told["sizes"]["lighter"]["weights"] / told["sizes"]["original"]["weights"],
        "kl": float(kl),
        "plan": told["plan"],
        "seconds": seconds,
    }


def quality_cells(line: Mapping[str, Any]) -> list[str]:
    if "failed" in line:
        return ["", "", "", line["failed"], "no", "", f"{line['seconds']:.0f}"]
    known = {skill: value for skill, value in line["retention"].items() if value is not None}
    worst = min(known, key=known.__getitem__)
    return [
        f"{line['share']:.3f}",
        f"{line['kl']:.5f}",
        f"{known[worst]:.4f}",
        worst,
        "yes" if line["kept"] else "no",
        str(len(line["plan"]["measured"])),
        f"{line['seconds']:.0f}",
    ]


if __name__ == "__main__":
    main()
