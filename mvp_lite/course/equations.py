"""Checks of numbered equations: both sides are computed, by different routes, and must agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["CHECKED", "Equation", "check", "difference"]


@dataclass(frozen=True)
class Equation:
    """Both sides of an equation that held, as they were given to `check`."""

    left: Any
    right: Any
    relation: str
    tol: float

    def catches(self, wrong: Any) -> bool:
        """Whether `wrong` in place of the left side would have been noticed."""
        return difference(wrong, self.right, self.relation) > self.tol


#: Number -> the equation that held under this number last.
CHECKED: dict[str, Equation] = {}


def check(number: str, left: Any, right: Any, *, relation: str = "==", tol: float = 1e-10) -> None:
    """Assert that equation `number` holds, `left relation right` in every entry, and print one line.

    Both sides are float64 (or bool, or integers, then compared exactly) and are computed by different routes.

    Args:
        number: the equation's number, such as "3.2".
        left, right: tensors, arrays or numbers of equal shape.
        relation: "==", "<=" or ">=".
        tol: largest difference allowed, relative to the largest entry of `right`.

    Raises:
        AssertionError: the equation does not hold.
        TypeError: single precision, in which a mistake could look like rounding.
        ValueError: a number that is not written as notebook.equation, or an unknown relation.
    """
    notebook, _, equation = str(number).partition(".")
    if not isinstance(number, str) or not notebook.isdecimal() or not equation.isdecimal():
        raise ValueError(f"number={number!r}: expected notebook.equation in quotes, such as '3.2'")
    found = difference(left, right, relation)
    if not found <= tol:
        raise AssertionError(f"({number}) does not hold: error {found:.1e}, allowed {tol:.0e}")
    CHECKED[number] = Equation(left, right, relation, tol)
    print(f"({number}) holds")


def difference(left: Any, right: Any, relation: str = "==") -> float:
    """Largest violation of the relation, relative to the largest entry of `right`; infinite if shapes differ.

    Raises:
        TypeError: single precision.
        ValueError: an unknown relation.
    """
    if relation not in ("==", "<=", ">="):
        raise ValueError(f"relation={relation!r}: '==', '<=' or '>='")
    a, b = _exact(left), _exact(right)
    if a.shape != b.shape or a.numel() == 0:
        return math.inf
    gap = a - b
    violation = {"==": gap.abs(), "<=": gap.clamp(min=0.0), ">=": (-gap).clamp(min=0.0)}[relation].max().item()
    scale = b.abs().max().item()
    error = violation / scale if scale > 0.0 else violation
    return math.inf if math.isnan(error) else error


def _exact(value: Any) -> Tensor:
    tensor = torch.as_tensor(value).detach().cpu()
    if isinstance(value, float):
        tensor = torch.tensor(value, dtype=torch.float64)
    if tensor.is_floating_point() and tensor.dtype != torch.float64:
        raise TypeError(f"{tensor.dtype}: equations are checked in float64")
    return tensor.to(torch.float64)
