"""Text for solving, checking and reporting: readers, chat templates, windows inside documents, disjoint splits.

Everything here is a pure function of its arguments; the same seed gives the same windows and splits.
"""

from whet.text.chat import ChatTemplate
from whet.text.places import Amount
from whet.text.readers import Classed, Conversation, Found, Stream, fingerprint, read_text, written_out
from whet.text.splits import split
from whet.text.windows import Window, batch_indices, batches, encode, located_windows, windows

__all__ = [
    "Amount",
    "ChatTemplate",
    "Classed",
    "Conversation",
    "Found",
    "Stream",
    "Window",
    "batch_indices",
    "batches",
    "encode",
    "fingerprint",
    "located_windows",
    "read_text",
    "split",
    "windows",
    "written_out",
]
