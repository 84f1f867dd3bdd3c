"""A small trained bilingual model that ships with whet, and the generator of everything it was taught.

It makes the main job run with no download: the model is real (it answers), the text is unlimited, and every skill has
questions with exact answers that training never saw. All text is made here, from seeds, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from whet.errors import UsageError, did_you_mean
from whet.starter.logic import logic_comparison
from whet.starter.statements import beliefs
from whet.starter.stories import OPENING, grammar_pair, story_en, story_ko
from whet.starter.tasks import QUESTIONS, fact_text

__all__ = [
    "EVALUATION_SPLITS",
    "MIXTURE",
    "OWN",
    "SKILLS",
    "Document",
    "beliefs",
    "document",
    "documents",
    "held_out",
    "mixed",
    "path",
    "practice",
    "skills",
]

SKILLS = (*QUESTIONS, "grammar_en", "grammar_ko")
EVALUATION_SPLITS = ("solve", "verify", "report")

OWN = {"belief": beliefs, "susceptibility": beliefs}  # by aspect of a comparison, the material for it

# A document is pieces of (text, weight): what training's loss counts fully, and what it counts a little.
Document = list[tuple[str, float]]
QUESTION_WEIGHT = 0.1  # a question's random names and numbers cannot be predicted; its answer can

# Shares of the kinds of document in the text given here (not of tokens: a story is several times as long as a sum).
# Training's own shares changed as it went: `whet.starter.curriculum`.
MIXTURE = {
    "arithmetic_en": 0.1,
    "arithmetic_ko": 0.1,
    "logic_ordering": 0.17,
    "logic_ordering mixed": 0.02,
    "logic_comparison": 0.08,
    "logic_comparison mixed": 0.02,
    "logic_syllogism": 0.06,
    "logic_syllogism converse": 0.05,
    "facts": 0.02,
    "facts opened": 0.06,
    "fact_text": 0.02,
    "translation_words": 0.02,
    "translation_words opened": 0.04,
    "translation_sentences": 0.03,
    "translation_sentences backward": 0.06,
    "format spaced": 0.04,
    "story_en": 0.055,
    "story_ko": 0.055,
}
# A closed book has no unseen facts, and single steps are not divided into splits: no held-out text of these.
_SEEN_WHOLE = ("facts", "fact_text", "translation_words", "logic_comparison", "logic_syllogism converse")


def path() -> Path:
    """Folder of the shipped model: two bf16 safetensors shards with index, tokenizer, configurations, card."""
    return Path(__file__).parent / "whet-starter"


def document(rng: Random, kind: str, split: str = "train") -> Document:
    """One document of a kind of MIXTURE as weighted pieces; every question and answer ends its line.

    A kind may carry an option of its question after a space: `facts opened`.
    """
    if kind == "fact_text":
        return [(fact_text(rng) + "\n", 0.7)]
    if kind == "story_en":
        return [(story_en(rng, split), 0.5)]
    if kind == "story_ko":
        return [(story_ko(rng, split), 0.5)]
    pieces: Document = []
    kind, _, option = kind.partition(" ")
    options = {option: True} if option else {}
    for _ in range(rng.randint(1, 4)):
        prompt, answer, _ = (
            logic_comparison(rng, **options) if kind == "logic_comparison" else QUESTIONS[kind](rng, split, **options)
        )
        pieces += [(prompt, QUESTION_WEIGHT), (f" {answer}\n", 1.0)]
    return pieces


def mixed(rng: Random, mixture: dict[str, float] = MIXTURE) -> Document:
    """One training document of a kind drawn from `mixture`."""
    return document(rng, rng.choices(list(mixture), list(mixture.values()))[0])


def _text(pieces: Document) -> str:
    return "".join(text for text, _ in pieces)


def documents(seed: int, count: int) -> list[str]:
    """`count` documents like those of training: for calibration and distillation, without end.

    Two seeds give different text; no document holds a question of evaluation. 2,000 take about a quarter of a second.
    """
    rng = Random(f"starter documents {seed}")
    return [_text(mixed(rng)) for _ in range(count)]


def held_out(seed: int, count: int) -> list[str]:
    """`count` documents that training never saw, nor any question of `skills`: for perplexity and KL.

    Stories about other heroes, things and places, sums of other numbers, and so on; facts and single words are left
    out, because they only exist as learnt.
    """
    rng = Random(f"starter held out {seed}")
    kinds = {kind: share for kind, share in MIXTURE.items() if not {kind, kind.split()[0]} & {*_SEEN_WHOLE}}
    return [_text(document(rng, rng.choices(list(kinds), list(kinds.values()))[0], "held")) for _ in range(count)]


def skills(split: str = "report", per_skill: int = 200, seed: int = 0) -> list[dict[str, Any]]:
    """Questions with exact answers, `per_skill` for each skill in SKILLS, none of them in training.

    Args:
        split: `solve` (to compress with), `verify` (to gate with) or `report` (to open once); no two share a prompt.
        per_skill: how many of each; facts and words have a few hundred a split and then no more. No question comes
            twice, so beyond a thousand the short wordings of sums run out and most that follow are told as stories,
            which are harder: for more, put several seeds together.
        seed: which of them, and in which order.

    Returns:
        dicts with `skill`, `prompt`, `check`, `group` (what it is about: the same sum in other words is of the same
        group) and either `answer` (generate greedily to the end of the line, strip) or `choices` and `label` (the
        likeliest continuation of the prompt should be `choices[label]`).
    """
    if split not in EVALUATION_SPLITS:
        raise UsageError(
            "split {split!r} is not one of {known}.{near}",
            split=split,
            known=", ".join(EVALUATION_SPLITS),
            near=did_you_mean(split, EVALUATION_SPLITS),
        )
    return _questions(split, per_skill, seed)


def practice(per_skill: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
    """Questions to learn from, as `skills` gives them: like those of training, none of which, in whatever words, is in
    `verify` or `report`. Facts and words are the same everywhere, so of these there are those of `solve`."""
    return _questions("train", per_skill, seed, {"facts": "solve", "translation_words": "solve"})


def _questions(whole: str, per_skill: int, seed: int, apart: Mapping[str, str] = {}) -> list[dict[str, Any]]:
    """Questions of a split; apart: those of skills that are of another one."""
    items: list[dict[str, Any]] = []
    for skill in SKILLS:
        split = apart.get(skill, whole)
        rng, tries = Random(f"starter {skill} {split} {seed}"), 0
        seen: set[str] = set()
        while len(seen) < per_skill and tries < 50 * per_skill:
            tries += 1
            if skill in QUESTIONS:
                prompt, answer, key = QUESTIONS[skill](rng, split)
                item: dict[str, Any] = {
                    "skill": skill,
                    "prompt": prompt,
                    "answer": answer,
                    "check": "exact",
                    "group": key,
                }
                if skill.startswith("arithmetic"):
                    item["check"] = "number"
                name = prompt
            else:
                language, label = skill[-2:], rng.randrange(2)
                right, wrong = grammar_pair(rng, split, language)
                choices = [f" {right}", f" {wrong}"] if label == 0 else [f" {wrong}", f" {right}"]
                item = {
                    "skill": skill,
                    "prompt": OPENING[language],
                    "choices": choices,
                    "label": label,
                    "check": "exact",
                    "group": right,
                }
                name = right
            if name not in seen:
                seen.add(name)
                items.append(item)
    return items
