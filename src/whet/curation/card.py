"""The facts of a curation, and the data card (README.md) that tells them. Neither holds a text."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from whet.curation.curate import Curated, removed
from whet.curation.overlap import Evaluation

_QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)


def facts_of(found: Curated, evaluation: Evaluation) -> dict[str, Any]:
    """Everything that is counted, as JSON holds it."""
    store = found.store
    staying = store.staying
    languages: list[dict[str, Any]] = []
    for language, number in store.languages.items():
        read, kept = store.language == number, store.language[staying] == number
        languages.append(
            {
                "language": language,
                "read": int(read.sum()),
                "documents": int(kept.sum()),
                "letters": int(store.sizes[staying][kept].sum()),
                "bytes": int(store.bytes[staying][kept].sum()),
            }
        )
    languages.sort(key=lambda one: (-one["bytes"], -one["read"], one["language"]))
    checked = [
        {"source": source, "texts": count, "too short to tell": short, "documents removed": found.leaks[number]}
        for number, (source, count, short) in enumerate(
            zip(evaluation.sources, evaluation.counts, evaluation.unchecked, strict=True)
        )
    ]
    return {
        "inputs": found.inputs,
        "read": {"documents": len(store), "letters": int(store.sizes.sum()), "bytes": int(store.bytes.sum())},
        "kept": {
            "documents": len(staying),
            "letters": int(store.sizes[staying].sum()),
            "bytes": int(store.bytes[staying].sum()),
        },
        "removed": dict(removed(store)),
        "languages": languages,
        "lengths": {"read": _lengths(store.sizes), "kept": _lengths(store.sizes[staying])},
        "evaluation": checked,
        "touching": found.touching,
        "fixed": {"documents": int(store.fixed.sum()), "leaking": int((store.fixed & (store.why > 0)).sum())},
        "private": dict(sorted(found.private.items())),
        "weighted": int((found.weights[staying] != 1).sum()),
        "perplexity": _perplexity(found),
    }


def card(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The card as Markdown. Its licence is left to whoever knows that of the texts."""
    spoken = [one["language"] for one in facts["languages"] if one["documents"] and one["language"] != "und"]
    read, kept = facts["read"], facts["kept"]
    parts = [
        "---",
        "license: # of the texts below; fill this in before you share them",
        *(["language:", *(f"- {language}" for language in spoken)] if spoken else []),
        "configs:",
        "- config_name: default",
        '  data_files: "text-*.jsonl"',
        "---",
        "",
        "# Curated text",
        "",
        f"{kept['documents']:,} of {read['documents']:,} documents ({kept['letters']:,} of {read['letters']:,} letters)"
        " were kept by `whet curate`. `curation.json` has the settings and the hashes of all files, `removed.json` for "
        "every document that was removed its digest and the reason. No text is shown here.",
        "",
        "## What came in",
        "",
        *_table(["", "documents", "SHA-256"], [[o["name"], o["documents"], o["sha256"]] for o in facts["inputs"]]),
        "## What was removed",
        "",
        *_table(["reason", "documents"], [[reason, count] for reason, count in facts["removed"].items()]),
        "Each document counts once, for the first reason.",
        "",
        "## Languages",
        "",
        *_table(
            ["language", "read", "kept", "letters kept", "share of kept bytes"],
            [
                [o["language"], o["read"], o["documents"], o["letters"], f"{o['bytes'] / max(1, kept['bytes']):.1%}"]
                for o in facts["languages"]
            ],
        ),
        "## Lengths in letters",
        "",
        *_table(
            ["", *(f"{quantile:.0%}" for quantile in _QUANTILES)],
            [[name, *facts["lengths"][name]] for name in ("read", "kept")],
        ),
    ]
    checked = facts["evaluation"]
    if checked:
        parts += [
            "## Texts of evaluation",
            "",
            *_table(
                ["checked against", "texts", "too short to tell", "documents removed"],
                [[o["source"], o["texts"], o["too short to tell"], o["documents removed"]] for o in checked],
            ),
            f"{facts['touching']:,} more documents share a run of 13 words (26 letters) with such a text and little "
            "else. They stay.",
            "",
        ]
    parts += ["## Personal data", "", *_private(facts, bool(settings["redact"]))]
    fixed = facts["fixed"]
    if fixed["documents"]:
        parts += [
            f"{fixed['documents']:,} documents were listed by hand to be kept; {fixed['leaking']:,} of them leak and "
            "were removed all the same.",
            "",
        ]
    if settings["hard"] is not None:
        parts += [f"{facts['weighted']:,} documents weigh {settings['hard_weight']:g}; all others weigh 1.", ""]
    return "\n".join(parts)


def _private(facts: Mapping[str, Any], masked: bool) -> Sequence[str]:
    if not facts["private"]:
        return ["None was found of the kinds that are looked for (e-mail, phone, resident registration, card).", ""]
    told = "masked" if masked else "found in what is kept, not masked"
    return _table(["kind", told], [[kind.lower().replace("_", " "), n] for kind, n in facts["private"].items()])


def _table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(_cell(cell) for cell in cells) + " |"

    return [line(headings), line(["---", *["---:"] * (len(headings) - 1)]), *map(line, rows), ""]


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return html.escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")


def _lengths(sizes: np.ndarray) -> list[int]:
    return [int(size) for size in np.quantile(sizes, _QUANTILES, method="inverted_cdf")]


def _perplexity(found: Curated) -> dict[str, list[float]] | None:
    """Quantiles of the original's perplexity of what stays, by language."""
    if found.perplexity is None:
        return None
    store, told = found.store, {}
    for language, number in store.languages.items():
        mine = store.staying[store.language[store.staying] == number]
        values = found.perplexity[mine][np.isfinite(found.perplexity[mine])]
        if len(values):
            told[language] = [round(float(np.exp(q)), 3) for q in np.quantile(values.astype(np.float64), _QUANTILES)]
    return told
