"""Figures of first-order scores: a weight on a dial, scores against measured changes, a dot plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mvp_lite.course.arguments import finite_array, same_shape
from mvp_lite.course.figures.comparisons import predicted_measured
from mvp_lite.course.figures.style import GRAY, MARKERS, OKABE_ITO

__all__ = ["dot_plot", "removal", "scores_measured"]

_BLUE, _VERMILION = OKABE_ITO[:2]
_DIAL = torch.linspace(0.0, 1.2, 61, dtype=torch.float64)


def removal(
    loss: Callable[[torch.Tensor], torch.Tensor],
    w: Any,
    index: int | None = None,
    ax: Axes | None = None,
    second_order: bool = False,
) -> Axes:
    """Change of the loss along the dial c of one weight: c = 1 leaves it as it is, c = 0 removes it.

    At c = 0 the curve shows the measured change, the tangent at c = 1 the first-order prediction.

    Args:
        loss: takes the weights, in the shape of `w`, and returns a number.
        w: one weight, or a vector of weights.
        index: which entry of the vector; only this one is on the dial.
        second_order: draw the parabola of the second-order prediction too.

    Raises:
        ValueError: weights that are not finite, or no such entry.
    """
    values = torch.from_numpy(finite_array("w", w))
    if values.dim() > 1 or (values.dim() == 1) != (index is not None):
        raise ValueError(f"w has shape {tuple(values.shape)} and index={index!r}: a number, or a vector and an index")
    if index is not None and not 0 <= index < len(values):
        raise ValueError(f"index={index!r}: must be one of the {len(values)} weights, from 0")
    only = torch.ones_like(values) if index is None else torch.eye(len(values), dtype=torch.float64)[index]

    def along(c: torch.Tensor) -> torch.Tensor:
        return loss(values * (1 + (c - 1) * only))

    one = torch.ones((), dtype=torch.float64)
    here, slope = float(along(one)), float(torch.func.grad(along)(one))
    bend = float(torch.func.grad(torch.func.grad(along))(one)) if second_order else 0.0
    with torch.no_grad():
        change = np.array([float(along(c)) - here for c in _DIAL])
    c = _DIAL.numpy()
    ax = plt.subplots(figsize=(8.2, 3.6), layout="constrained")[1] if ax is None else ax
    ax.axhline(0, color="#000000", linewidth=0.8)
    ax.plot(c, change, "-", color=_BLUE, linewidth=2.4, label="loss")
    ax.plot(c, slope * (c - 1), "--", color=_VERMILION, label="tangent at c = 1")
    if second_order:
        ax.plot(c, slope * (c - 1) + bend * (c - 1) ** 2 / 2, ":", color="#000000", label="with curvature")
    ax.plot(1, 0, "o", color="#000000", markersize=8, label="weight there")
    ax.plot(0, change[0], "s", color=_BLUE, markersize=9, clip_on=False, zorder=4, label="weight gone: measured")
    predicted: dict[str, Any] = {"color": _VERMILION, "markerfacecolor": "white", "markeredgewidth": 1.8}
    predicted["label"] = "weight gone: predicted by the tangent"
    ax.plot(0, -slope, "D", markersize=8, clip_on=False, zorder=4, **predicted)
    ax.set_xlim(0, 1.2)
    ax.set_xlabel("dial c")
    ax.set_ylabel("change of the loss")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return ax


def scores_measured(
    scores: Mapping[str, Any], measured: Any, equal: bool = True, mark: Sequence[int] = ()
) -> NDArray[Any]:
    """Measured change of the loss on removal against each score, a panel for each; a point for each weight.

    Args:
        scores: label of the horizontal axis -> a score for each weight.
        measured: the change for each weight.
        equal: the scores predict the change: the panels have the same axes, and a line where both are equal.
        mark: weights to be drawn as a square, with their number.

    Raises:
        ValueError: no score, shapes that differ, values that are not finite.
    """
    if not scores:
        raise ValueError("scores is empty: there is nothing to draw")
    y = finite_array("measured", measured, 1)
    axes: NDArray[Any]
    size = (4.4 * len(scores) if len(scores) > 1 else 5.4, 3.9)
    _, panels = plt.subplots(
        1, len(scores), figsize=size, sharex=equal, sharey=True, squeeze=False, layout="constrained"
    )
    axes = panels[0]
    for ax, (label, values) in zip(axes, scores.items(), strict=True):
        x = same_shape(f"scores[{label!r}]", values, y)
        if equal:
            predicted_measured(x, y, ax, labels=(label, ""))
            ax.get_legend().remove()
            ax.locator_params(axis="x", nbins=5)
        else:
            ax.plot(x, y, "o", color=_BLUE, alpha=0.6)
            ax.set_xlabel(label)
        for place, weight in enumerate(mark):
            look = {"markerfacecolor": "white", "markeredgewidth": 1.8, "markersize": 7}
            ax.plot(x[weight], y[weight], "s", color=_VERMILION, **look)
            text = {"textcoords": "offset points", "ha": "right", "fontsize": 10}
            ax.annotate(str(weight), (x[weight], y[weight]), (-7, 5 if place % 2 == 0 else -13), **text)
    axes[0].set_ylabel("measured change of the loss")
    if equal:
        axes[0].legend(handles=axes[0].get_lines()[:1], labels=["prediction = measurement"], loc="lower right")
    return axes


def dot_plot(table: Mapping[str, Mapping[str, float]], ax: Axes | None = None, xlabel: str = "") -> Axes:
    """A line for each name with one dot for each column: open markers for the first, full ones for the others.

    Args:
        table: column, such as "before" -> name -> value; all columns have the names of the first.
        xlabel: what is drawn.

    Raises:
        ValueError: no column, names that differ, values that are not finite.
    """
    columns = list(table)
    names = list(table[columns[0]]) if columns else []
    if not names or any(set(table[column]) != set(names) for column in columns):
        raise ValueError("table: needs at least one column, and the same names in all")
    values = finite_array("table", [[table[column][name] for column in columns] for name in names])
    ax = plt.subplots(figsize=(6.4, 1.4 + 0.4 * len(names)), layout="constrained")[1] if ax is None else ax
    places = np.arange(len(names))
    ax.hlines(places, values.min(axis=1), values.max(axis=1), color=GRAY, linewidth=1.5, zorder=1)
    for number, column in enumerate(columns):
        look: dict[str, Any] = {"color": OKABE_ITO[number], "markersize": 9, "markeredgewidth": 1.8}
        if number == 0:
            look["markerfacecolor"] = "white"
        ax.plot(values[:, number], places, MARKERS[number], linestyle="none", label=column, **look)
    ax.axvline(0, color="#000000", linewidth=0.8)
    ax.set_yticks(places, names)
    ax.margins(y=0.12)
    ax.invert_yaxis()
    ax.set_xlabel(xlabel)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(columns))
    return ax
