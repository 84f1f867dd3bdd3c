"""What runs chat templates: a process of its own, which may be stopped when one does not end. It imports nothing of
whet.

A template is code from a model's folder. transformers renders it in jinja2's `ImmutableSandboxedEnvironment`, which
keeps it from files and from Python, and not from looping or from taking all memory.

The first line of its input is JSON: `template`, `names` (of special tokens), `memory` (bytes it may take) and `most`
(letters it may write). Each other line is a conversation: `turns`, and `reply` where the text ends as a reply begins.
Of each a line comes back with `text`, or with `error`.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    """Answer line by line until the input ends."""
    from transformers.utils.chat_template_utils import render_jinja_template

    about = json.loads(sys.stdin.readline())
    render_jinja_template([[{"role": "user", "content": ""}]], chat_template="")  # all it imports, before the limit
    _limit(about["memory"])
    _say(json.dumps({"ready": True}))
    for line in sys.stdin:
        _say(_answer(render_jinja_template, about, json.loads(line)))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _answer(render: Any, about: dict[str, Any], asked: dict[str, Any]) -> str:
    try:
        turns = [{key: value for key, value in turn.items() if value is not None} for turn in asked["turns"]]
        done = render([turns], chat_template=about["template"], add_generation_prompt=asked["reply"], **about["names"])
        text = str(done[0][0])
        if len(text) > about["most"]:
            return json.dumps({"error": f"it writes {len(text)} letters"})
        return json.dumps({"text": text})
    except MemoryError:
        return json.dumps({"error": "it takes too much memory"})
    except Exception as error:  # jinja raises what the template's author chose to raise
        return json.dumps({"error": f"{type(error).__name__}: {error}"[:1000]})


def _limit(more: int) -> None:
    """At most so many bytes beside what is taken already, where the system knows such a limit."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + more, taken + more))
    except (ImportError, OSError, ValueError):
        return


if __name__ == "__main__":
    main()
