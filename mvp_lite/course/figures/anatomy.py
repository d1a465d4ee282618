"""Figures of the anatomy of a pruned model: its weights, scores, layers, heads and rows, and its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mvp_lite.course.arguments import require_columns, require_known
from mvp_lite.course.figures.style import GRAY, METHOD_STYLE, axes_or_new, log_axis

__all__ = [
    "density_by_head",
    "density_by_layer",
    "local_and_global",
    "row_counts",
    "score_against_parameters",
    "score_against_weight",
    "weights_left",
]


def weights_left(left: Mapping[str, torch.Tensor], ax: Axes | None = None, bins: int = 81) -> Axes:
    """Histograms of the kept weights of one matrix, one outline per method (Sanh et al. 2020, Figure 4a).

    Args:
        left: method -> values of the kept weights, any shape.
        bins: number of bins of equal width around 0 (an odd number has one with 0 in its middle).

    Raises:
        ValueError: an unknown method, or one without weights.
    """
    require_known("method", left, METHOD_STYLE)
    values = {method: _numbers(weights) for method, weights in left.items()}
    for method, numbers in values.items():
        if not numbers.size:
            raise ValueError(f"{method} has no weights left to draw")
    reach = max(float(np.abs(numbers).max()) for numbers in values.values())
    edges = np.linspace(-reach, reach, bins + 1)
    ax = axes_or_new(ax)
    for method, numbers in values.items():
        look = METHOD_STYLE[method]
        counts, _ = np.histogram(numbers, edges)
        ax.stairs(counts, edges, color=look.color, linestyle=look.line, linewidth=1.6, label=look.label)
    ax.axvline(0, color="#000000", linewidth=0.5)
    ax.set_xlabel("fine-tuned weight")
    ax.set_ylabel("weights kept in a bin")
    ax.legend(loc="upper left")
    return ax


def score_against_weight(
    weights: torch.Tensor,
    scores: torch.Tensor,
    kept: torch.Tensor,
    ax: Axes | None = None,
    method: str = "movement",
    slope: float | None = None,
    reach: float | None = None,
) -> Axes:
    """Score of each weight of one matrix against its fine-tuned value, pruned ones gray (Figure 4b).

    With `slope` the bound slope * |weight| is drawn too; with `reach` only weights from -reach to reach are shown.

    Raises:
        ValueError: shapes that differ, an unknown method.
    """
    require_known("method", [method], METHOD_STYLE)
    if not weights.shape == scores.shape == kept.shape:
        shapes = f"{tuple(weights.shape)}, {tuple(scores.shape)}, {tuple(kept.shape)}"
        raise ValueError(f"weights, scores and kept have the shapes {shapes}, expected one shape")
    x, y, chosen = _numbers(weights), _numbers(scores), kept.detach().ne(0).cpu().numpy().ravel()
    look = METHOD_STYLE[method]
    ax = axes_or_new(ax)
    ax.plot(x[~chosen], y[~chosen], ".", color=GRAY, markersize=1.5, alpha=0.6, label="pruned")
    edge: dict[str, Any] = {"markeredgecolor": "#000000", "markeredgewidth": 0.4}
    ax.plot(x[chosen], y[chosen], look.marker, color=look.color, markersize=3.5, alpha=0.8, label="kept", **edge)
    if slope is not None:
        end = float(np.abs(x).max())
        ax.plot([-end, 0, end], [slope * end, 0, slope * end], "k:", linewidth=1.2, label="bound")
        low, high = float(y.min()), float(y.max())
        ax.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low))
    if reach is not None:
        ax.set_xlim(-reach, reach)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.axvline(0, color="#000000", linewidth=0.5)
    ax.set_xlabel("fine-tuned weight")
    ax.set_ylabel("score at the end")
    ax.set_title(look.label)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, markerscale=2.5)
    return ax


def density_by_layer(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Fraction kept of each layer, one line per method, and a dot for each seed if there are several (Figure 6).

    Args:
        table: columns method, layer (a number), seed, density (a fraction).

    Raises:
        ValueError: a missing column, an unknown method.
    """
    require_columns("table", table, "method", "layer", "seed", "density")
    require_known("method", table["method"].unique(), METHOD_STYLE)
    ax = axes_or_new(ax)
    for method, look in METHOD_STYLE.items():
        mine = 100 * table[table["method"] == method].pivot(index="layer", columns="seed", values="density")
        if mine.empty:
            continue
        where = mine.index.to_numpy()
        ax.plot(where, mine.mean(axis=1), label=look.label, **look.curve)
        if mine.shape[1] > 1:
            ax.plot(where, mine.to_numpy(), ".", color=look.color, markersize=3.5, alpha=0.7)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(bottom=0)
    ax.set_xlabel("layer (the first is nearest to the words)")
    ax.set_ylabel("weights kept (%)")
    ax.legend(loc="best")
    return ax


