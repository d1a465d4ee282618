"""Answers to the exercises of notebook 15: two right ones for each, and wrong ones that the checks must reject."""

import math
from fractions import Fraction

import torch


def budget_by_masks(dense, scores, budgets, limit):
    holds = (dense[:, None] - scores < limit).all(dim=0)
    safe = [b for b in budgets.tolist() if holds[budgets >= b].all()]
    return min(safe, default=None)


def budget_by_loop(dense, scores, budgets, limit):
    found = None
    for i in budgets.argsort(descending=True):
        if max(float(d - s) for d, s in zip(dense, scores[:, i], strict=True)) >= limit:
            break
        found = budgets[i]
    return found


def budget_with(holds):
    """The right search, with another test of a budget."""

    def budget(dense, scores, budgets, limit):
        true = holds(dense[:, None] - scores, dense[:, None], limit)
        return min((b for b in budgets.tolist() if true[budgets >= b].all()), default=None)

    return budget


def budget_anywhere(dense, scores, budgets, limit):
    holds = (dense[:, None] - scores < limit).all(dim=0)
    return float(budgets[holds].min()) if holds.any() else None


def budget_largest(dense, scores, budgets, limit):
    holds = (dense[:, None] - scores < limit).all(dim=0)
    return float(budgets[holds].max()) if holds.any() else None


def budget_first(dense, scores, budgets, limit):
    holds = (dense[:, None] - scores < limit).all(dim=0)
    return next((float(b) for b, true in zip(budgets, holds, strict=True) if true), None)


def budget_last(dense, scores, budgets, limit):
    holds = (dense[:, None] - scores < limit).all(dim=0)
    return float(budgets[holds][-1]) if holds.any() else None


def budget_ascending(dense, scores, budgets, limit):
    holds = (dense[:, None] - scores < limit).all(dim=0)
    return next((float(b) for i, b in enumerate(budgets) if holds[i:].all()), None)


def budget_above(dense, scores, budgets, limit):
    holds = (dense[:, None] - scores < limit).all(dim=0)
    return min((b for b in budgets.tolist() if holds[budgets > b].all()), default=None)


def budget_place(*given):
    found = budget_by_masks(*given)
    return None if found is None else given[2].tolist().index(found)


def possible_by_steps(printed, examples, runs, decimals=2):
    step = 100 / (examples * runs)
    return abs(round(printed / step) * step - printed) <= 0.5 * 10**-decimals + 1e-9


def possible_by_counts(printed, examples, runs, decimals=2):
    """Is there an integer between the two counts that give the printed number?"""
    center, half = Fraction(round(printed * 10**decimals), 10**decimals), Fraction(1, 2 * 10**decimals)
    low, high = ((center + sign * half) * examples * runs / 100 for sign in (-1, 1))
    return math.ceil(low) <= math.floor(high)


def possible_by_list(printed, examples, runs, decimals=2):
    means = torch.arange(examples * runs + 1, dtype=torch.float64) * 100 / (examples * runs)
    return (means - printed).abs().min() <= 0.5 * 10**-decimals + 1e-9


def possible_exactly(printed, examples, runs, decimals=2):
    """Without an allowance for the rounding of floats."""
    return abs(round(printed * examples * runs / 100) / (examples * runs) * 100 - printed) <= 0.5 * 10**-decimals


def possible_with(whole=round, half=lambda decimals: 0.5 * 10**-decimals, scale=100):
    def possible(printed, examples, runs, decimals=2):
        step = scale / (examples * runs)
        return abs(whole(printed / step) * step - printed) <= half(decimals) + 1e-9

    return possible


def fraction_by_times(times, part, speed_up):
    left = times.sum() / speed_up - (times.sum() - times[part])
    return None if left < -1e-12 else float(left / times[part])


def fraction_by_shares(times, part, speed_up):
    share = times[part] / times.sum()
    kept = 1 - (1 - 1 / speed_up) / share
    return kept if kept > -1e-9 else None


def fraction_with(formula):
    """A wrong formula of the times, their sum, the part's own time and the speed-up; right about None."""

    def fraction(times, part, speed_up):
        right = fraction_by_times(times, part, speed_up)
        return None if right is None else float(formula(right, times.sum(), times[part], speed_up))

    return fraction


def stub(*_):
    return None


RIGHT = {
    "15.1": [budget_by_masks, budget_by_loop],
    "15.2": [possible_by_steps, possible_by_counts, possible_by_list, possible_exactly],
    "15.3": [fraction_by_times, fraction_by_shares],
}

