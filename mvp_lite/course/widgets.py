"""Widgets for notebooks: sliders around the figure functions of the same names.

Moving a slider only draws: histories and runs are recorded before. Arrow keys move a slider that has the focus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt

from mvp_lite.course import figures
from mvp_lite.course.analysis import UNPRUNED, summarize
from mvp_lite.schedule import cubic

__all__ = [
    "along_swap",
    "dial",
    "explore",
    "hard_concrete_gate",
    "layer_history",
    "neurons_left",
    "removal",
    "schedules",
    "scores_and_mask",
    "scores_and_threshold",
    "softened",
    "weights_leave",
]

_STEPS = 100  # length of the run whose schedules are drawn


def layer_history(history: Mapping[str, Any]) -> Any:
    """A slider over the steps of a recorded history: weights, gradients, scores and mask of one small layer.

    Args:
        history: "W", "G", "S" and "M", each (steps, rows, columns), as `figures.layer_history` takes it.
    """

    def draw(step: int) -> None:
        figures.layer_history(history, step)

    return _drawn(draw, step=_steps(history))


def dial(runs: Mapping[float, Mapping[str, Any]]) -> Any:
    """A slider over the dial c of recorded runs: which weights stay, and the error or score of each run.

    Args:
        runs: c -> {"magnitude", "movement", "kept"} as `figures.dial` takes them, and "result", a text for the title.

    Raises:
        ValueError: no run.
    """
    if not runs:
        raise ValueError("runs is empty: there is nothing to turn")
    x, y = (np.concatenate([np.ravel(run[name]) for run in runs.values()]) for name in ("magnitude", "movement"))
    limits = float(x.max()), float(y.min()), float(y.max())

    def draw(c: float) -> None:
        run = runs[c]
        ax = figures.dial(run["magnitude"], run["movement"], run["kept"], c, limits=limits)
        ax.set_title(f"c = {c:g}: {run['result']}")

    style, layout = {"description_width": "6.5em"}, {"width": "28em"}
    options = [(f"{c:g}", c) for c in sorted(runs)]
    return _drawn(draw, c=ipywidgets.SelectionSlider(options=options, description="c", style=style, layout=layout))


def removal(loss: Callable[[torch.Tensor], torch.Tensor], weights: Mapping[str, torch.Tensor]) -> Any:
    """A slider over the weights of a net: what removing this one does to the loss, measured and predicted.

    Args:
        loss: takes a vector of weights and returns a number.
        weights: title -> vector of weights, each with a panel of its own; all of one length.

    Raises:
        ValueError: no vector, or vectors whose lengths differ.
    """
    lengths = {len(w) for w in weights.values()}
    if len(lengths) != 1:
        raise ValueError(f"weights: needs at least one vector, and vectors of one length (found: {sorted(lengths)})")

    def draw(weight: int) -> None:
        _, axes = plt.subplots(1, len(weights), figsize=(11.0, 3.6), sharey=True, squeeze=False, layout="constrained")
        for ax, (title, w) in zip(axes[0], weights.items(), strict=True):
            figures.removal(loss, w, weight, ax, second_order=True)
            ax.set_title(f"{title}: w[{weight}] = {w[weight]:.2f}")
        for ax in axes[0, :-1]:
            ax.get_legend().remove()
        for ax in axes[0, 1:]:
            ax.set_ylabel("")

    return _drawn(draw, weight=_slider(ipywidgets.IntSlider, "weight", 0, 0, lengths.pop() - 1))


def along_swap(loss: Callable[[torch.Tensor], torch.Tensor], before: torch.Tensor, after: torch.Tensor) -> Any:
    """A slider over the scale s of all weights: the loss on the way through a swap, and its first-order change.

    Args:
        loss: takes the outputs and returns a number.
        before, after: the outputs before and after the swap at s = 1; at s they are s times as large.
    """

    def draw(s: float) -> None:
        ax = figures.along_swap(loss, s * before, s * after)
        change = float(loss(s * after) - loss(s * before))
        ax.set_title(f"all weights times {s:g}: the loss {'rises' if change > 0 else 'falls'}")

    return _drawn(draw, s=_slider(ipywidgets.FloatSlider, "s", 1.0, 1.0, 10.0, step=0.2))


def weights_leave(frames: Sequence[Mapping[str, Any]], method: str = "movement") -> Any:
    """A player over the frames of a run: the weights of one matrix leave step by step, with the score beside them.

    Args:
        frames: as `figures.weights_leave` takes them.
    """
    slider = _slider(ipywidgets.IntSlider, "frame", 0, 0, len(frames) - 1)
    play = ipywidgets.Play(min=0, max=slider.max, interval=400, description="play")
    ipywidgets.jslink((play, "value"), (slider, "value"))

    def draw(frame: int) -> None:
        figures.weights_leave(frames, frame, method)

    return ipywidgets.VBox([play, _drawn(draw, frame=slider)])


def scores_and_mask(scores: Any) -> Any:
    """A slider over the density (percent kept): the scores, and their Top_v mask."""

    def draw(kept: int) -> None:
        figures.scores_and_mask(scores, kept / 100)

    return _drawn(draw, kept=_slider(ipywidgets.IntSlider, "kept (%)", 50, 1, 100))


def schedules() -> Any:
    """Sliders for warm-up, cool-down and final density: Sanh et al. 2020, Eq. 5 as printed and as coded."""

    def draw(warmup: int, cooldown: int, final: float) -> None:
        steps = range(_STEPS + 1)
        coded = [cubic(step, 1.0, final, _STEPS, warmup, cooldown) for step in steps]
        printed = [_printed(step, 1.0, final, _STEPS, warmup, cooldown) for step in steps]
        ax = figures.schedules({"as coded": (steps, coded), "as printed": (steps, printed)})
        ax.set_ylim(-0.05, max(1.05, 1.05 * max(printed)))

    return _drawn(
        draw,
        warmup=_slider(ipywidgets.IntSlider, "warm-up", 10, 0, 45),
        cooldown=_slider(ipywidgets.IntSlider, "cool-down", 20, 0, 45),
        final=_slider(ipywidgets.FloatSlider, "final density", 0.1, 0.01, 0.9, step=0.01),
    )


def hard_concrete_gate(samples: int = 5000) -> Any:
    """A slider over the score: sampled gates (the noise is sampled once), and the value used at test time."""
    uniform = torch.rand(samples, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).clamp(1e-9, 1 - 1e-9)

    def draw(score: float) -> None:
        figures.hard_concrete_gate(score, uniform)

    return _drawn(draw, score=_slider(ipywidgets.FloatSlider, "score S", 0.0, -6.0, 6.0, step=0.25))


def scores_and_threshold(runs: Mapping[float, Sequence[Mapping[str, Any]]]) -> Any:
    """Sliders over lambda and the moments of recorded runs of soft movement: all scores, kept and pruned.

    Args:
        runs: lambda -> moments in order of time, as `figures.scores_and_threshold` takes them; all runs of one length.

    Raises:
        ValueError: no run, or runs of different lengths.
    """
    lengths = {len(frames) for frames in runs.values()}
    if len(lengths) != 1:
        raise ValueError(f"runs of {sorted(lengths)} moments: expected runs of one length")

    def draw(lam: float, moment: int) -> None:
        figures.scores_and_threshold([runs[lam][moment]])

    style, layout = {"description_width": "6.5em"}, {"width": "28em"}
    options = [(f"{lam:g}", lam) for lam in sorted(runs)]
    strength = ipywidgets.SelectionSlider(options=options, description="λ", style=style, layout=layout)
    last = lengths.pop() - 1  # the runs differ there; at the start they are one
    return _drawn(draw, lam=strength, moment=_slider(ipywidgets.IntSlider, "moment", last, 0, last))


def neurons_left(pruned: Mapping[float, Mapping[str, Any]]) -> Any:
    """A slider over budgets of operations: the neurons that each pays for, and the score of what is left.

    Args:
        pruned: budget -> {"masks", "score"} as `figures.neurons_left` takes them.

    Raises:
        ValueError: no budget.
    """
    if not pruned:
        raise ValueError("pruned is empty: there is no budget to show")

    def draw(budget: float) -> None:
        figures.neurons_left(pruned, budget)

    options = [(f"{100 * flops:g} %", flops) for flops in sorted(pruned, reverse=True)]
    style, layout = {"description_width": "6.5em"}, {"width": "28em"}
    return _drawn(
        draw, budget=ipywidgets.SelectionSlider(options=options, description="budget", style=style, layout=layout)
    )


def softened(logits: Any, labels: Sequence[str] | None = None) -> Any:
    """A slider over the temperature: one row of logits as probabilities, at temperature 1 and at the chosen one."""
    figures.softened(logits, [1.0], labels)  # raises on bad input before there is a slider
    plt.close()

    def draw(temperature: float) -> None:
        figures.softened(logits, [1.0, temperature], labels)

    return _drawn(draw, temperature=_slider(ipywidgets.FloatSlider, "T", 2.0, 0.5, 16.0, step=0.5))


def explore(results: pd.DataFrame, source: str = "recorded runs") -> Any:
    """Menus for task and density: the recorded scores of all methods (`figures.recorded_bars`).

    The densities offered are those recorded for the task.

    Raises:
        ValueError: as `analysis.summarize`, or no pruned run.
    """
    table = summarize(results)
    pruned = table[~table["method"].isin(UNPRUNED)]
    if pruned.empty:
        raise ValueError("results holds no pruned model: there is no density to choose")
    densities = {task: sorted(rows["density"].unique()) for task, rows in pruned.groupby("task")}

    task = ipywidgets.Dropdown(options=list(densities), description="task")
    density = ipywidgets.SelectionSlider(description="kept", options=_options(densities[task.value]))

    def offer_densities(change: dict[str, Any]) -> None:
        before = density.value
        density.options = _options(densities[change["new"]])
        if before in densities[change["new"]]:
            density.value = before

    def draw(task: str, density: float) -> None:
        if density in densities[task]:
            figures.recorded_bars(results, task, density, source=source)
            plt.show()

    task.observe(offer_densities, names="value")
    return ipywidgets.interactive(draw, task=task, density=density)


def _options(densities: list[float]) -> list[tuple[str, float]]:
    return [(f"{100 * density:g} %", float(density)) for density in densities]


def _drawn(draw: Callable[..., None], **sliders: Any) -> Any:
    """Sliders around `draw`. It is called once here, so that bad input raises now and not when the widget is shown."""
    draw(**{name: slider.value for name, slider in sliders.items()})
    plt.close()

    def shown(**values: Any) -> None:
        draw(**values)
        plt.show()

    return ipywidgets.interactive(shown, **sliders)


def _slider(slider_type: Any, description: str, value: float, low: float, high: float, **options: Any) -> Any:
    style = {"description_width": "6.5em"}
    layout = {"width": "28em"}
    return slider_type(value=value, min=low, max=high, description=description, style=style, layout=layout, **options)


def _steps(history: Mapping[str, Any]) -> Any:
    if missing := [name for name in "WGM" if name not in history]:
        raise ValueError(f"history lacks {missing[0]!r} (found: {', '.join(map(str, history))})")
    return _slider(ipywidgets.IntSlider, "step", 0, 0, len(history["W"]) - 1)


def _printed(step: int, initial: float, final: float, total: int, warmup: int, cooldown: int) -> float:
    """Sanh et al. 2020, Eq. 5 as printed: with t - t_i - t_f in the numerator the curve jumps at both ends."""
    if step < warmup:
        return initial
    if step >= total - cooldown:
        return final
    return final + (initial - final) * (1 - (step - warmup - cooldown) / (total - warmup - cooldown)) ** 3
