"""The equation ledger: each numbered equation of a notebook is evaluated, and its check is shown able to fail."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Ledger"]


class Ledger:
    """Checks of one notebook's equations, numbered `notebook.equation` as their tags are.

        ledger = Ledger(3)
        ledger.check("3.2", S.grad, G * W, slip={"the mask left in": G * W * M})
        ledger.close()

    Both sides are float64 (or bool, or whole numbers, then compared exactly) and come by different routes.
    """

    def __init__(self, notebook: int) -> None:
        self.notebook = notebook
        self.errors: dict[str, float] = {}
        self.slips: dict[str, int] = {}

    def check(
        self, tag: str, left: Any, right: Any, *, slip: Mapping[str, Any], relation: str = "==", tol: float = 1e-10
    ) -> None:
        """Assert `left relation right` in every entry, and that each `slip` in place of `left` is found out.

        Args:
            tag: the equation's number, such as "3.2".
            left, right: tensors, arrays or numbers of equal shape.
            slip: name -> what `left` would be after a plausible mistake (a sign, a transpose, a missing mask).
            relation: "==", "<=" or ">=".
            tol: largest error allowed, relative to the largest entry of `right`.

        Raises:
            AssertionError: the equation does not hold, or a slip passes.
            TypeError: single precision, which could not tell a mistake from rounding.
            ValueError: another notebook's tag, no slip, an unknown relation.
        """
        head, _, number = tag.partition(".")
        if head != str(self.notebook) or not number.isdecimal():
            raise ValueError(f"tag={tag!r}: notebook {self.notebook} numbers its equations {self.notebook}.1, …")
        if relation not in ("==", "<=", ">="):
            raise ValueError(f"relation={relation!r}: '==', '<=' or '>='")
        if not slip:
            raise ValueError(f"({tag}) needs a slip: a check that cannot fail checks nothing")
        error = _error(_exact(left), _exact(right), relation)
        if not error <= tol:
            raise AssertionError(f"({tag}) does not hold: error {error:.1e}, allowed {tol:.0e}")
        for name, wrong in slip.items():
            if _error(_exact(wrong), _exact(right), relation) <= tol:
                raise AssertionError(f"({tag}) does not notice the slip {name!r}: the check cannot fail")
        self.errors[tag], self.slips[tag] = error, len(slip)
        caught = ", ".join(slip)
        print(f"({tag}) holds, largest error {error:.1e}; found out: {caught}")

    def close(self) -> None:
        """Print how many equations were checked, how many slips found out, and the largest error."""
        if not self.errors:
            raise AssertionError(f"notebook {self.notebook}: no equation was checked")
        equations, slips = len(self.errors), sum(self.slips.values())
        worst = max(self.errors.values())
        print(
            f"notebook {self.notebook}: {equations} equations hold, {slips} slips found out, largest error {worst:.1e}"
        )


def _exact(value: Any) -> Tensor:
    tensor = torch.as_tensor(value).detach().cpu()
    if isinstance(value, float):
        tensor = torch.tensor(value, dtype=torch.float64)
    if tensor.is_floating_point() and tensor.dtype != torch.float64:
        raise TypeError(f"{tensor.dtype}: equations are checked in float64")
    return tensor.to(torch.float64)


def _error(left: Tensor, right: Tensor, relation: str) -> float:
    """By how much the relation is missed, relative to the largest entry on the right; infinite if shapes differ."""
    if left.shape != right.shape:
        return math.inf
    if left.numel() == 0:
        return math.inf
    gap = left - right
    missed = {"==": gap.abs(), "<=": gap.clamp(min=0.0), ">=": (-gap).clamp(min=0.0)}[relation].max().item()
    size = right.abs().max().item()
    error = missed / size if size > 0.0 else missed
    return math.inf if math.isnan(error) else error
