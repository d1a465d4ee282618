"""Checks of notebook 01: the cut mended, the input-aware mask, the price of one more weight."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import call, close, exercise, like, normal


def _first(scores: Tensor, k: int) -> Tensor:
    """The k highest, by Python's own sort, which leaves equal ones in reading order."""
    flat = scores.flatten().tolist()
    chosen = sorted(range(len(flat)), key=lambda place: -flat[place])[:k]
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[chosen] = True
    return mask.view(scores.shape)


@exercise("1.1")
def _mended_top_v(answer: Any) -> None:
    ties = torch.tensor([[0.2, 0.5, 0.1], [0.5, 0.3, 0.5]], dtype=torch.float64)
    cases = [
        (normal(5, 6, seed=1), 0.3),
        (normal(2, 3, seed=2), 0.3),
        (normal(3, 2, 4, seed=3), 0.26),
        (normal(6, 4, seed=4).T, 0.3),
        (ties, 0.3),
        (torch.full((4, 3), -1.5, dtype=torch.float64), 0.3),
        (normal(3, 5, seed=5).sign(), 0.6),
        (normal(5, seed=6), 0.5),
        (normal(2, 5, seed=7), 0.26),
        (normal(2, 3, seed=8), 0.05),
        (normal(4, 4, seed=9), 1.0),
    ]
    for S, density in cases:
        what = f"the mask of {'x'.join(map(str, S.shape))} scores at density {density}"
        n, k = S.numel(), max(1, math.floor(density * S.numel() + 0.5))
        wanted = _first(S, k)
        mask = like(call(answer, S, density), wanted, what)
        distinct = len(set(S.flatten().tolist())) == n
        rounded = {
            "Python's round() takes a half to the even neighbour, halves go up here": max(1, round(density * n)),
            "k is rounded down, the nearest whole number is wanted": max(1, int(density * n)),
            "k is rounded up, the nearest whole number is wanted": math.ceil(density * n),
        }
        mistakes = {hint: _first(S, count) for hint, count in rounded.items()} if distinct else {}
        mistakes |= {
            "nothing is kept, and at least one entry must be": torch.zeros_like(wanted),
            "all entries that tie with the last one kept stay; only so many as fit may": S >= S[wanted].min(),
            "the entry that equals the cut (and all that tie with it) go; so many as fit must stay": S
            > S[wanted].min(),
            "ties go to the later entries, the earlier ones in reading order must win": _first(S.flatten().flip(0), k)
            .flip(0)
            .view(S.shape),
            "the lowest scores stay": _first(-S, k),
            "the largest |S| stay; rank the scores as they are, with their signs": _first(S.abs(), k),
            "one entry too many": _first(S, k + 1),
            "one entry too few": _first(S, k - 1),
        }
        close(mask, wanted, mistakes=mistakes, what=what)