def density_by_head(densities: Mapping[str, torch.Tensor]) -> NDArray[Any]:
    """Heat maps of the fraction kept of each head, one panel per method, all on one scale from 0; returns the Axes.

    Args:
        densities: method -> fractions, (layers, heads). Rows are numbered from 1, the layer nearest to the words.

    Raises:
        ValueError: an unknown method, no method.
    """
    require_known("method", densities, METHOD_STYLE)
    if not densities:
        raise ValueError("densities is empty: nothing to draw")
    tables = {method: 100 * values.detach().double().cpu().numpy() for method, values in densities.items()}
    top = max(float(table.max()) for table in tables.values())
    _, grid = plt.subplots(1, len(tables), figsize=(2.6 * len(tables) + 0.6, 2.9), sharey=True, squeeze=False)
    axes: NDArray[Any] = grid[0]
    for ax, (method, table) in zip(axes, tables.items(), strict=True):
        layers, heads = table.shape
        ax.imshow(table, vmin=0, vmax=top, extent=(0.5, heads + 0.5, layers + 0.5, 0.5), aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            color = "#FFFFFF" if value < 0.6 * top else "#000000"
            ax.text(column + 1, row + 1, f"{value:.1f}", ha="center", va="center", color=color, fontsize=9)
        ax.set_xticks(range(1, heads + 1))
        ax.set_yticks(range(1, layers + 1))
        ax.grid(visible=False)
        ax.set_xlabel("head")
        ax.set_title(METHOD_STYLE[method].label)
    axes[0].set_ylabel("layer (numbers: % kept)")
    return axes


def row_counts(
    counts: Mapping[str, torch.Tensor], expected: Sequence[float], ax: Axes | None = None, width: int = 1
) -> Axes:
    """Rows of a matrix by the number of weights they keep, one outline per method; dots: expected of a random mask.

    Args:
        counts: method -> weights kept in each row, integers.
        expected: expected number of rows that keep 0, 1, 2, … weights.
        width: number of counts in a bin.

    Raises:
        ValueError: an unknown method.
    """
    require_known("method", counts, METHOD_STYLE)
    top = max(len(expected), *(int(kept.max()) + 1 for kept in counts.values()))
    edges = np.arange(0, top + width, width)
    chance = np.zeros(len(edges) - 1)
    np.add.at(chance, np.arange(len(expected)) // width, np.asarray(expected, dtype=float))
    ax = axes_or_new(ax)
    for method, kept in counts.items():
        look = METHOD_STYLE[method]
        seen, _ = np.histogram(_numbers(kept), edges)
        ax.stairs(seen, edges, color=look.color, linestyle=look.line, linewidth=1.6, label=look.label)
    middle = (edges[:-1] + edges[1:]) / 2
    ax.plot(middle[chance > 0.05], chance[chance > 0.05], "k.", markersize=5, label="a random mask, expected")
    ax.set_xlabel("weights kept in a row")
    ax.set_ylabel("rows")
    ax.legend(loc="upper right")
    return ax


def local_and_global(runs: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Score against fraction kept: full lines for local scope, dashed with open markers for global scope (Figure 5).

    Args:
        runs: columns method, scope ("local" or "global"), kept (a fraction), score.

    Raises:
        ValueError: a missing column, an unknown method.
    """
    require_columns("runs", runs, "method", "scope", "kept", "score")
    require_known("method", runs["method"].unique(), METHOD_STYLE)
    ax = axes_or_new(ax)
    for method, look in METHOD_STYLE.items():
        for scope, line, fill in (("local", "-", "full"), ("global", "--", "none")):
            mine = runs[(runs["method"] == method) & (runs["scope"] == scope)].sort_values("kept")
            if mine.empty:
                continue
            style = look.curve | {"linestyle": line, "fillstyle": fill}
            ax.plot(100 * mine["kept"], mine["score"], label=f"{look.label}, {scope}", **style)
    low, high = 80 * runs["kept"].min(), 120 * runs["kept"].max()
    log_axis(ax, [value for value in (0.3, 1, 3, 10, 30, 100) if low <= value <= high])
    ax.set_xlabel("encoder weights kept (%)")
    ax.set_ylabel("score (%)")
    ax.legend(loc="lower right")
    return ax


def score_against_parameters(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Score against non-zero parameters (in thousands, logarithmic), one line per method, bars from worst to best seed.

    Small dense models are the method "small dense": black stars on a line of their own. Each method is shifted by one
    percent, so that points of equal size do not cover each other.

    Args:
        table: columns method, parameters, mean, low, high.

    Raises:
        ValueError: a missing column, an unknown method.
    """
    require_columns("table", table, "method", "parameters", "mean", "low", "high")
    require_known("method", table["method"].unique(), (*METHOD_STYLE, "small dense"))
    ax = axes_or_new(ax)
    for index, method in enumerate((*METHOD_STYLE, "small dense")):
        mine = table[table["method"] == method].sort_values("parameters")
        if mine.empty:
            continue
        small = method == "small dense"
        look = METHOD_STYLE["dense" if small else method]
        bars = (mine["mean"] - mine["low"], mine["high"] - mine["mean"])
        label = "small and dense" if small else look.label
        x = mine["parameters"] / 1000 * (1.0 if small else 1.01 ** (index - 3))
        ax.errorbar(x, mine["mean"], yerr=bars, capsize=2, elinewidth=0.8, label=label, **look.curve)
    low, high = 0.8 * table["parameters"].min() / 1000, 1.2 * table["parameters"].max() / 1000
    log_axis(ax, [value for value in (10, 20, 30, 50, 100, 200, 300, 500, 1000) if low <= value <= high])
    ax.set_xlabel("non-zero parameters, embeddings included (thousands)")
    ax.set_ylabel("score (%)")
    ax.legend(loc="best")
    return ax


def _numbers(values: torch.Tensor) -> NDArray[Any]:
    return values.detach().double().cpu().numpy().ravel()
