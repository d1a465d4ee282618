"""Checks of notebook 13: two models on the same examples, a matrix from gaps and values, a sparse product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, normal


def _verdicts(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Which of n examples the dense and the pruned model get right, (n,) boolean each; they often agree."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.rand(n, generator=generator) < 0.8
    changed = torch.rand(n, generator=generator) < 0.25
    return dense, dense ^ changed


def _pair(difference: float | Tensor, error: float | Tensor) -> Tensor:
    return torch.tensor([float(difference), float(error)], dtype=torch.float64)


def _comparison_mistakes(dense: Tensor, pruned: Tensor, right: Tensor) -> dict[str, Tensor]:
    n = len(dense)
    d = pruned.double() - dense.double()
    p, q = dense.double().mean(), pruned.double().mean()
    difference, error = right
    apart = 100 * ((p * (1 - p) + q * (1 - q)) / n).sqrt()
    return {
        "the difference is that of dense minus pruned; take pruned minus dense": _pair(-difference, error),
        "these are fractions; give points, that is, per cent": right / 100,
        "the difference is a fraction; give points": _pair(difference / 100, error),
        "the standard error is a fraction; give points": _pair(difference, error / 100),
        "that is the error for two different sets of examples; here both models answer the same ones": _pair(
            difference, apart
        ),
        "that is the standard deviation of one example: the mean of n of them needs a factor 1 / sqrt(n)": _pair(
            difference, error * n**0.5
        ),
        "divide the standard deviation by the root of n, not by n": _pair(difference, error / n**0.5),
        "that is the variance of the mean: take its root": _pair(difference, (error / 100) ** 2 * 100),
        "the mean of the differences is not subtracted before squaring": _pair(
            difference, 100 * d.square().mean().sqrt() / n**0.5
        ),
        "that is the standard error of the pruned model's own score": _pair(difference, 100 * (q * (1 - q) / n).sqrt()),
        "the standard error comes first; give the difference first": _pair(error, difference),
    }


def _as_pair(got: Any) -> Any:
    """Two numbers, or tensors of one entry, as a tensor; in single precision if one of them is."""
    if not isinstance(got, tuple | list) or len(got) != 2:
        return got
    values = [x if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64) for x in got]
    single = any(x.dtype == torch.float32 for x in values)
    return torch.stack([x.reshape(()).to(torch.float32 if single else torch.float64) for x in values])


@exercise("13.1")
def _compare_two_models(answer: Any) -> None:
    for n, seed in ((40, 1), (117, 2), (8, 6)):
        dense, pruned = _verdicts(n, seed)
        d = pruned.double() - dense.double()
        right = _pair(100 * d.mean(), 100 * d.std(correction=0) / n**0.5)
        got = _as_pair(call(answer, dense, pruned))
        mistakes = _comparison_mistakes(dense, pruned, right)
        unbiased = _pair(right[0], right[1] * (n / (n - 1)) ** 0.5)
        mistakes["you divide by n - 1 in the variance; this exercise divides by n, as (13.1)"] = unbiased
        close(got, right, mistakes=mistakes, what=f"compare(dense, pruned) for {n} examples")


#: Shapes of the matrices and the number of entries kept.
_KEPT = (((3, 5), 4), ((4, 7), 9), ((6, 2), 12), ((5, 5), 1), ((2, 3), 0))


def _sparse(shape: tuple[int, int], kept: int) -> tuple[Tensor, Tensor, Tensor]:
    """W with `kept` entries, the gaps between them in reading order, and their values."""
    W = normal(*shape, seed=10 * shape[0] + shape[1])
    order = torch.randperm(W.numel(), generator=torch.Generator().manual_seed(kept + 3))
    places = order[:kept].sort().values
    values = W.flatten()[places]
    gaps = places.diff(prepend=torch.tensor([-1])) - 1
    return torch.zeros(W.numel(), dtype=W.dtype).index_put((places,), values).view(shape), gaps, values


def _placed(places: Tensor, values: Tensor, shape: tuple[int, int], by_column: bool = False) -> Tensor:
    """Values at places, in reading order; those outside are dropped, the last of several stays."""
    flat = torch.zeros(shape[0] * shape[1], dtype=values.dtype)
    for place, value in zip(places.tolist(), values.tolist(), strict=True):
        if 0 <= place < len(flat):
            flat[place] = value
    return flat.view(shape[1], shape[0]).T if by_column else flat.view(shape)


@exercise("13.2")
def _matrix_from_gaps(answer: Any) -> None:
    for shape, kept in _KEPT:
        W, gaps, values = _sparse(shape, kept)
        places = (gaps + 1).cumsum(0) - 1
        mistakes = {
            "the kept entry itself takes a place: add 1 to each gap before you sum": _placed(
                gaps.cumsum(0), values, shape
            ),
            "all entries stand one place too late: places count from 0": _placed(places + 1, values, shape),
            "the gaps are distances, not places: sum them up": _placed(gaps, values, shape),
            "the entries run column by column; reading order is row by row": _placed(places, values, shape, True),
            "that is the mask; the values are missing": W.ne(0).to(W),
        }
        different = {hint: value for hint, value in mistakes.items() if not torch.equal(value, W)}
        what = f"restore(gaps, values, {shape}) with {kept} entries"
        close(call(answer, gaps, values, shape), W, mistakes=different, what=what)


@exercise("13.3")
def _sparse_product(answer: Any) -> None:
    for shape, kept in (((3, 5), 6), ((4, 7), 9), ((5, 5), 8), ((6, 4), 0)):
        W, _, values = _sparse(shape, kept)
        columns = W.nonzero()[:, 1]
        starts = torch.cat([torch.zeros(1, dtype=torch.long), W.ne(0).sum(1).cumsum(0)])
        x = normal(shape[1], seed=kept)
        got = call(answer, starts, columns, values, x)
        if isinstance(got, Tensor) and got.shape == (shape[1],) and shape[0] != shape[1]:
            raise WrongAnswer(f"the result has {shape[1]} entries, one for each input; give one for each output")
        after = torch.tensor([W[i:].flatten()[W[i:].flatten() != 0][:1].sum() for i in range(shape[0])])
        mistakes = {
            "the inputs are missing: that is the sum of each row": W.sum(1),
            "the values are missing: that is the sum of the inputs that each row reads": W.ne(0).to(W) @ x,
            "only the first entry of each row counts": torch.stack([_first_of(row, x) for row in W]),
            "row i ends before starts[i + 1]; yours ends one entry too early": torch.stack(
                [_without_last(row, x) for row in W]
            ),
            "that is the first value at or after each row": after,
        }
        if shape[0] == shape[1]:
            mistakes["that is the product with the transposed matrix"] = W.T @ x
        different = {hint: value for hint, value in mistakes.items() if not torch.allclose(value, W @ x)}
        what = f"csr_times(starts, columns, values, x) for a matrix {shape[0]} x {shape[1]}"
        close(got, W @ x, mistakes=different, what=what)


def _first_of(row: Tensor, x: Tensor) -> Tensor:
    at = row.nonzero()[:1, 0]
    return (row[at] * x[at]).sum()


def _without_last(row: Tensor, x: Tensor) -> Tensor:
    at = row.nonzero()[:-1, 0]
    return (row[at] * x[at]).sum()
