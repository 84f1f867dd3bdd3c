"""Books: the values the field has, and the nearest of them whatever comes."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.quantization.quant_args import FP4_E2M1_DATA

from whet.grids.books import book
from whet.grids.table import IQ4, NF4

BOOKS = {"e4m3": "e4m3", "e5m2": "e5m2", "e2m1": "e2m1", "nf4": NF4, "iq4": IQ4}
CPU = torch.device("cpu")


def numbers(name: str) -> torch.Tensor:
    """Numbers all over a book's range and beyond, its values and the borders between them."""
    values = book(BOOKS[name], CPU).values
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randn(4000, generator=generator).mul(6).exp()
    spread = torch.randn(4000, generator=generator) * values[-1] / 3
    return torch.cat([spread, sizes, -sizes, values, (values[1:] + values[:-1]) / 2])


@pytest.mark.parametrize(
    "name,count,top",
    [("e4m3", 253, 448), ("e5m2", 247, 57344), ("e2m1", 15, 6), ("nf4", 16, 1), ("iq4", 16, 113)],
)
def test_a_book_has_each_finite_value_once_in_order(name, count, top):
    found = book(BOOKS[name], CPU)
    assert len(found.values) == len(found.stored) == count and found.top == top
    assert (found.values[1:] > found.values[:-1]).all()
    if found.zero < 0:
        assert (found.values != 0).all() and name == "iq4"
    else:
        assert found.values[found.zero] == 0 and not found.values[found.zero].signbit()


@pytest.mark.parametrize("name", BOOKS)
def test_the_code_is_that_of_the_nearest_value(name):
    found, x = book(BOOKS[name], CPU), numbers(name)
    codes = found.codes(x)
    assert codes.dtype == torch.float32 and (codes == codes.round()).all()
    distance = (found.value(codes) - x).abs()
    least = (found.values[None].double() - x[:, None].double()).abs().amin(1)
    # of two that are equally near either will do
    assert torch.allclose(distance.double(), least, rtol=1e-5, atol=1e-7)
    assert torch.equal(found.codes(found.values), torch.arange(len(found.values)).float())
    out = torch.empty_like(x)
    assert torch.equal(found.codes(x, out=out), codes) and torch.equal(out, codes)


@pytest.mark.parametrize("name", ["e2m1", "nf4", "iq4"])
def test_a_small_book_is_searched_exactly(name):
    """On the very borders and the numbers next to them, too."""
    found = book(BOOKS[name], CPU)
    borders = (found.values[1:] + found.values[:-1]) / 2
    ends = torch.tensor([-torch.inf, torch.inf])
    x = torch.cat([numbers(name), borders, borders.nextafter(ends[0]), borders.nextafter(ends[1]), ends])
    assert torch.equal(found.codes(x), torch.bucketize(x, borders).float())


@pytest.mark.parametrize("name", BOOKS)
def test_infinite_quotients_are_the_ends(name):
    found = book(BOOKS[name], CPU)
    assert found.codes(torch.tensor([-torch.inf, torch.inf])).tolist() == [0, len(found.values) - 1]


@pytest.mark.parametrize("name,dtype", [("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)])
def test_fp8_is_what_torch_casts_to(name, dtype):
    found, x = book(BOOKS[name], CPU), numbers(name)
    x = x.clamp(-found.top, found.top)
    assert torch.equal(found.value(found.codes(x)), x.to(dtype).float())
    assert torch.equal(found.stored.view(dtype).float(), found.values)


def test_fp4_is_what_compressed_tensors_casts_to():
    found, x = book("e2m1", CPU), numbers("e2m1")
    borders = (found.values[1:] + found.values[:-1]) / 2
    x = x[~torch.isin(x, borders)]
    assert torch.equal(found.value(found.codes(x)), FP4_E2M1_DATA.cast_to_fp4(x.clone()))


def test_nf4_has_the_quantiles_of_the_paper():
    """QLoRA (arXiv 2305.14314), appendix E: evenly spaced quantiles of a Gaussian, eight above zero and seven below."""
    offset = 0.9677083  # as bitsandbytes computes it: the mean of 1 - 1/32 and 1 - 1/30, cut off
    above = torch.special.ndtri(torch.linspace(offset, 0.5, 9, dtype=torch.float64)[:-1])
    below = -torch.special.ndtri(torch.linspace(offset, 0.5, 8, dtype=torch.float64)[:-1])
    values = torch.cat([above, below, torch.zeros(1, dtype=torch.float64)]).sort().values
    mine = book(NF4, CPU).values
    assert torch.allclose(mine.double(), values / values.abs().max(), atol=2e-7)
