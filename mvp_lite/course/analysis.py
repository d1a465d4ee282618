"""Statistics of runs: means over seeds, leads of one method over another, gains with a teacher, crossings of curves.

`results` is always a table of runs with the columns of a results file; scores are in percent.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mvp_lite.course.arguments import require_columns, require_known

__all__ = [
    "FROM_MAGNITUDE",
    "METHODS",
    "UNPRUNED",
    "average_over_tasks",
    "common_densities",
    "comparable",
    "crossings",
    "leads",
    "paired",
    "score_table",
    "summarize",
    "teacher_gains",
    "unlabeled_names",
]

#: Movement pruning with the default start of its scores, as results files name it; "movement" alone is the paper's.
FROM_MAGNITUDE = "movement magnitude_init=0.2"
#: Methods of fine-pruning, in the order of tables and figures.
METHODS = ("dense", "movement", FROM_MAGNITUDE, "soft_movement", "l0", "magnitude", "random", "scratch")
UNPRUNED = ("dense", "scratch")
_ALWAYS_GLOBAL = ("soft_movement", "l0")


def comparable(results: pd.DataFrame, split: str = "validation", distil: bool = False) -> pd.DataFrame:
    """Runs that may be compared: of one split, all or none with a teacher, of local scope where there is a choice.

    Soft movement and L0 have no local scope and stay. A table without the column `split` is taken whole.

    Raises:
        ValueError: `distil`, `scope` or `method` is not among the columns.
    """
    require_columns("results", results, "distil", "scope", "method")
    chosen = (results["distil"] == distil) & ((results["scope"] != "global") | results["method"].isin(_ALWAYS_GLOBAL))
    return results[chosen & (results["split"] == split)] if "split" in results.columns else results[chosen]


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """Scores over seeds: one row for each (task, method, density), with mean, std, low, high and seeds.

    `low` and `high` are the lowest and the highest score, `seeds` is their number, and `std` the sample standard
    deviation (NaN for one seed). Only runs of the split "validation" count. Tasks and densities ascend; methods have
    the order of `METHODS`.

    Raises:
        ValueError: a missing column, an unknown method, no run of the split, or two runs of one seed (of different
            steps, scopes or models, say: choose one setting first).
    """
    cell = ["task", "method", "density"]
    require_columns("results", results, *cell, "split", "seed", "score")
    runs = results[results["split"] == "validation"]
    if runs.empty:
        raise ValueError("results holds no row with split 'validation'")
    require_known("method", sorted(set(runs["method"]) - set(METHODS)), METHODS)
    if (twice := runs.duplicated([*cell, "seed"])).any():
        where = ", ".join(f"{name} {runs.loc[twice, name].iloc[0]}" for name in (*cell, "seed"))
        raise ValueError(f"results has two rows for {where}: choose one setting first")
    scores = runs.groupby(cell)["score"]
    table = scores.agg(mean="mean", std="std", low="min", high="max", seeds="count").reset_index()
    order = table["method"].map(METHODS.index)
    table = table.assign(order=order).sort_values(["task", "density", "order"], ignore_index=True)
    return table.drop(columns="order")


def average_over_tasks(results: pd.DataFrame) -> pd.DataFrame:
    """Mean over tasks of each (method, density, seed), as results of one task named "mean of n tasks".

    A (method, density, seed) that some task lacks is left out: means over different tasks do not compare.

    Raises:
        ValueError: as `summarize`.
    """
    summarize(results)
    runs = results[results["split"] == "validation"]
    count = runs["task"].nunique()
    groups = runs.groupby(["method", "density", "seed"])["score"]
    table = groups.agg(score="mean", tasks="count").reset_index()
    table = table[table["tasks"] == count].drop(columns="tasks")
    return table.assign(split="validation", task=f"mean of {count} tasks")


def score_table(results: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """Mean scores over seeds as text, with "± standard deviation" where there are several; a column for each method.

    Index: task and density. A missing run is an empty string.

    Raises:
        ValueError: as `summarize`.
    """
    table = summarize(results)
    deviations = [
        f" ± {std:.{digits}f}" if seeds > 1 else "" for std, seeds in zip(table["std"], table["seeds"], strict=True)
    ]
    table["text"] = [f"{mean:.{digits}f}{more}" for mean, more in zip(table["mean"], deviations, strict=True)]
    wide = table.pivot(index=["task", "density"], columns="method", values="text")
    return wide[[name for name in METHODS if name in wide]].fillna("")


def paired(results: pd.DataFrame, first: str, second: str, density: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of two methods at one density, seed by seed: two tables (tasks by seeds) with the same index and columns.

    NaN where there is no run. Tasks and seeds are those that at least one of the two has.

    Raises:
        ValueError: as `summarize`, or neither method has a run of that density.
    """
    summarize(results)
    runs = results[(results["split"] == "validation") & results["method"].isin([first, second])]
    runs = runs[np.isclose(runs["density"], density)]
    if runs.empty:
        raise ValueError(f"density={density!r}: no run of {first} or {second}")
    index, columns = (np.sort(runs[name].unique()) for name in ("task", "seed"))
    wide = runs.pivot(index="task", columns=["method", "seed"], values="score").reindex(index=index)
    one, other = (
        wide.reindex(columns=pd.MultiIndex.from_product([[name], columns])).set_axis(columns, axis=1)
        for name in (first, second)
    )
    return one, other


