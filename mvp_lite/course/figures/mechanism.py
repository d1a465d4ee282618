"""Why hard movement pruning fails in short runs, from what was recorded inside them."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from mvp_lite.course.arguments import require_columns
from mvp_lite.course.figures.style import GRAY, curve_style

__all__ = ["differing_states"]


def differing_states(
    table: pd.DataFrame,
    runs: Mapping[str, tuple[str, float]],
    ax: Axes | None = None,
    *,
    marks: Mapping[int, str] | None = None,
    rounding: float | None = None,
) -> Axes:
    """What fraction of the last layer's [CLS] state differs between inputs, over the steps of some runs.

    The fraction is that of `experiments.probes.between_inputs`: mean squared distance from the mean, divided by the
    mean squared length.

    Args:
        table: one task and one seed of `experiments.mechanism.long_table`.
        runs: label -> (recipe, density).
        marks: step -> words at a vertical line.
        rounding: fraction that rounding alone can make; below it the figure is shaded.

    Raises:
        ValueError: no run, a run that the table lacks, or a missing column.
    """
    require_columns("table", table, "recipe", "density", "step", "quantity", "layer", "value")
    if not runs:
        raise ValueError("runs is empty: label -> (recipe, density)")
    ax = plt.subplots(figsize=(6.5, 4.0), layout="constrained")[1] if ax is None else ax
    for index, (label, (recipe, density)) in enumerate(runs.items()):
        run = table[(table["recipe"] == recipe) & (table["density"] == density)]
        if run.empty:
            raise ValueError(f"runs[{label!r}]: the table has no run of {recipe!r} at density {density:g}")
        last = run[(run["quantity"] == "between") & (run["layer"] == run["layer"].max())].sort_values("step")
        ax.plot(last["step"], last["value"], label=label, **curve_style(index))
    ax.set_yscale("log")
    ax.set_ylim(top=5)
    if rounding is not None:
        ax.axhspan(ax.get_ylim()[0], rounding, color=GRAY, alpha=0.3, linewidth=0, zorder=0)
        place = (0.99, rounding)
        ax.annotate("rounding", place, (0, -3), ("axes fraction", "data"), "offset points", ha="right", va="top")
    for step, words in (marks or {}).items():
        ax.axvline(step, color=GRAY, linestyle=":", linewidth=1.2, zorder=0)
        place = (step, 0.04)
        ax.annotate(words, place, (4, 0), ("data", "axes fraction"), "offset points", rotation=90, va="bottom")
    ax.set_xlabel("optimizer step t")
    ax.set_ylabel("fraction of the [CLS] state\nthat differs between inputs")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return ax
