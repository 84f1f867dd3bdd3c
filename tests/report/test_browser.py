"""The page as Chromium shows it: at phone and desktop width, in both languages and both themes.

Skipped where no Chromium is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from report.browser import Browser, chromium
from report.facts import HOSTILE, facts
from whet.report import page
from whet.report.facts import loading

SIZES = {"phone": (360, 800), "desktop": (1280, 900)}
LANGUAGES, THEMES = ("en", "ko"), ("light", "dark")

# Every text that is shown, with the contrast of its colour to what lies behind it (WCAG 2.2, 1.4.3).
FAINT = """(() => {
  const parse = (text) => {
    const n = text.match(/[\\d.]+/g).map(Number), a = n.length > 3 ? n[3] : 1;
    return text.startsWith("color(") ? [n[0] * 255, n[1] * 255, n[2] * 255, a] : [n[0], n[1], n[2], a];
  };
  const luminance = (c) => {
    const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = c.slice(0, 3).map((v) => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c[3] === 1 && !(e instanceof SVGElement)) return c;
      if (c[3] > 0 && c[3] < 1) throw new Error("a translucent background: " + e.outerHTML.slice(0, 80));
    }
    throw new Error("nothing behind " + element.outerHTML.slice(0, 80));
  };
  const found = [], seen = new Set();
  const check = (element, style, text) => {
    const ink = parse(element instanceof SVGElement ? style.fill : style.color), back = behind(element);
    const key = [ink, back].join();
    if (seen.has(key)) return;
    seen.add(key);
    const [a, b] = [luminance(ink), luminance(back)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${text.slice(0, 40)} (${ink} on ${back})`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (text && element.checkVisibility() && !["SCRIPT", "title", "desc"].includes(element.tagName)) {
      check(element, getComputedStyle(element), text);
    }
  }
  for (const cell of document.querySelectorAll("[data-label]")) {
    if (cell.checkVisibility()) check(cell, getComputedStyle(cell, "::before"), cell.dataset.label);
  }
  return {found, pairs: seen.size};
})()"""

# What sticks out of the page, and tables meant to fit a phone that do not.
STICKS_OUT = """[...document.querySelectorAll("body *")].filter((e) => {
  const box = e.getBoundingClientRect();
  if (!box.width || !e.checkVisibility() || e.closest(".unseen, fieldset input")) return false;
  if (e.matches(".scroll:has(.heat, .schemes, .wide)")) return e.scrollWidth > e.clientWidth;
  return !e.closest(".scroll > *") && (box.left < -1 || box.right > document.documentElement.clientWidth + 1);
}).map((e) => e.outerHTML.slice(0, 90))"""

SHOWN = '[...document.querySelectorAll(".view")].filter((e) => e.checkVisibility()).map((e) => e.lang).join()'
LIGHT = "Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]) > 128"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests of a process."""
    binary = chromium()
    if binary is None:
        pytest.skip("no Chromium here: apt-get install chromium (or name one in WHET_CHROMIUM)")
    browser = Browser(binary, tmp_path_factory.mktemp("chromium"))
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page, made to open in each language."""
    folder = tmp_path_factory.mktemp("pages")
    found = {language: folder / f"{language}.html" for language in LANGUAGES}
    for language, file in found.items():
        file.write_text(page(facts(), language), encoding="utf-8")
    return found


@pytest.fixture
def browser(started: Browser, files: dict[str, Path]) -> Iterator[Browser]:
    """The English page, new; when the test is over, nothing went wrong and nothing was asked of the network."""
    started.resize(*SIZES["desktop"])
    started.prefer("light")
    started.open(files["en"])
    yield started
    started.evaluate("localStorage.clear()")
    asked = [e["params"]["request"]["url"] for e in started.events if e["method"] == "Network.requestWillBeSent"]
    assert {Path(url) for url in asked} <= {Path(file.as_uri()) for file in files.values()}
    wrong = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening")
    assert [event for event in started.events if event["method"] in wrong] == []


def choose(browser: Browser, name: str, value: str) -> None:
    """As a reader does: by the label."""
    browser.evaluate(f"document.querySelector('label[for={name}-{value}]').click()")


@pytest.mark.parametrize(("size", "language", "theme"), list(product(SIZES, LANGUAGES, THEMES)))
def test_it_reads_well(browser: Browser, size: str, language: str, theme: str) -> None:
    width, height = SIZES[size]
    browser.resize(width, height)
    browser.prefer(theme)
    choose(browser, "language", language)
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.evaluate(SHOWN) == language
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(STICKS_OUT) == []
    assert browser.evaluate(LIGHT) == (theme == "light")
    contrast = browser.evaluate(FAINT)
    assert contrast["found"] == [] and contrast["pairs"] > 15


def test_the_language_switch_changes_text_title_and_the_documents_language(browser: Browser) -> None:
    for language, word in (("ko", "가볍게"), ("en", "smaller")):
        choose(browser, "language", language)
        assert browser.evaluate(SHOWN) == browser.evaluate("document.documentElement.lang") == language
        assert word in browser.evaluate("document.title")
        assert word in browser.evaluate(f"document.querySelector('.view[lang={language}] h1').innerText")


def test_what_was_chosen_is_remembered(browser: Browser, files: dict[str, Path]) -> None:
    choose(browser, "language", "ko")
    choose(browser, "theme", "dark")
    browser.open(files["en"])
    assert browser.evaluate(SHOWN) == browser.evaluate("document.documentElement.lang") == "ko"
    assert browser.evaluate(LIGHT) is False


def test_the_theme_switch_overrides_the_system(browser: Browser) -> None:
    for system, theme, light in (("dark", "light", True), ("light", "dark", False), ("dark", "auto", False)):
        browser.prefer(system)
        choose(browser, "theme", theme)
        assert browser.evaluate(LIGHT) is light
    browser.prefer("light")
    assert browser.evaluate(LIGHT) is True


def test_a_short_page_uses_its_width(browser: Browser, files: dict[str, Path]) -> None:
    """Without contents beside it, there is no column for them."""
    short = files["en"].with_name("short.html")
    short.write_text(page({"scores": facts()["scores"]}), encoding="utf-8")
    browser.open(short)
    assert browser.evaluate("document.querySelector('.body').offsetWidth") > 900
    assert browser.evaluate(STICKS_OUT) == []
    browser.open(files["en"])


def test_every_picture_and_table_is_named(browser: Browser) -> None:
    named = """[...document.querySelectorAll("svg")].filter((e) =>
      e.firstElementChild?.tagName !== "title" || !e.firstElementChild.textContent.trim()).length"""
    assert browser.evaluate("document.querySelectorAll('svg[role=img]').length") == 10  # five plots, two languages
    assert browser.evaluate(named) == 0
    assert browser.evaluate("document.querySelectorAll('svg[role=img] > desc').length") == 10
    assert browser.evaluate("document.querySelectorAll('table').length") >= 24
    assert (
        browser.evaluate("[...document.querySelectorAll('table')].filter((t) => !t.caption?.textContent.trim()).length")
        == 0
    )
    assert browser.evaluate("document.querySelectorAll('th:not([scope])').length") == 0
    missing = """[...document.querySelectorAll("[aria-labelledby]")].flatMap((e) =>
      e.getAttribute("aria-labelledby").split(" ")).filter((id) => !document.getElementById(id))"""
    assert browser.evaluate(missing) == []


def test_what_users_and_models_wrote_stays_text(browser: Browser) -> None:
    assert browser.evaluate("document.scripts.length") == 1
    assert browser.evaluate("document.body.textContent").count(HOSTILE) >= 10


def test_it_prints_in_black_on_white_with_everything_open(browser: Browser) -> None:
    choose(browser, "theme", "dark")
    browser.prefer("dark", "print")
    try:
        assert browser.evaluate("document.querySelector('.bar').checkVisibility()") is False
        assert browser.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
        assert browser.evaluate(
            "[...document.querySelectorAll('.view[lang=en] .flips')].every((e) => e.checkVisibility())"
        )
        assert browser.call("Page.printToPDF")["data"]
    finally:
        browser.prefer("light")


def test_code_is_copied_by_a_button_and_names_the_folder_a_page_lies_in(
    browser: Browser, files: dict[str, Path]
) -> None:
    buttons = "[...document.querySelectorAll('.view:lang(en) .copy')]"
    codes = browser.evaluate(
        "[...document.querySelectorAll('.view:lang(en) pre[data-copy]')].map((e) => e.textContent)"
    )
    assert browser.evaluate(f"{buttons}.map((e) => e.textContent)") == ["Copy"] * len(codes) and len(codes) == 3
    browser.evaluate("window.told = []; document.addEventListener('copy', () => told.push(String(getSelection())))")
    browser.evaluate("navigator.clipboard.writeText = (text) => { told.push(text); return Promise.resolve(); }")
    browser.evaluate(f"{buttons}[0].click()")
    assert browser.evaluate("told") == [codes[0]]
    browser.evaluate("navigator.clipboard.writeText = () => Promise.reject(new Error('not here'))")
    browser.evaluate(f"{buttons}[1].click()")
    assert browser.evaluate("new Promise((done) => setTimeout(() => done(String(getSelection())), 50))") == codes[1]
    inside = files["en"].with_name("inside.html")
    told = loading({"target": "transformers", "container": "whet"}, {})
    inside.write_text(page(facts() | {"loading": told}), encoding="utf-8")
    files["inside"] = inside
    browser.open(inside)
    shown = browser.evaluate("[...document.querySelectorAll('.view:lang(en) pre')].map((e) => e.textContent)")
    assert all(str(inside.parent) in code and "FOLDER" not in code for code in shown)


def test_it_works_with_scripts_off(browser: Browser, files: dict[str, Path]) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(files["ko"])
        assert browser.evaluate(SHOWN) == "ko"
        choose(browser, "language", "en")
        choose(browser, "theme", "dark")
        assert browser.evaluate(SHOWN) == "en"
        assert browser.evaluate(LIGHT) is False
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
