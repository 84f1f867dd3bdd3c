"""What `whet curate` finds of planted faults, and what it loses of clean documents.

Clean documents are texts of the embedded model's generator put together (English, Korean, sums), eight or more to a
document, none of which holds a question of evaluation. Planted among them, in seeded places:

    copies           a clean document again, in other case and spacing
    near duplicates  a clean document with some words of 1 % replaced, Jaccard similarity of shingles 0.8 or more
    leaks            a clean document with a question and its answer, or a held-out text, of the embedded model in it;
                     of 5 words (10 letters of Korean) or more, as less is not looked for
    wrong language   text in one of ten other languages, sentences drawn and put together

A fault is found where its document is removed for its own reason; a clean document is lost where it does not stay.
Usage: python bench/curation.py [--documents 10000] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np

import whet
from whet import starter
from whet.curation.duplicates import SHINGLE, SIMILAR, jaccard
from whet.curation.overlap import FEWEST_LETTERS, FEWEST_WORDS
from whet.curation.units import shingles, units_of

KEPT = "kept"
FAULTS = {
    "copy": "exact duplicate",
    "near duplicate": "near duplicate",
    "leak": "leak",
    "wrong language": "language",
}
KINDS = {
    "en": ["arithmetic_en", "story_en", "fact_text"],
    "ko": ["arithmetic_ko", "story_ko"],
}
# Ordinary sentences in languages that share a script with English, and some that do not.
FOREIGN = {
    "de": [
        "Der alte Mann ging langsam durch den Wald und suchte nach seinem Hund.",
        "Wir haben gestern Abend lange über die Reise nach Hamburg gesprochen.",
        "Das Fenster war offen, aber niemand hörte den Regen auf dem Dach.",
        "Sie wollte wissen, warum die Kinder heute nicht in die Schule gehen.",
        "Am Morgen kaufte er Brot und Käse für die ganze Familie.",
    ],
    "fr": [
        "Le petit garçon cherchait son chapeau dans le jardin de sa grand-mère.",
        "Nous avons mangé du pain et du fromage avant de partir pour la montagne.",
        "Elle ne savait pas pourquoi la porte était restée ouverte toute la nuit.",
        "Les enfants jouent dans la rue quand il ne pleut pas.",
        "Il faut que tu viennes avec moi demain matin à la gare.",
    ],
    "es": [
        "El niño perdió su sombrero en el mercado y empezó a llorar.",
        "Ayer fuimos a la playa porque hacía mucho calor en la ciudad.",
        "La mujer que vive en la casa azul tiene tres gatos y un perro.",
        "No sé dónde están las llaves que dejé encima de la mesa.",
        "Mañana vamos a cocinar arroz con pollo para toda la familia.",
    ],
    "pt": [
        "O menino não encontrou a sua bola e foi procurar no quintal da avó.",
        "Ontem à noite nós conversamos muito sobre a viagem para o norte.",
        "A janela estava aberta, mas ninguém ouviu a chuva no telhado.",
        "Eles querem saber por que a escola está fechada hoje.",
        "De manhã ela comprou pão e queijo para a família toda.",
    ],
    "it": [
        "Il vecchio camminava piano nel bosco e cercava il suo cane.",
        "Ieri sera abbiamo parlato a lungo del viaggio verso il mare.",
        "La finestra era aperta, ma nessuno sentiva la pioggia sul tetto.",
        "Non so perché i bambini oggi non vanno a scuola.",
        "La mattina compra sempre il pane e il formaggio per tutta la famiglia.",
    ],
    "nl": [
        "De oude man liep langzaam door het bos en zocht naar zijn hond.",
        "Gisteravond hebben we lang over de reis naar het noorden gepraat.",
        "Het raam stond open, maar niemand hoorde de regen op het dak.",
        "Ze wilde weten waarom de kinderen vandaag niet naar school gaan.",
        "In de ochtend kocht hij brood en kaas voor het hele gezin.",
    ],
    "sv": [
        "Den gamle mannen gick sakta genom skogen och letade efter sin hund.",
        "I går kväll pratade vi länge om resan till norra delen av landet.",
        "Fönstret var öppet, men ingen hörde regnet på taket.",
        "Hon ville veta varför barnen inte går till skolan i dag.",
        "På morgonen köpte han bröd och ost till hela familjen.",
    ],
    "ru": [
        "Старик медленно шёл по лесу и искал свою собаку.",
        "Вчера вечером мы долго говорили о поездке на север.",
        "Окно было открыто, но никто не слышал дождя на крыше.",
        "Она хотела знать, почему дети сегодня не идут в школу.",
    ],
    "ja": [
        "おじいさんは森の中をゆっくり歩いて犬を探していました。",
        "昨日の夜、私たちは北への旅について長く話しました。",
        "窓は開いていましたが、誰も屋根の雨の音を聞きませんでした。",
        "子どもたちがなぜ今日学校へ行かないのか、彼女は知りたかった。",
    ],
    "zh": [
        "老人慢慢地走过森林,寻找他的狗。",
        "昨天晚上我们谈了很久关于去北方的旅行。",
        "窗户开着,但是没有人听到屋顶上的雨声。",
        "她想知道孩子们今天为什么不去学校。",
    ],
}  # fmt: skip


def clean(rng: Random, language: str) -> str:
    """A document of about 600 letters or more."""
    return "".join(
        "".join(piece for piece, _ in starter.document(rng, rng.choice(KINDS[language])))
        for _ in range(rng.randint(8, 14))
    )


def copied(rng: Random, text: str) -> str:
    """The same in other case and spacing."""
    return "  ".join(text.upper().split(" ")) if rng.random() < 0.5 else f"\n {text.replace(' ', chr(160))}\n"


def nearly(rng: Random, text: str) -> str:
    """Some words replaced, as many as leave the similarity at 0.8 or more."""
    before = shingles(units_of([text]), SHINGLE)[0]
    words = text.split(" ")
    found = text
    for _ in range(max(1, len(words) // 60)):
        changed = list(words)
        changed[rng.randrange(len(words))] = rng.choice(["purple", "보라색", "however", "그러나"])
        if jaccard(before, shingles(units_of([" ".join(changed)]), SHINGLE)[0]) < SIMILAR:
            break
        words, found = changed, " ".join(changed)
    return found if found != text else text + " purple"


def leaking(rng: Random, text: str, secrets: list[str]) -> str:
    """With a text of evaluation after one of its lines."""
    lines = text.split("\n")
    lines.insert(rng.randrange(len(lines)), rng.choice(secrets))
    return "\n".join(lines)


def foreign(rng: Random) -> str:
    """Sentences of one other language; a few are drawn more than once, with a number in between."""
    sentences = FOREIGN[rng.choice(list(FOREIGN))]
    return " ".join(f"{rng.choice(sentences)} {rng.randint(1, 10**6)}." for _ in range(rng.randint(2, 12)))


def corpus(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(kind, text) of `count` clean documents, and of 2 % as many of each planted fault; a fault made of a clean
    document comes after it."""
    rng = Random(f"curation {seed}")
    documents = [("clean", clean(rng, rng.choice(list(KINDS)))) for _ in range(count)]
    secrets = [f"{one['prompt']} {one['answer']}" for one in starter.skills("report") if "choices" not in one]
    secrets += [one["choices"][one["label"]].strip() for one in starter.skills("verify") if "choices" in one]
    secrets += [text.strip() for text in starter.held_out(0, 500)]
    units = units_of(secrets)
    fewest = np.where(units.wide, FEWEST_LETTERS, FEWEST_WORDS)
    secrets = [secret for secret, enough in zip(secrets, units.counts >= fewest, strict=True) if enough]
    planted: dict[int, list[tuple[str, str]]] = {}
    for _ in range(max(1, count // 50)):
        for kind in FAULTS:
            place = rng.randrange(count)
            source = documents[rng.randint(0, place)][1]
            made = {
                "copy": lambda text=source: copied(rng, text),
                "near duplicate": lambda text=source: nearly(rng, text),
                "leak": lambda: leaking(rng, clean(rng, rng.choice(list(KINDS))), secrets),
                "wrong language": lambda: foreign(rng),
            }[kind]()
            planted.setdefault(place, []).append((kind, made))
    return [one for place, document in enumerate(documents) for one in (document, *planted.get(place, ()))]


def measure(count: int, seed: int, folder: Path) -> dict[str, object]:
    """Curate a corpus; how many of each kind do not stay, for which reasons, and the processor seconds it took."""
    documents = corpus(count, seed)
    source = folder / "corpus.jsonl"
    with source.open("w", encoding="utf-8") as file:
        for place, (_, text) in enumerate(documents):
            file.write(json.dumps({"text": text, "place": place}, ensure_ascii=False) + "\n")
    started = time.process_time()
    whet.curate(source, folder / "curated", languages="en,ko", seed=seed)
    seconds = time.process_time() - started
    reasons = {
        one["document"] - 1: one["reason"]
        for one in json.loads((folder / "curated" / "removed.json").read_text(encoding="utf-8"))
    }
    table: dict[str, Counter[str]] = {}
    for place, (kind, _) in enumerate(documents):
        table.setdefault(kind, Counter())[reasons.get(place, KEPT)] += 1
    return {"table": table, "seconds": seconds, "letters": sum(len(text) for _, text in documents)}


def found_of(table: dict[str, Counter[str]]) -> dict[str, float]:
    """Of each kind the share that was removed for its own reason; of clean documents the share that was lost."""
    shares = {kind: table[kind][reason] / table[kind].total() for kind, reason in FAULTS.items()}
    return shares | {"clean": 1 - table["clean"][KEPT] / table["clean"].total()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--documents", type=int, default=10_000, help="clean documents")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(asked.documents, asked.seed, Path(folder))
    shares = found_of(found["table"])
    print("| documents | how many | found (of clean: lost) | what became of them |\n| --- | ---: | ---: | --- |")
    for kind, reasons in found["table"].items():
        told = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
        print(f"| {kind} | {reasons.total():,} | {shares[kind]:.2%} | {told} |")
    print(f"\n{found['letters'] / 1e6:.1f} million letters in {found['seconds']:.1f} processor seconds")
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
