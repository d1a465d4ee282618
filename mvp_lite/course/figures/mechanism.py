"""Why hard movement pruning fails in short runs, from what was recorded inside them."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from mvp_lite.course.arguments import require_columns
from mvp_lite.course.figures.style import curve_style

__all__ = ["differing_states"]

#: quantity -> what was done to the weights that are kept, at the end of the run
_CHANGES = {
    "between": "as trained",
    "signs_between": "random signs",
    "thinned_between": "3 in 10 of them",
    "centered_between": "without constant outputs",
}


def differing_states(table: pd.DataFrame, runs: Mapping[str, tuple[str, float]]) -> tuple[Axes, Axes]:
    """What part of the [CLS] state differs between inputs: over the steps of some runs, and over the layers of one.

    Left: at the output of the last layer. Right: at the end of the first of the runs, with its weights as they are and
    changed in three ways.

    Args:
        table: one task and one seed of `experiments.mechanism.long_table`.
        runs: label -> (recipe, density).

    Raises:
        ValueError: no run, a run that the table lacks, or a missing column.
    """
    require_columns("table", table, "recipe", "density", "step", "quantity", "layer", "value")
    if not runs:
        raise ValueError("runs is empty: label -> (recipe, density)")
    _, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.3), sharey=True, layout="constrained")
    for index, (label, (recipe, density)) in enumerate(runs.items()):
        run = table[(table["recipe"] == recipe) & (table["density"] == density)]
        if run.empty:
            raise ValueError(f"runs[{label!r}]: the table has no run of {recipe!r} at density {density:g}")
        last = run[(run["quantity"] == "between") & (run["layer"] == run["layer"].max())].sort_values("step")
        left.plot(last["step"], last["value"], label=label, **curve_style(index))
        if index == 0:
            right.set_title(f"{label}: after the last step")
            end = run[run["step"] == run["step"].max()]
            for change, (quantity, words) in enumerate(_CHANGES.items()):
                layers = end[end["quantity"] == quantity].sort_values("layer")
                right.plot(layers["layer"] + 1, layers["value"], label=words, **curve_style(change))
    left.set_yscale("log")
    left.set_ylim(top=3)
    left.set_title("output of the last layer")
    left.set_xlabel("optimizer step")
    left.set_ylabel("part of the [CLS] state\nthat differs between inputs")
    right.set_xlabel("transformer layer")
    for ax in (left, right):
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    return left, right
