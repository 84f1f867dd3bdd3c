"""Facts for the tests of the report. Every number is made up; only the shapes are those of real output.

Ten skills named as those of the embedded model, six blocks. `facts()` has everything; what a user or a model may have
written (a prompt, an answer, a skill's name, a note) carries `HOSTILE`.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

from whet.messages import Message, to_json

HOSTILE = "<script>alert(1)</script>"
SKILLS = (
    "arithmetic_en",
    "arithmetic_ko",
    "logic_ordering",
    "logic_syllogism",
    "facts",
    "translation_words",
    "translation_sentences",
    "format",
    "grammar_en",
    "grammar_ko",
)
ROLES = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj"}
ROLES |= {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
BLOCKS, PARAMETERS = 6, 4_590_848
MIX = ("int2z-g32", "int3-g32", "int4-g64", "int5-g64", "int6-g128", "int8-g64")


def facts() -> dict[str, Any]:
    """Everything a report can be given."""
    return {
        "compare": compare(),
        "plan": plan(),
        "scores": scores(),
        "lighter": {"base_model": {"name": "tiny-bilingual", "sha256": "a38f5eab5b2cc6b7" * 4}, "linears": {}}
        | {"lineage": [{"step": "prune"}, {"step": "distill", "training": {"steps": 400, "held_out": held_out()}}]},
        "run": {"seconds": 312.4, "memory": 1_310_000_000, "environment": environment()},
        "loading": loading(),
        "steps": steps(),
    }


def held_out() -> dict[str, Any]:
    """What a training lost on held-out text."""
    curve = [[0, 0.0466], [100, 0.031], [200, 0.0263], [300, 0.0247], [400, 0.0251]]
    return {"start": 0.0466, "best": 0.0247, "error": 0.001, "step": 300, "helped": True, "curve": curve}


def steps() -> list[dict[str, Any]]:
    """Steps of a recipe's run with every outcome."""

    def tried(verdict: str, value: float | None, **options: object) -> dict[str, Any]:
        judged = [{"figure": "kl", "at": 0.1, "value": value, "interval": None, "verdict": verdict, "reason": ""}]
        gate = {"verdict": verdict, "judgements": judged, "reason": ""}
        return {"options": options, "gate": gate, "bytes": 3_400_000, "seconds": 61.0}

    first = {"options": {"kind": "awq", "text": "corpus.txt"}, "bytes": 9_200_000, "seconds": 12.0}
    return [
        {"step": 1, "craft": "transform", "outcome": "kept", "attempts": [first], "result": {}},
        {
            "step": 2,
            "craft": "quantize",
            "outcome": "kept",
            "attempts": [tried("fail", 0.4, bits=2.5), tried("pass", 0.03, bits=3.5)],
            "result": {},
        },
        {"step": 3, "craft": "masks", "outcome": "skipped", "attempts": [tried("fail", 0.3)], "result": {}},
        {"step": 4, "craft": "masks", "outcome": "stopped", "attempts": [tried("fail", 0.3)], "result": {}},
        {"step": 5, "craft": "masks", "outcome": "undecided", "attempts": [tried("undecided", None)], "result": {}},
        {"step": 6, "craft": "export", "outcome": "not reached", "attempts": [], "result": {}},
    ]


def aspects() -> dict[str, Any]:
    """One aspect with everything that an aspect can tell."""
    read = {"figure": "share", "of": HOSTILE, "value": 0.912, "interval": [0.905, 0.918], "exact": False}
    alone = {"original": 1.0, "lighter": 0.912}
    about = to_json(Message("The drafted token is rejected."))
    example = {"about": about, "prompt": HOSTILE, "original": HOSTILE, "lighter": ""}
    return {
        "acceptance": {
            "readings": [{**read, **alone}, {**read, "of": "", "interval": None, "original": None, "lighter": None}],
            "examples": [example],
            "notes": [HOSTILE],
            "tokens_a_verification": {"1": 1.912},
        }
    }