@exercise("1.2")
def _input_aware_mask(answer: Any) -> None:
    for seed, (rows, columns, count) in enumerate([(6, 9, 7), (2, 3, 5), (6, 4, 30), (8, 8, 5), (1, 9, 4)]):
        W = normal(rows, columns, seed=10 + seed)
        scale = torch.logspace(-0.7, 0.7, columns, dtype=torch.float64)
        X = (normal(count, columns, seed=20 + seed) + 1.5 * normal(columns, seed=30 + seed)) * scale
        for density in (0.2, 0.4, 0.7):
            what = f"the mask of a {rows} x {columns} matrix at density {density}"
            k = max(1, math.floor(density * W.numel() + 0.5))
            cost = torch.zeros_like(W)  # what pruning (i, j) alone costs, input by input
            for i in range(rows):
                for j in range(columns):
                    cost[i, j] = sum((W[i, j] * x[j]) ** 2 for x in X) / count
            wanted = _first(cost, k)
            mask = like(call(answer, W, X, density), wanted, what)
            size = X.square().mean(dim=0)
            row = max(1, math.floor(density * columns + 0.5))
            scores = {
                "the inputs play no part; that is the magnitude mask": W.abs(),
                "the weights play no part": size.expand_as(W),
                "W has kept its sign": W * size.sqrt(),
                "the variance is used, but it is the second moment that counts: the mean is not taken off": W.abs()
                * X.var(dim=0, correction=0).sqrt(),
                "the standard deviation is used, but it is the root of the mean square that counts": W.abs()
                * X.std(dim=0),
                "the mean of x is used, the root of the mean of x^2 is wanted": W.abs() * X.mean(dim=0).abs(),
                "the mean of |x| is used, the root of the mean of x^2 is wanted": W.abs() * X.abs().mean(dim=0),
                "Sigma_jj stands there without its root": W.abs() * size,
                "the score is divided by the size of the input": W.abs() / size.sqrt(),
                "the cheapest weights stay, they should go": -cost,
            }
            mistakes = {hint: _first(score, k) for hint, score in scores.items()}
            mistakes["each row is cut by itself, the cut is over the whole matrix"] = torch.stack(
                [_first(line, row) for line in cost]
            )
            if rows == columns:
                mistakes["row i is multiplied by the size of input i; input j belongs to column j"] = _first(
                    W.abs() * size.sqrt()[:, None], k
                )
            close(mask, wanted, mistakes=mistakes, what=what)


@exercise("1.3")
def _price_of_one_more(answer: Any) -> None:
    for seed, (rows, columns) in enumerate([(3, 5), (2, 3), (4, 4), (1, 6), (5, 2)]):
        W = normal(rows, columns, seed=40 + seed)
        X = normal(3 * columns, columns, seed=50 + seed) @ normal(columns, columns, seed=60 + seed)
        Sigma = X.T @ X / len(X)
        for kept in (0.5, 0.75, 1.0):
            order = normal(rows, columns, seed=70 + seed)
            M = _first(order, max(1, math.floor(kept * W.numel()))).double()
            wanted = torch.zeros_like(W)
            for i in range(rows):
                for j in range(columns):
                    fewer = M.clone()
                    fewer[i, j] = 0.0
                    wanted[i, j] = _error(W, fewer, Sigma) - _error(W, M, Sigma)
            what = f"the price list of a {rows} x {columns} matrix with {int(M.sum())} weights kept"
            prices = like(call(answer, W, M, Sigma), wanted, what)
            alone, gone = W.square() * Sigma.diagonal(), W * (1 - M)
            cross = W * (gone @ Sigma)
            mistakes = {
                "the cross term is missing": M * alone,
                "the cross term counts twice, once for each order of the pair": M * (alone + cross),
                "the cross term has the wrong sign": M * (alone - 2 * cross),
                "where the weight has gone the price is 0": alone + 2 * cross,
                "the cross term goes over the weights that are kept, it should be those that have gone": M
                * (alone + 2 * W * ((W * M) @ Sigma)),
                "only the cross term is there": M * 2 * cross,
                "the cross term goes over the whole row, it should go over those that have gone": M
                * (alone + 2 * W * (W @ Sigma)),
                "that is the whole error afterwards, not by how much it grows": wanted + _error(W, M, Sigma),
                "the sign: the price is the error after less the error before": -wanted,
                "Sigma plays no part in what a weight costs alone": M * (W.square() + 2 * cross),
                "W should be squared in what a weight costs alone": M * (W.abs() * Sigma.diagonal() + 2 * cross),
            }
            if rows == columns:
                mistakes["Sigma's diagonal goes along the columns j, not along the rows i"] = M * (
                    W.square() * Sigma.diagonal()[:, None] + 2 * cross
                )
            close(prices, wanted, mistakes=mistakes, what=what)


def _error(W: Tensor, M: Tensor, Sigma: Tensor) -> Tensor:
    """sum_i d_i' Sigma d_i over the rows d_i of what is pruned."""
    total = torch.zeros((), dtype=W.dtype)
    for d in W * (1 - M):
        total = total + d @ Sigma @ d
    return total
