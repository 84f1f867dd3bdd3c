"""Curation: documents in, those that stay out, in one pass over what is given and a few over what is left.

While documents are read: personal data masked, the language told, leaks found. Then copies, near duplicates, the band
of perplexity, quotas, weights. What was removed for which reason is counted; no report shows a text.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whet.curation.duplicates import BANDS, near_duplicates, signatures
from whet.curation.languages import UNKNOWN, Languages
from whet.curation.models import MODELS, Judges, hardest, outside
from whet.curation.overlap import Evaluation
from whet.curation.private import redacted
from whet.curation.quotas import over_quota
from whet.curation.store import REASONS, Store
from whet.curation.units import units_of
from whet.errors import UsageError
from whet.events import OnEvent, Part, Stage, Way, note_event
from whet.messages import Message, listed

READ, NEAR, WRITE = "reading documents", "near duplicates", "writing documents"
_AT_ONCE = 1 << 20  # letters of documents that are looked at together
_TOLD = {
    "exact duplicate": Message("copies of others"),
    "language": Message("in another language"),
    "too short": Message("too short"),
    "too long": Message("too long"),
    "leak": Message("with text of evaluation"),
    "near duplicate": Message("much like others"),
    "perplexity too low": Message("of too low a perplexity"),
    "perplexity too high": Message("of too high a perplexity"),
    "quota": Message("over the quota"),
}
_BLIND = Message(
    "languages that share a script, as those in Latin letters do, are not told apart without py3langid: "
    'pip install "whet[curate]"'
)


@dataclass(frozen=True)
class Wanted:
    """What stays. Lengths are in letters; `band` are quantiles of perplexity by language; of the documents where the
    models differ most the share `hard` weighs `weight`."""

    languages: tuple[str, ...] = ()
    quota: dict[str, float] = field(default_factory=dict)
    shortest: int | None = None
    longest: int | None = None
    band: tuple[float, float] | None = None
    hard: float | None = None
    weight: float = 2.0
    redact: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Input:
    """Documents with the file each is from; `bytes` of them, 0 where that is not known. fixed: nothing but a leak
    removes them."""

    name: str
    documents: Iterable[tuple[str, str]]
    bytes: int = 0
    fixed: bool = False


@dataclass
class Curated:
    """Documents that were judged: which stay, with which weight, and what was found on the way."""

    store: Store
    weights: NDArray[np.float32]
    like: dict[int, int]  # of a near duplicate the document that it is like
    inputs: list[dict[str, object]]
    leaks: Counter[int]  # documents by the source of the evaluation text in them
    touching: int  # documents that share a run with one and stay
    private: Counter[str]  # in documents that stay, by kind
    perplexity: NDArray[np.float32] | None = None


def curate(
    inputs: list[Input],
    evaluation: Evaluation,
    wanted: Wanted,
    judges: Judges | None,
    work: Path,
    on_event: OnEvent,
) -> Curated:
    """Judge all documents. work: a folder for what is looked up on the way. Raises UsageError where nothing stays."""
    size = 1e-6 * max(1, sum(one.bytes for one in inputs))
    parts = [Part(READ, size), Part(NEAR, 0.5 * size), Part(WRITE, 0.1 * size)]
    if judges is not None:
        parts.insert(2, Part(MODELS, 20 * size))
    way = Way(on_event, parts, timed=False)
    reading = _Reading(Store(work / "documents"), evaluation, wanted, Languages(wanted.languages))
    about = reading.read(inputs, way)
    store = reading.store
    if reading.languages.blind and not wanted.languages:
        on_event(note_event(_BLIND))
    store.mark(store.copies(), "exact duplicate")
    store.mark(_numbers(reading.other), "language")
    if wanted.shortest is not None:
        store.mark(np.flatnonzero(store.sizes < wanted.shortest), "too short")
    if wanted.longest is not None:
        store.mark(np.flatnonzero(store.sizes > wanted.longest), "too long")
    store.mark(_numbers(reading.leaking), "leak")
    like = _near(store, wanted.seed, work, way)
    store.mark(_numbers(like), "near duplicate")
    likely, apart = (None, None) if judges is None else judges.read(store, way)
    if wanted.band is not None and likely is not None:
        low, high = outside(store, likely, wanted.band)
        store.mark(low, "perplexity too low")
        store.mark(high, "perplexity too high")
    _must_leave(store)
    weights = np.ones(len(store), np.float32)
    if wanted.quota:
        store.mark(over_quota(store, wanted.quota, wanted.seed, None if wanted.hard is None else apart), "quota")
    if wanted.hard is not None and apart is not None:
        weights[hardest(store, apart, wanted.hard)] = wanted.weight
    _must_leave(store)
    staying = {*store.staying.tolist()}
    private = Counter[str]()
    for number, counts in reading.private.items():
        if number in staying:
            private.update(counts)
    leaks = Counter(source for number, source in reading.leaking.items() if store.why[number])
    return Curated(store, weights, like, about, leaks, len(staying & reading.touching), private, likely)


@dataclass
class _Reading:
    """One pass over what is given."""

    store: Store
    evaluation: Evaluation
    wanted: Wanted
    languages: Languages
    other: set[int] = field(default_factory=set)  # documents of a language that was not asked for
    leaking: dict[int, int] = field(default_factory=dict)  # with the source of what is in them
    touching: set[int] = field(default_factory=set)
    private: dict[int, dict[str, int]] = field(default_factory=dict)

    def read(self, inputs: list[Input], on_event: OnEvent) -> list[dict[str, object]]:
        """All documents; what is to be told of each input."""
        self._any = Languages()
        stage = Stage(on_event, READ, 1 + sum(one.bytes for one in inputs) // 1024)
        about, bytes_read = [], 0
        for one in inputs:
            digest, before = hashlib.sha256(), len(self.store)
            for batch in _batches(one.documents):
                for text, _ in batch:
                    data = text.encode("utf-8", "surrogatepass")
                    digest.update(len(data).to_bytes(8, "little") + data)
                    bytes_read += len(data)
                self._take(batch, one.fixed)
                stage.reach(min(bytes_read // 1024, stage.of - 1))
            about.append({"name": one.name, "documents": len(self.store) - before, "sha256": digest.hexdigest()})
        stage.reach(stage.of)
        return about

    def _take(self, batch: list[tuple[str, str]], fixed: bool) -> None:
        first = len(self.store)
        shared = self.evaluation.shared(units_of([text for text, _ in batch])) if self.evaluation.sources else None
        for place, (text, file) in enumerate(batch):
            number = first + place
            masked, counts = redacted(text)
            if counts:
                self.private[number] = counts
            text = masked if self.wanted.redact else text
            language = self.languages.of(text)
            if language is None:
                self.other.add(number)
                language = self._any.of(text) or UNKNOWN
            self.store.add(text, file, language, fixed)
            if shared is not None and shared.source[place] >= 0:
                self.leaking[number] = int(shared.source[place])
            elif shared is not None and shared.touches[place]:
                self.touching.add(number)


def _batches(documents: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    letters = 0
    for text, file in documents:
        batch.append((text, file))
        letters += len(text)
        if letters >= _AT_ONCE:
            yield batch
            batch, letters = [], 0
    if batch:
        yield batch


def _near(store: Store, seed: int, work: Path, on_event: OnEvent) -> dict[int, int]:
    """Near duplicates among what stays, each with what it is like. Signatures lie on disk."""
    numbers = store.staying
    stage = Stage(on_event, NEAR, 2 * len(store) + 2)
    if not len(numbers):
        return {}
    keys = np.memmap(work / "signatures", np.uint64, "w+", shape=(len(store), BANDS))
    for some, texts in store.texts(numbers):
        keys[some] = signatures(texts, seed)
        stage.reach(int(some[-1]) + 1)
    stage.reach(len(store) + 1)
    fixed = store.fixed
    return near_duplicates(keys, numbers, store.text, lambda number: bool(fixed[number]), stage)


def _numbers(found: Iterable[int]) -> NDArray[np.int64]:
    return np.array(sorted(found), np.int64)


def _must_leave(store: Store) -> None:
    """Raises UsageError where nothing stays, with what took it."""
    if len(store.staying):
        return
    raise UsageError(
        "Nothing is left of {count} documents: {reasons}. Ask for less.",
        count=len(store),
        reasons=listed([Message("{count} {why}", count=count, why=_TOLD[reason]) for reason, count in removed(store)]),
    )


def removed(store: Store) -> list[tuple[str, int]]:
    """How many documents each reason took, in the order in which reasons are looked for."""
    counts = np.bincount(store.why, minlength=len(REASONS))
    return [(reason, int(counts[number])) for number, reason in enumerate(REASONS) if number and counts[number]]
