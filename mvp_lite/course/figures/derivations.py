"""Figures of the derivations: small matrices, masks, the plane of weight and push, schedules, gates, penalties.

W: weights, G: gradient of the loss with respect to W * M, S: scores, M: mask, all of one shape. Tensors, arrays and
nested lists are taken alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from mvp_lite.course.figures.style import LINES, OKABE_ITO, axes_or_new
from mvp_lite.masks import expected_l0, hard_concrete, hard_concrete_test_mask, top_v

__all__ = [
    "density_against_lambda",
    "gate_curves",
    "hard_concrete_gate",
    "layer_history",
    "matrix",
    "predicted_measured",
    "quadrants",
    "schedules",
    "scores_and_mask",
    "shares",
    "trajectories",
]

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_BLUE, _VERMILION, _GREY, _PALE = "#0072B2", "#D55E00", "#8C8C8C", "#E8E8E8"
#: Where the bars of gates that are exactly 0 and exactly 1 stand, just outside the others.
_ENDS = (-0.05, 1.05)
#: Numbers that would have to be smaller (in points) are left out, and a colour bar takes their place.
_SMALLEST_TEXT = 6.0


def matrix(values: Any, ax: Axes | None = None, title: str = "", mask: Any | None = None, digits: int = 2) -> Axes:
    """A small matrix as a heat map with its numbers in the cells; blue above zero, red below, white at zero.

    Args:
        values: the matrix, (rows, columns). A large one has a colour bar in place of its numbers.
        mask: of the same shape; entries where it is false (zero) are greyed and crossed out.
        digits: decimals shown; a matrix of whole numbers has none.

    Raises:
        ValueError: values that are no finite matrix, or a mask of another shape.
    """
    table = _array("values", values, 2)
    kept = np.ones(table.shape, dtype=bool) if mask is None else _same_shape("mask", mask, table) != 0
    rows, columns = table.shape
    if ax is None:
        cell = min(0.7, 6.0 / max(table.shape))
        size = (max(2.2, 0.8 + cell * columns), max(1.6, 0.9 + cell * rows))
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    _heat(ax, table, table, digits, faint=~kept)
    ax.set_title(title)
    return ax


def scores_and_mask(scores: Any, density: float, axes: Sequence[Axes] | None = None) -> NDArray[Any]:
    """Left the scores (heat map), right the mask that Top_v makes of them at this density; returns both Axes.

    Raises:
        ValueError: scores that are no finite matrix, a density outside (0, 1], or not two axes.
    """
    table = _array("scores", scores, 2)
    kept = top_v(torch.from_numpy(table), density).numpy()
    left, right = pair = _panels(axes, 2, table.shape)
    _heat(left, table, table, 2)
    left.set_title("scores S")
    _mask(right, kept)
    return pair


def quadrants(
    W: Any, G: Any, ax: Axes | None = None, kept: Any | None = None, limits: tuple[float, float] | None = None
) -> Axes:
    """Each weight as a point: across its value W, upwards -G, the way plain SGD pushes it.

    Pushed away from zero (upper right, lower left), a score rises; pushed towards zero, it falls.

    Args:
        W, G: weights and gradients, of one shape.
        kept: mask of that shape; pruned weights (false, zero) are drawn as crosses.
        limits: largest |W| and |G| that the axes make room for (default: those of the points).

    Raises:
        ValueError: shapes that differ, values that are not finite.
    """
    x = _array("W", W)
    y = -_same_shape("G", G, x)
    chosen = np.ones(x.shape, dtype=bool) if kept is None else _same_shape("kept", kept, x) != 0
    ax = plt.subplots(figsize=(6.0, 4.2), layout="constrained")[1] if ax is None else ax
    largest = (_largest(x), _largest(y)) if limits is None else limits
    reach_x, reach_y = 1.15 * largest[0], 1.45 * largest[1]  # above and below the points, room for the words
    for sign_x, sign_y in ((1, 1), (-1, 1), (-1, -1), (1, -1)):
        rises = sign_x == sign_y
        colour, words = (_BLUE, "away from zero:\nscore rises") if rises else (_VERMILION, "towards zero:\nscore falls")
        ax.fill_between([0, sign_x * reach_x], 0, sign_y * reach_y, color=colour, alpha=0.07, linewidth=0, zorder=0)
        place: dict[str, Any] = {"ha": "right" if sign_x > 0 else "left", "va": "top" if sign_y > 0 else "bottom"}
        spot = (0.985 if sign_x > 0 else 0.015, 0.98 if sign_y > 0 else 0.02)
        ax.text(*spot, words, transform=ax.transAxes, color=colour, fontsize=9.5, **place)
    ax.axhline(0, color="#000000", linewidth=0.8)
    ax.axvline(0, color="#000000", linewidth=0.8)
    ax.plot(x[chosen], y[chosen], "o", color=_BLUE, markersize=7, label="kept" if kept is not None else "weight")
    if kept is not None:
        ax.plot(x[~chosen], y[~chosen], "x", color=_VERMILION, markersize=7, markeredgewidth=1.8, label="pruned")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    ax.set_xlim(-reach_x, reach_x)
    ax.set_ylim(-reach_y, reach_y)
    ax.set_xlabel("weight W")
    ax.set_ylabel("−G, the way SGD pushes")
    return ax


def layer_history(history: Mapping[str, Any], step: int, axes: Sequence[Axes] | None = None) -> NDArray[Any]:
    """Weights W, gradients G, scores S and mask M of one small layer at one step; returns the four Axes.

    Colour scales hold for the whole history, so that steps compare.

    Args:
        history: "W", "G", "S" and "M", each (steps, rows, columns).
        step: which step, counted from 0.

    Raises:
        ValueError: a missing name, shapes that differ, values that are not finite, a step that is not there.
    """
    if missing := [name for name in "WGSM" if name not in history]:
        raise ValueError(f"history lacks {missing[0]!r} (found: {', '.join(map(str, history))})")
    weights = _array("history['W']", history["W"], 3)
    films = {name: _same_shape(f"history[{name!r}]", history[name], weights) for name in "WGSM"}
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < len(weights):
        raise ValueError(f"step={step!r}: a whole number from 0 to {len(weights) - 1}")
    panels = _panels(axes, 4, weights.shape[1:])
    for ax, (name, film) in zip(panels, films.items(), strict=True):
        if name == "M":
            _mask(ax, film[step] != 0)
        else:
            _heat(ax, film[step], film, 2)
            ax.set_title({"W": "weights W", "G": "gradients G", "S": "scores S"}[name])
    panels[0].figure.suptitle(f"step {step} of {len(weights) - 1}", fontsize=11)
    return panels


def trajectories(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    paths: Mapping[str, Any],
    ax: Axes | None = None,
    limits: tuple[float, float, float, float] = (-1, 1, -1, 1),
) -> Axes:
    """Paths of two weights over the contour lines of their loss; an open marker starts a path, a full one ends it.

    Args:
        loss: takes w1 and w2, two tensors of one shape, and returns the losses in that shape.
        paths: label -> (steps, 2), the weights after each step.
        limits: lowest and highest w1, lowest and highest w2.

    Raises:
        ValueError: limits out of order, a path that is not (steps, 2), a loss of another shape.
    """
    low1, high1, low2, high2 = limits
    if not (low1 < high1 and low2 < high2):
        raise ValueError(f"limits={limits!r}: lowest and highest w1, then lowest and highest w2")
    axis1, axis2 = (torch.linspace(low, high, 121, dtype=torch.float64) for low, high in ((low1, high1), (low2, high2)))
    w1, w2 = torch.meshgrid(axis1, axis2, indexing="xy")
    with torch.no_grad():
        height = _same_shape("loss", loss(w1, w2), w1.numpy())
    ax = plt.subplots(figsize=(6.0, 4.2), layout="constrained")[1] if ax is None else ax
    lines = ax.contour(w1, w2, height, levels=12, cmap="cividis", linewidths=0.9, alpha=0.75)
    ax.clabel(lines, list(lines.levels)[::2], fontsize=8, fmt="%.3g")
    for place, (label, path) in enumerate(paths.items()):
        points = _array(f"paths[{label!r}]", path, 2)
        if points.shape[1] != 2:
            raise ValueError(f"paths[{label!r}] has shape {points.shape}: (steps, 2) is wanted")
        look = _look(place) | {"markersize": 8}
        ax.plot(*points.T, markevery=[-1], label=label, zorder=3, **look)
        ax.plot(*points[:1].T, markerfacecolor="white", zorder=4, **look)
    ax.set_xlim(low1, high1)
    ax.set_ylim(low2, high2)
    ax.set_xlabel("weight $w_1$")
    ax.set_ylabel("weight $w_2$")
    if paths:
        ax.legend(loc="best", frameon=True, title="open: start, full: end", title_fontsize=9)
    return ax


def schedules(curves: Mapping[str, Any], ax: Axes | None = None, ylabel: str = "fraction kept") -> Axes:
    """Curves over optimizer steps, told apart by line and colour.

    Args:
        curves: label -> (steps, values), two sequences of one length.

    Raises:
        ValueError: no curve, or steps and values of different lengths.
    """
    if not curves:
        raise ValueError("curves is empty: label -> (steps, values)")
    ax = axes_or_new(ax)
    lowest = 0.0
    for place, (label, (steps, values)) in enumerate(curves.items()):
        x = _array(f"steps of {label!r}", steps, 1)
        y = _same_shape(f"values of {label!r}", values, x)
        ax.plot(x, y, label=label, **_look(place) | {"marker": ""})
        lowest = min(lowest, float(y.min()))
    ax.set_ylim(bottom=1.05 * lowest)
    ax.set_xlabel("optimizer step t")
    ax.set_ylabel(ylabel)
    ax.legend(loc="best")
    return ax


def hard_concrete_gate(score: float, uniform: Any, ax: Axes | None = None) -> Axes:
    """Sampled hard-concrete gates of one score: how many are exactly 0, exactly 1, and where the others lie.

    Marked are the value used at test time, and how high the bar at 0 should be: 1 - P(M != 0).

    Args:
        score: S, one number.
        uniform: noise in (0, 1), one number for each gate.

    Raises:
        ValueError: noise outside (0, 1), or a score that is not finite.
    """
    noise = _array("uniform", uniform, 1)
    if not ((noise > 0) & (noise < 1)).all():
        raise ValueError(f"uniform reaches from {noise.min():g} to {noise.max():g}: noise lies between 0 and 1")
    S = torch.tensor(float(_array("score", score, 0)), dtype=torch.float64)
    gates = hard_concrete(S, torch.from_numpy(noise)).numpy()
    inside = (gates > 0) & (gates < 1)
    counts, edges = np.histogram(gates[inside], bins=20, range=(0, 1))
    ax = plt.subplots(figsize=(6.0, 4.0), layout="constrained")[1] if ax is None else ax
    centres, width = (edges[1:] + edges[:-1]) / 2, 0.9 * (edges[1] - edges[0])
    ax.bar(centres, counts / len(gates), width, color="#56B4E9", label="between 0 and 1")
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
    """Fraction kept against the penalty's weight lambda, on logarithmic axes: one line for each (source, task).

    Args:
        runs: columns source, task, lam, kept (a fraction). Runs at lam = 0 have no place on the axis and are left out.
        lam: a lambda to mark: the density there on each line that reaches it, interpolated between the logarithms.

    Raises:
        ValueError: a missing column, no run, a negative lambda, or a fraction outside (0, 1].
    """
    if missing := [name for name in ("source", "task", "lam", "kept") if name not in runs.columns]:
        raise ValueError(f"runs lacks the column {missing[0]!r} (found: {', '.join(map(str, runs.columns))})")
    for name, wrong in (("lam", ~(runs["lam"] >= 0)), ("kept", ~((runs["kept"] > 0) & (runs["kept"] <= 1)))):
        if wrong.any():
            wanted = "0 or more" if name == "lam" else "a fraction in (0, 1]"
            raise ValueError(f"runs has {name}={runs.loc[wrong, name].iloc[0]!r}: {wanted}")
    rows = runs[runs["lam"] > 0]
    if rows.empty:
        raise ValueError("runs holds no run with lam > 0")
    ax = plt.subplots(figsize=(6.0, 4.0), layout="constrained")[1] if ax is None else ax
    for place, ((source, task), line) in enumerate(rows.groupby(["source", "task"], sort=False)):
        look = _look(place)
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


def predicted_measured(
    predicted: Any, measured: Any, ax: Axes | None = None, labels: tuple[str, str] = ("predicted", "measured")
) -> Axes:
    """Measured values against predicted ones, point by point; on the dotted line they agree.

    Raises:
        ValueError: shapes that differ, values that are not finite.
    """
    x = _array("predicted", predicted)
    y = _same_shape("measured", measured, x)
    ax = plt.subplots(figsize=(5.0, 4.2), layout="constrained")[1] if ax is None else ax
    ax.axline((0, 0), slope=1, color="#000000", linestyle=":", linewidth=1.2, label="equal")
    ax.plot(x.ravel(), y.ravel(), "o", color=_BLUE, alpha=0.6, label="one point per entry")
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    ax.legend(loc="best")
    return ax


def shares(table: pd.Series[Any], ax: Axes | None = None) -> Axes:
    """Shares, each from 0 to 1, as horizontal bars in the order given, with their per cents; the index names them.

    The series' name says what they are shares of.

    Raises:
        ValueError: no share, or one outside [0, 1].
    """
    values = _array("table", table.to_numpy(), 1)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"table reaches from {values.min():g} to {values.max():g}: shares lie in [0, 1]")
    if ax is None:
        ax = plt.subplots(figsize=(6.0, 0.9 + 0.4 * len(values)), layout="constrained")[1]
    ax.barh(range(len(values)), values, color=_BLUE, alpha=0.6, height=0.6)
    for place, value in enumerate(values):
        ax.annotate(f"{100 * value:.1f} %", (value, place), (4, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(values)), [str(name) for name in table.index])
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set_xlim(0, 1.12)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    ax.set_xlabel(f"{table.name or 'share'} (%)")
    return ax


def _array(name: str, values: Any, dimensions: int | None = None) -> NDArray[np.float64]:
    """Values as a finite float64 array; `name` stands in the error."""
    if isinstance(values, torch.Tensor):
        values = values.detach().to("cpu", torch.float64).numpy()
    found = np.array(values, dtype=np.float64)
    if dimensions is not None and found.ndim != dimensions:
        kind = ("a number", "a sequence", "a matrix", "(steps, rows, columns)")[dimensions]
        raise ValueError(f"{name} has shape {found.shape}: {kind} is wanted")
    if found.size == 0 or not np.isfinite(found).all():
        raise ValueError(f"{name} of shape {found.shape} is empty or holds values that are not finite")
    return found


def _same_shape(name: str, values: Any, like: NDArray[Any]) -> NDArray[np.float64]:
    found = _array(name, values)
    if found.shape != like.shape:
        raise ValueError(f"{name} has shape {found.shape}: {like.shape} is wanted, as its partner has")
    return found


def _largest(values: NDArray[np.float64]) -> float:
    """Largest absolute value, for a colour scale centred on zero; 1 where all are zero."""
    return float(np.abs(values).max()) or 1.0


def _look(place: int) -> dict[str, Any]:
    """Colour, line and marker of the n-th curve."""
    return {
        "color": OKABE_ITO[place % len(OKABE_ITO)],
        "linestyle": LINES[place % len(LINES)],
        "marker": _MARKERS[place % len(_MARKERS)],
    }


def _panels(axes: Sequence[Axes] | None, count: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """The axes given, or `count` new ones side by side for matrices of this shape."""
    if axes is not None:
        given: NDArray[Any] = np.asarray(axes, dtype=object).ravel()
        if len(given) != count:
            raise ValueError(f"axes holds {len(given)} axes: {count} are wanted")
        return given
    rows, columns = shape
    across = 2 if count == 4 and 4 < columns <= 6 else count  # two by two where that leaves room for the numbers
    cell = min(0.62, (3.6 if across == 2 else 2.5) / columns, 5.2 * across / count / rows)
    size = (across * max(2.2, 0.5 + cell * columns), 0.7 + count // across * max(1.2, 0.4 + cell * rows))
    grid = plt.subplots(count // across, across, figsize=size, squeeze=False, layout="constrained")[1]
    return np.asarray(grid.ravel(), dtype=object)


def _heat(
    ax: Axes,
    values: NDArray[np.float64],
    scale: NDArray[np.float64],
    digits: int,
    faint: NDArray[np.bool_] | None = None,
) -> None:
    """Heat map of `values` with its numbers; colours (RdBu, centred on 0) and type size are those that fit `scale`."""
    largest = _largest(scale)
    digits = 0 if (scale == scale.round()).all() else digits
    faint = np.zeros(values.shape, dtype=bool) if faint is None else faint
    colours = plt.get_cmap("RdBu").with_extremes(bad=_PALE)
    shown = np.where(faint, np.nan, values)
    picture = ax.imshow(shown, cmap=colours, norm=Normalize(-largest, largest), interpolation="nearest")
    _index_ticks(ax)
    for row, column in np.argwhere(faint):
        ends = np.array([-0.45, 0.45])
        ax.plot(column + ends, row - ends, "-", color=_GREY, linewidth=1.2)
        ax.plot(column + ends, row + ends, "-", color=_GREY, linewidth=1.2)
    size = _text_size(ax, values.shape, len(f"{-largest:.{digits}f}"))
    if size < _SMALLEST_TEXT:
        ax.figure.colorbar(picture, ax=ax, shrink=0.8)
        return
    for place, value in np.ndenumerate(values):
        text = f"{value.round(digits) + 0.0:.{digits}f}".replace("-", "−")
        box = {"facecolor": _PALE, "edgecolor": "none", "pad": 1.0} if faint[place] else None
        colour = "#606060" if faint[place] else "white" if abs(value) > 0.62 * largest else "black"
        ax.text(place[1], place[0], text, ha="center", va="center", fontsize=size, color=colour, bbox=box)


def _mask(ax: Axes, kept: NDArray[np.bool_]) -> None:
    """A mask in dark (kept, 1) and pale (pruned, 0), with the count as its title."""
    ax.imshow(kept, cmap=ListedColormap([_PALE, "#00457A"]), vmin=0, vmax=1, interpolation="nearest")
    _index_ticks(ax)
    ax.set_title(f"mask M: {np.count_nonzero(kept)} of {kept.size} kept")
    size = _text_size(ax, kept.shape, 5)  # as beside it: numbers or none
    for (row, column), bit in np.ndenumerate(kept):
        if size >= _SMALLEST_TEXT:
            colour = "white" if bit else "#606060"
            ax.text(column, row, str(int(bit)), ha="center", va="center", fontsize=size, color=colour)


def _text_size(ax: Axes, shape: tuple[int, ...], characters: int) -> float:
    """Points in which this many characters fit a cell, 11 at most."""
    rows, columns = shape
    box = ax.get_window_extent()
    cell = min(box.width / columns, box.height / rows) * 72.0 / ax.figure.dpi
    return min(11.0, cell / (0.66 * characters))


def _index_ticks(ax: Axes) -> None:
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        axis.set_tick_params(length=0)
    ax.set_xlabel("column j")
    ax.set_ylabel("row i")
    ax.label_outer()
