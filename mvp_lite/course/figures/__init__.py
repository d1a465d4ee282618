"""Figures of the course: each takes data and returns Axes; `show` displays them, `save` writes them to a file."""

from mvp_lite.course.figures.derivations import (
    density_against_lambda,
    gate_curves,
    hard_concrete_gate,
    layer_history,
    matrix,
    predicted_measured,
    quadrants,
    schedules,
    scores_and_mask,
    shares,
    trajectories,
)
from mvp_lite.course.figures.results import (
    average_over_tasks,
    recorded_bars,
    score_against_density,
    score_by_task,
    summarise,
    training,
    weights_moved,
)
from mvp_lite.course.figures.style import METHOD_STYLE, OKABE_ITO, STYLE, save, show

__all__ = [
    "METHOD_STYLE",
    "OKABE_ITO",
    "STYLE",
    "average_over_tasks",
    "density_against_lambda",
    "gate_curves",
    "hard_concrete_gate",
    "layer_history",
    "matrix",
    "predicted_measured",
    "quadrants",
    "recorded_bars",
    "save",
    "schedules",
    "score_against_density",
    "score_by_task",
    "scores_and_mask",
    "shares",
    "show",
    "summarise",
    "training",
    "trajectories",
    "weights_moved",
]
