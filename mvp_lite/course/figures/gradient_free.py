"""Figures of pruning without labels: scores by operations, neurons kept, settings compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from mvp_lite.course.arguments import require_columns, require_known
from mvp_lite.course.figures.style import Look, axes_or_new, shared_legend

__all__ = [
    "UNLABELED_STYLE",
    "choices",
    "neurons_by_layer",
    "operations_by_task",
    "score_against_operations",
]

#: Looks of the methods of `mvp_lite.prune_neurons`, by the names that `analysis.unlabeled_names` gives them.
UNLABELED_STYLE: dict[str, Look] = {
    "kcm": Look("KCM", "#0072B2", "o", "-"),
    "r2d2": Look("R2 × D2", "#56B4E9", "^", "-."),
    "r2": Look("R2", "#009E73", "D", (0, (5, 1))),
    "r2_scaled": Look("R2, scaled", "#009E73", "P", "-"),
    "d2": Look("D2", "#E69F00", "v", (0, (3, 1, 1, 1))),
    "d2_scaled": Look("D2, scaled", "#E69F00", "<", "-"),
    "weight_magnitude": Look("weights", "#D55E00", "s", "--"),
    "weight_magnitude_scaled": Look("weights, scaled", "#D55E00", "p", "-"),
    "output_magnitude": Look("outputs", "#8C564B", "h", "--"),
    "output_magnitude_scaled": Look("outputs, scaled", "#8C564B", "8", "-"),
    "random": Look("random", "#CC79A7", "X", ":"),
    "random_scaled": Look("random, scaled", "#CC79A7", "d", "-"),
    "kcm_labels": Look("KCM, labels", "#666666", ">", "-"),
    "fisher": Look("Fisher, labels", "#000000", "*", "-"),
    "fisher_heads": Look("Fisher, labels, heads too", "#000000", "1", "--"),
}


def score_against_operations(table: pd.DataFrame, ax: Axes | None = None, ylabel: str = "score (%)") -> Axes:
    """Score against the operations that remain (percent): a line for each method, a band over its seeds.

    A row with method "dense" is a horizontal line. A new axes has a legend, a given one has none yet.

    Args:
        table: columns method (see `UNLABELED_STYLE`), flops (the budget, a fraction) and score; a row for each seed.

    Raises:
        ValueError: a missing column, no row, an unknown method.
    """
    _require_rows(table, "method", "flops", "score")
    require_known("method", table["method"].unique(), ("dense", *UNLABELED_STYLE))
    new, ax = ax is None, axes_or_new(ax)
    dense = table.loc[table["method"] == "dense", "score"]
    if len(dense):
        ax.axhline(dense.mean(), color="#000000", linewidth=1, label="dense")
    for method, look in UNLABELED_STYLE.items():
        rows = table[table["method"] == method]
        if rows.empty:
            continue
        by = rows.groupby("flops")["score"].agg(["mean", "min", "max", "count"])
        x = 100 * by.index.to_numpy()
        ax.plot(x, by["mean"], label=look.label, markersize=5, linewidth=1.4, **look.curve)
        if (by["count"] > 1).any():
            ax.fill_between(x, by["min"], by["max"], color=look.color, alpha=0.15, linewidth=0)
    ax.set_xticks(sorted({round(100 * flops, 6) for flops in table.loc[table["method"] != "dense", "flops"]}))
    ax.set_xlabel("operations left (%)")
    ax.set_ylabel(ylabel)
    if new:
        ax.legend()
    return ax


def operations_by_task(table: pd.DataFrame, tasks: Sequence[str]) -> list[Axes]:
    """`score_against_operations` in a panel for each of `tasks`, three in a row, with one legend; dense is a line.

    Args:
        table: columns task, method, flops, score and dense_score; a row for each run.

    Raises:
        ValueError: a missing column, no task, a task without a row, an unknown method.
    """
    _require_rows(table, "task", "method", "flops", "score", "dense_score")
    if not len(tasks) or (missing := sorted(set(tasks) - set(table["task"]))):
        raise ValueError(f"tasks: {missing[0] + ' has no row' if len(tasks) else 'none is named'}")
    rows = math.ceil(len(tasks) / 3)
    _, grid = plt.subplots(rows, min(3, len(tasks)), figsize=(9.2, 2.6 * rows + 1), squeeze=False, layout="constrained")
    axes = list(grid.flat)
    for ax, task in zip(axes, tasks, strict=False):
        here = table[table["task"] == task]
        dense = pd.DataFrame({"method": ["dense"], "flops": [1.0], "score": [here["dense_score"].iloc[0]]})
        score_against_operations(pd.concat([here, dense]), ax, "score (%)" if ax in grid[:, 0] else "").set_title(task)
    for ax in axes[len(tasks) :]:
        ax.remove()
    shared_legend(axes[: len(tasks)], "outside lower center", 4)
    return axes[: len(tasks)]


def neurons_by_layer(kept: Mapping[str, Sequence[int]], neurons: int, ax: Axes | None = None) -> Axes:
    """Neurons kept in each layer: a line for each method (Nova et al. 2023, Figure 4, draws the pruned ones).

    Args:
        kept: method (see `UNLABELED_STYLE`) -> neurons kept, a number for each layer.
        neurons: number of neurons in a layer.

    Raises:
        ValueError: an unknown method, lines of different length, numbers outside 0 to `neurons`.
    """
    if not kept or (unknown := sorted(set(kept) - set(UNLABELED_STYLE))):
        raise ValueError(f"kept has {unknown[0] if kept else 'no'} method: of {', '.join(UNLABELED_STYLE)}")
    if len({len(line) for line in kept.values()}) > 1:
        raise ValueError(f"kept has lines of different length: {[len(line) for line in kept.values()]}")
    if any(not 0 <= number <= neurons for line in kept.values() for number in line):
        raise ValueError(f"kept has numbers outside 0 to neurons={neurons}")
    ax = axes_or_new(ax)
    for method, look in UNLABELED_STYLE.items():
        if method in kept:
            ax.plot(range(1, len(kept[method]) + 1), kept[method], label=look.label, **look.curve)
    ax.set_xticks(range(1, len(next(iter(kept.values()))) + 1))
    ax.set_ylim(0, neurons)
    ax.set_xlabel("layer")
    ax.set_ylabel(f"neurons kept, of {neurons}")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def choices(table: pd.DataFrame, ax: Axes | None = None, xlabel: str = "score (%)") -> Axes:
    """Scores under different settings: a row for each option, a dot for each run, a bar for the mean.

    Args:
        table: columns option (its name; drawn from top to bottom in the order of the first rows) and score.

    Raises:
        ValueError: a missing column or no row.
    """
    _require_rows(table, "option", "score")
    names = list(dict.fromkeys(table["option"]))
    if ax is None:
        ax = plt.subplots(figsize=(6.0, 0.32 * len(names) + 1.0))[1]
    for place, name in enumerate(names):
        values = table.loc[table["option"] == name, "score"].to_numpy()
        ax.plot(values, [place] * len(values), "o", color="#0072B2", markersize=4, alpha=0.6)
        ax.plot([values.mean()], [place], "|", color="#000000", markersize=14, markeredgewidth=2)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(xlabel)
    return ax


def _require_rows(table: pd.DataFrame, *columns: str) -> None:
    require_columns("table", table, *columns)
    if table.empty:
        raise ValueError("table holds no row")
