"""Checks of notebook 01: Top-v without bugs, the input-aware mask, the price of one more weight."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, like, normal


def _first(scores: Tensor, k: int) -> Tensor:
    """Mask of the k highest, by Python's stable sort: of equal ones the first in reading order."""
    flat = scores.flatten().tolist()
    chosen = sorted(range(len(flat)), key=lambda place: -flat[place])[:k]
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[chosen] = True
    return mask.view(scores.shape)


def _of_columns(scores: Tensor, k: int) -> Tensor:
    """As `_first`, but of equal scores the first column by column."""
    backwards = tuple(range(scores.dim()))[::-1]
    return _first(scores.permute(backwards), k).permute(backwards)


class _Mistakes:
    """Names only mistakes that no earlier case has ruled out, by being passed although the mistake fails it."""

    def __init__(self) -> None:
        self.excluded: set[str] = set()

    def compare(self, mask: Any, expected: Tensor, mistakes: dict[str, Tensor], what: str) -> None:
        possible = {hint: value for hint, value in mistakes.items() if hint not in self.excluded}
        close(mask, expected, mistakes=possible, what=what)
        self.excluded |= {hint for hint, value in mistakes.items() if not torch.equal(value, expected)}


@exercise("1.1")
def _correct_top_v(answer: Any) -> None:
    if "top_v" in getattr(getattr(inspect.unwrap(answer), "__code__", None), "co_names", ()):
        raise WrongAnswer("your function calls the package's top_v, which is what you are to build")
    ties = torch.tensor([[0.2, 0.5, -0.9, 0.5], [0.7, 0.5, 0.1, 0.5]], dtype=torch.float64)
    tiny = 2.0**-52
    nearly = torch.tensor([[0.3, 0.5, 0.5 + tiny], [0.1, 0.5 + 2 * tiny, 0.5]], dtype=torch.float64)
    cases = [
        (ties, 0.375),
        (normal(5, 6, seed=1), 0.3),
        (normal(2, 3, seed=2), 0.3),
        (normal(3, 2, 4, seed=3), 0.26),
        (normal(6, 4, seed=4).T, 0.3),
        (torch.full((4, 3), -1.5, dtype=torch.float64), 0.3),
        (normal(3, 5, seed=5).sign(), 0.6),
        (nearly, 0.3),
        (normal(2, 3, seed=8), 0.05),
        (normal(5, seed=6), 0.5),
        (normal(2, 5, seed=7), 0.26),
        (normal(4, 4, seed=9), 1.0),
    ]
    told = _Mistakes()
    for S, density in cases:
        what = f"the mask of {'x'.join(map(str, S.shape))} scores at density {density}"
        n, k = S.numel(), max(1, math.floor(density * S.numel() + 0.5))
        expected = _first(S, k)
        mask = like(call(answer, S, density), expected, what)
        mistakes = {
            "it marks the weights that go, expected those that stay": ~expected,
            "k is rounded down, expected the nearest integer": _first(S, max(1, int(density * n))),
            "k is rounded up, expected the nearest integer": _first(S, math.ceil(density * n)),
            "Python's round() rounds a half to an even integer, expected halves rounded up": _first(
                S, max(1, round(density * n))
            ),
            "nothing is kept; at least one entry has to be": _first(S, math.floor(density * n + 0.5)),
            "all entries that tie with the last one are kept; exactly k have to be": S >= S[expected].min(),
            "all entries that equal the threshold are pruned; exactly k have to be kept": S > S[expected].min(),
            "of tied entries the later ones are kept, expected the earlier ones in reading order": _first(
                S.flatten().flip(0), k
            )
            .flip(0)
            .view(S.shape),
            "tied entries are taken column by column, expected row by row": _of_columns(S, k),
            "scores that differ very little count as tied; only equal ones are": _first(S.mul(1e9).round(), k),
            "the lowest scores are kept": _first(-S, k),
            "the largest |S| are kept; rank the scores with their signs": _first(S.abs(), k),
            "one entry too many": _first(S, k + 1),
            "one entry too few": _first(S, k - 1),
        }
        told.compare(mask, expected, mistakes, what)