WRONG = {
    "15.1": {
        "stub": stub,
        "anywhere": budget_anywhere,
        "largest": budget_largest,
        "first column": budget_first,
        "last column": budget_last,
        "as if ascending": budget_ascending,
        "larger ones alone": budget_above,
        "place": budget_place,
        "some task": budget_with(lambda lost, dense, limit: (lost < limit).any(dim=0)),
        "mean": budget_with(lambda lost, dense, limit: lost.mean(dim=0) < limit),
        "at most": budget_with(lambda lost, dense, limit: (lost <= limit).all(dim=0)),
        "per cent": budget_with(lambda lost, dense, limit: (100 * lost / dense < limit).all(dim=0)),
        "absolute": budget_with(lambda lost, dense, limit: (lost.abs() < limit).all(dim=0)),
        "sign": budget_with(lambda lost, dense, limit: (-lost < limit).all(dim=0)),
        "a mask": lambda dense, scores, budgets, limit: (dense[:, None] - scores < limit).all(dim=0),
        "infinity": lambda *given: math.inf if budget_by_masks(*given) is None else budget_by_masks(*given),
    },
    "15.2": {
        "stub": stub,
        "one run": lambda printed, examples, runs, decimals=2: possible_by_steps(printed, examples, 1, decimals),
        "rounded down": possible_with(whole=math.floor),
        "equal": possible_with(half=lambda decimals: 0.0),
        "a whole unit": possible_with(half=lambda decimals: 10**-decimals),
        "rounded to even": lambda printed, examples, runs, decimals=2: (
            round(100 * round(printed * examples * runs / 100) / (examples * runs), decimals) == printed
        ),
        "less than half": possible_with(half=lambda decimals: 0.5 * 10**-decimals - 2e-9),
        "counts": lambda printed, examples, runs, decimals=2: (
            abs(round(printed * examples * runs / 100) - printed * examples * runs / 100) <= 0.5 * 10**-decimals
        ),
        "always two decimals": possible_with(half=lambda decimals: 0.005),
        "fractions": possible_with(scale=1),
        "the count": lambda printed, examples, runs, decimals=2: printed * examples * runs / 100,
        "always": lambda *_: True,
        "never": lambda *_: False,
    },
    "15.3": {
        "stub": stub,
        "this part alone": fraction_with(lambda right, total, own, speed_up: 1 / speed_up),
        "removed": fraction_with(lambda right, total, own, speed_up: 1 - right),
        "a time": fraction_with(lambda right, total, own, speed_up: right * own),
        "of the whole": fraction_with(lambda right, total, own, speed_up: right * own / total),
        "upside down": fraction_with(lambda right, total, own, speed_up: (total * speed_up - total + own) / own),
        "times as shares": fraction_with(lambda right, total, own, speed_up: (1 / speed_up - 1 + own) / own),
        "others with the part": fraction_with(lambda right, total, own, speed_up: (total / speed_up - total) / own),
        "others forgotten": fraction_with(lambda right, total, own, speed_up: total / speed_up / own),
        "negative": lambda times, part, speed_up: float(1 - (1 - 1 / speed_up) * times.sum() / times[part]),
        "clamped": lambda *given: fraction_by_times(*given) or 0.0,
        "never possible": lambda *_: None,
    },
}

SAID = {
    "15.1": {
        "anywhere": "every larger one too$",
        "largest": "this is the largest budget",
        "some task": "one task is not enough",
        "last column": "this is the last column",
        "as if ascending": "need not be a larger budget$",
        "larger ones alone": "not only about larger ones$",
        "place": "not its place$",
        "mean": "the mean over the tasks",
        "at most": "exactly the limit is not less$",
        "per cent": "points, not per cent",
        "absolute": "a gain is no loss",
        "a mask": "expected a finite number",
    },
    "15.2": {
        "one run": r"a multiple of 100 / \(runs",
        "rounded down": "not down$",
        "equal": "allow half a unit",
        "a whole unit": "half a unit of the last digit at most$",
        "rounded to even": "6.25 to 6.2 or to 6.3$",
        "less than half": "a distance of half a unit is allowed$",
        "counts": "not counts of right answers$",
        "always two decimals": "the number of decimals counts",
        "the count": "expected True or False$",
    },
    "15.3": {
        "this part alone": "not this part$",
        "removed": "the fraction that is removed$",
        "others with the part": "the sum without",
        "a time": "this is a time",
        "of the whole": "not of the whole$",
        "upside down": "dense over pruned$",
        "times as shares": "times are not shares",
        "negative": "expected None: the other parts",
    },
}
