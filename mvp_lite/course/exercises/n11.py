"""Checks of notebook 11: R2 from start to stop, D2 over batches with padding, the best neurons of all layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, like, normal
from mvp_lite.gradient_free.r2 import STOPS


def _step(K: Tensor, C: Tensor) -> Tensor:
    return C * (K / (K @ C)).sqrt()


_WRONG_STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "the root is missing": lambda K, C: C * K / (K @ C),
    "the ratio is inverted: K over KC": lambda K, C: C * ((K @ C) / K).sqrt(),
    "K C is a product of matrices, not entry by entry": lambda K, C: C / C.sqrt(),
}


@exercise("11.1")
def _r2(answer: Any) -> None:
    for seed, (N, d, sigma, alpha) in enumerate([(6, 3, 1.0, 0.05), (9, 2, 0.6, 0.02), (5, 5, 2.5, 0.1)]):
        W = normal(N, d, seed=seed)
        squares = (W[:, None] - W[None]).square().sum(dim=2)

        def kernel(exponent: Tensor) -> Tensor:
            return torch.exp(-exponent)

        K = kernel(squares / (2 * sigma**2))
        expected = _diagonal(K, alpha)
        hints = {
            **{hint: _diagonal(K, alpha, step) for hint, step in _WRONG_STEPS.items()},
            "the kernel divides by 2 sigma^2, not by sigma^2": _diagonal(kernel(squares / sigma**2), alpha),
            "the kernel divides by 2 sigma^2, not by 2 sigma": _diagonal(kernel(squares / (2 * sigma)), alpha),
            "the kernel uses the squared distance": _diagonal(kernel(squares.sqrt() / (2 * sigma**2)), alpha),
            "the kernel compares rows of W, not columns": _of_columns(W, sigma, alpha),
            "this stops after one step, as the signed rule does": _diagonal(K, alpha, stop="printed"),
            "the change is a sum of absolute values, not the absolute value of a sum": _diagonal(
                K, alpha, stop="absolute"
            ),
            "this is C before the last step, expected C after it": _diagonal(K, alpha, back=1),
            "this is one step too many": _diagonal(K, alpha, back=-1),
            "every entry of C starts at 1 / N": _diagonal(K, alpha, start=1.0),
            "C starts at 1 / N in every entry, not on the diagonal alone": _diagonal(
                K, alpha, start=torch.eye(N, dtype=K.dtype) / N
            ),
            "every entry of C starts at 1 / N, not at the identity": torch.ones(N, dtype=W.dtype),
            "the change is relative: divide by the sum of C, not by the number of its entries": _diagonal(
                K, alpha, stop=lambda new, C: (new - C).abs().mean()
            ),
        }
        finite = {hint: value for hint, value in hints.items() if bool(value.isfinite().all())}
        close(call(answer, W, sigma, alpha), expected, mistakes=finite, tol=1e-8)


def _diagonal(
    K: Tensor,
    alpha: float,
    step: Callable[[Tensor, Tensor], Tensor] = _step,
    stop: str | Callable[[Tensor, Tensor], Tensor] = "entrywise",
    start: float | Tensor | None = None,
    back: int = 0,
) -> Tensor:
    """R2's scores with a part of the method replaced; `back` steps before the end."""
    change = STOPS[stop] if isinstance(stop, str) else stop
    path = [torch.zeros_like(K) + (1.0 / len(K) if start is None else start)]
    for _ in range(500):
        path.append(step(K, path[-1]))
        if not bool(path[-1].isfinite().all()) or float(change(path[-1], path[-2])) <= alpha:
            break
    if back < 0:
        path.append(_step(K, path[-1]))
    return path[-1 - max(back, 0)].diagonal()


def _of_columns(W: Tensor, sigma: float, alpha: float) -> Tensor:
    return _diagonal(torch.exp(-torch.cdist(W.T, W.T).square() / (2 * sigma**2)), alpha)


@exercise("11.2")
def _d2(answer: Any) -> None:
    for seed, (N, shapes) in enumerate([(4, [(2, 5), (3, 7), (1, 3)]), (3, [(4, 6), (2, 2)]), (5, [(1, 4), (5, 3)])]):
        batches = []
        for n, (sequences, tokens) in enumerate(shapes):
            H = normal(sequences, tokens, N, seed=100 * seed + n) + 0.5
            lengths = 1 + (torch.arange(sequences) * 2 + n) % tokens
            batches.append((H, (torch.arange(tokens)[None] < lengths[:, None]).long()))
        got = answer([(H.clone(), mask.clone()) for H, mask in batches])
        real = torch.cat([H[mask.bool()] for H, mask in batches])
        every = torch.cat([H.flatten(0, 1) for H, _ in batches])
        by_batch = [H[mask.bool()] for H, mask in batches]
        by_sequence = [h[m.bool()] for H, mask in batches for h, m in zip(H, mask, strict=True)]
        padded_by_batch = [H.flatten(0, 1) for H, _ in batches]
        zeroed = real.sum(0) / len(every)
        hints = {
            "padding is included": every.mean(0),
            "padding is left out of the sum, but counted in the number of tokens": zeroed,
            "batches have different numbers of tokens: divide the total sum once, not batch by batch": _mean(by_batch),
            "padding is included, and batches with few tokens count too much": _mean(padded_by_batch),
            "sentences have different lengths: every token counts alike, not every sentence": _mean(by_sequence),
            "this is the mean of absolute values, expected the signed mean": real.abs().mean(0),
            "this is a sum, expected a mean": real.sum(0),
            "this is the mean over padding alone": torch.cat([H[mask == 0] for H, mask in batches]).mean(0),
            "this is the last batch alone": by_batch[-1].mean(0),
            "this is the first batch alone": by_batch[0].mean(0),
            "the sum is divided by the number of sequences, not of tokens": real.sum(0) / len(by_sequence),
        }
        close(got, real.mean(0), mistakes=hints)


