"""A wrong path or option is answered before anything slow is imported."""

from __future__ import annotations

import json
import subprocess
import sys

WRONG = [
    ["compress", "nowhere", "out"],
    ["compress", "starter", "out", "--text", "nowhere.txt"],
    ["compress", "starter", "out", "--bits", "3.5", "--skills", "nowhere.jsonl"],
    ["compress", "starter", "out", "--schem", "W4A16"],
    ["compress", "starter", "out", "--recipe", "nowhere.yaml"],
    ["masks", "nowhere", "out", "--remove", "50%"],
    ["masks", "starter", "out", "--text", "nowhere.txt"],
    ["curate", "nowhere.txt", "out"],
    ["choose", "starter", "nowhere", "out", "--budget", "1MB"],
    ["compare", "starter", "nowhere"],
    ["plan", "nowhere", "plan.json", "--bits", "4"],
    ["inspect", "starter", "--text", "nowhere.txt"],
    ["run", "nowhere.yaml", "starter", "out"],
    ["export", "nowhere"],
    ["generate", "nowhere", "Once"],
    ["compres"],
]
CODE = """
import json, sys
from whet import cli
told = {}
for words in json.loads(sys.argv[1]):
    try:
        cli.main(words)
    except SystemExit as left:
        told[" ".join(words)] = [left.code, "torch" in sys.modules]
print(json.dumps(told))
"""


def test_wrong_paths_and_options_are_answered_at_once(tmp_path):
    made = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(WRONG)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    told = json.loads(made.stdout)
    assert told == {" ".join(words): [2, False] for words in WRONG}, made.stderr
    assert len(made.stderr.splitlines()) == len(WRONG)
