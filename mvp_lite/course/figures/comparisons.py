"""Figures of plain comparisons: measured against predicted values, and shares as bars."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from mvp_lite.course.arguments import finite_array, same_shape
from mvp_lite.course.figures.style import OKABE_ITO

__all__ = ["predicted_measured", "shares"]

_BLUE = OKABE_ITO[0]


def predicted_measured(
    predicted: Any, measured: Any, ax: Axes | None = None, labels: tuple[str, str] = ("predicted", "measured")
) -> Axes:
    """Measured values against predicted ones, point by point; on the dotted line they agree.

    Raises:
        ValueError: shapes that differ, values that are not finite.
    """
    x = finite_array("predicted", predicted)
    y = same_shape("measured", measured, x)
    ax = plt.subplots(figsize=(5.0, 4.2), layout="constrained")[1] if ax is None else ax
    ax.axline((0, 0), slope=1, color="#000000", linestyle=":", linewidth=1.2, label="equal")
    ax.plot(x.ravel(), y.ravel(), "o", color=_BLUE, alpha=0.6, label="one point per entry")
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    ax.legend(loc="best")
    return ax


def shares(table: pd.Series[Any], ax: Axes | None = None) -> Axes:
    """Shares, each from 0 to 1, as horizontal bars in the order given, each with its percentage; the index names them.

    The name of the series is the label of the axis.

    Raises:
        ValueError: no share, or one outside [0, 1].
    """
    values = finite_array("table", table.to_numpy(), 1)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"table reaches from {values.min():g} to {values.max():g}: shares lie in [0, 1]")
    if ax is None:
        ax = plt.subplots(figsize=(6.0, 0.9 + 0.4 * len(values)), layout="constrained")[1]
    ax.barh(range(len(values)), values, color=_BLUE, alpha=0.6, height=0.6)
    for place, value in enumerate(values):
        ax.annotate(f"{100 * value:.1f} %", (value, place), (4, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(values)), [str(name) for name in table.index])
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set_xlim(0, 1.12)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    ax.set_xlabel(f"{table.name or 'share'} (%)")
    return ax
