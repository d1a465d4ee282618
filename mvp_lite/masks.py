r"""From scores S to a mask M: top-v selection, a threshold, and the hard-concrete gate.

`density` is the fraction kept, in (0, 1]. A selection keeps exactly `keep_count(numel, density)` entries. Ties go to
the lower row-major index, so that CPU and GPU, `Pruner` and `MaskedLinear` agree entry by entry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from mvp_lite._selection import above, count_nonzero, read_together, top_k

__all__ = [
    "HARD_CONCRETE",
    "Threshold",
    "TopV",
    "expected_l0",
    "hard_concrete",
    "hard_concrete_gradient",
    "hard_concrete_test_mask",
    "keep_count",
    "shift_to_density",
    "squeeze_to_density",
    "threshold_mask",
    "threshold_masks",
    "top_v",
    "top_v_global",
]

#: (l, r, b): stretch interval and temperature of the hard-concrete gate, as in the published code.
HARD_CONCRETE = (-0.1, 1.1, 2 / 3)


def keep_count(numel: int, density: float) -> int:
    """How many of `numel` entries are kept at `density`: max(1, floor(density * numel + 0.5))."""
    if isinstance(density, bool) or not isinstance(density, Real):
        raise TypeError(f"density={density!r}: the fraction kept is a number in (0, 1]")
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density={density!r}: the fraction kept must lie in (0, 1]")
    return max(1, math.floor(density * numel + 0.5))


def top_v(scores: Tensor, density: float) -> Tensor:
    """Top_v (Sanh et al. 2020, Eq. 1): boolean mask of the entries with the highest scores.

    Args:
        scores: any shape, any floating dtype, contiguous or not.
        density: fraction kept, in (0, 1].

    Returns:
        Boolean tensor of the same shape with exactly `keep_count(scores.numel(), density)` entries True.

    Raises:
        ValueError: density outside (0, 1], an empty tensor, or NaN among scores on a CPU. (On a GPU NaN counts as the
            highest score: to look for it, the host would have to wait until all queued work is done.)
    """
    if scores.numel() == 0:
        raise ValueError(f"scores of shape {tuple(scores.shape)} are empty: nothing to select")
    return top_k(scores.reshape(-1), keep_count(scores.numel(), density)).view(scores.shape)


def top_v_global(scores: Sequence[Tensor], density: float, min_density: float = 0.0) -> list[Tensor]:
    """Top_v over several tensors pooled in the order given (global scope): one boolean mask for each.

    A tensor may lose all its entries. `min_density`, at most `density`, first keeps that fraction of each tensor's own
    best entries; the pool then fills up to the same total. The total wins where rounding makes the parts exceed it.
    """
    total = keep_count(sum(S.numel() for S in scores), density)
    if not 0.0 <= min_density <= density:
        raise ValueError(f"min_density={min_density!r} must lie in [0, density={density!r}]")
    pool = torch.cat([S.reshape(-1) for S in scores])
    if min_density > 0.0:
        # The guaranteed entries lead the pool whatever their score, even before an infinite one.
        guaranteed = torch.cat([top_v(S, min_density).reshape(-1) for S in scores])
        pool = pool.clamp(max=torch.finfo(pool.dtype).max).masked_fill(guaranteed, float("inf"))
    kept = top_k(pool, total)
    sizes = [S.numel() for S in scores]
    return [part.view(S.shape) for part, S in zip(torch.split(kept, sizes), scores, strict=True)]


def threshold_mask(scores: Tensor, threshold: float, min_density: float = 0.005) -> Tensor:
    r"""Mask of soft movement pruning as in the published code: $\sigma(S) > \tau$, same shape, boolean.

    If fewer than `min_density` of the entries pass, the best `min_density` are kept instead, so that no layer collapses
    (the published code's guard; 0 switches it off). The paper's text compares S itself with the threshold.

    Raises:
        ValueError: NaN among the scores.
    """
    return threshold_masks([scores], threshold, min_density)[0]


def threshold_masks(scores: Sequence[Tensor], threshold: float, min_density: float = 0.005) -> list[Tensor]:
    """`threshold_mask` of several tensors, which waits for a GPU only once."""
    level = math.log(threshold / (1.0 - threshold)) if threshold > 0.0 else -math.inf
    found = [above(S, level) for S in scores]  # the sigmoid grows with S
    counts = read_together([count_nonzero(mask) for mask in found] + [S.amin().isnan().long() for S in scores])
    if any(counts[len(scores) :]):
        raise ValueError("scores contain NaN: neither above nor below a threshold")
    return [
        top_v(S, min_density) if min_density > 0.0 and count < keep_count(S.numel(), min_density) else mask
        for S, mask, count in zip(scores, found, counts, strict=False)
    ]


def shift_to_density(scores: Sequence[Tensor], density: float, threshold: float) -> int:
    r"""Add one constant to all scores, in place: then `keep_count(n, density)` of the n have $\sigma(S) >$ `threshold`.

    The order of the scores does not change. At density 1 nothing is done. Not in the papers: it removes the remaining
    error in density.

    Args:
        scores: the pool, as tensors of any shapes and one dtype.
        density: fraction of the pool to keep, in (0, 1].
        threshold: in (0, 1).

    Returns:
        How many entries are meant to be above the threshold now: `keep_count`, or more where so many scores are equal
        that it cannot be met.
    """
    boundary = _boundary(scores, density)
    if boundary is None:
        return sum(S.numel() for S in scores)
    count, lowest_kept, next_below = boundary
    shift = math.log(threshold / (1.0 - threshold)) - (lowest_kept + next_below) / 2.0
    for S in scores:
        S += shift
    return count


def squeeze_to_density(scores: Sequence[Tensor], density: float, threshold: float) -> int:
    r"""The same for scores whose mask is not only 0 or 1: move those on the wrong side of the threshold, no others.

    The gate of `hard_concrete` scales its weight, so that `shift_to_density` would scale all the weights that stay.
    Here scores that must fall below the threshold are squeezed, in their order, with those up to one logit below it;
    scores that must rise above it likewise. Not in the papers.

    Args, returns: as `shift_to_density`.
    """
    boundary = _boundary(scores, density)
    if boundary is None:
        return sum(S.numel() for S in scores)
    count, lowest_kept, next_below = boundary
    level, margin = math.log(threshold / (1.0 - threshold)), 1e-3  # rounding must not carry a score across
    first, last = level - 1.0, level + 1.0
    if next_below > level - margin:
        factor = (1.0 - margin) / (next_below - first)
        for S in scores:
            S.copy_(torch.where((S > first) & (S <= next_below), first + (S - first) * factor, S))
    if lowest_kept < level + margin:
        factor = (1.0 - margin) / (last - lowest_kept)
        for S in scores:
            S.copy_(torch.where((S < last) & (S >= lowest_kept), last - (last - S) * factor, S))
    return count


def _boundary(scores: Sequence[Tensor], density: float) -> tuple[int, float, float] | None:
    """How many scores of the pool stay, the lowest of them, and the highest of the others; None at density 1."""
    pool = torch.cat([S.reshape(-1) for S in scores])
    count = keep_count(pool.numel(), density)
    if density == 1.0:
        return None
    if count == pool.numel():  # by rounding: all must pass
        lowest_kept = float(pool.min())
        return count, lowest_kept, lowest_kept - 1.0
    kept = top_k(pool, count)
    lowest_kept, next_below = read_together(
        [pool.masked_fill(~kept, math.inf).min(), pool.masked_fill(kept, -math.inf).max()]
    )
    if lowest_kept == next_below and int((pool == lowest_kept).sum()) > count / 100:
        # Scores without a gradient are all equal. They are kept together: the alternative is to lose them all. A few
        # equal scores are left to rounding.
        below = pool[pool < lowest_kept]
        count = pool.numel() - below.numel()
        next_below = float(below.max()) if below.numel() else lowest_kept - 1.0
    return count, lowest_kept, next_below


def hard_concrete(scores: Tensor, uniform: Tensor) -> Tensor:
    r"""A sample of the hard-concrete gate, in [0, 1], for given uniform noise of the same shape.

    $\bar S=\sigma((\log u-\log(1-u)+S)/b)$, $Z=(r-l)\bar S+l$, $M=\min(1,\mathrm{ReLU}(Z))$ (Louizos et al. 2018;
    Sanh et al. 2020, section 4).
    """
    low, high, temperature = HARD_CONCRETE
    gate = (uniform.logit() + scores).div_(temperature).sigmoid_()
    return (gate * (high - low)).add_(low).clamp_(0.0, 1.0)


def hard_concrete_gradient(mask: Tensor) -> Tensor:
    r"""$f(S)=\partial M/\partial S$ of `hard_concrete` (Eq. 4), computed from the sampled mask itself.

    Strictly inside (0, 1) the mask determines $\bar S=(M-l)/(r-l)$, hence $f=\frac{r-l}{b}\bar S(1-\bar S)$; at the
    clamps the gradient is 0.
    """
    low, high, temperature = HARD_CONCRETE
    product = (1.0 - mask).mul_(mask)  # 0 at the clamps; (M - l)(r - M) = M(1 - M) - lr, because l + r = 1
    return (product - low * high).mul_(product.sign_()).div_(temperature * (high - low))


def hard_concrete_test_mask(scores: Tensor) -> Tensor:
    r"""The gate used for evaluation: $\hat M=\min(1,\mathrm{ReLU}((r-l)\sigma(S)+l))$."""
    low, high, _ = HARD_CONCRETE
    return (torch.sigmoid(scores) * (high - low)).add_(low).clamp_(0.0, 1.0)


def expected_l0(scores: Tensor) -> Tensor:
    r"""$P(M\neq0)$ for each entry: $\sigma(S-b\log(-l/r))$ (Louizos et al., Eq. 12).

    Sanh et al. print an extra log S here.
    """
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
