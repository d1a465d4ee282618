"""Figures of notebook 04 draw the data they are given: points, bars, cells and dots are compared, not pixels."""

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import line
from matplotlib import pyplot as plt

from mvp_lite import masks
from mvp_lite.course import figures

SGD = torch.tensor([[5.0, -3.0, 0.2, 0.1], [-0.1, 4.0, 1.0, -20.0]])
ADAM = torch.tensor([[0.3, -0.2, 0.4, 0.1], [-0.1, 0.35, 0.05, -0.4]])


def test_optimizer_scores_say_who_keeps_what():
    given = plt.subplots()[1]
    ax = figures.optimizer_scores(SGD, ADAM, 0.25, given)
    assert ax is given
    by_sgd, by_adam = masks.top_v(SGD, 0.25), masks.top_v(ADAM, 0.25)
    groups = {
        "both keep: 1": by_sgd & by_adam,
        "SGD alone keeps: 1": by_sgd & ~by_adam,
        "Adam alone keeps: 1": by_adam & ~by_sgd,
        "neither keeps: 5": ~by_sgd & ~by_adam,
    }
    for label, which in groups.items():
        np.testing.assert_allclose(line(ax, label).get_xydata(), torch.stack([SGD[which], ADAM[which]], dim=1))
    assert len({line(ax, label).get_marker() for label in groups}) == 4
    assert ax.get_xscale() == "symlog"
    with pytest.raises(ValueError, match=r"adam has shape \(1, 4\), expected \(2, 4\)"):
        figures.optimizer_scores(SGD, ADAM[:1], 0.25)


def test_histograms_share_a_scale_and_the_threshold_separates_kept_from_pruned():
    scores = torch.stack([torch.zeros(40), torch.linspace(-1, 1, 40), torch.linspace(-3, 2, 40)]).view(3, 5, 8)
    axes = figures.score_histograms(scores, {1: 1.0, 2: 0.25})
    assert [ax.get_title() for ax in axes] == ["step 1: 100 % kept", "step 2: 25 % kept"]
    assert axes[0].get_xlim() == axes[1].get_xlim() and axes[0].get_ylim() == axes[1].get_ylim()
    everything, quarter = ([bar for bar in ax.patches if bar.get_height()] for ax in axes)
    assert sum(bar.get_height() for bar in everything) == sum(bar.get_height() for bar in quarter) == 40
    assert not axes[0].get_lines()
    (threshold,) = (drawn.get_xdata()[0] for drawn in axes[1].get_lines())
    right = [bar for bar in quarter if bar.get_x() + bar.get_width() / 2 > threshold]
    left = [bar for bar in quarter if bar not in right]
    assert sum(bar.get_height() for bar in right) == 10 and not any(bar.get_hatch() for bar in right)
    assert all(bar.get_hatch() for bar in left), "pruned bars are hatched"
    assert figures.score_histograms(scores, {0: 0.5})[0].patches, "equal scores"
    for wrong in ({}, {3: 0.5}, {-1: 0.5}):
        with pytest.raises(ValueError, match="expected some from 0 to 2"):
            figures.score_histograms(scores, wrong)


def test_column_masks_count_each_group():
    kept = torch.tensor([[1, 0, 0, 1, 1], [0, 0, 1, 1, 0]])
    axes = figures.column_masks({"one": kept, "all": torch.ones(2, 5)}, {"old": 2, "new": 3})
    assert [ax.get_title() for ax in axes] == ["one", "all"]
    np.testing.assert_array_equal(axes[0].get_images()[0].get_array(), kept)
    assert [text.get_text() for text in axes[0].texts] == ["old\n1 kept", "new\n4 kept"]
    assert [text.get_text() for text in axes[1].texts] == ["old\n4 kept", "new\n6 kept"]
    assert [drawn.get_xdata()[0] for drawn in axes[0].get_lines()] == [1.5]
    with pytest.raises(ValueError, match="groups has 4 columns together, expected 5"):
        figures.column_masks({"one": kept}, {"old": 2, "new": 2})
    with pytest.raises(ValueError, match=r"masks\['b'\] has shape \(2, 4\)"):
        figures.column_masks({"a": kept, "b": kept[:, :4]}, {"all": 5})
    with pytest.raises(ValueError, match="masks is empty"):
        figures.column_masks({}, {"all": 5})


def paired() -> pd.DataFrame:
    cells = [(0, 0.25, "magnitude", 0.07), (0, 0.25, "movement", 0.04), (0, 0.7, "magnitude", 0.02)]
    cells += [(0, 0.7, "movement", 0.01), (1, 0.25, "magnitude", 0.05), (1, 0.25, "movement", 0.06)]
    cells += [(1, 0.7, "magnitude", 0.03), (1, 0.7, "movement", 0.02), (0, 1.0, "magnitude", 0.005)]
    return pd.DataFrame(cells, columns=["seed", "density", "method", "error"])


def test_paired_errors_join_the_runs_of_a_seed():
    axes = figures.paired_errors(paired(), ("magnitude", "movement"))
    assert [ax.get_title() for ax in axes] == ["70 % of the weights kept", "25 % of the weights kept"]
    pairs = [list(drawn.get_ydata()) for drawn in axes[1].get_lines() if len(drawn.get_xdata()) == 2][:2]
    assert pairs == [[0.07, 0.04], [0.05, 0.06]]
    assert sorted(line(axes[1], "movement").get_ydata()) == [0.04, 0.06]
    assert line(axes[0], "movement").get_marker() != line(axes[0], "magnitude").get_marker()
    assert set(line(axes[0], "dense, mean").get_ydata()) == {0.005}
    assert axes[0].get_ylim()[0] == 0
    with pytest.raises(ValueError, match="expected two"):
        figures.paired_errors(paired(), ["movement"])
    with pytest.raises(ValueError, match="lacks a run"):
        figures.paired_errors(paired().drop(index=1), ("magnitude", "movement"))
    with pytest.raises(ValueError, match="no pruned run"):
        figures.paired_errors(paired().query("density == 1"), ("magnitude", "movement"))
    with pytest.raises(ValueError, match="must be one of"):
        figures.paired_errors(paired(), ("magnitude", "moving"))


def test_paths_of_methods_have_their_looks():
    path = torch.tensor([[0.9, 0.5], [0.1, 0.0]])
    ax = figures.trajectories(lambda w1, w2: w1**2 + w2**2, {"magnitude": path, "movement": path / 2})
    for name in ("magnitude", "movement"):
        assert line(ax, name).get_color() == figures.METHOD_STYLE[name].color
        assert line(ax, name).get_marker() == figures.METHOD_STYLE[name].marker


def test_a_pruning_step_of_a_path_is_dotted_and_a_path_below_is_wider():
    pruned = torch.tensor([[0.9, 0.5], [0.6, 0.4], [0.6, 0.0], [0.5, 0.0]])
    ax = figures.trajectories(lambda w1, w2: w1**2 + w2**2, {"dense": pruned[:2], "magnitude": pruned})
    dense, magnitude = line(ax, "dense"), line(ax, "magnitude")
    assert dense.get_linewidth() > magnitude.get_linewidth()
    drawn = magnitude.get_xydata()
    assert np.isnan(drawn[2]).all() and np.allclose(np.delete(drawn, 2, axis=0), pruned)
    (jump,) = (found for found in ax.lines if found.get_linestyle() == ":")
    assert np.allclose(jump.get_xydata(), pruned[1:3])
