"""Why hard movement pruning fails in short runs, from what was recorded inside them."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from mvp_lite.course.arguments import require_columns
from mvp_lite.course.figures.style import OKABE_ITO, curve_style

__all__ = ["long_step_and_collapse"]

_SELECTIONS = {"scores": "weights that moved towards zero", "random": "random weights"}


def long_step_and_collapse(table: pd.DataFrame, runs: Mapping[str, tuple[str, float]]) -> tuple[Axes, Axes]:
    """Left: one removal just before pruning starts, predicted and actual. Right: the [CLS] state over each run.

    Args:
        table: one task of `experiments.mechanism.long_table`, one seed.
        runs: label -> (recipe, density) of the curves on the right; the first is drawn on the left too.

    Raises:
        ValueError: a missing column, or a run that the table lacks.
    """
    require_columns("table", table, "recipe", "density", "step", "quantity", "layer", "fraction", "value")
    _, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.9), layout="constrained")
    for index, (label, (recipe, density)) in enumerate(runs.items()):
        run = table[(table["recipe"] == recipe) & (table["density"] == density)]
        if run.empty:
            raise ValueError(f"runs[{label!r}]: the table has no run of {recipe!r} at density {density:g}")
        if index == 0:
            _removal(left, run[run["step"] == run["step"].min()])
        last = run[(run["quantity"] == "between") & (run["layer"] == run["layer"].max())].sort_values("step")
        right.plot(last["step"], last["value"], label=label, markersize=5, **curve_style(index))
    right.set_yscale("log")
    right.set_xlabel("optimizer step")
    right.set_ylabel("part of the [CLS] state\nthat differs between inputs")
    right.legend(loc="best")
    return left, right


def _removal(ax: Axes, now: pd.DataFrame) -> None:
    for (which, words), color, marker in zip(_SELECTIONS.items(), OKABE_ITO, "os", strict=False):
        for what, line, face in (("actual", "-", color), ("predicted", ":", "white")):
            part = now[now["quantity"] == f"{what}_{which}"].sort_values("fraction")
            ax.plot(
                100 * part["fraction"], part["value"], line, color=color, marker=marker, markerfacecolor=face,
                label=f"{words}: {'measured' if what == 'actual' else 'first order'}",
            )  # fmt: skip
    ax.axhline(0, color="#000000", linewidth=0.8)
    ax.set_xlabel("weights removed at once (%)")
    ax.set_ylabel("change of the loss (nats)")
    ax.legend(loc="best")
