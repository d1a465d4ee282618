"""Widgets: thin shells over figure functions, for notebooks."""

from __future__ import annotations

from typing import Any

import ipywidgets
import pandas as pd
from matplotlib import pyplot as plt

from mvp_lite.course.figures import recorded_bars, summarise

__all__ = ["explore"]


def explore(results: pd.DataFrame, source: str = "recorded runs") -> Any:
    """Choose task and density, see the recorded scores of all methods (`figures.recorded_bars`); an ipywidget.

    Nothing is trained. Densities are those recorded for the task.

    Raises:
        ValueError: as `figures.summarise`, or no pruned row.
    """
    table = summarise(results)
    pruned = table[~table["method"].isin(["dense", "scratch"])]
    if pruned.empty:
        raise ValueError("results holds no pruned model: there is no density to choose")
    densities = {task: sorted(rows["density"].unique()) for task, rows in pruned.groupby("task")}

    task = ipywidgets.Dropdown(options=list(densities), description="task")
    density = ipywidgets.SelectionSlider(description="kept", options=_options(densities[task.value]))

    def follow(change: dict[str, Any]) -> None:
        before = density.value
        density.options = _options(densities[change["new"]])
        if before in densities[change["new"]]:
            density.value = before

    def draw(task: str, density: float) -> None:
        if density in densities[task]:
            recorded_bars(results, task, density, source=source)
            plt.show()

    task.observe(follow, names="value")
    return ipywidgets.interactive(draw, task=task, density=density)


def _options(densities: list[float]) -> list[tuple[str, float]]:
    return [(f"{100 * density:g} %", float(density)) for density in densities]
