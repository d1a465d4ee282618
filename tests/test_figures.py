"""Figures draw the data they are given: lines, bars, dots and cells are compared with it, not pixels."""

import base64

import numpy as np
import pandas as pd
import pytest
from drawn import CURVES, RESULTS, line, runs
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from mvp_lite.course import analysis, figures
from mvp_lite.methods import METHODS


def test_methods_differ_without_color():
    assert set(figures.METHOD_STYLE) == {"dense", "scratch", analysis.FROM_MAGNITUDE, *METHODS}
    assert f"movement magnitude_init={METHODS['movement'].start_from_magnitude}" == analysis.FROM_MAGNITUDE
    looks = figures.METHOD_STYLE.values()
    for key in ("label", "color", "marker", "line"):
        # The dense model is a horizontal line, so it may share a line style with a pruned method.
        shown = [getattr(look, key) for name, look in figures.METHOD_STYLE.items() if key != "line" or name != "dense"]
        assert len(set(shown)) == len(shown), key
    assert all(look.color.startswith("#") for look in looks)


def test_score_against_density_draws_means_and_seeds():
    given = plt.subplots()[1]
    ax = figures.score_against_density(RESULTS, given, tasks=["a"])
    assert ax is given
    movement = line(ax, "movement")
    np.testing.assert_allclose(movement.get_xydata(), [(3, 92), (10, 97)])
    assert to_hex(movement.get_color()) == figures.METHOD_STYLE["movement"].color.lower()
    assert movement.get_marker() == figures.METHOD_STYLE["movement"].marker
    np.testing.assert_allclose(line(ax, "magnitude").get_xydata(), [(3, 65), (10, 82)])
    assert set(line(ax, "dense (nothing pruned)").get_ydata()) == {99.0}
    assert set(line(ax, "dense, not pretrained").get_ydata()) == {45.0}
    dots = [drawn for drawn in ax.lines if drawn.get_label() == "_one seed"]
    assert [sorted(drawn.get_ydata()) for drawn in dots] == [[90, 94, 96, 98], [60, 70, 80, 84]]
    assert all(min(abs(x / kept - 1) for kept in (3, 10)) < 0.2 for drawn in dots for x in drawn.get_xdata())
    assert {drawn.get_color() for drawn in dots} == {movement.get_color(), line(ax, "magnitude").get_color()}
    assert ax.get_xscale() == "log" and list(ax.get_xticks()) == [3, 10]
    assert "%" in ax.get_xlabel() and "%" in ax.get_ylabel()


def test_several_tasks_are_averaged_and_one_seed_is_drawn_once():
    one = RESULTS[RESULTS["seed"] == 0]
    ax = figures.score_against_density(one)
    np.testing.assert_allclose(line(ax, "movement").get_xydata(), [(3, 85)])
    assert len(ax.lines) == 2 and ax.get_title() == "mean of 2 tasks"
    with pytest.raises(ValueError, match=r"tasks='c' is not in results \(found: a, b\)"):
        figures.score_against_density(RESULTS, tasks=["c"])


def test_score_by_task_has_a_panel_for_each_task_and_one_legend():
    axes = figures.score_by_task(RESULTS, ["b", "a"])
    assert [ax.get_title() for ax in axes] == ["b", "a"]
    np.testing.assert_allclose(line(axes[0], "movement").get_xydata(), [(3, 81)])
    tuning = runs(("c", "movement", 0.03, 1.0)).assign(split="holdout")
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


