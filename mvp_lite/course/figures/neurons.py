"""Figures of single neurons: which stand for which, their scores beside their norms, their activations by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mvp_lite.course.arguments import finite_array, same_shape
from mvp_lite.course.figures.style import OKABE_ITO, axes_or_new, shared_legend

__all__ = ["activations_by_token", "representatives", "scores_by_norm"]

_BLUE, _VERMILION = OKABE_ITO[:2]


def representatives(points: Any, coefficients: Mapping[str, Any], keep: int) -> NDArray[Any]:
    r"""Outgoing weights of neurons in the plane, and lines between those that represent each other in R2; the Axes.

    The score of a neuron, its entry on the diagonal of C, is written beside it. A line joins neurons i and j if the
    mean of $C_{ij}$ and $C_{ji}$ is at least 0.03; its width is proportional to that mean.

    Args:
        points: (N, 2), a row for each neuron.
        coefficients: title of a panel -> C, (N, N).
        keep: this many neurons, those with the highest scores, are drawn as kept.

    Raises:
        ValueError: no panel, shapes that do not fit, or `keep` outside 1 to N - 1.
    """
    rows = finite_array("points", points, 2)
    if rows.shape[1] != 2 or not 0 < keep < len(rows):
        raise ValueError(f"points {rows.shape}, keep={keep!r}: expected (N, 2), and an integer from 1 to N - 1")
    if not coefficients:
        raise ValueError("coefficients is empty: there is nothing to draw")
    count = len(coefficients)
    size = (5.8, 4.4) if count == 1 else (3.6 * count, 3.8)
    axes = plt.subplots(1, count, figsize=size, sharey=True, squeeze=False, layout="constrained")[1][0]
    for ax, (title, given) in zip(axes, coefficients.items(), strict=True):
        C = finite_array("coefficients", given, 2)
        if C.shape != (len(rows), len(rows)):
            raise ValueError(f"coefficients {C.shape}: expected {(len(rows), len(rows))}")
        _represent(ax, rows, C, keep)
        ax.set_title(title)
        ax.set_xlabel("outgoing weight 1")
    axes[0].set_ylabel("outgoing weight 2")
    shared_legend(axes, "outside lower center", 2)
    found: NDArray[Any] = axes
    return found


def _represent(ax: Axes, rows: NDArray[Any], C: NDArray[Any], keep: int) -> None:
    """One panel of `representatives`."""
    mean, scores = (C + C.T) / 2, C.diagonal()
    for i, j in np.argwhere(np.triu(mean, 1) >= 0.03):
        ax.plot(*rows[[i, j]].T, "-", color="#999999", linewidth=16 * mean[i, j], zorder=1, solid_capstyle="round")
    kept = np.isin(np.arange(len(rows)), np.argsort(-scores, kind="stable")[:keep])
    ax.plot(*rows[kept].T, "o", color=_BLUE, markersize=9, label="kept")
    ax.plot(*rows[~kept].T, "s", color=_VERMILION, markerfacecolor="white", markersize=8, label="pruned")
    middle = rows.mean(0)
    for (x, y), score in zip(rows, scores, strict=True):
        offset = (9, -3) if x >= middle[0] else (-9, -3)
        side = "left" if x >= middle[0] else "right"
        ax.annotate(f"{score:.2f}", (x, y), offset, textcoords="offset points", fontsize=8.5, ha=side)
    ax.margins(0.2)


def scores_by_norm(norms: Any, scores: Any, copies: Any, ax: Axes | None = None) -> Axes:
    """The score of each neuron against the norm of its outgoing weights; copies have another marker.

    Args:
        norms, scores: (N,).
        copies: (N,) boolean, True for neurons that are copies of one another.

    Raises:
        ValueError: shapes that differ.
    """
    x, y = finite_array("norms", norms, 1), finite_array("scores", scores, 1)
    same_shape("scores", y, x)
    copied = same_shape("copies", copies, x).astype(bool)
    ax = axes_or_new(ax)
    ax.plot(x[~copied], y[~copied], "o", color=_BLUE, markersize=4, alpha=0.6, label="the layer's own")
    ax.plot(x[copied], y[copied], "s", color=_VERMILION, markerfacecolor="none", markersize=5, label="copies of one")
    ax.set_xlabel("norm of the outgoing weights")
    ax.set_ylabel("score of a neuron")
    ax.legend(loc="best")
    return ax


def activations_by_token(activations: Any, real: Any, tokens: Sequence[str]) -> NDArray[Any]:
    """Activations of some neurons on the tokens of one sentence, with padding, and their means; returns both Axes.

    Left a heat map centered on 0, with padding behind a dashed line. Right the mean over the tokens that are not
    padding, and the mean over all.

    Args:
        activations: (tokens, neurons).
        real: (tokens,) boolean, False for padding, which comes last.
        tokens: their names.

    Raises:
        ValueError: shapes that do not fit, padding that does not come last, or no real token.
    """
    H = finite_array("activations", activations, 2)
    mask = np.asarray(real, dtype=bool)
    if mask.shape != H.shape[:1] or len(tokens) != len(H):
        raise ValueError(f"activations {H.shape}, real {mask.shape}, {len(tokens)} tokens: lengths differ")
    count = int(mask.sum())
    if not count or not mask[:count].all():
        raise ValueError("real: at least one token must be real, and padding comes last")
    _, (left, right) = plt.subplots(1, 2, figsize=(9.0, 4.2), width_ratios=(3, 1.4), layout="constrained", sharey=True)
    reach = float(np.abs(H).max()) or 1.0
    image = left.imshow(H.T, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest")
    left.figure.colorbar(image, ax=left, label="activation")
    if count < len(H):
        left.axvline(count - 0.5, color="#000000", linestyle="--")
    left.set_xticks(range(len(H)), tokens, rotation=60, ha="right", fontsize=9)
    left.set_yticks(range(0, H.shape[1], 5))
    left.set_ylabel("neuron")
    left.grid(visible=False)
    places = range(H.shape[1])
    right.plot(H[mask].mean(0), places, "o", color=_BLUE, markersize=5, label="real tokens")
    right.plot(H.mean(0), places, "x", color=_VERMILION, markersize=6, label="all, with padding")
    right.axvline(0, color="#000000", linewidth=0.8)
    right.set_xlabel("mean activation")
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    pair: NDArray[Any] = np.array([left, right], dtype=object)
    return pair
