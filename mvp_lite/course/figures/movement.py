"""Figures of moving weights: where SGD pushes them, their paths over a loss, their distance from pretraining."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mvp_lite.course.arguments import finite_array, require_known, same_shape
from mvp_lite.course.figures.style import GRAY, METHOD_STYLE, OKABE_ITO, axes_or_new, curve_style

__all__ = ["quadrants", "survivors", "trajectories", "weights_leave", "weights_moved"]

_BLUE, _VERMILION = OKABE_ITO[:2]
_PALE = "#cccccc"  # of pruned weights; lighter than the color of any method, also in print


def quadrants(W: Any, G: Any, ax: Axes | None = None, kept: Any | None = None) -> Axes:
    """Each weight as a point: x is its value W, y is -G, the direction in which plain SGD pushes it.

    The score of a weight pushed away from zero (upper right, lower left) rises; pushed towards zero, it falls.

    Args:
        W, G: weights and gradients, of one shape.
        kept: mask of that shape; pruned weights (false, zero) are drawn as crosses.

    Raises:
        ValueError: shapes that differ, values that are not finite.
    """
    x = finite_array("W", W)
    y = -same_shape("G", G, x)
    chosen = np.ones(x.shape, dtype=bool) if kept is None else same_shape("kept", kept, x) != 0
    ax = plt.subplots(figsize=(6.0, 4.2), layout="constrained")[1] if ax is None else ax
    largest_x, largest_y = (float(np.abs(values).max()) or 1.0 for values in (x, y))
    reach_x, reach_y = 1.15 * largest_x, 1.45 * largest_y  # above and below the points, room for the words
    for sign_x, sign_y in ((1, 1), (-1, 1), (-1, -1), (1, -1)):
        rises = sign_x == sign_y
        color, words = (_BLUE, "away from zero:\nscore rises") if rises else (_VERMILION, "towards zero:\nscore falls")
        tint = 0.13 if rises else 0.03  # different in print too
        ax.fill_between([0, sign_x * reach_x], 0, sign_y * reach_y, color=color, alpha=tint, linewidth=0, zorder=0)
        place: dict[str, Any] = {"ha": "right" if sign_x > 0 else "left", "va": "top" if sign_y > 0 else "bottom"}
        spot = (0.985 if sign_x > 0 else 0.015, 0.98 if sign_y > 0 else 0.02)
        ax.text(*spot, words, transform=ax.transAxes, fontsize=9.5, **place)
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


def trajectories(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    paths: Mapping[str, Any],
    ax: Axes | None = None,
    limits: tuple[float, float, float, float] = (-1, 1, -1, 1),
) -> Axes:
    """Paths of two weights over the contour lines of their loss; an open marker starts a path, a full one ends it.

    A weight that becomes exactly zero was pruned: that step is a thin dotted line, since no training made it.

    Args:
        loss: takes w1 and w2, two tensors of one shape, and returns the losses in that shape.
        paths: label -> (steps, 2), the weights after each step; a method's name gets its color, line and marker.
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
        height = same_shape("loss", loss(w1, w2), w1.numpy())
    ax = plt.subplots(figsize=(6.0, 4.2), layout="constrained")[1] if ax is None else ax
    lines = ax.contour(w1, w2, height, levels=12, cmap="cividis", linewidths=0.9, alpha=0.75)
    ax.clabel(lines, list(lines.levels)[::2], fontsize=8, fmt="%.3g")
    for index, (label, path) in enumerate(paths.items()):
        points = finite_array(f"paths[{label!r}]", path, 2)
        if points.shape[1] != 2:
            raise ValueError(f"paths[{label!r}] has shape {points.shape}, expected (steps, 2)")
        known = METHOD_STYLE.get(label)
        wide = {"linewidth": 1.8 * (len(paths) - index)}  # so that a path on top of others hides none
        look = (known.curve if known else curve_style(index)) | {"markersize": 8} | wide
        pruned = ((points[1:] == 0) & (points[:-1] != 0)).any(axis=1)
        trained = np.insert(points.astype(float), np.flatnonzero(pruned) + 1, np.nan, axis=0)
        ax.plot(*trained.T, markevery=[-1], label=label, zorder=3, **look)
        for t in np.flatnonzero(pruned):
            ax.plot(*points[t : t + 2].T, color=look["color"], linestyle=":", linewidth=1, zorder=3)
        ax.plot(*points[:1].T, markerfacecolor="white", zorder=4, **look)
    ax.set_xlim(low1, high1)
    ax.set_ylim(low2, high2)
    ax.set_xlabel("weight $w_1$")
    ax.set_ylabel("weight $w_2$")
    if paths:
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15), "ncols": len(paths)}
        ax.legend(**place, title="open marker: start, full: end", title_fontsize=9)
    return ax


