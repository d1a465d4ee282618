"""Figures draw the data they are given: lines, bars and dots are compared with it, not pixels."""

import base64

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from mvp_lite.course import figures
from mvp_lite.pruner import METHODS


def rows(*cells: tuple) -> pd.DataFrame:
    """(task, method, density, scores of seeds 0, 1, …) as rows of a results file."""
    found = [
        ("validation", task, method, density, seed, score)
        for task, method, density, scores in cells
        for seed, score in enumerate(scores)
    ]
    return pd.DataFrame(found, columns=["split", "task", "method", "density", "seed", "score"])


RESULTS = rows(
    ("a", "dense", 1.0, (98.0, 100.0)),
    ("a", "scratch", 1.0, (40.0, 50.0)),
    ("a", "movement", 0.1, (96.0, 98.0)),
    ("a", "movement", 0.03, (90.0, 94.0)),
    ("a", "magnitude", 0.1, (80.0, 84.0)),
    ("a", "magnitude", 0.03, (60.0, 70.0)),
    ("b", "movement", 0.03, (80.0, 82.0)),
    ("b", "magnitude", 0.03, (40.0, 44.0)),
)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def line(ax, label):
    (found,) = [line for line in ax.get_lines() if line.get_label() == label]
    return found


# --- preparing the data -------------------------------------------------------------------------------------------


def test_summarise_against_numbers_worked_out_by_hand():
    tuning = rows(("a", "movement", 0.03, (1.0,))).assign(split="holdout")
    table = figures.summarise(pd.concat([rows(("a", "movement", 0.03, (90.0, 94.0, 95.0))), tuning]))
    assert list(table.columns) == ["task", "method", "density", "mean", "std", "low", "high", "seeds"]
    (row,) = table.itertuples(index=False)
    # mean 279 / 3; deviations -3, 1, 2 with squares 9 + 1 + 4 = 14, divided by 3 - 1
    assert row[:4] == ("a", "movement", 0.03, 93.0)
    assert row.std == pytest.approx(7**0.5)
    assert (row.low, row.high, row.seeds) == (90.0, 95.0, 3)


def test_one_seed_has_no_spread():
    table = figures.summarise(rows(("a", "dense", 1.0, (91.0,))))
    assert np.isnan(table["std"].iloc[0]) and table["seeds"].iloc[0] == 1


def test_rows_come_in_one_order_whatever_the_file_has():
    cells = [("a", 0.03, "movement"), ("a", 0.03, "magnitude"), ("a", 0.1, "movement"), ("a", 0.1, "magnitude")]
    cells += [("a", 1.0, "dense"), ("a", 1.0, "scratch"), ("b", 0.03, "movement"), ("b", 0.03, "magnitude")]
    table = figures.summarise(RESULTS.sample(frac=1, random_state=0))
    assert list(table[["task", "density", "method"]].itertuples(index=False, name=None)) == cells


def test_two_rows_for_one_seed_are_not_averaged():
    with pytest.raises(ValueError, match=r"two rows for task a, method dense, density 1.0, seed 0"):
        figures.summarise(pd.concat([RESULTS, RESULTS.head(1)]))


def test_results_that_cannot_be_drawn_say_why():
    with pytest.raises(ValueError, match=r"lacks the column 'score' \(found: split, task"):
        figures.summarise(RESULTS.drop(columns="score"))
    with pytest.raises(ValueError, match="no row with split 'validation'"):
        figures.summarise(RESULTS.assign(split="holdout"))
    with pytest.raises(ValueError, match=r"method='sparta': one of dense, movement"):
        figures.summarise(RESULTS.assign(method="sparta"))


def test_mean_over_tasks_is_of_each_seed_and_only_where_every_task_has_it():
    table = figures.summarise(figures.average_over_tasks(RESULTS))
    # Density .1 and the unpruned models are missing for b. By seed: (90 + 80)/2, (94 + 82)/2; (60 + 40)/2, (70 + 44)/2
    found = table[["task", "method", "density", "mean", "low", "high"]].itertuples(index=False, name=None)
    assert list(found) == [
        ("mean of 2 tasks", "movement", 0.03, 86.5, 85.0, 88.0),
        ("mean of 2 tasks", "magnitude", 0.03, 53.5, 50.0, 57.0),
    ]


# --- figures ------------------------------------------------------------------------------------------------------


def test_methods_are_told_apart_without_colour():
    assert set(figures.METHOD_STYLE) == {"dense", "scratch", *METHODS}
    looks = figures.METHOD_STYLE.values()
    for key in ("label", "colour", "marker", "line"):
        # dense is never drawn with the line of a pruned method beside it: it is a horizontal line
        shown = [getattr(look, key) for name, look in figures.METHOD_STYLE.items() if key != "line" or name != "dense"]
        assert len(set(shown)) == len(shown), key
    assert all(look.colour.startswith("#") for look in looks)


