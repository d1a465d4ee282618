"""Figures of published tables: means that are possible, differences, speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from mvp_lite.course.arguments import require_columns
from mvp_lite.course.figures.style import GRAY, OKABE_ITO, axes_or_new

__all__ = ["differences", "possible_means", "speed_against_operations"]


def possible_means(
    found: Sequence[int], chance: Sequence[float], stated: int, total: int, ax: Axes | None = None
) -> Axes:
    """How many printed numbers can be means of 1, 2, … runs: dots, a line for chance, and a ring at the stated number.

    Args:
        found: for each number of runs from 1 on, how many of the printed numbers are possible.
        chance: how many arbitrary numbers would be.
        stated: the number of runs that the paper states.
        total: how many printed numbers there are.

    Raises:
        ValueError: `found` and `chance` of different length, or `stated` outside.
    """
    if len(found) != len(chance) or not 1 <= stated <= len(found):
        raise ValueError(f"found and chance have {len(found)} and {len(chance)} entries, stated={stated}")
    ax = axes_or_new(ax)
    runs = range(1, len(found) + 1)
    ax.plot(runs, chance, "--", color=GRAY, label="expected by chance")
    ax.plot(runs, found, "o", color=OKABE_ITO[0], label="possible")
    ring: dict[str, Any] = {"markersize": 15, "markerfacecolor": "none", "markeredgewidth": 1.8}
    ax.plot([stated], [found[stated - 1]], "o", color=OKABE_ITO[1], label=f"stated: {stated} runs", **ring)
    ax.set_xlabel("runs in a mean, assumed")
    ax.set_ylabel(f"numbers of {total}")
    ax.set_ylim(0, 1.1 * total)
    ax.legend(loc="lower right")
    return ax


def differences(table: pd.DataFrame, ax: Axes | None = None, xlabel: str = "difference (points)") -> Axes:
    """Differences of two means with two standard errors to each side: a row for each name, a marker for each group.

    Args:
        table: columns name (drawn from top to bottom in the order of the first rows), group, difference and error.

    Raises:
        ValueError: a missing column, no row, more groups than markers.
    """
    require_columns("table", table, "name", "group", "difference", "error")
    names, groups = (list(dict.fromkeys(table[column])) for column in ("name", "group"))
    if not names or len(groups) > 4:
        raise ValueError(f"table has {len(names)} names and {len(groups)} groups, expected 1 to 4 groups")
    ax = plt.subplots(figsize=(6.4, 0.42 * len(names) + 1.2))[1] if ax is None else ax
    ax.axvline(0, color="black", linewidth=1)
    for index, group in enumerate(groups):
        rows = table[table["group"] == group]
        shift = 0.16 * (index - (len(groups) - 1) / 2)
        color = OKABE_ITO[index // 2]
        ax.errorbar(
            rows["difference"],
            [names.index(name) + shift for name in rows["name"]],
            xerr=2 * rows["error"],
            linestyle="",
            marker=("o", "o", "s", "s")[index],
            markerfacecolor=color if index % 2 == 0 else "white",
            color=color,
            label=str(group),
        )
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(xlabel)
    ax.legend(loc="best")
    return ax


def speed_against_operations(
    fixed: Sequence[float], measured: Mapping[str, tuple[float, ArrayLike]], ax: Axes | None = None
) -> Axes:
    """Speed-up against the operations that are left (percent): a line for each fixed share of the time, and dots.

    A share r of the dense model's time does not shrink; the rest shrinks with the operations.

    Args:
        fixed: the shares r.
        measured: name -> fraction of the operations left, and measured speed-ups.

    Raises:
        ValueError: a share outside 0 to 1, or more than three of either.
    """
    if len(fixed) > 3 or len(measured) > 3 or any(not 0 <= r < 1 for r in fixed):
        raise ValueError(f"fixed={list(fixed)}, {len(measured)} measured: at most three of each, shares in [0, 1)")
    ax = axes_or_new(ax)
    left = np.linspace(0.5, 0.75, 51)
    for r, line in zip(fixed, ("-", "--", ":"), strict=False):
        label = "ideal" if r == 0 else f"{100 * r:g} % of the time fixed"
        ax.plot(100 * left, 1 / (r + (1 - r) * left), linestyle=line, color=GRAY, label=label)
    for index, (name, (share, speeds)) in enumerate(measured.items()):
        values = np.asarray(speeds, dtype=float)
        hollow: Any = OKABE_ITO[index] if index % 2 == 0 else "none"
        ax.plot(
            np.full(len(values), 100 * share), values, linestyle="", marker=("o", "s", "^")[index],
            color=OKABE_ITO[index], markerfacecolor=hollow, label=name,
        )  # fmt: skip
    ax.invert_xaxis()
    ax.set_xlabel("operations left (%)")
    ax.set_ylabel("speed-up")
    ax.legend(loc="upper left")
    return ax
