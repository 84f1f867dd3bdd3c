"""Which tokens stay: those that a corpus uses or that are of given languages, and all that these are made from.

BPE joins the pair of the lowest rank that is there, again and again. On a word whose tokens are kept, every step of the
original gives a token that is kept, as both parts of *every* merge that gives a kept token are; so no merge that is
gone was ever applied, those that stay keep their order, and the word is read as before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from whet.errors import UsageError
from whet.messages import Message
from whet.pruning.vocabulary.pieces import Pieces
from whet.text.scripts import scripts_in

MULTIPLE = 64  # rows: what divides among devices and fills tiles of a product
_AT_ONCE = 1 << 20  # letters that are tokenized together
_LONGEST = 1 << 16  # letters of a piece of a longer document


@dataclass(frozen=True)
class Chosen:
    """`ids`: of the rows that stay, in their new order. `seen`, `named`, `by_script`, `closed`, `filled`: how many stay
    because the corpus uses them, because something names them or bytes need them, for their language, because others
    are made from them, and to fill the last MULTIPLE; each counts what those before it do not."""

    ids: tuple[int, ...]
    seen: int
    named: int
    by_script: int
    closed: int
    filled: int

    @property
    def new(self) -> dict[int, int]:
        """New id by old one."""
        return {old: number for number, old in enumerate(self.ids)}


def closure(wanted: Iterable[int], parts: Mapping[int, Collection[int]]) -> set[int]:
    """`wanted` and all that it is made from: the smallest set that holds the parts of each of its members."""
    kept = set(wanted)
    left = list(kept)
    while left:
        for part in parts.get(left.pop(), ()):
            if part not in kept:
                kept.add(part)
                left.append(part)
    return kept


def choose(
    pieces: Pieces,
    rows: int,
    counts: Mapping[int, int],
    *,
    scripts: frozenset[str] | None = None,
    least: int = 1,
    named: Collection[int] = (),
) -> Chosen:
    """The rows of an embedding of `rows` that stay, as many as MULTIPLE divides.

    counts: how often the corpus has each token. least: how often it must. scripts: tokens whose letters are all of
    these stay too, and those without letters; None: no token stays for its script. named: ids that a config names.

    Of what would go, the first in the old order fill the last MULTIPLE up, each with what it is made from: no row is
    empty. Raises UsageError where nothing would go.
    """
    order = _in_order(pieces, rows)
    place = set(order)
    seen = {number for number, count in counts.items() if count >= least} & place
    alphabet = (lambda _: True) if scripts is None else (lambda piece: _is_of(pieces, piece, scripts))
    always = (pieces.always(alphabet) | set(named)) & place
    spoken: set[int] = set()
    if scripts is not None:
        spoken = {number for piece, number in pieces.ids.items() if _is_of(pieces, piece, scripts)} & place
    wanted = seen | always | spoken
    kept = closure(wanted, pieces.parts) & place
    goal = -(-len(kept) // MULTIPLE) * MULTIPLE
    if goal >= rows:
        raise UsageError(
            "{source}: {kept} of its {rows} tokens are needed, and rows go by {multiple}: there is nothing to cut. "
            "Give less text, fewer languages, or a larger --min-count.",
            source=pieces.source,
            kept=len(kept),
            rows=rows,
            multiple=MULTIPLE,
        )
    full = _filled(kept, order, pieces.parts, goal)
    return Chosen(
        tuple(number for number in order if number in full),
        seen=len(seen),
        named=len(always - seen),
        by_script=len(spoken - always - seen),
        closed=len(kept) - len(wanted),
        filled=len(full) - len(kept),
    )


def _in_order(pieces: Pieces, rows: int) -> list[int]:
    """Every row in the order that stays: pieces, then other added tokens, whose ids tokenizers count on from the
    pieces, then rows of no token; each by its old id."""
    own = sorted(number for number in set(pieces.ids.values()) if number < rows)
    added = sorted(number for number in set(pieces.added.values()) - set(own) if number < rows)
    known = {*own, *added}
    return [*own, *added, *(number for number in range(rows) if number not in known)]


def _is_of(pieces: Pieces, piece: str, scripts: frozenset[str]) -> bool:
    """Whether all letters of a piece are of `scripts`; True of one without letters."""
    text = pieces.text(piece)
    return not text or scripts_in(text) <= scripts


def _filled(kept: set[int], order: Sequence[int], parts: Mapping[int, Collection[int]], goal: int) -> set[int]:
    """`kept` and as many more as make `goal`, which closes it too. There always are: of those that are left one is
    made from what is kept alone."""
    full = set(kept)
    while len(full) < goal:
        for number in order:
            if len(full) == goal:
                break
            if number not in full:
                more = closure([number], parts) - full
                full |= more if len(more) <= goal - len(full) else set()
    return full


def count(tokenizer: Tokenizer, documents: Iterable[str]) -> dict[int, int]:
    """How often each token is in `documents`."""
    counts: dict[int, int] = {}
    for ids in tokenized(tokenizer, in_pieces(documents)):
        for number in ids:
            counts[number] = counts.get(number, 0) + 1
    return counts


def tokenized(tokenizer: Tokenizer, documents: Iterable[str]) -> Iterable[list[int]]:
    """Token ids of each document, with nothing before or after it."""
    some: list[str] = []
    size = 0
    for document in documents:
        some.append(document)
        size += len(document)
        if size >= _AT_ONCE:
            yield from (one.ids for one in tokenizer.encode_batch_fast(some, add_special_tokens=False))
            some, size = [], 0
    yield from (one.ids for one in tokenizer.encode_batch_fast(some, add_special_tokens=False))


def in_pieces(documents: Iterable[str], longest: int = _LONGEST) -> Iterable[str]:
    """Documents, long ones in pieces of about `longest` letters that end at the end of a line or word: some tokenizers
    take a whole document for one word."""
    for document in documents:
        start = 0
        while len(document) - start > longest:
            end = start + longest
            near = max(document.rfind("\n", end - longest // 4, end), document.rfind(" ", end - longest // 4, end))
            end = near + 1 if near >= 0 else end
            yield document[start:end]
            start = end
        yield document[start:]


def opened(text: str, source: str) -> Tokenizer:
    """A tokenizer from the text of a tokenizer.json, that cuts nothing off and fills nothing up."""
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the package raises plain exceptions for damaged files
        why = Message("{error}", error=str(error)[:300])
        raise UsageError("{source}: its tokenizer.json cannot be read ({why}).", source=source, why=why) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
