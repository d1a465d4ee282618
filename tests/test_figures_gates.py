"""Figures of soft movement draw the scores and penalties that they are given."""

import math

import numpy as np
import pytest
import torch
from drawn import line

from mvp_lite.course import figures

SCORES = torch.tensor([[-9.0, -3.0, -2.3], [-2.1, 0.1, 7.0]])


def bars(ax) -> dict[str, float]:
    """Color of the bars -> their total height."""
    totals: dict[str, float] = {}
    for bar in ax.patches:
        name = "pruned" if bar.get_hatch() else "kept"
        totals[name] = totals.get(name, 0.0) + bar.get_height()
    return totals


def test_scores_on_both_sides_of_the_threshold_are_counted():
    frames = [{"step": 0, "tau": 0.0, "scores": SCORES}, {"step": 9, "tau": 0.1, "scores": SCORES}]
    start, end = figures.scores_and_threshold(frames)
    assert (start.get_title(), end.get_title()) == ("step 0: 6 of 6 kept", "step 9: 3 of 6 kept")
    assert bars(start) == {"pruned": 0, "kept": 6} and bars(end) == {"pruned": 3, "kept": 3}
    assert not start.get_lines() and line(end, "threshold").get_xdata()[0] == pytest.approx(math.log(1 / 9))
    first, last = (next(bar for bar in ax.patches[::step] if bar.get_height()) for ax, step in ((end, 1), (end, -1)))
    assert (first.get_x(), last.get_x() + last.get_width()) == pytest.approx((-8, 6)), "outliers in the outermost bars"
    threshold, tallest = line(end, "threshold"), max(bar.get_height() for bar in end.patches)
    assert threshold.get_zorder() < end.patches[0].get_zorder() and tallest < 0.9 * end.get_ylim()[1]
    assert end.get_xlim() == start.get_xlim() and end.get_ylim() == start.get_ylim()


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "frames is empty"),
        ([{"step": 0, "tau": 1.0, "scores": SCORES}], "tau=1.0: a threshold"),
        ([{"step": 0, "tau": 0.1, "scores": SCORES / 0}], "not finite"),
    ],
)
def test_moments_that_cannot_be_drawn_are_named(frames, message):
    with pytest.raises(ValueError, match=message):
        figures.scores_and_threshold(frames)


def test_pulls_are_the_derivatives_of_the_penalties():
    ax = figures.penalty_pulls({"sigmoid": torch.sigmoid, "square": torch.square}, -2.0)
    S, pull = line(ax, "sigmoid").get_data()
    np.testing.assert_allclose(pull, np.exp(-S) / (1 + np.exp(-S)) ** 2)
    S, pull = line(ax, "square").get_data()
    np.testing.assert_allclose(pull, 2 * S)
    assert line(ax, "threshold").get_xdata()[0] == -2
    assert line(ax, "sigmoid").get_linestyle() != line(ax, "square").get_linestyle()
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"{count} penalties"):
            figures.penalty_pulls({str(i): torch.abs for i in range(count)}, 0.0)
