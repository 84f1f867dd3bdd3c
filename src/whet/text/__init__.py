"""Text for solving, checking and reporting: readers, chat templates, windows inside documents, disjoint splits.

Everything here is a pure function of its arguments; the same seed gives the same windows and splits.
"""

from whet.text.chat import render_chat
from whet.text.readers import fingerprint, read_documents
from whet.text.splits import split
from whet.text.windows import Window, batch_indices, batches, encode, located_windows, windows

__all__ = [
    "Window",
    "batch_indices",
    "batches",
    "encode",
    "fingerprint",
    "located_windows",
    "read_documents",
    "render_chat",
    "split",
    "windows",
]
