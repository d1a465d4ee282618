"""The equation ledger: each numbered equation of a notebook is checked, and each check has to catch planted errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvp_lite.course.equations import difference

__all__ = ["Ledger"]


class Ledger:
    """Checks of the equations of one notebook, numbered `notebook.equation` like their tags.

        ledger = Ledger(3)
        ledger.check("3.2", S.grad, G * W, planted={"the mask left in": G * W * M})
        ledger.close()

    Both sides are float64 (or bool, or integers, then compared exactly) and are computed by different routes.
    """

    def __init__(self, notebook: int) -> None:
        self.notebook = notebook
        self.errors: dict[str, float] = {}
        self.planted: dict[str, int] = {}

    def check(
        self, tag: str, left: Any, right: Any, *, planted: Mapping[str, Any], relation: str = "==", tol: float = 1e-10
    ) -> None:
        """Assert `left relation right` in every entry, and that each planted error in place of `left` is caught.

        Args:
            tag: the equation's number, such as "3.2".
            left, right: tensors, arrays or numbers of equal shape.
            planted: name -> value of `left` after a plausible mistake (a sign, a transpose, a missing mask).
            relation: "==", "<=" or ">=".
            tol: largest error allowed, relative to the largest entry of `right`.

        Raises:
            AssertionError: the equation does not hold, or a planted error passes.
            TypeError: single precision, in which a mistake could look like rounding.
            ValueError: a tag of another notebook, no planted error, an unknown relation.
        """
        head, _, number = tag.partition(".")
        if head != str(self.notebook) or not number.isdecimal():
            raise ValueError(f"tag={tag!r}: notebook {self.notebook} numbers its equations {self.notebook}.1, …")
        if not planted:
            raise ValueError(f"({tag}) needs a planted error: a check that cannot fail checks nothing")
        error = difference(left, right, relation)
        if not error <= tol:
            raise AssertionError(f"({tag}) does not hold: error {error:.1e}, allowed {tol:.0e}")
        for name, wrong in planted.items():
            if difference(wrong, right, relation) <= tol:
                raise AssertionError(f"({tag}) does not catch the planted error {name!r}")
        self.errors[tag], self.planted[tag] = error, len(planted)
        print(f"({tag}) holds, largest error {error:.1e}; caught: {', '.join(planted)}")

    def close(self) -> None:
        """Print the number of equations checked, the number of planted errors caught, and the largest error."""
        if not self.errors:
            raise AssertionError(f"notebook {self.notebook}: no equation was checked")
        held, caught, worst = len(self.errors), sum(self.planted.values()), max(self.errors.values())
        summary = f"{held} equations hold, {caught} planted errors caught, largest error {worst:.1e}"
        print(f"notebook {self.notebook}: {summary}")
