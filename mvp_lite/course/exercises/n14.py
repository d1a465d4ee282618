"""Checks of notebook 14: leave-one-out errors of interpolation, a density read from released runs, how many seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, number

#: Half of the digits of single precision, for densities.
_TOL = 1e-6
#: (kept, score) as a sheet lists them, densest first; then in another order.
_CURVES = [
    ([0.9, 0.6, 0.3, 0.1, 0.03], [88.0, 87.0, 84.0, 78.0, 55.0]),
    ([0.1, 0.9, 0.03, 0.3, 0.6], [78.0, 88.0, 55.0, 84.0, 87.0]),
    ([0.013, 0.05, 0.14, 0.52], [87.7, 89.6, 90.4, 91.1]),
]


@exercise("14.1")
def _leave_one_out(answer: Any) -> None:
    bent = ([0.1, 0.2, 0.3, 0.5, 0.9], [50.0, 69.0, 69.5, 80.0, 79.0])  # errors of both signs
    for kept, score in [bent, _CURVES[2], ([0.03, 0.1, 0.3], [55.0, 50.0, 84.0])]:
        v, s = (torch.tensor(column, dtype=torch.float64) for column in (kept, score))
        part = (v[1:-1] - v[:-2]) / (v[2:] - v[:-2])
        error = s[1:-1] - (s[:-2] + part * (s[2:] - s[:-2]))
        logs = (v[1:-1] / v[:-2]).log() / (v[2:] / v[:-2]).log()
        hints = {
            "the sign is wrong: measured minus interpolated": -error,
            "the errors have lost their signs, which show how the curve bends": error.abs(),
            "the two neighbors have equal weights: use their distances": s[1:-1] - (s[:-2] + s[2:]) / 2.0,
            "the weights of the two neighbors are exchanged": s[1:-1] - (s[2:] + part * (s[:-2] - s[2:])),
            "these are the interpolated scores, not the errors": s[1:-1] - error,
            "the lines are straight in log(density), expected straight in density": s[1:-1]
            - (s[:-2] + logs * (s[2:] - s[:-2])),
            "the left-out run is still among the points": torch.zeros_like(error),
            "the line joins the two neighbors of each run, not the first run and the last": s[1:-1]
            - (s[0] + (v[1:-1] - v[0]) / (v[-1] - v[0]) * (s[-1] - s[0])),
            "divide by the distance of the two neighbors": s[1:-1] - (s[:-2] + (v[1:-1] - v[:-2]) * (s[2:] - s[:-2])),
        }
        close(call(answer, v, s), error, mistakes=hints)


@exercise("14.2")
def _density_for(answer: Any) -> None:
    for kept, scores in _CURVES:
        listed = list(zip(kept, scores, strict=True))
        v, s = (torch.tensor(column, dtype=torch.float64) for column in (kept, scores))
        x, y = (column.tolist() for column in (v[v.argsort()], s[v.argsort()]))
        for right in (2, 1, *range(3, len(x))):  # first where neither neighbor is the first run or the last
            for part in (0.3, 1.0):
                score = y[right - 1] + part * (y[right] - y[right - 1])
                at = x[right - 1] * (x[right] / x[right - 1]) ** part
                _same_density(call(answer, v, s, score), at, (x, y), right, part, _unsorted(listed, score))
        for score, why in ((y[0] - 1.0, "all runs are above"), (y[-1] + 1.0, "no run reaches it")):
            if (got := call(answer, v, s, score)) is not None:
                raise WrongAnswer(f"score {score:g}: {why}, so no density is known: expected None, not {got!r}")


def _unsorted(listed: list[tuple[float, float]], score: float) -> list[float]:
    """What np.interp gives for runs in the order of the list, or backwards."""
    return [
        math.exp(np.interp(score, [s for _, s in runs], [math.log(v) for v, _ in runs]))
        for runs in (listed, listed[::-1])
        if runs != sorted(runs)
    ]


def _same_density(
    got: Any, at: float, curve: tuple[list[float], list[float]], right: int, part: float, unsorted: list[float]
) -> None:
    if got is None:
        where = "is between those of two runs" if part < 1.0 else "is that of a run, which is not outside"
        raise WrongAnswer(f"your answer is None, expected density {at:g}: the score {where}")
    value = number(got)
    if abs(value - at) <= _TOL:
        return
    x = curve[0]
    left, dense = x[right - 1], x[right]
    hints = {
        "the lines are straight in density, expected straight in log(density)": left + part * (dense - left),
        "the weights of the two neighbors are exchanged": dense * (left / dense) ** part,
        "that is log(density), expected the density": math.log(at),
        "that is the densest run: np.interp expects its points in ascending order, without checking it": x[-1],
        "that is the sparsest run: np.interp expects its points in ascending order, without checking it": x[0],
    }
    said = (
        "np.interp expects its points in ascending order, without checking it: sort by density",
        "the runs may be in any order: turning the list round does not sort it",
    )
    hints |= dict(zip(said, unsorted, strict=False))
    hints |= {
        "that is the next denser run, not the line between two": dense,
        "that is the next sparser run, not the line between two": left,
    }
    for hint, wrong in hints.items():
        if abs(value - wrong) <= _TOL:
            raise WrongAnswer(f"the density is {value:g}, expected {at:g}: {hint}")
    raise WrongAnswer(f"the density is {value:g}, expected {at:g} (a fraction; the runs may be in any order)")


@exercise("14.3")
def _seeds_needed(answer: Any) -> None:
    cases = [(2.0, 2.0, 3.0), (3.0, 1.0, 2.0), (1.0, 1.0, 2.0), (0.5, 0.3, 1.96), (0.1, 5.0, 2.0), (7.95, 1.0, 2.0)]
    for std, difference, z in cases:
        got = call(answer, std, difference, z)
        if got is None:
            raise WrongAnswer("your answer is None: does the function return its result?")
        if (runs := number(got)) != round(runs):
            raise WrongAnswer(f"your answer is {runs:g}, expected an integer number of runs")
        bare = 2.0 * (z * std / difference) ** 2
        expected = max(2, math.ceil(bare - 1e-9))
        if runs == expected:
            continue
        hints = {
            "one run has no standard deviation: at least 2": math.ceil(bare - 1e-9),
            "that is for both methods together, expected for each": 2 * expected,
            "both means vary, so the variance of the difference is twice that of one mean": max(
                2, math.ceil(bare / 2 - 1e-9)
            ),
            "n falls with the square of the difference": max(2, math.ceil(2.0 * z * std / difference - 1e-9)),
            "solve for n: square both sides": max(2, math.ceil(2.0**0.5 * z * std / difference - 1e-9)),
            "round up: with fewer runs the difference does not stand out": max(2, round(bare)),
            "round up, not down: with fewer runs the difference does not stand out": max(2, math.floor(bare)),
            "z belongs inside the square, and both means vary": max(2, math.ceil(z * (std / difference) ** 2 - 1e-9)),
            "z is missing": max(2, math.ceil(2.0 * (std / difference) ** 2 - 1e-9)),
            "`<=`: a difference of exactly z standard errors is enough": max(2, math.floor(bare) + 1),
        }
        asked = f"std {std}, difference {difference}, z {z}"
        hint = next((f": {hint}" for hint, value in hints.items() if value == runs), "")
        raise WrongAnswer(f"{runs:g} runs for {asked}, expected {expected}{hint}")
