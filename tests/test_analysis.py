"""Statistics of runs against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from drawn import CURVES, RESULTS, runs

from mvp_lite.course import analysis, figures


def test_summarize_against_numbers_worked_out_by_hand():
    tuning = runs(("a", "movement", 0.03, 1.0)).assign(split="holdout")
    table = analysis.summarize(pd.concat([runs(("a", "movement", 0.03, 90.0, 94.0, 95.0)), tuning]))
    assert list(table.columns) == ["task", "method", "density", "mean", "std", "low", "high", "seeds"]
    (row,) = table.itertuples(index=False)
    # mean 279 / 3; deviations -3, 1, 2 with squares 9 + 1 + 4 = 14, divided by 3 - 1
    assert row[:4] == ("a", "movement", 0.03, 93.0)
    assert row.std == pytest.approx(7**0.5)
    assert (row.low, row.high, row.seeds) == (90.0, 95.0, 3)


def test_one_seed_has_no_deviation():
    table = analysis.summarize(runs(("a", "dense", 1.0, 91.0)))
    assert np.isnan(table["std"].iloc[0]) and table["seeds"].iloc[0] == 1


def test_rows_come_in_one_order_whatever_the_file_has():
    cells = [("a", 0.03, "movement"), ("a", 0.03, "magnitude"), ("a", 0.1, "movement"), ("a", 0.1, "magnitude")]
    cells += [("a", 1.0, "dense"), ("a", 1.0, "scratch"), ("b", 0.03, "movement"), ("b", 0.03, "magnitude")]
    table = analysis.summarize(RESULTS.sample(frac=1, random_state=0))
    assert list(table[["task", "density", "method"]].itertuples(index=False, name=None)) == cells


def test_two_rows_for_one_seed_are_not_averaged():
    with pytest.raises(ValueError, match=r"two rows for task a, method dense, density 1.0, seed 0"):
        analysis.summarize(pd.concat([RESULTS, RESULTS.head(1)]))


def test_results_that_cannot_be_summarized_are_named():
    with pytest.raises(ValueError, match=r"lacks the column 'score' \(found: split, task"):
        analysis.summarize(RESULTS.drop(columns="score"))
    with pytest.raises(ValueError, match="no row with split 'validation'"):
        analysis.summarize(RESULTS.assign(split="holdout"))
    with pytest.raises(ValueError, match=r"method='sparta': must be one of dense, movement"):
        analysis.summarize(RESULTS.assign(method="sparta"))


def test_mean_over_tasks_is_of_each_seed_and_only_where_every_task_has_it():
    table = analysis.summarize(analysis.average_over_tasks(RESULTS))
    # Density .1 and the unpruned models are missing for b. By seed: (90 + 80)/2, (94 + 82)/2; (60 + 40)/2, (70 + 44)/2
    found = table[["task", "method", "density", "mean", "low", "high"]].itertuples(index=False, name=None)
    assert list(found) == [
        ("mean of 2 tasks", "movement", 0.03, 86.5, 85.0, 88.0),
        ("mean of 2 tasks", "magnitude", 0.03, 53.5, 50.0, 57.0),
    ]


def test_crossings_against_points_worked_out_by_hand():
    # Differences -2, 1: two thirds of the way in log(density). Then 1, -1: half of the way.
    found = analysis.crossings([0.001, 1.0, 100.0], [0, 3, 0], [2, 2, 1])
    np.testing.assert_allclose(found, [0.1, 10.0])
    assert analysis.crossings([0.1, 1.0], [1, 2], [0, 1]).size == 0
    assert analysis.crossings([0.5], [1], [2]).size == 0


def test_a_crossing_is_left_out_where_the_curves_stay_close():
    density, lead, zero = [0.01, 0.03, 0.1, 0.3, 0.9], np.array([7.0, 1.5, -2.0, -2.5, 0.3]), np.zeros(5)
    both = analysis.crossings(density, lead, zero)
    assert len(both) == 2
    np.testing.assert_array_equal(analysis.crossings(density, lead, zero, apart=2.5), both[:1])
    np.testing.assert_array_equal(analysis.crossings(density, zero, lead, apart=0.3), both)
    assert analysis.crossings(density, lead, zero, apart=2.6).size == 0
    tie = analysis.crossings([0.1, 0.2, 0.4], [-3, 0, 2], [0, 0, 0], apart=2)
    np.testing.assert_allclose(tie, [0.2])


def test_a_tie_is_a_crossing_only_if_the_sides_differ():
    np.testing.assert_allclose(analysis.crossings([0.1, 0.2, 0.4], [0, 5, 9], [1, 5, 8]), [0.2])
    assert analysis.crossings([0.1, 0.2, 0.4], [0, 5, 7], [1, 5, 8]).size == 0  # touches
    assert analysis.crossings([0.1, 0.2, 0.4, 0.8], [0, 5, 5, 9], [1, 5, 5, 8]).size == 0  # level for a stretch
    assert analysis.crossings([0.1, 0.2], [5, 9], [5, 8]).size == 0  # level at the edge


@pytest.mark.parametrize(
    ("density", "first", "message"),
    [([0.1, 0.2], [1.0], "one list each"), ([0.2, 0.1], [1, 2], "ascending"), ([0.0, 0.1], [1, 2], "positive")],
)
def test_curves_that_cannot_be_compared_say_why(density, first, message):
    with pytest.raises(ValueError, match=message):
        analysis.crossings(density, first, [1.0, 2.0])


def test_methods_of_different_densities_meet_on_one_grid():
    one = CURVES[CURVES["task"] == "a"]
    table = analysis.common_densities(one, ["movement", "magnitude"])
    assert list(table.columns) == ["movement", "magnitude"] and table.index.name == "density"
    np.testing.assert_allclose(table.index, [0.01, 0.1, 1.0])
    np.testing.assert_allclose(table["movement"], [60.0, 70.0, 80.0])  # 0.1 is half of the way from 0.01 to 1
    np.testing.assert_allclose(table["magnitude"], [20.0, 60.0, 100.0])
    short = analysis.common_densities(
        one[(one["method"] != "magnitude") | (one["density"] < 0.5)], ["movement", "magnitude"]
    )
    np.testing.assert_allclose(short.index, [0.01, 0.1])  # as far as both reach


def test_a_grid_that_cannot_be_made_says_why():
    one = CURVES[CURVES["task"] == "a"]
    with pytest.raises(ValueError, match=r"several tasks \(a, b\)"):
        analysis.common_densities(CURVES, ["magnitude"])
    with pytest.raises(ValueError, match=r"methods='l0' is not in results \(found: "):
        analysis.common_densities(one, ["l0"])
    with pytest.raises(ValueError, match="do not overlap"):
        analysis.common_densities(one[(one["method"] == "dense") | (one["density"] < 0.5)], ["dense", "magnitude"])


RUNS = pd.DataFrame(
    [(False, 0.01, 60.0), (False, 1.0, 80.0), (True, 0.1, 73.0), (True, 1.0, 81.0), (True, 0.001, 10.0)],
    columns=["distil", "kept", "score"],
).assign(task="a", method="l0")


def test_what_a_teacher_adds_is_read_off_at_the_same_density():
    gains = analysis.teacher_gains(RUNS)
    assert list(gains.columns) == ["task", "method", "kept", "with", "without", "gain"]
    np.testing.assert_allclose(gains["kept"], [0.01, 0.1, 1.0])  # 0.001 has no run without a teacher below it
    np.testing.assert_allclose(gains["without"], [60.0, 70.0, 80.0])
    np.testing.assert_allclose(gains["with"], [41.5, 73.0, 81.0])
    np.testing.assert_allclose(gains["gain"], [-18.5, 3.0, 1.0])
    more = pd.concat([RUNS, RUNS.assign(task="b", score=-RUNS["score"])])
    assert analysis.teacher_gains(more)["task"].tolist() == ["a"] * 3 + ["b"] * 3
    renamed = RUNS.rename(columns={"score": "other"})
    assert analysis.teacher_gains(renamed, "other")["gain"].tolist() == gains["gain"].tolist()


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (RUNS.drop(columns="kept"), "lacks the column 'kept'"),
        (RUNS[RUNS["distil"]], "no run without a teacher for a, l0"),
        (pd.concat([RUNS, RUNS.tail(1)]), "two runs of one density with a teacher"),
    ],
)
def test_gains_that_cannot_be_read_off(runs, message):
    with pytest.raises(ValueError, match=message):
        analysis.teacher_gains(runs)


def test_comparable_runs_are_of_one_split_one_teacher_and_one_scope():
    cells = [
        ("validation", "movement", "local", False),
        ("validation", "movement", "global", False),
        ("validation", "l0", "global", False),
        ("validation", "l0", "global", True),
        ("validation", "dense", np.nan, False),
        ("holdout", "movement", "local", False),
    ]
    table = pd.DataFrame(cells, columns=["split", "method", "scope", "distil"])
    assert list(analysis.comparable(table).index) == [0, 2, 4]
    assert list(analysis.comparable(table, split="holdout").index) == [5]
    assert list(analysis.comparable(table, distil=True).index) == [3]
    assert list(analysis.comparable(table.drop(columns="split")).index) == [0, 2, 4, 5]
    with pytest.raises(ValueError, match="lacks the column 'scope'"):
        analysis.comparable(table.drop(columns="scope"))


def test_pairs_are_aligned_by_task_and_seed():
    table = pd.concat([CURVES, CURVES[CURVES["method"] == "magnitude"].assign(seed=1, score=7.0)])
    one, other = analysis.paired(table, "movement", "magnitude", 0.01)
    assert one.index.tolist() == other.index.tolist() == ["a"] and one.columns.tolist() == [0, 1]
    np.testing.assert_array_equal(one, [[60.0, np.nan]])
    np.testing.assert_array_equal(other, [[20.0, 7.0]])
    np.testing.assert_array_equal(one - other, [[40.0, np.nan]])
    one, other = analysis.paired(table, "movement", "magnitude", 0.1)
    assert one.isna().all(axis=None) and one.shape == (2, 2)
    with pytest.raises(ValueError, match=r"density=0.5: no run of movement or magnitude"):
        analysis.paired(table, "movement", "magnitude", 0.5)


def test_a_score_table_has_deviations_where_there_are_several_seeds():
    more = runs(("a", "magnitude", 0.1, 64.0)).assign(seed=1)
    table = analysis.score_table(pd.concat([CURVES, more]))
    assert list(table.columns) == ["dense", "movement", "magnitude"]
    assert table.loc[("a", 0.1), "magnitude"] == "62.0 ± 2.8"  # deviations of 2: the root of 8 / 1
    assert table.loc[("a", 0.01), "magnitude"] == "20.0" and table.loc[("b", 0.1), "movement"] == ""


def test_leads_are_paired_and_leave_out_seeds_that_lack_a_run():
    def seeds(task, method, scores, density=0.1):
        found = runs(*[(task, method, density, score) for score in scores])
        return found.assign(seed=range(len(scores)))

    table = pd.concat(
        [
            seeds("a", "magnitude", [50.0, 60.0, 70.0, 80.0]),
            seeds("a", "movement", [52.0, 64.0, 76.0, 99.0]),
            seeds("b", "magnitude", [10.0, 10.0, 10.0]),
            seeds("b", "movement", [10.0, 10.0, 10.0, 10.0]),
            seeds("a", "random", [1.0, 2.0], density=0.5),
        ]
    )
    found = analysis.leads(table)
    assert found.index.tolist() == [("movement", 0.1)]
    # By seed 1, 2, 3 (the fourth lacks a run): mean 2, deviation 1; two of eight flips reach a sum of 6.
    np.testing.assert_allclose(found.iloc[0].astype(float), [2.0, 3**-0.5, 3, 3, 2 / 8])
    only = analysis.leads(table, tasks=["a"])
    np.testing.assert_allclose(only.loc[("movement", 0.1), ["lead", "seeds"]].astype(float), [31 / 4, 4])
    back = analysis.leads(table, against="movement")
    np.testing.assert_allclose(back.loc[("magnitude", 0.1), ["lead", "ahead"]].astype(float), [-2.0, 0])
    assert analysis.leads(table[table["method"] == "magnitude"]).empty


def test_names_of_recorded_runs():
    rows = [
        ("kcm", True, 0, None),
        ("kcm", True, 512, ""),
        ("r2d2", False, 0, "sigma=0.5"),
        ("weight_magnitude", True, 0, None),
        ("fisher", True, 512, "heads=True"),
        ("fisher", True, 512, None),
    ]
    names = analysis.unlabeled_names(pd.DataFrame(rows, columns=["method", "scale", "labelled", "options"]))
    assert names.tolist() == ["kcm", "kcm_labels", "r2d2", "weight_magnitude_scaled", "fisher_heads", "fisher"]
    assert set(names) <= set(figures.UNLABELED_STYLE)
    with pytest.raises(ValueError, match="'options'"):
        analysis.unlabeled_names(pd.DataFrame({"method": ["kcm"], "scale": [True], "labelled": [0]}))
