"""A smaller vocabulary: the tokens that a corpus or a language needs, with everything that they are made from."""

from whet.pruning.vocabulary.choose import MULTIPLE, Chosen, choose, closure, count, in_pieces, opened, tokenized
from whet.pruning.vocabulary.pieces import Pieces
from whet.pruning.vocabulary.renumber import (
    named_ids,
    new_decoder,
    new_ids,
    new_lines,
    new_merges,
    new_settings,
    new_tokenizer,
    with_beyond,
)
from whet.text.scripts import LANGUAGES, main_script, scripts_in, scripts_of

__all__ = [
    "LANGUAGES",
    "MULTIPLE",
    "Chosen",
    "Pieces",
    "choose",
    "closure",
    "count",
    "in_pieces",
    "main_script",
    "named_ids",
    "new_decoder",
    "new_ids",
    "new_lines",
    "new_merges",
    "new_settings",
    "new_tokenizer",
    "opened",
    "scripts_in",
    "scripts_of",
    "tokenized",
    "with_beyond",
]
