"""Figures of the audit: released runs against printed cells, and losses of a method against the claimed bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mvp_lite.course.figures.style import METHOD_STYLE, OKABE_ITO, Look, axes_or_new, log_axis

__all__ = ["points_lost", "printed_and_released", "printed_by_task"]

_TEACHER = {
    False: Look("no teacher", OKABE_ITO[0], "o", "-"),
    True: Look("with a teacher", OKABE_ITO[1], "s", "--"),
}
_MODEL = {
    "bert-base": Look("BERT-base", OKABE_ITO[0], "o", "-"),
    "distilbert": Look("DistilBERT", OKABE_ITO[1], "s", "-"),
}


def printed_and_released(
    runs: pd.DataFrame,
    cells: pd.DataFrame,
    ax: Axes | None = None,
    by: str = "method",
    ticks: Sequence[float] = (1, 3, 10, 30, 100),
    legend: bool = True,
) -> Axes:
    """Released runs, score against weights kept (percent, logarithmic), and printed cells as hollow markers.

    A hollow marker has the color of its line, and should be on that line.

    Args:
        runs: rows of `data/paper/released_runs.csv`, of one task.
        cells: rows of `data/paper/movement_tables.csv`, of that task; dense ones are a horizontal line.
        by: "method", or "distil" for one method with and without a teacher.
        ticks: of the horizontal axis, in percent; runs below the first or above the last are left out.

    Raises:
        ValueError: several tasks, another `by`, several lines for one name, or no run.
    """
    if by not in ("method", "distil"):
        raise ValueError(f"by={by!r}: 'method' or 'distil'")
    if (tasks := runs["task"].unique()).size != 1 or not set(cells["task"]) <= set(tasks):
        raise ValueError(f"runs has the tasks {list(tasks)}, cells {list(cells['task'].unique())}, expected one")
    other = ["method", "distil", "scope"]
    other.remove(by)
    for name, rows in runs.groupby(by):
        if len(lines := rows[other].drop_duplicates()) > 1:
            raise ValueError(f"runs has {len(lines)} lines for {by} {name}: choose one (see {', '.join(other)})")
    looks = METHOD_STYLE if by == "method" else _TEACHER
    ax = axes_or_new(ax)
    low, high = ticks[0] / 1.15, ticks[-1] * 1.15
    for name, look in looks.items():
        mine = runs[runs[by] == name].sort_values("kept")
        inside = mine[(100 * mine["kept"]).between(low, high)]
        if inside.empty:
            continue
        ax.plot(100 * inside["kept"], inside["score"], label=look.label, markersize=4, linewidth=1.3, **look.curve)
        shown = cells[(cells[by] == name) & (cells["method"] != "dense")]
        hollow = look.curve | {"linestyle": "", "markerfacecolor": "none", "markersize": 11, "markeredgewidth": 1.6}
        ax.plot(100 * shown["kept"], shown["score"], label="_printed", **hollow)
    for score in cells.loc[cells["method"] == "dense", "score"].unique():
        dense = METHOD_STYLE["dense"]
        ax.axhline(score, color=dense.color, linestyle=dense.line, linewidth=1, label=dense.label)
    log_axis(ax, ticks)
    ax.set_xlim(low, high)
    ax.set_xlabel("encoder weights kept (%)")
    ax.set_ylabel("score (%)")
    ax.set_title(str(tasks[0]))
    if legend:
        ax.legend(loc="best", title="line: released; hollow: printed", title_fontsize=9.5)
    return ax


def printed_by_task(runs: pd.DataFrame, cells: pd.DataFrame, share: float | None = None) -> NDArray[Any]:
    """`printed_and_released` by method for each task, side by side, each on its own scale; returns the Axes.

    Args:
        runs: rows of `data/paper/released_runs.csv`.
        cells: rows of `data/paper/movement_tables.csv`, of those tasks.
        share: draw a thin line at this share of the dense score (0.95, say), where `cells` has a dense row.
    """
    names = list(runs["task"].unique())
    figure, grid = plt.subplots(1, len(names), figsize=(3.2 * len(names), 3.6), squeeze=False)
    axes: NDArray[Any] = grid[0]
    for ax, name in zip(axes, names, strict=True):
        printed_and_released(runs[runs["task"] == name], cells[cells["task"] == name], ax, legend=False)
        ax.set_ylabel("score (%)" if ax is axes[0] else "")
        if share is not None:
            level: dict[str, Any] = {"color": "#000000", "linestyle": (0, (9, 4)), "linewidth": 0.9}
            for score in cells.loc[(cells["task"] == name) & (cells["method"] == "dense"), "score"]:
                ax.axhline(share * score, label=f"{100 * share:g} % of dense", **level)
    handles, labels = axes[0].get_legend_handles_labels()
    columns = len(labels) if len(labels) < 6 else 3
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, title="line: released; hollow: printed")
    return axes


def points_lost(drops: pd.DataFrame, limit: float, ax: Axes | None = None) -> Axes:
    """Points that pruning costs, a line of markers for each task and a vertical line at the claimed bound.

    Tasks are ordered by the largest loss. Each model has a marker of its own, filled for the smallest share of
    FLOPs and hollow for the others. A gray bar joins the markers of one model and task.

    Args:
        drops: columns `task`, `model` ("bert-base", "distilbert"), `flops` (share left) and `lost` (points).
        limit: the largest loss according to the claim, in points.

    Raises:
        ValueError: no row, or a model without a look of its own.
    """
    if drops.empty or not set(drops["model"]) <= set(_MODEL):
        raise ValueError(f"drops has the models {sorted(set(drops['model']))}, expected some of {', '.join(_MODEL)}")
    ax = axes_or_new(ax)
    tasks = [str(name) for name in drops.groupby("task")["lost"].max().sort_values().index]
    models = [name for name in _MODEL if name in set(drops["model"])]
    shares = sorted(float(flops) for flops in drops["flops"].unique())
    for row, name in enumerate(models):
        look, shift = _MODEL[name], 0.16 * (len(models) - 1 - 2 * row)
        mine = drops[drops["model"] == name]
        ends = mine.groupby("task")["lost"].agg(["min", "max"])
        ax.hlines(
            [tasks.index(str(task)) + shift for task in ends.index], ends["min"], ends["max"], "0.8", lw=1.2, zorder=1
        )
        for flops in shares:
            rows = mine[mine["flops"] == flops]
            y = [tasks.index(task) + shift for task in rows["task"]]
            face = look.color if flops == shares[0] else "white"
            place: dict[str, Any] = {"marker": look.marker, "color": look.color, "markerfacecolor": face}
            ax.plot(rows["lost"], y, linestyle="", label=f"{look.label}, {100 * flops:g} %", **place)
    ax.axvline(limit, color="black", linestyle="--", linewidth=1.2, label="claimed")
    ax.set_yticks(range(len(tasks)), tasks)
    ax.set_xlim(left=0)
    ax.set_xlabel("points lost")
    ax.legend(loc="lower right", title="FLOPs left", title_fontsize=9.5)
    return ax