def weights_moved(
    before: torch.Tensor,
    after: torch.Tensor,
    kept: torch.Tensor,
    ax: Axes | None = None,
    method: str = "movement",
) -> Axes:
    """How far each weight of one matrix has moved, against its pretrained value; kept and pruned ones differ in look.

    Weights that moved away from zero (or, from near it, across) are in the upper right and lower left.

    Args:
        before, after: the matrix before and after (dense: `Result.masters`), of one shape.
        kept: mask of that shape, true (non-zero) where the weight is kept.
        method: its color and marker show the kept weights.

    Raises:
        ValueError: shapes that differ, an unknown method.
    """
    if not before.shape == after.shape == kept.shape:
        shapes = f"{tuple(before.shape)}, {tuple(after.shape)}, {tuple(kept.shape)}"
        raise ValueError(f"before, after and kept have the shapes {shapes}, expected one shape")
    require_known("method", [method], METHOD_STYLE)
    x, y = (tensor.detach().float().cpu().numpy().ravel() for tensor in (before, after))
    y = y - x
    chosen = kept.detach().ne(0).cpu().numpy().ravel()
    look = METHOD_STYLE[method]
    ax = axes_or_new(ax)
    for which, label, marker, color, size in (
        (~chosen, "pruned", ".", _PALE, 1.5),
        (chosen, "kept", look.marker, look.color, 3.5),
    ):
        edge: dict[str, Any] = {"markeredgecolor": "#000000", "markeredgewidth": 0.3} if label == "kept" else {}
        ax.plot(x[which], y[which], marker, color=color, markersize=size, label=label, **edge)
    ax.axline((0, 0), slope=0, color="#000000", linestyle=":", linewidth=1, label="not moved")
    ax.axvline(0, color="#000000", linewidth=0.5)
    ax.set_xlabel("pretrained weight")
    ax.set_ylabel("fine-tuned minus pretrained")
    ax.set_title(look.label)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, markerscale=2.5)
    return ax


def survivors(pretrained: torch.Tensor, runs: Mapping[str, Any], layer: str) -> NDArray[Any]:
    """`weights_moved` of one matrix side by side for all runs (method -> `Result`) that removed something.

    Args:
        pretrained: the matrix before the runs.
        layer: its name, as in `Result.masters`.

    Raises:
        ValueError: no run with a density below 1; see `weights_moved`.
    """
    pruned = {method: run for method, run in runs.items() if run.density < 1}
    if not pruned:
        raise ValueError(f"runs={list(runs)}: none of them removed a weight")
    size = (3.7 * len(pruned), 3.6)
    _, grid = plt.subplots(1, len(pruned), figsize=size, sharex=True, squeeze=False, layout="constrained")
    axes: NDArray[Any] = grid[0]
    for ax, (method, run) in zip(axes, pruned.items(), strict=True):
        weights_moved(pretrained, run.masters[layer], run.model.get_parameter(f"{layer}.weight") != 0, ax, method)
    return axes


def weights_leave(frames: Sequence[Mapping[str, Any]], frame: int, method: str = "movement") -> NDArray[Any]:
    """One moment of a run that prunes: `weights_moved` so far, and beside it the score up to this moment.

    Args:
        frames: in order of time, each with "step", "density", "score" (percent), and of one matrix its "weights" and
            whether they are "kept".
        frame: which one, from 0; the first is the start.
        method: its color and marker show the kept weights.

    Raises:
        ValueError: no such frame; see `weights_moved`.
    """
    if not 0 <= frame < len(frames):
        raise ValueError(f"frame={frame!r}: must be one of the {len(frames)} frames, from 0")
    now, start = frames[frame], frames[0]["weights"]
    axes: NDArray[Any]
    _, axes = plt.subplots(1, 2, figsize=(8.4, 3.6), layout="constrained")
    weights_moved(start, now["weights"], now["kept"], axes[0], method)
    reach = 1.05 * (max(float((then["weights"] - start).abs().max()) for then in frames) or 1.0)
    axes[0].set_ylim(-reach, reach)
    axes[0].set_title(f"step {now['step']}: {100 * now['density']:.0f} % kept")
    steps, score = (finite_array(name, [then[name] for then in frames], 1) for name in ("step", "score"))
    axes[1].plot(steps, score, color=GRAY, linewidth=0.8)
    axes[1].plot(steps[: frame + 1], score[: frame + 1], color=METHOD_STYLE[method].color, linewidth=2)
    axes[1].plot(steps[frame], score[frame], "o", color=METHOD_STYLE[method].color)
    axes[1].set_ylim(0, 102)
    axes[1].set_xlabel("optimizer step")
    axes[1].set_ylabel("score (%)")
    axes[1].set_title(f"score: {now['score']:.0f} %")
    return axes