def test_score_against_density_draws_means_and_the_range_of_the_seeds():
    given = plt.subplots()[1]
    ax = figures.score_against_density(RESULTS, given, tasks=["a"])
    assert ax is given
    movement = line(ax, "movement")
    np.testing.assert_allclose(movement.get_xydata(), [(3, 92), (10, 97)])
    assert to_hex(movement.get_color()) == figures.METHOD_STYLE["movement"].colour.lower()
    assert movement.get_marker() == figures.METHOD_STYLE["movement"].marker
    np.testing.assert_allclose(line(ax, "magnitude").get_xydata(), [(3, 65), (10, 82)])
    assert set(line(ax, "dense (nothing pruned)").get_ydata()) == {99.0}
    assert set(line(ax, "dense, not pretrained").get_ydata()) == {45.0}
    bands = [{tuple(map(float, point)) for point in band.get_paths()[0].vertices} for band in ax.collections]
    assert {(3, 90), (3, 94), (10, 96), (10, 98)} <= bands[0]
    assert {(3, 60), (3, 70), (10, 80), (10, 84)} <= bands[1]
    assert ax.get_xscale() == "log" and list(ax.get_xticks()) == [3, 10]
    assert "%" in ax.get_xlabel() and "%" in ax.get_ylabel()


def test_several_tasks_are_averaged_and_one_seed_has_no_band():
    one = RESULTS[RESULTS["seed"] == 0]
    ax = figures.score_against_density(one)
    np.testing.assert_allclose(line(ax, "movement").get_xydata(), [(3, 85)])
    assert not ax.collections and ax.get_title() == "mean of 2 tasks"
    with pytest.raises(ValueError, match=r"tasks='c' is not in results \(found: a, b\)"):
        figures.score_against_density(RESULTS, tasks=["c"])


def test_score_by_task_has_a_panel_for_each_task_and_one_legend():
    axes = figures.score_by_task(RESULTS, ["b", "a"])
    assert [ax.get_title() for ax in axes] == ["b", "a"]
    np.testing.assert_allclose(line(axes[0], "movement").get_xydata(), [(3, 81)])
    tuning = rows(("c", "movement", 0.03, (1.0,))).assign(split="holdout")
    assert len(figures.score_by_task(pd.concat([RESULTS, tuning]))) == 2, (
        "a task that is only tuned so far has no panel"
    )
    (legend,) = axes[0].figure.legends
    assert len(legend.get_texts()) == 4 and all(ax.get_legend() is None for ax in axes)


def test_recorded_bars_show_the_mean_and_every_seed():
    ax = figures.recorded_bars(RESULTS, "a", 0.03, source="some.csv")
    assert [bar.get_width() for bar in ax.patches] == [92, 65, 99, 45]
    assert [list(dots.get_xdata()) for dots in ax.get_lines()] == [[90, 94], [60, 70], [98, 100], [40, 50]]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[:2] == ["movement (2 seeds)", "magnitude (2 seeds)"]
    assert "recorded in some.csv" in ax.get_title()
    with pytest.raises(ValueError, match=r"density=0.1 was not recorded for b \(found: 0.03\)"):
        figures.recorded_bars(RESULTS, "b", 0.1)


def test_weights_moved_keeps_kept_and_pruned_apart():
    before = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
    after = torch.tensor([[1.5, -2.5], [2.0, 0.0]])
    kept = torch.tensor([[True, False], [False, True]])
    ax = figures.weights_moved(before, after, kept, method="magnitude")
    np.testing.assert_array_equal(line(ax, "kept").get_xydata(), [(1.0, 0.5), (-4.0, 4.0)])
    np.testing.assert_array_equal(line(ax, "pruned").get_xydata(), [(-2.0, -0.5), (3.0, -1.0)])
    as_printed = figures.weights_moved(before, after, kept, method="magnitude", change=False)
    np.testing.assert_array_equal(line(as_printed, "kept").get_xydata(), [(1.0, 1.5), (-4.0, 0.0)])
    assert line(ax, "kept").get_marker() != line(ax, "pruned").get_marker()
    assert ax.get_title() == "magnitude"
    with pytest.raises(ValueError, match=r"shapes \(2, 2\), \(2, 2\), \(2,\)"):
        figures.weights_moved(before, after, kept[0])
    with pytest.raises(ValueError, match="method='sparta'"):
        figures.weights_moved(before, after, kept, method="sparta")


def test_training_draws_loss_and_density():
    history = pd.DataFrame({"step": [0, 1, 2], "loss": [1.1, 0.9, 0.4], "density": [1.0, 0.5, 0.03]})
    ax = figures.training(history)
    np.testing.assert_allclose(line(ax, "loss (left)").get_xydata(), [(0, 1.1), (1, 0.9), (2, 0.4)])
    (right,) = [other for other in ax.figure.axes if other is not ax]
    np.testing.assert_allclose(line(right, "kept (right)").get_ydata(), [100, 50, 3])
    with pytest.raises(ValueError, match="history lacks the column 'loss'"):
        figures.training(history.drop(columns="loss"))


def test_show_gives_the_picture_its_description(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: shown.append((data, options)))
    ax = plt.subplots()[1]
    figures.show([ax], alt="A line.")
    figures.show(plt.subplots()[1], alt="A line.")
    (picture, options), (caption, _) = shown[:2]
    assert options["metadata"]["image/png"]["alt"] == "A line." and caption["text/markdown"] == "*A line.*"
    assert shown[2][0]["image/png"] == picture["image/png"], "the bytes of a figure repeat"
    figures.save(plt.subplots()[1], tmp_path / "a.png")
    assert base64.b64decode(picture["image/png"]) == (tmp_path / "a.png").read_bytes()
    assert not plt.get_fignums()
    with pytest.raises(ValueError, match="alt=' ': describe the figure"):
        figures.show(ax, alt=" ")
