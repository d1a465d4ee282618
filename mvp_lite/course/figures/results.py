"""Figures of results: scores of runs, how weights moved, how a training went. Each takes data and returns Axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator
from numpy.typing import NDArray

from mvp_lite.course.figures.style import METHOD_STYLE, axes_or_new

__all__ = [
    "average_over_tasks",
    "recorded_bars",
    "score_against_density",
    "score_by_task",
    "summarise",
    "training",
    "weights_moved",
]

_UNPRUNED = ("dense", "scratch")


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """Scores over seeds: one row per (task, method, density) with mean, std, low, high (min, max) and seeds (count).

    `results` has the columns of a results file; only rows whose `split` is "validation" count. `std` is the sample's
    (NaN for one seed). Rows come by task and density in ascending order, methods in the order of `METHOD_STYLE`.

    Raises:
        ValueError: a missing column, an unknown method, nothing to draw, or two rows for one seed (of different steps,
            scopes or models, say: choose one first).
    """
    cell = ["task", "method", "density"]
    if missing := [name for name in (*cell, "split", "seed", "score") if name not in results.columns]:
        raise ValueError(f"results lacks the column {missing[0]!r} (found: {', '.join(map(str, results.columns))})")
    rows = results[results["split"] == "validation"]
    if rows.empty:
        raise ValueError("results holds no row with split 'validation'")
    if unknown := sorted(set(rows["method"]) - set(METHOD_STYLE)):
        raise ValueError(f"results has method={unknown[0]!r}: one of {', '.join(METHOD_STYLE)}")
    if (twice := rows.duplicated([*cell, "seed"])).any():
        where = ", ".join(f"{name} {rows.loc[twice, name].iloc[0]}" for name in (*cell, "seed"))
        raise ValueError(f"results has two rows for {where}: choose one setting before drawing")
    scores = rows.groupby(cell)["score"]
    table = scores.agg(mean="mean", std="std", low="min", high="max", seeds="count").reset_index()
    order = table["method"].map(list(METHOD_STYLE).index)
    table = table.assign(order=order).sort_values(["task", "density", "order"], ignore_index=True)
    return table.drop(columns="order")


def average_over_tasks(results: pd.DataFrame) -> pd.DataFrame:
    """Mean over tasks of each (method, density, seed), as results of one task named "mean of n tasks".

    A (method, density, seed) that some task lacks is left out: means over different tasks do not compare.
    """
    summarise(results)
    rows = results[results["split"] == "validation"]
    count = rows["task"].nunique()
    groups = rows.groupby(["method", "density", "seed"])["score"]
    table = groups.agg(score="mean", tasks="count").reset_index()
    table = table[table["tasks"] == count].drop(columns="tasks")
    return table.assign(split="validation", task=f"mean of {count} tasks")


def score_against_density(
    results: pd.DataFrame, ax: Axes | None = None, tasks: Sequence[str] | None = None, legend: bool = True
) -> Axes:
    """Score (per cent) against density (per cent of the encoder's weights, logarithmic): one line per method.

    Lines join the means over seeds, bands reach from the worst to the best seed. Dense and not pretrained models are
    horizontal lines. With several tasks the mean over them is drawn (`average_over_tasks`).

    Args:
        results: rows of a results file.
        tasks: names to keep (default: all).

    Raises:
        ValueError: as `summarise`, or a task that is not there.
    """
    rows = _keep_tasks(results, tasks)
    if rows["task"].nunique() > 1:
        rows = average_over_tasks(rows)
    table = summarise(rows)
    ax = axes_or_new(ax)
    for method, look in METHOD_STYLE.items():
        mine = table[table["method"] == method]
        if mine.empty:
            continue
        if method in _UNPRUNED:
            ax.axhline(mine["mean"].iloc[0], color=look.colour, linestyle=look.line, linewidth=1.2, label=look.label)
            continue
        x = 100 * mine["density"].to_numpy()
        ax.plot(x, mine["mean"], color=look.colour, marker=look.marker, linestyle=look.line, label=look.label)
        if (mine["seeds"] > 1).any():
            ax.fill_between(x, mine["low"], mine["high"], color=look.colour, alpha=0.18, linewidth=0)
    ticks = sorted({100 * density for density in table.loc[~table["method"].isin(_UNPRUNED), "density"]})
    ax.set_xscale("log")
    if ticks:
        ax.set_xticks(ticks)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xlabel("encoder weights kept (%)")
    ax.set_ylabel("score (%)")
    ax.set_title(table["task"].iloc[0])
    if legend:
        ax.legend(loc="best")
    return ax


def score_by_task(results: pd.DataFrame, tasks: Sequence[str] | None = None) -> NDArray[Any]:
    """`score_against_density` for each task, side by side on one scale, with one legend; returns the Axes."""
    rows = _keep_tasks(results, tasks)
    names = list(summarise(rows)["task"].unique()) if tasks is None else list(tasks)
    figure, grid = plt.subplots(1, len(names), figsize=(2.3 * len(names) + 0.8, 3.3), sharey=True, squeeze=False)
    axes: NDArray[Any] = grid[0]
    for ax, name in zip(axes, names, strict=True):
        score_against_density(rows, ax, [name], legend=False)
        ax.set_xlabel("weights kept (%)")
        ax.label_outer()
    handles = {label: line for ax in axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(4, len(handles)))
    return axes


def recorded_bars(
    results: pd.DataFrame, task: str, density: float, ax: Axes | None = None, source: str = "recorded runs"
) -> Axes:
    """Scores of all methods on one task at one density: a bar for the mean, a dot for each seed.

    Unpruned models stand beside them. `source` names the file in the title, since the numbers are recorded.

    Raises:
        ValueError: as `summarise`, or no pruned row with that task and density (says which densities there are).
    """
    rows = _keep_tasks(results, [task])
    rows = rows[rows["split"] == "validation"]
    pruned = ~rows["method"].isin(_UNPRUNED)
    here = rows[~pruned | np.isclose(rows["density"], density)]
    if not pruned[here.index].any():
        found = ", ".join(f"{value:g}" for value in sorted(rows.loc[pruned, "density"].unique()))
        raise ValueError(f"density={density!r} was not recorded for {task} (found: {found or 'none'})")
    table = summarise(here)
    ax = axes_or_new(ax)
    labels = []
    for place, (method, mean, seeds) in enumerate(table[["method", "mean", "seeds"]].itertuples(index=False)):
        look = METHOD_STYLE[method]
        ax.barh(place, mean, color=look.colour, alpha=0.45, height=0.6)
        dots = here.loc[here["method"] == method, "score"]
        ax.plot(dots, [place] * len(dots), look.marker, color=look.colour, markersize=5, clip_on=False)
        ax.annotate(f"{mean:.1f}", (1.0, place), (4, 0), ("axes fraction", "data"), "offset points", va="center")
        labels.append(f"{look.label} ({seeds} seed{'s' * (seeds > 1)})")
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("score (%): mean over seeds, and each seed")
    ax.set_title(f"{task} at {100 * density:g} % kept, recorded in {source}")
    return ax


def weights_moved(
    before: torch.Tensor,
    after: torch.Tensor,
    kept: torch.Tensor,
    ax: Axes | None = None,
    method: str = "movement",
    change: bool = True,
) -> Axes:
    """How far each weight of one matrix has moved, against its pretrained value; kept and pruned apart.

    Upper right and lower left lie the weights that moved away from zero (or, from near it, across). With
    `change=False` the vertical axis is the fine-tuned value itself (Sanh et al. 2020, Figure 1): small moves are then
    hard to see.

    Args:
        before, after: the matrix before and after (dense: `Result.masters`), of one shape.
        kept: mask of that shape, true (non-zero) where the weight is kept.
        method: whose colour and marker the kept ones get.

    Raises:
        ValueError: shapes that differ, an unknown method.
    """
    if not before.shape == after.shape == kept.shape:
        shapes = f"{tuple(before.shape)}, {tuple(after.shape)}, {tuple(kept.shape)}"
        raise ValueError(f"before, after and kept have the shapes {shapes}: one shape is wanted")
    if method not in METHOD_STYLE:
        raise ValueError(f"method={method!r}: one of {', '.join(METHOD_STYLE)}")
    x, y = (tensor.detach().float().cpu().numpy().ravel() for tensor in (before, after))
    y = y - x if change else y
    chosen = kept.detach().ne(0).cpu().numpy().ravel()
    look = METHOD_STYLE[method]
    ax = axes_or_new(ax)
    for which, label, marker, colour, size in (
        (~chosen, "pruned", ".", "#999999", 1.5),
        (chosen, "kept", look.marker, look.colour, 3.0),
    ):
        ax.plot(x[which], y[which], marker, color=colour, markersize=size, alpha=0.6, label=label)
    ax.axline((0, 0), slope=0 if change else 1, color="#000000", linestyle=":", linewidth=1, label="not moved")
    ax.axvline(0, color="#000000", linewidth=0.5)
    ax.set_xlabel("pretrained weight")
    ax.set_ylabel("fine-tuned minus pretrained" if change else "fine-tuned weight")
    ax.set_title(look.label)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, markerscale=2.5)
    return ax


def training(history: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Loss of each step and, on the right-hand scale, the fraction kept, from `Result.history`.

    Raises:
        ValueError: a missing column.
    """
    if missing := [name for name in ("step", "loss", "density") if name not in history.columns]:
        raise ValueError(f"history lacks the column {missing[0]!r}: it has step, loss, density, lr, penalty")
    ax = axes_or_new(ax)
    (loss,) = ax.plot(history["step"], history["loss"], color="#D55E00", linewidth=1, label="loss (left)")
    right = ax.twinx()
    (kept,) = right.plot(history["step"], 100 * history["density"], "--", color="#0072B2", label="kept (right)")
    right.set_ylim(0, 105)
    right.set_ylabel("encoder weights kept (%)")
    right.grid(visible=False)
    ax.set_xlabel("optimizer step")
    ax.set_ylabel("loss of the batch (nats)")
    ax.legend(handles=[loss, kept], loc="upper right")
    return ax


def _keep_tasks(results: pd.DataFrame, tasks: Sequence[str] | None) -> pd.DataFrame:
    if "task" not in results.columns:
        raise ValueError(f"results lacks the column 'task' (found: {', '.join(map(str, results.columns))})")
    there = list(results["task"].unique())
    for name in tasks or ():
        if name not in there:
            raise ValueError(f"tasks={name!r} is not in results (found: {', '.join(there)})")
    return results if tasks is None else results[results["task"].isin(list(tasks))]
