"""Answers to the exercises of notebook 01: right ones, and wrong ones that the checks must reject."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mvp_lite import masks
from mvp_lite.masks import keep_count, top_v


def _by_sort(S: Tensor, density: float) -> Tensor:
    order = S.reshape(-1).argsort(descending=True, stable=True)
    mask = torch.zeros(S.numel(), dtype=torch.bool)
    mask[order[: keep_count(S.numel(), density)]] = True
    return mask.reshape(S.shape)


def _by_filling_up(S: Tensor, density: float) -> Tensor:
    k = max(1, math.floor(density * S.numel() + 0.5))
    s = S.reshape(-1)
    threshold = s.sort(descending=True).values[k - 1]
    mask = s > threshold
    ties = torch.arange(len(s))[s == threshold]
    mask[ties[: k - int(mask.sum())]] = True
    return mask.reshape(S.shape)


def _keep_k(k: int, S: Tensor) -> Tensor:
    """Exactly k, ties to the earlier entry."""
    order = S.reshape(-1).argsort(descending=True, stable=True)
    mask = torch.zeros(S.numel(), dtype=torch.bool)
    mask[order[:k]] = True
    return mask.reshape(S.shape)


def _broken(S: Tensor, density: float) -> Tensor:
    return S >= S.flatten().sort(descending=True).values[round(density * S.numel()) - 1]


def _ties_all_stay(S: Tensor, density: float) -> Tensor:
    return S >= S.flatten().sort(descending=True).values[keep_count(S.numel(), density) - 1]


def _ties_all_go(S: Tensor, density: float) -> Tensor:
    return S > S.flatten().sort(descending=True).values[keep_count(S.numel(), density) - 1]


def _later_wins(S: Tensor, density: float) -> Tensor:
    return _by_sort(S.reshape(-1).flip(0), density).flip(0).reshape(S.shape)


def _column_order(S: Tensor, density: float) -> Tensor:
    backwards = tuple(range(S.dim()))[::-1]
    return _by_sort(S.permute(backwards), density).permute(backwards)


def _a_little_less(S: Tensor, density: float) -> Tensor:
    s = S.reshape(-1) - 1e-9 * torch.arange(S.numel())
    return (s >= s.sort(descending=True).values[keep_count(len(s), density) - 1]).reshape(S.shape)


def _in_place(S: Tensor, density: float) -> Tensor:
    mask = _by_sort(S, density)
    S[~mask] = 0.0
    return mask


def _aware(W: Tensor, X: Tensor, density: float) -> Tensor:
    return top_v(W.abs() * X.square().mean(dim=0).sqrt(), density)


def _aware_by_moment(W: Tensor, X: Tensor, density: float) -> Tensor:
    Sigma = torch.einsum("nj,nl->jl", X, X)  # N times the second moment: the order is the same
    return top_v(W**2 @ torch.diag(torch.diag(Sigma)), density)


def _rows_apart(W: Tensor, X: Tensor, density: float) -> Tensor:
    return torch.stack([top_v(line, density) for line in W.abs() * X.square().mean(dim=0).sqrt()])


def _aware_in_place(W: Tensor, X: Tensor, density: float) -> Tensor:
    mask = _aware(W, X, density)
    W.mul_(mask)
    return mask


def _price(W: Tensor, M: Tensor, Sigma: Tensor) -> Tensor:
    return M * (W.square() * Sigma.diagonal() + 2 * W * ((W * (1 - M)) @ Sigma))


def _price_by_loop(W: Tensor, M: Tensor, Sigma: Tensor) -> Tensor:
    def error(D: Tensor) -> Tensor:
        return torch.einsum("ij,jl,il->", D, Sigma, D)

    before, prices = W - W * M, torch.zeros_like(W)
    for i, j in (M != 0).nonzero().tolist():
        after = before.clone()
        after[i, j] = W[i, j]
        prices[i, j] = error(after) - error(before)
    return prices


def _alone(W: Tensor, Sigma: Tensor) -> Tensor:
    return W.square() * Sigma.diagonal()


def _gone(W: Tensor, M: Tensor, Sigma: Tensor) -> Tensor:
    return W * ((W * (1 - M)) @ Sigma)


def _price_in_place(W: Tensor, M: Tensor, Sigma: Tensor) -> Tensor:
    prices = _price(W, M, Sigma)
    W.sub_(W * M)
    return prices


def _diagonal_by_rows(W: Tensor, M: Tensor, Sigma: Tensor) -> Tensor:
    if W.shape[0] != W.shape[1]:
        return _price(W, M, Sigma)
    return M * (W.square() * Sigma.diagonal()[:, None] + 2 * _gone(W, M, Sigma))


RIGHT: dict[str, list[Callable[..., Any]]] = {
    "1.1": [_by_sort, _by_filling_up],
    "1.2": [_aware, _aware_by_moment],
    "1.3": [_price, _price_by_loop],
}

WRONG: dict[str, dict[str, Callable[..., Any]]] = {
    "1.1": {
        "stub": lambda *a: None,
        "broken as given": _broken,
        "all ties stay": _ties_all_stay,
        "all ties go": _ties_all_go,
        "later entry wins": _later_wins,
        "column by column": _column_order,
        "rounded down": lambda S, density: _keep_k(max(1, int(density * S.numel())), S),
        "rounded down to nothing": lambda S, density: _keep_k(int(density * S.numel()), S),
        "rounded up": lambda S, density: _keep_k(math.ceil(density * S.numel()), S),
        "round()": lambda S, density: _keep_k(max(1, round(density * S.numel())), S),
        "no max": lambda S, density: _keep_k(math.floor(density * S.numel() + 0.5), S),
        "one too many": lambda S, density: _keep_k(keep_count(S.numel(), density) + 1, S),
        "lowest stay": lambda S, density: _by_sort(-S, density),
        "magnitude of the scores": lambda S, density: _by_sort(S.abs(), density),
        "pruned for kept": lambda S, density: ~_by_sort(S, density),
        "flat": lambda S, density: _by_sort(S.reshape(-1), density),
        "float mask": lambda S, density: _by_sort(S, density).double(),
        "changes its input": _in_place,
        "the package's": lambda S, density: masks.top_v(S, density),
        "a little less for each place": _a_little_less,
    },
    "1.2": {
        "stub": lambda *a: None,
        "magnitude": lambda W, X, density: top_v(W.abs(), density),
        "signed": lambda W, X, density: top_v(W * X.square().mean(dim=0).sqrt(), density),
        "no root": lambda W, X, density: top_v(W.abs() * X.square().mean(dim=0), density),
        "variance": lambda W, X, density: top_v(W.abs() * X.var(dim=0, correction=0).sqrt(), density),
        "std": lambda W, X, density: top_v(W.abs() * X.std(dim=0), density),
        "mean": lambda W, X, density: top_v(W.abs() * X.mean(dim=0).abs(), density),
        "signed mean": lambda W, X, density: top_v(W * X.mean(dim=0), density),
        "mean of |x|": lambda W, X, density: top_v(W.abs() * X.abs().mean(dim=0), density),
        "rows apart": _rows_apart,
        "divided": lambda W, X, density: top_v(W.abs() / X.square().mean(dim=0).sqrt(), density),
        "lowest stay": lambda W, X, density: top_v(-W.abs() * X.square().mean(dim=0).sqrt(), density),
        "transposed": lambda W, X, density: _aware(W, X, density).T,
        "pruned for kept": lambda W, X, density: ~_aware(W, X, density),
        "score for mask": lambda W, X, density: W.abs() * X.square().mean(dim=0).sqrt(),
        "float mask": lambda W, X, density: _aware(W, X, density).double(),
        "one input only": lambda W, X, density: top_v(W.abs() * X[0].abs(), density),
        "changes its input": _aware_in_place,
    },
    "1.3": {
        "stub": lambda *a: None,
        "no cross term": lambda W, M, Sigma: M * _alone(W, Sigma),
        "no factor 2": lambda W, M, Sigma: M * (_alone(W, Sigma) + _gone(W, M, Sigma)),
        "sign of the cross term": lambda W, M, Sigma: M * (_alone(W, Sigma) - 2 * _gone(W, M, Sigma)),
        "sign": lambda W, M, Sigma: -_price(W, M, Sigma),
        "mask forgotten": lambda W, M, Sigma: _alone(W, Sigma) + 2 * _gone(W, M, Sigma),
        "kept for gone": lambda W, M, Sigma: M * (_alone(W, Sigma) + 2 * _gone(W, 1 - M, Sigma)),
        "all of the row": lambda W, M, Sigma: M * (_alone(W, Sigma) + 2 * W * (W @ Sigma)),
        "diagonal by rows": _diagonal_by_rows,
        "no Sigma": lambda W, M, Sigma: M * (W.square() + 2 * _gone(W, M, Sigma)),
        "infinite where gone": lambda W, M, Sigma: _price(W, M, Sigma).masked_fill(M == 0, math.inf),
        "sum of the prices": lambda W, M, Sigma: _price(W, M, Sigma).sum(),
        "transposed": lambda W, M, Sigma: _price(W, M, Sigma).T,
        "changes its input": _price_in_place,
    },
}

#: Exercise -> wrong answer -> what its author reads; None: only what differs, and where.
SAID = {
    "1.1": {
        "broken as given": "all entries that tie",
        "all ties stay": "all entries that tie",
        "all ties go": "all entries that equal the threshold",
        "later entry wins": "the later ones are kept",
        "column by column": "column by column",
        "rounded down": "rounded down",
        "rounded up": "rounded up",
        "round()": "half to an even integer",
        "no max": "nothing is kept",
        "one too many": "one entry too many",
        "lowest stay": "the lowest scores",
        "magnitude of the scores": "with their signs",
        "pruned for kept": "marks the weights that go",
        "a little less for each place": "differ very little",
        "the package's": "the package's top_v",
    },
    "1.2": {
        "magnitude": "the inputs are not used",
        "signed": "use its magnitude",
        "no root": "the root of Sigma_jj is missing",
        "variance": "do not subtract the mean",
        "std": "do not subtract the mean",
        "mean": "the mean of x,",
        "mean of |x|": r"the mean of \|x\|,",
        "rows apart": "each row is ranked by itself",
        "divided": "expected a product",
        "lowest stay": "the cheapest weights are kept",
        "pruned for kept": "marks the weights that go",
    },
    "1.3": {
        "no cross term": "the cross term is missing",
        "no factor 2": "counts twice",
        "sign of the cross term": "has the wrong sign",
        "sign": "the error afterwards minus the error before",
        "mask forgotten": "price of a pruned weight is 0",
        "kept for gone": "sums over the kept weights",
        "all of the row": "sums over the whole row",
        "diagonal by rows": "belongs to the columns",
        "no Sigma": "Sigma_jj is missing",
    },
}
