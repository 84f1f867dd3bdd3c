"""A worker without a model, for processes that are killed: answers by the rule of `gateways.answer_to`, and fails where
the prompt says so: `FAIL lighter die 5` has the process named lighter end itself after five tokens."""

from __future__ import annotations

import json
import os
import sys
import time

from whet.serving.worker import Words, serve


class Letters:
    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")


def answer_to(prompt: bytes, seed: int) -> bytes:
    words = ["가나다", "ab", "é", "😀", "the", "END", "마바"]
    return " ".join(words[(sum(prompt) + seed + i * i) % len(words)] for i in range(30)).encode()


class Stub:
    """Has what `serve` asks of a worker; a token of every open answer in each turn."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: list[dict] = []
        self.open: dict[str, dict] = {}

    def say(self, line: dict) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def take(self, line: dict) -> None:
        if line["op"] == "cancel":
            self.open.pop(line["id"], None)
        elif line["op"] == "score":
            count = len(line["ids"]) - line["start"]
            self.say({"id": line["id"], "chosen": [7] * count, "logprobs": [-1.0] * count})
        else:
            prompt = line["prompt"]
            ids = list(prompt.encode()) if isinstance(prompt, str) else prompt
            self.say({"id": line["id"], "prompt": ids})
            words = Words(Letters(), ids)
            for token in line["sent"]:
                words.add(token)
            whole = answer_to(bytes(ids), line["seed"])
            self.open[line["id"]] = {
                "words": words,
                "at": len(line["sent"]),
                "begun": len(line["sent"]) and len(line["sent"]) + 1,
                "answer": whole[: line["tokens"]],
                "fault": self.fault(bytes(ids)),
                "end": "length" if line["tokens"] < len(whole) else "stop",
            }

    def fault(self, prompt: bytes) -> tuple[str, int]:
        words = prompt.decode(errors="replace").split()
        if "FAIL" in words:
            who, what, at = words[words.index("FAIL") + 1 :][:3]
            return (what, int(at)) if who == self.name else ("", -1)
        return "", -1

    def turn(self) -> None:
        for name, one in list(self.open.items()):
            # who goes on from there does not fail there again
            if one["at"] == one["fault"][1] and one["at"] >= one["begun"] and self.fail(name, one["fault"][0]):
                continue
            if one["at"] >= len(one["answer"]):
                del self.open[name]
                self.say({"id": name, "end": one["end"], "text": one["words"].rest()})
                continue
            token = one["answer"][one["at"]]
            one["at"] += 1
            self.say({"id": name, "token": token, "text": one["words"].add(token)})

    def fail(self, name: str, what: str) -> bool:
        if what == "die":
            os.kill(os.getpid(), 9)
        elif what == "hang":
            time.sleep(3600)
        elif what == "nan":
            del self.open[name]
            self.say({"id": name, "fault": "not finite"})
            return True
        elif what == "garbage":
            sys.stdout.write('{"id": "' + name + '", "token": "x", "te\n')
            sys.stdout.flush()
        elif what == "nonsense":
            del self.open[name]
            self.say({"id": name, "token": None})
            return True
        elif what == "drip":
            time.sleep(0.02)
        return False


if __name__ == "__main__":
    stub = Stub(sys.argv[1])
    stub.say({"ready": True, "context": 4096})
    serve(stub, sys.stdin)
