"""Figures of soft selection: hard-concrete gates, and the density that a penalty of weight lambda leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from mvp_lite.course.arguments import finite_array, require_columns
from mvp_lite.course.figures.style import OKABE_ITO, axes_or_new, curve_style
from mvp_lite.masks import expected_l0, hard_concrete, hard_concrete_test_mask

__all__ = ["density_against_lambda", "gate_curves", "hard_concrete_gate"]

_BLUE, _VERMILION = OKABE_ITO[:2]
#: Positions of the bars of gates that are exactly 0 and exactly 1, just outside the others.
_ENDS = (-0.05, 1.05)


def hard_concrete_gate(score: float, uniform: Any, ax: Axes | None = None) -> Axes:
    """Sampled hard-concrete gates of one score: shares exactly 0 and exactly 1, and a histogram of the others.

    Marked are the value used at test time, and the expected height of the bar at 0: 1 - P(M != 0).

    Args:
        score: S, one number.
        uniform: noise in (0, 1), one number for each gate.

    Raises:
        ValueError: noise outside (0, 1), or a score that is not finite.
    """
    noise = finite_array("uniform", uniform, 1)
    if not ((noise > 0) & (noise < 1)).all():
        raise ValueError(f"uniform reaches from {noise.min():g} to {noise.max():g}: noise lies between 0 and 1")
    S = torch.tensor(float(finite_array("score", score, 0)), dtype=torch.float64)
    gates = hard_concrete(S, torch.from_numpy(noise)).numpy()
    inside = (gates > 0) & (gates < 1)
    counts, edges = np.histogram(gates[inside], bins=20, range=(0, 1))
    ax = plt.subplots(figsize=(6.0, 4.0), layout="constrained")[1] if ax is None else ax
    centers, width = (edges[1:] + edges[:-1]) / 2, 0.9 * (edges[1] - edges[0])
    ax.bar(centers, counts / len(gates), width, color="#56B4E9", label="between 0 and 1")
    closed, open_ = np.mean(gates == 0), np.mean(gates == 1)
    ax.bar(_ENDS, [closed, open_], 0.05, color=_BLUE, hatch="//", edgecolor="white", label="exactly 0 or exactly 1")
    test, chance = float(hard_concrete_test_mask(S)), float(expected_l0(S))
    ax.plot(_ENDS[:1], [1 - chance], "D", color="#000000", markersize=7, label=f"1 − P(M ≠ 0) = {1 - chance:.3f}")
    place = {0.0: _ENDS[0], 1.0: _ENDS[1]}.get(test, test)
    ax.axvline(place, color=_VERMILION, linestyle="--", label=f"value at test time: {test:.3f}")
    ax.set_xticks([_ENDS[0], 0.2, 0.4, 0.6, 0.8, _ENDS[1]], ["0", "0.2", "0.4", "0.6", "0.8", "1"])
    ax.set_xlabel("gate M")
    ax.set_ylabel("share of the samples")
    ax.set_title(f"score S = {float(S):.2f}".replace("-", "−") + f": sampled share of M ≠ 0 is {1 - closed:.3f}")
    ax.set_ylim(0, 1)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    return ax


def gate_curves(ax: Axes | None = None) -> Axes:
    """The gate used at test time and the expected L0 (P(M != 0)) as functions of the score, from -6 to 6."""
    S = torch.linspace(-6, 6, 241, dtype=torch.float64)
    ax = axes_or_new(ax)
    ax.plot(S, hard_concrete_test_mask(S), "-", color=_BLUE, label="mask at test time")
    ax.plot(S, expected_l0(S), "--", color=_VERMILION, label="P(M ≠ 0), the expected L0")
    ax.set_xlabel("score S")
    ax.set_ylabel("mask, probability")
    ax.legend(loc="upper left")
    return ax


def density_against_lambda(runs: pd.DataFrame, ax: Axes | None = None, lam: float | None = None) -> Axes:
    """Fraction kept against the weight lambda of the penalty, both axes logarithmic: a line for each (source, task).

    Args:
        runs: columns source, task, lam, kept (a fraction). Runs with lam = 0 are left out: the axis is logarithmic.
        lam: a lambda at which each line that reaches it is marked with its density, interpolated in the logarithms.

    Raises:
        ValueError: a missing column, no run, a negative lambda, or a fraction outside (0, 1].
    """
    require_columns("runs", runs, "source", "task", "lam", "kept")
    for name, wrong in (("lam", ~(runs["lam"] >= 0)), ("kept", ~((runs["kept"] > 0) & (runs["kept"] <= 1)))):
        if wrong.any():
            expected = "0 or more" if name == "lam" else "a fraction in (0, 1]"
            raise ValueError(f"runs has {name}={runs.loc[wrong, name].iloc[0]!r}: {expected}")
    rows = runs[runs["lam"] > 0]
    if rows.empty:
        raise ValueError("runs holds no run with lam > 0")
    ax = plt.subplots(figsize=(6.0, 4.0), layout="constrained")[1] if ax is None else ax
    for index, ((source, task), line) in enumerate(rows.groupby(["source", "task"], sort=False)):
        look = curve_style(index)
        line = line.sort_values("lam")
        x, y = line["lam"].to_numpy(dtype=float), 100 * line["kept"].to_numpy(dtype=float)
        label = f"{source}: {task}"
        if lam is not None and x[0] * (1 - 1e-9) <= lam <= x[-1] * (1 + 1e-9):
            there = float(np.exp(np.interp(np.log(lam), np.log(x), np.log(y))))
            ax.plot([lam], [there], "o", color=look["color"], markersize=13, markerfacecolor="none", markeredgewidth=2)
            label += f" ({there:.3g} %)"
        ax.plot(x, y, label=label, **look)
    if lam is not None:
        ax.axvline(lam, color="#000000", linestyle=":", linewidth=1)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xlabel("weight of the penalty λ")
    ax.set_ylabel("weights kept (%)")
    ax.legend(loc="lower left", frameon=True, edgecolor="none")
    return ax
