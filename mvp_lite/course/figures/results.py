"""Figures of the scores of runs: against density, task by task, and as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray

from mvp_lite.course.analysis import UNPRUNED, average_over_tasks, common_densities, crossings, summarize
from mvp_lite.course.arguments import require_columns, require_known
from mvp_lite.course.figures.style import METHOD_STYLE, axes_or_new, curve_style, log_axis, shared_legend

__all__ = ["leads_by_steps", "recorded_bars", "score_against_density", "score_by_task", "score_curves"]

_TICKS = (1.0, 3.0, 10.0, 30.0, 100.0)


def score_against_density(
    results: pd.DataFrame, ax: Axes | None = None, tasks: Sequence[str] | None = None, legend: bool = True
) -> Axes:
    """Score (percent) against density (percent of the encoder's weights, logarithmic): a line for each method.

    Lines join the means over seeds; each seed is a small marker, moved a little to the side. Dense models, pretrained
    or not, are horizontal lines. With several tasks the mean over them is drawn (`average_over_tasks`).

    Args:
        results: rows of a results file.
        tasks: names to keep (default: all).

    Raises:
        ValueError: as `summarize`, or a task without a run.
    """
    rows = _select_tasks(results, tasks)
    if rows["task"].nunique() > 1:
        rows = average_over_tasks(rows)
    table, runs = summarize(rows), rows[rows["split"] == "validation"]
    ax = axes_or_new(ax)
    for method, look in METHOD_STYLE.items():
        mine = table[table["method"] == method]
        if mine.empty:
            continue
        if method in UNPRUNED:
            ax.axhline(mine["mean"].iloc[0], color=look.color, linestyle=look.line, linewidth=1.2, label=look.label)
            continue
        x = 100 * mine["density"].to_numpy()
        ax.plot(x, mine["mean"], label=look.label, **look.curve)
        if (mine["seeds"] > 1).any():
            seeds = runs[runs["method"] == method]
            aside = 1.04 ** (len(ax.lines) - 3)  # dots of different methods beside each other
            dots = look.curve | {"linestyle": "", "markersize": 3.5, "alpha": 0.5}
            ax.plot(100 * aside * seeds["density"], seeds["score"], label="_one seed", **dots)
    ticks = sorted({100 * density for density in table.loc[~table["method"].isin(UNPRUNED), "density"]})
    log_axis(ax, ticks)
    ax.set_xlabel("encoder weights kept (%)")
    ax.set_ylabel("score (%)")
    ax.set_title(table["task"].iloc[0])
    if legend:
        ax.legend(loc="best")
    return ax


def score_by_task(results: pd.DataFrame, tasks: Sequence[str] | None = None) -> NDArray[Any]:
    """`score_against_density` for each task, side by side on one scale, with one legend; returns the Axes."""
    rows = _select_tasks(results, tasks)
    names = list(summarize(rows)["task"].unique()) if tasks is None else list(tasks)
    _, grid = plt.subplots(1, len(names), figsize=(2.3 * len(names) + 0.8, 3.3), sharey=True, squeeze=False)
    axes: NDArray[Any] = grid[0]
    for ax, name in zip(axes, names, strict=True):
        score_against_density(rows, ax, [name], legend=False)
        ax.set_xlabel("weights kept (%)")
        ax.label_outer()
    shared_legend(axes, "outside upper center", 4)
    return axes


def score_curves(
    results: pd.DataFrame,
    tasks: Sequence[str] | None = None,
    *,
    share: float | None = None,
    cross: tuple[str, str] | None = None,
    apart: float = 0.0,
    sharey: bool = True,
) -> NDArray[Any]:
    """Score against density, a panel for each task, with round ticks and one legend; returns the Axes.

    Args:
        results: rows of a results file; densities may differ between methods.
        tasks: names to draw, in this order (default: all).
        share: draw a thin line at this share of the dense score (0.95, say), if a dense run exists.
        cross: two methods; each crossing of their curves is marked with its density.
        apart: mark only crossings on both sides of which the two differ by as many points (`analysis.crossings`).
        sharey: whether all panels have one scale of scores.

    Raises:
        ValueError: as `score_against_density`.
    """
    names = list(summarize(results)["task"].unique()) if tasks is None else list(tasks)
    _, grid = plt.subplots(1, len(names), figsize=(2.5 * len(names) + 1.2, 3.5), sharey=sharey, squeeze=False)
    axes: NDArray[Any] = grid[0]
    for ax, name in zip(axes, names, strict=True):
        score_against_density(results, ax, [name], legend=False)
        rows = results[results["task"] == name]
        ax.xaxis.set_major_locator(FixedLocator(_TICKS))
        ax.set_xlabel("weights kept (%)")
        if sharey:
            ax.label_outer()
        dense = rows.loc[(rows["method"] == "dense") & (rows["split"] == "validation"), "score"]
        if share is not None and len(dense):
            level, dashes = share * dense.mean(), (0, (9, 4))
            ax.axhline(level, color="#000000", linestyle=dashes, linewidth=0.9, label=f"{100 * share:g} % of dense")
        if cross is not None and set(cross) <= set(rows["method"]):
            both = common_densities(rows, cross)
            for number, density in enumerate(crossings(both.index, both[cross[0]], both[cross[1]], apart)):
                side, shift = ("right", -3) if density > 0.3 else ("left", 3)
                ax.axvline(100 * density, color="#000000", linestyle=(0, (1, 3)), linewidth=1)
                place = (100 * density, 0.02 + 0.08 * number)  # labels of several crossings are stacked
                ax.annotate(
                    f"{100 * density:.2g} %", place, (shift, 0), ("data", "axes fraction"), "offset points", ha=side
                )
    shared_legend(axes, "outside upper center", 4)
    return axes


def leads_by_steps(leads: pd.DataFrame, titles: Mapping[str, str] | None = None) -> NDArray[Any]:
    """Lead of each method over another against the length of the run (logarithmic): a panel for each method.

    In a panel, a line with markers of its own for each source joins the means over seeds; each of several seeds is a
    small marker, moved a little to the right. Sources are in the order of their shortest runs.

    Args:
        leads: columns method, source, steps and lead (points), a row for each seed.
        titles: method -> title of its panel (default: the method's label).

    Raises:
        ValueError: a missing column, no row, or an unknown method.
    """
    require_columns("leads", leads, "method", "source", "steps", "lead")
    if leads.empty:
        raise ValueError("leads holds no row")
    methods, sources = leads["method"].unique(), list(leads.sort_values("steps", kind="stable")["source"].unique())
    require_known("method", methods, METHOD_STYLE)
    _, grid = plt.subplots(1, len(methods), figsize=(3.0 * len(methods) + 0.8, 3.7), sharey=True, squeeze=False)
    axes: NDArray[Any] = grid[0]
    low, high = leads["steps"].min(), leads["steps"].max()
    for ax, method in zip(axes, methods, strict=True):
        ax.axhline(0, color="#000000", linewidth=0.9)
        for place, source in enumerate(sources):
            rows = leads[(leads["method"] == method) & (leads["source"] == source)]
            means, look = rows.groupby("steps")["lead"].mean(), curve_style(place)
            ax.plot(means.index, means, label=source, **look)
            dots = look | {"linestyle": "", "markersize": 3.5, "alpha": 0.5}
            several = rows[rows.duplicated("steps", keep=False)]
            ax.plot((1.1 + 0.08 * place) * several["steps"], several["lead"], label="_one seed", **dots)
        log_axis(ax, [10.0**power for power in range(6) if low / 10 < 10**power < 10 * high])
        ax.set_xlim(low / 2, 2 * high)
        ax.set_title((titles or {}).get(method, METHOD_STYLE[method].label))
        ax.set_xlabel("optimizer steps")
    axes[0].set_ylabel("lead (points)")
    shared_legend(axes, "outside upper center", 3)
    return axes


def recorded_bars(
    results: pd.DataFrame, task: str, density: float, ax: Axes | None = None, source: str = "recorded runs"
) -> Axes:
    """Scores of all methods on one task at one density: a bar for the mean, a dot for each seed.

    Unpruned models are shown too. `source` is the file that the numbers come from; the title names it.

    Raises:
        ValueError: as `summarize`, or no pruned run of that task and density (the message lists the densities).
    """
    rows = _select_tasks(results, [task])
    rows = rows[rows["split"] == "validation"]
    pruned = ~rows["method"].isin(UNPRUNED)
    here = rows[~pruned | np.isclose(rows["density"], density)]
    if not pruned[here.index].any():
        found = ", ".join(f"{value:g}" for value in sorted(rows.loc[pruned, "density"].unique()))
        raise ValueError(f"density={density!r} was not recorded for {task} (found: {found or 'none'})")
    table = summarize(here)
    ax = axes_or_new(ax)
    labels = []
    for place, (method, mean, seeds) in enumerate(table[["method", "mean", "seeds"]].itertuples(index=False)):
        look = METHOD_STYLE[method]
        ax.barh(place, mean, color=look.color, alpha=0.45, height=0.6)
        dots = here.loc[here["method"] == method, "score"]
        ax.plot(dots, [place] * len(dots), look.marker, color=look.color, markersize=5, clip_on=False)
        ax.annotate(f"{mean:.1f}", (1.0, place), (4, 0), ("axes fraction", "data"), "offset points", va="center")
        labels.append(f"{look.label} ({seeds} seed{'s' * (seeds > 1)})")
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("score (%): mean over seeds, and each seed")
    ax.set_title(f"{task} at {100 * density:g} % kept, recorded in {source}")
    return ax


def _select_tasks(results: pd.DataFrame, tasks: Sequence[str] | None) -> pd.DataFrame:
    require_columns("results", results, "task")
    found = list(results["task"].unique())
    for name in tasks or ():
        if name not in found:
            raise ValueError(f"tasks={name!r} is not in results (found: {', '.join(found)})")
    return results if tasks is None else results[results["task"].isin(list(tasks))]