def leads(results: pd.DataFrame, against: str = "magnitude", tasks: Sequence[str] | None = None) -> pd.DataFrame:
    """Lead of each method over `against` at each density, averaged over tasks, from pairs of runs of one seed.

    Index: method and density, where at least two seeds have run all tasks with both methods. Columns: lead (mean over
    seeds, in points), error (its standard error), ahead (number of seeds with a positive lead), seeds, and p: the share
    of all 2**seeds sign flips of the seeds' leads whose mean is at least as far from 0.

    Args:
        tasks: names to average over (default: all that `results` has).

    Raises:
        ValueError: as `summarize`.
    """
    table = summarize(results)
    names = list(table["task"].unique()) if tasks is None else list(tasks)
    cells = table.loc[~table["method"].isin([*UNPRUNED, against]), ["method", "density"]].drop_duplicates()
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


def crossings(density: ArrayLike, first: ArrayLike, second: ArrayLike, apart: float = 0.0) -> NDArray[np.float64]:
    """Densities, ascending, at which two score curves cross; points are joined by straight lines in log(density).

    A crossing is between two adjacent points where the difference has opposite signs, or at a point where it is 0
    between such two. There is none where both curves stay equal for longer.

    Args:
        apart: leave out crossings on one side of which, up to the next crossing, no two points differ by as much.

    Raises:
        ValueError: lists of different lengths, or densities that are not positive and ascending.
    """
    v, a, b = (np.asarray(values, dtype=np.float64) for values in (density, first, second))
    if not v.shape == a.shape == b.shape or v.ndim != 1:
        raise ValueError(f"density, first and second have the shapes {v.shape}, {a.shape}, {b.shape}: one list each")
    if (v <= 0).any() or (np.diff(v) <= 0).any():
        raise ValueError(f"density={v.tolist()}: positive and ascending")
    x, d = np.log(v), a - b
    found, ends = [], []
    for i in range(len(d) - 1):
        if d[i] * d[i + 1] < 0:
            found.append(x[i] + (x[i + 1] - x[i]) * d[i] / (d[i] - d[i + 1]))
            ends.append(i + 1)
        elif d[i + 1] == 0 and i + 2 < len(d) and d[i] * d[i + 2] < 0:
            found.append(x[i + 1])
            ends.append(i + 1)
    widest = [np.abs(side).max(initial=0.0) for side in np.split(d, ends)]
    firm = [min(sides) >= apart for sides in itertools.pairwise(widest)]
    crossed: NDArray[np.float64] = np.exp(np.array(found, dtype=np.float64)[np.array(firm, dtype=bool)])
    return crossed


