"""Curves of scores over density: where they cross, one grid for two methods, and what the panels show."""

import numpy as np
import pandas as pd
import pytest

from mvp_lite.course import figures


def rows(*cells: tuple) -> pd.DataFrame:
    """(task, method, density, score) of one seed as rows of a results file."""
    return pd.DataFrame(cells, columns=["task", "method", "density", "score"]).assign(split="validation", seed=0)


RESULTS = rows(
    ("a", "dense", 1.0, 100.0),
    ("a", "magnitude", 0.01, 20.0),
    ("a", "magnitude", 0.1, 60.0),
    ("a", "magnitude", 1.0, 100.0),
    ("a", "movement", 0.01, 60.0),
    ("a", "movement", 1.0, 80.0),
    ("b", "magnitude", 0.1, 50.0),
)


def test_crossings_against_points_worked_out_by_hand():
    # Differences -2, 1: two thirds of the way in log(density). Then 1, -1: half of the way.
    found = figures.crossings([0.001, 1.0, 100.0], [0, 3, 0], [2, 2, 1])
    np.testing.assert_allclose(found, [0.1, 10.0])
    assert figures.crossings([0.1, 1.0], [1, 2], [0, 1]).size == 0
    assert figures.crossings([0.5], [1], [2]).size == 0


def test_a_tie_is_a_crossing_only_if_the_sides_differ():
    np.testing.assert_allclose(figures.crossings([0.1, 0.2, 0.4], [0, 5, 9], [1, 5, 8]), [0.2])
    assert figures.crossings([0.1, 0.2, 0.4], [0, 5, 7], [1, 5, 8]).size == 0  # touches
    assert figures.crossings([0.1, 0.2, 0.4, 0.8], [0, 5, 5, 9], [1, 5, 5, 8]).size == 0  # level for a stretch
    assert figures.crossings([0.1, 0.2], [5, 9], [5, 8]).size == 0  # level at the edge


@pytest.mark.parametrize(
    ("density", "first", "message"),
    [([0.1, 0.2], [1.0], "one list each"), ([0.2, 0.1], [1, 2], "ascending"), ([0.0, 0.1], [1, 2], "positive")],
)
def test_curves_that_cannot_be_compared_say_why(density, first, message):
    with pytest.raises(ValueError, match=message):
        figures.crossings(density, first, [1.0, 2.0])


def test_methods_of_different_densities_meet_on_one_grid():
    one = RESULTS[RESULTS["task"] == "a"]
    table = figures.common_densities(one, ["movement", "magnitude"])
    assert list(table.columns) == ["movement", "magnitude"] and table.index.name == "density"
    np.testing.assert_allclose(table.index, [0.01, 0.1, 1.0])
    np.testing.assert_allclose(table["movement"], [60.0, 70.0, 80.0])  # 0.1 is half of the way from 0.01 to 1
    np.testing.assert_allclose(table["magnitude"], [20.0, 60.0, 100.0])
    short = figures.common_densities(
        one[(one["method"] != "magnitude") | (one["density"] < 0.5)], ["movement", "magnitude"]
    )
    np.testing.assert_allclose(short.index, [0.01, 0.1])  # as far as both reach


def test_a_grid_that_cannot_be_made_says_why():
    one = RESULTS[RESULTS["task"] == "a"]
    with pytest.raises(ValueError, match=r"several tasks \(a, b\)"):
        figures.common_densities(RESULTS, ["magnitude"])
    with pytest.raises(ValueError, match=r"methods='l0' is not in results \(found: "):
        figures.common_densities(one, ["l0"])
    with pytest.raises(ValueError, match="do not overlap"):
        figures.common_densities(one[(one["method"] == "dense") | (one["density"] < 0.5)], ["dense", "magnitude"])


def test_a_panel_for_each_task_with_the_share_of_dense_and_the_crossing():
    axes = figures.score_curves(RESULTS, share=0.95, cross=("magnitude", "movement"))
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


