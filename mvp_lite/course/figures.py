"""Figures of the course: each takes data and returns Axes; colours are told apart by marker and line too.

Colours are those of Okabe and Ito (2008), which also colour-blind readers tell apart.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator
from matplotlib.typing import LineStyleType
from numpy.typing import NDArray
from PIL import Image

__all__ = [
    "METHOD_STYLE",
    "average_over_tasks",
    "recorded_bars",
    "save",
    "score_against_density",
    "score_by_task",
    "show",
    "summarise",
    "training",
    "weights_moved",
]

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINES = ("-", "--", "-.", ":", "-", "--", "-.")

#: matplotlib settings of the course, for `matplotlib.style.use`.
STYLE: dict[str, Any] = {
    "figure.figsize": (6.0, 3.6),
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 11,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "image.cmap": "cividis",
    "axes.prop_cycle": cycler(color=OKABE_ITO, linestyle=_LINES),
    "svg.hashsalt": "mvp_lite",
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn, in every figure alike."""

    label: str
    colour: str
    marker: str
    line: LineStyleType


METHOD_STYLE: dict[str, Look] = {
    "dense": Look("dense (nothing pruned)", "#000000", "*", "-"),
    "movement": Look("movement", "#0072B2", "o", "-"),
    "soft_movement": Look("soft movement", "#56B4E9", "^", "-."),
    "l0": Look("L0", "#009E73", "D", (0, (5, 1))),
    "magnitude": Look("magnitude", "#D55E00", "s", "--"),
    "random": Look("random", "#CC79A7", "X", ":"),
    "scratch": Look("dense, not pretrained", "#666666", "v", (0, (1, 2))),
}
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
    ax = _axes(ax)
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
    ax = _axes(ax)
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
    ax = _axes(ax)
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
    ax = _axes(ax)
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


def show(ax: Axes | NDArray[Any] | Sequence[Axes], alt: str) -> None:
    """Display the figure of `ax` in a notebook, with its description as alt text and as a caption below.

    JupyterLab does not pass on an image's alt text, so the caption is what a screen reader finds there.

    Raises:
        ValueError: an empty description.
    """
    if not alt.strip():
        raise ValueError(f"alt={alt!r}: describe the figure in a sentence, for those who cannot see it")
    from IPython.display import display

    picture = {"image/png": base64.b64encode(_small_png(ax)).decode("ascii"), "text/plain": "figure"}
    display(picture, raw=True, metadata={"image/png": {"alt": alt}})  # type: ignore[no-untyped-call]
    display({"text/markdown": f"*{alt}*", "text/plain": alt}, raw=True)  # type: ignore[no-untyped-call]


def save(ax: Axes | NDArray[Any] | Sequence[Axes], path: str | Path) -> None:
    """Write the figure of `ax` to a PNG file, as `show` would display it, and close it."""
    Path(path).write_bytes(_small_png(ax))


def _small_png(ax: Axes | NDArray[Any] | Sequence[Axes]) -> bytes:
    """PNG of 128 colours, a quarter of the size; no version of matplotlib inside, so that the bytes repeat."""
    figure = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()[0].figure
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight")
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots()[1] if ax is None else ax


def _keep_tasks(results: pd.DataFrame, tasks: Sequence[str] | None) -> pd.DataFrame:
    if "task" not in results.columns:
        raise ValueError(f"results lacks the column 'task' (found: {', '.join(map(str, results.columns))})")
    there = list(results["task"].unique())
    for name in tasks or ():
        if name not in there:
            raise ValueError(f"tasks={name!r} is not in results (found: {', '.join(there)})")
    return results if tasks is None else results[results["task"].isin(list(tasks))]
