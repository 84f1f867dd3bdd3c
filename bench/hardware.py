"""Whether what `whet hardware` measured is so: its ranking beside independent timings, and plans that count time.

ranks: twins of whole models in some formats, timed by `whet compare`'s own rounds against the 16-bit one, beside what
`whet hardware` says of them. hits: for some speeds, a plan with made-up losses (how fast a file is does not depend on
what its weights are), its file with random weights, and how many times as fast as the 16-bit one `whet compare` finds
it. The figures are ratios, because the machine may be shared.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import tempfile
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from whet.budget.knapsack import Infeasible
from whet.budget.mix import Budget, make_plan
from whet.budget.times import Costs
from whet.engines import llamacpp
from whet.engines.llamacpp import open_gguf
from whet.events import ignore
from whet.grids import parse_scheme
from whet.measure.speed import take_turns
from whet.steps.budget import offers
from whet.steps.decide import decide
from whet.steps.in_time import corrected, time_costs
from whet.steps.options import Quantize
from whet.steps.score import unscored
from whet.targets import find_target
from whet.timing.order import fitting_twin
from whet.timing.pairs import overview
from whet.timing.prices import types_by_tensor
from whet.timing.twin import write_twin

FORMATS = ("BF16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0", "Q3_K", "Q2_K", "TQ2_0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["ranks", "hits"])
    parser.add_argument("model", type=Path, help="an original, such as random_model.py writes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--speedups", default="1.4,1.8,2.2", help="with hits: what is asked for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="independent timings by the processor's clock: on a shared machine",
    )
    args = parser.parse_args()
    if args.processor_time:
        llamacpp.time = SimpleNamespace(perf_counter=time.process_time)
    ranks(args.model, args.rounds) if args.what == "ranks" else hits(args)


def beside(
    model: Path, types: dict[str, str] | None, kind: str, threads: int, rounds: int, sixteen: str = "F16"
) -> tuple[float, Any]:
    """How many times as fast as 16 bits a twin decodes, by `whet compare`'s rounds, and their range. types: by tensor,
    where it is not all of one `kind`."""
    twin = fitting_twin(model)
    with tempfile.TemporaryDirectory() as folder:
        both = []
        for name, given in (("16", twin.types(sixteen)), ("own", types or twin.types(kind))):
            path = Path(folder) / f"{name}.gguf"
            write_twin(twin.by_tensor() if types and name == "own" else twin, given, path)
            both.append(open_gguf(path, threads, alone=True))
        speeds = take_turns(both[0], both[1], list(range(64)), rounds=rounds, new_tokens=48)["decode"]
        turns = [own / sixteen for sixteen, own in zip(speeds["original"], speeds["lighter"], strict=True)]
    return median(turns), (min(turns), max(turns))


def ranks(model: Path, rounds: int) -> None:
    found = overview(model, False, ignore)
    told = {pair["format"]: pair["decode"] for pair in found["pairs"] if pair["runtime"] == "llama.cpp"}
    print("| format | whet hardware, x F16 | independent, x F16 | of rounds |\n| --- | ---: | ---: | ---: |")
    mine, theirs = [], []
    for kind in FORMATS:
        value, (low, high) = beside(model, None, kind, found["threads"], rounds)
        mine.append(told[kind] / told["F16"])
        theirs.append(value)
        print(f"| {kind} | {mine[-1]:.2f} | {value:.2f} | {low:.2f} to {high:.2f} |", flush=True)
    print(f"rank correlation {spearman(mine, theirs):.3f}")


def spearman(a: list[float], b: list[float]) -> float:
    """Of two lists without ties."""
    places = [[sorted(values).index(value) for value in values] for values in (a, b)]
    count = len(a)
    return 1 - 6 * sum((x - y) ** 2 for x, y in zip(*places, strict=True)) / (count * (count**2 - 1))


def hits(args: argparse.Namespace) -> None:
    asked = Quantize.of("bench", speedup=2.0, target="llama.cpp", solver="nearest")
    job = decide(args.model, asked.model_copy(update={"speedup": None, "scheme": "Q8_0"}), seed=args.seed)
    costs = time_costs(job, asked, ignore)
    assert costs is not None
    scores = made_up(unscored(job, offers(job)), args.seed)
    print("| asked | planned | timed | of rounds | off | types |\n| ---: | ---: | ---: | ---: | ---: | --- |")
    for speedup in map(float, args.speedups.split(",")):
        print(hit(args, job, costs, scores, speedup), flush=True)


def hit(args: argparse.Namespace, job: Any, costs: Costs, scores: dict[str, Any], speedup: float) -> str:
    """A row: what was asked, what the plan says, and what its file does."""
    budget = Budget("time", costs.sixteen / speedup, f"--speedup {speedup:g}", costs.beside_sixteen())
    try:
        with tempfile.TemporaryDirectory() as scratch:
            budget = corrected(Path(scratch), job, budget, scores)
    except Infeasible as refused:
        return f"| {speedup:g} | refused | | | | {refused} |"
    plan = make_plan(scores, find_target(job.target), budget, solver=job.solver)
    types = types_by_tensor(fitting_twin(args.model), costs, plan["schemes"])
    value, (low, high) = beside(args.model, types, "", costs.threads, args.rounds, costs.sixteen_type)
    assert types is not None
    kinds: dict[str, int] = {}
    for kind in types.values():
        kinds[kind] = kinds.get(kind, 0) + 1
    said = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    planned = costs.sixteen / plan["time"]["predicted"]
    off = f"{100 * (value / speedup - 1):+.0f} %"
    return f"| {speedup:g} | {planned:.2f} | {value:.2f} | {low:.2f} to {high:.2f} | {off} | {said} |"


def made_up(bare: dict[str, Any], seed: int) -> dict[str, Any]:
    """Scores whose losses fall fourfold a bit and differ by part."""
    chance = random.Random(seed)
    for part in bare["parts"]:
        worth = math.exp(chance.gauss(0, 1)) * math.prod(part["shape"]) / 1e6
        for name, entry in part["schemes"].items():
            entry["kl"] = worth * 4.0 ** -parse_scheme(name).bits
    return {"model": {"name": "twin", "sha256": None}, "text": None, **bare}


if __name__ == "__main__":
    main()
