"""What masks look like: how much of each head is left, how uneven the rows are, what two sets of masks share."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["concentration", "head_density", "overlap"]


def head_density(query: Tensor, key: Tensor, value: Tensor, output: Tensor, heads: int) -> Tensor:
    """Fraction kept of each attention head: of its rows in three masks and its columns in the fourth.

    All masks are (width, width), true where kept; the result is float64, (heads,).
    """
    inputs = sum(mask.double().reshape(heads, -1).sum(dim=1) for mask in (query, key, value, output.T))
    return torch.as_tensor(inputs) / (4 * query.numel() / heads)


def concentration(mask: Tensor) -> float:
    """Variance of the numbers kept in a mask's rows, over that of a random mask with as many entries kept.

    The latter is hypergeometric. A mask that keeps all or nothing has no such variance: NaN.
    """
    rows, length = mask.shape
    kept, total = int(mask.count_nonzero()), mask.numel()
    chance = length * (kept / total) * (1 - kept / total) * (total - length) / (total - 1)
    mean = kept / rows
    seen = float(((mask.double().sum(dim=1) - mean) ** 2).sum()) / rows
    return seen / chance if chance > 0 else float("nan")


def overlap(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Jaccard index of two sets of masks, of equal shapes in turn: kept by both over kept by either."""
    pairs = list(zip(first, second, strict=True))
    both = sum(int((A.bool() & B.bool()).sum()) for A, B in pairs)
    either = sum(int((A.bool() | B.bool()).sum()) for A, B in pairs)
    return both / either
