"""The audit's figures draw the rows they are given, and ask for what they need."""

import pandas as pd
import pytest

from mvp_lite import course
from mvp_lite.paths import data_path

RUNS = pd.read_csv(data_path("paper", "released_runs.csv")).query("task == 'qqp'")
CELLS = pd.read_csv(data_path("paper", "movement_tables.csv")).query("task == 'qqp'")


def drawn(ax):
    return {(line.get_label(), line.get_marker()): line.get_xydata().tolist() for line in ax.get_lines()}


def test_by_method():
    runs, cells = RUNS[~RUNS["distil"]], CELLS[CELLS["table"] == 2]
    ax = course.figures.printed_and_released(runs, cells)
    lines = drawn(ax)
    mine = runs[runs["method"] == "movement"].sort_values("kept")
    assert lines["movement", "o"] == [[100 * v, s] for v, s in zip(mine["kept"], mine["score"], strict=True)]
    assert sorted(lines["_printed", "o"]) == [[3, 85.6], [10, 89.1]]
    assert len(lines) == 4 * 2 + 1 and ax.get_xscale() == "log" and ax.get_title() == "qqp"


def test_with_and_without_a_teacher():
    runs, cells = (frame[frame["method"] == "soft_movement"] for frame in (RUNS, CELLS))
    ax = course.figures.printed_and_released(runs, cells, by="distil", ticks=(1, 3, 10))
    lines = drawn(ax)
    assert sorted(lines["_printed", "s"]) == [[3, 89.1], [10, 90.2]] and len(lines) == 4
    assert max(x for x, _ in lines["no teacher", "o"]) < 11.5
    assert "printed" in ax.get_legend().get_title().get_text()


def test_task_by_task():
    runs = pd.read_csv(data_path("paper", "released_runs.csv")).query("scope == 'local' and not distil")
    cells = pd.read_csv(data_path("paper", "movement_tables.csv")).query("table == 2")
    axes = course.figures.printed_by_task(runs, cells)
    assert [ax.get_title() for ax in axes] == ["squad1.1", "mnli", "qqp"]
    assert [len(ax.get_lines()) for ax in axes] == [2 * 2 + 1] * 3
    (legend,) = axes[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["movement", "magnitude", "dense (nothing pruned)"]


def test_a_share_of_the_dense_score():
    axes = course.figures.printed_by_task(RUNS[~RUNS["distil"]], CELLS[CELLS["table"] == 2], share=0.95)
    (level,) = [line for line in axes[0].get_lines() if line.get_label() == "95 % of dense"]
    assert set(level.get_ydata()) == {0.95 * 91.4}


@pytest.mark.parametrize(
    ("runs", "cells", "by", "message"),
    [
        (RUNS, CELLS, "method", "lines for method"),
        (RUNS[~RUNS["distil"]], CELLS, "distil", "lines for distil False"),
        (RUNS, CELLS, "task", "by='task'"),
        (RUNS.iloc[:0], CELLS, "method", "expected one"),
        (RUNS[~RUNS["distil"]], CELLS.assign(task="mnli"), "method", "expected one"),
    ],
)
def test_what_cannot_be_drawn(runs, cells, by, message):
    with pytest.raises(ValueError, match=message):
        course.figures.printed_and_released(runs, cells, by=by)


DROPS = pd.DataFrame(
    [("qqp", 0.6, 1.5, 2.0), ("qqp", 0.7, 0.5, 0.75), ("mnli", 0.6, 7.0, 4.5), ("mnli", 0.7, 3.0, 1.0)],
    columns=["task", "flops", "bert-base", "distilbert"],
).melt(["task", "flops"], var_name="model", value_name="lost")


def test_points_lost():
    ax = course.figures.points_lost(DROPS, limit=4)
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert list(lines) == ["BERT-base, 60 %", "BERT-base, 70 %", "DistilBERT, 60 %", "DistilBERT, 70 %", "claimed"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["qqp", "mnli"]  # the hardest at the top
    x, y = lines["DistilBERT, 60 %"].get_data()
    assert dict(zip([round(place) for place in y], x, strict=True)) == {0: 2.0, 1: 4.5}
    assert (y < lines["BERT-base, 60 %"].get_ydata()).all()
    assert lines["BERT-base, 70 %"].get_markerfacecolor() == "white" != lines["BERT-base, 60 %"].get_markerfacecolor()
    assert set(lines["claimed"].get_xdata()) == {4}
    bars = [tuple(bar[:, 0]) for bars in ax.collections for bar in bars.get_segments()]
    assert sorted(bars) == [(0.5, 1.5), (0.75, 2.0), (1.0, 4.5), (3.0, 7.0)]


@pytest.mark.parametrize("drops", [DROPS.iloc[:0], DROPS.assign(model="bert-large")])
def test_points_lost_of_what(drops):
    with pytest.raises(ValueError, match="expected some of bert-base, distilbert"):
        course.figures.points_lost(drops, limit=4)
