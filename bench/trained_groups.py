"""GPTQ beside rounding to nearest on models that were taught something: one briefly trained tiny model a group.

Random weights are a poor judge: what blocks compute is noise. Here a model of each way of building blocks (dense,
parallel, norms after, experts of two layouts, recurrent, encoder) is trained for up to a minute on sums and short
sentences in two languages, then rounded to `int3s-g32` by both. KL to the trained original is measured on other text,
and so is what the original itself is short of: its cross-entropy, in nats a token.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

import whet
from evaluation import table
from tiny_families import config
from tiny_models import documents, tokenizer

# Group -> a family of it.
GROUPS = {
    "dense": "llama",
    "parallel block": "gpt_neox",
    "norms after": "olmo2",
    "experts, listed in files": "olmoe",
    "experts, stacked and alternating": "gpt_oss",
    "recurrent, with attention": "lfm2",
    "encoder": "bert",
}
WINDOW, BATCH, RATE = 64, 16, 3e-3
MASKED = 0.15  # of the tokens that an encoder has to fill in


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="bench-out/trained-groups")
    parser.add_argument("--seconds", type=float, default=30.0, help="of training, each")
    parser.add_argument("--groups", nargs="+", default=list(GROUPS))
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rows = []
    for group in args.groups:
        folder = Path(args.out) / GROUPS[group]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rows.append([group, f"`{GROUPS[group]}`", *judged(folder, GROUPS[group], args.seconds)])
        print(" | ".join(rows[-1]), flush=True)
    print(table(["group", "`model_type`", "cross-entropy", "GPTQ", "nearest", "ratio"], rows))


def judged(folder: Path, family: str, seconds: float) -> list[str]:
    """Cross-entropy of the trained model, KL after either solver, and the ratio of the two."""
    entropy = taught(folder / "m", family, seconds)
    asked: dict[str, Any] = {"text": documents(200, 1), "samples": 64, "window": WINDOW}
    kl = []
    for solver in ("gptq", "nearest"):
        whet.compress(folder / "m", folder / solver, scheme="int3s-g32", target="whet", solver=solver, **asked)
        held = whet.compare(folder / "m", folder / solver, text=documents(60, 2), window=WINDOW, speed=False)
        kl.append(held["divergence"]["kl"]["mean"])
    return [f"{entropy:.3f}", f"{kl[0]:.5f}", f"{kl[1]:.5f}", f"{kl[0] / kl[1]:.2f}"]


def taught(folder: Path, family: str, seconds: float) -> float:
    """Train a tiny model for so long and save it; returns the mean loss of its last steps."""
    torch.manual_seed(0)
    masked = family == "bert"
    kind = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    model: PreTrainedModel = kind.from_config(config(family, pad_token_id=1), dtype=torch.float32)
    words = tokenizer()
    words.mask_token = "~"  # a sign that the text does not have
    text = torch.tensor(words("\n\n".join(documents(4000, 0)))["input_ids"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    begun, losses = time.monotonic(), list[float]()
    while (passed := time.monotonic() - begun) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, 1.05 - passed / seconds)
        starts = torch.randint(len(text) - WINDOW, (BATCH,))
        batch = torch.stack([text[start : start + WINDOW] for start in starts])
        loss = model(**given(batch, words.mask_token_id if masked else None)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    model.eval().save_pretrained(folder)
    words.save_pretrained(folder)
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


def given(batch: Tensor, mask: int | None) -> dict[str, Tensor]:
    """What the model is given to learn from: the next token, or those that are hidden behind `mask`."""
    if mask is None:
        return {"input_ids": batch, "labels": batch}
    hidden = torch.rand(batch.shape) < MASKED
    return {"input_ids": batch.masked_fill(hidden, mask), "labels": batch.masked_fill(~hidden, -100)}


if __name__ == "__main__":
    main()
