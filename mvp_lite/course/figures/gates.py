"""Figures of soft selection: scores and their threshold, penalties, hard-concrete gates, density against lambda."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from mvp_lite.course.arguments import finite_array, require_columns
from mvp_lite.course.figures.style import OKABE_ITO, axes_or_new, curve_style, shared_legend
from mvp_lite.masks import expected_l0, hard_concrete, hard_concrete_test_mask

__all__ = ["density_against_lambda", "gate_curves", "hard_concrete_gate", "penalty_pulls", "scores_and_threshold"]

_BLUE, _VERMILION = OKABE_ITO[:2]
_PULLS = ("-", "--", "-.", ":")
#: Positions of the bars of gates that are exactly 0 and exactly 1, just outside the others.
_ENDS = (-0.05, 1.05)
#: Scores that histograms of them show; those outside are counted in the first and the last bar.
_REACH = (-8.0, 6.0)


def scores_and_threshold(frames: Sequence[Mapping[str, Any]]) -> NDArray[Any]:
    r"""Moments of a run of soft movement: histograms of all scores, kept and pruned, with the threshold; the Axes.

    A score is kept if $\sigma(S)>\tau$. Scores below -8 or above 6 are counted in the outermost bars.

    Args:
        frames: each with "step", "tau" (in [0, 1)) and "scores" (any shape), drawn side by side.

    Raises:
        ValueError: no frame, a threshold outside [0, 1), scores that are not finite.
    """
    if not frames:
        raise ValueError("frames is empty: there is no moment to draw")
    width = 6.0 if len(frames) == 1 else 2.5 * len(frames)
    _, grid = plt.subplots(1, len(frames), figsize=(width, 3.2), sharex=True, sharey=True, squeeze=False)
    axes: NDArray[Any] = grid[0]
    bins = np.linspace(*_REACH, 57)
    for ax, frame in zip(axes, frames, strict=True):
        scores, tau = finite_array("scores", frame["scores"]).ravel(), float(frame["tau"])
        if not 0.0 <= tau < 1.0:
            raise ValueError(f"tau={tau!r}: a threshold of σ(S) is in [0, 1)")
        place = math.log(tau / (1.0 - tau)) if tau > 0.0 else -math.inf
        kept, shown = scores > place, scores.clip(*_REACH)
        ax.hist(
            [shown[~kept], shown[kept]], bins, stacked=True, color=["white", _BLUE], hatch=["/////", ""],
            edgecolor=[_VERMILION, _BLUE], linewidth=0.6, label=["pruned", "kept"],
        )  # fmt: skip
        if tau > 0.0:  # behind the bars, so that it hides none; it stands out above them
            line = {"color": "#000000", "linestyle": "--", "linewidth": 1.4, "zorder": 0.5}
            ax.axvline(max(place, _REACH[0]), label="threshold", **line)
        ax.set_title(f"step {frame['step']}: {kept.sum()} of {kept.size} kept")
        ax.set_xlabel("score S")
        ax.grid(visible=False)
    axes[0].set_ylabel("number of weights")
    axes[0].set_ylim(0, 1.15 * axes[0].get_ylim()[1])
    shared_legend(axes[::-1], "outside lower center", 3)
    return axes


def penalty_pulls(
    penalties: Mapping[str, Callable[[torch.Tensor], torch.Tensor]], threshold: float, ax: Axes | None = None
) -> Axes:
    """Derivative of penalties with respect to the score, from -6 to 6: what gradient descent takes from it.

    Args:
        penalties: label -> a function of the scores that autograd can differentiate, entry by entry.
        threshold: the score above which a weight is kept; drawn as a vertical line.

    Raises:
        ValueError: no penalty, or more than there are line styles.
    """
    if not 0 < len(penalties) <= len(_PULLS):
        raise ValueError(f"{len(penalties)} penalties: expected 1 to {len(_PULLS)}")
    ax = axes_or_new(ax)
    for (label, penalty), color, line in zip(penalties.items(), OKABE_ITO, _PULLS, strict=False):
        S = torch.linspace(-6, 6, 480, dtype=torch.float64, requires_grad=True)
        (pull,) = torch.autograd.grad(penalty(S).sum(), S)
        ax.plot(S.detach(), pull, color=color, linestyle=line, label=label)
    ax.axhline(0, color="#000000", linewidth=0.8)
    ax.axvline(threshold, color="#000000", linestyle=(0, (1, 3)), linewidth=1.2, label="threshold")
    ax.set_xlabel("score S")
    ax.set_ylabel("downward pull, dR/dS for λ = 1")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    return ax


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
