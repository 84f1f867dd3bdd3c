"""`python -m whet`: the command line, where no `whet` is on the path."""

from __future__ import annotations

import os
import sys

# `-m` looks into the current folder before the standard library; it may be a model's, and hold anything
if sys.path[0] == os.getcwd() and not sys.flags.safe_path:
    del sys.path[0]

from whet.cli import main

if __name__ == "__main__":
    main()
