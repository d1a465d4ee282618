"""Figures of notebook 13 draw the data they are given."""

import pandas as pd
import pytest
from drawn import line
from matplotlib import pyplot as plt

from mvp_lite.course import figures


def lengths(ax):
    return [round(bar.get_width(), 6) for bar in ax.patches]


def names(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def sizes(**changes):
    rows = [("sst2", 0.1, "dense", 90.0), ("sst2", 0.1, "exact", 30.0), ("sst2", 0.03, "exact", 25.0)]
    rows += [("sst2", 0.03, "int8", 12.0), ("other", 0.1, "dense", 1.0)]
    return pd.DataFrame(rows, columns=["task", "density", "stored", "file_mb"]).assign(**changes)


def test_gains_show_files_and_speed():
    times = {
        "10 % of the weights": {"masked": {"speed_up": 1.01}, "csr": {"speed_up": 2.0}},
        "3 % of the weights": {"csr": {"speed_up": 3.0}},
        "a quarter of the heads and neurons": {"shrunk": {"speed_up": 2.5}},
    }
    files, speed = figures.gains(sizes(), times)
    assert lengths(files) == [90, 30, 25, 12] and names(files)[0] == "dense"
    assert lengths(speed) == [1, 1.01, 2, 3, 2.5] and speed.get_xlim()[1] > 3
    assert [text.get_text().strip() for text in files.texts] == ["90", "30", "25", "12"]
    with pytest.raises(ValueError, match="no files of the task sst2"):
        figures.gains(sizes(task="mnli"), times)
    with pytest.raises(ValueError, match="lacks the column 'stored'"):
        figures.gains(sizes().drop(columns="stored"), times)


def test_file_sizes_have_a_line_for_the_least():
    ax = figures.file_sizes({"dense": 100.0, "sparse": 20.0}, 18.0, plt.subplots()[1])
    assert lengths(ax) == [100, 20]
    assert list(line(ax, "the least for exact values: 18 kB").get_xdata()) == [18, 18]


def test_speed_ups_have_quartiles():
    table = pd.DataFrame({"variant": ["dense", "csr"], "speed_up": [1.0, 2.0], "low": [1.0, 1.8], "high": [1.0, 2.3]})
    ax = figures.speed_ups(table)
    assert lengths(ax) == [1, 2] and names(ax) == ["dense", "csr"]
    with pytest.raises(ValueError, match="lacks the column 'low'"):
        figures.speed_ups(table.drop(columns="low"))


def test_a_panel_for_each_run():
    history = pd.DataFrame({"step": range(8), "loss": [1.0] * 5 + [2.0] * 3, "density": [1.0, 0.5] * 4})
    axes = figures.runs({"first": history, "second": history, "third": history, "fourth": history})
    assert [ax.get_title() for ax in axes[:4]] == ["first", "second", "third", "fourth"]
    assert [ax.get_visible() for ax in axes] == [True] * 4 + [False] * 2
    assert list(line(axes[1], "density").get_ydata()) == [1.0, 0.5] * 4
    assert list(line(axes[0], "loss (mean of 5 steps)").get_ydata())[-1] == pytest.approx(1.6)
    with pytest.raises(ValueError, match=r"histories\['first'\] lacks the column 'loss'"):
        figures.runs({"first": history.drop(columns="loss")})
