"""Figures of small matrices: weights, gradients, scores and masks as heat maps with their numbers.

W: weights, G: gradient of the loss with respect to W * M, S: scores, M: mask, all of one shape. Tensors, arrays and
nested lists are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from mvp_lite.course.arguments import finite_array, same_shape
from mvp_lite.masks import top_v

__all__ = ["layer_history", "matrix", "scores_and_mask"]

_FAINT, _PALE = "#8C8C8C", "#E8E8E8"
#: Numbers that would have to be smaller (in points) are left out, and a color bar takes their place.
_SMALLEST_TEXT = 6.0


def matrix(
    values: Any, ax: Axes | None = None, title: str = "", mask: Any | None = None, digits: int = 2, first: int = 0
) -> Axes:
    """A small matrix as a heat map with its numbers in the cells; blue above zero, red below, white at zero.

    Args:
        values: the matrix, (rows, columns). A large one has a color bar in place of its numbers.
        mask: of the same shape; entries where it is false (zero) are gray and crossed out.
        digits: decimals shown; a matrix of integers has none.
        first: number of the first row and column in the labels, 0 as in code or 1 as in formulas.

    Raises:
        ValueError: values that are no finite matrix, a mask of another shape, or `first` neither 0 nor 1.
    """
    table = finite_array("values", values, 2)
    if first not in (0, 1):
        raise ValueError(f"first={first!r}: must be 0 or 1")
    kept = np.ones(table.shape, dtype=bool) if mask is None else same_shape("mask", mask, table) != 0
    rows, columns = table.shape
    if ax is None:
        cell = min(0.7, 6.0 / max(table.shape))
        size = (max(2.2, 0.8 + cell * columns), max(1.6, 0.9 + cell * rows))
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    _heat(ax, table, table, digits, faint=~kept)
    if first:
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda place, _: f"{place + 1:g}"))
    ax.set_title(title)
    return ax


def scores_and_mask(scores: Any, density: float, axes: Sequence[Axes] | None = None) -> NDArray[Any]:
    """Left the scores (heat map), right their Top_v mask at this density; returns both Axes.

    Raises:
        ValueError: scores that are no finite matrix, a density outside (0, 1], or not two axes.
    """
    table = finite_array("scores", scores, 2)
    kept = top_v(torch.from_numpy(table), density).numpy()
    left, right = pair = _axes_for_matrices(axes, 2, table.shape)
    _heat(left, table, table, 2)
    left.set_title("scores S")
    _mask(right, kept)
    return pair


def layer_history(history: Mapping[str, Any], step: int, axes: Sequence[Axes] | None = None) -> NDArray[Any]:
    """Weights W, gradients G, scores S and mask M of one small layer at one step; returns the four Axes.

    One color scale for the whole history, so that steps can be compared.

    Args:
        history: "W", "G", "S" and "M", each (steps, rows, columns).
        step: its number, from 0.

    Raises:
        ValueError: a missing name, shapes that differ, values that are not finite, a step outside the history.
    """
    if missing := [name for name in "WGSM" if name not in history]:
        raise ValueError(f"history lacks {missing[0]!r} (found: {', '.join(map(str, history))})")
    weights = finite_array("history['W']", history["W"], 3)
    frames = {name: same_shape(f"history[{name!r}]", history[name], weights) for name in "WGSM"}
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < len(weights):
        raise ValueError(f"step={step!r}: an integer from 0 to {len(weights) - 1}")
    panels = _axes_for_matrices(axes, 4, weights.shape[1:])
    for ax, (name, frame) in zip(panels, frames.items(), strict=True):
        if name == "M":
            _mask(ax, frame[step] != 0)
        else:
            _heat(ax, frame[step], frame, 2)
            ax.set_title({"W": "weights W", "G": "gradients G", "S": "scores S"}[name])
    panels[0].figure.suptitle(f"step {step} of {len(weights) - 1}", fontsize=11)
    return panels


def _axes_for_matrices(axes: Sequence[Axes] | None, count: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """The axes given, or `count` new ones side by side for matrices of this shape."""
    if axes is not None:
        given: NDArray[Any] = np.asarray(axes, dtype=object).ravel()
        if len(given) != count:
            raise ValueError(f"axes holds {len(given)} axes, expected {count}")
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
    """Heat map of `values` with its numbers; colors (RdBu, centered on 0) and type size fit `scale`."""
    largest = float(np.abs(scale).max()) or 1.0
    digits = 0 if (scale == scale.round()).all() else digits
    faint = np.zeros(values.shape, dtype=bool) if faint is None else faint
    colors = plt.get_cmap("RdBu").with_extremes(bad=_PALE)
    shown = np.where(faint, np.nan, values)
    picture = ax.imshow(shown, cmap=colors, norm=Normalize(-largest, largest), interpolation="nearest")
    _index_ticks(ax)
    for row, column in np.argwhere(faint):
        ends = np.array([-0.45, 0.45])
        ax.plot(column + ends, row - ends, "-", color=_FAINT, linewidth=1.2)
        ax.plot(column + ends, row + ends, "-", color=_FAINT, linewidth=1.2)
    size = _text_size(ax, values.shape, len(f"{-largest:.{digits}f}"))
    if size < _SMALLEST_TEXT:
        bar = ax.figure.colorbar(picture, ax=ax, shrink=0.8)
        if scale.min() >= 0:
            bar.ax.set_ylim(0, largest)  # no colors for values that cannot occur
        return
    for place, value in np.ndenumerate(values):
        text = f"{value.round(digits) + 0.0:.{digits}f}".replace("-", "−")
        box = {"facecolor": _PALE, "edgecolor": "none", "pad": 1.0} if faint[place] else None
        color = "#606060" if faint[place] else "white" if abs(value) > 0.62 * largest else "black"
        ax.text(place[1], place[0], text, ha="center", va="center", fontsize=size, color=color, bbox=box)


def _mask(ax: Axes, kept: NDArray[np.bool_]) -> None:
    """A mask in dark (kept, 1) and pale (pruned, 0), with the count as its title."""
    ax.imshow(kept, cmap=ListedColormap([_PALE, "#00457A"]), vmin=0, vmax=1, interpolation="nearest")
    _index_ticks(ax)
    ax.set_title(f"mask M: {np.count_nonzero(kept)} of {kept.size} kept")
    size = _text_size(ax, kept.shape, 5)  # as in the heat maps of the same figure
    for (row, column), bit in np.ndenumerate(kept):
        if size >= _SMALLEST_TEXT:
            color = "white" if bit else "#606060"
            ax.text(column, row, str(int(bit)), ha="center", va="center", fontsize=size, color=color)


def _text_size(ax: Axes, shape: tuple[int, ...], characters: int) -> float:
    """Font size in points at which this many characters fit a cell, 11 at most."""
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
