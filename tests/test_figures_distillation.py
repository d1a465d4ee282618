"""Figures of distillation draw the data they are given."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from mvp_lite.course import figures


def test_softened_draws_a_bar_for_each_class_and_temperature():
    z = torch.tensor([4.0, 2.0, -2.0])
    ax = figures.softened(z, [1, 4], ["a", "b", "c"])
    for bars, T in zip(ax.containers, (1, 4), strict=True):
        heights = [bar.get_height() for bar in bars]
        assert heights == pytest.approx(torch.softmax(z / T, 0).tolist()) and sum(heights) == pytest.approx(1)
        assert bars.get_label() == f"T = {T}"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b", "c"]
    left, right = ([bar.get_x() + bar.get_width() / 2 for bar in bars] for bars in ax.containers)
    assert all(round((a + b) / 2, 9) == i for i, (a, b) in enumerate(zip(left, right, strict=True)))


@pytest.mark.parametrize(
    ("logits", "temperatures", "labels", "message"),
    [
        ([[1.0, 2.0]], [1], None, "one row of 2 or more"),
        ([1.0], [1], None, "one row of 2 or more"),
        ([1.0, float("nan")], [1], None, "finite"),
        ([1.0, 2.0], [], None, "positive numbers"),
        ([1.0, 2.0], [0.0], None, "positive numbers"),
        ([1.0, 2.0], [1] * 8, None, "1 to 7"),
        ([1.0, 2.0], [1], ["a"], "2 names"),
    ],
)
def test_softened_refuses(logits, temperatures, labels, message):
    with pytest.raises(ValueError, match=message):
        figures.softened(logits, temperatures, labels)


def test_by_temperature_draws_powers_as_straight_lines():
    T = [1.0, 2.0, 4.0]
    ax = figures.by_temperature(T, {"flat": [3.0, 3.0, 3.0], "falling": [1.0, 0.25, 0.0625]})
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [line.get_label() for line in ax.get_lines()] == ["flat", "falling"]
    assert np.allclose(ax.get_lines()[1].get_xydata(), [[1, 1], [2, 0.25], [4, 0.0625]])
    with pytest.raises(ValueError, match="curves is empty"):
        figures.by_temperature(T, {})
    with pytest.raises(ValueError, match=r"'short' has shape \(1,\)"):
        figures.by_temperature(T, {"short": [1.0]})
    with pytest.raises(ValueError, match="positive"):
        figures.by_temperature(T, {"zero": [1.0, 0.0, 1.0]})


GAINS = pd.DataFrame(
    [("a", "movement", 0.1, 2.0), ("a", "movement", 0.03, 1.0), ("a", "l0", 0.05, 0.5), ("b", "magnitude", 0.9, -1.0)],
    columns=["task", "method", "kept", "gain"],
)


def test_teacher_gains_has_a_panel_for_each_task():
    left, right = figures.teacher_gains(GAINS)
    assert (left.get_title(), right.get_title()) == ("a", "b")
    lines = {line.get_label(): line.get_xydata() for line in left.get_lines()}
    assert np.allclose(lines["movement"], [[3, 1], [10, 2]]) and np.allclose(lines["L0"], [[5, 0.5]])
    (loss,) = [line for line in right.get_lines() if line.get_label() == "magnitude"]
    assert np.allclose(loss.get_xydata(), [[90, -1]])
    assert left.get_ylim() == right.get_ylim()
    (legend,) = left.figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"movement", "L0", "magnitude"}
    ax = plt.subplots()[1]
    assert figures.teacher_gains(GAINS[GAINS["task"] == "b"], [ax])[0] is ax


@pytest.mark.parametrize(
    ("gains", "message"),
    [
        (GAINS.drop(columns="kept"), "lacks the column 'kept'"),
        (GAINS.head(0), "no row"),
        (GAINS.assign(method="lottery"), "method='lottery'"),
    ],
)
def test_teacher_gains_refuses(gains, message):
    with pytest.raises(ValueError, match=message):
        figures.teacher_gains(gains)
    with pytest.raises(ValueError, match="one for each task"):
        figures.teacher_gains(GAINS, [plt.subplots()[1]])
