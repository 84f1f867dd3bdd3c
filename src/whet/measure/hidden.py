"""Hidden states of texts by layer, and what the model's own head reads from them (the logit lens)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whet.anatomy import family_of
from whet.engines.torch import TorchEngine
from whet.measure.statistics import Floats
from whet.text import batch_indices

TOKENS_AT_ONCE = 2048


@dataclass(frozen=True)
class Read:
    """Of each text its states after the last token, `states` [n, layers, d] (float32), and the log-likelihood of its
    tokens after the first as the head reads them from each layer, `lens` [n, layers]; None where the model's last norm
    is not known. Layer 0 is the embedding, layer i what block i leaves, and the last has gone through the last norm."""

    states: NDArray[np.float32]
    lens: Floats | None


def read_states(
    engine: TorchEngine, texts: Sequence[str], layers: Sequence[int], on_step: Callable[[], None] = lambda: None
) -> Read:
    """Run `texts` through the model, equal lengths together. layers: which of 0 to the number of blocks."""
    rows = [engine.encode(text) for text in texts]
    states = np.zeros((len(texts), len(layers), engine.model.config.get_text_config().hidden_size), np.float32)
    norm = last_norm(engine)
    lens = None if norm is None else np.zeros((len(texts), len(layers)))
    head: Any = engine.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    groups = batch_indices([len(row) for row in rows], TOKENS_AT_ONCE)
    for group in groups:
        batch = torch.tensor([rows[i] for i in group], device=engine.device)
        with torch.inference_mode():
            hidden = engine.model(input_ids=batch, output_hidden_states=True, use_cache=False).hidden_states
            for place, layer in enumerate(layers):
                states[group, place] = hidden[layer][:, -1].float().cpu().numpy()
                if norm is not None and lens is not None:
                    state = hidden[layer][:, :-1]
                    lens[group, place] = _likelihood(head(state if layer == len(hidden) - 1 else norm(state)), batch)
        on_step()
    return Read(states, lens)


def steps_of(engine: TorchEngine, texts: Sequence[str]) -> int:
    """How often `read_states` reports a step."""
    return len(batch_indices([len(engine.encode(text)) for text in texts], TOKENS_AT_ONCE))


def layers_of(engine: TorchEngine) -> int:
    """How many blocks the model has."""
    return int(engine.model.config.get_text_config().num_hidden_layers)


def last_norm(engine: TorchEngine) -> Any:
    """The norm before the head, as the model's family names it; None where that is not known."""
    family = family_of(engine.model.config.to_dict())
    try:
        return None if family is None or not family.norm else engine.model.get_submodule(family.norm)
    except AttributeError:
        return None


def _likelihood(logits: Tensor, batch: Tensor) -> NDArray[np.float64]:
    shares = torch.log_softmax(logits.float(), -1).gather(-1, batch[:, 1:, None])[..., 0]
    return np.asarray(shares.double().sum(-1).cpu())
