"""A budget of operations: which neurons it pays for, and the score of what is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from mvp_lite.course.figures.style import GRAY, OKABE_ITO

__all__ = ["neurons_left"]

_ROWS = 16  # of the picture of a layer


def neurons_left(pruned: Mapping[float, Mapping[str, Any]], flops: float) -> list[Axes]:
    """The neurons of each layer, dark if they stay under one budget, and the scores under all budgets.

    Args:
        pruned: budget, the fraction of operations that stays -> {"masks": a boolean mask (neurons,) for each layer,
            "score": percent}; the number of neurons is a multiple of 16.
        flops: the budget to show, a key of `pruned`.

    Returns:
        The axes of each layer, then those of the scores.

    Raises:
        ValueError: no such budget, or a layer that does not fill 16 rows.
    """
    if flops not in pruned:
        raise ValueError(f"flops={flops!r}: must be one of {', '.join(f'{budget:g}' for budget in sorted(pruned))}")
    masks = [torch.as_tensor(mask).cpu().numpy() for mask in pruned[flops]["masks"]]
    if wrong := [mask.shape for mask in masks if mask.ndim != 1 or mask.size % _ROWS]:
        raise ValueError(f"a mask of shape {wrong[0]}: expected (neurons,), a multiple of {_ROWS}")
    layout: list[Any] = [[f"layer {n}" for n in range(1, len(masks) + 1)], ["score"] * len(masks)]
    _, axes = plt.subplot_mosaic(layout, figsize=(7.6, 4.4), height_ratios=(1.0, 1.5), layout="constrained")
    for (name, ax), mask in zip(axes.items(), masks, strict=False):
        ax.imshow(mask.reshape(_ROWS, -1), cmap="Greys", vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest")
        ax.set_title(f"{name}: {int(mask.sum())} of {mask.size}", fontsize=9.5)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(visible=False)
        ax.spines[["top", "right"]].set_visible(True)
    ax, budgets = axes["score"], sorted(pruned)
    scores = [float(pruned[budget]["score"]) for budget in budgets]
    ax.plot(100 * np.array(budgets), scores, ".-", color=GRAY, linewidth=1.0)
    ax.plot([100 * flops], [pruned[flops]["score"]], "o", color=OKABE_ITO[0], markersize=9)
    ax.set_ylim(min(scores) - 5, 102)
    ax.set_xlabel("operations left (%)")
    ax.set_ylabel("score (%)")
    ax.set_title(f"{100 * flops:g} % of the operations: score {pruned[flops]['score']:.0f} %")
    return list(axes.values())