def common_densities(results: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Mean scores of `methods` on one task, at every density that any of them has, within the range common to all.

    Index: density, ascending. Columns: the methods. Where a method has no run of that density, its score is
    interpolated linearly in log(density).

    Raises:
        ValueError: as `summarize`; several tasks; a method without a run; ranges that do not overlap.
    """
    table = summarize(results)
    if (names := table["task"].unique()).size > 1:
        raise ValueError(f"results has several tasks ({', '.join(names)}): choose one, or average over them")
    curves = {}
    for method in methods:
        mine = table[table["method"] == method]
        if mine.empty:
            raise ValueError(f"methods={method!r} is not in results (found: {', '.join(table['method'].unique())})")
        curves[method] = mine.set_index("density")["mean"]
    if (table := _on_one_grid(curves)).empty:
        raise ValueError(f"no density is common to {', '.join(methods)}: their ranges do not overlap")
    return table


def _on_one_grid(curves: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Curves (density -> score) at all densities that one of them has and all reach, linear in log(density)."""
    low = max(curve.index.min() for curve in curves.values())
    high = min(curve.index.max() for curve in curves.values())
    density = np.unique(np.concatenate([curve.index for curve in curves.values()]))
    density = density[(density >= low) & (density <= high)]
    log = {name: np.interp(np.log(density), np.log(curve.index), curve) for name, curve in curves.items()}
    return pd.DataFrame(log, index=pd.Index(density, name="density"))


def teacher_gains(runs: pd.DataFrame, column: str = "score") -> pd.DataFrame:
    """What a teacher adds: the score with one minus the score without, at the same density.

    As in `common_densities` the two curves of a task and a method are compared at every density that one of them has
    and both reach, and read off linearly in log(density).

    Args:
        runs: columns task, method, distil (bool), kept (a fraction) and `column`; one run for each density of a curve.

    Returns:
        Columns task, method, kept, with, without and gain, in the order of `runs`.

    Raises:
        ValueError: a missing column, two runs of one curve with the same density, a curve without its partner.
    """
    require_columns("runs", runs, "task", "method", "distil", "kept", column)
    found = []
    for (task, method), rows in runs.groupby(["task", "method"], sort=False):
        curves = {
            name: rows[rows["distil"] == distil].set_index("kept")[column].sort_index()
            for name, distil in (("with", True), ("without", False))
        }
        for name, curve in curves.items():
            if curve.empty or not curve.index.is_unique:
                wrong = "two runs of one density" if len(curve) else "no run"
                raise ValueError(f"runs has {wrong} {name} a teacher for {task}, {method}")
        table = _on_one_grid(curves).rename_axis("kept").reset_index()
        found.append(table.assign(task=str(task), method=str(method), gain=table["with"] - table["without"]))
    columns = ["task", "method", "kept", "with", "without", "gain"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def unlabeled_names(results: pd.DataFrame) -> pd.Series:
    """Name of each run of `python -m mvp_lite unlabeled`: its method, perhaps with "_scaled", "_labels" or "_heads".

    Args:
        results: columns method, scale, labelled and options; an empty cell of options means none.

    Raises:
        ValueError: a missing column, no row.
    """
    require_columns("results", results, "method", "scale", "labelled", "options")
    if results.empty:
        raise ValueError("results holds no row")
    scales_itself = results["method"].isin(["kcm", "fisher"])
    names = results["method"].astype(str)
    names = names.mask(results["scale"].astype(bool) & ~scales_itself, names + "_scaled")
    names = names.mask((results["labelled"] > 0) & (results["method"] == "kcm"), names + "_labels")
    heads: pd.Series = results["options"].fillna("").astype(str).str.contains("heads=True")
    return names.mask(heads, names + "_heads")