def test_tasks_come_in_the_order_asked_for_and_scales_may_differ():
    axes = figures.score_curves(RESULTS, ["b", "a"], sharey=False)
    assert [ax.get_title() for ax in axes] == ["b", "a"]
    assert axes[0].get_ylim() != axes[1].get_ylim()
    with pytest.raises(ValueError, match="tasks='c' is not in results"):
        figures.score_curves(RESULTS, ["c"])


# --- tables -------------------------------------------------------------------------------------------------------


def test_comparable_rows_are_of_one_split_one_teacher_and_one_scope():
    cells = [
        ("validation", "movement", "local", False),
        ("validation", "movement", "global", False),
        ("validation", "l0", "global", False),
        ("validation", "l0", "global", True),
        ("validation", "dense", np.nan, False),
        ("holdout", "movement", "local", False),
    ]
    table = pd.DataFrame(cells, columns=["split", "method", "scope", "distil"])
    assert list(figures.comparable(table).index) == [0, 2, 4]
    assert list(figures.comparable(table, split="holdout").index) == [5]
    assert list(figures.comparable(table, distil=True).index) == [3]
    assert list(figures.comparable(table.drop(columns="split")).index) == [0, 2, 4, 5]
    with pytest.raises(ValueError, match="lacks the column 'scope'"):
        figures.comparable(table.drop(columns="scope"))


def test_pairs_are_aligned_by_task_and_seed():
    table = pd.concat([RESULTS, RESULTS[RESULTS["method"] == "magnitude"].assign(seed=1, score=7.0)])
    one, other = figures.paired(table, "movement", "magnitude", 0.01)
    assert one.index.tolist() == other.index.tolist() == ["a"] and one.columns.tolist() == [0, 1]
    np.testing.assert_array_equal(one, [[60.0, np.nan]])
    np.testing.assert_array_equal(other, [[20.0, 7.0]])
    np.testing.assert_array_equal(one - other, [[40.0, np.nan]])
    one, other = figures.paired(table, "movement", "magnitude", 0.1)
    assert one.isna().all(axis=None) and one.shape == (2, 2)
    with pytest.raises(ValueError, match=r"density=0.5: no run of movement or magnitude"):
        figures.paired(table, "movement", "magnitude", 0.5)


def test_a_table_has_the_spread_where_there_is_one():
    more = rows(("a", "magnitude", 0.1, 64.0)).assign(seed=1)
    table = figures.score_table(pd.concat([RESULTS, more]))
    assert list(table.columns) == ["dense", "movement", "magnitude"]
    assert table.loc[("a", 0.1), "magnitude"] == "62.0 ± 2.8"  # deviations of 2: the root of 8 / 1
    assert table.loc[("a", 0.01), "magnitude"] == "20.0" and table.loc[("b", 0.1), "movement"] == ""


def test_leads_are_paired_and_leave_out_seeds_that_lack_a_run():
    def runs(task, method, scores, density=0.1):
        found = rows(*[(task, method, density, score) for score in scores])
        return found.assign(seed=range(len(scores)))

    table = pd.concat(
        [
            runs("a", "magnitude", [50.0, 60.0, 70.0, 80.0]),
            runs("a", "movement", [52.0, 64.0, 76.0, 99.0]),
            runs("b", "magnitude", [10.0, 10.0, 10.0]),
            runs("b", "movement", [10.0, 10.0, 10.0, 10.0]),
            runs("a", "random", [1.0, 2.0], density=0.5),
        ]
    )
    found = figures.leads(table)
    assert found.index.tolist() == [("movement", 0.1)]
    # By seed 1, 2, 3 (the fourth lacks a run): mean 2, deviation 1; two of eight flips reach a sum of 6.
    np.testing.assert_allclose(found.iloc[0].astype(float), [2.0, 3**-0.5, 3, 3, 2 / 8])
    only = figures.leads(table, tasks=["a"])
    np.testing.assert_allclose(only.loc[("movement", 0.1), ["lead", "seeds"]].astype(float), [31 / 4, 4])
    back = figures.leads(table, against="movement")
    np.testing.assert_allclose(back.loc[("magnitude", 0.1), ["lead", "ahead"]].astype(float), [-2.0, 0])
    assert figures.leads(table[table["method"] == "magnitude"]).empty
