"""Measures of masks: density of each attention head, concentration of rows, overlap of two sets of masks."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["concentration", "head_density", "overlap"]


def head_density(query: Tensor, key: Tensor, value: Tensor, output: Tensor, heads: int) -> Tensor:
    """Fraction kept of each attention head: its rows in query, key and value, its columns in the output matrix.

    All masks are (width, width), true where kept; the result is float64, (heads,).
    """
    inputs = sum(mask.double().reshape(heads, -1).sum(dim=1) for mask in (query, key, value, output.T))
    return torch.as_tensor(inputs) / (4 * query.numel() / heads)


def concentration(mask: Tensor) -> float:
    """Variance of the number of entries kept in a row, divided by its variance under a random mask of equal density.

    Under the random mask that number is hypergeometric. NaN for a mask that keeps all entries or none.
    """
    rows, length = mask.shape
    kept, total = int(mask.count_nonzero()), mask.numel()
    chance = length * (kept / total) * (1 - kept / total) * (total - length) / (total - 1)
    mean = kept / rows
    observed = float(((mask.double().sum(dim=1) - mean) ** 2).sum()) / rows
    return observed / chance if chance > 0 else float("nan")


def overlap(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Jaccard index of two sets of masks of pairwise equal shapes: entries kept by both over entries kept by either."""
    pairs = list(zip(first, second, strict=True))
    both = sum(int((A.bool() & B.bool()).sum()) for A, B in pairs)
    either = sum(int((A.bool() | B.bool()).sum()) for A, B in pairs)
    return both / either
