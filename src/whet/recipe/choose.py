"""`choose`: several models brought to the same bytes and judged on the same questions: which one to take, and how sure.

The result is plain JSON (`"format": "whet.choice"`, `"version": 1`):

    models      a list in the order given: model, folder (what is judged: the original where it fits as it is, else the
                lighter one), made (whether it had to be made lighter), original_bytes, bytes (of the weight files), kl
                (to its own original, on verifying text; None as it is), takes (`whet.recipe.takes.takes_rounding`; {}
                as it is), quality (mean accuracy over skills, or None), skills, bits_a_byte, milliseconds (a decoded
                token), frontier (whether no other is better in quality and in bytes, `bytes`, or in time, `time`)
    left_out    models that cannot be brought to the budget, each with the reason
    best        the model with the highest quality; against: over each other one better, standard_error, p (Holm)
    tied        models that the best cannot be told from, itself first; sure: whether there is no other
    take        the one to take: of those that are tied the fastest; advice in a sentence
    questions, documents: how many; seed, target, budget, seconds, notes
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whet.budget.sizes import parse_size
from whet.checkpoint import write_json
from whet.checkpoint.model_files import model_file
from whet.engines import Engine
from whet.engines.opening import open_engine
from whet.errors import UsageError, verb
from whet.events import OnEvent, ignore, note_event
from whet.measure.choosing import Answers, Choice, answers, choose_among, quality, record, take_turns
from whet.measure.items import Item, read_skills
from whet.measure.sides import size_of
from whet.messages import Message
from whet.paths import check_model, check_out
from whet.recipe.compress import compress
from whet.recipe.takes import takes_rounding
from whet.steps.verbs import Choose, takes
from whet.text import fingerprint, read_text, split

_DOCUMENTS, _TOKENS, _PROMPT = 200, 512, 64


@dataclass
class _Candidate:
    """A model, and what is judged of it."""

    model: Path
    name: str
    folder: Path
    made: bool
    kl: float | None
    takes: Mapping[str, float]


@verb
@takes(Choose)
def choose(
    models: Sequence[str | Path], out: str | Path, *, on_event: OnEvent = ignore, **options: Any
) -> dict[str, Any]:
    """Bring every one of `models` to the same bytes, judge all on the same questions and text, and say which to take.

    A model whose weight files are within the budget is judged as it is; any other is compressed to it (as `compress`
    with `fit`) into a folder of `out`. A tenth of the text is kept out of compressing and judges.

    Returns the result that is described at the top of this file, which is written to `out`/choice.json too. Raises
    UsageError for wrong input before the long part.
    """
    started = time.monotonic()
    asked = Choose.of("choose", **options)
    folders, place = [_checked(model) for model in models], Path(out)
    if len(folders) < 2 or len(set(folders)) < len(folders):
        raise UsageError("To choose takes two models or more, each once: whet choose MODEL MODEL OUT --budget 400MB.")
    for folder in folders:
        check_out(place, folder)
    if asked.budget is None:
        raise UsageError("To choose takes a size that all models are brought to: --budget 400MB.")
    budget = parse_size(asked.budget, max(size_of(folder)["total"] for folder in folders))
    items = [] if asked.skills is None else read_skills(asked.skills)
    documents, judging = _texts(asked)
    place.mkdir(parents=True, exist_ok=True)
    candidates, left_out = [], []
    for name, folder in zip(_names(folders), folders, strict=True):
        try:
            candidates.append(_brought(folder, name, place, budget, documents, asked, on_event))
        except UsageError as error:
            left_out.append({"model": str(folder), "why": error.message})
            on_event(note_event(Message("{model} is left out: {why}", model=folder, why=error.message)))
    if len(candidates) < 2:
        raise UsageError(
            "Fewer than two of the models can be brought to {budget}: {why}",
            budget=asked.budget,
            why=left_out[0]["why"],
        )
    told, choice, speeds = _judged(candidates, items, judging, asked, on_event)
    result = {
        "format": "whet.choice",
        "version": 1,
        "models": _figures(candidates, told, speeds, items),
        "left_out": left_out,
        **_verdict(candidates, choice, speeds),
        "questions": len(items),
        "documents": len(judging),
        "text": fingerprint(judging),
        "budget": budget,
        "target": asked.target,
        "seed": asked.seed,
        "seconds": time.monotonic() - started,
    }
    write_json(place / "choice.json", result)
    return result


def _checked(model: str | Path) -> Path:
    check_model(model)
    return Path(model)


def _names(folders: Sequence[Path]) -> list[str]:
    """A name for each, of its folder, told apart by a number where two are called alike."""
    names = [folder.resolve().name for folder in folders]
    return [name if names.count(name) == 1 else f"{name}-{i + 1}" for i, name in enumerate(names)]


def _texts(asked: Choose) -> tuple[list[str], list[str]]:
    """Documents to compress with, and those that judge."""
    if asked.text is None:
        raise UsageError("Choosing needs text of the kind the models are used for: give --text FILE.")
    found = (
        read_text(asked.text, field=asked.field, chat=asked.chat, tokenizer=None, skip_bad=asked.skip_bad).documents
        if isinstance(asked.text, str | Path)
        else list(asked.text)
    )
    parts = split(found, asked.seed)
    return [*parts.solve, *parts.verify], list(parts.report)[:_DOCUMENTS]


def _brought(
    folder: Path, name: str, place: Path, budget: int, documents: Sequence[str], asked: Choose, on_event: OnEvent
) -> _Candidate:
    """A model within the budget: as it is where it fits, else compressed."""
    if _weights(folder) <= budget:
        return _Candidate(folder, name, folder, False, None, {})
    told = takes_rounding(folder)
    made = compress(
        folder,
        place / name,
        fit=budget,
        text=list(documents),
        target=asked.target,
        solver=asked.solver,
        samples=asked.samples,
        window=asked.window,
        seed=asked.seed,
        device=asked.device,
        on_event=on_event,
    )
    return _Candidate(folder, name, place / name, True, made["kl"], told)


def _weights(folder: Path) -> int:
    """Bytes of the weight files of a folder or .gguf."""
    sizes = size_of(model_file(folder))
    return sizes.get("weights", sizes["total"])


def _judged(
    candidates: Sequence[_Candidate], items: Sequence[Item], documents: Sequence[str], asked: Choose, on_event: OnEvent
) -> tuple[list[Answers], Choice, list[float]]:
    """What all said, which is best, and seconds a decoded token of each. All are open at once: they take turns."""
    engines: list[Engine] = [open_engine(model_file(each.folder), asked.device) for each in candidates]
    pieces = [_piece(document, engines) for document in documents]
    pieces = [piece for piece in pieces if piece]
    told = [answers(engine, items, pieces, asked.chat, on_event) for engine in engines]
    prompts = [(engine.encode(" ".join(pieces)) * _PROMPT)[:_PROMPT] for engine in engines]
    return told, choose_among(told, items), take_turns(engines, prompts, on_event)


def _piece(document: str, engines: Sequence[Engine]) -> str:
    """As much of the beginning of a document as every model can read at once; '' where a token is all of it."""
    most = min([_TOKENS, *(engine.context for engine in engines if engine.context is not None)])
    piece = document
    while piece and (longest := max(len(engine.encode(piece)) for engine in engines)) > most:
        piece = piece[: max(0, min(len(piece) - 1, len(piece) * most // longest))]
    return piece if all(len(engine.encode(piece)) > 1 for engine in engines) else ""


def _figures(
    candidates: Sequence[_Candidate], told: Sequence[Answers], speeds: Sequence[float], items: Sequence[Item]
) -> list[dict[str, Any]]:
    sizes = [_weights(each.folder) for each in candidates]
    worth = [quality(one, items) for one in told]
    return [
        {
            "model": str(each.model),
            "name": each.name,
            "folder": str(each.folder),
            "made": each.made,
            "original_bytes": _weights(each.model),
            "bytes": sizes[i],
            "kl": each.kl,
            "takes": dict(each.takes),
            **record(told[i], items),
            "milliseconds": 1000 * speeds[i],
            "frontier": {"bytes": _undominated(i, worth, sizes), "time": _undominated(i, worth, speeds)},
        }
        for i, each in enumerate(candidates)
    ]


def _undominated(place: int, worth: Sequence[float], costs: Sequence[float]) -> bool:
    """Whether no other model is at least as good and as cheap, and better in one of the two."""
    mine = worth[place], costs[place]
    return not any(
        worth[i] >= mine[0] and costs[i] <= mine[1] and (worth[i], costs[i]) != mine
        for i in range(len(worth))
        if i != place
    )


def _verdict(candidates: Sequence[_Candidate], choice: Choice, speeds: Sequence[float]) -> dict[str, Any]:
    names = [each.name for each in candidates]
    take = min(choice.tied, key=lambda place: speeds[place])
    if choice.sure:
        advice = Message(
            "Take {name}: it is better than every other, and that is no chance (p < 0.05).", name=names[take]
        )
    else:
        others = ", ".join(names[place] for place in choice.tied if place != choice.best)
        advice = Message(
            "{best} is best, but cannot be told from {others} on so many questions. Take {take}, the fastest of them, "
            "or give more questions.",
            best=names[choice.best],
            others=others,
            take=names[take],
        )
    against = {
        names[place]: {"better": each.better, "standard_error": each.standard_error, "p": each.p}
        for place, each in choice.against.items()
    }
    told = {"best": names[choice.best], "against": against, "tied": [names[place] for place in choice.tied]}
    return {**told, "sure": choice.sure, "take": names[take], "advice": advice}
