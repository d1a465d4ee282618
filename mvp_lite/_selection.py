"""Exact selection of the k largest entries, fast: the same entries on CPU and GPU, whatever their order in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["above", "count_nonzero", "read_together", "top_k"]


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


def above(scores: Tensor, level: float) -> Tensor:
    """Boolean mask, `scores > level`. (On a CPU numpy compares and counts several times faster than torch.)"""
    scores = _not_half(scores)
    return torch.from_numpy(_numpy(scores) > level) if scores.is_cpu else scores > level


def count_nonzero(mask: Tensor) -> Tensor:
    """`torch.count_nonzero`, for a boolean mask or one of numbers."""
    if not mask.is_cpu:
        return torch.count_nonzero(mask)
    return torch.tensor(np.count_nonzero(_numpy(mask) if mask.dtype == torch.bool else _numpy(mask) != 0))


def _numpy(x: Tensor) -> np.ndarray:
    """In row-major order."""
    return _not_half(x).contiguous().numpy()


def _not_half(x: Tensor) -> Tensor:
    """Without gradient; numpy has no bfloat16, and orders float16 slowly."""
    return x.detach().float() if x.dtype in (torch.float16, torch.bfloat16) else x.detach()


def _by_sorting(scores: Tensor, k: int) -> Tensor:
    """The definition; a GPU sorts fast enough."""
    order = scores.argsort(descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(0, order[:k], True)


def _by_partition(scores: Tensor, k: int) -> Tensor:
    """The same entries on a CPU: the k-th largest value is found without sorting the rest."""
    values = _numpy(scores)
    if np.isnan(values.min()):
        raise ValueError("scores contain NaN: they have no order, so no top-v selection")
    threshold = _kth_largest(values, k)
    kept = values >= threshold
    if surplus := np.count_nonzero(kept) - k:
        kept[np.flatnonzero(values == threshold)[-surplus:]] = False
    return torch.from_numpy(kept)


def _kth_largest(values: np.ndarray, k: int) -> np.floating:
    """Exact; where a partition of all values is slow, a sample first brackets the one in question."""
    rank = values.size - k
    if values.size >= 2**16 and not _partitions_fast():
        sample = values[:: values.size // 2**13 | 1]
        place = sample.size * rank // values.size
        margin = 3 * math.isqrt(place * (sample.size - place) // sample.size) + 3  # three standard deviations
        ends = [max(place - margin, 0), min(place + margin, sample.size - 1)]
        low, high = np.partition(sample, ends)[ends]
        larger = values > high
        between = values[larger ^ (values >= low)]
        beyond = int(np.count_nonzero(larger))
        if beyond < k <= beyond + between.size:
            values, rank = between, between.size - (k - beyond)
    return np.partition(values, rank)[rank]  # type: ignore[no-any-return]


def _partitions_fast() -> bool:
    """Does numpy have vector instructions for it? Ten times faster than without, on the processors we have."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
