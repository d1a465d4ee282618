"""Figures of published tables draw the numbers they are given, and ask for what they need."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mvp_lite import course

PAIRS = pd.DataFrame(
    [("mnli", "60 %", -5.0, 0.07), ("mnli", "70 %", -2.0, 0.06), ("qqp", "60 %", 1.0, 0.5)],
    columns=["name", "group", "difference", "error"],
)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def drawn(ax):
    return {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}


def test_possible_means():
    ax = course.figures.possible_means([1, 5, 2], [0.5, 1.0, 1.5], stated=2, total=12)
    lines = drawn(ax)
    assert lines["possible"] == [[1, 1], [2, 5], [3, 2]]
    assert lines["expected by chance"] == [[1, 0.5], [2, 1.0], [3, 1.5]]
    assert lines["stated: 2 runs"] == [[2, 5]] and ax.get_ylabel() == "numbers of 12"


@pytest.mark.parametrize(("chance", "stated"), [([1.0], 1), ([1.0, 2.0], 3), ([1.0, 2.0], 0)])
def test_possible_means_of_what(chance, stated):
    with pytest.raises(ValueError, match="stated="):
        course.figures.possible_means([1, 2], chance, stated=stated, total=12)


def test_differences():
    ax = course.figures.differences(PAIRS)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["mnli", "qqp"] and ax.yaxis_inverted()
    points = {box.get_label(): box.lines[0].get_xydata().tolist() for box in ax.containers}
    assert [[x, round(y)] for x, y in points["60 %"]] == [[-5, 0], [1, 1]]
    assert [[x, round(y)] for x, y in points["70 %"]] == [[-2, 0]]
    bars = [segment[:, 0].tolist() for box in ax.containers for segment in box.lines[2][0].get_segments()]
    assert [[round(x, 6) for x in bar] for bar in bars] == [[-5.14, -4.86], [0.0, 2.0], [-2.12, -1.88]]


def test_differences_of_what():
    with pytest.raises(ValueError, match="5 groups"):
        course.figures.differences(pd.concat([PAIRS.assign(group=name) for name in "abcde"]))
    with pytest.raises(ValueError, match="0 names"):
        course.figures.differences(PAIRS.iloc[:0])


def test_speed_against_operations():
    ax = course.figures.speed_against_operations([0, 0.2], {"paper": (0.6, [1.44, 1.59]), "ours": (0.6, [1.61])})
    lines = drawn(ax)
    assert list(lines) == ["ideal", "20 % of the time fixed", "paper", "ours"] and ax.xaxis_inverted()
    assert lines["paper"] == [[60, 1.44], [60, 1.59]] and lines["ours"] == [[60, 1.61]]
    for name, r in (("ideal", 0.0), ("20 % of the time fixed", 0.2)):
        for x, y in lines[name]:
            assert y == pytest.approx(1 / (r + (1 - r) * x / 100))


@pytest.mark.parametrize("fixed", [[1.0], [-0.1], [0, 0.1, 0.2, 0.3]])
def test_speed_of_what(fixed):
    with pytest.raises(ValueError, match="at most three"):
        course.figures.speed_against_operations(fixed, {})
