r"""Reaching a wanted density with soft movement or L0 in one run. This rule is ours, not the papers'.

There the density is an outcome of $\lambda$, found by running again and again. Here, for equal budgets, $\lambda$
follows the density: too dense, and it grows. From the start of the cool-down on, what is left of the error is taken out
by moving all scores by one constant, which leaves their order alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mvp_lite.masks import keep_count, top_v

__all__ = ["DensityFeedback", "land"]


class DensityFeedback:
    r"""Proportional-integral control of $\log\lambda$ on the error $e=\log(\text{density}/\text{wanted})$.

    $\lambda=\bar g\,N\,\mu$ with $\log\mu=I+8e$ and $I$ growing by $0.05\,e$ a step. $\bar g$, the running mean of
    $|\partial\mathcal L/\partial S|$, makes it free of the scale of loss and weights; N is the number of scores. The
    gains come from a simulation of Adam on noisy gradients (300 to 1500 steps), not from any accuracy.
    """

    def __init__(self, start: float = 0.1) -> None:
        self.integral = math.log(start)
        self.mean_gradient: float | None = None

    def observe(self, mean_gradient: float) -> None:
        """Take in the mean of |dL/dS| (penalty aside) of one step."""
        old = mean_gradient if self.mean_gradient is None else self.mean_gradient
        self.mean_gradient = 0.9 * old + 0.1 * mean_gradient

    def penalty(self, density: float, wanted: float, count: int) -> float:
        """Lambda for the next step, given the density reached, the one wanted, and the number of scores."""
        error = min(max(math.log(max(density, 1e-6) / wanted), -2.0), 2.0)
        self.integral = min(max(self.integral + 0.05 * error, -10.0), 8.0)
        return math.exp(min(max(self.integral + 8.0 * error, -12.0), 8.0)) * (self.mean_gradient or 0.0) * count


def land(scores: Sequence[Tensor], density: float, cut: float) -> None:
    """Shift all scores, in place and alike, so that `keep_count` of them lie above `cut`."""
    pool = torch.cat([S.reshape(-1) for S in scores])
    kept = top_v(pool, density)
    if keep_count(pool.numel(), density) < pool.numel():
        shift = cut - float(pool[kept].min() + pool[~kept].max()) / 2.0
        for S in scores:
            S += shift
