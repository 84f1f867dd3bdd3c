"""The damage suite of `tests/measure/test_damage.py` through a roll-out: where each kind is stopped.

The embedded model is the original; each damaged copy is served as its lighter model by a real gateway, in this process:
what it is served with is compared first, then users' requests come (the held-out text of the embedded model, its first
half as the prompt, temperature 1, 40 tokens) and questions are asked between them. Latency is left out, as the
original's answers are remembered from one kind to the next. At 5 % only every twentieth request of the original is
made, so that one of either side is seen at a time.

    python bench/damage_served.py --kinds zeroed
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import random
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "measure"), str(ROOT / "bench")]

import test_damage as suite  # noqa: E402

from rollout import Memory  # noqa: E402
from whet import starter  # noqa: E402
from whet.engines.stepping import stepper  # noqa: E402
from whet.engines.torch import open_model  # noqa: E402
from whet.measure.beside import told_of  # noqa: E402
from whet.measure.items import parse_item  # noqa: E402
from whet.serving.beside import apart  # noqa: E402
from whet.serving.gateway import Gateway  # noqa: E402
from whet.serving.jobs import Job, Piece, Scored  # noqa: E402
from whet.serving.keys import Keys, hashed  # noqa: E402
from whet.serving.process import piece_of  # noqa: E402
from whet.serving.replay import free_answers  # noqa: E402
from whet.serving.rollout import Controller, place  # noqa: E402
from whet.serving.rules import Rules  # noqa: E402
from whet.serving.sides import Limits, Pair, Side  # noqa: E402
from whet.serving.worker import Worker  # noqa: E402

MOST = 200  # requests of the lighter model at 5 %
TOKENS = 40


class Collected(Worker):
    """A worker whose lines are kept."""

    lines: list[dict[str, Any]]

    def say(self, *lines: dict[str, Any]) -> None:
        self.lines += lines


class Local:
    """Implements `jobs.Engine` with a worker in this process. known: answers and scores that were given before, by what
    was asked; None remembers nothing."""

    ready = True

    def __init__(self, folder: Path, known: dict[str, Any] | None) -> None:
        self.engine, self.known = open_model(folder), known
        self.worker = Collected(self.engine, stepper(self.engine, 4, 512), sys.stdout)
        self.worker.lines = []

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def give_up(self, seconds: float) -> None: ...

    async def wait(self, seconds: float) -> bool:
        return True

    def _run(self, line: dict[str, Any]) -> list[dict[str, Any]]:
        name = repr(line)
        if self.known is not None and name in self.known:
            return self.known[name]
        self.worker.lines = []
        self.worker.take({**line, "id": "1"})
        while self.worker.waiting or self.worker.open:
            self.worker.turn()
            if "\n" in "".join(told.get("text", "") for told in self.worker.lines) and line.get("temperature") == 0:
                self.worker.take({"op": "cancel", "id": "1"})
        if self.known is not None:
            self.known[name] = self.worker.lines
        return self.worker.lines

    async def ask(self, job: Job) -> AsyncGenerator[Piece, None]:
        fields = ("prompt", "chat", "sent", "tokens", "temperature", "top_p", "seed", "top", "doubt")
        for told in self._run({"op": "ask", **{name: copy.copy(getattr(job, name)) for name in fields}}):
            if "prompt" in told:
                job.prompt_ids, job.prompt_tokens = told["prompt"], len(told["prompt"])
            elif "reading" not in told:
                yield piece_of(told)

    async def score(self, ids: list[int], start: int) -> Scored:
        (told,) = self._run({"op": "score", "ids": ids, "start": start})
        return Scored(told["chosen"], told["logprobs"])


def rounded(model: Any) -> None:
    """What a lighter model may be: weights on 15 levels for each 32 of them."""
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "embed" not in name and "lm_head" not in name:
            groups = weight.reshape(-1, 32)
            step = groups.abs().amax(-1, keepdim=True).clamp_min(1e-9) / 7
            weight.copy_(((groups / step).round() * step).reshape(weight.shape))


async def served(original: Local, lighter: Local, items: list[Any], prompts: list[str]) -> str:
    """Where the roll-out of `lighter` ended, and why."""
    limits = Limits()
    pair = Pair(Side("original", original, 4, 64), Side("lighter", lighter, 4, 64), limits)
    skills = tuple(dict.fromkeys(item.skill for item in items))
    rules = Rules(hold=0.0)
    controller = Controller(
        rules, Memory(), "pair", "salt", time.monotonic, time.time, random.Random(0).random, 0.5, skills
    )
    controller.burn.add = lambda *_: None  # type: ignore[method-assign]
    gateway = Gateway("model", pair, controller, Keys(hashed("admin"), {}), questions=items)
    gateway.replay.rng = random.Random(0)
    gateway.quality.start()
    everybody = [f"u{number}" for number in range(40_000)]
    first = [user for user in everybody if place("salt", f"user {user}") < 500]  # who gets the lighter model at 5 %
    users = {"lighter": first, "original": [user for user in everybody if place("salt", f"user {user}") >= 5000]}
    transport = httpx.ASGITransport(gateway.app())
    sent = of_lighter = 0
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        while controller.state.status == "running" and controller.weight < 10 and of_lighter < MOST:
            for side in ("lighter", "original") if controller.weight else ("original",):
                body = {"prompt": prompts[sent % len(prompts)], "max_tokens": TOKENS, "seed": sent}
                (await client.post("/v1/completions", json=body, headers={"x-whet-user": users[side][sent]}))
                of_lighter += side == "lighter"
                sent += 1
            await gateway.quality.idle()
            for _ in range(2):
                if controller.state.status == "running":
                    await gateway.replay.ask()
            if sent % 10 == 0:
                controller.tick()
    await gateway.quality.stop()
    where = "Shadow" if not of_lighter else f"5 %, {of_lighter} requests"
    asked = sum(one["count"] for one in controller.report()["skills"])
    if controller.state.status == "running":
        return f"not stopped | {controller.mean[0]} | {asked} | {controller.mean[1] / max(1, controller.mean[0]):.3f} |"
    return f"{where} | {controller.mean[0]} | {asked} | {controller.state.reason} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="", help="only kinds whose name holds this; several with commas between")
    asked = parser.parse_args()
    torch.manual_seed(0)
    questions = [parse_item(item, "item") for item in starter.skills("report", per_skill=60)]
    items = free_answers(questions)
    prompts = [text[: len(text) // 2] for text in starter.held_out(seed=3, count=400) if len(text) > 60]
    original = Local(suite.STARTER, {})
    mine = told_of(suite.STARTER, original.engine)
    kinds = {"none: the same model": None, "none: rounded to 4 bits": suite.Damage("", rounded), **suite.DAMAGES}
    print("| damage | stopped | compared | questions | why |\n|---|---|---|---|---|", flush=True)
    for kind, damage in kinds.items():
        if not any(part in kind for part in asked.kinds.split(",")):
            continue
        with tempfile.TemporaryDirectory() as made:
            folder = suite.STARTER if damage is None else suite.made(damage, Path(made) / "lighter")
            lighter = Local(folder, None)
            found = apart(mine, told_of(folder, lighter.engine))
            if found:
                print(f"| {kind} | before the start | | | {', '.join(str(what) for what, *_ in found)} |", flush=True)
                continue
            print(f"| {kind} | {asyncio.run(served(original, lighter, items, prompts))}", flush=True)


if __name__ == "__main__":
    main()
