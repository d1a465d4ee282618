"""Figures of distillation: softened distributions, gradients against temperature, gains with a teacher, seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from mvp_lite.course.arguments import require_columns, require_known
from mvp_lite.course.figures.style import (
    METHOD_STYLE,
    OKABE_ITO,
    axes_or_new,
    curve_style,
    log_axis,
    shared_legend,
)

__all__ = ["by_temperature", "softened", "teacher_gains"]

_HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")


def softened(
    logits: Any, temperatures: Sequence[float], labels: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """softmax(logits / T) as bars: a group for each class, a bar for each temperature T.

    Args:
        logits: one row, (classes,).
        temperatures: positive numbers, at most seven.
        labels: names of the classes (default: their numbers).

    Raises:
        ValueError: logits that are no row of 2 or more finite numbers, temperatures or labels that do not fit.
    """
    z = torch.as_tensor(logits, dtype=torch.float64).detach().cpu()
    if z.dim() != 1 or len(z) < 2 or not bool(z.isfinite().all()):
        raise ValueError(f"logits has shape {tuple(z.shape)}, expected one row of 2 or more finite numbers")
    if not 1 <= len(temperatures) <= len(_HATCHES) or not all(0 < T < np.inf for T in temperatures):
        raise ValueError(f"temperatures={list(temperatures)!r}: 1 to {len(_HATCHES)} positive numbers")
    names = [str(i) for i in range(len(z))] if labels is None else list(labels)
    if len(names) != len(z):
        raise ValueError(f"labels={names!r}: {len(z)} names, one for each class")
    ax = axes_or_new(ax)
    width = 0.84 / len(temperatures)
    for index, T in enumerate(temperatures):
        x = np.arange(len(z)) - 0.42 + (index + 0.5) * width
        p = torch.softmax(z / T, dim=0).numpy()
        color = OKABE_ITO[index % len(OKABE_ITO)]
        ax.bar(x, p, 0.9 * width, color=color, hatch=_HATCHES[index], edgecolor="white", label=f"T = {T:g}")
    ax.set_xticks(range(len(z)), names)
    ax.set_ylim(0, 1)
    ax.set_ylabel("probability")
    ax.grid(visible=False, axis="x")
    ax.legend(loc="upper right")
    return ax


def by_temperature(
    temperatures: Any, curves: Mapping[str, Any], ax: Axes | None = None, ylabel: str = "magnitude of the gradient"
) -> Axes:
    """Positive numbers against the temperature T, both axes logarithmic: a power of T is a straight line.

    Args:
        temperatures: (n,), positive.
        curves: label -> (n,), positive.

    Raises:
        ValueError: no curve, lengths that differ, numbers that are not positive.
    """
    if not curves:
        raise ValueError("curves is empty: label -> numbers, one for each temperature")
    T = np.asarray(temperatures, dtype=float)
    ax = axes_or_new(ax)
    for index, (label, values) in enumerate(curves.items()):
        y = np.asarray(values, dtype=float)
        if T.ndim != 1 or y.shape != T.shape or not ((T > 0).all() and (y > 0).all()):
            raise ValueError(f"{label!r} has shape {y.shape}, T {T.shape}: one positive number for each temperature")
        ax.plot(T, y, label=label, markersize=4, **curve_style(index))
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xlabel("temperature T")
    ax.set_ylabel(ylabel)
    ax.legend(loc="best")
    return ax


def teacher_gains(gains: pd.DataFrame, axes: Sequence[Axes] | None = None) -> NDArray[Any]:
    """Points gained with a teacher against the weights kept (percent, logarithmic); a panel for each task.

    Args:
        gains: columns task, method, kept (a fraction), gain (points; negative where the teacher does harm).
        axes: one for each task, in the order of their first rows (default: new ones, side by side on one scale).

    Raises:
        ValueError: a missing column, no row, an unknown method, or not one axes for each task.
    """
    require_columns("gains", gains, "task", "method", "kept", "gain")
    if gains.empty:
        raise ValueError("gains holds no row")
    require_known("method", gains["method"].unique(), METHOD_STYLE)
    tasks = list(gains["task"].unique())
    if axes is None:
        size = (2.5 * len(tasks) + 0.8, 3.3)
        axes = plt.subplots(1, len(tasks), figsize=size, sharey=True, squeeze=False, layout="constrained")[1][0]
    panels: NDArray[Any] = np.asarray(axes, dtype=object).ravel()
    if len(panels) != len(tasks):
        raise ValueError(f"axes holds {len(panels)} axes, expected one for each task ({', '.join(tasks)})")
    for ax, task in zip(panels, tasks, strict=True):
        for method, look in METHOD_STYLE.items():
            line = gains[(gains["task"] == task) & (gains["method"] == method)].sort_values("kept")
            if not line.empty:
                ax.plot(100 * line["kept"], line["gain"], label=look.label, **look.curve, markersize=4)
        ax.axhline(0, color="#000000", linewidth=1)
        log_axis(ax, (1, 3, 10, 30, 90))
        ax.set_xlabel("weights kept (%)")
        ax.set_title(task)
    panels[0].set_ylabel("points gained")
    shared_legend(panels, "outside upper center", len(METHOD_STYLE))
    return panels
