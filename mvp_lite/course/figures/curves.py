"""Score against density for runs from any source: curves, the tables beside them, and where two curves cross."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator
from numpy.typing import ArrayLike, NDArray

from mvp_lite.course.figures.results import score_against_density, summarise
from mvp_lite.course.figures.style import METHOD_STYLE

__all__ = ["common_densities", "comparable", "crossings", "leads", "paired", "score_curves", "score_table"]

_TICKS = (1.0, 3.0, 10.0, 30.0, 100.0)
_GLOBAL = ("soft_movement", "l0")


def comparable(results: pd.DataFrame, split: str = "validation", distil: bool = False) -> pd.DataFrame:
    """Rows that may stand in one figure: one split, all or none with a teacher, local cuts where there is a choice.

    Soft movement and L0 are global by nature and stay. A file without the column `split` is taken whole.

    Raises:
        ValueError: `distil` or `scope` is not among the columns.
    """
    if missing := [name for name in ("distil", "scope", "method") if name not in results.columns]:
        raise ValueError(f"results lacks the column {missing[0]!r} (found: {', '.join(map(str, results.columns))})")
    wanted = (results["distil"] == distil) & ((results["scope"] != "global") | results["method"].isin(_GLOBAL))
    return results[wanted & (results["split"] == split)] if "split" in results.columns else results[wanted]


def paired(results: pd.DataFrame, first: str, second: str, density: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of two methods at one density, seed by seed: two tables, tasks by seeds, of the same rows and columns.

    NaN where there is no run. Tasks and seeds are those that at least one of the two has.

    Raises:
        ValueError: as `summarise`, or neither method has a run of that density.
    """
    summarise(results)
    rows = results[(results["split"] == "validation") & results["method"].isin([first, second])]
    rows = rows[np.isclose(rows["density"], density)]
    if rows.empty:
        raise ValueError(f"density={density!r}: no run of {first} or {second}")
    index, columns = (np.sort(rows[name].unique()) for name in ("task", "seed"))
    wide = rows.pivot(index="task", columns=["method", "seed"], values="score").reindex(index=index)
    one, other = (
        wide.reindex(columns=pd.MultiIndex.from_product([[name], columns])).set_axis(columns, axis=1)
        for name in (first, second)
    )
    return one, other


def leads(results: pd.DataFrame, against: str = "magnitude", tasks: Sequence[str] | None = None) -> pd.DataFrame:
    """How far each method is ahead of `against` at each density, on average over tasks, from pairs of runs of one seed.

    Index: method and density, where at least two seeds have run all tasks with both methods. Columns: lead (mean over
    seeds), error (its standard error), ahead (seeds with a lead above 0), seeds, and p: the share of all 2**seeds sign
    flips of the seeds' leads that give a mean at least as far from 0.

    Args:
        tasks: names to average over (default: all that `results` has).

    Raises:
        ValueError: as `summarise`.
    """
    table = summarise(results)
    names = list(table["task"].unique()) if tasks is None else list(tasks)
    cells = table.loc[~table["method"].isin(["dense", "scratch", against]), ["method", "density"]].drop_duplicates()
    found = {}
    for method, density in cells.itertuples(index=False):
        one, other = (scores.reindex(names) for scores in paired(results, method, against, density))
        ahead = (one - other).mean(skipna=False).dropna().to_numpy()
        if (m := len(ahead)) < 2:
            continue
        flips = np.array(list(itertools.product((1, -1), repeat=m))) @ ahead
        share = np.mean(np.abs(flips) >= abs(ahead.sum()) - 1e-9)
        found[method, density] = [ahead.mean(), ahead.std(ddof=1) / m**0.5, int((ahead > 0).sum()), m, share]
    columns = ["lead", "error", "ahead", "seeds", "p"]
    index = pd.MultiIndex.from_tuples(found, names=["method", "density"]) if found else None
    return pd.DataFrame(list(found.values()), index=index, columns=columns)


