"""Figures of the course: each takes data and returns Axes; `show` displays them, `save` writes them to a file."""

from mvp_lite.course.figures.anatomy import (
    density_by_head,
    density_by_layer,
    local_and_global,
    row_counts,
    score_against_parameters,
    score_against_weight,
    weights_left,
)
from mvp_lite.course.figures.audit import points_lost, printed_and_released, printed_by_task
from mvp_lite.course.figures.budgets import neurons_left
from mvp_lite.course.figures.comparisons import predicted_measured, shares
from mvp_lite.course.figures.deployment import file_sizes, gains, runs, speed_ups
from mvp_lite.course.figures.dial import dial, score_against_dial
from mvp_lite.course.figures.distillation import by_temperature, softened, teacher_gains
from mvp_lite.course.figures.during_training import column_masks, optimizer_scores, paired_errors, score_histograms
from mvp_lite.course.figures.first_order import dot_plot, removal, scores_measured
from mvp_lite.course.figures.gates import (
    density_against_lambda,
    gate_curves,
    hard_concrete_gate,
    penalty_pulls,
    scores_and_threshold,
)
from mvp_lite.course.figures.gradient_free import (
    UNLABELED_STYLE,
    choices,
    neurons_by_layer,
    operations_by_task,
    score_against_operations,
)
from mvp_lite.course.figures.matrices import layer_history, matrix, scores_and_mask
from mvp_lite.course.figures.mechanism import differing_states
from mvp_lite.course.figures.movement import quadrants, survivors, trajectories, weights_leave, weights_moved
from mvp_lite.course.figures.neurons import activations_by_token, representatives, scores_by_norm
from mvp_lite.course.figures.published import differences, possible_means, speed_against_operations
from mvp_lite.course.figures.results import (
    leads_by_steps,
    recorded_bars,
    score_against_density,
    score_by_task,
    score_curves,
)
from mvp_lite.course.figures.score_gradient import computation_graph, loss_by_mask_and_score, weight_over_steps
from mvp_lite.course.figures.selection import decided_before, errors_of_masks
from mvp_lite.course.figures.structure import group_masks, score_against_size, speed_and_operations
from mvp_lite.course.figures.style import METHOD_STYLE, OKABE_ITO, STYLE, save, show
from mvp_lite.course.figures.swaps import along_swap, first_and_true, loss_and_swaps, overtaking, race
from mvp_lite.course.figures.training import schedules, training

__all__ = [
    "METHOD_STYLE",
    "OKABE_ITO",
    "STYLE",
    "UNLABELED_STYLE",
    "activations_by_token",
    "along_swap",
    "by_temperature",
    "choices",
    "column_masks",
    "computation_graph",
    "decided_before",
    "density_against_lambda",
    "density_by_head",
    "density_by_layer",
    "dial",
    "differences",
    "differing_states",
    "dot_plot",
    "errors_of_masks",
    "file_sizes",
    "first_and_true",
    "gains",
    "gate_curves",
    "group_masks",
    "hard_concrete_gate",
    "layer_history",
    "leads_by_steps",
    "local_and_global",
    "loss_and_swaps",
    "loss_by_mask_and_score",
    "matrix",
    "neurons_by_layer",
    "neurons_left",
    "operations_by_task",
    "optimizer_scores",
    "overtaking",
    "paired_errors",
    "penalty_pulls",
    "points_lost",
    "possible_means",
    "predicted_measured",
    "printed_and_released",
    "printed_by_task",
    "quadrants",
    "race",
    "recorded_bars",
    "removal",
    "representatives",
    "row_counts",
    "runs",
    "save",
    "schedules",
    "score_against_density",
    "score_against_dial",
    "score_against_operations",
    "score_against_parameters",
    "score_against_size",
    "score_against_weight",
    "score_by_task",
    "score_curves",
    "score_histograms",
    "scores_and_mask",
    "scores_and_threshold",
    "scores_by_norm",
    "scores_measured",
    "shares",
    "show",
    "softened",
    "speed_against_operations",
    "speed_and_operations",
    "speed_ups",
    "survivors",
    "teacher_gains",
    "training",
    "trajectories",
    "weight_over_steps",
    "weights_leave",
    "weights_left",
    "weights_moved",
]
