"""Figures of structured pruning: masks of groups, speed of smaller models, scores by choice of groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mvp_lite.course.arguments import require_columns, require_known
from mvp_lite.course.figures.style import METHOD_STYLE, Look, axes_or_new, log_axis

__all__ = ["GROUP_STYLE", "group_masks", "score_by_groups", "speed_and_operations"]

GROUP_STYLE: dict[str, Look] = {
    "weights": Look("single weights", "#000000", "o", "-"),
    "blocks": Look("blocks 8 x 8", "#D55E00", "s", "--"),
    "blocks+neurons": Look("blocks and neurons", "#E69F00", "D", (0, (5, 1))),
    "heads+neurons": Look("heads and neurons", "#0072B2", "^", "-."),
    "neurons": Look("neurons alone", "#009E73", "v", ":"),
}
#: Factors on the density that keep the lines of different groups from covering each other.
_OFFSETS = (1.0, 1.06, 1.12, 0.94, 0.88)


def group_masks(masks: Mapping[str, torch.Tensor]) -> NDArray[Any]:
    """One panel for each mask (name -> (out, in), 0 or 1): kept entries dark, pruned ones light; returns the Axes.

    Raises:
        ValueError: no mask, or one that is not a matrix.
    """
    if not masks:
        raise ValueError("masks is empty: nothing to draw")
    for name, M in masks.items():
        if M.dim() != 2:
            raise ValueError(f"masks[{name!r}] has shape {tuple(M.shape)}, expected a matrix (out, in)")
    _, grid = plt.subplots(1, len(masks), figsize=(1.55 * len(masks) + 0.4, 2.1), sharey=True, squeeze=False)
    axes: NDArray[Any] = grid[0]
    for ax, (name, M) in zip(axes, masks.items(), strict=True):
        ax.imshow(M.detach().ne(0).cpu().numpy(), cmap="cividis_r", vmin=0, vmax=1, aspect="equal")
        ax.set_title(name)
        ax.grid(visible=False)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel("inputs")
    axes[0].set_ylabel("outputs")
    return axes


def speed_and_operations(runs: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Speed-up over the dense model, and (as a bar) the ratio of operations, a line for each shape of the input.

    Args:
        runs: columns shape (a label), variant ("masked" or "shrunk"), speed_up with its quartiles low and high, and
            fewer: operations of the dense model divided by those of the variant.

    Raises:
        ValueError: a missing column, an unknown variant.
    """
    require_columns("runs", runs, "shape", "variant", "speed_up", "low", "high", "fewer")
    looks = {"masked": ("s", "#D55E00", -0.13, "zeros kept"), "shrunk": ("o", "#0072B2", 0.13, "zeros removed")}
    if unknown := set(runs["variant"]) - set(looks):
        raise ValueError(f"variant={unknown.pop()!r}: 'masked' or 'shrunk'")
    shapes = list(dict.fromkeys(runs["shape"]))
    ax = axes_or_new(ax)
    for variant, (marker, color, shift, label) in looks.items():
        mine = runs[runs["variant"] == variant]
        places = np.array([shapes.index(shape) for shape in mine["shape"]]) + shift
        speed = mine["speed_up"].to_numpy()
        reach = np.stack([speed - mine["low"], mine["high"] - speed])
        ax.errorbar(speed, places, xerr=reach, fmt=marker, color=color, label=f"{label}: measured", zorder=3)
        ax.plot(mine["fewer"], places, "|", color=color, markersize=19, markeredgewidth=2.5, alpha=0.45,
                label=f"{label}: operations")  # fmt: skip
    ax.set_yticks(range(len(shapes)), shapes)
    ax.invert_yaxis()
    ax.margins(y=0.15)
    ax.grid(visible=False, axis="y")
    ax.set_xlim(left=0.9)
    ax.set_xlabel("times faster than dense; times fewer operations")
    ax.legend(loc="upper center", bbox_to_anchor=(0.4, -0.2), ncols=2)
    return ax


def score_by_groups(runs: pd.DataFrame) -> NDArray[Any]:
    """Score against the fraction of the encoder's weights kept; a panel for each task (row) and method (column).

    A line for each choice of groups through the means over seeds, and a bar from the lowest to the highest seed. Lines
    are shifted a little against each other.

    Args:
        runs: columns task, method, groups, density (fraction of the encoder's weights), seed, score (percent).

    Raises:
        ValueError: a missing column, unknown groups or method.
    """
    require_columns("runs", runs, "task", "method", "groups", "density", "seed", "score")
    require_known("groups", runs["groups"].unique(), GROUP_STYLE)
    require_known("method", runs["method"].unique(), METHOD_STYLE)
    tasks, methods = (list(dict.fromkeys(runs[name])) for name in ("task", "method"))
    size = (3.6 * len(methods) + 0.4, 2.5 * len(tasks) + 0.7)
    figure, grid = plt.subplots(len(tasks), len(methods), figsize=size, sharex=True, sharey="row", squeeze=False)
    drawn: dict[str, Any] = {}
    for (row, column), ax in np.ndenumerate(grid):
        here = runs[(runs["task"] == tasks[row]) & (runs["method"] == methods[column])]
        for (name, look), offset in zip(GROUP_STYLE.items(), _OFFSETS, strict=True):
            mine = here[here["groups"] == name].groupby("density")["score"].agg(["mean", "min", "max"])
            if mine.empty:
                continue
            where = 100 * offset * mine.index.to_numpy()
            (drawn[look.label],) = ax.plot(where, mine["mean"], label=look.label, **look.curve)
            reach = np.stack([mine["mean"] - mine["min"], mine["max"] - mine["mean"]])
            ax.errorbar(where, mine["mean"], yerr=reach, fmt="none", ecolor=look.color, alpha=0.45, elinewidth=3)
        ax.set_title(f"{tasks[row]}, {METHOD_STYLE[methods[column]].label}")
    ticks = sorted({100 * value for value in runs["density"]})
    for ax in grid[-1]:
        log_axis(ax, ticks)
        ax.set_xlabel("encoder weights kept (%)")
    for ax in grid[:, 0]:
        ax.set_ylabel("score (%)")
    order = [look.label for look in GROUP_STYLE.values() if look.label in drawn]
    figure.legend([drawn[label] for label in order], order, loc="outside lower center", ncols=min(4, len(order)))
    return grid