def compare(verdict: str = "inconclusive") -> dict[str, Any]:
    rng = Random(1)
    skills = [_skill(name, rng) for name in SKILLS]
    judgements = [
        _judgement("max_kl", 0.1, 0.01174, [0.01121, 0.01227], "pass"),
        _judgement("min_top1", 0.85, 0.9124, [0.9098, 0.9150], "pass"),
        _judgement("max_ppl_ratio", 1.1, 1.0121, [1.0107, 1.0135], "pass"),
    ]
    for entry in skills:
        kept = entry["retention"]
        low = kept["interval"][0] if kept["interval"] else None
        state = "not judged" if low is None else "pass" if low >= 0.95 else "inconclusive"
        judgements.append(_judgement("min_retention", 0.95, kept["value"], kept["interval"], state, entry["skill"]))
    sizes = {
        "original": _size(7_077_888, 2_097_152, 9_187_752),
        "lighter": _size(1_590_432, 606_224, 2_223_344),
    }
    return {
        "format": "whet.compare",
        "version": 1,
        "verdict": verdict,
        "judgements": judgements,
        "limits": {"max_kl": 0.1, "min_top1": 0.85, "max_ppl_ratio": 1.1, "min_retention": 0.95},
        "original": "/models/tiny-bilingual",
        "lighter": "/models/lighter",
        "text": {
            "source": f"held-out {HOSTILE}.txt",
            "fingerprint": "e582fd889ca31d77" * 4,
            "part": "report",
            "split_by": "documents",
            "documents": 1000,
            "documents_used": 1000,
            "windows": 1000,
            "window": 256,
            "tokens": 55_791,
            "clusters": 1000,
            "clustered_by": "documents",
        },
        "divergence": {
            "tokens": 54_791,
            "clusters": 1000,
            "confidence": 0.95,
            "kl": {
                "mean": 0.01174,
                "standard_error": 0.00027,
                "interval": [0.01121, 0.01227],
                "percentiles": {
                    "p50": 0.00052,
                    "p90": 0.0271,
                    "p95": 0.0523,
                    "p99": 0.153,
                    "p99.9": 0.642,
                    "max": 3.917,
                },
            },
            "top1": {"mean": 0.9124, "standard_error": 0.0013, "interval": [0.9098, 0.9150]},
            "perplexity": {
                "original": 2.3336,
                "lighter": 2.3619,
                "ratio": {"value": 1.0121, "interval": [1.0107, 1.0135]},
                "log_ratio": {"value": 0.01203, "standard_error": 0.0007},
            },
        },
        "skills": skills,
        "tasks": [],
        "aspects": aspects(),
        "size": {**sizes, "shrink": sizes["original"]["total"] / sizes["lighter"]["total"]},
        "speed": {
            "runtime": "torch",
            "rounds": 5,
            "prompt_tokens": 128,
            "decoded_tokens": 32,
            "prefill": _speed(9132.0, 9331.0, [0.97, 1.06]),
            "decode": _speed(189.0, 171.0, [0.88, 0.93]),
        },
        "memory": {
            "original": {"load_seconds": 0.48, "peak_bytes": 428_187_648, "before_bytes": 380_719_104},
            "lighter": {"load_seconds": 0.55, "peak_bytes": 430_419_968, "before_bytes": 380_387_328},
        },
        "notes": [
            "The lighter folder needs its own modelling file: stock transformers loads it with trust_remote_code=True, "
            f"whet loads it without. {HOSTILE}"
        ],
        "options": {"seed": 0, "device": "cpu", "dtype": ["bfloat16", "bfloat16"], "batch_tokens": 2048},
        "environment": environment(),
        "seconds": 118.3,
    }


