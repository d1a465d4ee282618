"""Figures of the derivations draw the data they are given: lines, bars, dots and cells are compared, not pixels."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import line
from matplotlib import pyplot as plt

from mvp_lite import masks
from mvp_lite.course import figures

W = torch.tensor([[1.5, -0.75, 0.25], [-2.0, 0.5, 1.25]])
G = torch.tensor([[-1.0, 2.0, -3.0], [4.0, 5.0, -6.0]])


def cells(ax) -> list[str]:
    """The numbers written into a heat map, row by row."""
    return [text.get_text().replace("−", "-") for text in ax.texts]


def colors(ax) -> np.ma.MaskedArray:
    (picture,) = ax.get_images()
    return picture.get_array()


def test_matrix_draws_and_writes_its_numbers():
    given = plt.subplots()[1]
    ax = figures.matrix(W, given, title="weights")
    assert ax is given and ax.get_title() == "weights"
    np.testing.assert_array_equal(colors(ax), W)
    assert cells(ax) == ["1.50", "-0.75", "0.25", "-2.00", "0.50", "1.25"]
    assert ax.get_images()[0].get_clim() == (-2, 2) and ax.get_images()[0].get_cmap().name == "RdBu"
    assert cells(figures.matrix(W, digits=1)) == ["1.5", "-0.8", "0.2", "-2.0", "0.5", "1.2"]
    assert cells(figures.matrix([[1, -2], [0, 4]])) == ["1", "-2", "0", "4"]
    assert cells(figures.matrix([[-0.001, 0.5]])) == ["0.00", "0.50"], "no minus zero"


def test_matrix_crosses_out_what_the_mask_leaves_out():
    mask = torch.tensor([[1, 0, 1], [1, 1, 0]])
    ax = figures.matrix(W, mask=mask)
    np.testing.assert_array_equal(np.ma.getmaskarray(colors(ax)), mask == 0)
    crossed = {tuple(np.mean(line.get_xydata(), axis=0)) for line in ax.get_lines()}
    assert crossed == {(1, 0), (2, 1)}, "(column, row) of the pruned entries"
    assert len(cells(ax)) == 6, "the numbers stay readable"
    assert not figures.matrix(W, mask=W.bool()).get_lines()
    assert ax.get_images()[0].get_clim() == (-2, 2), "the scale is that of all entries"


def test_a_large_matrix_has_a_color_bar_in_place_of_numbers():
    ax = figures.matrix(torch.randn(40, 40))
    assert not cells(ax) and len(ax.figure.axes) == 2
    assert len(figures.matrix(W).figure.axes) == 1


def test_the_color_bar_of_values_without_a_sign_starts_at_zero():
    values = torch.linspace(-1, 1, 400).view(20, 20)
    for shown, ends in ((values, (-1, 1)), (values.abs(), (0, 1))):
        assert figures.matrix(shown).figure.axes[1].get_ylim() == pytest.approx(ends)


def test_scores_and_mask_are_those_of_the_package():
    scores = torch.tensor([[0.3, -0.2, 0.9, 0.1], [-0.5, 0.7, 0.4, -0.8]])
    left, right = figures.scores_and_mask(scores, 0.375)
    np.testing.assert_allclose(colors(left), scores)
    np.testing.assert_array_equal(colors(right), masks.top_v(scores, 0.375))
    assert cells(right) == list("00100110")
    assert right.get_title() == "mask M: 3 of 8 kept"
    given = plt.subplots(2)[1]
    assert list(figures.scores_and_mask(scores, 1.0, given)) == list(given)


def test_quadrants_put_a_weight_where_sgd_pushes_it():
    ax = figures.quadrants(W, G)
    np.testing.assert_array_equal(line(ax, "weight").get_xydata(), list(zip(W.ravel(), -G.ravel(), strict=True)))
    words = {(text.get_position()[0] > 0.5, text.get_position()[1] > 0.5): text.get_text() for text in ax.texts}
    for right in (True, False):
        for up in (True, False):
            weight, push = (1 if right else -1), (1 if up else -1)
            # one step of SGD on the weight: is it farther from zero? and the score -G * W: does it rise?
            farther, rises = abs(weight + 0.1 * push) > abs(weight), push * weight > 0
            expected = "away from zero:\nscore rises" if farther else "towards zero:\nscore falls"
            assert words[right, up] == expected and farther == rises
    kept = torch.tensor([[1, 0, 1], [0, 1, 1]])
    ax = figures.quadrants(W, G, kept=kept)
    np.testing.assert_array_equal(line(ax, "pruned").get_xydata(), [(-0.75, -2.0), (-2.0, -4.0)])
    assert len(line(ax, "kept").get_xydata()) == 4
    assert line(ax, "kept").get_marker() != line(ax, "pruned").get_marker()
    for (low, high), largest in ((ax.get_xlim(), np.abs(W).max()), (ax.get_ylim(), np.abs(G).max())):
        assert low == -high and largest < high < 1.5 * largest


def test_layer_history_shows_one_step_on_the_scale_of_all():
    steps = torch.arange(1.0, 4.0)[:, None, None]
    history = {"W": W * steps, "G": G * steps, "S": -W * G * steps, "M": (W * steps > 1).float()}
    panels = figures.layer_history(history, 1)
    for ax, name in zip(panels, "WGSM", strict=True):
        np.testing.assert_array_equal(colors(ax), history[name][1])
    assert [ax.get_images()[0].get_clim() for ax in panels[:3]] == [(-6, 6), (-18, 18), (-24, 24)]
    assert cells(panels[3]) == list("100001") and "2 of 6" in panels[3].get_title()
    assert "step 1 of 2" in panels[0].figure.get_suptitle()
    for name, ax in zip(("weights W", "gradients G", "scores S", "mask M"), panels, strict=True):
        assert ax.get_title().startswith(name)
    for step in (-1, 3, 1.0, True):
        with pytest.raises(ValueError, match=f"step={step!r}: an integer from 0 to 2"):
            figures.layer_history(history, step)
    with pytest.raises(ValueError, match=r"history lacks 'S' \(found: W, G, M\)"):
        figures.layer_history({name: history[name] for name in "WGM"}, 0)
    with pytest.raises(ValueError, match=r"history\['G'\] has shape \(2, 2, 3\)"):
        figures.layer_history({**history, "G": history["G"][:2]}, 0)


def test_trajectories_start_open_and_end_full_over_the_contours():
    def loss(w1, w2):
        return w1**2 + 4 * w2**2

    path = torch.tensor([[0.9, 0.5], [0.4, 0.1], [0.1, 0.05]])
    ax = figures.trajectories(loss, {"SGD": path, "Adam": path / 2}, limits=(-1, 2, -0.5, 1))
    np.testing.assert_allclose(line(ax, "SGD").get_xydata(), path)
    assert line(ax, "SGD").get_linestyle() != line(ax, "Adam").get_linestyle()
    starts = [found for found in ax.get_lines() if found.get_markerfacecolor() == "white"]
    np.testing.assert_allclose([found.get_xydata()[0] for found in starts], [(0.9, 0.5), (0.45, 0.25)])
    assert line(ax, "SGD").get_markevery() == [-1]
    (contours,) = ax.collections
    assert sum(len(drawn.vertices) for drawn in contours.get_paths()) > 100
    for level, drawn in zip(contours.levels, contours.get_paths(), strict=True):
        np.testing.assert_allclose(loss(*drawn.vertices.T), level, atol=2e-3)
    assert ax.get_xlim() == (-1, 2) and ax.get_ylim() == (-0.5, 1)
    with pytest.raises(ValueError, match=r"paths\['SGD'\] has shape \(2, 3\), expected \(steps, 2\)"):
        figures.trajectories(loss, {"SGD": path.T[:, :3]})
    with pytest.raises(ValueError, match=r"limits=\(1, -1, 0, 1\)"):
        figures.trajectories(loss, {}, limits=(1, -1, 0, 1))


def test_schedules_differ_by_line():
    curves = {"coded": (range(3), [1.0, 0.5, 0.1]), "printed": (range(3), torch.tensor([1.0, 1.5, 0.1]))}
    ax = figures.schedules(curves, ylabel="threshold")
    np.testing.assert_allclose(line(ax, "coded").get_xydata(), [(0, 1), (1, 0.5), (2, 0.1)])
    np.testing.assert_allclose(line(ax, "printed").get_ydata(), [1, 1.5, 0.1])
    assert line(ax, "coded").get_linestyle() != line(ax, "printed").get_linestyle()
    assert ax.get_ylabel() == "threshold" and ax.get_xlabel() == "optimizer step t" and ax.get_ylim()[0] == 0
    with pytest.raises(ValueError, match="curves is empty"):
        figures.schedules({})
    with pytest.raises(ValueError, match=r"values of 'coded' has shape \(2,\), expected \(3,\)"):
        figures.schedules({"coded": (range(3), [1.0, 0.5])})


def test_hard_concrete_gate_counts_its_samples():
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    gates = masks.hard_concrete(torch.tensor(-1.0, dtype=torch.float64), uniform)
    ax = figures.hard_concrete_gate(-1.0, uniform)
    heights = [bar.get_height() for bar in ax.patches]
    assert sum(heights) == pytest.approx(1)
    assert heights[-2:] == [(gates == 0).double().mean(), (gates == 1).double().mean()]
    assert heights[0] == ((gates > 0) & (gates < 0.05)).double().mean()
    # sampled at the middles of 1000 equal parts, the share of zeros is the formula's up to 1/1000
    (formula,) = [found for found in ax.get_lines() if found.get_label().startswith("1 −")]
    assert formula.get_ydata()[0] == pytest.approx(1 - masks.expected_l0(torch.tensor(-1.0)).item())
    assert formula.get_ydata()[0] == pytest.approx(heights[-2], abs=1e-3)
    # (1.1 + 0.1) / (1 + e) - 0.1
    (test_time,) = [found for found in ax.get_lines() if "test time" in found.get_label()]
    assert test_time.get_xdata()[0] == pytest.approx(0.22273, abs=1e-5)
    with pytest.raises(ValueError, match="uniform reaches from 0 to 1: noise lies between"):
        figures.hard_concrete_gate(0.0, [0.0, 1.0])
    with pytest.raises(ValueError, match=r"score of shape .* not finite"):
        figures.hard_concrete_gate(float("nan"), uniform)


def test_gate_curves_follow_the_formulas():
    ax = figures.gate_curves()
    for label, at_zero in (("mask at test time", 0.5), ("P(M ≠ 0), the expected L0", 1 / (1 + 11 ** (-2 / 3)))):
        x, y = line(ax, label).get_data()
        assert (x[0], x[-1]) == (-6, 6) and np.interp(0, x, y) == pytest.approx(at_zero)
    assert line(ax, "mask at test time").get_ydata()[0] == 0


RUNS = pd.DataFrame(
    [
        ("released", "MNLI", 100.0, 0.4),
        ("released", "MNLI", 1.0, 0.9),
        ("released", "MNLI", 400.0, 0.1),
        ("toy", "inference", 0.0, 0.99),
        ("toy", "inference", 10.0, 0.5),
    ],
    columns=["source", "task", "lam", "kept"],
)


def test_density_against_lambda_has_a_line_for_each_source_and_task():
    ax = figures.density_against_lambda(RUNS)
    np.testing.assert_allclose(line(ax, "released: MNLI").get_xydata(), [(1, 90), (100, 40), (400, 10)])
    np.testing.assert_allclose(line(ax, "toy: inference").get_xydata(), [(10, 50)])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    # halfway between 100 and 400, and between 40 % and 10 %, on logarithmic axes: 200 and 20 %
    ax = figures.density_against_lambda(RUNS, lam=200.0)
    (ring,) = [found for found in ax.get_lines() if found.get_markersize() > 10]
    np.testing.assert_allclose(ring.get_xydata(), [(200, 20)])
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"released: MNLI (20 %)", "toy: inference"}
    for change, message in (
        ({"lam": -1.0}, r"lam=.*-1.0.*: 0 or more"),
        ({"kept": 40.0}, r"kept=.*40.0.*: a fraction in \(0, 1\]"),
        ({"lam": 0.0}, "no run with lam > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            figures.density_against_lambda(RUNS.assign(**change))
    with pytest.raises(ValueError, match="runs lacks the column 'kept'"):
        figures.density_against_lambda(RUNS.drop(columns="kept"))


def test_predicted_measured_draws_every_entry_and_the_identity():
    ax = figures.predicted_measured(W, 2 * W, labels=("−g w", "change of the loss"))
    np.testing.assert_allclose(line(ax, "one point per entry").get_xydata(), [(w, 2 * w) for w in W.ravel().tolist()])
    identity = line(ax, "equal")
    assert identity.get_slope() == 1 and identity.get_xy1() == (0, 0)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("−g w", "change of the loss")
    with pytest.raises(ValueError, match=r"measured has shape \(6,\), expected \(2, 3\)"):
        figures.predicted_measured(W, W.ravel())


def test_shares_are_bars_in_the_order_given():
    ax = figures.shares({"Adam": 0.5, "SGD": 0.993, "none": 0.0}, xlabel="swaps that help (%)", proved=["none"])
    assert [bar.get_width() for bar in ax.patches] == [0.5, 0.993, 0.0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Adam", "SGD", "none"]
    assert [text.get_text() for text in ax.texts] == ["50.0 %", "99.3 %", "0.0 %, proved"]
    assert [bool(bar.get_hatch()) for bar in ax.patches] == [True, True, False], "what is proved looks different"
    assert ax.get_xlabel() == "swaps that help (%)" and ax.yaxis_inverted()
    with pytest.raises(ValueError, match=r"values reach from 0.2 to 40: shares lie in \[0, 1\]"):
        figures.shares({"a": 0.2, "b": 40.0})
    with pytest.raises(ValueError, match="proved='b': must be one of a"):
        figures.shares({"a": 0.2}, proved=["b"])


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.matrix(W.ravel()), r"values has shape \(6,\), expected a matrix"),
        (lambda: figures.matrix(W / 0), r"values of shape \(2, 3\) is empty or holds values that are not finite"),
        (lambda: figures.matrix(torch.empty(0, 3)), r"values of shape \(0, 3\) is empty"),
        (lambda: figures.matrix(W, mask=W.T), r"mask has shape \(3, 2\), expected \(2, 3\)"),
        (lambda: figures.scores_and_mask(W, 0.0), "density=0.0"),
        (lambda: figures.scores_and_mask(W, 0.5, [plt.subplots()[1]]), "axes holds 1 axes, expected 2"),
        (lambda: figures.quadrants(W, G.T), r"G has shape \(3, 2\)"),
        (lambda: figures.quadrants(W, G, kept=W[0]), r"kept has shape \(3,\)"),
    ],
)
def test_bad_input_is_named(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_survivors_shows_each_run_that_removed_something():
    before, after = torch.randn(2, 4, 3)
    model = torch.nn.Linear(3, 4, bias=False)
    model.weight.data = after * (after > 0)
    pruned = SimpleNamespace(density=0.5, model=torch.nn.ModuleDict({"a": model}), masters={"a": after})
    dense = SimpleNamespace(density=1.0)
    axes = figures.survivors(before, {"dense": dense, "magnitude": pruned, "movement": pruned}, "a")
    assert [ax.get_title() for ax in axes] == ["magnitude", "movement"]
    assert len(axes[0].lines[1].get_xdata()) == int((after > 0).sum())
    with pytest.raises(ValueError, match=r"runs=\['dense'\]: none of them"):
        figures.survivors(before, {"dense": dense}, "a")


def test_weights_moved_keeps_kept_and_pruned_apart():
    before = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
    after = torch.tensor([[1.5, -2.5], [2.0, 0.0]])
    kept = torch.tensor([[True, False], [False, True]])
    ax = figures.weights_moved(before, after, kept, method="magnitude")
    np.testing.assert_array_equal(line(ax, "kept").get_xydata(), [(1.0, 0.5), (-4.0, 4.0)])
    np.testing.assert_array_equal(line(ax, "pruned").get_xydata(), [(-2.0, -0.5), (3.0, -1.0)])
    assert line(ax, "kept").get_marker() != line(ax, "pruned").get_marker()
    assert ax.get_title() == "magnitude"
    with pytest.raises(ValueError, match=r"shapes \(2, 2\), \(2, 2\), \(2,\)"):
        figures.weights_moved(before, after, kept[0])
    with pytest.raises(ValueError, match="method='sparta'"):
        figures.weights_moved(before, after, kept, method="sparta")


def test_training_draws_loss_and_density():
    history = pd.DataFrame({"step": [0, 1, 2], "loss": [1.1, 0.9, 0.4], "density": [1.0, 0.5, 0.03]})
    ax = figures.training(history)
    np.testing.assert_allclose(line(ax, "loss (left)").get_xydata(), [(0, 1.1), (1, 0.9), (2, 0.4)])
    (right,) = [other for other in ax.figure.axes if other is not ax]
    np.testing.assert_allclose(line(right, "kept (right)").get_ydata(), [100, 50, 3])
    with pytest.raises(ValueError, match="history lacks the column 'loss'"):
        figures.training(history.drop(columns="loss"))


# Weights that leave


def test_a_frame_shows_the_weights_and_the_score_of_its_step():
    W = torch.tensor([[[1.0, -1.0]], [[1.5, -0.5]], [[2.0, 0.0]]])
    kept, density, score = torch.tensor([[[1, 1]], [[1, 1]], [[1, 0]]]), (1.0, 1.0, 0.5), (40.0, 50.0, 60.0)
    frames = [
        {"step": 10 * i, "weights": W[i], "kept": kept[i], "density": density[i], "score": score[i]} for i in range(3)
    ]
    left, right = figures.weights_leave(frames, 2)
    points = {line.get_label(): line.get_xydata().tolist() for line in left.lines}
    assert points["kept"] == [[1.0, 1.0]] and points["pruned"] == [[-1.0, 1.0]]
    assert left.get_title() == "step 20: 50 % kept" and right.get_title() == "score: 60 %"
    assert right.lines[1].get_xydata().tolist() == [[0, 40], [10, 50], [20, 60]]
    early_left, early = figures.weights_leave(frames, 0)
    assert early.lines[1].get_xydata().tolist() == [[0, 40]] and early.get_title() == "score: 40 %"
    assert early_left.get_ylim() == left.get_ylim() == pytest.approx((-1.05, 1.05))
    with pytest.raises(ValueError, match="frame=3: must be one of the 3 frames"):
        figures.weights_leave(frames, 3)


# The dial


def test_the_dial_draws_points_and_the_line_between_kept_and_pruned():
    x, y, c = torch.tensor([0.5, 1.0, 2.0, 1.5]), torch.tensor([0.2, -0.1, 0.0, 0.3]), 0.4
    score = y + c * x  # 0.4, 0.3, 0.8, 0.9
    ax = figures.dial(x, y, score > 0.5, c)
    kept, pruned = (line(ax, label) for label in ("kept", "pruned"))
    np.testing.assert_allclose(kept.get_xydata(), [[2.0, 0.0], [1.5, 0.3]], atol=1e-6)
    np.testing.assert_allclose(pruned.get_xydata(), [[0.5, 0.2], [1.0, -0.1]], atol=1e-6)
    (x0, y0), (x1, y1) = line(ax, "equal scores").get_xydata()
    assert (y1 - y0) / (x1 - x0) == pytest.approx(-c) and y0 + c * x0 == pytest.approx(0.6)
    assert "equal scores" not in [drawn.get_label() for drawn in figures.dial(x, y, score > 9, c).lines]
    with pytest.raises(ValueError, match=r"movement has shape \(2,\), expected \(4,\)"):
        figures.dial(x, y[:2], score > 0.5, c)


def test_scores_against_the_dial_have_dots_means_and_references():
    runs = pd.DataFrame({"c": [0.0, 0.0, 0.2, 2.0], "score": [50.0, 60.0, 90.0, 80.0]})
    ax = figures.score_against_dial(runs, {"magnitude": 75.0}, ylabel="accuracy")
    assert list(line(ax, "movement from magnitude, mean").get_ydata()) == [55.0, 90.0, 80.0]
    assert list(line(ax, "one run").get_ydata()) == [50.0, 60.0, 90.0, 80.0]
    assert list(line(ax, "magnitude").get_ydata()) == [75.0, 75.0] and ax.get_ylabel() == "accuracy"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "0.2", "2"]
    for wrong, message in (
        (runs.drop(columns="c"), "runs lacks the column 'c'"),
        (runs.iloc[:0], "needs at least one run"),
        (runs.assign(c=-1.0), "c >= 0 in all"),
    ):
        with pytest.raises(ValueError, match=message):
            figures.score_against_dial(wrong)


def test_differing_states_draws_the_last_layer_of_some_runs():
    rows = [("movement", density, step, quantity, layer, factor * (1 + layer) * step * density)
            for density in (0.1, 0.03) for step in (9, 5)
            for quantity, factor in (("between", 1.0), ("entropy", 9.0)) for layer in (0, 1)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["recipe", "density", "step", "quantity", "layer", "value"])
    ax = figures.differing_states(table, {"ten": ("movement", 0.1), "three": ("movement", 0.03)})
    np.testing.assert_allclose(line(ax, "ten").get_xydata(), [(5, 1.0), (9, 1.8)])
    np.testing.assert_allclose(line(ax, "three").get_xydata(), [(5, 0.3), (9, 0.54)])
    assert len(ax.get_lines()) == 2 and ax.get_yscale() == "log"
    with pytest.raises(ValueError, match=r"no run of 'random' at density 0\.1"):
        figures.differing_states(table, {"x": ("random", 0.1)})
    with pytest.raises(ValueError, match="runs is empty"):
        figures.differing_states(table, {})
    with pytest.raises(ValueError, match="lacks the column 'layer'"):
        figures.differing_states(table.drop(columns="layer"), {"ten": ("movement", 0.1)})
