"""Figures over optimizer steps: schedules, and the loss and density of one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from mvp_lite.course.arguments import finite_array, require_columns, same_shape
from mvp_lite.course.figures.style import METHOD_STYLE, axes_or_new, curve_style

__all__ = ["schedules", "training"]


def schedules(curves: Mapping[str, Any], ax: Axes | None = None, ylabel: str = "fraction kept") -> Axes:
    """Curves over optimizer steps, distinguished by line and color.

    Args:
        curves: label -> (steps, values), two sequences of one length; a method's name gets its color and line.

    Raises:
        ValueError: no curve, or steps and values of different lengths.
    """
    if not curves:
        raise ValueError("curves is empty: label -> (steps, values)")
    ax = axes_or_new(ax)
    lowest = 0.0
    for index, (label, (steps, values)) in enumerate(curves.items()):
        x = finite_array(f"steps of {label!r}", steps, 1)
        y = same_shape(f"values of {label!r}", values, x)
        look = METHOD_STYLE.get(label)
        label, style = (look.label, look.curve) if look else (label, curve_style(index))
        ax.plot(x, y, label=label, **style | {"marker": ""})
        lowest = min(lowest, float(y.min()))
    ax.set_ylim(bottom=1.05 * lowest)
    ax.set_xlabel("optimizer step t")
    ax.set_ylabel(ylabel)
    ax.legend(loc="best")
    return ax


def training(history: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Loss of each step and, on the right-hand scale, the fraction kept, from `Result.history`.

    Raises:
        ValueError: a missing column.
    """
    require_columns("history", history, "step", "loss", "density")
    ax = axes_or_new(ax)
    (loss,) = ax.plot(history["step"], history["loss"], color="#D55E00", linewidth=1, label="loss (left)")
    right = ax.twinx()
    (kept,) = right.plot(history["step"], 100 * history["density"], "--", color="#0072B2", label="kept (right)")
    right.set_ylim(0, 105)
    right.set_ylabel("encoder weights kept (%)")
    right.grid(visible=False)
    ax.set_xlabel("optimizer step")
    ax.set_ylabel("loss of the batch (nats)")
    ax.legend(handles=[loss, kept], loc="upper right")
    return ax
