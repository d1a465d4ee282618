"""Figures of a pruned model's anatomy draw the data they are given: outlines, points and lines, not pixels."""

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import line
from matplotlib.colors import to_hex
from matplotlib.patches import StepPatch

from mvp_lite.course import figures

MAGNITUDE, MOVEMENT = (figures.METHOD_STYLE[name] for name in ("magnitude", "movement"))


def outlines(ax):
    return {patch.get_label(): patch for patch in ax.patches if isinstance(patch, StepPatch)}


def test_weights_left_counts_each_weight_once():
    left = {"magnitude": torch.tensor([[-3.0, 2.9, 3.0]]), "movement": torch.tensor([0.1, -0.1, 1.2, -3.0])}
    ax = figures.weights_left(left, bins=3)  # edges -3, -1, 1, 3
    drawn = outlines(ax)
    assert list(drawn) == [MAGNITUDE.label, MOVEMENT.label]
    assert drawn[MAGNITUDE.label].get_data().values.tolist() == [1, 0, 2]
    assert drawn[MOVEMENT.label].get_data().values.tolist() == [1, 2, 1]
    assert np.allclose(drawn[MOVEMENT.label].get_data().edges, [-3, -1, 1, 3])
    assert to_hex(drawn[MOVEMENT.label].get_edgecolor()).upper() == MOVEMENT.color


def test_score_against_weight_separates_kept_from_pruned_and_draws_the_arms():
    weights, scores = torch.tensor([[1.0, -2.0], [0.5, 0.0]]), torch.tensor([[3.0, 4.0], [-1.0, -2.0]])
    ax = figures.score_against_weight(weights, scores, torch.tensor([[1, 1], [0, 0]]), slope=2.0)
    assert line(ax, "kept").get_xydata().tolist() == [[1, 3], [-2, 4]]
    assert line(ax, "pruned").get_xydata().tolist() == [[0.5, -1], [0, -2]]
    assert line(ax, "bound").get_xydata().tolist() == [[-2, 4], [0, 0], [2, 4]]
    assert ax.get_ylim()[0] < -2 and ax.get_ylim()[1] > 4
    bare = figures.score_against_weight(weights, scores, scores > 0, reach=0.7)
    assert bare.get_xlim() == (-0.7, 0.7)
    assert "bound" not in [drawn.get_label() for drawn in bare.get_lines()]


def test_density_by_layer_draws_the_mean_of_the_seeds():
    cells = [(0, 1, 0.1), (1, 1, 0.3), (0, 2, 0.2), (1, 2, 0.2)]
    table = pd.DataFrame([("movement", *cell) for cell in cells], columns=["method", "seed", "layer", "density"])
    ax = figures.density_by_layer(pd.concat([table, table[table["seed"] == 0].assign(method="l0")]))
    assert np.allclose(line(ax, MOVEMENT.label).get_xydata(), [[1, 20], [2, 20]])
    assert np.allclose(line(ax, "L0").get_ydata(), [10, 20])
    dots = [drawn for drawn in ax.get_lines() if drawn.get_linestyle() == "None"]  # a line a seed; one seed has none
    assert np.allclose([drawn.get_xydata() for drawn in dots], [[[1, 10], [2, 20]], [[1, 30], [2, 20]]])


def test_density_by_head_has_one_scale():
    axes = figures.density_by_head({"magnitude": torch.tensor([[0.1, 0.2]]), "l0": torch.tensor([[0.0, 0.4]])})
    assert [ax.get_title() for ax in axes] == [MAGNITUDE.label, "L0"]
    images = [ax.get_images()[0] for ax in axes]
    assert np.allclose(images[0].get_array(), [[10, 20]])
    assert all(np.allclose(image.get_clim(), (0, 40)) for image in images)
    assert [text.get_text() for text in axes[1].texts] == ["0.0", "40.0"]


def test_row_counts_shares_bins_with_what_is_expected():
    counts = {"movement": torch.tensor([0, 0, 1, 5]), "magnitude": torch.tensor([2, 2, 2, 3])}
    ax = figures.row_counts(counts, expected=[1.0, 2.0, 0.5, 0.5], width=2)
    drawn = outlines(ax)
    assert drawn[MOVEMENT.label].get_data().values.tolist() == [3, 0, 1]
    assert drawn[MAGNITUDE.label].get_data().values.tolist() == [0, 4, 0]
    assert line(ax, "a random mask, expected").get_xydata().tolist() == [[1, 3], [3, 1]]


def test_local_and_global_have_lines_of_their_own():
    runs = pd.DataFrame(
        [
            ("movement", "local", 0.1, 80.0),
            ("movement", "local", 0.03, 70.0),
            ("movement", "global", 0.03, 75.0),
        ],
        columns=["method", "scope", "kept", "score"],
    )
    ax = figures.local_and_global(runs)
    local, pooled = (line(ax, f"{MOVEMENT.label}, {scope}") for scope in ("local", "global"))
    assert np.allclose(local.get_xydata(), [[3, 70], [10, 80]]) and np.allclose(pooled.get_xydata(), [[3, 75]])
    assert local.get_linestyle() != pooled.get_linestyle() and pooled.get_fillstyle() == "none"


def test_score_against_parameters_draws_means_and_seeds():
    table = pd.DataFrame(
        [("magnitude", 50_000, 60.0, 55.0, 70.0), ("small dense", 30_000, 80.0, 80.0, 80.0)],
        columns=["method", "parameters", "mean", "low", "high"],
    )
    ax = figures.score_against_parameters(table)
    drawn = {bars.get_label(): bars for bars in ax.containers}
    assert set(drawn) == {MAGNITUDE.label, "small and dense"}
    points, _, (reach,) = drawn[MAGNITUDE.label].lines
    assert np.allclose(points.get_xydata(), [[50, 60]], rtol=0.03) and points.get_color() == MAGNITUDE.color
    assert np.allclose(reach.get_segments()[0], [[50, 55], [50, 70]], rtol=0.03)
    assert drawn["small and dense"].lines[0].get_xydata().tolist() == [[30, 80]]


TWO = torch.ones(2)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.weights_left({"magnetude": TWO}), "magnetude"),
        (lambda: figures.weights_left({"movement": TWO[:0]}), "no weights left"),
        (lambda: figures.score_against_weight(TWO, TWO, torch.ones(3)), r"\(3,\)"),
        (lambda: figures.score_against_weight(TWO, TWO, TWO, method="x"), "method='x'"),
        (lambda: figures.density_by_layer(pd.DataFrame({"method": ["l0"]})), "layer"),
        (lambda: figures.density_by_head({}), "empty"),
        (lambda: figures.row_counts({"x": TWO}, [1.0]), "method='x'"),
        (lambda: figures.local_and_global(pd.DataFrame({"method": []})), "scope"),
        (lambda: figures.score_against_parameters(pd.DataFrame({"method": []})), "parameters"),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
