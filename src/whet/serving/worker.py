"""The process in which a model answers: jobs come in as lines of JSON and pieces of answers go out as such.

It ends when its input does. Nothing else is written to its output: file descriptor 1 is turned to stderr first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, TextIO

# How a message names the job, for every kind: {"id": ...}.
Line = dict[str, Any]
_BEFORE = 6  # tokens of the prompt that the first token of an answer is decoded with
_AT_ONCE = 256  # tokens of a prompt that are read before others get their next token
_SCORED = 128  # tokens of a text whose likelihoods are told from each other
_UNFINISHED = 8  # tokens that may wait for the rest of a letter; the longest letter has four bytes


class Words:
    """Text of an answer, token by token, without the halves of letters: a function of the token ids alone.

    So a process that is given the ids that another one sent knows what text they were.
    """

    def __init__(self, engine: Any, prompt: Sequence[int]) -> None:
        self._engine = engine
        self._ids = list(prompt[-_BEFORE:])
        self._from, self._read = 0, len(self._ids)

    def _new(self) -> str:
        before = self._engine.decode(self._ids[self._from : self._read])
        after = self._engine.decode(self._ids[self._from :])
        return after[len(before) :]

    def add(self, token: int) -> str:
        self._ids.append(token)
        new = self._new()
        if not new or (new.endswith("\ufffd") and len(self._ids) - self._read < _UNFINISHED):
            return ""
        self._from, self._read = self._read, len(self._ids)
        return new

    def rest(self) -> str:
        """What still waited for the rest of a letter."""
        return self._new()


class Writing:
    """One answer that is being written."""

    def __init__(self, told: Line, slot: int, prompt: list[int], most: int, words: Words) -> None:
        self.told, self.slot, self.most, self.words = told, slot, most, words
        self.made = list(told["sent"])
        self.doubts: Any = None  # `sampling.Doubt`, where the answer is given up when it grows too large
        self.unread = [*prompt, *self.made]


class Worker:
    """Answers jobs with one model, a token of each at a time; with `drafts`, those that it guesses at once.

    A draft draws its guesses as the model draws, from the same seed at the same place. So a guess is right where the
    model itself draws it, and every answer is the one it would be without a draft.
    """

    def __init__(self, engine: Any, stepper: Any, out: TextIO, drafts: Any = None) -> None:
        self.engine, self.stepper, self.out, self.drafts = engine, stepper, out, drafts
        self.waiting: deque[Line] = deque()
        self.open: dict[str, Writing] = {}
        self.ends = set(engine.ends)

    def say(self, *lines: Line) -> None:
        self.out.write("".join(json.dumps(line) + "\n" for line in lines))
        self.out.flush()

    def take(self, line: Line) -> None:
        if line["op"] == "cancel":
            self.waiting = deque(told for told in self.waiting if told["id"] != line["id"])
            self._end(line["id"])
        else:
            self.waiting.append(line)

    def _end(self, job: str) -> None:
        sequence = self.open.pop(job, None)
        if sequence is not None:
            self.stepper.end(sequence.slot)
            if self.drafts is not None:
                self.drafts.end(sequence.slot)
                self.say({"draft": {"proposed": self.drafts.pace.proposed, "kept": self.drafts.pace.kept}})

    def turn(self) -> None:
        """Begin what there is room for, then write a token of each answer."""
        free = sorted(set(range(self.stepper.slots)) - {sequence.slot for sequence in self.open.values()})
        while self.waiting and free:
            told = self.waiting.popleft()
            with self._told(told["id"]):
                if told["op"] == "score":
                    self._score(told)
                elif told["op"] == "surprise":
                    self._surprise(told)
                else:
                    self._begin(told, free[0])
                    free = free[1:] if told["id"] in self.open else free
        writing = [sequence for sequence in self.open.values() if not sequence.unread]
        for sequence in [sequence for sequence in self.open.values() if sequence.unread]:
            with self._told(sequence.told["id"]):
                self._read(sequence)
        for bits in {one.told.get("precision"): one for one in writing}:
            self._write([one for one in writing if one.told.get("precision") == bits])

    def _use(self, told: Line) -> None:
        """Compute with the bits that a job asks for, where the model has several."""
        if told.get("precision") is not None:
            self.engine.use(told["precision"])

    def _read(self, sequence: Writing) -> None:
        """Read a part of a prompt, so that others need not wait for all of it; and say so, as a sign of life."""
        self._use(sequence.told)
        part, sequence.unread = sequence.unread[:_AT_ONCE], sequence.unread[_AT_ONCE:]
        logits = self.stepper.read(sequence.slot, part)
        if self.drafts is not None:
            self._drafting(lambda: self.drafts.read(sequence.slot, part))
        if sequence.unread:
            self.say({"reading": len(sequence.unread)})
        else:
            self._next(sequence, logits)

    def _write(self, writing: list[Writing]) -> None:
        self._use(writing[0].told)
        guesses = self._guesses(writing) if self.drafts is not None else {}
        fed = [(one.slot, [one.made[-1], *guesses.get(one.slot, ())]) for one in writing]
        before = {one.slot: self.stepper.lengths[one.slot] for one in writing} if guesses else {}
        began = time.perf_counter()
        try:
            logits = self.stepper.step(fed)
        except Exception as error:
            for sequence in writing:
                self._end(sequence.told["id"])
                self.say({"id": sequence.told["id"], "fault": "died", "details": str(error)[:300]})
            return
        if self.drafts is not None:
            self.drafts.pace.reads.add(sum(len(ids) for _, ids in fed), time.perf_counter() - began)
        for sequence, rows in zip(writing, logits, strict=True):
            with self._told(sequence.told["id"]):
                guess = guesses.get(sequence.slot, [])
                kept = self._keep(sequence, rows, guess)
                if guess:
                    self.drafts.pace.add(len(guess), kept)
                    if sequence.told["id"] in self.open:
                        self.stepper.crop(sequence.slot, before[sequence.slot] + 1 + kept)

    def _keep(self, sequence: Writing, rows: Any, guess: list[int]) -> int:
        """Send what is drawn after each guess, as long as the guesses are right; how many were."""
        for at, row in enumerate(rows):
            token = self._next(sequence, row)
            if token is None or at == len(guess) or token != guess[at]:
                return at
        return len(guess)

    def _guesses(self, writing: list[Writing]) -> dict[int, list[int]]:
        """By slot, what the draft would write next."""
        from whet.engines.sampling import draw

        by_slot = {sequence.slot: sequence for sequence in writing}
        room = min(
            min(one.most - len(one.made), self.stepper.context - self.stepper.lengths[one.slot]) for one in writing
        )
        length = min(self.drafts.pace.choose(len(writing)), room - 1)

        def pick(slot: int, number: int, logits: Any) -> int:
            told = by_slot[slot].told
            position = len(by_slot[slot].made) + number
            return draw(logits, told["temperature"], told["top_p"], told["seed"], position)

        if length < 1:
            return {}
        began = time.perf_counter()
        made = self._drafting(lambda: self.drafts.guess(list(by_slot), length, pick)) or {}
        if made and self.drafts is not None:
            self.drafts.pace.drafts.add(len(made), (time.perf_counter() - began) / max(map(len, made.values())))
        return made

    def _drafting(self, work: Any) -> Any:
        """What `work` gives. A draft that fails is done without from then on: no answer depends on it."""
        try:
            return work()
        except Exception as error:
            self.drafts = None
            self.say({"draft": {"failed": f"{type(error).__name__}: {error}"[:300]}})
            return None

    @contextlib.contextmanager
    def _told(self, job: str) -> Any:
        """Errors of one job end that job."""
        from whet.errors import UsageError

        try:
            yield
        except UsageError as error:
            self._end(job)
            # where the model lies is nothing that clients are told
            self.say({"id": job, "wrong": str(error).replace(str(self.engine.folder), "the model")})
        except Exception as error:
            self._end(job)
            self.say({"id": job, "fault": "died", "details": f"{type(error).__name__}: {error}"[:300]})

    def _ids(self, told: Line) -> list[int]:
        prompt = told["prompt"]
        if isinstance(prompt, str):
            return self.engine.encode(prompt)
        return self.engine.encode_chat(prompt) if told["chat"] else list(prompt)

    def _begin(self, told: Line, slot: int) -> None:
        from whet.engines.sampling import Doubt
        from whet.errors import UsageError

        prompt = self._ids(told)
        room = self.stepper.context - len(prompt)
        if not prompt or room < 1 or not all(0 <= token < self.engine.vocabulary for token in prompt):
            raise UsageError(
                "The prompt has {count} tokens; the model takes from 1 to {most}, and none outside its vocabulary.",
                count=len(prompt),
                most=self.stepper.context - 1,
            )
        self.say({"id": told["id"], "prompt": prompt})
        most = min(told["tokens"] or room, room)
        words = Words(self.engine, prompt)
        for token in told["sent"]:
            words.add(token)
        if len(told["sent"]) >= most:  # whoever wrote it so far did not get to say that this was the end
            self.say({"id": told["id"], "end": "length", "text": words.rest()})
            return
        self.open[told["id"]] = writing = Writing(told, slot, prompt, most, words)
        if told.get("doubt") is not None:
            writing.doubts = Doubt()

    def _next(self, sequence: Writing, logits: Any) -> int | None:
        """Draw a token and send it; None at the end, which is sent too."""
        from whet.engines.sampling import draw

        told = sequence.told
        job = told["id"]
        if not bool(logits.isfinite().all()):
            self._end(job)
            self.say({"id": job, "fault": "not finite"})
            return None
        if sequence.doubts is not None and sequence.doubts.add(logits) > told["doubt"]:
            self._end(job)
            self.say({"id": job, "unsure": True})
            return None
        token = draw(logits, told["temperature"], told["top_p"], told["seed"], len(sequence.made))
        if token in self.ends:
            self._end(job)
            self.say({"id": job, "end": "stop", "text": sequence.words.rest()})
            return None
        sequence.made.append(token)
        line: Line = {"id": job, "token": token, "text": sequence.words.add(token)}
        if told["top"] is not None:
            line |= self._logprobs(logits, token, told["top"])
        lines = [line]
        if len(sequence.made) >= sequence.most:
            self._end(job)
            lines.append({"id": job, "end": "length", "text": sequence.words.rest()})
        self.say(*lines)
        if job not in self.open:
            return None
        if self.drafts is not None:
            self.drafts.add(sequence.slot, [token])
        return token

    def _logprobs(self, logits: Any, token: int, top: int) -> Line:
        shares = logits.double().log_softmax(-1)
        values, ids = shares.topk(top) if top else ([], [])
        return {
            "name": self.engine.decode([token]),
            "logprob": float(shares[token]),
            "top": [[self.engine.decode([int(i)]), float(v)] for v, i in zip(values, ids, strict=True)],
        }

    def _score(self, told: Line) -> None:
        self._use(told)
        ids, start = told["ids"], told["start"]
        logits = self.stepper.score(ids, start).double()
        if not bool(logits.isfinite().all()):
            self.say({"id": told["id"], "fault": "not finite"})
            return
        shares = logits.log_softmax(-1)
        own = [float(row[token]) for row, token in zip(shares, ids[start:], strict=True)]
        self.say({"id": told["id"], "chosen": logits.argmax(-1).tolist(), "logprobs": own})

    def _surprise(self, told: Line) -> None:
        self.say({"id": told["id"], "pieces": surprises(self.engine, self.stepper, told["text"])})


def surprises(engine: Any, stepper: Any, text: str) -> list[tuple[str, float]]:
    """The pieces of a text, with the nats by which each token surprised after those before it; the first of each part
    has none, and did by nothing."""
    ids, words = engine.encode(text), Words(engine, [])
    nats: list[float] = []
    size = min(_SCORED, stepper.context)
    for first in range(0, len(ids), size):
        part = ids[first : first + size]
        nats.append(0.0)
        if part[1:]:
            shares = stepper.score(part, 1).double().log_softmax(-1)
            nats += [-float(row[token]) for row, token in zip(shares, part[1:], strict=True)]
    return [*((words.add(token), value) for token, value in zip(ids, nats, strict=True)), (words.rest(), 0.0)]


def serve(worker: Any, lines: TextIO) -> None:
    """Until the input ends."""
    came: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in lines:
            came.put(line)
        came.put("")

    threading.Thread(target=listen, daemon=True).start()
    while True:
        busy = bool(worker.waiting or worker.open)
        try:
            while True:
                line = came.get(block=not busy)
                if not line:
                    return
                worker.take(json.loads(line))
                busy = True
        except queue.Empty:
            pass
        worker.turn()


def opened(asked: Line) -> tuple[Any, Any, Any, Line]:
    """The engine that `main` was told of, its stepper, the drafter if there is one, and what was measured of it."""
    from whet.checkpoint.code import trust_remote_code
    from whet.checkpoint.model_files import is_finished, model_file
    from whet.engines.drafted import measure, steppers
    from whet.engines.opening import open_engine
    from whet.engines.packed import packing_of
    from whet.engines.stepping import stepper

    if asked["trusted"] is not None:
        trust_remote_code(asked["trusted"])

    def one(model: Any, fast: bool = False) -> Any:
        model = model_file(model)
        device = "cpu" if is_finished(model) else asked["device"]
        packing = packing_of(fast and not is_finished(model), packed=False)
        made: Any = open_engine(model, device, asked["dtype"], asked["threads"], packing)
        for bits in reversed(asked.get("precisions", ()) if fast else ()):  # packed now, so that no answer waits for it
            made.use(bits)
        return made

    engine, ready = one(asked["model"], asked["fast"]), {}
    if asked["draft"] is None:
        steps, drafts = stepper(engine, asked["slots"], asked["most"]), None
    else:
        steps, drafts = steppers(engine, one(asked["draft"]), asked["slots"], asked["most"])
        if asked["measure"]:
            began = time.monotonic()
            ready = {"faster": vars(measure(engine, steps, drafts)), "measuring": time.monotonic() - began}
    return engine, steps, drafts, ready


def main() -> None:
    """`sys.argv[1]`: the fields of `whet.serving.process.Opened`."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from whet.errors import WhetError
    from whet.messages import to_json

    try:
        engine, steps, drafts, ready = opened(json.loads(sys.argv[1]))
    except (WhetError, OSError, RuntimeError) as error:
        message = error.message if isinstance(error, WhetError) else f"{type(error).__name__}: {error}"
        out.write(json.dumps({"refused": to_json(message)}) + "\n")
        out.flush()
        return
    from whet.measure.beside import told_of

    worker, beside = Worker(engine, steps, out, drafts), told_of(engine.folder, engine)
    tokens = hashlib.sha256(repr(sorted(engine.tokenizer.get_vocab().items())).encode()).hexdigest()
    worker.say({"ready": True, "context": steps.context, "tokens": tokens, "beside": beside, **ready})
    serve(worker, sys.stdin)
