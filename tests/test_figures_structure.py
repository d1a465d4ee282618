"""Figures of structured pruning draw the data they are given: masks, points with quartiles, runs with their means."""

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import line

from mvp_lite.course import figures
from mvp_lite.course.figures.structure import GROUP_STYLE


def test_group_masks_draws_what_is_kept():
    M = torch.tensor([[1, 0, 0], [1, 1, 0]], dtype=torch.bool)
    axes = figures.group_masks({"rows": M, "half": M.double() * 0.5})
    assert [ax.get_title() for ax in axes] == ["rows", "half"]
    for ax in axes:
        image = ax.get_images()[0]
        assert np.array_equal(image.get_array(), M.numpy()) and image.get_clim() == (0, 1)


SPEED = pd.DataFrame(
    [("1 x 32", "masked", 1.0, 0.98, 1.03, 1.0), ("1 x 32", "shrunk", 1.6, 1.5, 1.65, 1.7),
     ("32 x 32", "masked", 1.1, 1.0, 1.2, 1.0), ("32 x 32", "shrunk", 1.5, 1.4, 1.55, 1.7)],
    columns=["shape", "variant", "speed_up", "low", "high", "fewer"],
)  # fmt: skip


def test_speed_and_operations_draws_quartiles_and_what_was_hoped_for():
    ax = figures.speed_and_operations(SPEED)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["1 x 32", "32 x 32"]
    for label, speed, fewer, ranges in (
        ("zeros kept", [1.0, 1.1], 1.0, [(0.98, 1.03), (1.0, 1.2)]),
        ("zeros removed", [1.6, 1.5], 1.7, [(1.5, 1.65), (1.4, 1.55)]),
    ):
        (bars,) = [bars for bars in ax.containers if bars.get_label() == f"{label}: measured"]
        assert np.allclose(bars.lines[0].get_xdata(), speed)
        assert np.allclose([segment[:, 0] for segment in bars.lines[2][0].get_segments()], ranges)
        assert np.allclose(line(ax, f"{label}: operations").get_xdata(), fewer)
        assert np.allclose(line(ax, f"{label}: operations").get_ydata(), bars.lines[0].get_ydata())


def runs():
    cells = [("toy/a", "movement", "weights", 800e3, 60.0), ("toy/a", "movement", "weights", 800e3, 80.0),
             ("toy/a", "magnitude", "heads+neurons", 100e3, 90.0), ("toy/b", "magnitude", "blocks", 400e3, 50.0),
             ("toy/b", "magnitude", "blocks", 600e3, 70.0)]  # fmt: skip
    return pd.DataFrame(cells, columns=["task", "method", "groups", "parameters", "score"])


def test_score_against_size_draws_each_run_and_the_mean():
    axes = figures.score_against_size(runs())
    assert [ax.get_title() for ax in axes] == ["toy/a", "toy/b"]
    weights = line(axes[0], "single weights, movement")
    assert np.allclose(weights.get_xydata(), [[800 / 1.04, 60], [800 / 1.04, 80]])
    assert weights.get_markerfacecolor() == weights.get_color()
    blocks = line(axes[1], "blocks 8 x 8, magnitude")
    assert np.allclose(blocks.get_xydata(), [[400 * 1.04, 50], [600 * 1.04, 70]])
    assert blocks.get_markerfacecolor() == "none" and blocks.get_marker() != weights.get_marker()
    means = [drawn.get_xydata().tolist() for drawn in axes[1].get_lines() if drawn.get_marker() == "_"]
    assert np.allclose(means, [[[500 * 1.04, 60]]])
    (legend,) = axes[0].figure.legends
    labels = ["single weights, movement", "heads and neurons, magnitude", "blocks 8 x 8, magnitude"]
    assert [text.get_text() for text in legend.get_texts()] == labels


def test_groups_differ_without_color():
    looks = GROUP_STYLE.values()
    assert len({look.marker for look in looks}) == len({look.color for look in looks}) == len(looks)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.group_masks({}), "masks is empty"),
        (lambda: figures.group_masks({"x": torch.ones(3)}), r"masks\['x'\] has shape \(3,\)"),
        (lambda: figures.speed_and_operations(SPEED.drop(columns="low")), "lacks the column 'low'"),
        (lambda: figures.speed_and_operations(SPEED.assign(variant="sparse")), "variant='sparse': 'masked' or"),
        (lambda: figures.score_against_size(runs().assign(groups="rows")), "groups='rows': must be one of weights"),
        (lambda: figures.score_against_size(runs().assign(method="l0")), "method='l0': must be one of movement"),
        (lambda: figures.score_against_size(runs().drop(columns="score")), "lacks the column 'score'"),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
