"""Checks of notebook 11: one step of R2, the neurons that fit a budget, scales of the kept neurons."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, normal


@exercise("11.1")
def _r2_step(answer: Any) -> None:
    for seed, (N, d, sigma) in enumerate([(5, 3, 1.0), (8, 2, 0.6), (6, 6, 2.5)]):
        W, C = normal(N, d, seed=seed), normal(N, N, seed=seed + 50).abs() + 0.1
        squares = (W[:, None] - W[None]).square().sum(dim=2)
        K = torch.exp(-squares / (2 * sigma**2))
        wide = torch.exp(-squares / sigma**2)
        linear = torch.exp(-squares.sqrt() / (2 * sigma**2))
        hints = {
            "the root is missing": C * K / (K @ C),
            "the ratio is inverted: K over KC": C * ((K @ C) / K).sqrt(),
            "the product is K C, not C K": C * (K / (C @ K)).sqrt(),
            "C itself is missing: the root of the ratio multiplies it": (K / (K @ C)).sqrt(),
            "the kernel divides by 2 sigma^2, not by sigma^2": C * (wide / (wide @ C)).sqrt(),
            "the kernel uses the squared distance": C * (linear / (linear @ C)).sqrt(),
            "K C is a product of matrices, not entry by entry": C * (1 / C).sqrt(),
            "the kernel compares rows of W": _or_nan(W, C, sigma),
        }
        close(call(answer, W, C, sigma), C * (K / (K @ C)).sqrt(), mistakes=hints, tol=1e-8)


def _or_nan(W: Tensor, C: Tensor, sigma: float) -> Tensor:
    """The step with the columns of W compared, where that has the right shape."""
    if W.shape[0] != W.shape[1]:
        return torch.full((1,), math.nan)
    K = torch.exp(-torch.cdist(W.T, W.T).square() / (2 * sigma**2))
    return C * (K / (K @ C)).sqrt()


@exercise("11.2")
def _affordable(answer: Any) -> None:
    cases = [
        (4, 128, 512, 13, 0.6, 1.0), (12, 768, 3072, 39, 0.7, 1.0), (2, 32, 96, 50, 0.55, 0.5),
        (6, 384, 1536, 24, 0.45, 0.75), (2, 32, 96, 50, 0.3, 1.0), (3, 16, 40, 9, 0.95, 0.25),
    ]  # fmt: skip
    for L, d, N, s, flops, heads in cases:
        neuron = 2 * s * d

        def count(attention: float, kept: float, flops: float = flops, full: float = L * N, each: int = neuron) -> int:
            return math.floor((flops * (attention + full * each) - kept) / each + 1e-9)

        attention, maps = L * (4 * s * d**2 + 2 * s**2 * d), L * 4 * s * d**2
        raw = count(attention, heads * attention)
        expected = min(max(raw, 0), L * N)
        got = answer(L, d, N, s, flops, heads)
        if isinstance(got, Tensor) and got.dim() == 0:
            got = got.item()
        if isinstance(got, bool) or not isinstance(got, int | float) or got != int(got):
            raise WrongAnswer(f"your answer is {got!r}, expected an integer number of neurons")
        if got == expected:
            continue
        where = f"affordable({L}, {d}, {N}, {s}, {flops}, {heads}) is {got:g}, expected {expected}"
        hints = {
            "the share of attention in the budget is missing": math.floor(flops * L * N + 1e-9),
            "attention's two products of s x s are missing": count(maps, heads * maps),
            "only the fraction `heads` of the attention remains and counts": count(attention, attention),
            "the budget is a fraction of the whole model with all its heads": count(
                heads * attention, heads * attention
            ),
            "round down: a part of a neuron does not count": raw + 1,
            "this is for one layer: the budget is for all": raw // L,
            "at most all neurons can be kept, and at least 0": raw,
        }
        for hint, value in hints.items():
            if got == value != expected:
                raise WrongAnswer(f"{where}: {hint}")
        raise WrongAnswer(where)


@exercise("11.3")
def _fit_scales(answer: Any) -> None:
    for seed, (rows, tokens, N, d, ridge) in enumerate([(2, 6, 5, 3, 1e-3), (3, 5, 8, 6, 0.1), (4, 9, 7, 7, 1e-2)]):
        H, W = normal(rows, tokens, N, seed=seed) + 0.3, normal(N, d, seed=seed + 20)
        mask = torch.arange(N) % 3 != 1
        lengths = torch.arange(rows) % (tokens - 2) + 2
        real = torch.arange(tokens)[None] < lengths[:, None]
        padded = torch.where(real[..., None], H, 3 * H.abs() + 1)

        def fit(X: Tensor, rows: Tensor, target: Tensor, ridge: float = ridge, to: float = 1.0) -> Tensor:
            A = torch.stack([torch.outer(h, w).flatten() for h, w in zip(X.T, rows, strict=True)], dim=1)
            rho = ridge * A.square().sum(0).mean()
            tall = torch.cat([A, rho.sqrt() * torch.eye(A.shape[1], dtype=A.dtype)])
            pull = to * rho.sqrt() * torch.ones(A.shape[1], dtype=A.dtype)
            found: Tensor = torch.linalg.lstsq(tall, torch.cat([target.flatten(), pull])).solution
            return found

        X, everything = padded[real], padded.flatten(0, 1)
        left, kept = X[:, mask], W[mask]
        expected = fit(left, kept, X @ W)
        zeroed = torch.where(real[..., None], padded, 0.0).flatten(0, 1)
        hints = {
            "all ones: the target is the output of all neurons, not of the kept ones": torch.ones(int(mask.sum())),
            "padding is included": fit(everything[:, mask], kept, everything @ W),
            "padding is included in the target too: use real tokens alone": fit(zeroed[:, mask], kept, everything @ W),
            "the ridge pulls towards 1, not towards 0": fit(left, kept, X @ W, to=0.0),
            "the ridge is missing": fit(left, kept, X @ W, ridge=0.0),
            "these are scales of the pruned neurons: `mask` is true for the kept ones": _of_pruned(fit, X, W, mask),
            "these are scales of all neurons, expected those of the kept ones": torch.ones(N),
        }
        got = call(answer, padded, W, mask, real, ridge)
        if isinstance(got, Tensor) and got.shape == (N,) and int(mask.sum()) != N:
            raise WrongAnswer("your answer has an entry for every neuron, expected the kept ones alone, in their order")
        close(got, expected, mistakes={hint: value.to(expected) for hint, value in hints.items()}, tol=1e-6)


def _of_pruned(fit: Any, X: Tensor, W: Tensor, mask: Tensor) -> Tensor:
    found: Tensor = fit(X[:, ~mask], W[~mask], X @ W)
    return found
