"""Figures of structured pruning: masks of groups, speed of smaller models, score and size by choice of groups."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mvp_lite.course.arguments import require_columns, require_known
from mvp_lite.course.figures.style import METHOD_STYLE, Look, axes_or_new, log_axis, shared_legend

__all__ = ["GROUP_STYLE", "group_masks", "score_against_size", "speed_and_operations"]

GROUP_STYLE: dict[str, Look] = {
    "weights": Look("single weights", "#000000", "o", "-"),
    "blocks": Look("blocks 8 x 8", "#D55E00", "s", "--"),
    "blocks+neurons": Look("blocks and neurons", "#E69F00", "D", (0, (5, 1))),
    "heads+neurons": Look("heads and neurons", "#0072B2", "^", "-."),
    "neurons": Look("neurons alone", "#009E73", "v", ":"),
}


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
    ax.set_xlabel("times as fast as dense; times fewer operations")
    ax.legend(loc="upper center", bbox_to_anchor=(0.4, -0.2), ncols=2)
    return ax


def score_against_size(runs: pd.DataFrame) -> NDArray[Any]:
    """Score against the parameters that remain (thousands, logarithmic); a panel for each task, a dot for each run.

    Markers tell the groups apart; filled ones are movement, open ones magnitude. A bar marks the mean of the seeds. The
    methods are shifted by 4 percent to the left and to the right, so that equal sizes do not cover each other.

    Args:
        runs: columns task, method ("movement" or "magnitude"), groups, parameters, score (percent).

    Raises:
        ValueError: a missing column, unknown groups or method.
    """
    require_columns("runs", runs, "task", "method", "groups", "parameters", "score")
    require_known("groups", runs["groups"].unique(), GROUP_STYLE)
    shifts = {"movement": 1 / 1.04, "magnitude": 1.04}
    require_known("method", runs["method"].unique(), shifts)
    tasks = list(dict.fromkeys(runs["task"]))
    size = (4.3 * len(tasks) + 0.4, 3.9)
    _, grid = plt.subplots(1, len(tasks), figsize=size, sharex=True, sharey=True, squeeze=False)
    axes: NDArray[Any] = grid[0]
    for task, ax in zip(tasks, axes, strict=True):
        for (groups, look), (method, shift) in itertools.product(GROUP_STYLE.items(), shifts.items()):
            mine = runs[(runs["task"] == task) & (runs["groups"] == groups) & (runs["method"] == method)]
            if mine.empty:
                continue
            x, color = shift * mine["parameters"] / 1000, METHOD_STYLE[method].color
            label = f"{look.label}, {METHOD_STYLE[method].label}"
            fill = color if method == "movement" else "none"
            ax.plot(x, mine["score"], look.marker, color=color, markerfacecolor=fill, markersize=8, label=label)
            ax.plot([x.mean()], [mine["score"].mean()], "_", color=color, markersize=24)
        ax.set_title(task)
        log_axis(ax, [100, 200, 400, 800])
        ax.set_xlabel("parameters (thousands)")
    axes[0].set_ylabel("score (%)")
    shared_legend(axes, "outside lower center", 3)
    return axes
