"""Figures of the gradient of scores draw what they are given."""

import numpy as np
import pytest
from drawn import line
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from mvp_lite.course import figures


def test_the_graph_names_its_steps_and_tells_them_apart_without_color():
    given = plt.subplots()[1]
    assert figures.computation_graph(given) is given
    texts = [text.get_text() for text in given.texts]
    assert {"$S$", "$M$", r"$W\odot M$", "$a$", r"$\mathcal{L}$", "$W$", "$x$", "$y$"} <= set(texts)
    assert [texts.count(f"step {i}: exact") for i in (1, 2)] == [1, 2]
    assert "step 3: straight-through" in texts
    styles = [line(given, label) for label in ("forward", "backward, exact", "backward, straight-through")]
    assert styles[0].get_linewidth() < styles[1].get_linewidth()
    assert styles[1].get_linestyle() == "-" != styles[2].get_linestyle()
    dashed = [text for text in given.texts if getattr(text, "arrow_patch", None)]
    assert len(dashed) == 12, "seven arrows forward, five backward"


def test_the_slope_is_drawn_through_the_point_and_the_stair_has_gaps():
    m, s = np.linspace(0, 1, 11), np.linspace(-1, 1, 21)
    stair = np.where(s > 0.55, 3.0, 2.0)
    left, right = figures.loss_by_mask_and_score(m, 2 - 0.5 * m + m**2, s, stair, (0.0, 0.1), -0.5)
    np.testing.assert_allclose(line(left, "loss").get_ydata(), 2 - 0.5 * m + m**2)
    np.testing.assert_allclose(line(left, "slope −0.5").get_ydata(), 2 - 0.5 * m)
    np.testing.assert_allclose(line(right, "slope −0.5").get_ydata(), 2 - 0.5 * (s - 0.1))
    np.testing.assert_allclose(line(right, "now").get_xydata(), [(0.1, 2.0)])
    parts = [drawn for drawn in right.get_lines() if drawn.get_linestyle() == "-" and drawn.get_label() != "now"]
    assert [np.unique(part.get_ydata()).tolist() for part in parts] == [[2.0], [3.0]], "flat on both sides of the jump"
    (jump,) = [drawn for drawn in right.get_lines() if drawn.get_linestyle() == ":"]
    assert sorted(jump.get_ydata()) == [2.0, 3.0]
    flat = figures.loss_by_mask_and_score(m, m, s, np.ones(21), (0.0, 0.0), 1.0)[1]
    assert not [drawn for drawn in flat.get_lines() if drawn.get_linestyle() == ":"]
    with pytest.raises(ValueError, match=r"score_loss has shape \(3,\), expected \(21,\)"):
        figures.loss_by_mask_and_score(m, m, s, [1.0, 2.0, 3.0], (0.0, 0.0), 1.0)


def test_one_weight_over_the_steps_of_a_run():
    weight, score, loss = [0.6, 0.5, 0.5, 0.4], [0.5, 0.1, 0.2, 0.7], [1.0, 3.0, 2.0, 0.5]
    kept, threshold = [1, 0, 0, 1], [0.3, 0.3, 0.4, 0.4]
    axes = figures.weight_over_steps(weight, score, kept, threshold, loss)
    for ax, values in zip(axes, (weight, score, loss), strict=True):
        np.testing.assert_allclose(line(ax, "kept").get_xydata(), [(0, values[0]), (3, values[3])])
        np.testing.assert_allclose(line(ax, "pruned").get_xydata(), [(1, values[1]), (2, values[2])])
        assert line(ax, "kept").get_marker() != line(ax, "pruned").get_marker()
        assert len(ax.patches) == 2, "two steps are shaded"
    np.testing.assert_allclose(line(axes[1], "lowest score that is kept").get_ydata(), threshold)
    assert [ax.get_ylabel() for ax in axes] == ["weight", "score", "loss"] and axes[2].get_xlabel() == "step"
    with pytest.raises(ValueError, match=r"kept has shape \(1,\)"):
        figures.weight_over_steps(weight, score, [1], threshold, loss)


def test_quadrants_of_rising_and_falling_scores_differ_in_print():
    ax = figures.quadrants([[0.5, -0.3]], [[1.0, 0.8]])
    tints = [luminance(area.get_facecolor()[0]) for area in ax.collections]
    assert len(tints) == 4 and tints[0] == tints[2] < tints[1] - 0.05 and tints[1] == tints[3]
    assert all(luminance((*to_rgb(text.get_color()), 1.0)) < 0.3 for text in ax.texts), "the words are dark"


def luminance(color):
    """Of a color on white paper, from 0 (black) to 1."""
    *rgb, alpha = color
    return 1 - alpha * (1 - float(np.dot(rgb, [0.299, 0.587, 0.114])))
