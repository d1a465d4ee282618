"""Checks of notebook 07: a paired lead and its standard error, sign flips, where two curves cross."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, like, normal


@exercise("7.1")
def _lead(answer: Any) -> None:
    for seed, (tasks, seeds, gaps) in enumerate([(1, 4, []), (3, 5, [(0, 1)]), (4, 6, [(2, 5), (3, 0), (3, 5)])]):
        A = 80.0 + 5.0 * normal(tasks, seeds, seed=seed)
        B = 70.0 + 4.0 * normal(tasks, seeds, seed=100 + seed) + 0.5 * (A - 80.0)
        for i, (task, run) in enumerate(gaps):
            (A if i % 2 else B)[task, run] = math.nan
        d = (A - B).mean(dim=0)
        d = d[~d.isnan()]
        m = d.numel()
        mean, error = d.mean(), d.std() / m**0.5
        given = A.clone(), B.clone()
        got = answer(*given)
        if not all(
            torch.allclose(x, y, rtol=0.0, atol=0.0, equal_nan=True) for x, y in zip(given, (A, B), strict=True)
        ):
            raise WrongAnswer("your function changes its arguments in place: work on copies")
        if got is not None and not isinstance(got, Tensor) and isinstance(got, tuple | list) and len(got) == 2:
            raise WrongAnswer("your answer is a pair: stack mean and standard error to a tensor of shape (2,)")
        expected = torch.stack([mean, error])
        got = like(got, expected)
        each = A.nanmean(dim=0) - B.nanmean(dim=0)
        whole = (A - B).isnan().logical_not().all(dim=0)
        complete_A, complete_B = A[:, whole].mean(dim=0), B[:, whole].mean(dim=0)
        hints = {
            "the sign is wrong: the lead is the first minus the second": -mean,
            "means over different tasks are compared: leave out seeds that lack a run": each.mean(),
            "every run is counted by itself: leave out seeds that lack a run": A.nanmean() - B.nanmean(),
            "a run that only one method has is left out, the other tasks of that seed are not": (A - B).nanmean(),
            "a seed that lacks a run is averaged over fewer tasks: leave it out": (A - B).nanmean(dim=0).mean(),
            "a missing run is no lead of 0: leave out the seed": (A - B).nan_to_num().mean(),
        }
        close(got[0], mean, mistakes=hints, what="the mean lead")
        unpaired = (complete_A.var() + complete_B.var()).sqrt()
        pooled = (A - B)[:, whole].flatten()
        hints = {
            "divide the sum of squares by m - 1": d.std(correction=0) / m**0.5,
            "this is the standard deviation of one lead: divide by the root of m": d.std(),
            "this is the variance: take the root": d.var() / m,
            "divide by the root of m, not by m": d.std() / m,
            "the runs are paired: take the deviation of the differences": unpaired / m**0.5,
            "the runs are paired (and the sum of squares is divided by m - 1)": (
                complete_A.var(correction=0) + complete_B.var(correction=0)
            ).sqrt()
            / m**0.5,
            "m counts the seeds that were used": d.std() / A.shape[1] ** 0.5,
            "average over tasks first: the standard error is over seeds": pooled.std() / pooled.numel() ** 0.5,
        }
        close(got[1], error, mistakes=hints, what="the standard error")


@exercise("7.2")
def _sign_flip(answer: Any) -> None:
    cases = [  # in the first, no two mistakes give the same number
        [-4.0, 1.0, -2.0, -0.5, -3.0],
        [3.0, 1.0, 4.0],
        [2.5, -0.5, 1.5, 3.0, 1.0],
        [-4.0, 1.0, -2.0, 0.5],
        [1.0, 1.0, 1.0, -1.0, 1.0, 1.0],
        [2.0, -2.0],
        [7.0],
    ]
    for leads in cases:
        d = torch.tensor(leads, dtype=torch.float64)
        m, observed = d.numel(), float(d.sum())
        signs = torch.cartesian_prod(*[torch.tensor([1.0, -1.0], dtype=torch.float64)] * m).view(-1, m)
        sums = signs @ d
        got = call(answer, d)
        if isinstance(got, int | float) and not isinstance(got, bool):
            got = torch.tensor(float(got), dtype=torch.float64)
        expected = (sums.abs() >= abs(observed)).double().mean()
        positive = (signs.sum(dim=1).abs() >= abs(float(d.sign().sum()))).double().mean()
        at_least = (sums >= observed).double().mean()
        hints = {
            "this is a number of flips, expected a share: divide by 2 ** m": expected * 2**m,
            "one side only: count leads of the other method too": at_least,
            "one side only, and the wrong one": (sums <= observed).double().mean(),
            "'at least as large' counts the observed leads themselves": (sums.abs() > abs(observed)).double().mean(),
            "this is the share of smaller leads, expected the others": 1.0 - expected,
            "this counts signs alone; magnitudes matter too": positive,
            "the observed sum needs its absolute value, too": (sums.abs() >= observed).double().mean(),
            "'at least as large', not 'at most'": (sums.abs() <= abs(observed)).double().mean(),
            "this is the smallest possible value (7.4): count the flips": torch.tensor(2.0 ** (1 - m)).double(),
            "the observed leads are already one of the 2 ** m": (expected * 2**m + 1.0) / (2**m + 1.0),
        }
        close(got, expected, mistakes=hints)


@exercise("7.3")
def _crossings(answer: Any) -> None:
    grids = [[0.01, 0.1, 1.0], [0.01, 0.03, 0.1, 0.3, 0.7], [0.03, 0.1], [0.02, 0.05, 0.11, 0.2, 0.4, 0.9]]
    for seed, grid in enumerate(grids * 2):
        v = torch.tensor(grid, dtype=torch.float64)
        b = 60.0 + 10.0 * normal(len(grid), seed=seed)
        d = normal(len(grid), seed=50 + seed).abs() + 0.2
        if seed < len(grids):  # a crossing in every interval; in the second round one crossing, or none
            d[1::2] *= -1.0
        else:
            d[: 2 * (seed % 2)] *= -1.0
        expected = _cross(v.log(), d).exp()
        got = call(answer, v, b + d, b)
        if isinstance(got, Tensor) and got.dim() == 1 and got.numel() != expected.numel():
            found, where = got.numel(), expected.numel()
            advice = "look at every interval" if found < where else "only at changes of sign"
            raise WrongAnswer(f"your answer has {found} crossing{'s' * (found != 1)} where there are {where}: {advice}")
        hints = {
            "the lines are straight in log(v), not in v": _cross(v, d),
            "these are the logarithms of the densities": expected.log(),
            "the two ends are exchanged: the crossing is nearer to the smaller difference": _swapped(v, d),
            "this is the middle of the interval, expected the crossing": _middle(v, d),
            "the order is wrong, expected ascending densities": expected.flip(0),
            "the exponent is d0 / (d0 - d1), with a minus": _summed(v, d),
        }
        close(got, expected, mistakes=hints)


def _sign_changes(d: Tensor) -> list[int]:
    return [i for i in range(d.numel() - 1) if float(d[i] * d[i + 1]) < 0]


def _cross(x: Tensor, d: Tensor) -> Tensor:
    found = [float(x[i] + (x[i + 1] - x[i]) * d[i] / (d[i] - d[i + 1])) for i in _sign_changes(d)]
    return torch.tensor(found, dtype=torch.float64)


def _swapped(v: Tensor, d: Tensor) -> Tensor:
    x = v.log()
    found = [float(x[i + 1] - (x[i + 1] - x[i]) * d[i] / (d[i] - d[i + 1])) for i in _sign_changes(d)]
    return torch.tensor(found, dtype=torch.float64).exp()


def _summed(v: Tensor, d: Tensor) -> Tensor:
    found = [float(v[i] * (v[i + 1] / v[i]) ** (d[i] / (d[i] + d[i + 1]))) for i in _sign_changes(d)]
    return torch.tensor(found, dtype=torch.float64)


def _middle(v: Tensor, d: Tensor) -> Tensor:
    found = [float(v[i] * v[i + 1]) ** 0.5 for i in _sign_changes(d)]
    return torch.tensor(found, dtype=torch.float64)
