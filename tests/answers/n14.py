"""Answers to the exercises of notebook 14: two right ones for each, and wrong ones that the checks must reject."""

import math
from itertools import pairwise

import numpy as np
import torch


def density_by_loop(kept, scores, score):
    runs = sorted(zip(kept.tolist(), scores.tolist(), strict=True))
    for (v1, s1), (v2, s2) in pairwise(runs):
        if s1 <= score <= s2:
            return v1 * (v2 / v1) ** ((score - s1) / (s2 - s1))
    return None


def density_by_interp(kept, scores, score):
    order = kept.argsort()
    s, x = scores[order].numpy(), kept[order].log().numpy()
    return float(np.exp(np.interp(score, s, x))) if s[0] <= score <= s[-1] else None


def density_by_tensors(kept, scores, score):
    if score < scores.min() or score > scores.max():
        return None
    v, s = kept.sort().values.log(), scores.sort().values  # both rise
    right = int(torch.searchsorted(s, torch.tensor(score, dtype=s.dtype)).clamp(1, len(s) - 1))
    return torch.lerp(v[right - 1], v[right], (score - s[right - 1]) / (s[right] - s[right - 1])).exp()


def as_it_was(kept, scores, score):
    return np.exp(np.interp(score, scores, kept.log()))


def sorted_only(kept, scores, score):
    order = kept.argsort()
    return float(np.exp(np.interp(score, scores[order].numpy(), kept[order].log().numpy())))


def density_between(value):
    """Right about None; `value` of the two neighbors and of the share between them."""

    def density(kept, scores, score):
        runs = sorted(zip(kept.tolist(), scores.tolist(), strict=True))
        for (v1, s1), (v2, s2) in pairwise(runs):
            if s1 <= score <= s2:
                return value(v1, v2, (score - s1) / (s2 - s1))
        return None

    return density


def loo_by_formula(kept, score):
    share = (kept[1:-1] - kept[:-2]) / (kept[2:] - kept[:-2])
    return score[1:-1] - (1 - share) * score[:-2] - share * score[2:]


def loo_by_interp(kept, score):
    errors = []
    for i in range(1, len(kept) - 1):
        v, s = np.delete(kept.numpy(), i), np.delete(score.numpy(), i)
        errors.append(float(score[i]) - np.interp(float(kept[i]), v, s))
    return torch.tensor(errors, dtype=score.dtype)


def loo_in_log(kept, score):
    return loo_by_formula(kept.log(), score)


def seeds_by_formula(std, difference, z=2.0):
    return max(2, math.ceil(2 * (z * std / difference) ** 2 - 1e-9))


def seeds_by_search(std, difference, z=2.0):
    n = 2
    while z * std * math.sqrt(2 / n) > difference * (1 + 1e-12):
        n += 1
    return n


def seeds_by(formula):
    return lambda std, difference, z=2.0: formula(std, difference, z)


def stub(*_):
    return None


RIGHT = {
    "14.1": [loo_by_formula, loo_by_interp],
    "14.2": [density_by_loop, density_by_interp, density_by_tensors],
    "14.3": [seeds_by_formula, seeds_by_search],
}

