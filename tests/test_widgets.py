"""Widgets and `setup` outside a browser."""

import random

import ipywidgets
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

import mvp_lite as mvp
from mvp_lite.course import figures


@pytest.fixture
def results():
    cells = [("a", "movement", 0.03, 90.0), ("a", "magnitude", 0.1, 80.0), ("b", "movement", 0.3, 70.0)]
    cells += [("a", "dense", 1.0, 99.0), ("b", "dense", 1.0, 98.0)]
    table = pd.DataFrame(cells, columns=["task", "method", "density", "score"])
    return table.assign(split="validation", seed=0)


@pytest.fixture
def drawn(monkeypatch):
    calls = []

    recorded_bars = figures.recorded_bars

    def draw(results, task, density, source):
        calls.append((task, density, source))
        return recorded_bars(results, task, density, source=source)

    monkeypatch.setattr(figures, "recorded_bars", draw)
    yield calls
    plt.close("all")


def test_explore_offers_what_was_recorded_and_draws_it(results, drawn):
    widget = mvp.widgets.explore(results, source="some.csv")
    assert isinstance(widget, ipywidgets.interactive)
    task, density = widget.children[:2]
    assert task.options == ("a", "b")
    assert density.options == (("3 %", 0.03), ("10 %", 0.1))
    widget.update()
    density.value = 0.1
    task.value = "b"
    assert density.options == (("30 %", 0.3),)
    assert drawn[0] == ("a", 0.03, "some.csv") and ("a", 0.1, "some.csv") in drawn
    assert drawn[-1] == ("b", 0.3, "some.csv")


def test_explore_keeps_the_density_if_the_other_task_has_it(results, drawn):
    both = pd.concat([results, results[results["density"] == 0.1].assign(task="b")])
    widget = mvp.widgets.explore(both)
    task, density = widget.children[:2]
    density.value = 0.1
    task.value = "b"
    assert density.value == 0.1


def test_explore_needs_a_pruned_row(results):
    with pytest.raises(ValueError, match="no pruned model"):
        mvp.widgets.explore(results[results["method"] == "dense"])


def test_setup_makes_runs_repeat_and_says_nothing(capsys, device):
    drawn = []
    with plt.rc_context():
        for _ in range(2):
            assert mvp.setup(seed=3) == torch.device(device)
            drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
        assert plt.rcParams["axes.grid"]
    assert drawn[0] == drawn[1]
    assert capsys.readouterr() == ("", "")
    for seed in (-1, 2**32, 1.0, True):
        with pytest.raises(ValueError, match=r"seed=.*a whole number"):
            mvp.setup(seed)
