"""How density, threshold and penalty change over a run: warm-up, cubic descent, cool-down."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Schedule", "check_schedule", "cubic"]


def cubic(step: int, initial: float, final: float, total_steps: int, warmup_steps: int, cooldown_steps: int) -> float:
    r"""Cubic schedule of Sanh et al. 2020, Eq. 5, as in the published code.

    $\theta(t)=\theta_i$ for $t\le t_i$; $\theta_f+(\theta_i-\theta_f)\left(1-\frac{t-t_i}{T-t_i-t_f}\right)^3$ up to
    $T-t_f$; then $\theta_f$. (The printed numerator $t-t_i-t_f$ is not continuous at $t_i$.)

    Args:
        step: completed optimizer steps t; the value holds for the forward pass that follows.
        initial, final: the values $\theta_i$ and $\theta_f$.
        total_steps, warmup_steps, cooldown_steps: $T$, $t_i$, $t_f$, in optimizer steps.
    """
    if step <= warmup_steps:
        return initial
    if step >= total_steps - cooldown_steps:
        return final
    left = 1.0 - (step - warmup_steps) / (total_steps - warmup_steps - cooldown_steps)
    return final + (initial - final) * left**3


def check_schedule(total_steps: int, warmup_steps: int, cooldown_steps: int) -> None:
    """Raise ValueError unless there are steps left between warm-up and cool-down.

    The published code accepts such settings silently, and then never prunes, or prunes in one jump.
    """
    steps = {"total_steps": total_steps, "warmup_steps": warmup_steps, "cooldown_steps": cooldown_steps}
    for name, value in steps.items():
        least = int(name == "total_steps")
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}={value!r}: must be an integer number of optimizer steps, at least {least}")
    if warmup_steps + cooldown_steps >= total_steps:
        raise ValueError(
            f"warmup_steps={warmup_steps} + cooldown_steps={cooldown_steps} must be less than "
            f"total_steps={total_steps}: the density falls in the steps between them"
        )


@dataclass(frozen=True)
class Schedule:
    """The steps of one run. Raises ValueError where `check_schedule` does."""

    total_steps: int
    warmup_steps: int
    cooldown_steps: int

    def __post_init__(self) -> None:
        check_schedule(self.total_steps, self.warmup_steps, self.cooldown_steps)

    def value(self, step: int, initial: float, final: float) -> float:
        """Value, after `step` optimizer steps, of a quantity that goes from `initial` to `final` over the run."""
        return cubic(step, initial, final, self.total_steps, self.warmup_steps, self.cooldown_steps)

    def done(self, step: int) -> bool:
        """Has the final value been reached, that is, has the cool-down begun?"""
        return step >= self.total_steps - self.cooldown_steps
