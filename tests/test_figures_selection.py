"""Figures of notebook 01 draw the errors and the masks that they are given."""

import numpy as np
import pytest
import torch
from drawn import line
from matplotlib import pyplot as plt

from mvp_lite import masks
from mvp_lite.course import figures


def test_errors_of_masks_sort_and_ring():
    errors = {"white": [0.3, 0.1, 0.2], "twins": torch.tensor([0.5, 0.25, 1.0])}
    axes = figures.errors_of_masks(errors, {"first": [0.3, 0.5], "best": (0.1, 0.25)})
    np.testing.assert_allclose(line(axes[0], "a mask").get_xydata(), [(1, 0.1), (2, 0.2), (3, 0.3)])
    np.testing.assert_allclose(line(axes[1], "a mask").get_ydata(), [0.25, 0.5, 1.0])
    np.testing.assert_allclose(line(axes[0], "first").get_xydata(), [(3, 0.3)])
    np.testing.assert_allclose(line(axes[1], "first").get_xydata(), [(2, 0.5)])
    np.testing.assert_allclose(line(axes[1], "best").get_xydata(), [(1, 0.25)])
    assert line(axes[0], "first").get_marker() != line(axes[0], "best").get_marker()
    assert [ax.get_title() for ax in axes] == ["inputs: white", "inputs: twins"]
    assert axes[0].get_ylim()[0] == 0 and axes[0].get_ylabel() == "mean squared change"
    (legend,) = axes[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a mask", "first", "best"]


def test_equal_errors_share_their_place():
    (ax,) = figures.errors_of_masks({"white": [0.2, 0.1, 0.2 + 1e-15, 0.2]}, {"mine": [0.2]})
    np.testing.assert_allclose(line(ax, "mine").get_xydata(), [(2, 0.2)])


@pytest.mark.parametrize(
    ("errors", "marked", "message"),
    [
        ({}, {}, "0 panels and 0 marked masks"),
        ({"a": [1.0]}, {name: [1.0] for name in "pqrs"}, "1 panels and 4 marked masks"),
        ({"a": [1.0]}, {"p": [1.0, 2.0]}, r"marked\['p'\] has 2 errors for 1 panels"),
        ({"a": [float("nan")]}, {}, r"errors\['a'\]"),
    ],
)
def test_errors_of_masks_refuse_what_does_not_fit(errors, marked, message):
    with pytest.raises(ValueError, match=message):
        figures.errors_of_masks(errors, marked)


def starting(ax, label):
    (found,) = (drawn for drawn in ax.get_lines() if str(drawn.get_label()).startswith(f"{label}: "))
    return found


def test_decided_before_tells_who_changed_sides():
    before = torch.tensor([[0.1, -0.9, 0.4], [0.5, -0.2, 0.05]])
    after = torch.tensor([[0.1, -0.8, 0.6], [0.45, -0.2, 0.0]])
    given = plt.subplots()[1]
    ax = figures.decided_before(before, after, 1 / 3, given)
    assert ax is given
    np.testing.assert_allclose(starting(ax, "kept before and after").get_xydata(), [(-0.9, -0.8)], rtol=1e-6)
    np.testing.assert_allclose(sorted(starting(ax, "changed sides").get_xdata()), [0.4, 0.5], rtol=1e-6)
    assert len(starting(ax, "pruned before and after").get_xdata()) == 3
    assert line(ax, "threshold q before").get_xdata() == pytest.approx([0.5, 0.5])
    bands = sorted((patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches)
    np.testing.assert_allclose(bands, [(-0.9, -0.1), (0.1, 0.9)], rtol=1e-5)
    assert starting(ax, "changed sides").get_label().endswith(": 2")
    assert starting(ax, "pruned before and after").get_label().endswith(": 3")
    looks = {starting(ax, label).get_marker() for label in ("kept before and after", "pruned before and after")}
    assert len(looks) == 2


def test_decided_before_on_random_weights_keeps_changes_inside_the_bands():
    before = torch.randn(30, 40, generator=torch.Generator().manual_seed(0))
    after = before + 0.1 * torch.randn(30, 40, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    ax = figures.decided_before(before, after, 0.2)
    first, last = (masks.top_v(weights.abs(), 0.2) for weights in (before, after))
    changed = np.abs(starting(ax, "changed sides").get_xdata())
    assert len(changed) == (first != last).sum() > 0
    (inset,) = ax.child_axes
    shown, (left, right) = inset.get_lines()[-1].get_xdata(), inset.get_xlim()
    assert len(shown) == len(changed) and left < (shown[shown > 0].min() + shown[shown > 0].max()) / 2 < right
    low, high = (edge for edge in (ax.patches[1].get_x(), ax.patches[1].get_x() + ax.patches[1].get_width()))
    assert low < changed.min() and changed.max() < high


@pytest.mark.parametrize(
    ("after", "density", "message"),
    [
        (torch.ones(3, 2), 0.5, r"after has shape \(3, 2\)"),
        (torch.ones(2, 3), 0.0, "density=0.0"),
        (torch.full((2, 3), torch.nan), 0.5, "not finite"),
    ],
)
def test_decided_before_refuses_what_does_not_fit(after, density, message):
    with pytest.raises(ValueError, match=message):
        figures.decided_before(torch.ones(2, 3), after, density)
