"""Figures of swaps: one weight enters the mask, another leaves it, and the loss jumps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from torch import Tensor

from mvp_lite.course.arguments import finite_array, same_shape
from mvp_lite.course.figures.style import GRAY, LINES, OKABE_ITO

__all__ = ["along_swap", "first_and_true", "loss_and_swaps", "overtaking", "race"]

_BLUE, _VERMILION = OKABE_ITO[:2]
_BLACK = OKABE_ITO[6]


def loss_and_swaps(losses: Any, kept: Any, ax: Axes | None = None) -> Axes:
    """The loss of each step of a run that keeps one weight; crosses where another weight is kept than before.

    Args:
        losses: (steps,)
        kept: (steps,), the number of the weight that the loss of this step uses.

    Raises:
        ValueError: shapes that differ, losses that are not finite.
    """
    y = finite_array("losses", losses, 1)
    swapped = np.flatnonzero(np.diff(same_shape("kept", kept, y))) + 1
    ax = plt.subplots(figsize=(6.5, 3.0), layout="constrained")[1] if ax is None else ax
    ax.plot(y, color=_BLUE, linewidth=1.4)
    ax.plot(swapped, y[swapped], "x", color=_BLACK, markeredgewidth=1.8, label="just after a swap")
    ax.set_ylim(0, 1.15 * y.max())
    ax.set_xlabel("optimizer step t")
    ax.set_ylabel("loss")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14))
    return ax


def overtaking(before: Any, after: Any, kept: Any, kept_after: Any, ax: Axes | None = None) -> Axes:
    """Scores before and after one step, joined by a line for each weight; those that enter or leave are named.

    A dot is a kept weight, a cross a pruned one. The names are (row, column), counted from 1.

    Args:
        before, after: scores, (out, in).
        kept, kept_after: masks of that shape.

    Raises:
        ValueError: shapes that differ, values that are not finite.
    """
    left = finite_array("before", before, 2)
    right = same_shape("after", after, left)
    was, stays = (same_shape(name, mask, left) != 0 for name, mask in (("kept", kept), ("kept_after", kept_after)))
    ax = plt.subplots(figsize=(4.6, 3.6), layout="constrained")[1] if ax is None else ax
    looks: tuple[tuple[str, Any, dict[str, Any]], ...] = (
        ("pruned", ~was & ~stays, {"color": GRAY, "linestyle": ":", "linewidth": 1.2}),
        ("stays", was & stays, {"color": _BLACK, "linestyle": "-.", "linewidth": 1.2}),
        ("leaves", was & ~stays, {"color": _VERMILION, "linestyle": "--", "linewidth": 2.4}),
        ("enters", ~was & stays, {"color": _BLUE, "linestyle": "-", "linewidth": 2.4}),
    )
    for label, which, look in looks:
        for row, column in np.argwhere(which):
            ends = (left[row, column], right[row, column])
            ax.plot([0, 1], ends, **look, label=label)
            for place, end, inside in zip((0, 1), ends, (was, stays), strict=True):
                marker: dict[str, Any] = {"marker": "o"} if inside[row, column] else {"marker": "x", "mew": 1.8}
                ax.plot(place, end, color=look["color"], markersize=7, linestyle="", **marker)
    height, room = np.inf, 0.06 * (max(left.max(), right.max()) - min(left.min(), right.min()))
    for row, column in sorted(np.argwhere(was != stays), key=lambda place: -right[tuple(place)]):
        height = min(right[row, column], height - room)  # names do not overlap
        ax.annotate(f"({row + 1}, {column + 1})", (1, height), (9, 0), textcoords="offset points", va="center")
    handles = {str(line.get_label()): line for line in ax.get_lines() if not str(line.get_label()).startswith("_")}
    ax.legend(list(handles.values()), list(handles), loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4)
    ax.set_xlim(-0.15, 1.3)
    ax.set_xticks([0, 1], ["before the step", "after it"])
    ax.set_ylabel("score (dot: kept, cross: pruned)")
    return ax


def along_swap(loss: Callable[[Tensor], Tensor], before: Tensor, after: Tensor, ax: Axes | None = None) -> Axes:
    """The loss on the straight way from the outputs before a swap to those after it, and its tangent at the start.

    Args:
        loss: takes the outputs and returns a number.
        before, after: the outputs, of one shape.

    Raises:
        ValueError: shapes that differ, values that are not finite.
    """
    start = finite_array("before", before)
    same_shape("after", after, start)
    jump = after - before
    shares = torch.linspace(0, 1, 101, dtype=before.dtype)
    with torch.no_grad():
        changes = torch.stack([loss(before + share * jump) - loss(before) for share in shares])
    slope = float(torch.func.jvp(loss, (before,), (jump,))[1])
    ax = plt.subplots(figsize=(5.6, 3.4), layout="constrained")[1] if ax is None else ax
    ax.axhline(0, color=_BLACK, linewidth=0.8)
    ax.plot(shares, slope * shares, color=_VERMILION, linestyle="--", label="first order (tangent)")
    ax.plot(shares, changes, color=_BLUE, label="true loss")
    for end, color, marker in ((slope, _VERMILION, "s"), (float(changes[-1]), _BLUE, "o")):
        ax.plot(1, end, marker, color=color)
        text = f"{end:+.4g}".replace("-", "−")
        ax.annotate(text, (1, end), (9, 0), textcoords="offset points", va="center", color=color)
    ax.set_xlim(0, 1.18)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
    ax.set_xlabel("how much of the swap is carried out, ε")
    ax.set_ylabel("change of the loss")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return ax


def first_and_true(first: Any, true: Any, ax: Axes | None = None) -> Axes:
    """True changes of the loss against those to first order: a point for each swap, crosses where the loss rises.

    On the dotted line both agree. Both axes are logarithmic beyond ±1.

    Raises:
        ValueError: shapes that differ, values that are not finite.
    """
    x = finite_array("first", first, 1)
    y = same_shape("true", true, x)
    ax = plt.subplots(figsize=(5.6, 4.0), layout="constrained")[1] if ax is None else ax
    ax.axline((0, 0), slope=1, color=_BLACK, linestyle=":", linewidth=1.2, label="equal")
    ax.axhline(0, color=_BLACK, linewidth=0.8)
    rises = y > 0
    ax.plot(x[~rises], y[~rises], "o", color=_BLUE, markersize=4, alpha=0.6, label="loss falls")
    ax.plot(x[rises], y[rises], "x", color=_VERMILION, markersize=6, label="loss rises")
    for scale in (ax.set_xscale, ax.set_yscale):
        scale("symlog", linthresh=1.0)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    ax.set_xlabel("first-order change of the loss (both axes: logarithmic beyond ±1)")
    ax.set_ylabel("true change of the loss")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    return ax


def race(scores: Mapping[str, Any], first_step: int = 0, ax: Axes | None = None) -> Axes:
    """Scores of two weights over the steps of a run; a cross wherever the second one has overtaken the first.

    Args:
        scores: label -> (steps,), of two weights.
        first_step: number of the first step.

    Raises:
        ValueError: not two weights, lengths that differ, values that are not finite.
    """
    if len(scores) != 2:
        raise ValueError(f"scores holds {len(scores)} weights, expected 2")
    (one, other), (leader, chaser) = scores, scores.values()
    y1 = finite_array(f"scores[{one!r}]", leader, 1)
    y2 = same_shape(f"scores[{other!r}]", chaser, y1)
    steps = first_step + np.arange(len(y1))
    ahead = y2 > y1
    passed = np.flatnonzero(ahead[1:] & ~ahead[:-1]) + 1
    ax = plt.subplots(figsize=(6.5, 3.2), layout="constrained")[1] if ax is None else ax
    ax.plot(steps, y1, color=_BLUE, linestyle=LINES[0], label=one)
    ax.plot(steps, y2, color=_VERMILION, linestyle=LINES[1], label=other)
    ax.plot(steps[passed], y2[passed], "x", color=_BLACK, markeredgewidth=1.8, markersize=8, label="a swap")
    ax.set_xlabel("optimizer step t")
    ax.set_ylabel("score")
    ax.legend(loc="best")
    return ax
