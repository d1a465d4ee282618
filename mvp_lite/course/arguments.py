"""Checks of the arguments of figures and statistics: numbers, shapes, columns and names, with errors that name them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["finite_array", "require_columns", "require_known", "same_shape"]


def finite_array(name: str, values: Any, dimensions: int | None = None) -> NDArray[np.float64]:
    """Values (tensor, array, nested lists or a number) as a float64 array.

    Raises:
        ValueError: another number of dimensions, no entry, or an entry that is not finite.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().to("cpu", torch.float64).numpy()
    found = np.array(values, dtype=np.float64)
    if dimensions is not None and found.ndim != dimensions:
        expected = ("a number", "a sequence", "a matrix", "(steps, rows, columns)")[dimensions]
        raise ValueError(f"{name} has shape {found.shape}, expected {expected}")
    if found.size == 0 or not np.isfinite(found).all():
        raise ValueError(f"{name} of shape {found.shape} is empty or holds values that are not finite")
    return found


def same_shape(name: str, values: Any, reference: NDArray[Any]) -> NDArray[np.float64]:
    """`finite_array`, and of the shape of `reference`."""
    found = finite_array(name, values)
    if found.shape != reference.shape:
        raise ValueError(f"{name} has shape {found.shape}, expected {reference.shape}")
    return found


def require_columns(name: str, table: pd.DataFrame, *columns: str) -> None:
    """Raise ValueError for the first of `columns` that the table lacks."""
    if missing := [column for column in columns if column not in table.columns]:
        raise ValueError(f"{name} lacks the column {missing[0]!r} (found: {', '.join(map(str, table.columns))})")


def require_known(name: str, values: Iterable[Any], known: Iterable[str]) -> None:
    """Raise ValueError for the first of `values` that is not among `known`."""
    names = list(known)
    for value in values:
        if value not in names:
            raise ValueError(f"{name}={value!r}: must be one of {', '.join(names)}")
