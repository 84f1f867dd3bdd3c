"""What the gateway costs, and what it survives: against engines without a model, in processes of their own.

Three parts. *overhead*: how much longer an answer takes than the engine itself, and requests a second. *chaos*: streams
while engines are killed, hang, drip and talk nonsense; every one must be whole, with no token twice. *memory*: of the
gateway, over many requests.

    python bench/gateway.py --streams 1000 --requests 5000
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]
STUB = ROOT / "tests" / "serving_stub.py"
SERVER = """
import json, pathlib, sys
from whet.serving import server
from whet.serving.process import ProcessEngine
from whet.serving.rules import Rules
from whet.serving.sides import Limits
stub, state, slots = sys.argv[1], sys.argv[2], int(sys.argv[3])
server.ProcessEngine = lambda opened: ProcessEngine(opened, [sys.executable, stub, opened.model])
limits = Limits(between_tokens=0.5, waiting=512)
serving = server.Serving("original", "lighter", pathlib.Path(state), port=0, limits=limits, slots=slots,
                         rules=Rules(hold=1e9), sample=0.01)
server.serve(serving, lambda event, values: print(json.dumps(values), flush=True))
"""
FAULTS = ("die", "nan", "garbage", "nonsense", "drip", "hang")


class Server:
    """A gateway in a process of its own."""

    def __init__(self, state: Path, slots: int = 64) -> None:
        command = [sys.executable, "-c", SERVER, str(STUB), str(state), str(slots)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = json.loads(self.process.stdout.readline())["url"]
        self.key = (state / "admin.key").read_text().strip()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def act(self, action: str) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        httpx.post(f"{self.url}/admin/rollout/{action}", headers=headers, trust_env=False).raise_for_status()

    @property
    def seconds(self) -> float:
        """Of the processor, used so far by the gateway alone; says more than a clock on a machine that others use."""
        found = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(found[11]) + int(found[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory(self) -> int:
        """Bytes resident."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * 4096


async def overhead(server: Server, count: int, together: int) -> None:
    """Time of short answers one after the other, and how many a second where several come together."""
    body = {"prompt": "calm", "max_tokens": 1, "seed": 0}
    limits = httpx.Limits(max_connections=together)
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60, limits=limits) as client:

        async def one() -> float:
            began = time.perf_counter()
            (await client.post("/v1/completions", json=body)).raise_for_status()
            return time.perf_counter() - began

        async def health() -> float:
            began = time.perf_counter()
            (await client.get("/health")).raise_for_status()
            return time.perf_counter() - began

        await asyncio.gather(*(one() for _ in range(50)))
        bare = [await health() for _ in range(300)]
        alone = [await one() for _ in range(300)]
        print(f"an answer of one token: {1000 * statistics.median(alone):.2f} ms (median of 300, the engine included);")
        print(f"a request that no engine sees: {1000 * statistics.median(bare):.2f} ms")
        before, used, began, left = server.memory, server.seconds, time.perf_counter(), count

        async def many() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await one()

        await asyncio.gather(*(many() for _ in range(together)))
        seconds = time.perf_counter() - began
        each = 1000 * (server.seconds - used) / count
        print(f"time of the processor that the gateway uses for a request: {each:.2f} ms")
        print(f"{count / seconds:.0f} requests a second with {together} at once ({count} requests)")
        print(f"memory of the gateway: {before / 1e6:.1f} MB before, {server.memory / 1e6:.1f} MB after")


async def chaos(server: Server, count: int, together: int) -> None:
    """Streams of which a third meet a fault of the lighter engine at a random token."""
    from serving_stub import answer_to

    rng, left = random.Random(0), list(range(count))
    outcomes = {"whole": 0, "broken": 0}
    gone_over = 0
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=120) as client:

        async def one(number: int) -> None:
            nonlocal gone_over
            prompt = f"calm {number}"
            if number % 3 == 0:
                prompt = f"FAIL lighter {rng.choice(FAULTS)} {rng.randrange(100)} {number}"
            body = {"prompt": prompt, "max_tokens": 1000, "seed": number, "stream": True}
            answer = await client.post("/v1/completions", json=body)
            text, ends, done = "", 0, answer.text.count("[DONE]")
            for line in answer.text.splitlines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    for choice in event.get("choices", ()):
                        text += choice["text"]
                        ends += choice["finish_reason"] is not None
                    gone_over += len(event.get("whet", {}).get("served_by", ())) > 1
            right = answer_to(prompt.encode(), number).decode()
            outcomes["whole" if (text, ends, done) == (right, 1, 1) else "broken"] += 1

        async def many() -> None:
            while left:
                await one(left.pop())

        await asyncio.gather(*(many() for _ in range(together)))
    print(
        f"{count} streams: {outcomes['whole']} whole, {outcomes['broken']} broken; {gone_over} went over in the middle"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--together", type=int, default=16)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as state, Server(Path(state)) as server:
        asyncio.run(overhead(server, asked.requests, asked.together))
    with tempfile.TemporaryDirectory() as state, Server(Path(state)) as server:
        asyncio.run(chaos_with_weight(server, asked.streams, asked.together))


async def chaos_with_weight(server: Server, count: int, together: int) -> None:
    """`chaos`, with the lighter model put back to half of the users as often as the faults stop it."""

    async def again() -> None:
        while True:
            for action in ("resume", *["promote"] * 4):
                await asyncio.to_thread(_quietly, server, action)
            await asyncio.sleep(0.5)

    keeper = asyncio.create_task(again())
    try:
        await chaos(server, count, together)
    finally:
        keeper.cancel()


def _quietly(server: Server, action: str) -> None:
    with contextlib.suppress(httpx.HTTPError):  # it does not apply just now
        server.act(action)


if __name__ == "__main__":
    main()
