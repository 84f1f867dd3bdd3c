"""Texts that both models write freely after the same prompts: how alike they are, and what got lost in writing.

A small difference at one token leads to another text, so figures on given text say little of what is read in the end:
loops, answers in another language, letters that are no UTF-8, texts that do not end. Each prompt is continued greedily
and once by sampling at temperature 1, with the same seed for both; a prompt's two texts count as one cluster.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whet.checkpoint import rows_between
from whet.engines import Engine
from whet.errors import UsageError
from whet.events import OnEvent, Stage
from whet.measure.aspects.aspect import Aspect, Case, Example, Reading, Sides, found, predicts
from whet.measure.changes import jackknife
from whet.measure.records import Material
from whet.measure.statistics import clustered_mean
from whet.measure.writing import BROKEN, bleu, bleu_counts, chrf, distinct, repetition, same_until, whole_letters
from whet.messages import Message
from whet.strict import parse_json
from whet.text.scripts import main_script

PROMPTS, NEW_TOKENS = 64, 48
OPENINGS = 16, 8, 4  # tokens of a document that are a prompt: the first that are at most half of it; few lengths, as
# prompts of one length are answered together
SHOWN = 5  # examples
_FEWEST = 8  # letters of a text whose script says something


@dataclass(frozen=True)
class Written:
    """One text: its tokens, what they say, and whether it ended by itself."""

    tokens: list[int]
    text: str
    ended: bool


def read_prompts(source: Material) -> list[str]:
    """Prompts of a file: a line each, or of a .jsonl what `prompt` has; or of such records. Raises UsageError for what
    is none."""
    if isinstance(source, str | Path):
        path, found = Path(source), list[str]()
        try:
            lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError("{path}: the prompts cannot be read ({error}).", path=path, error=str(error)) from error
        for number, line in enumerate(lines, 1):
            found.append(_prompt_of(_parsed(line, number, path), number, path) if path.suffix == ".jsonl" else line)
    else:
        found = [_prompt_of(record, number, Message("the list")) for number, record in enumerate(source, 1)]
    prompts = list(dict.fromkeys(found))
    if len(prompts) < 2:
        raise UsageError(
            "{path} has fewer than two prompts. Give one a line.",
            path=source if isinstance(source, str | Path) else Message("the list"),
        )
    return prompts


def _parsed(line: str, number: int, path: Path) -> Any:
    try:
        return parse_json(line)
    except json.JSONDecodeError as error:
        raise UsageError(
            "{path}, prompt {line}: no JSON ({error}).", path=path, line=number, error=error.msg
        ) from error


def _prompt_of(record: Any, number: int, path: str | Path) -> str:
    prompt = record.get("prompt") if isinstance(record, Mapping) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError("{path}, prompt {line}: there is no text under `prompt`.", path=path, line=number)
    return prompt


def openings(documents: Sequence[str], tokenizer: Any) -> list[str]:
    """How documents begin: 16, 8 or 4 tokens of each, no opening twice."""
    made: dict[str, None] = {}
    for text in dict.fromkeys(documents):
        ids = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        size = next((size for size in OPENINGS if 2 * size <= len(ids)), 0)
        opening = whole_letters(str(tokenizer.decode(ids[:size]))) if hasattr(tokenizer, "decode") else text[: 4 * size]
        if opening.strip() and text.startswith(opening):
            made[opening.rstrip()] = None
        if len(made) == PROMPTS:
            break
    return list(made)


def write(engine: Engine, prompts: Sequence[str], *, chat: bool, temperature: float, seed: int) -> list[Written]:
    """What a model writes after each prompt, of at most 48 tokens."""
    ids = [engine.encode(prompt, chat=chat) for prompt in prompts]
    room = NEW_TOKENS if engine.context is None else min(NEW_TOKENS, engine.context - max(map(len, ids)))
    if room < 1:
        raise UsageError("A prompt leaves no room in the context of {folder}. Shorten it.", folder=engine.folder)
    answers = engine.continue_ids(ids, room, temperature=temperature, seed=seed)
    texts = []
    for prompt, answer in zip(ids, answers, strict=True):
        # decoded with the prompt, whose last letter it may complete
        before, whole = engine.decode(prompt), engine.decode([*prompt, *answer])
        text = whole[len(before) :] if whole.startswith(before) else engine.decode(answer)
        texts.append(Written(list(answer), whole_letters(text), len(answer) < room))
    return texts


@dataclass(frozen=True)
class Pairs:
    """What both wrote, greedy texts before sampled ones; prompts: of each text its prompt's number."""

    original: list[Written]
    lighter: list[Written]
    prompts: list[int]
    greedy: int

    def changed(self, figure: str, of: Callable[[Written], bool]) -> Reading:
        """The change of the share of texts of which `of` holds."""
        before, after = ([of(one) for one in side] for side in (self.original, self.lighter))
        return Reading.changed(figure, before, after, self.prompts)

    def moved(self, figure: str, of: Callable[[Written], float]) -> Reading:
        """The change of the mean of `of`."""
        first, second = (np.array([of(one) for one in side]) for side in (self.original, self.lighter))
        change = clustered_mean(second - first, self.prompts)
        return Reading.estimated(figure, change, original=float(first.mean()), lighter=float(second.mean()))


