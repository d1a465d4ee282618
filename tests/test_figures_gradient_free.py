"""Figures of pruning without labels draw the data they are given: points and lines, not pixels."""

import numpy as np
import pandas as pd
import pytest
from drawn import line
from matplotlib import pyplot as plt

from mvp_lite.course import figures
from mvp_lite.gradient_free import METHODS

LOOK = figures.UNLABELED_STYLE


def test_every_method_has_a_look_of_its_own():
    assert set(METHODS) <= set(LOOK)
    looks = [(look.color, look.marker) for look in LOOK.values()]
    assert len(set(looks)) == len(looks) and len({look.label for look in LOOK.values()}) == len(LOOK)
    assert len({look.marker for look in LOOK.values()}) == len(LOOK)  # also without color


def table(*rows):
    return pd.DataFrame(rows, columns=["method", "flops", "score"])


def test_score_against_operations_joins_means_and_shades_from_worst_to_best():
    rows = [("kcm", 0.6, 80.0), ("kcm", 0.6, 90.0), ("kcm", 0.5, 60.0), ("random", 0.6, 70.0), ("dense", 1.0, 99.0)]
    ax = figures.score_against_operations(table(*rows))
    assert np.allclose(line(ax, "KCM").get_xydata(), [[50, 60], [60, 85]])
    assert np.allclose(line(ax, "random").get_xydata(), [[60, 70]])
    assert list(line(ax, "dense").get_ydata()) == [99, 99]
    assert list(ax.get_xticks()) == [50, 60]
    assert ax.get_legend()
    given = plt.figure().add_subplot()
    assert figures.score_against_operations(table(*rows), given) is given and not given.get_legend()
    (band,) = ax.collections  # one seed has none
    box = band.get_datalim(ax.transData)
    assert (box.y0, box.y1) == (60, 90)


def test_operations_by_task_has_a_panel_each_and_one_legend():
    rows = [table(("kcm", 0.6, score), ("r2", 0.5, 40.0)).assign(task=f"t{score}", dense_score=score + 9.0)
            for score in (70.0, 80.0, 85.0, 90.0)]  # fmt: skip
    named = ["t80.0", "t70.0", "t85.0", "t90.0"]
    axes = figures.operations_by_task(pd.concat(rows), named)
    assert [ax.get_title() for ax in axes] == named
    assert [line(ax, "KCM").get_ydata().item() for ax in axes] == [80, 70, 85, 90]
    assert [line(ax, "dense").get_ydata()[0] for ax in axes] == [89, 79, 94, 99]
    assert len(axes[0].figure.axes) == 4  # the two empty places are gone
    assert [ax.get_ylabel() for ax in axes] == ["score (%)", "", "", "score (%)"]
    (legend,) = axes[0].figure.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == ["KCM", "R2", "dense"]


def test_neurons_by_layer():
    ax = figures.neurons_by_layer({"kcm": [3, 0], "fisher": [1, 4]}, 4)
    assert line(ax, "KCM").get_xydata().tolist() == [[1, 3], [2, 0]]
    assert line(ax, LOOK["fisher"].label).get_ydata().tolist() == [1, 4]
    assert ax.get_ylim() == (0, 4)


def test_choices_keep_their_order():
    ax = figures.choices(pd.DataFrame({"option": ["b", "a", "b"], "score": [1.0, 5.0, 3.0]}))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "a"]
    dots, mean, *others = ax.get_lines()
    assert dots.get_xydata().tolist() == [[1, 0], [3, 0]] and mean.get_xydata().tolist() == [[2, 0]]
    assert others[0].get_xydata().tolist() == [[5, 1]] and ax.yaxis_inverted()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.score_against_operations(table(("kmc", 0.6, 1.0))), "method='kmc'"),
        (lambda: figures.score_against_operations(table()), "no row"),
        (lambda: figures.score_against_operations(pd.DataFrame({"method": []})), "'flops'"),
        (lambda: figures.operations_by_task(table(("kcm", 0.6, 1.0)), ["t"]), "'task'"),
        (lambda: figures.operations_by_task(table(("kcm", 0.6, 1.0)).assign(task="t", dense_score=1.0), []), "none is"),
        (
            lambda: figures.operations_by_task(table(("kcm", 0.6, 1.0)).assign(task="t", dense_score=1.0), ["u"]),
            "u has no row",
        ),
        (lambda: figures.neurons_by_layer({}, 4), "no method"),
        (lambda: figures.neurons_by_layer({"kmc": [1]}, 4), "kmc method"),
        (lambda: figures.neurons_by_layer({"kcm": [1], "r2": [1, 2]}, 4), "different length"),
        (lambda: figures.neurons_by_layer({"kcm": [5]}, 4), "neurons=4"),
        (lambda: figures.choices(pd.DataFrame({"option": ["a"]})), "'score'"),
    ],
)
def test_bad_data_is_named(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
