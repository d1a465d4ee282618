"""Figures of swaps draw the data they are given."""

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import line

from mvp_lite.course import figures

BEFORE = torch.tensor([[0.5, 0.3], [0.1, -0.2]])
AFTER = torch.tensor([[0.2, 0.7], [0.19, -0.3]])


def test_a_cross_marks_the_first_loss_after_a_swap():
    ax = figures.loss_and_swaps([3.0, 2.0, 4.0, 1.0], [5, 5, 0, 0])
    assert line(ax, "just after a swap").get_xydata().tolist() == [[2, 4.0]]
    assert ax.get_lines()[0].get_ydata().tolist() == [3.0, 2.0, 4.0, 1.0]
    with pytest.raises(ValueError, match=r"kept has shape \(3,\), expected \(4,\)"):
        figures.loss_and_swaps([3.0, 2.0, 4.0, 1.0], [5, 5, 0])


def test_overtaking_joins_scores_and_names_those_that_change_places():
    kept, kept_after = torch.tensor([[1, 0], [0, 0]]), torch.tensor([[0, 1], [0, 0]])
    ax = figures.overtaking(BEFORE, AFTER, kept, kept_after)
    for label, ends in (("leaves", (0.5, 0.2)), ("enters", (0.3, 0.7))):
        np.testing.assert_allclose(line(ax, label).get_xydata(), [(0, ends[0]), (1, ends[1])], rtol=1e-6)
    assert sum(found.get_label() == "pruned" for found in ax.get_lines()) == 2
    assert [text.get_text() for text in ax.texts] == ["(1, 2)", "(1, 1)"], "row and column, from 1, from the top"
    markers = [found.get_marker() for found in ax.get_lines() if len(found.get_xdata()) == 1]
    assert markers.count("o") == 2 and markers.count("x") == 6
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["pruned", "leaves", "enters"]
    assert len({found.get_linestyle() for found in ax.get_lines() if len(found.get_xdata()) == 2}) == 3
    with pytest.raises(ValueError, match=r"after has shape \(2,\), expected \(2, 2\)"):
        figures.overtaking(BEFORE, AFTER[0], kept, kept_after)


def test_names_of_weights_that_end_close_together_do_not_overlap():
    after = torch.tensor([[0.2, 0.21], [0.1, -0.3]])
    ax = figures.overtaking(BEFORE, after, torch.tensor([[1, 0], [0, 0]]), torch.tensor([[0, 1], [0, 0]]))
    first, second = (text.xy[1] for text in ax.texts)
    assert first == pytest.approx(0.21) and first - second == pytest.approx(0.06 * 0.8)


def test_along_swap_draws_the_loss_and_its_tangent():
    before, after = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 2.0], dtype=torch.float64)
    ax = figures.along_swap(lambda a: 0.5 * a.square().sum(), before, after)
    tangent, true = line(ax, "first order (tangent)").get_ydata(), line(ax, "true loss").get_ydata()
    assert (tangent[0], true[0]) == (0, 0) and tangent[-1] == pytest.approx(-1.0)
    assert true[-1] == pytest.approx(1.5) and true[50] == pytest.approx(0.5 * (0.25 + 1) - 0.5)
    assert [text.get_text() for text in ax.texts] == ["−1", "+1.5"]
    with pytest.raises(ValueError, match=r"after has shape \(1,\), expected \(2,\)"):
        figures.along_swap(torch.sum, before, after[:1])


def test_first_and_true_has_crosses_where_the_loss_rises():
    ax = figures.first_and_true([-3.0, -2.0, -1.0], [-2.0, 0.5, -1.0])
    assert line(ax, "loss rises").get_xydata().tolist() == [[-2.0, 0.5]]
    assert line(ax, "loss falls").get_xydata().tolist() == [[-3.0, -2.0], [-1.0, -1.0]]
    assert line(ax, "loss rises").get_marker() != line(ax, "loss falls").get_marker()
    assert line(ax, "equal").get_slope() == 1
    with pytest.raises(ValueError, match=r"true has shape \(2,\), expected \(3,\)"):
        figures.first_and_true([-3.0, -2.0, -1.0], [-2.0, 0.5])


def test_race_marks_where_the_second_overtakes():
    ax = figures.race({"one": [1.0, 1.0, 2.0, 2.0, 2.0], "two": [0.5, 1.1, 1.2, 2.1, 2.2]}, first_step=10)
    assert line(ax, "a swap").get_xydata().tolist() == [[11, 1.1], [13, 2.1]]
    assert line(ax, "one").get_xdata().tolist() == [10, 11, 12, 13, 14]
    assert line(ax, "one").get_linestyle() != line(ax, "two").get_linestyle()
    with pytest.raises(ValueError, match="scores holds 1 weights, expected 2"):
        figures.race({"one": [1.0]})
    with pytest.raises(ValueError, match=r"scores\['two'\] has shape \(1,\), expected \(2,\)"):
        figures.race({"one": [1.0, 2.0], "two": [1.0]})


def test_matrix_labels_count_from_one_if_asked():
    for first in (0, 1):
        ax = figures.matrix([[0.5, 1.5, -1.0], [0.1, 0.2, 0.3]], first=first)
        ax.figure.canvas.draw()
        shown = {tick.get_position()[0]: tick.get_text() for tick in ax.get_xticklabels()}
        assert [shown[place] for place in range(3)] == [str(place + first) for place in range(3)]
    with pytest.raises(ValueError, match="first=2: must be 0 or 1"):
        figures.matrix([[1.0]], first=2)


def test_differing_states_marks_steps_and_the_reach_of_rounding():
    rows = [("movement", 0.1, step, "between", 0, value) for step, value in ((5, 0.5), (9, 1e-9))]
    table = pd.DataFrame(rows, columns=["recipe", "density", "step", "quantity", "layer", "value"])
    ax = figures.differing_states(table, {"run": ("movement", 0.1)}, marks={7: "95 % kept"}, rounding=1e-8)
    assert [text.get_text() for text in ax.texts] == ["rounding", "95 % kept"]
    assert list(ax.get_lines()[1].get_xdata()) == [7, 7]
    (shade,) = ax.patches
    assert shade.get_y() + shade.get_height() == pytest.approx(1e-8)
