"""The table of the front page: our small-scale runs beside the numbers that the paper prints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mvp_lite.course.analysis import comparable

__all__ = ["beside_the_paper", "markdown"]

METHODS = {"magnitude": "magnitude", "l0": "L0", "movement": "movement", "soft_movement": "soft movement"}
_TASKS = {"sst2": "SST-2", "mnli": "MNLI", "squad": "SQuAD, F1", "squad1.1": "SQuAD, F1", "qqp": "QQP"}
_PAPER = ["MNLI", "SQuAD, F1"]  # of the paper's tasks those that our runs stand beside


def beside_the_paper(ours: Sequence[Path], paper: Path, *, distil: bool = False) -> pd.DataFrame:
    """One row for each task, source and density; mean scores in per cent, ± the sample's standard deviation.

    `ours` are results files, `paper` is `movement_tables.csv`. A cell that was not run is empty. Local cuts only.
    """
    frames = [pd.read_csv(path).assign(source="MiniLM, ours") for path in ours]
    printed = pd.read_csv(paper)
    printed = printed[printed["table"] == (3 if distil else 2)]
    frames.append(printed.assign(density=printed["kept"], scope="local", source="BERT-base, paper", split="validation"))
    found = pd.concat(frames)
    found["task"] = found["task"].map(_TASKS)
    plain, pruned = comparable(found), comparable(found, distil=distil)
    dense, pruned = plain[plain["method"] == "dense"], pruned[pruned["method"].isin(METHODS)]
    rows: list[dict[str, str]] = []
    groups: Any = pruned.groupby(["task", "source", "density"], sort=False)
    for (task, source, density), cell in groups:
        same = (dense["task"] == task) & (dense["source"] == source)
        row = {"task": task, "model": source, "kept": f"{100 * float(density):.3g} %", "dense": _score(dense[same])}
        rows.append(row | {label: _score(cell[cell["method"] == name]) for name, label in METHODS.items()})
    order = {name: place for place, name in enumerate(dict.fromkeys(_TASKS.values()))}
    rows.sort(key=lambda row: (order[row["task"]], row["model"] != "MiniLM, ours", -float(row["kept"][:-2])))
    wanted = {row["task"] for row in rows if row["model"] == "MiniLM, ours"} | set(_PAPER)
    return pd.DataFrame([row for row in rows if row["task"] in wanted])


def _score(cell: pd.DataFrame) -> str:
    scores = cell["score"].astype(float)
    spread = f" ± {scores.std():.1f}" if len(scores) > 1 else ""
    return f"{scores.mean():.1f}{spread}" if len(scores) else ""


def markdown(table: pd.DataFrame) -> str:
    """As a Markdown table."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
