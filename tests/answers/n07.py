"""Answers to the exercises of notebook 07: two right ones for each, and wrong ones that the checks must reject."""

import itertools
import math

import torch


def lead_by_tensor(A, B):
    d = (A - B).mean(dim=0)
    d = d[~d.isnan()]
    return torch.stack([d.mean(), d.std() / d.numel() ** 0.5])


def lead_by_loop(A, B):
    leads = []
    for column in range(A.shape[1]):
        ours, theirs = A[:, column].tolist(), B[:, column].tolist()
        if not any(math.isnan(score) for score in ours + theirs):
            leads.append(sum(ours) / len(ours) - sum(theirs) / len(theirs))
    m = len(leads)
    mean = sum(leads) / m
    variance = sum((lead - mean) ** 2 for lead in leads) / (m - 1)
    return torch.tensor([mean, math.sqrt(variance / m)], dtype=torch.float64)


def broken_lead(A, B):
    a, b = A.nanmean(dim=0), B.nanmean(dim=0)
    m = a.numel()
    return torch.stack([a.mean() - b.mean(), ((a.var(correction=0) + b.var(correction=0)) / m).sqrt()])


def lead_with(mean=None, error=None):
    """The right answer with one of its two numbers replaced; each gets A, B and d, the leads of the whole seeds."""

    def lead(A, B):
        d = (A - B).mean(dim=0)
        d = d[~d.isnan()]
        right = lead_by_tensor(A, B)
        return torch.stack([mean(A, B, d) if mean else right[0], error(A, B, d) if error else right[1]])

    return lead


def whole(A, B):
    return ~(A - B).isnan().any(dim=0)


def flips_by_product(d):
    total = abs(d.sum())
    sums = [
        sum(s * x for s, x in zip(signs, d.tolist(), strict=True))
        for signs in itertools.product((1, -1), repeat=len(d))
    ]
    return sum(abs(s) >= total - 1e-9 for s in sums) / len(sums)


def flips_by_bits(d):
    m = d.numel()
    bits = torch.arange(2**m)[:, None] >> torch.arange(m) & 1
    sums = (2.0 * bits.double() - 1.0) @ d
    return (sums.abs() >= d.sum().abs() - 1e-9).double().mean()


def flips_with(share):
    def flip(d):
        signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=d.numel())), dtype=d.dtype)
        return share(signs @ d, d.sum(), signs, d)

    return flip


def mean(condition):
    return condition.double().mean()


def cross_by_loop(v, a, b):
    x, d = v.log(), a - b
    found = []
    for i in range(len(v) - 1):
        if d[i] * d[i + 1] < 0:
            found.append(x[i] + (x[i + 1] - x[i]) * d[i] / (d[i] - d[i + 1]))
    return torch.stack(found).exp() if found else torch.zeros(0, dtype=v.dtype)


def cross_by_powers(v, a, b):
    d = a - b
    left, right = d[:-1], d[1:]
    here = left * right < 0
    return (v[:-1] * (v[1:] / v[:-1]) ** (left / (left - right)))[here]


def cross_with(place, here=lambda left, right: left * right < 0):
    def cross(v, a, b):
        d = a - b
        left, right = d[:-1], d[1:]
        return place(v[:-1], v[1:], left, right)[here(left, right)]

    return cross


def cross_in_place(v, a, b):
    a -= b
    return cross_by_powers(v, a, torch.zeros_like(a))


def stub(*_):
    return None


RIGHT = {
    "7.1": [lead_by_tensor, lead_by_loop],
    "7.2": [flips_by_product, flips_by_bits],
    "7.3": [cross_by_loop, cross_by_powers],
}

