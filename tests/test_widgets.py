"""Widgets and `setup` outside a browser; test_browser.py moves their sliders in one."""

import random

import ipywidgets
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from mvp_lite import course, schedule
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
    widget = course.widgets.explore(results, source="some.csv")
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
    widget = course.widgets.explore(both)
    task, density = widget.children[:2]
    density.value = 0.1
    task.value = "b"
    assert density.value == 0.1


def test_explore_needs_a_pruned_run(results):
    with pytest.raises(ValueError, match="no pruned model"):
        course.widgets.explore(results[results["method"] == "dense"])


@pytest.fixture
def history():
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.randn(5, 2, 3, generator=generator, dtype=torch.float64) for name in "WGS"}
    return made | {"M": (made["S"] > 0).double()}


@pytest.fixture
def calls(monkeypatch):
    """Every figure that is drawn: (name, arguments, keywords)."""
    found = []

    def record(name, function):
        def called(*args, **options):
            found.append((name, args, options))
            return function(*args, **options)

        return called

    for name in set(course.widgets.__all__) - {"explore"}:
        monkeypatch.setattr(figures, name, record(name, getattr(figures, name)))
    yield found
    plt.close("all")


def slider(widget, name):
    (found,) = [child for child in widget.children if getattr(child, "description", None) == name]
    return found


def test_every_widget_has_a_figure_of_its_name():
    assert set(course.widgets.__all__) - {"explore"} <= set(figures.__all__)


def test_layer_history_only_draws_what_was_recorded(history, calls):
    widget = course.widgets.layer_history(history)
    assert isinstance(widget, ipywidgets.interactive)
    step = slider(widget, "step")
    assert (step.min, step.max, step.value) == (0, 4, 0)
    before = {name: film.clone() for name, film in history.items()}
    step.value = 3
    (name, args, _) = calls[-1]
    assert name == "layer_history" and args[0] is history and args[1] == 3
    assert all(torch.equal(before[name], history[name]) for name in history)


def test_layer_history_needs_all_four(history):
    with pytest.raises(ValueError, match="history lacks 'S'"):
        course.widgets.layer_history({name: history[name] for name in "WGM"})


def test_the_dial_shows_the_run_of_its_value(calls):
    x = torch.tensor([[0.5, 1.5, 2.0]])
    runs = {c: {"magnitude": x, "movement": x.cos() + c, "kept": x > 1 + c, "result": f"error {c}"} for c in (0.5, 0.0)}
    c = slider(course.widgets.dial(runs), "c")
    assert [value for _, value in c.options] == [0.0, 0.5]
    c.value = 0.5
    name, args, options = calls[-1]
    assert name == "dial" and args[2] is runs[0.5]["kept"] and args[3] == 0.5
    assert options["limits"] == pytest.approx((2.0, float(x.cos().min()), float(x.cos().max()) + 0.5))
    with pytest.raises(ValueError, match="runs is empty"):
        course.widgets.dial({})


def test_a_player_shows_the_frame_of_its_slider(calls):
    W = torch.randn(3, 2, 4)
    frames = [{"weights": w, "kept": w > 0, "step": 10 * i, "density": 0.5, "score": 40 + i} for i, w in enumerate(W)]
    play, shown = course.widgets.weights_leave(frames, "magnitude").children
    frame = slider(shown, "frame")
    assert (play.min, play.max, frame.max) == (0, 2, 2)
    frame.value = 2
    assert calls[-1] == ("weights_leave", (frames, 2, "magnitude"), {})


def test_along_swap_scales_the_outputs(calls):
    before, after = torch.tensor([-1.0, 0.0]), torch.tensor([0.0, 1.5])

    def loss(a):
        return 0.5 * (a - 1).square().sum()

    s = slider(course.widgets.along_swap(loss, before, after), "s")
    assert (s.min, s.max, s.value) == (1, 10, 1)
    s.value = 4.0
    name, (function, start, end), _ = calls[-1]
    assert name == "along_swap" and function is loss
    assert torch.equal(start, 4 * before) and torch.equal(end, 4 * after)


def test_scores_and_mask_takes_percentages(calls):
    scores = torch.randn(4, 5)
    kept = slider(course.widgets.scores_and_mask(scores), "kept (%)")
    kept.value = 30
    assert calls[-1] == ("scores_and_mask", (scores, 0.3), {})
    assert (kept.min, kept.max) == (1, 100)