def score_table(results: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """Mean scores over seeds as text, with "± standard deviation" where there are several; a column for each method.

    Index: task and density. What was not run is an empty string.

    Raises:
        ValueError: as `summarise`.
    """
    table = summarise(results)
    spread = [
        f" ± {std:.{digits}f}" if seeds > 1 else "" for std, seeds in zip(table["std"], table["seeds"], strict=True)
    ]
    table["text"] = [f"{mean:.{digits}f}{more}" for mean, more in zip(table["mean"], spread, strict=True)]
    wide = table.pivot(index=["task", "density"], columns="method", values="text")
    return wide[[name for name in METHOD_STYLE if name in wide]].fillna("")


def crossings(density: ArrayLike, first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Densities, ascending, at which two curves of scores cross; each is joined by straight lines in log(density).

    A crossing lies between two neighbouring points where the difference has opposite signs, or at a point where it is
    0 between such two. Where both are level for longer there is none.

    Raises:
        ValueError: lists of different lengths, or densities that are not positive and ascending.
    """
    v, a, b = (np.asarray(values, dtype=np.float64) for values in (density, first, second))
    if not v.shape == a.shape == b.shape or v.ndim != 1:
        raise ValueError(f"density, first and second have the shapes {v.shape}, {a.shape}, {b.shape}: one list each")
    if (v <= 0).any() or (np.diff(v) <= 0).any():
        raise ValueError(f"density={v.tolist()}: positive and ascending")
    x, d = np.log(v), a - b
    found = []
    for i in range(len(d) - 1):
        if d[i] * d[i + 1] < 0:
            found.append(x[i] + (x[i + 1] - x[i]) * d[i] / (d[i] - d[i + 1]))
        elif d[i + 1] == 0 and i + 2 < len(d) and d[i] * d[i + 2] < 0:
            found.append(x[i + 1])
    return np.exp(found)


def common_densities(results: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Mean scores of `methods` on one task, at every density any of them has, as far as all of them reach.

    Index: density, ascending. Columns: the methods. Where a method has no run of that density its score is read off
    the straight line, in log(density), between its neighbours.

    Raises:
        ValueError: as `summarise`; several tasks; a method that is not there; ranges that do not overlap.
    """
    table = summarise(results)
    if (names := table["task"].unique()).size > 1:
        raise ValueError(f"results has several tasks ({', '.join(names)}): choose one, or average over them")
    curves = {}
    for method in methods:
        mine = table[table["method"] == method]
        if mine.empty:
            raise ValueError(f"methods={method!r} is not in results (found: {', '.join(table['method'].unique())})")
        curves[method] = mine.set_index("density")["mean"]
    low = max(curve.index.min() for curve in curves.values())
    high = min(curve.index.max() for curve in curves.values())
    if low > high:
        raise ValueError(f"no density is common to {', '.join(methods)}: their ranges do not overlap")
    density = np.unique(np.concatenate([curve.index for curve in curves.values()]))
    density = density[(density >= low) & (density <= high)]
    log = {name: np.interp(np.log(density), np.log(curve.index), curve) for name, curve in curves.items()}
    return pd.DataFrame(log, index=pd.Index(density, name="density"))


def score_curves(
    results: pd.DataFrame,
    tasks: Sequence[str] | None = None,
    *,
    share: float | None = None,
    cross: tuple[str, str] | None = None,
    sharey: bool = True,
) -> NDArray[Any]:
    """Score against density, a panel for each task, ticks at round densities, one legend; returns the Axes.

    Args:
        results: rows of a results file; their densities need not be the same for all methods.
        tasks: names to draw, in this order (default: all).
        share: draw a thin line at this share of the dense score (0.95, say), where there is one.
        cross: two methods; each crossing of their curves is marked with its density.
        sharey: one scale of scores for all panels.

    Raises:
        ValueError: as `score_against_density`.
    """
    names = list(summarise(results)["task"].unique()) if tasks is None else list(tasks)
    figure, grid = plt.subplots(1, len(names), figsize=(2.5 * len(names) + 1.2, 3.5), sharey=sharey, squeeze=False)
    axes: NDArray[Any] = grid[0]
    for ax, name in zip(axes, names, strict=True):
        score_against_density(results, ax, [name], legend=False)
        rows = results[results["task"] == name]
        ax.xaxis.set_major_locator(FixedLocator(_TICKS))
        ax.set_xlabel("weights kept (%)")
        if sharey:
            ax.label_outer()
        dense = rows.loc[(rows["method"] == "dense") & (rows["split"] == "validation"), "score"]
        if share is not None and len(dense):
            level, dashes = share * dense.mean(), (0, (9, 4))
            ax.axhline(level, color="#000000", linestyle=dashes, linewidth=0.9, label=f"{100 * share:g} % of dense")
        if cross is not None and set(cross) <= set(rows["method"]):
            both = common_densities(rows, cross)
            for number, density in enumerate(crossings(both.index, both[cross[0]], both[cross[1]])):
                side, shift = ("right", -3) if density > 0.3 else ("left", 3)
                ax.axvline(100 * density, color="#000000", linestyle=(0, (1, 3)), linewidth=1)
                place = (100 * density, 0.02 + 0.08 * number)  # one above the other
                ax.annotate(
                    f"{100 * density:.2g} %", place, (shift, 0), ("data", "axes fraction"), "offset points", ha=side
                )
    handles = {label: line for ax in axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(4, len(handles)))
    return axes
