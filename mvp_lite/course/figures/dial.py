"""Figures of scores that start from magnitude: what the dial c keeps, and what it scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from mvp_lite.course.arguments import finite_array, require_columns, same_shape
from mvp_lite.course.figures.style import OKABE_ITO, curve_style

__all__ = ["dial", "score_against_dial"]

_BLUE, _VERMILION = OKABE_ITO[:2]


def dial(
    magnitude: Any,
    movement: Any,
    kept: Any,
    c: float,
    ax: Axes | None = None,
    limits: tuple[float, float, float] | None = None,
) -> Axes:
    """Each weight as a point: x is its magnitude at the start, y its movement; a line parts kept from pruned.

    The score is y + c x, so the line falls with slope -c: level for movement pruning, steep for magnitude.

    Args:
        magnitude: |W| at the start, relative to its mean.
        movement: how far training moved the score, in units of what it can travel.
        kept: mask; all three of one shape.
        c: the dial.
        limits: largest x, lowest and highest y (default: those of the points).

    Raises:
        ValueError: shapes that differ, values that are not finite.
    """
    x = finite_array("magnitude", magnitude)
    y, chosen = same_shape("movement", movement, x), same_shape("kept", kept, x) != 0
    ax = plt.subplots(figsize=(6.0, 4.2), layout="constrained")[1] if ax is None else ax
    right, low, high = limits or (float(x.max()), float(y.min()), float(y.max()))
    room = 0.06 * ((high - low) or 1.0)
    ax.plot(x[chosen], y[chosen], "o", color=_BLUE, markersize=6, label="kept")
    ax.plot(x[~chosen], y[~chosen], "x", color=_VERMILION, markersize=5, label="pruned")
    score = y + c * x
    if chosen.any() and not chosen.all():
        level = (score[chosen].min() + score[~chosen].max()) / 2
        ends = np.array([0.0, 1.05 * right])
        ax.plot(ends, level - c * ends, color="#000000", linewidth=1.2, label="equal scores")
    ax.set_xlim(0, 1.05 * right)
    ax.set_ylim(low - room, high + room)
    ax.set_xlabel("magnitude at the start, |W| / mean |W|")
    ax.set_ylabel("movement, in units of ℓ")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
    return ax


def score_against_dial(
    runs: pd.DataFrame, references: Mapping[str, float] | None = None, ax: Axes | None = None, ylabel: str = "score"
) -> Axes:
    """Scores of single runs (dots) and their means (line) against the dial c; other methods as level lines.

    Args:
        runs: columns c and score, one row per run. c = 0 has a place of its own at the left of the logarithmic axis.
        references: label -> mean score of another method.

    Raises:
        ValueError: no run, a column that is missing, a negative c.
    """
    require_columns("runs", runs, "c", "score")
    if runs.empty or (runs["c"] < 0).any():
        raise ValueError("runs: needs at least one run, and c >= 0 in all")
    ax = plt.subplots(figsize=(6.0, 3.6), layout="constrained")[1] if ax is None else ax
    values = sorted(runs["c"].unique())
    place = {c: float(i) for i, c in enumerate(values)}
    means = runs.groupby("c")["score"].mean()
    ax.plot(runs["c"].map(place), runs["score"], ".", color="0.3", markersize=6, label="one run")
    ax.plot([place[c] for c in means.index], means, label="movement from magnitude, mean", **curve_style(0))
    for index, (label, score) in enumerate((references or {}).items(), start=1):
        look = curve_style(index)
        ax.axhline(score, color=look["color"], linestyle=look["linestyle"], linewidth=1.4, label=label)
    ax.set_xticks(list(place.values()), [f"{c:g}" for c in values])
    ax.set_xlabel("the dial c (0: movement pruning as in the paper)")
    ax.set_ylabel(ylabel)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    return ax