def _languages(pairs: Pairs, prompts: Sequence[str]) -> list[Reading]:
    """By script of the prompts, the change of the share of texts that are in no other one; of texts without letters
    nothing tells another."""
    scripts = [main_script(prompts[number]) for number in pairs.prompts]
    readings = []
    for script in sorted({script for script in scripts if script}):
        mine = [
            i
            for i, one in enumerate(scripts)
            if one == script and all(len(side[i].text) >= _FEWEST for side in (pairs.original, pairs.lighter))
        ]
        if len({pairs.prompts[i] for i in mine}) < 2:
            continue
        kept = [[main_script(side[i].text) in (script, "") for i in mine] for side in (pairs.original, pairs.lighter)]
        places = [pairs.prompts[i] for i in mine]
        readings.append(Reading.changed("language", kept[0], kept[1], places, of=script.lower()))
    return readings


def _alike(pairs: Pairs, rows: Sequence[int] | None) -> list[Reading]:
    """How alike the greedy texts are."""
    both = list(zip(pairs.original, pairs.lighter, strict=True))[: pairs.greedy]
    alike = [chrf(second.text, first.text) for first, second in both]
    until = [same_until(first.tokens, _numbered(second.tokens, rows)) for first, second in both]
    clusters = pairs.prompts[: pairs.greedy]
    counts = np.stack([bleu_counts(second.text, first.text) for first, second in both])
    return [
        Reading.estimated("bleu", jackknife(lambda places: bleu(counts[places].sum(0)), clusters)),
        Reading.estimated("chrf", clustered_mean(alike, clusters)),
        Reading.estimated("same_until", clustered_mean(until, clusters)),
    ]


def _numbered(tokens: Sequence[int], rows: Sequence[int] | None) -> list[int]:
    return [rows[one] if rows is not None and one < len(rows) else one for one in tokens]


def _examples(pairs: Pairs, prompts: Sequence[str]) -> list[Example]:
    """The greedy texts that are least alike."""
    both = list(zip(prompts, pairs.original, pairs.lighter, strict=False))
    ranked = sorted((chrf(second.text, first.text), i) for i, (_, first, second) in enumerate(both))
    return [
        Example(Message("chrF {share:.2f}", share=share), both[i][0], both[i][1].text, both[i][2].text)
        for share, i in ranked[:SHOWN]
        if share < 1
    ]


def _specials(tokenizer: Any, ends: set[int]) -> set[int]:
    return set(getattr(tokenizer, "all_special_ids", ())) - ends


def _measure(case: Case, sides: Sides, on_event: OnEvent) -> dict[str, Any]:
    given, engines = case.given, (sides.original, sides.lighter)
    prompts = read_prompts(case.file)[:PROMPTS] if case.file else openings(given.documents, sides.original.tokenizer)
    written: list[list[Written]] = [[], []]
    stage = Stage(on_event, "generation", 4)
    for temperature in (0.0, 1.0):
        for place, engine in enumerate(engines):
            written[place] += write(
                engine, prompts, chat=case.asked.chat, temperature=temperature, seed=case.asked.seed
            )
            stage.step()
    numbers = [*range(len(prompts)), *range(len(prompts))]
    pairs = Pairs(written[0], written[1], numbers, len(prompts))
    specials = [_specials(engine.tokenizer, engine.ends) for engine in engines]
    marked = [[bool(specials[side] & set(one.tokens)) for one in written[side]] for side in (0, 1)]
    readings = [
        *_alike(pairs, rows_between(case.asked.original, case.asked.lighter)),
        pairs.moved("repetition", lambda one: repetition(one.tokens)),
        pairs.moved("distinct", lambda one: distinct(one.tokens)),
        pairs.moved("length", lambda one: len(one.tokens) / NEW_TOKENS),
        pairs.changed("ends", lambda one: one.ended),
        pairs.changed("broken", lambda one: BROKEN in one.text),
        Reading.changed("special", marked[0], marked[1], numbers),
        *_languages(pairs, prompts),
    ]
    examples = _examples(pairs, prompts)
    return found(readings, examples, prompts=len(prompts), new_tokens=NEW_TOKENS, seed=case.asked.seed)


def _lacking(case: Case) -> Message | None:
    if (why := predicts(case)) is not None:
        return why
    if case.file is not None:
        read_prompts(case.file)
    elif len(set(case.given.documents)) < 2:
        return Message("prompts are how documents begin, and the text has fewer than two")
    return None


GENERATION = Aspect(
    "generation",
    standard=False,
    title=Message("Texts written side by side"),
    meaning=Message("how alike the texts are that both write, and whether they loop, end, and stay in the language"),
    lacking=_lacking,
    seconds=lambda case, each: 4 * PROMPTS * (OPENINGS[0] + 4 * NEW_TOKENS) * each,
    measure=_measure,
)
