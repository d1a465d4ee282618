"""Figures of a budget of operations draw the data they are given: points and pixels of neurons."""

import numpy as np
import pytest
import torch

from mvp_lite.course import figures

FEW, MANY = torch.arange(32) % 3 == 0, torch.arange(32) % 3 != 0
PRUNED = {
    0.9: {"masks": [MANY, MANY], "score": 95.0},
    0.5: {"masks": [FEW, MANY], "score": 60.4},
}


def test_neurons_left_shows_the_masks_of_one_budget_and_the_scores_of_all():
    first, second, score = figures.neurons_left(PRUNED, 0.5)
    for ax, mask, title in ((first, FEW, "layer 1: 11 of 32"), (second, MANY, "layer 2: 21 of 32")):
        (image,) = ax.get_images()
        assert np.array_equal(np.asarray(image.get_array()).ravel(), mask.numpy()) and ax.get_title() == title
        assert image.get_clim() == (0, 1)
    curve, marker = score.get_lines()
    assert np.allclose(curve.get_xydata(), [[50, 60.4], [90, 95]])
    assert np.allclose(marker.get_xydata(), [[50, 60.4]])
    assert score.get_title() == "50 % of the operations: score 60 %"


def test_neurons_left_refuses_an_unknown_budget_and_other_masks():
    with pytest.raises(ValueError, match=r"flops=0\.7: must be one of 0\.5, 0\.9"):
        figures.neurons_left(PRUNED, 0.7)
    with pytest.raises(ValueError, match=r"shape \(30,\)"):
        figures.neurons_left({0.5: {"masks": [FEW[:30]], "score": 1.0}}, 0.5)
