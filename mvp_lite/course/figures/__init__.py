"""Figures of the course: each takes data and returns Axes; `show` displays them, `save` writes them to a file."""

from mvp_lite.course.figures.anatomy import (
    density_by_layer,
    local_and_global,
    row_counts,
    score_against_parameters,
    score_against_weight,
    weights_left,
)
from mvp_lite.course.figures.audit import printed_and_released
from mvp_lite.course.figures.curves import common_densities, crossings, score_curves
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
from mvp_lite.course.figures.distillation import by_temperature, softened, teacher_gains
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
    "by_temperature",
    "common_densities",
    "crossings",
    "density_against_lambda",
    "density_by_layer",
    "gate_curves",
    "hard_concrete_gate",
    "layer_history",
    "local_and_global",
    "matrix",
    "predicted_measured",
    "printed_and_released",
    "quadrants",
    "recorded_bars",
    "row_counts",
    "save",
    "schedules",
    "score_against_density",
    "score_against_parameters",
    "score_against_weight",
    "score_by_task",
    "score_curves",
    "scores_and_mask",
    "shares",
    "show",
    "softened",
    "summarise",
    "teacher_gains",
    "training",
    "trajectories",
    "weights_left",
    "weights_moved",
]
