"""Figures of the gradient of scores: its path, the step where it has no slope, and what it does to a weight."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from mvp_lite.course.arguments import finite_array, same_shape
from mvp_lite.course.figures.style import GRAY, OKABE_ITO

__all__ = ["computation_graph", "loss_by_mask_and_score", "weight_over_steps"]

_BLUE, _VERMILION = OKABE_ITO[:2]
_MAIN, _UPPER = 1.0, 3.0  # heights of the two lines of boxes
#: box -> (x, y, symbol, what it is)
_BOXES = {
    "S": (0.7, _MAIN, "$S$", "scores"),
    "M": (3.3, _MAIN, "$M$", "mask"),
    "WM": (5.9, _MAIN, r"$W\odot M$", "used"),
    "a": (8.1, _MAIN, "$a$", "output"),
    "loss": (10.3, _MAIN, r"$\mathcal{L}$", "loss"),
    "W": (5.9, _UPPER, "$W$", "weights"),
    "x": (8.1, _UPPER, "$x$", "input"),
    "y": (10.3, _UPPER, "$y$", "target"),
}
_HALF_WIDTH, _HALF_HEIGHT = 0.62, 0.42

_ARROWS: dict[str, dict[str, Any]] = {
    "forward": {"color": GRAY, "linestyle": "-", "linewidth": 1.2},
    "exact": {"color": _BLUE, "linestyle": "-", "linewidth": 2.4},
    "straight-through": {"color": _VERMILION, "linestyle": (0, (4, 2)), "linewidth": 2.4},
}


def computation_graph(ax: Axes | None = None) -> Axes:
    """How the scores of a masked layer reach its loss (gray arrows), and the way back of the gradient in three steps.

    Thick solid arrows are exact; the dashed one is straight-through.
    """
    ax = plt.subplots(figsize=(8.4, 3.2), layout="constrained")[1] if ax is None else ax
    for x, y, symbol, words in _BOXES.values():
        corner = (x - _HALF_WIDTH, y - _HALF_HEIGHT)
        ax.add_patch(
            Rectangle(corner, 2 * _HALF_WIDTH, 2 * _HALF_HEIGHT, facecolor="white", edgecolor="black", zorder=3)
        )
        ax.text(x, y + 0.13, symbol, ha="center", va="center", fontsize=13, zorder=4)
        ax.text(x, y - 0.23, words, ha="center", va="center", fontsize=9, zorder=4)
    for start, end in (("S", "M"), ("M", "WM"), ("W", "WM"), ("WM", "a"), ("x", "a"), ("a", "loss"), ("y", "loss")):
        _arrow(ax, start, end, "forward")
    for start, end in (("loss", "a"), ("a", "WM"), ("WM", "M"), ("WM", "W")):
        _arrow(ax, start, end, "exact")
    _arrow(ax, "M", "S", "straight-through")
    ax.text(2.0, _MAIN + 0.32, r"Top$_v$", ha="center", color="#606060")
    below = _MAIN - 0.85
    ax.text(8.1, below, "step 1: exact", ha="center", color=_BLUE)
    ax.text(4.6, below, "step 2: exact", ha="center", color=_BLUE)
    ax.text(6.25, 2.0, "step 2: exact", va="center", color=_BLUE)
    ax.text(1.8, below, "step 3: straight-through", ha="center", color=_VERMILION)
    for name, look in _ARROWS.items():
        label = name if name == "forward" else f"backward, {name}"
        ax.plot([], [], label=label, color=look["color"], linestyle=look["linestyle"], linewidth=look["linewidth"])
    ax.legend(loc="upper left")
    ax.set_xlim(0, 11.0)
    ax.set_ylim(-0.1, 3.5)
    ax.set_axis_off()
    return ax


def _arrow(ax: Axes, start: str, end: str, label: str) -> None:
    """From box to box; forward and backward arrows run beside each other."""
    (x0, y0), (x1, y1) = _BOXES[start][:2], _BOXES[end][:2]
    side = 0.14 if label == "forward" else -0.14
    if y0 == y1:
        edge = _HALF_WIDTH if x1 > x0 else -_HALF_WIDTH
        tail, head = (x0 + edge, y0 + side), (x1 - edge, y1 + side)
    else:
        edge = _HALF_HEIGHT if y1 > y0 else -_HALF_HEIGHT
        tail, head = (x0 - side, y0 + edge), (x1 - side, y1 - edge)
    options = _ARROWS[label] | {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 14}
    ax.annotate("", head, tail, arrowprops=options, zorder=2)


def loss_by_mask_and_score(
    mask: Any, mask_loss: Any, score: Any, score_loss: Any, now: tuple[float, float], slope: float
) -> NDArray[Any]:
    """The loss against one entry of a continuous mask, and against the score behind it, with one slope in both.

    Left a smooth curve and its tangent; right a stair, whose jumps are dotted. Returns both Axes.

    Args:
        mask, mask_loss: values of the mask entry, in increasing order, and the loss at each.
        score, score_loss: the same for the score.
        now: where entry and score are; the line of this slope is drawn through these points.

    Raises:
        ValueError: values and losses of different shapes, or not finite.
    """
    axes: NDArray[Any]
    _, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), sharey=True, layout="constrained")
    panels = (("mask", mask, mask_loss, "continuous mask entry"), ("score", score, score_loss, "score"))
    for ax, (name, values, losses, label), here in zip(axes, panels, now, strict=True):
        x = finite_array(name, values, 1)
        y = same_shape(f"{name}_loss", losses, x)
        height = float(np.interp(here, x, y))
        jumps = _jumps(y) if name == "score" else []
        parts = zip(np.split(x, jumps), np.split(y, jumps), strict=True)
        for index, (part_x, part_y) in enumerate(parts):
            ax.plot(part_x, part_y, "-", color=_BLUE, label="loss" if index == 0 else None)
        for jump in jumps:
            ax.plot([x[jump]] * 2, y[jump - 1 : jump + 1], ":", color=_BLUE, linewidth=1.4)
        ax.plot(x, height + slope * (x - here), "--", color=_VERMILION, label=f"slope {slope:g}".replace("-", "−"))
        ax.plot(here, height, "o", color="black", label="now")
        ax.set_xlabel(label)
    shown = np.concatenate(
        [line.get_ydata() for line in axes[0].lines] + [line.get_ydata() for line in axes[1].lines[:-2]]
    )
    low, high = float(shown.min()), float(shown.max())
    margin = 0.15 * (high - low or 1.0)
    axes[0].set_ylim(low - margin, high + margin)
    axes[0].set_ylabel("loss")
    axes[0].legend()
    return axes


def _jumps(y: NDArray[np.float64]) -> list[int]:
    """Where a stair jumps: indices of the first value after each jump."""
    change = np.abs(np.diff(y))
    return [int(i) + 1 for i in np.flatnonzero(change > 0.05 * (np.ptp(y) or 1.0))]


def weight_over_steps(weight: Any, score: Any, kept: Any, threshold: Any, loss: Any) -> NDArray[Any]:
    """One weight over the steps of a run: its value, its score and the loss; steps in which it is pruned are shaded.

    Dots: kept; crosses: pruned. Returns the three Axes.

    Args:
        weight, score: of this weight before each step.
        kept: whether the forward pass of the step uses it (false, zero: pruned).
        threshold: the lowest score that is kept in each step.
        loss: of each step.

    Raises:
        ValueError: sequences of different lengths, or values that are not finite.
    """
    values = finite_array("weight", weight, 1)
    named = {"score": score, "kept": kept, "threshold": threshold, "loss": loss}
    given = {name: same_shape(name, sequence, values) for name, sequence in named.items()}
    chosen, steps = given["kept"] != 0, np.arange(len(values))
    axes: NDArray[Any]
    _, axes = plt.subplots(3, 1, figsize=(6.4, 5.4), sharex=True, layout="constrained")
    for ax, y, label in zip(axes, (values, given["score"], given["loss"]), ("weight", "score", "loss"), strict=True):
        for step in steps[~chosen]:
            ax.axvspan(step - 0.5, step + 0.5, color="black", alpha=0.1, linewidth=0)
        ax.plot(steps, y, color=GRAY, linestyle="-", linewidth=1)
        ax.plot(steps[chosen], y[chosen], "o", color=_BLUE, label="kept")
        ax.plot(steps[~chosen], y[~chosen], "x", color=_VERMILION, markersize=8, markeredgewidth=2.2, label="pruned")
        ax.margins(y=0.15)
        ax.set_ylabel(label)
    axes[1].plot(steps, given["threshold"], "--", color="black", linewidth=1.2, label="lowest score that is kept")
    axes[2].set_xlabel("step")
    axes[2].set_xticks(steps)
    handles, labels = axes[1].get_legend_handles_labels()
    axes[0].figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return axes