WRONG = {
    "14.1": {
        "stub": stub,
        "sign": lambda v, s: -loo_by_formula(v, s),
        "absolute": lambda v, s: loo_by_formula(v, s).abs(),
        "equal weights": lambda v, s: s[1:-1] - (s[:-2] + s[2:]) / 2,
        "exchanged": lambda v, s: s[1:-1] - s[2:] - (v[1:-1] - v[:-2]) / (v[2:] - v[:-2]) * (s[:-2] - s[2:]),
        "interpolated": lambda v, s: s[1:-1] - loo_by_formula(v, s),
        "in log": loo_in_log,
        "nothing left out": lambda v, s: torch.tensor(np.interp(v, v, s) - s.numpy())[1:-1],
        "first and last": lambda v, s: (
            s[1:-1] - torch.lerp(s[0].expand(len(s) - 2), s[-1], (v[1:-1] - v[0]) / (v[-1] - v[0]))
        ),
        "not divided": lambda v, s: s[1:-1] - torch.lerp(s[:-2], s[2:], v[1:-1] - v[:-2]),
        "ends too": lambda v, s: torch.cat([torch.zeros(1), loo_by_formula(v, s), torch.zeros(1)]),
        "mean": lambda v, s: loo_by_formula(v, s).mean(),
        "list": lambda v, s: loo_by_formula(v, s).tolist(),
    },
    "14.2": {
        "stub": stub,
        "as it was": as_it_was,
        "sorted only": sorted_only,
        "unsorted, ends checked": lambda v, s, w: as_it_was(v, s, w) if s.min() <= w <= s.max() else None,
        "turned round": lambda v, s, w: as_it_was(v.flip(0), s.flip(0), w) if s.min() <= w <= s.max() else None,
        "ends are outside": lambda v, s, w: density_by_loop(v, s, w) if s.min() < w < s.max() else None,
        "sorted one column": lambda v, s, w: (
            float(np.exp(np.interp(w, s.sort().values, v.log()))) if s.min() <= w <= s.max() else None
        ),
        "straight in density": density_between(lambda v1, v2, p: v1 + p * (v2 - v1)),
        "weights exchanged": density_between(lambda v1, v2, p: v2 * (v1 / v2) ** p),
        "log of the density": density_between(lambda v1, v2, p: math.log(v1) + p * math.log(v2 / v1)),
        "nearest": density_between(lambda v1, v2, p: v1 if p < 0.5 else v2),
        "denser": density_between(lambda v1, v2, p: v2),
        "sparser": density_between(lambda v1, v2, p: v1),
        "middle": density_between(lambda v1, v2, p: (v1 + v2) / 2),
        "percent": density_between(lambda v1, v2, p: 100 * v1 * (v2 / v1) ** p),
        "score": lambda v, s, w: w if s.min() <= w <= s.max() else None,
        "nan outside": lambda v, s, w: math.nan if density_by_loop(v, s, w) is None else density_by_loop(v, s, w),
    },
    "14.3": {
        "stub": stub,
        "infinite": seeds_by(lambda s, d, z: math.inf),
        "one run": seeds_by(lambda s, d, z: math.ceil(2 * (z * s / d) ** 2 - 1e-9)),
        "one mean": seeds_by(lambda s, d, z: max(2, math.ceil((z * s / d) ** 2 - 1e-9))),
        "not squared": seeds_by(lambda s, d, z: max(2, math.ceil(2 * z * s / d - 1e-9))),
        "not solved": seeds_by(lambda s, d, z: max(2, math.ceil(2**0.5 * z * s / d - 1e-9))),
        "both methods": seeds_by(lambda s, d, z: 2 * max(2, math.ceil(2 * (z * s / d) ** 2 - 1e-9))),
        "rounded": seeds_by(lambda s, d, z: max(2, round(2 * (z * s / d) ** 2))),
        "rounded down": seeds_by(lambda s, d, z: max(2, int(2 * (z * s / d) ** 2))),
        "not whole": seeds_by(lambda s, d, z: max(2.0, 2 * (z * s / d) ** 2)),
        "z outside": seeds_by(lambda s, d, z: max(2, math.ceil(z * (s / d) ** 2 - 1e-9))),
        "z forgotten": seeds_by(lambda s, d, z: max(2, math.ceil(2 * (s / d) ** 2 - 1e-9))),
        "one too many": seeds_by(lambda s, d, z: max(2, math.floor(2 * (z * s / d) ** 2) + 1)),
        "ratio upside down": seeds_by(lambda s, d, z: max(2, math.ceil(2 * (z * d / s) ** 2))),
        "z fixed": seeds_by(lambda s, d, z: max(2, math.ceil(8 * (s / d) ** 2 - 1e-9))),
    },
}

#: Exercise -> wrong answer -> what its author reads.
SAID = {
    "14.1": {
        "sign": "measured minus interpolated",
        "absolute": "lost their signs",
        "equal weights": "use their distances",
        "exchanged": "exchanged",
        "interpolated": "not the errors",
        "in log": "expected straight in density",
        "nothing left out": "still among the points",
        "first and last": "not the first run and the last",
        "not divided": "divide by the distance",
    },
    "14.2": {
        "as it was": "expects its points in ascending order",
        "sorted only": "no density is known",
        "turned round": "does not sort it",
        "ends are outside": "the score is that of a run",
        "straight in density": r"expected straight in log\(density\)",
        "weights exchanged": "weights of the two neighbors are exchanged",
        "log of the density": r"that is log\(density\)",
        "denser": "next denser run",
        "sparser": "next sparser run",
    },
    "14.3": {
        "infinite": "float inf, expected a finite number",
        "one run": "at least 2",
        "one mean": "twice that of one mean",
        "not squared": "square of the difference",
        "not solved": "square both sides",
        "both methods": "for both methods together",
        "rounded down": "round up",
        "z outside": "z belongs inside the square",
        "z forgotten": "z is missing",
        "one too many": "is enough",
        "not whole": "expected an integer",
    },
}
