"""Figures of single neurons draw the data they are given: points, lines and means, not pixels."""

import numpy as np
import pytest
import torch
from drawn import line
from matplotlib import pyplot as plt

from mvp_lite.course import figures

POINTS = torch.tensor([[0.0, 1.0], [2.0, 0.0], [3.0, -1.0]])
C = torch.tensor([[0.9, 0.1, 0.0], [0.3, 0.5, 0.02], [0.0, 0.02, 0.7]])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_representatives_marks_the_best_and_joins_those_that_share():
    left, right = figures.representatives(POINTS, {"C": C, "alone": torch.eye(3)}, keep=2)
    assert line(left, "kept").get_xydata().tolist() == [[0, 1], [3, -1]]
    assert line(left, "pruned").get_xydata().tolist() == [[2, 0]]
    assert [text.get_text() for text in left.texts] == ["0.90", "0.50", "0.70"]
    joined = [drawn for drawn in left.get_lines() if drawn.get_label().startswith("_")]
    assert [drawn.get_xydata().tolist() for drawn in joined] == [[[0, 1], [2, 0]]]  # 0.2; a mean of 0.02 is left out
    assert joined[0].get_linewidth() == pytest.approx(16 * 0.2)
    assert not [drawn for drawn in right.get_lines() if drawn.get_label().startswith("_")]
    assert (left.get_title(), right.get_title()) == ("C", "alone")


def test_of_equal_scores_the_first_are_kept():
    (ax,) = figures.representatives(POINTS, {"": torch.eye(3)}, keep=2)
    assert line(ax, "kept").get_xydata().tolist() == POINTS[:2].tolist()


def test_scores_by_norm_sets_copies_apart():
    ax = figures.scores_by_norm([1.0, 2.0, 3.0], [0.1, 0.2, 0.3], [False, True, False])
    assert np.allclose(line(ax, "the layer's own").get_xydata(), [[1, 0.1], [3, 0.3]])
    assert np.allclose(line(ax, "copies of one").get_xydata(), [[2, 0.2]])


def test_activations_by_token_means_with_and_without_padding():
    H = torch.tensor([[1.0, -0.5], [3.0, 0.5], [8.0, 3.0]])
    left, right = figures.activations_by_token(H, [True, True, False], ["a", "b", "[PAD]"])
    (image,) = left.get_images()
    assert np.allclose(image.get_array(), H.T) and image.get_clim() == (-8, 8)
    assert [label.get_text() for label in left.get_xticklabels()] == ["a", "b", "[PAD]"]
    assert line(right, "real tokens").get_xydata().tolist() == [[2, 0], [0, 1]]
    assert line(right, "all, with padding").get_xydata().tolist() == [[4, 0], [1, 1]]
    (border,) = left.get_lines()
    assert list(border.get_xdata()) == [1.5, 1.5]


def test_without_padding_there_is_no_border():
    left, _ = figures.activations_by_token(torch.ones(2, 3), [1, 1], ["a", "b"])
    assert not left.get_lines()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.representatives(POINTS, {}, 1), "nothing to draw"),
        (lambda: figures.representatives(POINTS, {"": C}, 3), "keep=3"),
        (lambda: figures.representatives(torch.ones(3, 3), {"": C}, 1), r"\(3, 3\)"),
        (lambda: figures.representatives(POINTS, {"": C[:2]}, 1), r"coefficients \(2, 3\)"),
        (lambda: figures.scores_by_norm([1.0], [1.0, 2.0], [True]), "scores has shape"),
        (lambda: figures.activations_by_token(torch.ones(2, 3), [1, 1], ["a"]), "1 tokens"),
        (lambda: figures.activations_by_token(torch.ones(2, 3), [0, 0], ["a", "b"]), "at least one"),
        (lambda: figures.activations_by_token(torch.ones(2, 3), [0, 1], ["a", "b"]), "comes last"),
    ],
)
def test_bad_data_is_named(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
