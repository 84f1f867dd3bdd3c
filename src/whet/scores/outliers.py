"""Activation outliers: inputs of a linear whose largest value is far above the usual one, on which tokens and channel.

GLU models spike in `down_proj` inputs of early and late blocks, on a few tokens such as the first (Yang et al.,
"Mitigating quantization errors due to activation spikes in GLU-based LLMs", arXiv 2405.14428, which this ratio is
from): harmless to weights-only schemes, ruinous to activations of 8 bits or fewer with one scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SPIKE = 20.0  # a ratio that is worth a warning


@dataclass
class Outlier:
    """The largest input of one linear: its value, channel, token id and position in its row; medians of the rest."""

    largest: float
    channel: int
    token: int
    position: int
    medians: list[Tensor]

    @property
    def ratio(self) -> float:
        """Largest absolute input over the median of the tokens' largest ones."""
        usual = float(torch.cat(self.medians).median())
        return self.largest / usual if usual > 0 else 1.0


class Outliers:
    """Collects the largest inputs by address of the first linear that reads them."""

    def __init__(self) -> None:
        self.found: dict[str, Outlier] = {}

    def add(self, address: str, x: Tensor, tokens: Tensor, sent: Tensor | None = None) -> None:
        """Add inputs `x [b · L, in]` of `tokens [b, L]`; or `[n, in]`, of those at the places `sent [n]` of all."""
        by_token, channels = x.detach().abs().max(-1)
        by_token = by_token.float()
        place = int(by_token.argmax())
        largest = float(by_token[place])
        medians = self.found[address].medians if address in self.found else []
        medians.append(by_token.cpu())
        if address not in self.found or largest > self.found[address].largest:
            row, position = divmod(place if sent is None else int(sent[place]), tokens.shape[1])
            token, channel = int(tokens[row, position]), int(channels[place])
            self.found[address] = Outlier(largest, channel, token, position, medians)

    def table(self) -> dict[str, dict[str, Any]]:
        """By address: ratio, largest, channel, token (id), position."""
        return {
            address: {
                "ratio": outlier.ratio,
                "largest": outlier.largest,
                "channel": outlier.channel,
                "token": outlier.token,
                "position": outlier.position,
            }
            for address, outlier in self.found.items()
        }
