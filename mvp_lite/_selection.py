"""Exact selection of the k largest entries, fast: the same entries on CPU and GPU, whatever their order in memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["top_k"]


def top_k(scores: Tensor, k: int) -> Tensor:
    """Boolean mask, flat, of the k largest entries of a flat tensor; ties go to the lower index.

    Raises:
        ValueError: NaN among the scores.
    """
    scores = scores.detach()
    return _by_partition(scores, k) if scores.device.type == "cpu" else _by_sorting(scores, k)


def _by_sorting(scores: Tensor, k: int) -> Tensor:
    """The definition; a GPU sorts fast enough."""
    _check_order(bool(scores.min().isnan()))
    order = scores.argsort(descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).index_fill_(0, order[:k], True)


def _by_partition(scores: Tensor, k: int) -> Tensor:
    """The same entries on a CPU: the k-th largest value is found without sorting the rest."""
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    values = scores.contiguous().numpy()
    _check_order(bool(np.isnan(values.min())))
    if k == values.size:
        return torch.ones(k, dtype=torch.bool)
    threshold = _kth_largest(values, k)
    kept = values > threshold
    missing = k - np.count_nonzero(kept)
    kept[np.flatnonzero(values == threshold)[:missing]] = True
    return torch.from_numpy(kept)


def _kth_largest(values: np.ndarray, k: int) -> np.floating:
    """Exact; in a large array a sample brackets the value, so that only the entries in between are partitioned."""
    rank: Any = values.size - k
    if values.size >= 2**16:
        sample = np.sort(values[:: values.size // 2**13 | 1])
        place, margin = sample.size * rank // values.size, 2 * math.isqrt(sample.size)
        low = sample[place - margin] if place >= margin else -np.inf
        high = sample[place + margin] if place + margin < sample.size else np.inf
        above = np.count_nonzero(values > high)
        between = values[(values >= low) & (values <= high)]
        if above < k <= above + between.size:
            values, rank = between, between.size - (k - above)
    return np.partition(values, rank)[rank]  # type: ignore[no-any-return]


def _check_order(has_nan: bool) -> None:
    if has_nan:
        raise ValueError("scores contain NaN: they have no order, so no top-v selection")
