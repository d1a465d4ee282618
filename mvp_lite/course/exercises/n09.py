"""Checks of notebook 09: density of each head, concentration of the rows of a mask, overlap of two sets of masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, normal


def _mask(*shape: int, seed: int, threshold: float) -> Tensor:
    """Uneven on purpose: rows and columns keep different numbers of entries."""
    rows, columns = shape
    tilt = torch.linspace(-1.0, 1.0, rows).double()[:, None] + torch.linspace(0.7, -0.7, columns).double()
    return normal(*shape, seed=seed) + tilt > threshold


@exercise("9.1")
def _head_density(answer: Any) -> None:
    for seed, (width, heads) in enumerate([(6, 2), (12, 3), (8, 8)]):
        masks = [_mask(width, width, seed=10 * seed + i, threshold=0.3 * i - 0.2) for i in range(4)]
        size = width // heads

        def rows(M: Tensor, heads: int = heads) -> Tensor:
            return M.double().reshape(heads, -1).mean(dim=1)

        def strided(M: Tensor, size: int = size) -> Tensor:
            return M.double().reshape(size, -1, M.shape[1]).mean(dim=(0, 2))

        query, key, value, output = masks
        inputs = rows(query) + rows(key) + rows(value)
        expected = (inputs + rows(output.T)) / 4
        across = (rows(query.T) + rows(key.T) + rows(value.T) + rows(output.T)) / 4
        exchanged = (rows(query.T) + rows(key.T) + rows(value.T) + rows(output)) / 4
        hints = {
            "in the output matrix a head has columns, not rows": (inputs + rows(output)) / 4,
            "rows and columns are exchanged: in query, key and value a head has rows": exchanged,
            "in query, key and value a head has rows, not columns": across,
            "the output matrix is missing": inputs / 3,
            "this is the sum of four fractions: divide by 4": 4 * expected,
            "divide by the weights that a head owns, not by those kept": expected / expected.sum(),
            "a head has adjacent rows: rows 0 to width/heads - 1 are the first head": (
                (strided(query) + strided(key) + strided(value) + strided(output.T)) / 4
            ),
            "this is the number of weights, expected the fraction kept": expected * 4 * size * width,
            "divide by the weights of one head: kept / (4 * width * width / heads)": expected / heads,
        }
        close(call(answer, *masks, heads), expected, mistakes=hints, tol=1e-6)


@exercise("9.2")
def _concentration(answer: Any) -> None:
    for seed, (rows, columns) in enumerate([(5, 4), (7, 30), (16, 3)]):
        M = _mask(rows, columns, seed=seed, threshold=0.4)
        kept, N = M.double().sum(dim=1), M.numel()
        v = float(M.double().mean())
        chance = columns * v * (1 - v) * (N - columns) / (N - 1)
        seen = kept.var(correction=0)
        expected = seen / chance
        across = M.double().sum(dim=0)
        by_columns = across.var(correction=0) / (rows * v * (1 - v) * (N - rows) / (N - 1))
        hints = {
            "divide the variance by the number of rows, not by one less": kept.var() / chance,
            "this is the binomial's variance: the factor (N - l)/(N - 1) is missing": seen / (columns * v * (1 - v)),
            "these are columns: sum over dim 1 for the rows": by_columns,
            "the ratio is inverted: observed variance over variance by chance": chance / seen,
            "this is the ratio of the standard deviations": expected.sqrt(),
            "this is the variance alone: divide it by (9.6)": seen,
            "count entries: these are the fractions kept in each row": expected / columns**2,
            "l is the number of entries in a row, not the number of rows": seen
            / (rows * v * (1 - v) * (N - rows) / (N - 1)),
        }
        close(_number(call(answer, M)), expected, mistakes=hints, tol=1e-6)


@exercise("9.3")
def _overlap(answer: Any) -> None:
    for seed, shapes in enumerate([[(3, 3), (8, 4)], [(4, 5)], [(2, 9), (6, 6), (10, 2)]]):
        first = [_mask(*shape, seed=10 * seed + i, threshold=0.2 + 0.6 * i) for i, shape in enumerate(shapes)]
        second = [_mask(*shape, seed=10 * seed + i + 5, threshold=0.6 - 0.3 * i) for i, shape in enumerate(shapes)]
        flat = [torch.cat([M.flatten() for M in masks]) for masks in (first, second)]
        both, either = (flat[0] & flat[1]).double().sum(), (flat[0] | flat[1]).double().sum()
        pairs = list(zip(first, second, strict=True))
        single = [(A & B).double().sum() / (A | B).double().sum() for A, B in pairs]
        equal = [(A == B).double().mean() for A, B in pairs]
        hints = {
            "entries that both prune are counted: count only those that are kept": (flat[0] == flat[1]).double().mean(),
            "entries that both prune are counted, and small matrices have the weight of large ones": torch.stack(
                equal
            ).mean(),
            "this is a mean over matrices: pool the entries of all of them first": torch.stack(single).mean(),
            "divide by the entries that either keeps, not by all": both / flat[0].numel(),
            "divide by the entries that either keeps, not by those of the first": both / flat[0].double().sum(),
            "divide by the entries that either keeps, not by those of the second": both / flat[1].double().sum(),
            "divide by the union: the sum of the two counts holds common entries twice": both
            / (flat[0].double().sum() + flat[1].double().sum()),
            "this is Dice's coefficient: divide by the union instead": 2
            * both
            / (flat[0].double().sum() + flat[1].double().sum()),
            "this is the Jaccard distance: return 1 minus it": 1 - both / either,
        }
        close(_number(_called(answer, first, second)), both / either, mistakes=hints, tol=1e-6)


def _called(answer: Any, first: list[Tensor], second: list[Tensor]) -> Any:
    given = [[M.clone() for M in masks] for masks in (first, second)]
    got = answer(*given)
    for copies, masks in zip(given, (first, second), strict=True):
        if len(copies) != len(masks) or any(not torch.equal(A, B) for A, B in zip(copies, masks, strict=True)):
            raise WrongAnswer("your function changes its arguments in place: work on copies")
    return got


def _number(got: Any) -> Tensor | None:
    """A plain number as a tensor without dimensions; anything else as it is."""
    is_number = isinstance(got, int | float) and not isinstance(got, bool)
    return torch.tensor(float(got), dtype=torch.float64) if is_number else got
