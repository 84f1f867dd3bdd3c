"""Roll-outs on a simulated clock: how often a model as good as the original is stopped, and how soon a worse one is.

Every run goes through the real controller (`whet.serving.rollout`): one request after the other, of random users, with
2 % errors on both sides unless the row says otherwise; 1 % of the answers of both refuse and 20 % are cut. Compared
requests agree as a model does that just keeps the agreement it must have (0.95, standard deviation 0.06 between
requests), and shares are apart as far as they may be. At every fourth request a question of one of eight skills is
asked, of which the model has lost just what it may (5 of 100). So each test is at the edge of its hypothesis.

    python bench/rollout.py --runs 10000
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from dataclasses import dataclass

from whet.serving.rollout import Controller, State
from whet.serving.rules import Rules

RULES = Rules(agreement=0.95)
SECONDS = 2.0  # between requests
MOST = 40_000  # requests in a run: about a day
SAMPLE = 0.1
SKILLS = tuple(f"skill {number}" for number in range(8))


@dataclass(frozen=True)
class Case:
    """A lighter model: its rate of errors (the original's is `errors`), its mean agreement, how slow it is, and
    what share of the questions of its worst skill it has lost; of the others it has lost what it may."""

    name: str
    lighter: float = 0.02
    agreement: float = 0.95
    slower: float = 1.0
    users: int = 10_000
    errors: float = 0.02
    lost: float = 0.05


CASES = (
    Case("the same (A/A)"),
    Case("the same, no errors at all", lighter=0.0, errors=0.0),
    Case("errors x 2", lighter=0.04),
    Case("errors x 3", lighter=0.06),
    Case("errors x 10", lighter=0.2),
    Case("agreement - 2 points", agreement=0.93),
    Case("agreement - 10 points", agreement=0.85),
    Case("3 times slower", slower=3.0),
    Case("a skill lost by half", lost=0.5),
    Case("a skill lost by a fifth", lost=0.2),
)


class Memory:
    """A store that forgets when the process ends."""

    def __init__(self) -> None:
        self.state: State | None = None

    def load(self) -> State | None:
        return self.state

    def save(self, state: State, event: str) -> None:
        self.state = state


@dataclass(frozen=True)
class Run:
    """How one ended. requests: of the lighter side before that; weight: the highest percent it was given."""

    stopped: bool
    requests: int
    weight: float
    finished: bool


def simulate(case: Case, seed: int, rules: Rules = RULES) -> Run:
    """One roll-out, until it is stopped or has spent its time at 100 %."""
    rng = random.Random(seed)
    now = [0.0]
    clock = lambda: now[0]  # noqa: E731
    controller = Controller(rules, Memory(), "pair", str(seed), clock, clock, rng.random, SAMPLE, SKILLS)
    alike = case.agreement * 15, (1 - case.agreement) * 15  # of a beta distribution with deviation about 0.055
    requests, weight, whole = 0, 0.0, 0
    for number in range(MOST):
        now[0] += SECONDS
        lighter = controller.lighter_serves(f"user {rng.randrange(case.users)}")
        requests += lighter
        slow = case.slower if lighter else 1.0
        times = 0.05 * slow * (1 + rng.expovariate(1.0)), 0.01 * slow * (1 + rng.random())
        error = rng.random() < (case.lighter if lighter else case.errors)
        odd, cut = rng.random() < 0.01, rng.random() < 0.2
        controller.served(lighter, error=error, times=times, odd=odd, cut=cut)
        if controller.compares():
            controller.compared(rng.betavariate(*alike), rng.betavariate(1, 9))
        if number % 4 == 0:
            ask(controller, case, number // 4, rng)
        if number % 20 == 0:
            controller.tick()
        weight = max(weight, controller.weight)
        if controller.state.status == "failed":
            return Run(True, requests, weight, False)
        whole += weight == 100
        if whole > rules.requests:
            return Run(False, requests, weight, True)
    return Run(False, requests, weight, False)


def ask(controller: Controller, case: Case, number: int, rng: random.Random) -> None:
    """A question, of which the original answers 80 of 100 rightly; what the lighter gains takes 2 of 100 back."""
    skill = SKILLS[number % len(SKILLS)]
    lost = (case.lost if skill == SKILLS[0] else 0.05) + 0.02
    right = rng.random() < 0.8
    controller.asked(skill, right, rng.random() >= lost / 0.8 if right else rng.random() < 0.02 / 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; each takes the next")
    parser.add_argument("--case", help="only cases whose name holds this")
    asked = parser.parse_args()
    print(f"{asked.runs} runs each; 2 % errors, 10 % of requests compared, agreement must be {RULES.agreement:g}\n")
    print("| the lighter model | stopped | its requests before (median, 95 %) | above 10 % | reached 100 % | s a run |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        if asked.case and asked.case not in case.name:
            continue
        started = time.perf_counter()
        runs = [simulate(case, seed) for seed in range(asked.seed, asked.seed + asked.runs)]
        seconds = (time.perf_counter() - started) / asked.runs
        until = sorted(run.requests for run in runs if run.stopped)
        told = f"{statistics.median(until):.0f}, {until[int(0.95 * len(until))]}" if until else "-"
        stopped, above, done = (
            100 * sum(found) / asked.runs
            for found in zip(*((run.stopped, run.weight > 10, run.finished) for run in runs), strict=True)
        )
        print(f"| {case.name} | {stopped:.2f} % | {told} | {above:.2f} % | {done:.1f} % | {seconds:.3f} |", flush=True)


if __name__ == "__main__":
    main()
