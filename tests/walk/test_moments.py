"""Second moments of inputs wide enough to be summed up piece by piece, by brute force."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from whet.walk import SecondMoments


@pytest.mark.parametrize("width", [1, 5, 192, 193, 500, 777])
def test_pieces_of_the_triangle_make_the_whole(width):
    moments = SecondMoments([SimpleNamespace(address="model.layers.0.mlp.down_proj", reads="x")], "model.layers.0.")
    generator = torch.Generator().manual_seed(width)
    batches = [torch.randn(tokens, width, generator=generator) for tokens in (30, 1, 64)]
    for x in batches:
        moments.add("x", x)
        moments.tokens += len(x)
    everything = torch.cat(batches).double()
    expected = (everything.t() @ everything / len(everything)).float()
    for _ in range(2):  # looking does not change it
        h = moments.mean("x")
        torch.testing.assert_close(h, expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(h, h.t())


def test_inputs_whose_sum_overflows_are_not_mistaken_for_infinite_ones():
    moments = SecondMoments([SimpleNamespace(address="model.layers.0.mlp.down_proj", reads="x")], "model.layers.0.")
    moments.add("x", torch.full((2, 4), 3e38))
