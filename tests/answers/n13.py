"""Answers to the exercises of notebook 13: right ones, and wrong ones that the checks must reject."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _by_counts(dense: Tensor, pruned: Tensor) -> tuple[float, float]:
    n = len(dense)
    lost, gained = int((dense & ~pruned).sum()), int((pruned & ~dense).sum())
    variance = (lost + gained) / n - ((gained - lost) / n) ** 2
    return 100 * (gained - lost) / n, 100 * math.sqrt(variance / n)


def _by_std(dense: Tensor, pruned: Tensor) -> tuple[Tensor, Tensor]:
    d = 100 * (pruned.double() - dense.double())
    return d.mean(), d.std(correction=0) / len(d) ** 0.5


def _apart(dense: Tensor, pruned: Tensor) -> tuple[float, float]:
    n, (p, q) = len(dense), (dense.double().mean(), pruned.double().mean())
    return float(100 * (q - p)), float(100 * ((p * (1 - p) + q * (1 - q)) / n) ** 0.5)


def _changed(first: float = 1.0, second: float = 1.0, power: float = 0.0) -> Callable[..., Any]:
    def answer(dense: Tensor, pruned: Tensor) -> tuple[Any, Any]:
        difference, error = _by_std(dense, pruned)
        return first * difference, second * error * len(dense) ** power

    return answer


def _uncentered(dense: Tensor, pruned: Tensor) -> tuple[Any, Any]:
    d = 100 * (pruned.double() - dense.double())
    return d.mean(), d.square().mean().sqrt() / len(d) ** 0.5


def _unbiased(dense: Tensor, pruned: Tensor) -> tuple[Any, Any]:
    d = 100 * (pruned.double() - dense.double())
    return d.mean(), d.std() / len(d) ** 0.5


def _own(dense: Tensor, pruned: Tensor) -> tuple[Any, Any]:
    q = pruned.double().mean()
    return _by_std(dense, pruned)[0], 100 * (q * (1 - q) / len(dense)).sqrt()


def _variance(dense: Tensor, pruned: Tensor) -> tuple[Any, Any]:
    difference, error = _by_std(dense, pruned)
    return difference, 100 * (error / 100) ** 2


def _by_cumsum(gaps: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    W = torch.zeros(shape[0] * shape[1], dtype=values.dtype)
    W[(gaps + 1).cumsum(0) - 1] = values
    return W.view(shape)


def _by_walking(gaps: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    rows, columns = shape
    W, place = torch.zeros(rows, columns, dtype=values.dtype), 0
    for gap, value in zip(gaps.tolist(), values, strict=True):
        place += gap
        W[place // columns, place % columns] = value
        place += 1
    return W


def _at(places: Callable[[Tensor], Tensor], by_column: bool = False) -> Callable[..., Tensor]:
    def answer(gaps: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
        W = torch.zeros(shape[0] * shape[1] + 1, dtype=values.dtype)
        W[places(gaps).clamp(0, len(W) - 1)] = values
        W = W[:-1]
        return W.view(shape[1], shape[0]).T if by_column else W.view(shape)

    return answer


def _by_rows(starts: Tensor, columns: Tensor, values: Tensor, x: Tensor) -> Tensor:
    pairs = zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    return torch.stack([(values[a:b] * x[columns[a:b]]).sum() for a, b in pairs])


def _by_index_add(starts: Tensor, columns: Tensor, values: Tensor, x: Tensor) -> Tensor:
    rows = torch.arange(len(starts) - 1).repeat_interleave(starts.diff())
    return torch.zeros(len(starts) - 1, dtype=x.dtype).index_add(0, rows, values * x[columns])


def _rows_changed(change: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def answer(starts: Tensor, columns: Tensor, values: Tensor, x: Tensor) -> Tensor:
        pairs = zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
        return torch.stack([change(values[a:b], x[columns[a:b]]).sum() for a, b in pairs])

    return answer


def _transposed(starts: Tensor, columns: Tensor, values: Tensor, x: Tensor) -> Tensor:
    rows = torch.arange(len(starts) - 1).repeat_interleave(starts.diff())
    given = torch.zeros(max(len(x), len(starts)), dtype=x.dtype)
    given[: len(x)] = x
    return torch.zeros(len(x), dtype=x.dtype).index_add(0, columns, values * given[rows])


RIGHT: dict[str, list[Callable[..., Any]]] = {
    "13.1": [_by_counts, _by_std, lambda dense, pruned: torch.stack(_by_std(dense, pruned))],
    "13.2": [_by_cumsum, _by_walking],
    "13.3": [_by_rows, _by_index_add],
}

WRONG: dict[str, dict[str, Callable[..., Any]]] = {
    "13.1": {
        "stub": lambda *_: None,
        "two sets": _apart,
        "sign": _changed(first=-1.0),
        "fractions": _changed(0.01, 0.01),
        "fraction and points": _changed(first=0.01),
        "points and fraction": _changed(second=0.01),
        "standard deviation": _changed(power=0.5),
        "divided by n": _changed(power=-0.5),
        "variance": _variance,
        "not centered": _uncentered,
        "divided by n - 1": _unbiased,
        "of the pruned model": _own,
        "swapped": lambda dense, pruned: _by_counts(dense, pruned)[::-1],
        "twice the error": _changed(second=2.0),
        "difference alone": lambda dense, pruned: _by_counts(dense, pruned)[0],
    },
    "13.2": {
        "stub": lambda *_: None,
        "entry not counted": _at(lambda gaps: gaps.cumsum(0)),
        "one too late": _at(lambda gaps: (gaps + 1).cumsum(0)),
        "gaps as places": _at(lambda gaps: gaps),
        "by column": _at(lambda gaps: (gaps + 1).cumsum(0) - 1, by_column=True),
        "mask": lambda gaps, values, shape: _by_cumsum(gaps, torch.ones_like(values), shape),
        "transposed": lambda gaps, values, shape: _by_cumsum(gaps, values, shape).T,
        "flat": lambda gaps, values, shape: _by_cumsum(gaps, values, shape).flatten(),
        "one entry off": lambda gaps, values, shape: _by_cumsum(gaps, values + 1e-3 * (values == values[:1]), shape),
    },
    "13.3": {
        "stub": lambda *_: None,
        "inputs forgotten": _rows_changed(lambda v, x: v),
        "values forgotten": _rows_changed(lambda v, x: x),
        "first entries": _rows_changed(lambda v, x: v[:1] * x[:1]),
        "one entry short": _rows_changed(lambda v, x: v[:-1] * x[:-1]),
        "inputs in order": lambda starts, columns, values, x: _by_rows(
            starts, torch.arange(len(columns)) % len(x), values, x
        ),
        "transposed": _transposed,
        "one number": lambda starts, columns, values, x: (values * x[columns]).sum(),
    },
}

#: Exercise -> wrong answer -> what its author reads; None: only what differs, and where.
SAID: dict[str, dict[str, str | None]] = {
    "13.1": {
        "two sets": "two different sets",
        "sign": "pruned minus dense",
        "fractions": "these are fractions",
        "fraction and points": "the difference is a fraction",
        "points and fraction": "the standard error is a fraction",
        "standard deviation": "of one example",
        "divided by n": "not by n$",
        "variance": "take its root",
        "not centered": "not subtracted",
        "divided by n - 1": "n - 1",
        "of the pruned model": "own score",
        "swapped": "difference first",
    },
    "13.2": {
        "entry not counted": "takes a place",
        "one too late": "too late",
        "gaps as places": "distances",
        "by column": "column by column",
        "mask": "the values are missing",
        "one entry off": None,
    },
    "13.3": {
        "inputs forgotten": "the inputs are missing",
        "values forgotten": "the values are missing",
        "first entries": "only the first entry",
        "one entry short": "too early",
        "transposed": "one for each output",
    },
}
