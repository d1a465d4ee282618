"""Figures of which weights stay: every mask with its error, and a magnitude mask before and after fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mvp_lite.course.arguments import finite_array, same_shape
from mvp_lite.course.figures.style import OKABE_ITO, shared_legend
from mvp_lite.masks import keep_count, top_v

__all__ = ["decided_before", "errors_of_masks"]

_BLUE, _VERMILION, _BLACK = OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[6]
_PALE = "#BDBDBD"
#: Marker, size, color and width of the line around it.
_RINGS = (("o", 13.0, _VERMILION, 2.2), ("s", 16.0, _BLACK, 1.4), ("D", 19.0, _BLUE, 1.4))


def errors_of_masks(
    errors: Mapping[str, Sequence[Any]], marked: Mapping[str, Sequence[Any]], ylabel: str = "mean squared change"
) -> NDArray[Any]:
    """One panel for each list of inputs: the errors of all masks in ascending order, some of them ringed.

    Args:
        errors: name of the inputs -> the error of each mask on them.
        marked: name of a mask -> its error on each of the inputs, in the same order; three masks at most.

    Raises:
        ValueError: no inputs, errors that are not finite, a marked mask without an error for each panel.
    """
    if not errors or len(marked) > len(_RINGS):
        raise ValueError(f"{len(errors)} panels and {len(marked)} marked masks: at least 1 and at most {len(_RINGS)}")
    rings = {name: finite_array(f"marked[{name!r}]", list(values), 1) for name, values in marked.items()}
    axes = plt.subplots(1, len(errors), figsize=(3.2 * len(errors), 3.3), squeeze=False, layout="constrained")[1][0]
    for panel, (ax, (name, values)) in enumerate(zip(axes, errors.items(), strict=True)):
        height = np.sort(finite_array(f"errors[{name!r}]", list(values), 1))
        ax.plot(range(1, len(height) + 1), height, "o", color=_BLUE, markersize=5, label="a mask")
        for (mask, ring), (marker, size, color, width) in zip(rings.items(), _RINGS, strict=False):
            if len(ring) != len(errors):
                raise ValueError(f"marked[{mask!r}] has {len(ring)} errors for {len(errors)} panels")
            place = 1 + np.count_nonzero(height < ring[panel] - 1e-9 * height[-1])
            look = {"color": color, "markersize": size, "markeredgewidth": width, "fillstyle": "none"}
            ax.plot(place, ring[panel], marker, linestyle="none", label=mask, **look)
        ax.set_title(f"inputs: {name}")
        ax.set_xlabel("place of the mask, best first")
        ax.set_ylim(0, 1.12 * float(height[-1]))
        ax.set_xticks([1, *range(5, len(height) + 1, 5)])
    axes[0].set_ylabel(ylabel)
    shared_legend(axes, loc="outside lower center", ncols=1 + len(rings))
    return np.asarray(axes)


def decided_before(before: torch.Tensor, after: torch.Tensor, density: float, ax: Axes | None = None) -> Axes:
    """Each weight of one matrix as a dot, pretrained to the right and fine-tuned upwards; does magnitude keep it?

    Dashed lines are the threshold before, the k-th largest magnitude q. The shaded bands reach 2 delta to either side,
    with delta the largest move: no weight outside them can change sides. The inset shows what happens at the upper one.

    Args:
        before, after: pretrained and fine-tuned weights, of one shape.
        density: fraction kept by magnitude, before and after.

    Raises:
        ValueError: shapes that differ, values that are not finite, a density outside (0, 1].
    """
    x = finite_array("before", before.detach().cpu().double().numpy())
    y = same_shape("after", after.detach().cpu().double().numpy(), x)
    first, last = (top_v(torch.from_numpy(np.abs(values)), density).numpy() for values in (x, y))
    threshold = float(np.sort(np.abs(x), axis=None)[-keep_count(x.size, density)])
    reach = 2 * float(np.abs(y - x).max())
    ax = plt.subplots(figsize=(6.0, 4.6), layout="constrained")[1] if ax is None else ax
    inset = ax.inset_axes((0.63, 0.07, 0.35, 0.42))
    for side in (-1, 1):
        low, high = sorted((side * max(0.0, threshold - reach), side * (threshold + reach)))
        line, band = ("threshold q before", "within 2δ of it") if side > 0 else (None, None)
        for panel in (ax, inset):
            panel.axvline(side * threshold, color=_BLACK, linestyle="--", linewidth=1.2, label=line)
            panel.axvspan(low, high, color=_VERMILION, alpha=0.16, linewidth=0, zorder=0, label=band)
    for which, label, marker, color, size in (
        (~first & ~last, "pruned before and after", ".", _PALE, 3.0),
        (first & last, "kept before and after", "s", _BLUE, 3.5),
        (first != last, "changed sides", "x", _BLACK, 4.5),
    ):
        name = f"{label}: {np.count_nonzero(which)}"
        ax.plot(x[which], y[which], marker, color=color, markersize=size, label=name, linestyle="none")
        inset.plot(x[which], y[which], marker, color=color, markersize=size, linestyle="none")
    near = 1.15 * max(reach / 2, 1e-3 * threshold)
    inset.set(xlim=(threshold - near, threshold + near), ylim=(threshold - near, threshold + near))
    inset.set_title("around q", fontsize=9)
    inset.tick_params(labelsize=7)
    ax.set_xlabel("pretrained weight")
    ax.set_ylabel("fine-tuned weight")
    ax.figure.legend(loc="outside lower center", ncols=2, markerscale=1.6)
    return ax