def test_schedules_draw_eq_5_as_coded_and_as_printed(calls):
    widget = course.widgets.schedules()
    slider(widget, "cool-down").value = 30
    slider(widget, "cool-down").value = 20
    (curves,) = calls[-1][1]
    (steps, coded), (_, printed) = curves["as coded"], curves["as printed"]
    assert list(steps) == list(range(101))
    assert coded == [schedule.cubic(step, 1.0, 0.1, 100, 10, 20) for step in steps]
    # the printed numerator is 20 steps behind: .1 + .9 (1 + 20/70)^3 at 10, .1 + .9 (21/70)^3 at 79
    assert printed[9] == 1 and printed[10] == pytest.approx(0.1 + 0.9 * (9 / 7) ** 3)
    assert printed[79] == pytest.approx(0.1 + 0.9 * 0.3**3) and printed[80] == 0.1
    slider(widget, "warm-up").value, slider(widget, "cool-down").value = 1000, 1000
    assert slider(widget, "warm-up").value + slider(widget, "cool-down").value < 100
    slider(widget, "final density").value = 0.5
    assert calls[-1][1][0]["as coded"][1][-1] == 0.5


def test_hard_concrete_gate_draws_its_noise_once(calls):
    score = slider(course.widgets.hard_concrete_gate(), "score S")
    score.value = 1.0
    score.value = -2.0
    assert [args[0] for _, args, _ in calls][-2:] == [1.0, -2.0]
    assert len({id(uniform) for _, (_, uniform), _ in calls}) == 1


def test_scores_and_threshold_has_a_slider_for_lambda_and_one_for_time(calls):
    S = torch.randn(2, 3)
    runs = {lam: [{"step": 10 * i, "tau": 0.05 * i, "scores": S - lam * i} for i in range(3)] for lam in (1.0, 0.0)}
    widget = course.widgets.scores_and_threshold(runs)
    lam, moment = slider(widget, "λ"), slider(widget, "moment")
    assert [value for _, value in lam.options] == [0.0, 1.0] and (moment.min, moment.max, moment.value) == (0, 2, 2)
    lam.value, moment.value = 1.0, 1
    name, (frames,), _ = calls[-1]
    assert name == "scores_and_threshold" and len(frames) == 1 and frames[0] is runs[1.0][1]
    for wrong in ({}, runs | {2.0: runs[1.0][:2]}):
        with pytest.raises(ValueError, match="runs of one length"):
            course.widgets.scores_and_threshold(wrong)


def test_neurons_left_has_a_slider_over_the_budgets(calls):
    some = torch.arange(32) % 3 > 0
    pruned = {flops: {"masks": [some], "score": 100 * flops} for flops in (0.5, 0.9, 0.6)}
    budget = slider(course.widgets.neurons_left(pruned), "budget")
    assert budget.options == (("90 %", 0.9), ("60 %", 0.6), ("50 %", 0.5))
    budget.value = 0.6
    assert calls[-1] == ("neurons_left", (pruned, 0.6), {})
    with pytest.raises(ValueError, match="no budget"):
        course.widgets.neurons_left({})


def test_removal_draws_one_weight_of_each_vector(calls):
    def loss(w):
        return (w - 1).square().sum()

    nets = {"before": torch.tensor([1.0, -2.0, 3.0]), "after": torch.tensor([1.0, 0.5, 2.0])}
    weight = slider(course.widgets.removal(loss, nets), "weight")
    assert (weight.min, weight.max, weight.value) == (0, 2, 0)
    weight.value = 2
    for (name, (given, w, index, ax), options), title in zip(calls[-2:], ("before", "after"), strict=True):
        assert (name, given, index, options) == ("removal", loss, 2, {"second_order": True})
        assert w is nets[title] and ax.get_title() == f"{title}: w[2] = {w[2]:.2f}"
    assert calls[-2][1][3].get_legend() is None and calls[-1][1][3].get_legend() is not None
    with pytest.raises(ValueError, match=r"vectors of one length \(found: \[\]\)"):
        course.widgets.removal(loss, {})
    with pytest.raises(ValueError, match=r"found: \[2, 3\]"):
        course.widgets.removal(loss, nets | {"short": torch.ones(2)})


def test_softened_also_draws_temperature_one(calls):
    T = slider(course.widgets.softened([4.0, 2.0, -2.0], ["a", "b", "c"]), "T")
    assert T.min > 0 and T.value == 2.0
    T.value = 8.0
    assert calls[-1] == ("softened", ([4.0, 2.0, -2.0], [1.0, 8.0], ["a", "b", "c"]), {})
    with pytest.raises(ValueError, match="2 names"):
        course.widgets.softened([1.0, 2.0], ["a"])


def test_setup_makes_runs_repeat_and_says_nothing(capsys, device):
    drawn = []
    with plt.rc_context():
        for _ in range(2):
            assert course.setup(seed=3) == torch.device(device)
            drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
        assert plt.rcParams["axes.grid"]
    assert drawn[0] == drawn[1]
    assert capsys.readouterr() == ("", "")
    for seed in (-1, 2**32, 1.0, True):
        with pytest.raises(ValueError, match=r"seed=.*an integer"):
            course.setup(seed)
