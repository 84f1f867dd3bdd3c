"""Stories in English and Korean with varied grammar, and pairs of sentences of which one is right.

A pair function draws `(right, wrong)`, two sentences that differ in one point of grammar. The right sentence's own text
decides its split: training stories only hold right sentences of the train split, evaluation asks the others. A story's
hero, thing and place decide the split of the story as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from whet.korean import josa, particles
from whet.starter.splits import split_of
from whet.starter.words import (
    ADJECTIVES,
    ANIMALS,
    COLORS,
    FOODS,
    PEOPLE,
    PERSONS,
    PLACES,
    THINGS,
    VERBS,
    article,
    at,
    plural,
)

Pair = tuple[str, str]
OPENING = {"en": "Story:", "ko": "이야기:"}

_MOVES = [
    ("jumps", "jump", "jumped"),
    ("runs", "run", "ran"),
    ("sleeps", "sleep", "slept"),
    ("sings", "sing", "sang"),
    ("dances", "dance", "danced"),
    ("plays", "play", "played"),
    ("sits", "sit", "sat"),
    ("waits", "wait", "waited"),
]


def _both(forms: tuple[str, str], sentence: Callable[[str], str]) -> Pair:
    """The sentence with the right form and with the wrong one."""
    return sentence(forms[0]), sentence(forms[1])


def _agreement(rng: Random) -> Pair:
    one, other = rng.sample([*ANIMALS, *PERSONS], 2)
    third, base, _ = rng.choice(_MOVES)
    where, place = rng.choice(["near", "behind", "with"]), rng.choice(list(PLACES))
    if rng.random() < 0.5:
        return _both((third, base), lambda verb: f"The {one} {where} the {plural(other)} {verb} {at(place)}.")
    return _both((base, third), lambda verb: f"The {plural(one)} {where} the {other} {verb} {at(place)}.")


def _copula(rng: Random) -> Pair:
    noun, color = rng.choice([*ANIMALS, *THINGS]), rng.choice(list(COLORS))
    place, many = rng.choice(list(PLACES)), rng.random() < 0.5
    words = ("were", "was") if many else ("was", "were")
    return _both(words, lambda word: f"The {color} {plural(noun) if many else noun} {word} {at(place)}.")


def _tense(rng: Random) -> Pair:
    who, place = rng.choice([*ANIMALS, *PERSONS]), rng.choice(list(PLACES))
    third, base, past = rng.choice(_MOVES)
    if rng.random() < 0.5:
        day = rng.choice(["Yesterday", "Last night", "Last week"])
        forms = (past, rng.choice([third, f"will {base}"]))
    else:
        day, forms = rng.choice(["Tomorrow", "Next week"]), (f"will {base}", rng.choice([past, third]))
    return _both(forms, lambda form: f"{day} the {who} {form} {at(place)}.")


def _article(rng: Random) -> Pair:
    who, (_, _, seen) = rng.choice(list(PEOPLE)), rng.choice([verb[:3] for verb in VERBS])
    noun = rng.choice([*ANIMALS, *PERSONS, *THINGS])
    if rng.random() < 0.5:
        noun = f"{rng.choice(list(ADJECTIVES))} {noun}"
    right = article(noun)
    return _both((right, "a" if right == "an" else "an"), lambda form: f"{who} {seen} {form} {noun}.")


def _reflexive(rng: Random) -> Pair:
    who, place = rng.choice(list(PEOPLE)), rng.choice(list(PLACES))
    right, wrong = ("himself", "herself") if PEOPLE[who][1] == "he" else ("herself", "himself")
    verb, color = rng.choice(["washed", "saw", "drew", "hid"]), rng.choice(list(COLORS))
    return _both((right, wrong), lambda form: f"{who} {verb} {form} near the {color} {place}.")


def _demonstrative(rng: Random) -> Pair:
    noun, adjective, many = rng.choice([*ANIMALS, *THINGS]), rng.choice(list(ADJECTIVES)), rng.random() < 0.5
    near = rng.random() < 0.5
    words = ("these" if near else "those", "this" if near else "that")
    words = words if many else (words[1], words[0])
    who = rng.choice(list(PEOPLE))
    return _both(words, lambda word: f"{who} likes {word} {adjective} {plural(noun) if many else noun}.")


def _quantity(rng: Random) -> Pair:
    who = rng.choice(list(PEOPLE))
    if rng.random() < 0.5:
        noun, forms = (
            rng.choice(["water", "milk", "bread", "rice", "salt", "honey", "juice", "cheese"]),
            ("much", "many"),
        )
    else:
        noun, forms = plural(rng.choice([*THINGS, *ANIMALS])), ("many", "much")
    verb = rng.choice(["has", "found", "brought", "needs"])
    place = rng.choice(list(PLACES))
    return _both(forms, lambda form: f"{who} {verb} too {form} {noun} {at(place)}.")


def _comparative(rng: Random) -> Pair:
    one, other = rng.sample([*ANIMALS, *PERSONS], 2)
    short = rng.random() < 0.6
    if short:
        word = rng.choice(["faster", "smaller", "taller", "younger", "stronger", "slower"])
        forms = (f"{word} than", f"{word[:-2]} than")
    else:
        word = rng.choice(["beautiful", "careful", "famous", "patient"])
        forms = (f"more {word} than", f"{word} than")
    return _both(forms, lambda form: f"The {one} is {form} the {other}.")


def _ko_noun(rng: Random) -> str:
    return rng.choice([*ANIMALS.values(), *PERSONS.values()])


def _ko_subject(rng: Random) -> Pair:
    who, thing, verb = _ko_noun(rng), rng.choice([*FOODS.values(), *THINGS.values()]), rng.choice(VERBS)
    kind = rng.choice(["은", "이"])
    when = rng.choice(["오늘", "아침에", "밤에"])
    return _both(particles(who, kind), lambda form: f"{when} {who}{form} {josa(thing, '을')} {verb.past_ko}.")


def _ko_object(rng: Random) -> Pair:
    who, thing, verb = _ko_noun(rng), rng.choice([*FOODS.values(), *THINGS.values()]), rng.choice(VERBS)
    place = rng.choice(list(PLACES.values()))
    return _both(particles(thing, "을"), lambda form: f"{josa(who, '은')} {place}에서 {thing}{form} {verb.past_ko}.")


def _ko_and(rng: Random) -> Pair:
    one, other = rng.sample([*ANIMALS.values(), *PERSONS.values()], 2)
    place, move = rng.choice(list(PLACES.values())), rng.choice(["놀았다", "쉬었다", "만났다", "춤을 추었다"])
    return _both(particles(one, "과"), lambda form: f"{one}{form} {josa(other, '이')} {place}에서 {move}.")


def _ko_toward(rng: Random) -> Pair:
    who, place, move = (
        _ko_noun(rng),
        rng.choice(list(PLACES.values())),
        rng.choice(["갔다", "달려갔다", "돌아갔다", "떠났다"]),
    )
    adjective = rng.choice(["먼", "새로운", "작은", "큰", "조용한"])
    return _both(particles(place, "으로"), lambda form: f"{josa(who, '은')} {adjective} {place}{form} {move}.")


def _ko_place(rng: Random) -> Pair:
    who, place, adjective = _ko_noun(rng), rng.choice(list(PLACES.values())), rng.choice(["먼", "작은", "큰", "조용한"])
    if rng.random() < 0.5:
        move, forms = rng.choice(["놀았다", "노래했다", "춤을 추었다", "일했다"]), ("에서", "에")
    else:
        move, forms = rng.choice(["도착했다", "숨어 있었다", "앉아 있었다"]), ("에", "에서")
    return _both(forms, lambda form: f"{josa(who, '이')} {adjective} {place}{form} {move}.")


def _ko_tense(rng: Random) -> Pair:
    who, thing, verb = _ko_noun(rng), rng.choice([*FOODS.values(), *THINGS.values()]), rng.choice(VERBS)
    if rng.random() < 0.5:
        day, forms = rng.choice(["어제", "지난주에"]), (verb.past_ko, verb.future_ko)
    else:
        day, forms = rng.choice(["내일", "다음 주에"]), (verb.future_ko, verb.past_ko)
    return _both(forms, lambda form: f"{day} {josa(who, '은')} {josa(thing, '을')} {form}.")


def _ko_counter(rng: Random) -> Pair:
    count, place = rng.choice(["한", "두", "세", "네", "다섯", "여섯"]), rng.choice(list(PLACES.values()))
    noun, right, wrong = rng.choice(
        [
            (rng.choice(list(ANIMALS.values())), "마리가", rng.choice(["명이", "권이"])),
            (rng.choice(list(PERSONS.values())), "명이", rng.choice(["마리가", "권이"])),
            ("책", "권이", rng.choice(["명이", "마리가"])),
            (rng.choice(["의자", "모자", "가방", "열쇠", "상자", "공"]), "개가", rng.choice(["명이", "마리가"])),
        ]
    )
    adjective = rng.choice(["작은", "큰", "조용한", "새로운"])
    return _both((right, wrong), lambda form: f"{adjective} {place}에 {noun} {count} {form} 있다.")


def _ko_honorific(rng: Random) -> Pair:
    who = rng.choice(["할머니", "할아버지", "선생님", "어머니", "아버지"])
    thing, place = rng.choice(list(FOODS.values())), rng.choice(list(PLACES.values()))
    when = rng.choice(["어제", "아침에", "오늘"])
    if rng.random() < 0.5:
        return _both(("드셨다", "먹었다"), lambda form: f"{when} {who}께서 {place}에서 {josa(thing, '을')} {form}.")
    who = rng.choice(["동생", "아이", "친구", "아기"])
    return _both(("먹었다", "드셨다"), lambda form: f"{when} {josa(who, '이')} {place}에서 {josa(thing, '을')} {form}.")


PAIRS: dict[str, list[Callable[[Random], Pair]]] = {
    "en": [_agreement, _agreement, _copula, _tense, _article, _reflexive, _demonstrative, _quantity, _comparative],
    "ko": [_ko_subject, _ko_object, _ko_and, _ko_toward, _ko_place, _ko_tense, _ko_counter, _ko_honorific],
}


def grammar_pair(rng: Random, split: str, language: str) -> Pair:
    """`(right, wrong)` of the given split; `language` is en or ko."""
    while True:
        right, wrong = rng.choice(PAIRS[language])(rng)
        if split_of(right) == split:
            return right, wrong


def _plot(rng: Random, split: str) -> tuple[str, str, str, str, str]:
    while True:
        hero, thing, place = rng.choice(list(PEOPLE)), rng.choice(list(THINGS)), rng.choice(list(PLACES))
        if split_of(f"story {hero} {thing} {place}") == split:
            return hero, thing, place, rng.choice([p for p in PLACES if p != place]), rng.choice(list(ANIMALS))


def story_en(rng: Random, split: str) -> str:
    """Who looks for what, whom they meet, where it is, how it ends; with asides that exercise the grammar."""
    hero, thing, place, second, animal = _plot(rng, split)
    he = PEOPLE[hero][1]
    his, him = ("his", "him") if he == "he" else ("her", "her")
    kind, kind2 = rng.sample(list(ADJECTIVES), 2)
    said = rng.choice(["said", "asked", "whispered"])

    def pick(*options: str) -> str:
        return rng.choice(options)

    lines = [
        pick(
            f"Once upon a time {hero} lived near {article(kind)} {kind} {place}.",
            f"One morning {hero} went to the {place}.",
            f"There was once a child named {hero} who loved the {place}.",
            f"It was a cold day, and {hero} was at the {place}.",
        ),
        pick(
            f"{hero} had lost {his} {kind2} {thing}.",
            f"{he.capitalize()} wanted to find a {thing} for {his} friend."
            if thing[0] not in "aeiou"
            else f"{he.capitalize()} wanted to find an {thing} for {his} friend.",
            f"Somebody had hidden the {thing} from {him}.",
        ),
        pick(
            f"So {he} walked to the {second} and looked around.",
            f"Then {he} ran to the {second} because {he} heard a sound.",
            f"Although it was late, {he} went on to the {second}.",
        ),
        pick(
            f"There {he} met {article(animal)} {animal}.", f"{article(animal).capitalize()} {animal} was waiting there."
        ),
        pick(f'"Have you seen my {thing}?" {said} {hero}.', f'"I am looking for a {kind2} thing," said {hero}.'),
        pick(
            f'"It is behind the {place}," said the {animal}.',
            f'"If you help me, I will help you," said the {animal}.',
            f"The {animal} did not know, but {he} was not sad.",
        ),
    ]
    for _ in range(rng.randint(1, 3)):
        lines.insert(rng.randint(1, len(lines)), grammar_pair(rng, split, "en")[0])
    lines.append(
        pick(
            f"At last {hero} found the {thing} and was happy.",
            f"They went home together, and {hero} smiled.",
            f"When the moon came up, {hero} was at home with the {thing}.",
            f"From that day {hero} and the {animal} were friends.",
        )
    )
    return f"{OPENING['en']} {' '.join(lines)}\n"


def story_ko(rng: Random, split: str) -> str:
    """The same kind of story in Korean, in the plain style (-다)."""
    hero_en, thing_en, place_en, second_en, animal_en = _plot(rng, split)
    hero, thing, place = PEOPLE[hero_en][0], THINGS[thing_en], PLACES[place_en]
    second, animal = PLACES[second_en], ANIMALS[animal_en]
    kind, kind2 = rng.sample(list(ADJECTIVES.values()), 2)

    def pick(*options: str) -> str:
        return rng.choice(options)

    lines = [
        pick(
            f"옛날에 {josa(hero, '이')} {kind} {place} 옆에 살았다.",
            f"어느 날 아침 {josa(hero, '은')} {place}에 갔다.",
            f"{josa(place, '을')} 좋아하는 {hero}라는 아이가 있었다."
            if josa(hero, "이").endswith("가")
            else f"{josa(place, '을')} 좋아하는 {hero}이라는 아이가 있었다.",
            f"추운 날이었고, {josa(hero, '은')} {place}에 있었다.",
        ),
        pick(
            f"{josa(hero, '은')} {kind2} {josa(thing, '을')} 잃어버렸다.",
            f"{josa(hero, '은')} 친구에게 줄 {josa(thing, '을')} 찾고 싶었다.",
            f"누군가 {hero}의 {josa(thing, '을')} 숨겨 놓았다.",
        ),
        pick(
            f"그래서 {josa(second, '으로')} 걸어가서 둘러보았다.",
            f"그때 소리가 들려서 {josa(second, '으로')} 달려갔다.",
            f"날이 늦었지만 {josa(second, '으로')} 계속 갔다.",
        ),
        pick(f"거기서 {josa(animal, '을')} 만났다.", f"{animal} 한 마리가 기다리고 있었다."),
        pick(
            f'"내 {josa(thing, "을")} 보았니?" 하고 {josa(hero, "이")} 물었다.',
            f'"나는 {kind2} 것을 찾고 있어." {josa(hero, "이")} 말했다.',
        ),
        pick(
            f'"그것은 {place} 뒤에 있어." {josa(animal, "이")} 말했다.',
            f'"나를 도와주면 나도 너를 도와줄게." {josa(animal, "이")} 말했다.',
            f"{josa(animal, '은')} 몰랐지만 {josa(hero, '은')} 슬퍼하지 않았다.",
        ),
    ]
    for _ in range(rng.randint(1, 3)):
        lines.insert(rng.randint(1, len(lines)), grammar_pair(rng, split, "ko")[0])
    lines.append(
        pick(
            f"마침내 {josa(hero, '은')} {josa(thing, '을')} 찾아서 기뻤다.",
            f"둘은 함께 집으로 돌아갔고, {josa(hero, '은')} 웃었다.",
            f"달이 떴을 때 {josa(hero, '은')} {josa(thing, '과')} 함께 집에 있었다.",
            f"그날부터 {josa(hero, '과')} {josa(animal, '은')} 친구가 되었다.",
        )
    )
    return f"{OPENING['ko']} {' '.join(lines)}\n"