def plan() -> dict[str, Any]:
    rng = Random(2)
    schemes = {_address(block, role): rng.choice(MIX[1:5]) for block in range(BLOCKS) for role in ROLES}
    schemes[_address(0, "v")] = schemes[_address(5, "down")] = "int8-g64"
    schemes[_address(3, "gate")] = "int2z-g32"
    schemes[_address(5, "o")] = "keep"
    schemes["model.embed_tokens"] = "int4-g32"
    frontier = [(bits, 1.9 * 4**-bits * (1 + 9 * math.exp(-(bits - 2) * 1.9))) for bits in _range(2.3, 8.0, 0.3)]
    uniform = [(bits + 0.5, 3.1 * 4**-bits * (1 + 9 * math.exp(-(bits - 2) * 1.6))) for bits in (2, 3, 4, 5, 6, 8)]
    total = {address: rng.lognormvariate(0, 1.2) for address in schemes}
    scale = 0.0109 / sum(total.values())
    return {
        "format": "whet.plan",
        "version": 1,
        "model": {"name": "tiny-bilingual", "sha256": "a38f5eab5b2cc6b7" * 4},
        "target": "whet",
        "solver": "gptq",
        "budget": {"kind": "bits", "asked": "3.8", "bytes": 2_180_653, "value": 3.8},
        "schemes": schemes,
        "predicted": {
            "bytes": 2_179_904,
            "bits": 8 * 2_179_904 / PARAMETERS,
            "kl": 0.0109,
            "by_part": {address: scale * value for address, value in total.items()},
        },
        "measured": [
            _round(2_179_448, 0.0094, 0.0137, 0.903, rng),
            _round(2_180_112, 0.0112, 0.0121, 0.909, rng),
            _round(2_179_904, 0.0109, 0.0113, 0.912, rng),
        ],
        "gap": {"bound": 0.01087, "relative": 0.0021},
        "frontier": [{"bytes": round(b * PARAMETERS / 8), "bits": b, "kl": kl} for b, kl in frontier],
        "uniform": [
            {
                "scheme": f"int{int(b)}-g32",
                "embed": f"int{int(b)}-g32",
                "bytes": round(b * PARAMETERS / 8),
                "bits": b,
                "kl": kl,
            }
            for b, kl in uniform
        ],
        "left_out": [
            to_json(Message("{target} fuses {roles}: they have one scheme.", target="whet", roles=f"q {HOSTILE}")),
            "Groups of 48: no row of this model divides by it.",
        ],
        "scorer": "gradient",
        "text": None,
        "notes": [
            to_json(Message("copied unchanged, as no table names them: {names}", names=HOSTILE)),
            "Round 2 changed 5 of 43 parts.",
        ],
    }


def scores() -> dict[str, Any]:
    rng = Random(3)
    blocks = []
    for index in range(BLOCKS):
        depth = 1 / (1 + index) + 0.15 * index
        skills = {
            name: 1e-5 * depth * rng.lognormvariate(0, 0.7) * (1 + (place == 2 * index))
            for place, name in enumerate(SKILLS)
        }
        languages = {"en": 2e-5 * depth * rng.lognormvariate(0, 0.2), "ko": 3e-5 * depth * rng.lognormvariate(0, 0.3)}
        outliers = [{"address": _address(index, "down"), "ratio": 412.0, "channel": 77, "token": "<|bos|>"}] * (
            index == 1
        )
        blocks.append(
            {
                "index": index,
                "influence": 0.08 + 0.3 / (1 + index),
                "sensitivity": sum(skills.values()) / 3,
                "skills": skills,
                "languages": languages,
                "outliers": outliers,
            }
        )
    parts = [
        {"address": _address(block, role), "role": role, "block": block, "shape": [256, 256]}
        for block in range(BLOCKS)
        for role in ROLES
    ]
    parts.append({"address": "model.embed_tokens", "role": "embedding", "block": None, "shape": [4096, 256]})
    return {
        "format": "whet.scores",
        "version": 1,
        "model": {"name": "tiny-bilingual", "sha256": None},
        "text": {},
        "tokens": 25_685,
        "seconds": 41.2,
        "parts": parts,
        "blocks": blocks,
        "skills": list(SKILLS),
    }


def loading() -> list[dict[str, str]]:
    code = (
        "from transformers import AutoModelForCausalLM\n\n"
        'model = AutoModelForCausalLM.from_pretrained("lighter", trust_remote_code=True)'
    )
    return [
        {"runtime": "whet", "checked": "run here", "how": 'whet generate lighter "Once upon a time"'},
        {"runtime": "transformers", "checked": "run in tests", "how": code},
        {"runtime": "vllm", "checked": "accepted by its parser", "how": "vllm serve lighter"},
        {"runtime": "onnx", "checked": "unsupported", "how": "It has no kernel for 3 bits."},
    ]


