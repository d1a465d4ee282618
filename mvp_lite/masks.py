"""From scores S to a mask M: exact top-v cuts, a threshold, and the hard-concrete gate.

`density` is the fraction kept, in (0, 1]. A cut keeps exactly `keep_count(numel, density)` entries; ties go to the
lower row-major index, so CPU and GPU, engine and teaching layer, agree entry by entry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "HARD_CONCRETE",
    "Threshold",
    "TopV",
    "expected_l0",
    "hard_concrete",
    "hard_concrete_gradient",
    "hard_concrete_test_mask",
    "keep_count",
    "threshold_mask",
    "top_v",
    "top_v_global",
]

#: (l, r, b): stretch interval and temperature of the hard-concrete gate, as in the published code.
HARD_CONCRETE = (-0.1, 1.1, 2 / 3)


def keep_count(numel: int, density: float) -> int:
    """How many of `numel` entries a cut at `density` keeps: max(1, floor(density * numel + 0.5))."""
    if isinstance(density, bool) or not isinstance(density, Real):
        raise TypeError(f"density={density!r}: the fraction kept is a number in (0, 1]")
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density={density!r}: the fraction kept must lie in (0, 1]")
    return max(1, math.floor(density * numel + 0.5))


def _top_k(scores: Tensor, k: int) -> Tensor:
    """Boolean mask, flat, of the k largest entries of a flat tensor; ties to the lower index; NaN raises."""
    scores = scores.detach()
    return _top_k_partition(scores, k) if scores.device.type == "cpu" else _top_k_sort(scores, k)


def _top_k_partition(scores: Tensor, k: int) -> Tensor:
    """`_top_k` on a CPU: the k-th largest value is found without sorting the rest."""
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    values = scores.contiguous().numpy()
    if np.isnan(values.min()):
        raise ValueError("scores hold NaN: no order, so no top-v cut")
    if k == values.size:
        return torch.ones(k, dtype=torch.bool)
    cut = _kth_largest(values, k)
    kept = values > cut
    missing = k - np.count_nonzero(kept)
    kept[np.flatnonzero(values == cut)[:missing]] = True
    return torch.from_numpy(kept)


def _kth_largest(values: np.ndarray, k: int) -> np.floating:
    """Exact; in a large array a sample brackets the place, so that only what lies in between is partitioned."""
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


def _top_k_sort(scores: Tensor, k: int) -> Tensor:
    """`_top_k` anywhere else: the same entries by a stable sort."""
    if bool(scores.min().isnan()):
        raise ValueError("scores hold NaN: no order, so no top-v cut")
    order = scores.argsort(descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).index_fill_(0, order[:k], True)


def top_v(scores: Tensor, density: float) -> Tensor:
    """Top_v (Sanh et al. 2020, Eq. 1): boolean mask of the highest-scored entries.

    Args:
        scores: any shape, any floating dtype, contiguous or not.
        density: fraction kept, in (0, 1].

    Returns:
        Boolean tensor of the same shape with exactly `keep_count(scores.numel(), density)` entries True.

    Raises:
        ValueError: density outside (0, 1], an empty tensor, or NaN among the scores.
    """
    if scores.numel() == 0:
        raise ValueError(f"scores of shape {tuple(scores.shape)} are empty: nothing to cut")
    return _top_k(scores.reshape(-1), keep_count(scores.numel(), density)).view(scores.shape)


def top_v_global(scores: Sequence[Tensor], density: float, min_density: float = 0.0) -> list[Tensor]:
    """Top_v over several tensors pooled in the order given (global scope): one boolean mask for each.

    A tensor may end up empty. `min_density` first keeps that fraction of each tensor's own best entries, and the pool
    then fills up to the same total, which wins where rounding makes the parts exceed it; at most `density`.
    """
    total = keep_count(sum(S.numel() for S in scores), density)
    if not 0.0 <= min_density <= density:
        raise ValueError(f"min_density={min_density!r} must lie in [0, density={density!r}]")
    pool = torch.cat([S.reshape(-1) for S in scores])
    if min_density > 0.0:
        # The guaranteed entries lead the pool whatever their score, even before an infinite one.
        floor = torch.cat([top_v(S, min_density).reshape(-1) for S in scores])
        pool = pool.clamp(max=torch.finfo(pool.dtype).max).masked_fill(floor, float("inf"))
    kept = _top_k(pool, total)
    sizes = [S.numel() for S in scores]
    return [part.view(S.shape) for part, S in zip(torch.split(kept, sizes), scores, strict=True)]


def threshold_mask(scores: Tensor, threshold: float, min_density: float = 0.005) -> Tensor:
    r"""Mask of soft movement pruning as its code has it: $\sigma(S) > \tau$, same shape, boolean.

    If fewer than `min_density` of the entries pass, the best-scored `min_density` are kept instead, so that no layer
    collapses (the published code's guard; 0 switches it off). The paper's text compares S itself with the threshold.
    NaN among the scores raises ValueError.
    """
    if bool(scores.min().isnan()):
        raise ValueError("scores hold NaN: neither above nor below a threshold")
    mask = torch.sigmoid(scores) > threshold
    if min_density > 0.0 and int(mask.sum()) < keep_count(scores.numel(), min_density):
        mask = top_v(scores, min_density)
    return mask


def hard_concrete(scores: Tensor, uniform: Tensor) -> Tensor:
    r"""A sample of the hard-concrete gate, in [0, 1], for given uniform noise of the same shape.

    $\bar S=\sigma((\log u-\log(1-u)+S)/b)$, $Z=(r-l)\bar S+l$, $M=\min(1,\mathrm{ReLU}(Z))$ (Louizos et al. 2018;
    Sanh et al. 2020, section 4).
    """
    low, high, temperature = HARD_CONCRETE
    gate = torch.sigmoid((uniform.log() - (-uniform).log1p() + scores) / temperature)
    return (gate * (high - low) + low).clamp(0.0, 1.0)


def hard_concrete_gradient(mask: Tensor) -> Tensor:
    r"""$f(S)=\partial M/\partial S$ of `hard_concrete` (Eq. 4), read off the sampled mask itself.

    Strictly inside (0, 1) the mask determines $\bar S=(M-l)/(r-l)$, hence $f=\frac{r-l}{b}\bar S(1-\bar S)$; at the
    clamps the gradient is 0.
    """
    low, high, temperature = HARD_CONCRETE
    gate = (mask - low) / (high - low)
    return (high - low) / temperature * gate * (1.0 - gate) * ((mask > 0.0) & (mask < 1.0))


def hard_concrete_test_mask(scores: Tensor) -> Tensor:
    r"""The gate used for evaluation: $\hat M=\min(1,\mathrm{ReLU}((r-l)\sigma(S)+l))$."""
    low, high, _ = HARD_CONCRETE
    return (torch.sigmoid(scores) * (high - low) + low).clamp(0.0, 1.0)


def expected_l0(scores: Tensor) -> Tensor:
    r"""$P(M\neq0)$ for each entry: $\sigma(S-b\log(-l/r))$ (printed with a stray log S; see Louizos et al., Eq. 12)."""
    low, high, temperature = HARD_CONCRETE
    return torch.sigmoid(scores - temperature * math.log(-low / high))


class TopV(torch.autograd.Function):
    """`top_v` whose backward passes the gradient straight through to the scores."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, density: float) -> Tensor:
        return top_v(scores, density).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class Threshold(TopV):
    """`threshold_mask` whose backward passes the gradient straight through to the scores."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, threshold: float) -> Tensor:
        return threshold_mask(scores, threshold).to(scores.dtype)