def _mean(parts: list[Tensor]) -> Tensor:
    """The mean of means."""
    return torch.stack([part.mean(0) for part in parts]).mean(0)


@exercise("11.3")
def _best_neurons(answer: Any) -> None:
    for seed, (layers, N, k) in enumerate([(3, 90, 110), (2, 20, 11), (4, 9, 20)]):
        R2 = [(0.3 + n) * (0.5 + torch.rand(N, generator=_seed(10 * seed + n)).double()) for n in range(layers)]
        D2 = [(0.4 + n) * normal(N, seed=50 + 10 * seed + n) + 0.3 * n for n in range(layers)]
        got = answer([scores.clone() for scores in R2], [scores.clone() for scores in D2], k)
        low, high = min(float(x.min()) for x in D2), max(float(x.max()) for x in D2)
        scaled = [(x - x.min()) / (x.max() - x.min()) for x in D2]
        product = [a * b for a, b in zip(R2, scaled, strict=True)]
        expected = _best(product, k)
        hints = {
            "the normalization is within each layer, not over all layers": [
                a * (x - low) / (high - low) for a, x in zip(R2, D2, strict=True)
            ],
            "D2 is not normalized": [a * x for a, x in zip(R2, D2, strict=True)],
            "this is a z-score, expected smallest 0 and largest 1": [
                a * (x - x.mean()) / x.std() for a, x in zip(R2, D2, strict=True)
            ],
            "D2 is divided by its largest entry, expected smallest 0 and largest 1": [
                a * x / x.abs().max() for a, x in zip(R2, D2, strict=True)
            ],
            "the smallest D2 must become 0: subtract it": [
                a * x / (x.max() - x.min()) for a, x in zip(R2, D2, strict=True)
            ],
            "normalize D2 before the product, not the product": [
                (y - y.min()) / (y.max() - y.min()) for y in (a * x for a, x in zip(R2, D2, strict=True))
            ],
            "the two scores are multiplied, not added": [a + b for a, b in zip(R2, scaled, strict=True)],
            "only D2 is normalized, R2 is not": [
                (a - a.min()) / (a.max() - a.min()) * b for a, b in zip(R2, scaled, strict=True)
            ],
            "this is R2 alone": R2,
            "this is D2 alone": D2,
            "this is D2 alone, normalized": scaled,
            "the neurons with the lowest scores are kept, expected the highest": [-x for x in product],
        }
        wrong = {hint: _best(scores, k) for hint, scores in hints.items()}
        wrong["all layers are one pool of k neurons, not k in each layer"] = [_best([x], min(k, N))[0] for x in product]
        wrong["all layers are one pool, not k / layers in each"] = [_best([x], k // layers)[0] for x in product]
        if got is None or not isinstance(got, list | tuple):
            raise WrongAnswer(f"your answer is a {type(got).__name__}, expected a list with one mask for each layer")
        if len(got) != layers:
            raise WrongAnswer(f"your answer has {len(got)} masks, expected {layers}, one for each layer")
        masks = [like(mask, mask_of, f"mask {n}") for n, (mask, mask_of) in enumerate(zip(got, expected, strict=True))]
        if _same(masks, expected):
            continue
        why = [hint for hint, masks_of in wrong.items() if _same(masks, masks_of)]
        count = sum(int(mask.sum()) for mask in masks)
        said = f"{count} neurons are kept, expected {k}" if count != k else "other neurons are kept than expected"
        raise WrongAnswer(f"{said}{': ' if why else ''}{', or: '.join(why)}")


def _best(scores: list[Tensor], k: int) -> list[Tensor]:
    """Masks of the k highest of all scores."""
    pool = torch.cat(scores)
    kept = torch.zeros(len(pool), dtype=torch.bool).index_fill_(0, pool.argsort(descending=True, stable=True)[:k], True)
    return list(torch.split(kept, [len(x) for x in scores]))


def _same(masks: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(masks, others, strict=True))


def _seed(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
