"""Figures of plain comparisons: measured against predicted values, and shares as bars."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from mvp_lite.course.arguments import finite_array, require_known, same_shape
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


def shares(
    values: Mapping[str, float], ax: Axes | None = None, xlabel: str = "share (%)", proved: Collection[str] = ()
) -> Axes:
    """Shares, each from 0 to 1, as horizontal bars in the order given, each with its percentage.

    Args:
        values: label -> share.
        xlabel: what the shares are shares of; with "(%)".
        proved: labels of the shares that a proof gives; they are dark and say so, the others are pale and hatched.

    Raises:
        ValueError: no share, one outside [0, 1], or a label among `proved` that `values` lacks.
    """
    widths = finite_array("values", list(values.values()), 1)
    if not ((widths >= 0) & (widths <= 1)).all():
        raise ValueError(f"values reach from {widths.min():g} to {widths.max():g}: shares lie in [0, 1]")
    require_known("proved", proved, values)
    if ax is None:
        ax = plt.subplots(figsize=(7.0, 0.9 + 0.36 * len(values)), layout="constrained")[1]
    for place, (label, width) in enumerate(zip(values, widths, strict=True)):
        look: dict[str, Any] = (
            {"color": _BLUE} if label in proved else {"color": "#B9D7EA", "hatch": "///", "edgecolor": "#6C8EA4"}
        )
        ax.barh(place, width, height=0.6, linewidth=0, **look)
        words = f"{100 * width:.1f} %" + (", proved" if label in proved else "")
        ax.annotate(words, (width, place), (5, 0), textcoords="offset points", va="center", fontsize=10)
    ax.set_yticks(range(len(values)), list(values))
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set_axisbelow(True)
    ax.set_xlim(0, 1.25)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    ax.set_xlabel(xlabel)
    return ax
