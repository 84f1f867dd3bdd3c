"""Random Hadamard rotations of any size (QuaRot, Ashkboos et al. 2024, arXiv 2404.00456).

A rotation spreads what is large in one channel over all of them. Of a size 2^k m with m odd it is the Kronecker
product of a random orthogonal m × m matrix and Sylvester's Hadamard matrix of 2^k, with random signs: every entry is
small where m is, and no table of matrices is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor


def random_hadamard(size: int, seed: int) -> Tensor:
    """An orthogonal matrix `[size, size]`, float64, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    odd = size // (size & -size)
    found = torch.ones(1, 1, dtype=torch.float64)
    while len(found) < size // odd:
        found = torch.cat([torch.cat([found, found], 1), torch.cat([found, -found], 1)])
    found = found / len(found) ** 0.5
    if odd > 1:
        drawn = torch.randn(odd, odd, dtype=torch.float64, generator=generator)
        basis, upper = torch.linalg.qr(drawn)
        found = torch.kron((basis * upper.diagonal().sign()).contiguous(), found)
    return found * (2.0 * torch.randint(0, 2, (size,), generator=generator) - 1)
