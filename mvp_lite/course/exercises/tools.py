"""Parts of the exercise checks: a registry, and comparisons whose messages name the likely mistake."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

__all__ = ["CHECKS", "NoAnswer", "WrongAnswer", "call", "close", "exercise", "like", "normal", "number"]

#: What single precision may lose in the few operations of an answer.
_FLOAT32_TOL = 1e-5

Check = Callable[[Any], None]

#: number -> check, in the order of the course.
CHECKS: dict[str, Check] = {}


class _OneLine(Exception):
    """Shown in a notebook as one line: a traceback would end in the source of the check, which has the answer."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [f"{type(self).__name__}: {self}"]


class WrongAnswer(_OneLine, AssertionError):
    """The answer to an exercise is not right; the message says where it differs and, if known, why."""


class NoAnswer(_OneLine, NotImplementedError):
    """The answer to an exercise has not been written yet."""


def exercise(number: str) -> Callable[[Check], Check]:
    """Register a check under the number of its exercise, `notebook.exercise`."""

    def register(check: Check) -> Check:
        if number in CHECKS:
            raise ValueError(f"exercise {number} has two checks")
        CHECKS[number] = check
        return check

    return register


def normal(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers in float64: both signs, no zeros, no ties."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def call(answer: Any, *inputs: Any, **named: Any) -> Any:
    """Call `answer` on copies of the inputs; it must not change them."""
    given = [x.clone() if isinstance(x, Tensor) else x for x in inputs]
    got = answer(*given, **named)
    for number, (copy, x) in enumerate(zip(given, inputs, strict=True), 1):
        if isinstance(x, Tensor) and (copy.requires_grad != x.requires_grad or not torch.equal(copy, x)):
            raise WrongAnswer(f"your function changes its argument number {number} in place: work on a copy")
    return got


def like(got: Any, expected: Tensor, what: str = "your answer") -> Tensor:
    """Check type, shape, dtype (bool or not) and finiteness before values; returns `got`."""
    if got is None:
        raise WrongAnswer(f"{what} is None: does the function return its result?")
    if not isinstance(got, Tensor):
        raise WrongAnswer(f"{what} is a {type(got).__name__}, expected a torch.Tensor")
    if got.shape != expected.shape:
        raise WrongAnswer(f"{what} has shape {tuple(got.shape)}, expected {tuple(expected.shape)}")
    if (expected.dtype == torch.bool) != (got.dtype == torch.bool):
        raise WrongAnswer(f"{what} has dtype {got.dtype}, expected {expected.dtype}")
    if not bool(got.isfinite().all()):
        raise WrongAnswer(f"{what} holds NaN or infinity")
    return got


def close(
    got: Any,
    expected: Tensor,
    *,
    mistakes: Mapping[str, Tensor] | None = None,
    what: str = "your answer",
    tol: float = 1e-9,
) -> None:
    """`like`, then equal values, to `tol` of the largest entry (float32: to at least 1e-5).

    `mistakes` maps a hint to the value that this mistake gives; the hint is the message if `got` equals that value.
    Where several mistakes give the same value, the message names them all.
    """
    got = like(got, expected, what)
    tol = max(tol, _FLOAT32_TOL) if got.dtype == torch.float32 else tol
    if _equal(got, expected, tol):
        return
    hints = [hint for hint, value in (mistakes or {}).items() if value.shape == got.shape and _equal(got, value, tol)]
    if hints:
        raise WrongAnswer(f"{what} is not right: {', or: '.join(hints)}")
    wrong = (got.double() - expected.double()).abs().flatten()
    place = tuple(int(i) for i in torch.unravel_index(wrong.argmax(), expected.shape)) if expected.dim() else ()
    entry = f"entry {place} of {what}" if place else what
    raise WrongAnswer(f"{entry} is {got[place].item():.6g}, expected {expected[place].item():.6g}")


def _equal(a: Tensor, b: Tensor, tol: float) -> bool:
    gap = (a.detach().cpu().double() - b.detach().cpu().double()).abs()
    return not gap.numel() or bool(gap.max() <= tol * max(1e-300, b.detach().cpu().double().abs().max().item()))


def number(got: Any) -> float:
    """A finite number as a float, also from a tensor of one entry; anything else is a wrong answer."""
    if isinstance(got, Tensor) and got.numel() == 1:
        got = got.item()
    if isinstance(got, bool) or not isinstance(got, Real) or not math.isfinite(float(got)):
        raise WrongAnswer(f"your answer is {type(got).__name__} {got!r}, expected a finite number")
    return float(got)
