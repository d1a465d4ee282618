"""Checks of notebook 15: the strongest claim that a table supports, means that are possible, time by Amdahl's law."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, exercise, number

#: dense (tasks,), scores (tasks, budgets), budgets: what differs is said by the name.
_TABLES: dict[str, tuple[list[float], list[list[float]], list[float]]] = {
    "a table of two budgets": ([90.0, 80.0], [[85.0, 89.0], [78.0, 79.0]], [0.6, 0.7]),
    "the budgets in falling order": ([90.0, 80.0], [[89.0, 88.0, 80.0], [79.0, 77.0, 70.0]], [0.9, 0.7, 0.5]),
    "a budget that holds below one that fails": ([50.0, 60.0], [[49.0, 45.0, 49.0], [59.0] * 3], [0.5, 0.6, 0.8]),
    "a loss of exactly the limit": ([90.0, 60.0], [[86.0, 88.0], [59.0, 59.0]], [0.6, 0.8]),
    "a limit that no budget meets": ([90.0, 60.0], [[80.0, 85.0], [59.0, 60.0]], [0.6, 0.8]),
    "low scores": ([40.0, 30.0], [[37.0, 39.0], [27.0, 29.0]], [0.6, 0.8]),
    "a pruned model above the dense one": ([70.0, 60.0], [[76.0, 71.0], [61.0, 60.0]], [0.6, 0.8]),
}  # fmt: skip


@exercise("15.1")
def _smallest_budget(answer: Any) -> None:
    limit = 4.0
    found, expected, mistakes = [], [], []
    for columns in _TABLES.values():
        dense, scores, budgets = (torch.tensor(column, dtype=torch.float64) for column in columns)
        got = call(answer, dense, scores, budgets, limit)
        found.append(None if got is None else _rounded(number(got)))
        expected.append(_from(budgets, (dense[:, None] - scores < limit).all(dim=0)))
        mistakes.append(_mistaken_budgets(dense, scores, budgets, limit))
    for place, name in enumerate(_TABLES):
        if found[place] != expected[place]:
            hint = _hint(found, mistakes)
            raise WrongAnswer(
                f"your answer for {name} is {_shown(found[place])}, expected {_shown(expected[place])}{hint}"
            )


def _mistaken_budgets(dense: Tensor, scores: Tensor, budgets: Tensor, limit: float) -> dict[str, float | None]:
    lost = dense[:, None] - scores
    holds = (lost < limit).all(dim=0)
    tests = {
        "one task is not enough: all must lose less": (lost < limit).any(dim=0),
        "the mean over the tasks is not enough: all must lose less": lost.mean(dim=0) < limit,
        "a loss of exactly the limit is not less": (lost <= limit).all(dim=0),
        "points, not per cent of the dense score": (100.0 * lost / dense[:, None] < limit).all(dim=0),
        "a gain is no loss: compare without absolute values": (lost.abs() < limit).all(dim=0),
        "the loss is dense minus pruned": (-lost < limit).all(dim=0),
    }
    true = [float(b) for b, here in zip(budgets, holds, strict=True) if here]
    right = _from(budgets, holds)
    return {hint: _from(budgets, mask) for hint, mask in tests.items()} | {
        "a larger budget fails there: the claim says every larger one too": min(true, default=None),
        "this is the largest budget": max(true, default=None),
        "this is the first column that holds: the budgets may be in any order": true[0] if true else None,
        "this is the last column that holds: the budgets may be in any order": true[-1] if true else None,
        "the budgets may be in any order: a later column need not be a larger budget": next(
            (float(b) for i, b in enumerate(budgets) if bool(holds[i:].all())), None
        ),
        "the claim is about this budget too, not only about larger ones": min(
            (float(b) for b in budgets if bool(holds[budgets > b].all())), default=None
        ),
        "expected a budget, not its place": None if right is None else float(budgets.tolist().index(right)),
    }


def _hint(found: list[Any], mistakes: list[dict[str, Any]]) -> str:
    """The mistake that gives all of these answers."""
    return next((f": {hint}" for hint in mistakes[0] if [given[hint] for given in mistakes] == found), "")


def _rounded(value: float) -> float:
    return round(value, 6)


def _from(budgets: Tensor, holds: Tensor) -> float | None:
    """The smallest budget from which on `holds` is true."""
    return min((float(b) for b in budgets if bool(holds[budgets >= b].all())), default=None)


def _shown(value: float | None) -> str:
    return "None" if value is None else f"{value:g}"


#: printed, examples, runs, decimals -> possible; accuracies in per cent
_PRINTED = [
    (86.27, 408, 1, 2, True), (86.30, 408, 1, 2, False), (84.19, 408, 10, 2, True), (84.20, 408, 10, 2, False),
    (86.26, 408, 1, 2, False), (33.33, 3, 1, 2, True), (33.3, 3, 1, 1, True), (33.4, 3, 1, 1, False),
    (66.67, 3, 1, 2, True), (66.66, 3, 1, 2, False), (41.7, 6, 2, 1, True), (62.5, 40, 3, 1, True),
    (87.13, 408, 10, 2, True), (12.5, 7, 8, 1, True), (89.99, 40430, 10, 2, True), (87.2, 408, 10, 1, True),
    (100.0, 9, 2, 2, True), (0.0, 9, 2, 2, True), (6.2, 16, 1, 1, True), (6.3, 16, 1, 1, True),
]  # fmt: skip


@exercise("15.2")
def _is_possible(answer: Any) -> None:
    found, mistakes = [], []
    for printed, examples, runs, decimals, _ in _PRINTED:
        got = call(answer, printed, examples, runs, decimals)
        if got is None:
            raise WrongAnswer("your answer is None: does the function return its result?")
        if isinstance(got, Tensor) and got.numel() == 1 and got.dtype == torch.bool:
            got = bool(got)
        if type(got).__name__ not in ("bool", "bool_"):
            raise WrongAnswer(f"your answer is {type(got).__name__} {got!r}, expected True or False")
        found.append(bool(got))
        mistakes.append(
            {
                "a mean of several runs is a multiple of 100 / (runs * examples)": _fits(
                    printed, examples, 1, decimals
                ),
                "round to the nearest multiple, not down": _fits(printed, examples, runs, decimals, math.floor),
                "the printed number is rounded: allow half a unit of its last digit": _fits(
                    printed, examples, runs, decimals, half=1e-12
                ),
                "rounding moves a number by half a unit of the last digit at most": _fits(
                    printed, examples, runs, decimals, half=10.0**-decimals
                ),
                "a half may be rounded either way: 6.25 to 6.2 or to 6.3": _rounds_to(
                    printed, examples, runs, decimals
                ),
                "a half may be rounded either way: a distance of half a unit is allowed": _fits(
                    printed, examples, runs, decimals, half=0.5 * 10.0**-decimals - 3e-9
                ),
                "compare numbers in per cent, not counts of right answers": _near_count(
                    printed, examples, runs, decimals
                ),
                "the number of decimals counts": _fits(printed, examples, runs, 2),
                "in per cent the step is 100 / (runs * examples)": _fits(printed, 100 * examples, runs, decimals),
            }
        )
    for got, (printed, examples, runs, decimals, expected) in zip(found, _PRINTED, strict=True):
        if got != expected:
            asked = f"{printed:.{decimals}f} as a mean of {runs} runs on {examples} examples"
            raise WrongAnswer(f"{got} for {asked}, expected {expected}{_hint(found, mistakes)}")


def _fits(printed: float, examples: int, runs: int, decimals: int, whole: Any = round, half: float = 0.0) -> bool:
    step = 100.0 / (examples * runs)
    return bool(abs(whole(printed / step) * step - printed) <= (half or 0.5 * 10.0**-decimals) + 1e-9)


def _rounds_to(printed: float, examples: int, runs: int, decimals: int) -> bool:
    step = 100.0 / (examples * runs)
    return abs(round(round(printed / step) * step, decimals) - printed) < 1e-9


def _near_count(printed: float, examples: int, runs: int, decimals: int) -> bool:
    count = printed * examples * runs / 100.0
    return abs(round(count) - count) <= 0.5 * 10.0**-decimals + 1e-9


@exercise("15.3")
def _fraction_for(answer: Any) -> None:
    cases: list[tuple[list[float], int, float]]
    cases = [([1.0, 2.0], 1, 1.5), ([3.0, 5.0, 2.0], 1, 1.6), ([30.0, 50.0, 20.0], 0, 1.25), ([1.0, 2.0], 1, 3.0)]
    cases += [([1.0, 2.0], 1, 4.0), ([2.0, 1.0], 1, 2.0), ([4.0, 6.0], 0, 1.0)]
    for columns, part, speed_up in cases:
        times = torch.tensor(columns, dtype=torch.float64)
        total, own = float(times.sum()), columns[part]
        left = (total / speed_up - (total - own)) / own
        expected = left if left > -1e-9 else None
        got = call(answer, times, part, speed_up)
        found = None if got is None else number(got)
        asked = f"times {columns}, part {part}, speed-up {speed_up:g}"
        if expected is None and found is not None:
            raise WrongAnswer(f"{found:g} for {asked}, expected None: the other parts alone take too long")
        if expected is not None and found is None:
            raise WrongAnswer(f"None for {asked}, expected {expected:g}")
        if found is None or expected is None or abs(found - expected) <= 1e-5:
            continue
        hints = {
            "the other parts take their time too: the whole must be that fast, not this part": 1.0 / speed_up,
            "this is the fraction that is removed": 1.0 - left,
            "this is a time: divide by the time of the part in the dense model": left * own,
            "divide by the time of the part, not of the whole": left * own / total,
            "the speed-up is a ratio of times: dense over pruned": (total * speed_up - (total - own)) / own,
            "times are not shares: divide by their sum, or multiply": (1.0 / speed_up - (1.0 - own)) / own,
            "only `part` shrinks: subtract the time of all others": total / speed_up / own,
            "the time of all others is the sum without `part`": (total / speed_up - total) / own,
        }
        hint = next((f": {hint}" for hint, value in hints.items() if abs(value - found) <= 1e-6), "")
        raise WrongAnswer(f"{found:g} for {asked}, expected {expected:g}{hint}")
