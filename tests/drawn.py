"""Shared by the tests of figures and statistics: tables of runs, and reading back what a figure shows."""

from typing import Any

import pandas as pd


def line(ax: Any, label: str) -> Any:
    """The one line of `ax` with this label."""
    (found,) = [line for line in ax.get_lines() if line.get_label() == label]
    return found


def runs(*cells: tuple) -> pd.DataFrame:
    """(task, method, density, scores of seeds 0, 1, …) as rows of a results file."""
    found = [
        ("validation", task, method, density, seed, score)
        for task, method, density, *scores in cells
        for seed, score in enumerate(scores)
    ]
    return pd.DataFrame(found, columns=["split", "task", "method", "density", "seed", "score"])


#: Two seeds; task b lacks some cells of task a.
RESULTS = runs(
    ("a", "dense", 1.0, 98.0, 100.0),
    ("a", "scratch", 1.0, 40.0, 50.0),
    ("a", "movement", 0.1, 96.0, 98.0),
    ("a", "movement", 0.03, 90.0, 94.0),
    ("a", "magnitude", 0.1, 80.0, 84.0),
    ("a", "magnitude", 0.03, 60.0, 70.0),
    ("b", "movement", 0.03, 80.0, 82.0),
    ("b", "magnitude", 0.03, 40.0, 44.0),
)

#: One seed; the two methods have different densities, and their curves cross.
CURVES = runs(
    ("a", "dense", 1.0, 100.0),
    ("a", "magnitude", 0.01, 20.0),
    ("a", "magnitude", 0.1, 60.0),
    ("a", "magnitude", 1.0, 100.0),
    ("a", "movement", 0.01, 60.0),
    ("a", "movement", 1.0, 80.0),
    ("b", "magnitude", 0.1, 50.0),
)
