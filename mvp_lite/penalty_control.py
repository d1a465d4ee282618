r"""Reaching a density with soft movement or L0 in one run. This rule is ours, not the papers'.

In the papers the density is an outcome of $\lambda$, and $\lambda$ is found by repeated runs. Here a controller sets
$\lambda$ during the run: if the model is too dense, $\lambda$ grows. From the start of the cool-down on
`masks.shift_to_density`, for L0 `masks.squeeze_to_density`, takes out the error that is left.
"""

from __future__ import annotations

import math

__all__ = ["PenaltyController"]


class PenaltyController:
    r"""Proportional-integral control of $\log\lambda$ on the error $e=\log(\text{density}/\text{target})$.

    $\lambda=\bar g\,N\,\mu$ with $\log\mu=I+8e$, where I grows by $0.05\,e$ a step. $\bar g$ is the running mean of
    $|\partial\mathcal L/\partial S|$ (of L0: see `methods.L0.observe`); it makes the rule independent of the scale of
    loss and weights. N is the number of scores. The gains come from a simulation of Adam on noisy gradients (300 to
    1500 steps), not from any accuracy.
    """

    def __init__(self, start: float = 0.1) -> None:
        self.integral = math.log(start)
        self.mean_gradient: float | None = None

    def observe(self, mean_gradient: float) -> None:
        """Update the running mean with the mean of |dL/dS|, penalty excluded, of one step."""
        old = mean_gradient if self.mean_gradient is None else self.mean_gradient
        self.mean_gradient = 0.9 * old + 0.1 * mean_gradient

    def penalty(self, density: float, target: float, count: int) -> float:
        """Lambda for the next step, given the density reached, the target, and the number of scores."""
        error = min(max(math.log(max(density, 1e-6) / target), -2.0), 2.0)
        self.integral = min(max(self.integral + 0.05 * error, -10.0), 8.0)
        return math.exp(min(max(self.integral + 8.0 * error, -12.0), 8.0)) * (self.mean_gradient or 0.0) * count
