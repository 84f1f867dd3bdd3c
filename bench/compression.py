"""Prompts shortened by the lighter model's own surprise: what share of the answers to the whole prompt is kept.

Each question of the embedded model's skills comes after other questions of its skill with their answers, as a chat
would have them before it; these are shortened, and the question stays. The embedded model answers both prompts at
temperature 0, to the end of the line. Beside it: the same share of words left out at random, which a method must beat.

    python bench/compression.py --each 20 --share 0.5
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from whet import starter
from whet.engines.stepping import stepper
from whet.engines.torch import open_model
from whet.measure.items import LONGEST_ANSWER, Item, is_right, parse_item
from whet.serving.compression import Word, parts_of, shortened, with_parts, words_of
from whet.serving.worker import surprises

BEFORE = 6  # questions with answers that come before


def prompt_of(item: Item, others: list[Item]) -> str:
    solved = "\n".join(f"{other.prompt.rstrip()} {other.answer}" for other in others)
    return f"{solved}\n\n{item.prompt}"


def at_random(words: list[Word], share: float, rng: random.Random) -> str:
    return shortened([Word(word.text, word.tokens, rng.random(), word.must) for word in words], share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=20, help="questions of each skill")
    parser.add_argument("--share", type=float, default=0.5)
    asked = parser.parse_args()
    engine = open_model(Path(starter.__file__).parent / "whet-starter")
    steps, rng = stepper(engine, 1, 1024), random.Random(0)
    items = [parse_item(one, "item") for one in starter.skills("verify", per_skill=asked.each + BEFORE)]
    free = [item for item in items if not item.choices]
    print("| skill | letters left | answers kept | kept at random | right: whole, shortened, at random |")
    print("|---|---|---|---|---|", flush=True)
    for skill in dict.fromkeys(item.skill for item in free):
        mine = [item for item in free if item.skill == skill]
        before, questions = mine[:BEFORE], mine[BEFORE:]
        right, same, left = [0, 0, 0], [0, 0], 0.0
        for item in questions:
            whole = prompt_of(item, before)
            ((at, text),) = parts_of(whole)
            words = words_of(text, surprises(engine, steps, text))
            made = [shortened(words, asked.share), at_random(words, asked.share, rng)]
            prompts = [whole, *(str(with_parts(whole, [(at, text, one)])) for one in made)]
            answers = []
            for prompt in prompts:
                (ids,) = engine.continue_ids([engine.encode(prompt)], LONGEST_ANSWER, stop_at_newline=True)
                answers.append(engine.decode(ids).split("\n")[0].strip())
            left += len(made[0]) / len(text) / len(questions)
            for number, answer in enumerate(answers):
                right[number] += is_right(answer, item.answer or "", item.check)
            for number, answer in enumerate(answers[1:]):
                same[number] += answer == answers[0]
        count = len(questions)
        kept = " | ".join(f"{100 * one / count:.0f} %" for one in same)
        told = ", ".join(f"{100 * one / count:.0f} %" for one in right)
        print(f"| {skill} | {100 * left:.0f} % | {kept} | {told} |", flush=True)


if __name__ == "__main__":
    main()