WRONG = {
    "7.1": {
        "stub": stub,
        "each over what it has": broken_lead,
        "pair": lambda A, B: tuple(lead_by_tensor(A, B)),
        "mean alone": lambda A, B: lead_by_tensor(A, B)[0],
        "second minus first": lambda A, B: lead_by_tensor(B, A),
        "gaps let through": lambda A, B: torch.stack([(A - B).mean(), (A - B).mean(dim=0).std()]),
        "tasks that are there": lead_with(mean=lambda A, B, d: (A.nanmean(dim=0) - B.nanmean(dim=0)).mean()),
        "tasks with a pair": lambda A, B: torch.stack([(A - B).nanmean(dim=0).mean(), lead_by_tensor(A, B)[1]]),
        "gaps as 0": lambda A, B: lead_by_tensor((A - B).nan_to_num(), torch.zeros_like(B)),
        "all runs alike": lead_with(mean=lambda A, B, d: A.nanmean() - B.nanmean()),
        "pairs of runs": lead_with(mean=lambda A, B, d: (A - B).nanmean()),
        "divided by m": lead_with(error=lambda A, B, d: d.std(correction=0) / d.numel() ** 0.5),
        "deviation": lead_with(error=lambda A, B, d: d.std()),
        "variance": lead_with(error=lambda A, B, d: d.var() / d.numel()),
        "over m": lead_with(error=lambda A, B, d: d.std() / d.numel()),
        "unpaired": lead_with(
            error=lambda A, B, d: (
                (A[:, whole(A, B)].mean(dim=0).var() + B[:, whole(A, B)].mean(dim=0).var()) / d.numel()
            ).sqrt()
        ),
        "all seeds counted": lead_with(error=lambda A, B, d: d.std() / A.shape[1] ** 0.5),
        "tasks as seeds": lead_with(
            error=lambda A, B, d: (A - B)[:, whole(A, B)].std() / (A.shape[0] * d.numel()) ** 0.5
        ),
        "summed over tasks": lambda A, B: torch.stack([lead_by_tensor(A, B)[0], (A - B).mean(dim=1).sum()]),
        "in place": lambda A, B: lead_by_tensor(A.nan_to_num_(), B.nan_to_num_()),
        "single precision": lambda A, B: lead_by_tensor(A.float(), B.float()).double(),
    },
    "7.2": {
        "stub": stub,
        "one side": flips_with(lambda sums, total, *_: mean(sums >= total)),
        "other side": flips_with(lambda sums, total, *_: mean(sums <= total)),
        "strict": flips_with(lambda sums, total, *_: mean(sums.abs() > total.abs())),
        "observed sum signed": flips_with(lambda sums, total, *_: mean(sums.abs() >= total)),
        "at most": flips_with(lambda sums, total, *_: mean(sums.abs() <= total.abs())),
        "smaller": flips_with(lambda sums, total, *_: mean(sums.abs() < total.abs())),
        "count": flips_with(lambda sums, total, *_: (sums.abs() >= total.abs()).sum().double()),
        "signs alone": flips_with(lambda sums, total, signs, d: mean(signs.sum(1).abs() >= d.sign().sum().abs())),
        "plus one": flips_with(
            lambda sums, total, *_: ((sums.abs() >= total.abs()).sum() + 1.0).double() / (len(sums) + 1)
        ),
        "smallest possible": lambda d: 2.0 ** (1 - d.numel()),
        "share of wins": lambda d: mean(d > 0),
        "a list": lambda d: [flips_by_product(d)],
    },
    "7.3": {
        "stub": stub,
        "straight in v": cross_with(lambda v, w, p, q: v + (w - v) * p / (p - q)),
        "logarithms": lambda v, a, b: cross_by_powers(v, a, b).log(),
        "ends exchanged": cross_with(lambda v, w, p, q: w * (v / w) ** (p / (p - q))),
        "sum below": cross_with(lambda v, w, p, q: v * (w / v) ** (p / (p + q))),
        "middle": cross_with(lambda v, w, p, q: (v * w).sqrt()),
        "left point": cross_with(lambda v, w, p, q: v),
        "every interval": cross_with(lambda v, w, p, q: v * (w / v) ** (p / (p - q)), lambda p, q: p.abs() >= 0),
        "no change of sign": cross_with(lambda v, w, p, q: v * (w / v) ** (p / (p - q)), lambda p, q: p * q > 0),
        "first one": lambda v, a, b: cross_by_powers(v, a, b)[:1],
        "descending": lambda v, a, b: cross_by_powers(v, a, b).flip(0),
        "signs alone": lambda v, a, b: (a - b) > 0,
        "in place": cross_in_place,
        "list": lambda v, a, b: cross_by_powers(v, a, b).tolist(),
    },
}

#: Exercise -> wrong answer -> what its author reads; None: only what differs, and where.
SAID = {
    "7.1": {
        "second minus first": "the lead is the first minus the second$",
        "tasks that are there": "means over different tasks are compared: leave out seeds that lack a run$",
        "tasks with a pair": "averaged over fewer tasks: leave it out$",
        "gaps as 0": "a missing run is no lead of 0",
        "all runs alike": "every run is counted by itself: leave out seeds that lack a run$",
        "pairs of runs": "the other tasks of that seed are not$",
        "divided by m": "divide the sum of squares by m - 1$",
        "deviation": "divide by the root of m$",
        "over m": "divide by the root of m, not by m$",
        "unpaired": "the runs are paired: take the deviation of the differences$",
        "all seeds counted": "m counts the seeds that were used$",
        "tasks as seeds": "average over tasks first",
        "pair": "your answer is a pair: stack",
    },
    "7.2": {
        "one side": "one side only: count leads of the other method too$",
        "other side": "one side only, and the wrong one$",
        "strict": "'at least as large' counts the observed leads themselves$",
        "observed sum signed": "needs its absolute value, too$",
        "at most": "not 'at most'$",
        "smallest possible": "the smallest possible value",
        "count": "expected a share: divide by 2",
        "signs alone": "magnitudes matter too$",
        "plus one": "already one of the 2",
    },
    "7.3": {
        "straight in v": r"straight in log\(v\), not in v$",
        "logarithms": "these are the logarithms of the densities$",
        "ends exchanged": "nearer to the smaller difference$",
        "middle": "this is the middle of the interval",
        "every interval": "only at changes of sign$",
        "first one": "1 crossing where there are 2: look at every interval$",
        "descending": "expected ascending densities$",
        "sum below": "with a minus$",
    },
}