@exercise("1.2")
def _input_aware_mask(answer: Any) -> None:
    told = _Mistakes()
    for seed, (rows, columns, count) in enumerate([(6, 9, 7), (2, 3, 5), (6, 4, 30), (8, 8, 5), (1, 9, 4)]):
        W = normal(rows, columns, seed=10 + seed)
        scale = torch.logspace(-0.7, 0.7, columns, dtype=torch.float64)
        X = (normal(count, columns, seed=20 + seed) + 1.5 * normal(columns, seed=30 + seed)) * scale
        for density in (0.2, 0.4, 0.7):
            what = f"the mask of a {rows} x {columns} matrix at density {density}"
            k = max(1, math.floor(density * W.numel() + 0.5))
            cost = torch.zeros_like(W)  # increase of the error if (i, j) alone is pruned, input by input
            for i in range(rows):
                for j in range(columns):
                    cost[i, j] = sum((W[i, j] * x[j]) ** 2 for x in X) / count
            expected = _first(cost, k)
            mask = like(call(answer, W, X, density), expected, what)
            power = X.square().mean(dim=0)
            row = max(1, math.floor(density * columns + 0.5))
            scores = {
                "the inputs are not used; that is the magnitude mask": W.abs(),
                "the weights are not used": power.expand_as(W),
                "W has its sign: use its magnitude": W * power.sqrt(),
                "this uses the standard deviation; do not subtract the mean before you square": W.abs() * X.std(dim=0),
                "this uses the mean of x, expected the root of the mean of x^2": W.abs() * X.mean(dim=0).abs(),
                "this uses the mean of |x|, expected the root of the mean of x^2": W.abs() * X.abs().mean(dim=0),
                "the root of Sigma_jj is missing": W.abs() * power,
                "the score is divided by the root of Sigma_jj, expected a product": W.abs() / power.sqrt(),
                "the cheapest weights are kept; they are the ones to prune": -cost,
            }
            mistakes = {hint: _first(score, k) for hint, score in scores.items()}
            mistakes["it marks the weights that go, expected those that stay"] = ~expected
            mistakes["each row is ranked by itself, expected one ranking of the whole matrix"] = torch.stack(
                [_first(line, row) for line in cost]
            )
            if rows == columns:
                mistakes["row i is multiplied by the root of Sigma_ii; input j belongs to column j"] = _first(
                    W.abs() * power.sqrt()[:, None], k
                )
            told.compare(mask, expected, mistakes, what)


@exercise("1.3")
def _price_of_one_more(answer: Any) -> None:
    for seed, (rows, columns) in enumerate([(3, 5), (2, 3), (4, 4), (1, 6), (5, 2)]):
        W = normal(rows, columns, seed=40 + seed)
        X = normal(3 * columns, columns, seed=50 + seed) @ normal(columns, columns, seed=60 + seed)
        Sigma = X.T @ X / len(X)
        for kept in (0.5, 0.75, 1.0):
            order = normal(rows, columns, seed=70 + seed)
            M = _first(order, max(1, math.floor(kept * W.numel()))).double()
            expected = torch.zeros_like(W)
            for i in range(rows):
                for j in range(columns):
                    fewer = M.clone()
                    fewer[i, j] = 0.0
                    expected[i, j] = _error(W, fewer, Sigma) - _error(W, M, Sigma)
            what = f"the price list of a {rows} x {columns} matrix with {int(M.sum())} weights kept"
            prices = like(call(answer, W, M, Sigma), expected, what)
            alone, gone = W.square() * Sigma.diagonal(), W * (1 - M)
            cross = W * (gone @ Sigma)
            mistakes = {
                "the cross term is missing": M * alone,
                "the cross term counts twice, once for each order of the pair": M * (alone + cross),
                "the cross term has the wrong sign": M * (alone - 2 * cross),
                "the price of a pruned weight is 0": alone + 2 * cross,
                "the cross term sums over the kept weights, expected the pruned ones": M
                * (alone + 2 * W * ((W * M) @ Sigma)),
                "only the cross term is there": M * 2 * cross,
                "the cross term sums over the whole row, expected the pruned weights": M
                * (alone + 2 * W * (W @ Sigma)),
                "this is the error afterwards, expected its increase": expected + _error(W, M, Sigma),
                "the sign: the price is the error afterwards minus the error before": -expected,
                "Sigma_jj is missing in the cost of a weight alone": M * (W.square() + 2 * cross),
                "W should be squared in the cost of a weight alone": M * (W.abs() * Sigma.diagonal() + 2 * cross),
            }
            if rows == columns:
                mistakes["the diagonal of Sigma belongs to the columns j, not to the rows i"] = M * (
                    W.square() * Sigma.diagonal()[:, None] + 2 * cross
                )
            close(prices, expected, mistakes=mistakes, what=what)


def _error(W: Tensor, M: Tensor, Sigma: Tensor) -> Tensor:
    """sum_i d_i' Sigma d_i over the rows d_i of the pruned weights."""
    total = torch.zeros((), dtype=W.dtype)
    for d in W * (1 - M):
        total = total + d @ Sigma @ d
    return total
