"""Figures of first-order scores draw the changes, tangents and scores that they are given."""

import numpy as np
import pytest
import torch
from drawn import line
from matplotlib import pyplot as plt

from mvp_lite.course import figures


def parabola(w):
    return 0.5 * (2 * w - 3) ** 2


def test_removal_draws_the_change_and_its_tangent():
    # the loss is 0.5 at w = 2 and 4.5 at 0; its slope along the dial is g w = 2 * 2
    ax = figures.removal(parabola, 2.0)
    c, change = line(ax, "loss").get_xydata().T
    np.testing.assert_allclose(change, 0.5 * (4 * c - 3) ** 2 - 0.5, atol=1e-12)
    np.testing.assert_allclose(line(ax, "tangent at c = 1").get_ydata(), 4 * (c - 1), atol=1e-12)
    assert line(ax, "weight there").get_xydata().tolist() == [[1, 0]]
    np.testing.assert_allclose(line(ax, "weight gone: measured").get_xydata(), [[0, 4]])
    np.testing.assert_allclose(line(ax, "weight gone: predicted by the tangent").get_xydata(), [[0, -4]])
    assert "with curvature" not in [found.get_label() for found in ax.get_lines()]


def test_removal_turns_one_entry_of_a_vector():
    def loss(w):
        return w[0] ** 3 + 10 * w[1] + w[0] * w[2]

    given = plt.subplots()[1]
    ax = figures.removal(loss, torch.tensor([2.0, 1.0, -1.0]), 0, given, second_order=True)
    assert ax is given
    c, change = line(ax, "loss").get_xydata().T
    np.testing.assert_allclose(change, 8 * c**3 - 2 * c - 6, atol=1e-12)
    expected = 22 * (c - 1) + 24 * (c - 1) ** 2  # slope 24 - 2, curvature 48
    np.testing.assert_allclose(line(ax, "with curvature").get_ydata(), expected, atol=1e-12)
    (gone,) = line(ax, "weight gone: measured").get_ydata()
    assert gone == pytest.approx(-6)


@pytest.mark.parametrize(
    ("w", "index", "message"),
    [
        (torch.ones(3), None, r"w has shape \(3,\) and index=None"),
        (2.0, 1, r"w has shape \(\) and index=1"),
        (torch.ones(3, 2), 0, r"w has shape \(3, 2\)"),
        (torch.ones(3), 3, "index=3: must be one of the 3 weights, from 0"),
        (float("nan"), None, "not finite"),
    ],
)
def test_removal_of_what_is_not_there(w, index, message):
    with pytest.raises(ValueError, match=message):
        figures.removal(parabola, w, index)


def test_scores_measured_has_a_panel_for_each_score():
    measured = torch.tensor([0.1, -0.2, 0.3])
    scores = {"first order": torch.tensor([0.2, -0.2, 0.1]), "second order": measured}
    axes = figures.scores_measured(scores, measured, mark=[2])
    assert [ax.get_xlabel() for ax in axes] == list(scores)
    for ax, score in zip(axes, scores.values(), strict=True):
        points = torch.stack([score, measured], dim=1)
        np.testing.assert_allclose(line(ax, "one point per entry").get_xydata(), points)
        (square,) = [found for found in ax.get_lines() if found.get_marker() == "s"]
        np.testing.assert_allclose(square.get_xydata(), points[2:])
        assert [text.get_text() for text in ax.texts] == ["2"]
        assert [text.get_ha() for text in ax.texts] == ["right"], "the number stands to the left of its square"
    assert axes[0].get_ylabel() and not axes[1].get_ylabel()
    assert axes[0].get_xlim() == axes[1].get_xlim() and axes[0].get_ylim() == axes[1].get_ylim()
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["prediction = measurement"]


def test_scores_measured_in_other_units_has_no_line():
    (ax,) = figures.scores_measured({"S": [10.0, -20.0]}, [0.1, 0.2], equal=False)
    (points,) = ax.get_lines()
    np.testing.assert_allclose(points.get_xydata(), [(10, 0.1), (-20, 0.2)])
    assert ax.get_legend() is None
    with pytest.raises(ValueError, match="scores is empty"):
        figures.scores_measured({}, [0.1])
    with pytest.raises(ValueError, match=r"scores\['S'\] has shape \(2,\), expected \(3,\)"):
        figures.scores_measured({"S": [1, 2]}, [1, 2, 3])


def test_dot_plot_has_a_marker_for_each_column():
    table = {"before": {"Taylor": 0.8, "SNIP": 0.0}, "after": {"SNIP": 0.4, "Taylor": -0.1}}
    ax = figures.dot_plot(table, xlabel="rank correlation")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Taylor", "SNIP"] and ax.yaxis_inverted()
    np.testing.assert_allclose(line(ax, "before").get_xydata(), [(0.8, 0), (0.0, 1)])
    np.testing.assert_allclose(line(ax, "after").get_xydata(), [(-0.1, 0), (0.4, 1)])
    assert line(ax, "before").get_marker() != line(ax, "after").get_marker()
    assert line(ax, "before").get_markerfacecolor() == "white" != line(ax, "after").get_markerfacecolor()
    assert ax.get_xlabel() == "rank correlation"
    for wrong in ({}, {"before": {}}, {"before": {"a": 1.0}, "after": {"b": 1.0}}):
        with pytest.raises(ValueError, match="the same names in all"):
            figures.dot_plot(wrong)
