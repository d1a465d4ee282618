"""What a run asks of its method: `Settings`, checked once for every way in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from mvp_lite.schedule import Schedule

__all__ = ["Density", "Settings", "check_density", "check_integer", "check_positive", "check_seed", "plain"]

#: one fraction for all groups, or {regular expression: fraction}; see `Pruner`
Density = float | Mapping[str, float]


def plain(value: Any) -> Any:
    """A number of numpy or torch (a tensor without dimensions, too) as Python's own; any other value as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def check_integer(name: str, value: Any) -> int:
    """`value` as an integer; TypeError if it is none."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r}: must be an integer")
    return int(value)


def check_seed(value: Any) -> int:
    """`value` as a seed; TypeError if it is no integer, ValueError if it is negative, which numpy refuses."""
    seed = check_integer("seed", value)
    if seed < 0:
        raise ValueError(f"seed={value!r}: must be an integer of at least 0")
    return seed


def check_positive(name: str, value: Any, what: str = "number") -> float:
    """`value` as a float; ValueError unless it is a number above 0."""
    value = plain(value)
    if not _is_number(value) or not value > 0.0:
        raise ValueError(f"{name}={value!r}: must be a positive {what}")
    return float(value)


def check_density(density: Any) -> float | dict[str, float]:
    """A density, or densities by pattern, as Python's own numbers; their range is the business of `Settings`.

    Raises:
        TypeError: neither a number nor a mapping from strings to numbers.
        ValueError: an empty mapping.
    """
    density = plain(density)
    if not isinstance(density, Mapping):
        if not _is_number(density):
            raise TypeError(f"density={density!r}: must be a number, or a dict of patterns and numbers")
        return density if isinstance(density, int) else float(density)
    if not density:
        raise ValueError("density={}: must have at least one pattern, for instance '.*'")
    found = {pattern: plain(value) for pattern, value in density.items()}
    for pattern, value in found.items():
        if not isinstance(pattern, str) or not _is_number(value):
            raise TypeError(f"density={{{pattern!r}: {value!r}}}: must be a regular expression and a number")
        if not 0.0 < value <= 1.0:
            raise ValueError(f"density={{{pattern!r}: {value!r}}}: must be a fraction kept in (0, 1]")
    return {pattern: float(value) for pattern, value in found.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True)
class Settings:
    """What a run asks of its method; see `Pruner` for each field.

    Raises:
        TypeError: density, initial_density, min_density, threshold or seed is not a number.
        ValueError: a value outside its range.
    """

    schedule: Schedule
    density: float
    initial_density: float = 1.0
    scope: str = "local"
    min_density: float = 0.0
    threshold: float = 0.1
    penalty: float | str = "feedback"
    score_init: float | None = None
    seed: int = 0
    score_lr: float | None = None
    magnitude_init: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            # A checkpoint that is loaded without pickle refuses the numbers of numpy.
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))
        if self.scope not in ("local", "global"):
            raise ValueError(f"scope={self.scope!r}: must be 'local' or 'global'")
        for name in ("density", "initial_density", "min_density", "threshold"):
            value = getattr(self, name)
            if not _is_number(value):
                raise TypeError(f"{name}={value!r}: must be a number")
        for name, low in (("density", 0.0), ("initial_density", self.density)):
            value = getattr(self, name)
            if not (0.0 < value <= 1.0 and value >= low):
                raise ValueError(
                    f"{name}={value!r}: must be a fraction kept in (0, 1], the initial one not below the final"
                )
        check_seed(self.seed)
        if self.penalty != "feedback" and (not _is_number(self.penalty) or not 0.0 <= float(self.penalty) < math.inf):
            raise ValueError(f"penalty={self.penalty!r}: must be 'feedback' or a lambda >= 0")
        if self.score_lr is not None:
            check_positive("score_lr", self.score_lr, "learning rate")
        if self.score_init is not None and not (_is_number(self.score_init) and math.isfinite(self.score_init)):
            raise ValueError(f"score_init={self.score_init!r}: must be a finite number, or None")
        c = self.magnitude_init
        if c is not None and (not _is_number(c) or not 0.0 <= float(c) < math.inf):
            raise ValueError(f"magnitude_init={c!r}: must be a number >= 0, or None")
        if not 0.0 < self.threshold < 1.0:
            raise ValueError(f"threshold={self.threshold!r}: must lie in (0, 1), as sigmoid scores do")
        if not 0.0 <= self.min_density <= self.density or (self.min_density and self.scope != "global"):
            raise ValueError(
                f"min_density={self.min_density!r}: must lie in [0, density={self.density!r}], and needs scope='global'"
            )
        for name in ("density", "initial_density", "min_density", "threshold", "penalty", "magnitude_init"):
            if not isinstance(getattr(self, name), str | None):
                object.__setattr__(self, name, float(getattr(self, name)))
