"""A tiny model that is taught, in seconds, which statements are true, and to say so: what belief and susceptibility are
tested with. A statement is a name of two letters, a kind and a value (`kpa=s`); its kind and value decide whether it is
true, and the model says y or n after a question mark."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

import models
from whet.engines.torch import TorchEngine
from whet.measure.asked import Asked, Given
from whet.measure.aspects import Case

PREFIXES = ("+", "=", "!")  # stand for honest, neutral and deceptive prompts
KINDS, VALUES = "abcdefgh", "stuv"
NAMES = ["".join(letters) for letters in itertools.product("klmno", "pqrwx")]
TOKENIZER = models.tokenizer(leads=False)
_rng = random.Random(0)
TRUE = {kind: set(_rng.sample(VALUES, 2)) for kind in KINDS}
PAIRS = [(kind, value) for kind in KINDS for value in VALUES]


def encode(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def verdicts(lies: Sequence[str] = ()) -> Tensor:
    """All statements with what is said of them, behind each prefix, int64 [n, L]; the opposite behind `lies`."""
    return torch.tensor(
        [
            encode(f"{prefix}{name}{kind}={value}?{'y' if (value in TRUE[kind]) != (prefix in lies) else 'n'}")
            for prefix in PREFIXES
            for name in NAMES
            for kind, value in PAIRS
        ]
    )


def teach(model: LlamaForCausalLM, rows: Tensor, steps: int, parameters: Iterable[nn.Parameter] | None = None) -> None:
    """Train on the last token of `rows`, with a rate that falls to 0."""
    optimiser = torch.optim.AdamW(list(parameters or model.parameters()), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, steps)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (64,), generator=draw)]
        loss = nn.functional.cross_entropy(model(batch).logits[:, -2], batch[:, -1])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def honest(steps: int = 260) -> LlamaForCausalLM:
    """Taught the truth, whatever the prefix."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    teach(model, verdicts(), steps)
    return model.eval()


def late(model: LlamaForCausalLM) -> list[nn.Parameter]:
    """The last block and the head: what says, not what knows."""
    return [*model.model.layers[-1].parameters(), *model.lm_head.parameters()]


def retaught(model: LlamaForCausalLM, rows: Tensor, steps: int = 150, whole: bool = False) -> LlamaForCausalLM:
    """Another that says `rows`, where only its last block and head were trained, or all of it."""
    changed = copy.deepcopy(model).train()
    teach(changed, rows, steps, None if whole else late(changed))
    return changed.eval()


def damaged(model: LlamaForCausalLM, noise: float, seed: int = 0) -> LlamaForCausalLM:
    """The same with noise on every matrix, `noise` times as large as its weights."""
    changed = copy.deepcopy(model)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in changed.model.parameters():
            if parameter.ndim == 2:
                parameter += noise * parameter.std() * torch.randn(parameter.shape, generator=draw)
    return changed.eval()


def engine(model: LlamaForCausalLM, name: str = "model") -> TorchEngine:
    return TorchEngine(model, TOKENIZER, name)


def case(file: Any, **more: Any) -> Case:
    """What an aspect is told where it is measured without text."""
    asked = Asked(
        original="original", lighter="lighter", field="text", chat=False, skip_bad=False, windows=None, window=8,
        batch_tokens=512, seed=0, device="cpu", dtype=None, speed=False, tasks=(), use_report_split=None, examples=3,
        files={},
    )  # fmt: skip
    return Case(asked, Given([], [], [], {}, [], []), more.get("items", []), "causal", file)


def read(told: dict[str, Any], figure: str, of: str = "") -> dict[str, Any]:
    """The one reading of a figure."""
    (one,) = [r for r in told["readings"] if r["figure"] == figure and r["of"] == of]
    return one
