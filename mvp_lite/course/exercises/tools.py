"""What the exercise checks are made of: a registry, and comparisons whose messages name the likely mistake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["CHECKS", "WrongAnswer", "call", "close", "exercise", "like", "normal"]

Check = Callable[[Any], None]

#: number -> check, in the order of the course.
CHECKS: dict[str, Check] = {}


class WrongAnswer(AssertionError):
    """An exercise's answer is not right; the message says where it differs and, if it can, why."""


def exercise(number: str) -> Callable[[Check], Check]:
    """Register a check under its exercise's number, `notebook.exercise`."""

    def register(check: Check) -> Check:
        if number in CHECKS:
            raise ValueError(f"exercise {number} is checked twice")
        CHECKS[number] = check
        return check

    return register


def normal(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers in float64: both signs, no zeros, no ties."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def call(answer: Any, *inputs: Any, **named: Any) -> Any:
    """The answer for copies of the inputs, which it must leave as they were."""
    given = [x.clone() if isinstance(x, Tensor) else x for x in inputs]
    got = answer(*given, **named)
    for number, (copy, x) in enumerate(zip(given, inputs, strict=True), 1):
        if isinstance(x, Tensor) and (copy.requires_grad != x.requires_grad or not torch.equal(copy, x)):
            raise WrongAnswer(f"your function changes its argument number {number} in place: work on a copy")
    return got


def like(got: Any, wanted: Tensor, what: str = "your answer") -> Tensor:
    """Shape, kind and finiteness before value: `got` if it is a tensor as `wanted` is one."""
    if got is None:
        raise WrongAnswer(f"{what} is None: does the function return its result?")
    if not isinstance(got, Tensor):
        raise WrongAnswer(f"{what} is a {type(got).__name__}, a torch.Tensor is wanted")
    if got.shape != wanted.shape:
        raise WrongAnswer(f"{what} has shape {tuple(got.shape)}, {tuple(wanted.shape)} is wanted")
    if (wanted.dtype == torch.bool) != (got.dtype == torch.bool):
        raise WrongAnswer(f"{what} has dtype {got.dtype}, {wanted.dtype} is wanted")
    if not bool(got.isfinite().all()):
        raise WrongAnswer(f"{what} holds NaN or infinity")
    return got


def close(
    got: Any,
    wanted: Tensor,
    *,
    mistakes: Mapping[str, Tensor] | None = None,
    what: str = "your answer",
    tol: float = 1e-9,
) -> None:
    """`like`, then equal values (float64, to `tol` of the largest entry).

    `mistakes` maps a hint to the value that this mistake gives: where it is what was got, the hint is the message.
    """
    got = like(got, wanted, what)
    if _equal(got, wanted, tol):
        return
    for hint, value in (mistakes or {}).items():
        if value.shape == got.shape and _equal(got, value, tol):
            raise WrongAnswer(f"{what} is not right: {hint}")
    wrong = (got.double() - wanted.double()).abs().flatten()
    place = tuple(int(i) for i in torch.unravel_index(wrong.argmax(), wanted.shape)) if wanted.dim() else ()
    entry = f"entry {place} of {what}" if place else what
    raise WrongAnswer(f"{entry} is {got[place].item():.6g}, {wanted[place].item():.6g} is wanted")


def _equal(a: Tensor, b: Tensor, tol: float) -> bool:
    gap = (a.detach().cpu().double() - b.detach().cpu().double()).abs()
    return not gap.numel() or bool(gap.max() <= tol * max(1e-300, b.detach().cpu().double().abs().max().item()))