def test_a_panel_for_each_task_with_the_share_of_dense_and_the_crossing():
    axes = figures.score_curves(CURVES, share=0.95, cross=("magnitude", "movement"))
    assert [ax.get_title() for ax in axes] == ["a", "b"]
    lines = {line.get_label(): line for line in axes[0].get_lines()}
    np.testing.assert_allclose(lines["magnitude"].get_xydata(), [(1, 20), (10, 60), (100, 100)])
    assert set(lines["95 % of dense"].get_ydata()) == {95.0}
    upright = [line.get_xdata()[0] for line in axes[0].get_lines() if len(set(line.get_xdata())) == 1]
    # Differences -40, -10, 20 at 1, 10 and 100 %: a third of the last stretch.
    np.testing.assert_allclose(upright, [10 ** (4 / 3)])
    assert [text.get_text() for text in axes[0].texts] == ["22 %"]
    assert not axes[1].texts and len(axes[0].figure.legends) == 1
    assert axes[0].get_xscale() == "log" and list(axes[0].get_xticks()) == [1, 3, 10, 30, 100]


def test_only_crossings_with_curves_apart_on_both_sides_are_marked():
    # Differences -40, -10, 20 at 1, 10 and 100 %.
    marked = [figures.score_curves(CURVES, cross=("magnitude", "movement"), apart=points)[0] for points in (20, 21)]
    assert [len(ax.texts) for ax in marked] == [1, 0]


LEADS = pd.DataFrame(
    [
        ("movement", "toy", 300, -20.0),
        ("movement", "toy", 300, -10.0),
        ("movement", "toy", 900, 1.0),
        ("movement", "BERT", 50_000, 3.0),
        ("soft_movement", "BERT", 50_000, 4.0),
    ],
    columns=["method", "source", "steps", "lead"],
)


def test_leads_by_steps_join_means_and_show_every_seed():
    hard, soft = figures.leads_by_steps(LEADS, {"movement": "from 0"})
    assert (hard.get_title(), soft.get_title()) == ("from 0", "soft movement")
    np.testing.assert_allclose(line(hard, "toy").get_xydata(), [(300, -15), (900, 1)])
    np.testing.assert_allclose(line(soft, "BERT").get_xydata(), [(50_000, 4)])
    dots = [drawn for drawn in hard.get_lines() if drawn.get_label() == "_one seed"]
    assert [list(drawn.get_ydata()) for drawn in dots] == [[-20, -10], []]
    assert list(dots[0].get_xdata()) == pytest.approx([1.1 * 300] * 2)
    looks = [(line(hard, name).get_marker(), line(hard, name).get_linestyle()) for name in ("toy", "BERT")]
    assert looks[0][0] != looks[1][0] and line(soft, "BERT").get_marker() == looks[1][0]
    assert hard.get_xscale() == "log" and list(hard.get_xticks()) == [100, 1000, 10_000, 100_000]
    (legend,) = hard.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["toy", "BERT"]


def test_leads_by_steps_need_rows_and_known_methods():
    with pytest.raises(ValueError, match="leads holds no row"):
        figures.leads_by_steps(LEADS.iloc[:0])
    with pytest.raises(ValueError, match="method='other'"):
        figures.leads_by_steps(LEADS.assign(method="other"))
    with pytest.raises(ValueError, match="steps"):
        figures.leads_by_steps(LEADS.drop(columns="steps"))


def test_tasks_come_in_the_order_asked_for_and_scales_may_differ():
    axes = figures.score_curves(CURVES, ["b", "a"], sharey=False)
    assert [ax.get_title() for ax in axes] == ["b", "a"]
    assert axes[0].get_ylim() != axes[1].get_ylim()
    with pytest.raises(ValueError, match="tasks='c' is not in results"):
        figures.score_curves(CURVES, ["c"])


def test_show_gives_the_picture_its_description(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: shown.append((data, options)))
    ax = plt.subplots()[1]
    figures.show([ax], alt="A line.")
    figures.show(plt.subplots()[1])
    (picture, options), (again, without) = shown
    assert options["metadata"]["image/png"]["alt"] == "A line." and not without["metadata"]
    assert again["image/png"] == picture["image/png"], "the bytes of a figure repeat"
    figures.save(plt.subplots()[1], tmp_path / "a.png")
    assert base64.b64decode(picture["image/png"]) == (tmp_path / "a.png").read_bytes()
    assert not plt.get_fignums()
