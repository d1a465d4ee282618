"""Figures of what zeros gain: size of files, speed, and the course of runs that go wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mvp_lite.course.arguments import require_columns
from mvp_lite.course.figures.style import GRAY, OKABE_ITO, axes_or_new

__all__ = ["file_sizes", "gains", "runs", "speed_ups"]

_BLUE, _VERMILION = OKABE_ITO[:2]


def _bars(ax: Axes, values: Mapping[str, float], form: str, highlight: str) -> None:
    """Horizontal bars from the top down, each with its number; names that begin with `highlight` are gray."""
    names = list(values)
    for place, name in enumerate(names):
        own = not name.startswith(highlight)
        ax.barh(place, values[name], 0.62, color=_BLUE if own else GRAY, hatch="" if own else "//", edgecolor="white")
        ax.text(values[name], place, f" {values[name]:{form}}", va="center")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlim(0, 1.18 * max(values.values()))


def gains(sizes: pd.DataFrame, times: Mapping[str, Any]) -> NDArray[Any]:
    """Two panels: megabytes of a model's file in several forms, and its speed-up over the dense model.

    Args:
        sizes: rows of `data/results/sparse_files.csv`; those of the task "sst2" are drawn.
        times: of one model and batch in `benchmarks/zeros.json`: density -> variant -> "speed_up".

    Raises:
        ValueError: columns or rows are missing.
    """
    require_columns("sizes", sizes, "task", "density", "stored", "file_mb")
    found = sizes[sizes["task"] == "sst2"].groupby(["stored", "density"])["file_mb"].first()
    if found.empty:
        raise ValueError("sizes has no files of the task sst2")
    axes: NDArray[Any] = plt.subplots(1, 2, figsize=(8.6, 2.9))[1]
    megabytes = {
        "dense": found["dense", 0.1],
        "sparse, 10 %": found["exact", 0.1],
        "sparse, 3 %": found["exact", 0.03],
        "sparse, 3 %, 8 bits": found["int8", 0.03],
    }
    _bars(axes[0], megabytes, ".0f", "dense")
    axes[0].set_xlabel("file (MB)")
    ten, three, quarter = (times[f"{share} of the {what}"] for share, what in (
        ("10 %", "weights"), ("3 %", "weights"), ("a quarter", "heads and neurons")))  # fmt: skip
    speed = {
        "dense": 1.0,
        "zeros in dense matrices": ten["masked"]["speed_up"],
        "sparse matrices, 10 %": ten["csr"]["speed_up"],
        "sparse matrices, 3 %": three["csr"]["speed_up"],
        "a quarter of heads and neurons": quarter["shrunk"]["speed_up"],
    }
    _bars(axes[1], speed, ".1f", "dense")
    axes[1].axvline(1.0, color="#000000", linewidth=0.8)
    axes[1].set_xlabel("speed-up over dense")
    return axes


def file_sizes(kilobytes: Mapping[str, float], least: float, ax: Axes | None = None) -> Axes:
    """Bars for the sizes of files, and a line for the least that a file can take.

    Args:
        kilobytes: what the file holds -> its size; "dense" ones are gray.
        least: kilobytes that the entries and their positions need.
    """
    ax = axes_or_new(ax)
    ax.figure.set_size_inches(6.0, 0.5 * len(kilobytes) + 1.2)  # type: ignore[union-attr]
    _bars(ax, kilobytes, ".0f", "dense")
    ax.axvline(least, color=_VERMILION, linestyle="--", label=f"the least for exact values: {least:.0f} kB")
    ax.set_xlabel("kilobytes")
    ax.legend(loc="lower right")
    return ax


def speed_ups(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The speed-up of each variant over the dense model, with quartiles.

    Args:
        table: what `mvp_lite.latency.measure` returned for one batch size and length.
    """
    require_columns("table", table, "variant", "speed_up", "low", "high")
    ax = axes_or_new(ax)
    ax.figure.set_size_inches(6.0, 0.45 * len(table) + 1.2)  # type: ignore[union-attr]
    place = np.arange(len(table))
    low, high = table["speed_up"] - table["low"], table["high"] - table["speed_up"]
    ax.barh(place, table["speed_up"], 0.62, xerr=[low, high], color=_BLUE, ecolor="#000000", capsize=3)
    ax.axvline(1.0, color="#000000", linewidth=0.8)
    ax.set_yticks(place, table["variant"])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("speed-up over dense (bars: median, lines: quartiles)")
    return ax


def runs(histories: Mapping[str, pd.DataFrame]) -> NDArray[Any]:
    """A panel for each run: its training loss, and below it the density, step by step.

    Args:
        histories: title -> `Result.history`.
    """
    for name, history in histories.items():
        require_columns(f"histories[{name!r}]", history, "step", "loss", "density")
    columns = 3
    rows = -(-len(histories) // columns)
    size = (8.6, 2.3 * rows)
    axes: NDArray[Any] = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)[1].ravel()
    for ax, (title, history) in zip(axes, histories.items(), strict=False):
        smooth = history["loss"].rolling(5, min_periods=1).mean()
        ax.plot(history["step"], smooth, color="#000000", linestyle="-", linewidth=1.2, label="loss (mean of 5 steps)")
        ax.plot(history["step"], history["density"], color=_VERMILION, linestyle="--", label="density")
        ax.set_title(title, fontsize=10)
        ax.set_ylim(-0.05, 2.0)
    for ax in axes[len(histories) :]:
        ax.set_visible(False)
    for ax in axes[-columns:]:
        ax.set_xlabel("step")
    axes[0].legend(fontsize=8.5, loc="upper right")
    return axes
