"""README's first screen from what `make demo` wrote: the tables and the pictures, in both languages (`make readme`).

`python bench/readme.py demo` puts the tables of `demo/compare.json` between README's markers, and cuts
`docs/report*.png` (the verdict and what got worse) and `docs/frontier*.png` (the scheme of each part, and bits against
divergence) out of `demo/report.html` as Chromium shows it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from report.browser import Browser, chromium  # of the tests: PYTHONPATH=tests
from whet.cli import tables

ROOT = Path(__file__).parents[1]
LANGUAGES = {"en": "", "ko": ".ko"}
WIDTH, MARGIN = 900, 28  # CSS pixels: of the page, and left above a heading
# From one heading of a section to another, counted from 0; None is the top of the page.
CUTS = {"report": (None, 1), "frontier": (5, 7)}
TOPS = """[...document.querySelectorAll("section h2")].filter((e) => e.checkVisibility()).map((e) =>
  Math.round(e.getBoundingClientRect().top + scrollY))"""


def main(demo: Path) -> None:
    """Tables and pictures of both READMEs. Exits where there is no Chromium, with nothing changed."""
    binary = chromium()
    if binary is None:
        sys.exit("no Chromium here: apt-get install chromium (or name one in WHET_CHROMIUM)")
    compared = json.loads((demo / "compare.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(binary, Path(profile))
        try:
            pictures(browser, demo / "report.html")
        finally:
            browser.close()
    for language, ending in LANGUAGES.items():
        paste(ROOT / f"README{ending}.md", language, compared)


def pictures(browser: Browser, page: Path) -> None:
    browser.resize(WIDTH, 1200)
    browser.prefer("light")
    browser.open(page.resolve())
    for language, ending in LANGUAGES.items():
        browser.evaluate(f"document.querySelector('label[for=language-{language}]').click()")
        tops = browser.evaluate(TOPS)
        for name, (first, second) in CUTS.items():
            start = 0 if first is None else tops[first] - MARGIN
            browser.screenshot(ROOT / "docs" / f"{name}{ending}.png", (0, start, WIDTH, tops[second] - MARGIN - start))


def paste(readme: Path, language: str, compared: dict[str, Any]) -> None:
    os.environ["WHET_LANG"] = language
    sheets = "\n\n".join(sheet.markdown() for sheet in tables.comparison(compared)[:2])
    text = readme.read_text(encoding="utf-8")
    between = re.compile("(<!-- demo table -->\n).*?(\n<!-- /demo table -->)", re.DOTALL)
    readme.write_text(between.sub(lambda found: found[1] + sheets + found[2], text), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
