"""Figures of scores and masks along a run: two optimizers, a threshold, masks by column, two methods seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from numpy.typing import NDArray

from mvp_lite.course.arguments import finite_array, require_columns, require_known, same_shape
from mvp_lite.course.figures.style import GRAY, METHOD_STYLE, OKABE_ITO, axes_or_new, shared_legend
from mvp_lite.masks import top_v

__all__ = ["column_masks", "optimizer_scores", "paired_errors", "score_histograms"]

_BLUE, _VERMILION, _GREEN = OKABE_ITO[:3]
_KEPT, _PRUNED = "#00457A", "#E8E8E8"


def optimizer_scores(sgd: Any, adam: Any, density: float, ax: Axes | None = None) -> Axes:
    """Each weight as a point: x is its score under SGD, y its score under Adam; the look says which Top_v keeps it.

    Args:
        sgd, adam: scores of the same weights, of one shape.
        density: fraction that each of the two keeps.

    Raises:
        ValueError: shapes that differ, values that are not finite, a density outside (0, 1].
    """
    x = finite_array("sgd", sgd)
    y = same_shape("adam", adam, x)
    by_sgd, by_adam = (top_v(torch.from_numpy(scores), density).numpy() for scores in (x, y))
    ax = axes_or_new(ax)
    for which, words, marker, color, face in (
        (by_sgd & by_adam, "both keep", "o", _BLUE, _BLUE),
        (by_sgd & ~by_adam, "SGD alone keeps", "s", _VERMILION, "white"),
        (by_adam & ~by_sgd, "Adam alone keeps", "^", _GREEN, "white"),
        (~by_sgd & ~by_adam, "neither keeps", "x", GRAY, GRAY),
    ):
        look: dict[str, Any] = {"color": color, "markerfacecolor": face, "markersize": 5 if marker == "x" else 6.5}
        ax.plot(x[which], y[which], marker, label=f"{words}: {np.count_nonzero(which)}", **look)
    ax.axhline(0, color="#000000", linewidth=0.6)
    ax.axvline(0, color="#000000", linewidth=0.6)
    smallest = 10 ** np.floor(np.log10(np.quantile(np.abs(x), 0.25) or 1.0))
    ax.set_xscale("symlog", linthresh=smallest, linscale=0.5)
    ax.set_xlabel("score under SGD (logarithmic on both sides of 0)")
    ax.set_ylabel("score under Adam")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
    return ax


def score_histograms(scores: Any, densities: Mapping[int, float]) -> NDArray[Any]:
    """Histograms of one layer's scores at several steps; a line marks the threshold that Top_v sets there.

    Args:
        scores: (steps, ...), the scores after each step, from step 0 on.
        densities: step -> fraction kept; a panel for each, on one scale.

    Raises:
        ValueError: scores that are not finite, no panel, a step outside the history, a density outside (0, 1].
    """
    history = finite_array("scores", scores)
    if not densities or not all(0 <= step < len(history) for step in densities):
        raise ValueError(f"densities has the steps {list(densities)}, expected some from 0 to {len(history) - 1}")
    shown = {step: history[step].ravel() for step in densities}
    values = np.concatenate(list(shown.values()))
    width = (values.max() - values.min()) / 30 or 1.0
    size = (2.3 * len(shown), 3.0)
    axes: NDArray[Any] = plt.subplots(1, len(shown), figsize=size, sharex=True, sharey=True, squeeze=False)[1][0]
    for ax, (step, now) in zip(axes, shown.items(), strict=True):
        kept = top_v(torch.from_numpy(now), densities[step]).numpy()
        threshold = now.min() if kept.all() else (now[kept].min() + now[~kept].max()) / 2
        above = threshold + width * np.arange(np.ceil((now.max() - threshold) / width) + 2)
        below = threshold - width * np.arange(np.ceil((threshold - now.min()) / width) + 2)[::-1]
        ax.hist(now[kept], above, color=_KEPT, edgecolor="white", linewidth=0.4, label="kept")
        if not kept.all():
            ax.hist(now[~kept], below, facecolor="white", edgecolor=_VERMILION, hatch="////", label="pruned")
            ax.axvline(threshold, color="#000000", linestyle="--", linewidth=1.3, label="threshold")
        ax.set_title(f"step {step}: {100 * densities[step]:.0f} % kept", fontsize=10)
        ax.set_xlabel("score S")
    axes[0].set_ylabel("weights")
    shared_legend(axes[::-1], "outside lower center", 3)
    return axes


def column_masks(masks: Mapping[str, Any], groups: Mapping[str, int]) -> NDArray[Any]:
    """Masks of one layer side by side, kept dark and pruned pale; columns in named groups, with the count of each.

    Args:
        masks: title -> (rows, columns), true (non-zero) where the weight is kept; all of one shape.
        groups: name -> number of columns, from left to right; together all columns.

    Raises:
        ValueError: no mask, shapes that differ, groups that do not add up.
    """
    if not masks:
        raise ValueError("masks is empty: title -> mask")
    tables: dict[str, NDArray[np.float64]] = {}
    for title, mask in masks.items():
        table = finite_array(f"masks[{title!r}]", mask, 2)
        tables[title] = same_shape(f"masks[{title!r}]", table, next(iter(tables.values()), table)) != 0
    rows, columns = next(iter(tables.values())).shape
    ends = np.cumsum([0, *groups.values()])
    if ends[-1] != columns:
        raise ValueError(f"groups has {ends[-1]} columns together, expected {columns}")
    axes: NDArray[Any]
    axes = plt.subplots(1, len(tables), figsize=(3.4 * len(tables), 3.9), squeeze=False, layout="constrained")[1][0]
    for ax, (title, kept) in zip(axes, tables.items(), strict=True):
        ax.imshow(kept, cmap=ListedColormap([_PRUNED, _KEPT]), vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(title, pad=32)
        for low, high, name in zip(ends[:-1], ends[1:], groups, strict=True):
            count = np.count_nonzero(kept[:, low:high])
            ax.text((low + high - 1) / 2, -0.7, f"{name}\n{count} kept", ha="center", va="bottom", fontsize=8.5)
            if low:
                ax.axvline(low - 0.5, color="#000000", linewidth=1.5)
        ax.set_xticks(range(columns))
        ax.set_yticks(range(0, rows, 2))
        ax.tick_params(length=0, labelsize=8)
        ax.grid(visible=False)
        ax.set_xlabel("input (column)")
    axes[0].set_ylabel("hidden unit (row)")
    return axes


def paired_errors(runs: pd.DataFrame, methods: Sequence[str], ylabel: str = "test error") -> NDArray[Any]:
    """Two methods seed by seed: a panel for each density, a dot for each run, a line between the runs of one seed.

    Args:
        runs: columns seed, density, method, error; density 1 is the dense model, drawn as a line at its mean.
        methods: the two methods, from left to right.

    Raises:
        ValueError: a missing column, an unknown method, not two methods, a seed that lacks one of its runs.
    """
    require_columns("runs", runs, "seed", "density", "method", "error")
    require_known("methods", methods, METHOD_STYLE)
    if len(methods) != 2:
        raise ValueError(f"methods={list(methods)!r}: expected two")
    dense, pruned = runs[runs["density"] == 1.0], runs[runs["density"] < 1.0]
    levels = sorted(pruned["density"].unique(), reverse=True)
    if not levels:
        raise ValueError("runs holds no pruned run: density below 1")
    axes: NDArray[Any]
    axes = plt.subplots(1, max(1, len(levels)), figsize=(2.9 * max(1, len(levels)), 3.4), sharey=True, squeeze=False)[
        1
    ][0]
    for ax, density in zip(axes, levels, strict=False):
        table = pruned[pruned["density"] == density].pivot(index="seed", columns="method", values="error")
        pairs = table.reindex(columns=list(methods))
        if pairs.isna().any(axis=None):
            raise ValueError(f"runs lacks a run of one of {list(methods)} at density {density:g}")
        ax.plot([0, 1], pairs.T, color=GRAY, linestyle="-", linewidth=1, zorder=1)
        for place, method in enumerate(methods):
            look = METHOD_STYLE[method]
            ax.plot([place] * len(pairs), pairs[method], look.marker, color=look.color, markersize=7, label=look.label)
        if len(dense):
            ax.axhline(dense["error"].mean(), color="#000000", linestyle=":", linewidth=1.3, label="dense, mean")
        ax.set_xticks([0, 1], [METHOD_STYLE[method].label for method in methods])
        ax.set_xlim(-0.45, 1.45)
        ax.set_title(f"{100 * density:.0f} % of the weights kept")
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel(ylabel)
    shared_legend(axes, "outside lower center", 3)
    return axes
