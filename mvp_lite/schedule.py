"""How density, threshold and penalty change over a run: warm-up, descent, cool-down."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["SHAPES", "Schedule", "Shape", "check_schedule", "cubic"]

#: the part of a descent that is left, as a function of progress: 1 at progress 0, 0 at progress 1
Shape = Callable[[float], float]

#: what `Pruner(schedule=...)` takes by name
SHAPES: dict[str, Shape] = {
    "cubic": lambda progress: (1.0 - progress) ** 3,
    "cosine": lambda progress: 0.5 + 0.5 * math.cos(math.pi * progress),
    "linear": lambda progress: 1.0 - progress,
}
#: a shape of the user's own is checked, and saved, at these values of progress
_PROBES = [i / 20 for i in range(21)]


def cubic(step: int, initial: float, final: float, total_steps: int, warmup_steps: int, cooldown_steps: int) -> float:
    r"""Cubic schedule of Sanh et al. 2020, Eq. 5, as in the published code.

    $\theta(t)=\theta_i$ for $t\le t_i$; $\theta_f+(\theta_i-\theta_f)\left(1-\frac{t-t_i}{T-t_i-t_f}\right)^3$ up to
    $T-t_f$; then $\theta_f$. (The printed numerator $t-t_i-t_f$ is not continuous at $t_i$.)

    Args:
        step: completed optimizer steps t; the value holds for the forward pass that follows.
        initial, final: the values $\theta_i$ and $\theta_f$.
        total_steps, warmup_steps, cooldown_steps: $T$, $t_i$, $t_f$, in optimizer steps.
    """
    return _between(SHAPES["cubic"], step, initial, final, total_steps, warmup_steps, cooldown_steps)


def _between(
    shape: Shape, step: int, initial: float, final: float, total_steps: int, warmup_steps: int, cooldown_steps: int
) -> float:
    if step <= warmup_steps:
        return initial
    if step >= total_steps - cooldown_steps:
        return final
    left = shape((step - warmup_steps) / (total_steps - warmup_steps - cooldown_steps))
    return final + (initial - final) * left


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
    """The steps of one run, and the shape of the descent between warm-up and cool-down.

    Args:
        total_steps, warmup_steps, cooldown_steps: in optimizer steps.
        shape: a name from `SHAPES`, or a function of progress, from 0 at the end of the warm-up to 1 at the start of
            the cool-down, that returns the part of the descent that is left: 1 at 0, 0 at 1, between 0 and 1 elsewhere.

    Raises:
        ValueError: where `check_schedule` does; an unknown name; a function whose values are others.
        TypeError: a shape that is neither a name nor a function.
    """

    total_steps: int
    warmup_steps: int
    cooldown_steps: int
    shape: str | Shape = "cubic"

    def __post_init__(self) -> None:
        check_schedule(self.total_steps, self.warmup_steps, self.cooldown_steps)
        if isinstance(self.shape, str):
            if self.shape not in SHAPES:
                raise ValueError(f"schedule={self.shape!r}: must be one of {', '.join(SHAPES)}, or a function")
            return
        if not callable(self.shape):
            raise TypeError(f"schedule={self.shape!r}: a name ({', '.join(SHAPES)}) or a function of progress")
        values = self._probed(self.shape)
        wrong = [i for i, value in enumerate(values) if not -1e-6 <= value <= 1.0 + 1e-6]
        wrong += [i for i, value in ((0, 1.0), (-1, 0.0)) if not abs(values[i] - value) < 1e-6]
        if wrong:
            raise ValueError(
                f"schedule={self.shape!r}: returned {values[wrong[0]]!r} at progress {_PROBES[wrong[0]]:g}; it must go "
                "from 1 at progress 0 to 0 at progress 1, and stay between"
            )

    def value(self, step: int, initial: float, final: float) -> float:
        """Value, after `step` optimizer steps, of a quantity that goes from `initial` to `final` over the run."""
        shape = SHAPES[self.shape] if isinstance(self.shape, str) else self.shape
        return _between(shape, step, initial, final, self.total_steps, self.warmup_steps, self.cooldown_steps)

    def done(self, step: int) -> bool:
        """Has the final value been reached, that is, has the cool-down begun?"""
        return step >= self.total_steps - self.cooldown_steps

    @property
    def fingerprint(self) -> str | list[float]:
        """What tells shapes apart in a saved state: the name, or a few values of a function."""
        return self.shape if isinstance(self.shape, str) else self._probed(self.shape)

    @staticmethod
    def _probed(shape: Shape) -> list[float]:
        return [float(shape(progress)) for progress in _PROBES]
