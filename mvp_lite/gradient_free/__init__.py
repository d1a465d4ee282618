"""Structured pruning without training: Nova et al. (ICML 2023) and the mask search of Kwon et al. (NeurIPS 2022)."""

from mvp_lite.gradient_free.pruning import (
    METHODS,
    NeuronPruning,
    d2_scores,
    operations,
    prune_neurons,
    r2_scores,
    solve_scales,
)

__all__ = ["METHODS", "NeuronPruning", "d2_scores", "operations", "prune_neurons", "r2_scores", "solve_scales"]
