"""Checks of notebook 09: density of each head, concentration of a mask's rows, what two sets of masks share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, normal


def _mask(*shape: int, seed: int, cut: float) -> Tensor:
    """Uneven on purpose: rows and columns keep different numbers of entries."""
    rows, columns = shape
    tilt = torch.linspace(-1.0, 1.0, rows).double()[:, None] + torch.linspace(0.7, -0.7, columns).double()
    return normal(*shape, seed=seed) + tilt > cut


@exercise("9.1")
def _head_density(answer: Any) -> None:
    for seed, (width, heads) in enumerate([(6, 2), (12, 3), (8, 8)]):
        masks = [_mask(width, width, seed=10 * seed + i, cut=0.3 * i - 0.2) for i in range(4)]
        size = width // heads

        def rows(M: Tensor, heads: int = heads) -> Tensor:
            return M.double().reshape(heads, -1).mean(dim=1)

        def strided(M: Tensor, size: int = size) -> Tensor:
            return M.double().reshape(size, -1, M.shape[1]).mean(dim=(0, 2))

        query, key, value, output = masks
        inputs = rows(query) + rows(key) + rows(value)
        wanted = (inputs + rows(output.T)) / 4
        turned = (rows(query.T) + rows(key.T) + rows(value.T) + rows(output)) / 4
        hints = {
            "the output matrix reads a head through its columns, not its rows": (inputs + rows(output)) / 4,
            "rows and columns are the wrong way round: query, key and value write a head's rows": turned,
            "the output matrix is missing": inputs / 3,
            "a head has neighbouring rows: rows 0 to width/heads - 1 are the first": (
                (strided(query) + strided(key) + strided(value) + strided(output.T)) / 4
            ),
            "this counts the weights: the fraction kept is wanted": wanted * 4 * size * width,
            "a head's share of the matrices is kept / (4 * width * width / heads)": wanted / heads,
        }
        close(call(answer, *masks, heads), wanted, mistakes=hints, tol=1e-6)


@exercise("9.2")
def _concentration(answer: Any) -> None:
    for seed, (rows, columns) in enumerate([(5, 4), (7, 30), (16, 3)]):
        M = _mask(rows, columns, seed=seed, cut=0.4)
        kept, N = M.double().sum(dim=1), M.numel()
        v = float(M.double().mean())
        chance = columns * v * (1 - v) * (N - columns) / (N - 1)
        seen = kept.var(correction=0)
        wanted = seen / chance
        across = M.double().sum(dim=0)
        turned = across.var(correction=0) / (rows * v * (1 - v) * (N - rows) / (N - 1))
        hints = {
            "divide the variance by the number of rows, not by one less: the mean is known": kept.var() / chance,
            "this is the binomial's variance: the factor (N - l)/(N - 1) is missing": seen / (columns * v * (1 - v)),
            "these are columns: sum over dim 1 for the rows": turned,
            "it is upside down: the variance seen over the variance by chance": chance / seen,
            "this is the ratio of the standard deviations": wanted.sqrt(),
            "l is the number of entries in a row, not the number of rows": seen
            / (rows * v * (1 - v) * (N - rows) / (N - 1)),
        }
        close(_number(call(answer, M)), wanted, mistakes=hints, tol=1e-6)


@exercise("9.3")
def _overlap(answer: Any) -> None:
    for seed, shapes in enumerate([[(4, 5)], [(3, 3), (8, 4)], [(2, 9), (6, 6), (10, 2)]]):
        first = [_mask(*shape, seed=10 * seed + i, cut=0.2 + 0.6 * i) for i, shape in enumerate(shapes)]
        second = [_mask(*shape, seed=10 * seed + i + 5, cut=0.6 - 0.3 * i) for i, shape in enumerate(shapes)]
        flat = [torch.cat([M.flatten() for M in masks]) for masks in (first, second)]
        both, either = (flat[0] & flat[1]).double().sum(), (flat[0] | flat[1]).double().sum()
        pairs = list(zip(first, second, strict=True))
        single = [(A & B).double().sum() / (A | B).double().sum() for A, B in pairs]
        equal = [(A == B).double().mean() for A, B in pairs]
        hints = {
            "entries that both prune count as agreement: count those that are kept": (flat[0] == flat[1])
            .double()
            .mean(),
            "entries that both prune count as agreement, and small matrices as much as large ones": torch.stack(
                equal
            ).mean(),
            "this is a mean over matrices: pool the entries of all of them first": torch.stack(single).mean(),
            "divide by what either of them keeps, not by all entries": both / flat[0].numel(),
            "divide by what either of them keeps, not by what the first one keeps": both / flat[0].double().sum(),
            "divide by the union: what both keep is in the sum of the two counts twice": both
            / (flat[0].double().sum() + flat[1].double().sum()),
            "this is Dice's coefficient: divide by the union instead": 2
            * both
            / (flat[0].double().sum() + flat[1].double().sum()),
            "this is the distance: 1 minus what is wanted": 1 - both / either,
        }
        close(_number(_called(answer, first, second)), both / either, mistakes=hints, tol=1e-6)


def _called(answer: Any, first: list[Tensor], second: list[Tensor]) -> Any:
    given = [[M.clone() for M in masks] for masks in (first, second)]
    got = answer(*given)
    for copies, masks in zip(given, (first, second), strict=True):
        if len(copies) != len(masks) or any(not torch.equal(A, B) for A, B in zip(copies, masks, strict=True)):
            raise WrongAnswer("your function changes the masks it is given: work on copies")
    return got


def _number(got: Any) -> Tensor | None:
    """A plain number as a tensor without dimensions; anything else as it is."""
    is_number = isinstance(got, int | float) and not isinstance(got, bool)
    return torch.tensor(float(got), dtype=torch.float64) if is_number else got
