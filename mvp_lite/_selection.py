"""Exact selection of the k largest entries, fast: the same entries on CPU and GPU, whatever their order in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["count_nonzero", "read_together", "top_k"]


def top_k(scores: Tensor, k: int) -> Tensor:
    """Boolean mask, flat, of the k largest entries of a flat tensor; ties go to the lower index.

    A GPU takes NaN for the largest value: to look for it, the host would have to wait until all queued work is done.

    Raises:
        ValueError: NaN among the scores, which are on a CPU.
    """
    scores = scores.detach()
    return _by_partition(scores, k) if scores.is_cpu else _by_sorting(scores, k)


def read_together(numbers: Sequence[Tensor]) -> list[Any]:
    """The values of tensors of one entry and one dtype: the host waits for the device once, not for each of them."""
    return torch.stack([number.detach().to(numbers[0].device) for number in numbers]).cpu().tolist()


def count_nonzero(mask: Tensor) -> Tensor:
    """`torch.count_nonzero`, which on a CPU is ten times slower than that of numpy."""
    if not mask.is_cpu:
        return torch.count_nonzero(mask)
    return torch.tensor(np.count_nonzero((mask if mask.dtype == torch.bool else mask.ne(0)).detach().numpy()))


def _by_sorting(scores: Tensor, k: int) -> Tensor:
    """The definition; a GPU sorts fast enough."""
    order = scores.argsort(descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(0, order[:k], True)


def _by_partition(scores: Tensor, k: int) -> Tensor:
    """The same entries on a CPU: the k-th largest value is found without sorting the rest."""
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    values = scores.contiguous().numpy()
    if np.isnan(values.min()):
        raise ValueError("scores contain NaN: they have no order, so no top-v selection")
    if k == values.size:
        return torch.ones(k, dtype=torch.bool)
    threshold, above, equal = _kth_largest(values, k)
    kept = values >= threshold
    if above + equal > k:
        kept[np.flatnonzero(values == threshold)[k - above :]] = False
    return torch.from_numpy(kept)


def _kth_largest(values: np.ndarray, k: int) -> tuple[np.floating, int, int]:
    """The k-th largest value, exactly, and how many values are larger and equal.

    In a large array a sample brackets the value, so that only the entries in between are partitioned.
    """
    above, rank = 0, values.size - k
    if values.size >= 2**16:
        sample = values[:: values.size // 2**13 | 1]
        place, margin = sample.size * rank // values.size, 2 * math.isqrt(sample.size)
        ends = max(place - margin, 0), min(place + margin, sample.size - 1)
        low, high = np.partition(sample, ends)[list(ends)]
        larger = values > high
        beyond = int(np.count_nonzero(larger))
        between = values[larger ^ (values >= low)]
        if beyond < k <= beyond + between.size:
            values, above, rank = between, beyond, between.size - (k - beyond)
    threshold = np.partition(values, rank)[rank]
    larger_ones, equal = np.count_nonzero(values > threshold), np.count_nonzero(values == threshold)
    return threshold, above + int(larger_ones), int(equal)
