"""The table of the results page: our small-scale runs and the numbers that the paper prints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mvp_lite.course.analysis import comparable

__all__ = ["compare_with_paper", "markdown"]

METHODS = {"magnitude": "magnitude", "l0": "L0", "movement": "movement", "soft_movement": "soft movement"}
OURS, PAPER = "MiniLM, ours", "BERT-base, paper"
_TASKS = {"sst2": "SST-2", "mnli": "MNLI", "squad": "SQuAD, F1", "squad1.1": "SQuAD, F1", "qqp": "QQP"}
_PAPER_TASKS = ["MNLI", "SQuAD, F1"]  # shown whether or not we ran them


def compare_with_paper(ours: Sequence[Path], paper: Path, *, distill: bool = False) -> pd.DataFrame:
    """One row per task, source and density; mean scores in per cent, ± the sample's standard deviation.

    `ours` are results files, `paper` is `movement_tables.csv`. Hard masks are selected per matrix. A cell that was not
    run is empty.
    """
    frames = [pd.read_csv(path).assign(source=OURS) for path in ours]
    printed = pd.read_csv(paper)
    printed = printed[printed["table"] == (3 if distill else 2)]
    frames.append(printed.assign(density=printed["kept"], scope="local", source=PAPER, split="validation"))
    runs = pd.concat(frames)
    runs["task"] = runs["task"].map(_TASKS)
    plain, pruned = comparable(runs), comparable(runs, distil=distill)
    dense, pruned = plain[plain["method"] == "dense"], pruned[pruned["method"].isin(METHODS)]
    rows: list[dict[str, str]] = []
    cells: Any = pruned.groupby(["task", "source", "density"], sort=False)
    for (task, source, density), cell in cells:
        same = (dense["task"] == task) & (dense["source"] == source)
        row = {"task": task, "model": source, "kept": f"{100 * float(density):.3g} %", "dense": _score(dense[same])}
        rows.append(row | {label: _score(cell[cell["method"] == name]) for name, label in METHODS.items()})
    order = {name: place for place, name in enumerate(dict.fromkeys(_TASKS.values()))}
    rows.sort(key=lambda row: (order[row["task"]], row["model"] != OURS, -float(row["kept"][:-2])))
    shown = {row["task"] for row in rows if row["model"] == OURS} | set(_PAPER_TASKS)
    return pd.DataFrame([row for row in rows if row["task"] in shown])


def _score(cell: pd.DataFrame) -> str:
    scores = cell["score"].astype(float)
    deviation = f" ± {scores.std():.1f}" if len(scores) > 1 else ""
    return f"{scores.mean():.1f}{deviation}" if len(scores) else ""


def markdown(table: pd.DataFrame) -> str:
    """As a Markdown table."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