def environment() -> dict[str, Any]:
    return {
        "machine": "x86_64",
        "system": "Linux-6.1-x86_64-with-glibc2.36",
        "processor": "AMD EPYC",
        "cores": 2,
        "threads": 1,
        "gpu": None,
        "python": "3.11.7",
        "torch": "2.13.0+cpu",
        "transformers": "5.23.0",
        "whet": "0.1.0",
    }


def _address(block: int, role: str) -> str:
    return f"model.layers.{block}.{ROLES[role]}"


def _range(low: float, high: float, step: float) -> list[float]:
    return [round(low + i * step, 3) for i in range(round((high - low) / step) + 1)]


def _round(count: int, predicted: float, measured: float, top1: float, rng: Random) -> dict[str, Any]:
    retention = {name: 1 - 0.03 * rng.random() for name in SKILLS}
    return {
        "bytes": count,
        "predicted_kl": predicted,
        "measured_kl": measured,
        "top1": top1,
        "retention": retention,
    }


def _judgement(
    limit: str, at: float, value: float | None, interval: list[float] | None, verdict: str, of: str = ""
) -> dict[str, Any]:
    found = {"limit": limit, "at": at, "of": of, "value": value, "interval": interval, "verdict": verdict}
    return {**found, "reason": f"{limit}: made up."}


def _size(linears: int, embedding: int, weights: int) -> dict[str, int]:
    tensors = {"linears": linears, "embedding": embedding, "head": 0, "other": 6656}
    return {**tensors, "weights": weights, "tokenizer": 292_003, "total": weights + 292_003 + 7_186}


def _speed(original: float, lighter: float, spread: list[float]) -> dict[str, Any]:
    ratio = {"value": lighter / original, "spread": spread}
    return {"unit": "tokens/s", "original": original, "lighter": lighter, "ratio": ratio}


def _skill(name: str, rng: Random) -> dict[str, Any]:
    items, chance = 1000, 0.25 if name.startswith(("logic", "grammar")) else 0.0
    right = rng.randint(650, 998)
    lost = {"arithmetic_ko": 41, "grammar_en": 27}.get(name, rng.randint(1, 12))
    gained = rng.randint(0, 10)
    above = right / items - chance
    kept, error = (right + gained - lost) / items - chance, 1.96 * math.sqrt(lost + gained) / items / above
    retention: dict[str, Any] = {"value": kept / above, "reason": None}
    retention["interval"] = [kept / above - error, kept / above + error]
    if name == "logic_ordering":
        retention = {"value": None, "interval": None, "reason": "the original's accuracy is not above chance"}
    korean = name.endswith("_ko")
    prompt = "91에 92를 더하세요.\n답:" if korean else f"Take 78 away from 80. {HOSTILE}\nAnswer:"
    before, after = ("183", "193") if korean else ("2", f"1 {HOSTILE}")
    p = 0.0004 if name == "arithmetic_ko" else 0.013 if name == "grammar_en" else min(1.0, rng.uniform(0.1, 3))
    return {
        "skill": name,
        "items": items,
        "groups": items - 30 if name.startswith("arithmetic") else items,
        "chance": chance,
        "original": {"right": right, "accuracy": right / items, "interval": [0, 1], "accuracy_normalized": None},
        "lighter": {"right": right, "accuracy": (right + gained - lost) / items, "interval": [0, 1]},
        "retention": retention,
        "flips": {
            "lost": lost,
            "gained": gained,
            "share": (lost + gained) / items,
            "lost_examples": [{"prompt": prompt, "expected": before, "original": before, "lighter": after}] * 2,
            "gained_examples": [{"prompt": prompt, "expected": before, "original": "", "lighter": before}]
            * min(1, gained),
        },
        "mcnemar_p": p / 10,
        "holm_p": p,
    }
